//! Numbers as files hold them, little-endian f32, f16 and bf16, and how they become
//! f32: exactly, since f32 holds every value of the others.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::borrow::Cow;

use half::f16;

use super::vectorised::vectorised;

/// A type of number in a file.
pub trait Stored: Send + Sync {
    /// Bytes that one takes.
    const BYTES: usize;

    /// The number in the first [`Stored::BYTES`] of `bytes`.
    fn value(bytes: &[u8]) -> f32;

    /// Eight numbers from `at` on.
    ///
    /// # Safety
    /// The CPU has AVX2 and F16C, and `8 * BYTES` bytes may be read.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(at: *const u8) -> __m256;
}

pub struct F32;
pub struct F16;
pub struct Bf16;

impl Stored for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> __m256 {
        // SAFETY: as the caller vouches.
        unsafe { _mm256_loadu_ps(at.cast()) }
    }
}

impl Stored for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> __m256 {
        // SAFETY: as the caller vouches.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
}

impl Stored for Bf16 {
    const BYTES: usize = 2;

    /// bf16 is the upper half of an f32.
    #[inline(always)]
    fn value(bytes: &[u8]) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(at: *const u8) -> __m256 {
        // SAFETY: as the caller vouches.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
}

/// f32 numbers as a file would hold them.
pub fn bytes_of(x: &[f32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        // SAFETY: every byte of an f32 may be read.
        true => unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }.into(),
        false => x
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>()
            .into(),
    }
}

/// Whether [`Stored::eight`] may be called.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn by_eights() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

/// Converts `out.len()` numbers on the calling thread.
///
/// # Panics
/// If `bytes` holds fewer.
pub fn to_f32<S: Stored>(bytes: &[u8], out: &mut [f32]) {
    let bytes = &bytes[..out.len() * S::BYTES];
    #[cfg(target_arch = "x86_64")]
    if by_eights() {
        let whole = out.len() / 8 * 8;
        let (head, tail) = out.split_at_mut(whole);
        // SAFETY: the features are there, and `bytes` holds the numbers of `head`.
        unsafe { to_f32_by_eights::<S>(bytes, head) };
        return one_by_one::<S>(&bytes[whole * S::BYTES..], tail);
    }
    vectorised(
        #[inline(always)]
        || one_by_one::<S>(bytes, out),
    );
}

/// The index of the first NaN or infinity. The largest magnitude's bits tell of both,
/// and an integer maximum runs in vector registers where an f32 one does not.
pub fn non_finite_in(x: &[f32]) -> Option<usize> {
    let magnitude = |v: &f32| (v.to_bits() & 0x7FFF_FFFF) as i32;
    let largest = vectorised(
        #[inline(always)]
        || x.iter().fold(0, |max, v| max.max(magnitude(v))),
    );
    if largest < f32::INFINITY.to_bits() as i32 {
        return None;
    }
    x.iter().position(|v| !v.is_finite())
}

#[inline(always)]
fn one_by_one<S: Stored>(bytes: &[u8], out: &mut [f32]) {
    for (v, bytes) in out.iter_mut().zip(bytes.chunks_exact(S::BYTES)) {
        *v = S::value(bytes);
    }
}

/// # Safety
/// AVX2 and F16C; `bytes` holds at least as many numbers as `out`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn to_f32_by_eights<S: Stored>(bytes: &[u8], out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        // SAFETY: as the caller vouches; `out` has room for eight.
        unsafe {
            _mm256_storeu_ps(
                out.as_mut_ptr(),
                S::eight(bytes.as_ptr().add(8 * i * S::BYTES)),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        let mut x = vec![0.5f32; 1000];
        x[7] = f32::MAX;
        assert_eq!(non_finite_in(&x), None);
        x[500] = f32::NEG_INFINITY;
        assert_eq!(non_finite_in(&x), Some(500));
        x[301] = f32::NAN;
        assert_eq!(non_finite_in(&x), Some(301));
        assert_eq!(non_finite_in(&[]), None);
    }

    /// Every pattern of 16 bits, and as many of 32, cut at odd places.
    #[test]
    fn eights_equal_one_by_one() {
        fn same<S: Stored>(bytes: &[u8]) {
            for numbers in [0, 1, 7, 8, 13, bytes.len() / S::BYTES] {
                let mut out = vec![f32::NAN; numbers];
                to_f32::<S>(bytes, &mut out);
                for (i, got) in out.iter().enumerate() {
                    let want = S::value(&bytes[i * S::BYTES..]);
                    let equal = got.to_bits() == want.to_bits();
                    assert!(
                        equal || (got.is_nan() && want.is_nan()),
                        "{i}: {got} {want}"
                    );
                }
            }
        }
        let halves: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        same::<F16>(&halves);
        same::<Bf16>(&halves);
        let words = (0..=u16::MAX).map(|i| u32::from(i).wrapping_mul(65_599 * 7));
        let words: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        same::<F32>(&words);
    }
}
