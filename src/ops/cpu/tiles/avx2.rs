//! Tiles for AVX2 and FMA: 6 rows of 16 sums.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{Kernel, Target};

const HEIGHT: usize = 6;
const WIDTH: usize = 16;
const LANES: usize = 8;

pub fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

pub struct Avx2;

impl Kernel for Avx2 {
    const HEIGHT: usize = HEIGHT;
    const WIDTH: usize = WIDTH;
    const NUMBERS: usize = 1;
    /// 24 KiB of the right operand, which stay in the first-level cache while tiles go
    /// down the rows.
    const DEPTH: usize = 384;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn interleave(
        lines: &[&[u32]],
        place: usize,
        group: usize,
        out: &mut [MaybeUninit<u32>],
    ) {
        let words = out.len() / group;
        let to = out.as_mut_ptr().cast::<u32>();
        for start in (0..group.min(place + super::LINES) - place).step_by(LANES) {
            let count = LANES.min(group - place - start);
            let whole = (words.saturating_sub(1)) / LANES * LANES;
            // A short group is written with words too many, which the next step
            // replaces; the last steps are left to the loop below.
            let line = |i: usize| lines.get(start + i).filter(|_| i < count);
            for word in (0..whole).step_by(LANES) {
                let mut rows = [_mm256_setzero_ps(); LANES];
                for (i, row) in rows.iter_mut().enumerate() {
                    if let Some(line) = line(i) {
                        *row = eight(line, word);
                    }
                }
                for (w, step) in transposed(rows).into_iter().enumerate() {
                    // SAFETY: a step follows, so that there is room for 8 words.
                    unsafe {
                        let at = to.add((word + w) * group + place + start);
                        _mm256_storeu_ps(at.cast(), step);
                    }
                }
            }
            for word in whole..words {
                for i in 0..count {
                    let value = line(i).map_or(0, |line| line[word]);
                    out[word * group + place + start + i].write(value);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile(left: &[u32], right: &[u32], target: Target) {
        let Target {
            dst,
            stride,
            accumulate,
            alpha,
        } = target;
        for r in 0..HEIGHT {
            // A hint, valid for any address.
            _mm_prefetch::<_MM_HINT_T0>(dst.wrapping_add(r * stride).cast());
        }
        let mut sums = [[_mm256_setzero_ps(); 2]; HEIGHT];
        let steps = left.as_chunks::<HEIGHT>().0.iter();
        for (x, w) in steps.zip(right.as_chunks::<WIDTH>().0) {
            let w = w.as_ptr().cast::<f32>();
            // SAFETY: a step has both vectors.
            let (low, high) = unsafe { (_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(LANES))) };
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = _mm256_set1_ps(f32::from_bits(*x));
                sums[0] = _mm256_fmadd_ps(x, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(x, high, sums[1]);
            }
        }
        let alpha = _mm256_set1_ps(alpha);
        for (r, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let mut sum = _mm256_mul_ps(*sum, alpha);
                // SAFETY: the caller vouches for the tile.
                unsafe {
                    let at = dst.add(r * stride + half * LANES);
                    if accumulate {
                        sum = _mm256_add_ps(sum, _mm256_loadu_ps(at));
                    }
                    _mm256_storeu_ps(at, sum);
                }
            }
        }
    }
}

/// 8 words from `start` on.
#[target_feature(enable = "avx2")]
fn eight(words: &[u32], start: usize) -> __m256 {
    let words = &words[start..start + LANES];
    // SAFETY: there are 8.
    unsafe { _mm256_loadu_ps(words.as_ptr().cast()) }
}

/// Rows of 8 words as columns: pairs of rows change places, then fours, then eights.
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256; LANES]) -> [__m256; LANES] {
    let mut pairs = rows;
    for i in (0..LANES).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    let mut fours = pairs;
    for i in [0, 4] {
        for half in [0, 1] {
            let (a, b) = (pairs[i + half], pairs[i + half + 2]);
            fours[i + 2 * half] = _mm256_shuffle_ps::<0x44>(a, b);
            fours[i + 2 * half + 1] = _mm256_shuffle_ps::<0xEE>(a, b);
        }
    }
    let mut columns = fours;
    for i in 0..LANES / 2 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    columns
}
