//! Tiles for AVX512-BF16's `vdpbf16ps`, which adds two products of bf16 numbers to each
//! of 16 sums: 12 rows of 32 sums.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{Kernel, LINES, Target};

const HEIGHT: usize = 12;
const WIDTH: usize = 32;
const LANES: usize = 16;
/// 32 KiB of the right operand, which stay in the first-level cache while tiles go down
/// the rows.
const DEPTH: usize = 256;

pub fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

pub struct Avx512Bf16;

impl Kernel for Avx512Bf16 {
    const HEIGHT: usize = HEIGHT;
    const WIDTH: usize = WIDTH;
    const NUMBERS: usize = 2;
    const DEPTH: usize = DEPTH;

    #[target_feature(enable = "avx512f")]
    unsafe fn interleave(
        lines: &[&[u32]],
        place: usize,
        group: usize,
        out: &mut [MaybeUninit<u32>],
    ) {
        interleave(lines, place, group, out)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn tile(left: &[u32], right: &[u32], target: Target) {
        let mut sums = [[_mm512_setzero_ps(); 2]; HEIGHT];
        for (x, w) in left
            .as_chunks::<HEIGHT>()
            .0
            .iter()
            .zip(right.as_chunks::<WIDTH>().0)
        {
            let (low, high) = halves(w);
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = _mm512_set1_ps(f32::from_bits(*x));
                sums[0] = _mm512_dpbf16_ps(sums[0], pairs(low), pairs(x));
                sums[1] = _mm512_dpbf16_ps(sums[1], pairs(high), pairs(x));
            }
        }
        // SAFETY: the caller vouches for the tile.
        unsafe { store(&sums, target) }
    }
}

/// The same bits.
#[target_feature(enable = "avx512f")]
fn pairs(words: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes without a form that is not allowed.
    unsafe { std::mem::transmute(words) }
}

/// A step of the right operand.
#[target_feature(enable = "avx512f")]
fn halves(words: &[u32; WIDTH]) -> (__m512, __m512) {
    let words = words.as_ptr().cast::<f32>();
    // SAFETY: there are both.
    unsafe { (_mm512_loadu_ps(words), _mm512_loadu_ps(words.add(LANES))) }
}

/// # Safety
/// The target must be valid for a whole tile.
#[target_feature(enable = "avx512f")]
unsafe fn store(sums: &[[__m512; 2]; HEIGHT], target: Target) {
    let alpha = _mm512_set1_ps(target.alpha);
    for (r, sums) in sums.iter().enumerate() {
        for (half, sum) in sums.iter().enumerate() {
            let mut sum = _mm512_mul_ps(*sum, alpha);
            // SAFETY: the caller vouches for the tile.
            unsafe {
                let at = target.dst.add(r * target.stride + half * LANES);
                if target.accumulate {
                    sum = _mm512_add_ps(sum, _mm512_loadu_ps(at));
                }
                _mm512_storeu_ps(at, sum);
            }
        }
    }
}

/// [`Kernel::interleave`], 16 lines and 16 words at a time.
#[target_feature(enable = "avx512f")]
fn interleave(lines: &[&[u32]], place: usize, group: usize, out: &mut [MaybeUninit<u32>]) {
    let words = out.len() / group;
    let count = LINES.min(group - place);
    let lanes = mask(count);
    for word in (0..words).step_by(LANES) {
        let length = LANES.min(words - word);
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, line) in rows.iter_mut().zip(lines) {
            let line = &line[word..word + length];
            // SAFETY: the mask has as many lanes as the line has words.
            *row = unsafe { _mm512_maskz_loadu_epi32(mask(length), line.as_ptr().cast()) };
        }
        let steps = transposed(rows);
        for (w, step) in steps.into_iter().enumerate().take(length) {
            let at = &mut out[(word + w) * group + place..][..count];
            // SAFETY: the mask has as many lanes as there is room.
            unsafe { _mm512_mask_storeu_epi32(at.as_mut_ptr().cast(), lanes, step) };
        }
    }
}

/// Of the first `count` lanes.
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

/// Rows of 16 words as columns: pairs of rows change places, then fours, eights and
/// sixteens.
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut pairs = rows;
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // In each quarter of a vector, column 4 q + c of rows 4 i to 4 i + 3.
    let mut fours = pairs;
    for i in (0..LANES).step_by(4) {
        for half in [0, 1] {
            let (a, b) = (pairs[i + half], pairs[i + half + 2]);
            fours[i + 2 * half] = _mm512_unpacklo_epi64(a, b);
            fours[i + 2 * half + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    let mut columns = fours;
    for c in 0..4 {
        let [a, b, d, e] = [0, 4, 8, 12].map(|i| fours[i + c]);
        let even = _mm512_shuffle_i32x4::<0x88>(a, b);
        let odd = _mm512_shuffle_i32x4::<0xDD>(a, b);
        let even2 = _mm512_shuffle_i32x4::<0x88>(d, e);
        let odd2 = _mm512_shuffle_i32x4::<0xDD>(d, e);
        columns[c] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        columns[8 + c] = _mm512_shuffle_i32x4::<0xDD>(even, even2);
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        columns[12 + c] = _mm512_shuffle_i32x4::<0xDD>(odd, odd2);
    }
    columns
}
