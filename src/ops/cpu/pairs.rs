//! A matrix product over pairs of bf16 numbers, as AVX512-BF16's `vdpbf16ps` takes
//! them: 16 sums at a time, to each of which two products are added. A tile is 12
//! rows of 32 sums, which with their operands fill the vector registers.
//!
//! The tile is written for any [`Lanes`]; tests run it with lanes of plain numbers,
//! since few machines have the instruction.

use rayon::prelude::*;

use super::bf16::{bits, round};
use super::mat::Mat;

/// Sums of a vector.
const LANES: usize = 16;
/// Columns of a tile.
const WIDTH: usize = 2 * LANES;
/// Rows of a tile.
const HEIGHT: usize = 12;
/// Pairs of a panel: 64 KiB of the right operand, and 24 KiB of a tile's rows.
const DEPTH: usize = 512;

/// A vector of f32 sums.
trait Lanes: Copy {
    fn zero() -> Self;

    /// Adds to each sum the products of its pair of `w` with the pair `x`.
    ///
    /// # Safety
    /// The CPU must have the instructions, and `w` [`LANES`] pairs.
    unsafe fn dot(self, w: *const u32, x: u32) -> Self;

    fn sums(self) -> [f32; LANES];
}

/// Where tiles are written; tasks write columns of their own.
#[derive(Clone, Copy)]
struct Target {
    dst: *mut f32,
    stride: usize,
    accumulate: bool,
}

// SAFETY: no two tasks share a column.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// The left operand as pairs, ordered by tile, then pair, then row.
struct Left {
    pairs: Vec<u32>,
    /// Of a row; an odd column is paired with zero.
    depth: usize,
    rows: usize,
}

#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    u32::from(bits(round(low))) | u32::from(bits(round(high))) << 16
}

impl Left {
    fn new(a: Mat<'_>) -> Self {
        let (rows, depth) = (a.rows, a.cols.div_ceil(2));
        let mut pairs = vec![0; rows.div_ceil(HEIGHT) * depth * HEIGHT];
        if depth > 0 {
            pairs
                .par_chunks_exact_mut(depth * HEIGHT)
                .enumerate()
                .for_each(|(tile, pairs)| {
                    for r in 0..HEIGHT.min(rows - tile * HEIGHT) {
                        let row = a.row(tile * HEIGHT + r);
                        for (p, both) in row.chunks(2).enumerate() {
                            let high = both.get(1).copied().unwrap_or(0.0);
                            pairs[p * HEIGHT + r] = pair(both[0], high);
                        }
                    }
                });
        }
        Self { pairs, depth, rows }
    }

    /// Pairs `from..to` of the rows of a tile.
    fn tile(&self, tile: usize, from: usize, to: usize) -> &[u32] {
        let start = tile * self.depth;
        &self.pairs[(start + from) * HEIGHT..(start + to) * HEIGHT]
    }
}

/// Writes pairs `from..to` of the columns from `column` on; what lies outside is zero.
fn pack(b: Mat<'_>, column: usize, from: usize, to: usize, panel: &mut [u32]) {
    let at = |row: usize, column: usize| match row < b.rows && column < b.cols {
        true => b.at(row, column),
        false => 0.0,
    };
    for (p, lanes) in (from..to).zip(panel.chunks_exact_mut(WIDTH)) {
        for (lane, out) in lanes.iter_mut().enumerate() {
            *out = pair(at(2 * p, column + lane), at(2 * p + 1, column + lane));
        }
    }
}

/// All tiles of the columns from `column` on.
///
/// # Safety
/// The CPU must have the instructions of `L`; `target` is valid as for [`gemm`].
#[inline(always)]
unsafe fn columns<L: Lanes>(target: Target, left: &Left, b: Mat<'_>, column: usize) {
    let width = WIDTH.min(b.cols - column);
    let mut panel = vec![0; DEPTH.min(left.depth) * WIDTH];
    for from in (0..left.depth).step_by(DEPTH) {
        let to = left.depth.min(from + DEPTH);
        pack(b, column, from, to, &mut panel);
        let accumulate = target.accumulate || from > 0;
        for tile in 0..left.rows.div_ceil(HEIGHT) {
            let x = left.tile(tile, from, to);
            let mut sums = [[L::zero(); 2]; HEIGHT];
            for (x, w) in x.chunks_exact(HEIGHT).zip(panel.chunks_exact(WIDTH)) {
                for (sums, &x) in sums.iter_mut().zip(x) {
                    // SAFETY: `w` has both vectors; the caller vouches for the CPU.
                    unsafe {
                        sums[0] = sums[0].dot(w.as_ptr(), x);
                        sums[1] = sums[1].dot(w.as_ptr().add(LANES), x);
                    }
                }
            }
            let first = tile * HEIGHT;
            for (r, sums) in sums.iter().enumerate().take(left.rows - first) {
                let sums = [sums[0].sums(), sums[1].sums()];
                let sums = sums.as_flattened();
                // SAFETY: the row and its columns are the target's, and this task's.
                let out = unsafe {
                    let start = target.dst.add((first + r) * target.stride + column);
                    std::slice::from_raw_parts_mut(start, width)
                };
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = if accumulate { *out + sum } else { *sum };
                }
            }
        }
    }
}

/// `dst (+)= bf16(a) . bf16(b)` with f32 sums, rows of `dst` `dst_stride` apart.
///
/// # Safety
/// `dst` must be valid for `a.rows` rows of `b.cols` elements which no other thread
/// touches meanwhile, and [`available`] must hold.
pub unsafe fn gemm(dst: *mut f32, dst_stride: usize, a: Mat<'_>, b: Mat<'_>, accumulate: bool) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for both.
    unsafe {
        tiles(dst, dst_stride, a, b, accumulate, |target, left, column| {
            x86::columns(target, left, b, column)
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (dst, dst_stride, a, b, accumulate);
        unreachable!("there is no such instruction");
    }
}

/// Bytes of the packed operands of a product that sums `inner` numbers.
pub fn scratch(rows: usize, inner: usize, threads: usize) -> usize {
    let depth = inner.div_ceil(2);
    4 * (rows.next_multiple_of(HEIGHT) * depth + threads * WIDTH * DEPTH.min(depth))
}

/// Whether this CPU has the instruction.
pub fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::available();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Calls `task` for every 32 columns, in parallel.
///
/// # Safety
/// As of [`gemm`].
unsafe fn tiles(
    dst: *mut f32,
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    accumulate: bool,
    task: impl Fn(Target, &Left, usize) + Sync,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions differ");
    let left = Left::new(a);
    let target = Target {
        dst,
        stride,
        accumulate,
    };
    if left.depth == 0 && !accumulate {
        for row in 0..a.rows {
            // SAFETY: the caller vouches for the rows.
            unsafe { std::slice::from_raw_parts_mut(dst.add(row * stride), b.cols).fill(0.0) }
        }
    }
    (0..b.cols.div_ceil(WIDTH))
        .into_par_iter()
        .for_each(|panel| task(target, &left, panel * WIDTH));
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps,
    };

    use super::{LANES, Lanes, Left, Mat, Target};

    #[derive(Clone, Copy)]
    struct Zmm(__m512);

    impl Lanes for Zmm {
        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: only `columns` makes one, where the instructions are there.
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn dot(self, w: *const u32, x: u32) -> Self {
            // SAFETY: the caller vouches for the CPU and for `w`; both casts are
            // between vectors of the same bits.
            unsafe {
                let w: __m512bh = std::mem::transmute(_mm512_loadu_si512(w.cast()));
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(x as i32));
                Self(_mm512_dpbf16_ps(self.0, w, x))
            }
        }

        #[inline(always)]
        fn sums(self) -> [f32; LANES] {
            // SAFETY: both are 64 bytes of f32.
            unsafe { std::mem::transmute(self.0) }
        }
    }

    pub fn available() -> bool {
        is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
    }

    /// # Safety
    /// As of [`super::columns`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn columns(target: Target, left: &Left, b: Mat<'_>, column: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { super::columns::<Zmm>(target, left, b, column) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// The instruction in plain numbers: the upper halves first, then the lower ones,
    /// each product added without rounding in between.
    #[derive(Clone, Copy)]
    struct Plain([f32; LANES]);

    impl Lanes for Plain {
        fn zero() -> Self {
            Self([0.0; LANES])
        }

        unsafe fn dot(mut self, w: *const u32, x: u32) -> Self {
            let high = |pair: u32| f32::from_bits(pair & 0xFFFF_0000);
            let low = |pair: u32| f32::from_bits(pair << 16);
            for (lane, sum) in self.0.iter_mut().enumerate() {
                // SAFETY: the caller vouches for `w`.
                let w = unsafe { w.add(lane).read() };
                *sum = low(w).mul_add(low(x), high(w).mul_add(high(x), *sum));
            }
            self
        }

        fn sums(self) -> [f32; LANES] {
            self.0
        }
    }

    /// The same product in f64, and how far f32 sums may be from it.
    fn slow(a: Mat<'_>, b: Mat<'_>, row: usize, column: usize) -> (f64, f64) {
        let products =
            (0..a.cols).map(|i| f64::from(round(a.at(row, i))) * f64::from(round(b.at(i, column))));
        products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()))
    }

    #[test]
    fn tiles_are_the_plain_product() {
        let stream = Stream::new(11, &[]);
        for (case, [m, k, n]) in [
            [1, 1, 1],
            [12, 64, 32],
            [13, 65, 33],
            [5, 1031, 70],
            [30, 2050, 31],
            [25, 2, 64],
            [3, 0, 5],
        ]
        .into_iter()
        .enumerate()
        {
            let draw = |part: u64, count: usize| -> Vec<f32> {
                let at = (case as u64 * 8 + part) << 32;
                (0..count as u64).map(|i| stream.normal(at + i)).collect()
            };
            let (x, w) = (draw(0, m * k), draw(1, n * k));
            let a = Mat::row_major(&x, m, k);
            for b in [Mat::row_major(&w, n, k).t(), Mat::row_major(&w, k, n)] {
                for accumulate in [false, true] {
                    let stride = n + 3;
                    let before = draw(2, m * stride);
                    let mut got = before.clone();
                    // SAFETY: `got` has `m` rows of `stride`; plain numbers need no
                    // instruction.
                    unsafe {
                        tiles(got.as_mut_ptr(), stride, a, b, accumulate, |t, left, c| {
                            columns::<Plain>(t, left, b, c)
                        });
                    }
                    for (i, (got, before)) in got.iter().zip(&before).enumerate() {
                        let (row, column) = (i / stride, i % stride);
                        if column >= n {
                            assert_eq!(got, before, "outside the target");
                            continue;
                        }
                        let (mut want, mut size) = slow(a, b, row, column);
                        if accumulate {
                            want += f64::from(*before);
                            size += f64::from(before.abs());
                        }
                        let off = (f64::from(*got) - want).abs();
                        assert!(
                            off <= 1e-6 * size,
                            "[{m}, {k}, {n}] {row} {column}: {off:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_instruction_gives_what_plain_numbers_give() {
        if !available() {
            println!("left out: no AVX512-BF16 here");
            return;
        }
        let stream = Stream::new(12, &[]);
        let [m, k, n] = [37, 1500, 75];
        let x: Vec<f32> = (0..m * k).map(|i| stream.normal(i as u64)).collect();
        let w: Vec<f32> = (0..n * k)
            .map(|i| stream.normal(1 << 32 | i as u64))
            .collect();
        let (a, b) = (Mat::row_major(&x, m, k), Mat::row_major(&w, n, k).t());
        let mut got = vec![0.0; m * n];
        // SAFETY: `got` has the shape, and the instruction is there.
        unsafe { gemm(got.as_mut_ptr(), n, a, b, false) };
        for (i, got) in got.iter().enumerate() {
            let (want, size) = slow(a, b, i / n, i % n);
            assert!((f64::from(*got) - want).abs() <= 1e-6 * size);
        }
    }
}
