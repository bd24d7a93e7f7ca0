//! Numbers to 4-bit codes, block by block, straight from the type that a file holds
//! them in: the block's maximum, a product with its inverse, the level by comparisons
//! with the midpoints, two codes a byte. With AVX2 eight numbers at a time; every way
//! gives the same bits.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::nf4_code::CODE;
use super::stored::Stored;

/// Midpoints between levels: a value above `BOUNDS[i]` has a level above i.
pub(super) const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        bounds[i] = (CODE[i] + CODE[i + 1]) / 2.0;
        i += 1;
    }
    bounds
};

/// The level that follows a last odd element: zero.
const PADDING: u8 = 7;
/// Divisors are not taken below this, as in bitsandbytes.
const SMALLEST: f32 = 1e-38;
/// Numbers that the vector code packs at a time; every block size is a multiple.
#[cfg(target_arch = "x86_64")]
const GROUP: usize = 32;

/// The bits of a magnitude: magnitudes compare as their bits do, and a NaN counts as
/// larger than infinity.
#[inline(always)]
fn magnitude(v: f32) -> u32 {
    v.to_bits() & 0x7FFF_FFFF
}

/// Quantises whole blocks and what is left of the weight after the last of them, on
/// the calling thread. `packed` has a byte for two numbers, `maxima` one for a block.
/// Returns the first block that holds NaN or infinity, in which case what was
/// written means nothing.
pub(super) fn pack<S: Stored>(
    bytes: &[u8],
    packed: &mut [u8],
    maxima: &mut [f32],
    block_size: usize,
) -> Result<(), usize> {
    let whole = bytes.len() / (block_size * S::BYTES);
    let (blocks, rest) = bytes.split_at(whole * block_size * S::BYTES);
    let (codes, last) = packed.split_at_mut(whole * block_size / 2);
    let (maxima, last_maximum) = maxima.split_at_mut(whole);
    pack_blocks::<S>(blocks, codes, maxima, block_size)?;
    if let Some(maximum) = last_maximum.first_mut() {
        *maximum = pack_rest::<S>(rest, last).ok_or(whole)?;
    }
    Ok(())
}

fn pack_blocks<S: Stored>(
    bytes: &[u8],
    packed: &mut [u8],
    maxima: &mut [f32],
    block_size: usize,
) -> Result<(), usize> {
    #[cfg(target_arch = "x86_64")]
    if super::stored::by_eights() {
        // SAFETY: the features are there; `pack` has cut the slices to whole blocks.
        return unsafe { pack_by_eights::<S>(bytes, packed, maxima, block_size) };
    }
    portable::<S>(bytes, packed, maxima, block_size)
}

fn portable<S: Stored>(
    bytes: &[u8],
    packed: &mut [u8],
    maxima: &mut [f32],
    block_size: usize,
) -> Result<(), usize> {
    let blocks = bytes.chunks_exact(block_size * S::BYTES);
    let blocks = blocks.zip(packed.chunks_exact_mut(block_size / 2));
    for (number, ((bytes, packed), maximum)) in blocks.zip(maxima).enumerate() {
        *maximum = largest::<S>(bytes).ok_or(number)?;
        let inverse = 1.0 / maximum.max(SMALLEST);
        for (byte, pair) in packed.iter_mut().zip(bytes.chunks_exact(2 * S::BYTES)) {
            let high = nearest_level(S::value(pair) * inverse);
            *byte = high << 4 | nearest_level(S::value(&pair[S::BYTES..]) * inverse);
        }
    }
    Ok(())
}

/// A block that is shorter than the block size ends the weight: there bitsandbytes
/// divides by the maximum instead of multiplying with its inverse, and never stores
/// one below 1e-38.
fn pack_rest<S: Stored>(bytes: &[u8], packed: &mut [u8]) -> Option<f32> {
    let maximum = largest::<S>(bytes)?.max(SMALLEST);
    let level = |bytes: &[u8]| nearest_level(S::value(bytes) / maximum);
    for (byte, pair) in packed.iter_mut().zip(bytes.chunks(2 * S::BYTES)) {
        let low = pair.get(S::BYTES..).filter(|second| !second.is_empty());
        *byte = level(pair) << 4 | low.map_or(PADDING, level);
    }
    Some(maximum)
}

/// The largest magnitude; `None` where one is NaN or infinite.
fn largest<S: Stored>(bytes: &[u8]) -> Option<f32> {
    let numbers = bytes.chunks_exact(S::BYTES).map(S::value);
    let most = numbers.map(magnitude).max().unwrap_or(0);
    (most < f32::INFINITY.to_bits()).then_some(f32::from_bits(most))
}

/// The level nearest to `v`, the lower one where two are equally near. Values past
/// the ends need no clamp: they lie beyond the outermost midpoints either way.
#[inline(always)]
fn nearest_level(v: f32) -> u8 {
    BOUNDS.iter().map(|bound| u8::from(v > *bound)).sum()
}

/// The midpoints that a step of a binary search may compare with: those of number
/// `first + i * step`, at the place that a register's permutation finds with -i.
#[cfg(target_arch = "x86_64")]
const fn negated(first: usize, step: usize) -> [f32; 8] {
    let mut table = [0.0; 8];
    let mut i = 0;
    while first + i * step < BOUNDS.len() {
        table[(8 - i) % 8] = BOUNDS[first + i * step];
        i += 1;
    }
    table
}

/// # Safety
/// AVX2 and F16C; `bytes` are whole blocks, `packed` half a byte a number and
/// `maxima` one a block of them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn pack_by_eights<S: Stored>(
    bytes: &[u8],
    packed: &mut [u8],
    maxima: &mut [f32],
    block_size: usize,
) -> Result<(), usize> {
    const THIRD: [f32; 8] = negated(1, 4);
    const FOURTH: [f32; 8] = negated(0, 2);
    let blocks = bytes.chunks_exact(block_size * S::BYTES);
    let blocks = blocks.zip(packed.chunks_exact_mut(block_size / 2));
    // SAFETY: loads stay inside a block's bytes and the tables, stores write the 16
    // bytes of a group.
    unsafe {
        let without_sign = _mm256_set1_epi32(0x7FFF_FFFF);
        let middle = _mm256_set1_ps(BOUNDS[7]);
        let (lower, upper) = (_mm256_set1_ps(BOUNDS[3]), _mm256_set1_ps(BOUNDS[11]));
        let third = _mm256_loadu_ps(THIRD.as_ptr());
        let fourth = _mm256_loadu_ps(FOURTH.as_ptr());
        let weights = _mm256_set1_epi16(0x0110); // 16 for the first of a pair, 1 for the second
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        for (number, ((bytes, packed), maximum)) in blocks.zip(maxima).enumerate() {
            let start = bytes.as_ptr();
            let mut most = [_mm256_setzero_si256(); 2];
            for at in (0..block_size).step_by(16) {
                for (i, most) in most.iter_mut().enumerate() {
                    let v = S::eight(start.add((at + 8 * i) * S::BYTES));
                    let bits = _mm256_and_si256(_mm256_castps_si256(v), without_sign);
                    *most = _mm256_max_epi32(*most, bits);
                }
            }
            let most = _mm256_max_epi32(most[0], most[1]);
            let half = _mm_max_epi32(
                _mm256_castsi256_si128(most),
                _mm256_extracti128_si256::<1>(most),
            );
            let half = _mm_max_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
            let half = _mm_max_epi32(half, _mm_shuffle_epi32::<0b10_11_00_01>(half));
            let most = _mm_cvtsi128_si32(half) as u32;
            if most >= f32::INFINITY.to_bits() {
                return Err(number);
            }
            *maximum = f32::from_bits(most);
            let inverse = _mm256_set1_ps(1.0 / maximum.max(SMALLEST));
            for (group, packed) in packed.chunks_exact_mut(GROUP / 2).enumerate() {
                // Levels below zero: a comparison that holds is -1.
                let levels = |i: usize| {
                    let at = start.add((group * GROUP + 8 * i) * S::BYTES);
                    let v = _mm256_mul_ps(S::eight(at), inverse);
                    let above = |bound| _mm256_cmp_ps::<_CMP_GT_OQ>(v, bound);
                    let then = |n, above| _mm256_add_epi32(_mm256_add_epi32(n, n), above);
                    let first = above(middle);
                    let n = _mm256_castps_si256(first);
                    let second = above(_mm256_blendv_ps(lower, upper, first));
                    let n = then(n, _mm256_castps_si256(second));
                    let third = above(_mm256_permutevar8x32_ps(third, n));
                    let n = then(n, _mm256_castps_si256(third));
                    let fourth = above(_mm256_permutevar8x32_ps(fourth, n));
                    then(n, _mm256_castps_si256(fourth))
                };
                let low = _mm256_packs_epi32(levels(0), levels(1));
                let high = _mm256_packs_epi32(levels(2), levels(3));
                // Halves of registers were packed apart: four bytes of each stand together.
                let bytes = _mm256_packs_epi16(low, high);
                let bytes = _mm256_permutevar8x32_epi32(bytes, order);
                let pairs = _mm256_maddubs_epi16(weights, bytes);
                let pairs = _mm256_sub_epi16(_mm256_setzero_si256(), pairs);
                let codes = _mm_packus_epi16(
                    _mm256_castsi256_si128(pairs),
                    _mm256_extracti128_si256::<1>(pairs),
                );
                _mm_storeu_si128(packed.as_mut_ptr().cast(), codes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "nf4_pack_tests.rs"]
mod tests;
