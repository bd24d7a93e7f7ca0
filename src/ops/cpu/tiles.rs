//! f32 matrix products for CPUs with AVX2 and FMA: tiles of 6 rows of 16 sums, which
//! with their operands fill the vector registers, over packed panels (Goto and van de
//! Geijn, 2008, "Anatomy of High-Performance Matrix Multiplication").
//!
//! Each sum is added up in the order of the inner dimension, in pieces of [`DEPTH`],
//! whatever the threads.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::mat::{Mat, Threads};

/// Rows of a tile.
const HEIGHT: usize = 6;
/// Columns of a tile, in two vectors.
const WIDTH: usize = 16;
const LANES: usize = 8;
/// Steps of the inner dimension of a panel: 24 KiB of the right operand, which stay in
/// the first-level cache while tiles go down the rows.
const DEPTH: usize = 384;
/// Rows of a task, a multiple of [`HEIGHT`]: 144 KiB of the left operand, for the
/// second-level cache.
const TASK_ROWS: usize = 96;
/// Columns packed at once, a multiple of [`WIDTH`]: 3 MiB for the last cache.
const COLUMNS: usize = 2048;
/// Rows packed at once, a multiple of [`TASK_ROWS`].
const ROWS: usize = 3072;
/// Panels of the right operand in a task, at least.
const LEAST_PANELS: usize = 4;
/// With fewer rows, packing the right operand would take most of the time.
const LEAST_ROWS: usize = HEIGHT;

/// Whether products of this shape are made here: by CPUs without AVX-512, since the
/// gemm crate has wider tiles.
pub fn is_for(rows: usize, columns: usize) -> bool {
    rows >= LEAST_ROWS && columns >= LANES && has_avx2() && !is_x86_feature_detected!("avx512f")
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Bytes of the packed operands of such a product.
pub fn scratch_bytes(rows: usize, inner: usize, columns: usize) -> usize {
    let depth = inner.min(DEPTH);
    let rows = rows.min(ROWS).next_multiple_of(HEIGHT);
    let columns = columns.min(COLUMNS).next_multiple_of(WIDTH);
    4 * depth * (rows + columns)
}

/// A row of a panel of the right operand.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; WIDTH]);

/// Where sums are written; tasks write rows and columns of their own.
#[derive(Clone, Copy)]
struct Target {
    dst: *mut f32,
    stride: usize,
    accumulate: bool,
    alpha: f32,
}

// SAFETY: no two tasks share a sum.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// `dst (+)= alpha x a . b`.
///
/// # Panics
/// The CPU lacks AVX2 or FMA.
///
/// # Safety
/// `dst` must be valid for writes of `a.rows` rows of `b.cols` elements, `stride`
/// apart, which no other thread touches meanwhile.
pub unsafe fn gemm(
    dst: *mut f32,
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    alpha: f32,
    accumulate: bool,
    threads: Threads,
) {
    assert!(has_avx2());
    let all = threads == Threads::All && rayon::current_num_threads() > 1;
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let depth = k.min(DEPTH);
    let mut lines = Box::new_uninit_slice(depth * n.min(COLUMNS).div_ceil(WIDTH));
    let mut left = Box::new_uninit_slice(depth * m.min(ROWS).next_multiple_of(HEIGHT));
    for column in (0..n).step_by(COLUMNS) {
        let columns = COLUMNS.min(n - column);
        for from in (0..k).step_by(DEPTH) {
            let steps = from..k.min(from + DEPTH);
            let depth = steps.len();
            for row in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - row);
                let lines = &mut lines[..depth * columns.div_ceil(WIDTH)];
                let left = &mut left[..depth * rows.next_multiple_of(HEIGHT)];
                let mut pack_left = || {
                    each(all, left, depth * HEIGHT, |panel, left| {
                        // SAFETY: the CPU has AVX2.
                        unsafe { pack_left(a, row + panel * HEIGHT, steps.clone(), left) }
                    });
                };
                let mut pack_right = || {
                    each(all, lines, depth, |panel, lines| {
                        // SAFETY: the CPU has AVX2.
                        unsafe { pack_right(b, column + panel * WIDTH, steps.clone(), lines) }
                    });
                };
                match (row, all) {
                    (0, true) => drop(rayon::join(pack_left, pack_right)),
                    (0, false) => {
                        pack_left();
                        pack_right();
                    }
                    _ => pack_left(),
                }
                let block = Block {
                    // SAFETY: all panels were packed, which writes every number, those
                    // of the right operand with the first rows.
                    left: unsafe { left.assume_init_ref() },
                    // SAFETY: as above.
                    lines: unsafe { lines.assume_init_ref() },
                    depth,
                    rows,
                    columns,
                    target: Target {
                        // SAFETY: a place in what the caller vouches for.
                        dst: unsafe { dst.add(row * stride + column) },
                        stride,
                        accumulate: accumulate || from > 0,
                        alpha,
                    },
                };
                // SAFETY: the CPU has AVX2 and FMA, the target is the caller's.
                unsafe { block.multiply(all) }
            }
        }
    }
}

/// `pack` of each panel of `length` numbers.
fn each<T: Send>(
    all: bool,
    panels: &mut [MaybeUninit<T>],
    length: usize,
    pack: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync,
) {
    match all {
        true => panels
            .par_chunks_exact_mut(length)
            .with_min_len(LEAST_PANELS)
            .enumerate()
            .for_each(|(panel, numbers)| pack(panel, numbers)),
        false => panels
            .chunks_exact_mut(length)
            .enumerate()
            .for_each(|(panel, numbers)| pack(panel, numbers)),
    }
}

/// Steps `steps` of the columns from `column` on; what lies outside is zero.
///
/// # Safety
/// The CPU must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn pack_right(
    b: Mat<'_>,
    column: usize,
    steps: Range<usize>,
    lines: &mut [MaybeUninit<Line>],
) {
    let width = WIDTH.min(b.cols - column);
    let mut done = 0;
    if width == WIDTH && b.row_stride == 1 {
        // Columns lie one after the other, as those of a transposed weight do.
        done = lines.len() / LANES * LANES;
        for (i, lines) in lines.chunks_exact_mut(LANES).enumerate() {
            let lines = lines.as_mut_ptr().cast::<f32>();
            for half in [0, LANES] {
                let start = (column + half) * b.col_stride + steps.start + i * LANES;
                let rows = std::array::from_fn(|r| eight(b.data, start + r * b.col_stride));
                for (r, row) in transposed(rows).into_iter().enumerate() {
                    // SAFETY: a half of the line.
                    unsafe { _mm256_store_ps(lines.add(r * WIDTH + half), row) }
                }
            }
        }
    }
    let whole = width == WIDTH && b.col_stride == 1;
    for (step, line) in (steps.start + done..).zip(&mut lines[done..]) {
        let mut numbers = [0.0; WIDTH];
        match whole {
            true => {
                let start = step * b.row_stride + column;
                numbers.copy_from_slice(&b.data[start..start + WIDTH]);
            }
            false => (0..width).for_each(|i| numbers[i] = b.at(step, column + i)),
        }
        line.write(Line(numbers));
    }
}

/// Steps `steps` of the rows from `row` on, step by step; what lies outside is zero.
///
/// # Safety
/// The CPU must have AVX2.
#[target_feature(enable = "avx2")]
unsafe fn pack_left(a: Mat<'_>, row: usize, steps: Range<usize>, left: &mut [MaybeUninit<f32>]) {
    let height = HEIGHT.min(a.rows - row);
    let mut done = 0;
    if height == HEIGHT && a.col_stride == 1 {
        // Each step is written with two numbers too many, which the next one replaces;
        // the last ones are left to the loop below.
        done = (steps.len().saturating_sub(1)) / LANES * LANES;
        let to = left.as_mut_ptr().cast::<f32>();
        for step in (0..done).step_by(LANES) {
            let start = row * a.row_stride + steps.start + step;
            let mut rows = [_mm256_setzero_ps(); LANES];
            for (r, numbers) in rows.iter_mut().enumerate().take(HEIGHT) {
                *numbers = eight(a.data, start + r * a.row_stride);
            }
            for (r, numbers) in transposed(rows).into_iter().enumerate() {
                // SAFETY: at least one step comes after the 8.
                unsafe { _mm256_storeu_ps(to.add((step + r) * HEIGHT), numbers) }
            }
        }
    }
    let whole = height == HEIGHT && a.row_stride == 1;
    let left = &mut left.as_chunks_mut::<HEIGHT>().0[done..];
    for (step, numbers) in (steps.start + done..).zip(left) {
        let mut column = [0.0; HEIGHT];
        match whole {
            true => {
                let start = step * a.col_stride + row;
                column.copy_from_slice(&a.data[start..start + HEIGHT]);
            }
            false => (0..height).for_each(|r| column[r] = a.at(row + r, step)),
        }
        *numbers = column.map(MaybeUninit::new);
    }
}

/// 8 numbers from `start` on.
#[target_feature(enable = "avx2")]
fn eight(numbers: &[f32], start: usize) -> __m256 {
    let numbers = &numbers[start..start + LANES];
    // SAFETY: there are 8.
    unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
}

/// Rows of 8 numbers as columns: pairs of rows change places, then fours, then eights.
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

/// Packed operands and where their product goes.
struct Block<'a> {
    /// By panels of [`HEIGHT`] rows.
    left: &'a [f32],
    /// By panels of [`WIDTH`] columns.
    lines: &'a [Line],
    depth: usize,
    rows: usize,
    columns: usize,
    target: Target,
}

impl Block<'_> {
    /// All tiles, cut into tasks by panels.
    ///
    /// # Safety
    /// The CPU must have AVX2 and FMA; the target must be valid for the block.
    unsafe fn multiply(&self, all: bool) {
        let threads = match all {
            true => rayon::current_num_threads(),
            false => 1,
        };
        let panels = [self.rows.div_ceil(HEIGHT), self.columns.div_ceil(WIDTH)];
        // Equal tasks, as many for each thread; few rows are cut by columns as well.
        let down = self.rows.div_ceil(TASK_ROWS).next_multiple_of(threads);
        let down = down.min(panels[0]);
        let across = match all {
            true => (4 * threads).div_ceil(down),
            false => 1,
        };
        let across = across.min(panels[1].div_ceil(LEAST_PANELS));
        let part = |i: usize, of: usize, panels: usize| i * panels / of..(i + 1) * panels / of;
        let task = |i: usize| {
            let rows = part(i % down, down, panels[0]);
            // SAFETY: the caller's.
            unsafe { self.tiles(rows, part(i / down, across, panels[1])) }
        };
        match all {
            true => (0..down * across).into_par_iter().for_each(task),
            false => (0..down * across).for_each(task),
        }
    }

    /// # Safety
    /// As for [`Block::multiply`]; no other task has these tiles.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tiles(&self, down: Range<usize>, across: Range<usize>) {
        let Target { dst, stride, .. } = self.target;
        for panel in across {
            let lines = &self.lines[panel * self.depth..][..self.depth];
            let column = panel * WIDTH;
            let width = WIDTH.min(self.columns - column);
            for row in down.clone().map(|panel| panel * HEIGHT) {
                let left = &self.left[row * self.depth..][..HEIGHT * self.depth];
                let height = HEIGHT.min(self.rows - row);
                // SAFETY: a place in the target.
                let at = unsafe { dst.add(row * stride + column) };
                if (height, width) == (HEIGHT, WIDTH) {
                    // SAFETY: the whole tile lies in the target.
                    unsafe {
                        tile(
                            left,
                            lines,
                            Target {
                                dst: at,
                                ..self.target
                            },
                        )
                    };
                    continue;
                }
                let mut sums = [[0.0; WIDTH]; HEIGHT];
                let whole = Target {
                    dst: sums.as_mut_ptr().cast(),
                    stride: WIDTH,
                    accumulate: false,
                    ..self.target
                };
                // SAFETY: `sums` has room for a tile.
                unsafe { tile(left, lines, whole) };
                for (r, sums) in sums.iter().enumerate().take(height) {
                    // SAFETY: the row and its columns are the target's, and this task's.
                    let out = unsafe { std::slice::from_raw_parts_mut(at.add(r * stride), width) };
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = if self.target.accumulate {
                            *out + sum
                        } else {
                            *sum
                        };
                    }
                }
            }
        }
    }
}

/// The product of a panel of rows with one of columns.
///
/// # Safety
/// The CPU must have AVX2 and FMA; the target must be valid for a whole tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile(left: &[f32], lines: &[Line], target: Target) {
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
    for (x, line) in left.as_chunks::<HEIGHT>().0.iter().zip(lines) {
        let numbers = line.0.as_ptr();
        // SAFETY: a line has both vectors.
        let (low, high) = unsafe { (_mm256_load_ps(numbers), _mm256_load_ps(numbers.add(LANES))) };
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = _mm256_broadcast_ss(x);
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

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
