//! NF4: 4-bit weights whose 16 levels are quantiles of the normal distribution
//! (Dettmers et al., 2023, arXiv:2305.14314), bit for bit as bitsandbytes 0.50
//! packs them: blocks run over the flat row-major weight, the first element of
//! a pair is the high nibble, ties go to the lower level.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu::vectorised;
use super::nf4_map;
pub use super::nf4_map::{NESTED_BLOCK, dynamic_map};
use super::nf4_unpack::unpack;

/// Block sizes that bitsandbytes accepts.
pub const BLOCK_SIZES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// The 16 levels, ascending; level 7 is zero.
pub const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Midpoints between levels: a value above `BOUNDS[i]` has a level above i.
const BOUNDS: [f32; 15] = {
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
/// Elements that one task handles; a multiple of every block size.
const TASK: usize = 1 << 16;

/// A weight matrix in 4 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4 {
    /// Two levels a byte, the first in the high nibble; a last odd element is
    /// followed by level 7. `ceil(numel / 2)` bytes.
    pub packed: Vec<u8>,
    pub absmax: Absmax,
    /// Elements that share a maximum, one of [`BLOCK_SIZES`].
    pub block_size: usize,
    /// `[out, in]`.
    pub shape: [usize; 2],
}

/// The largest magnitude of each block.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    Plain(Vec<f32>),
    /// Double quantisation: `dynamic_map[code] * nested_absmax[block / 256] + offset`.
    Double {
        codes: Vec<u8>,
        nested_absmax: Vec<f32>,
        /// The mean of the maxima.
        offset: f32,
    },
}

impl Absmax {
    /// The maximum of `block`, dequantised.
    #[inline]
    pub fn get(&self, block: usize) -> f32 {
        match self {
            Self::Plain(maxima) => maxima[block],
            Self::Double {
                codes,
                nested_absmax,
                offset,
            } => {
                let value = dynamic_map()[codes[block] as usize];
                value * nested_absmax[block / NESTED_BLOCK] + offset
            }
        }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(maxima) => maxima.len(),
            Self::Double { codes, .. } => codes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The bits of the largest magnitude: magnitudes compare as their bits do, and
/// an integer maximum runs in vector registers where an f32 one does not. A NaN
/// counts as larger than infinity.
#[inline(always)]
fn max_abs_bits(x: &[f32]) -> i32 {
    x.iter()
        .fold(0, |max, v| max.max((v.to_bits() & 0x7FFF_FFFF) as i32))
}

/// The index of the first NaN or infinity, which no 4-bit weight can hold:
/// callers refuse such a tensor by name before they quantise it.
pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    let chunks = x.par_chunks(TASK).enumerate();
    chunks.find_map_first(|(task, chunk)| Some(task * TASK + non_finite_in(chunk)?))
}

/// As [`first_non_finite`], on this thread.
pub fn non_finite_in(x: &[f32]) -> Option<usize> {
    let largest = vectorised(
        #[inline(always)]
        || max_abs_bits(x),
    );
    if largest < f32::INFINITY.to_bits() as i32 {
        return None;
    }
    x.iter().position(|v| !v.is_finite())
}

/// Quantises a row-major `[out, in]` weight, on all threads.
///
/// # Panics
/// If `x` does not have `shape`'s number of elements or `block_size` is none
/// of [`BLOCK_SIZES`]; the configuration has checked both.
pub fn quantize(x: &[f32], shape: [usize; 2], block_size: usize, double: bool) -> Nf4 {
    assert_eq!(x.len(), shape[0] * shape[1], "elements of the weight");
    assert!(
        BLOCK_SIZES.contains(&block_size),
        "NF4 block size {block_size}"
    );
    let mut packed = vec![0u8; x.len().div_ceil(2)];
    let mut maxima = vec![0f32; x.len().div_ceil(block_size)];
    packed
        .par_chunks_mut(TASK / 2)
        .zip(maxima.par_chunks_mut(TASK / block_size))
        .zip(x.par_chunks(TASK))
        .for_each(|((packed, maxima), x)| quantize_task(x, packed, maxima, block_size));
    finish(packed, maxima, shape, block_size, double)
}

/// Quantises a weight that is never whole in memory: `fill(at, out)` writes the
/// elements from `at` on, and is called for pieces on all threads. After every
/// `window` elements `done` is told which were taken.
///
/// # Errors
/// Those of `fill`.
///
/// # Panics
/// If `block_size` is none of [`BLOCK_SIZES`], or `window` no multiple of 65536.
pub fn quantize_from<E: Send>(
    shape: [usize; 2],
    block_size: usize,
    double: bool,
    window: usize,
    fill: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
    mut done: impl FnMut(Range<usize>),
) -> Result<Nf4, E> {
    assert!(
        BLOCK_SIZES.contains(&block_size),
        "NF4 block size {block_size}"
    );
    assert!(window.is_multiple_of(TASK), "NF4 window {window}");
    let numel = shape[0] * shape[1];
    let mut packed = vec![0u8; numel.div_ceil(2)];
    let mut maxima = vec![0f32; numel.div_ceil(block_size)];
    let windows = packed.chunks_mut(window / 2);
    let windows = windows.zip(maxima.chunks_mut(window / block_size));
    for (number, (packed, maxima)) in windows.enumerate() {
        let start = number * window;
        packed
            .par_chunks_mut(TASK / 2)
            .zip(maxima.par_chunks_mut(TASK / block_size))
            .enumerate()
            .try_for_each_init(Vec::new, |values, (task, (packed, maxima))| {
                let at = start + task * TASK;
                values.resize(TASK.min(numel - at), 0.0);
                fill(at, values)?;
                quantize_task(values, packed, maxima, block_size);
                Ok(())
            })?;
        done(start..(start + window).min(numel));
    }
    Ok(finish(packed, maxima, shape, block_size, double))
}

/// Quantises what one task takes.
fn quantize_task(x: &[f32], packed: &mut [u8], maxima: &mut [f32], block_size: usize) {
    vectorised(
        #[inline(always)]
        || {
            let blocks = x.chunks(block_size).zip(packed.chunks_mut(block_size / 2));
            for ((block, packed), absmax) in blocks.zip(maxima) {
                *absmax = quantize_block(block, packed, block_size);
            }
        },
    );
}

fn finish(
    packed: Vec<u8>,
    mut maxima: Vec<f32>,
    shape: [usize; 2],
    block_size: usize,
    double: bool,
) -> Nf4 {
    let absmax = if double && !maxima.is_empty() {
        let offset = nf4_map::torch_mean(&maxima);
        maxima.iter_mut().for_each(|m| *m -= offset);
        let (codes, nested_absmax) = nf4_map::quantize(&maxima);
        Absmax::Double {
            codes,
            nested_absmax,
            offset,
        }
    } else {
        Absmax::Plain(maxima)
    };
    Nf4 {
        packed,
        absmax,
        block_size,
        shape,
    }
}

/// Packs one block and returns its maximum. A block that is shorter than
/// `block_size` ends the weight: there bitsandbytes divides by the maximum
/// instead of multiplying with its inverse, and never stores one below 1e-38.
#[inline(always)]
fn quantize_block(block: &[f32], packed: &mut [u8], block_size: usize) -> f32 {
    let absmax = f32::from_bits(max_abs_bits(block) as u32);
    if block.len() == block_size {
        let inverse = 1.0 / absmax.max(SMALLEST);
        pack(block, packed, |v| v * inverse);
        absmax
    } else {
        let absmax = absmax.max(SMALLEST);
        pack(block, packed, |v| v / absmax);
        absmax
    }
}

#[inline(always)]
fn pack(block: &[f32], packed: &mut [u8], scale: impl Fn(f32) -> f32) {
    const STEP: usize = 64;
    let mut levels = [0u8; STEP];
    for (x, bytes) in block.chunks(STEP).zip(packed.chunks_mut(STEP / 2)) {
        for (level, v) in levels.iter_mut().zip(x) {
            *level = nearest_level(scale(*v));
        }
        if x.len() % 2 == 1 {
            levels[x.len()] = PADDING;
        }
        for (byte, pair) in bytes.iter_mut().zip(levels.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
    }
}

/// The level nearest to `v`. Values past the ends need no clamp: they lie
/// beyond the outermost midpoints either way.
#[inline(always)]
fn nearest_level(v: f32) -> u8 {
    // Fifteen comparisons in vector registers are faster than a search.
    BOUNDS
        .iter()
        .map(|bound| i32::from(v > *bound))
        .sum::<i32>() as u8
}

impl Nf4 {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Bytes of memory that the packed weight and its statistics take.
    pub fn bytes(&self) -> usize {
        let statistics = match &self.absmax {
            Absmax::Plain(maxima) => 4 * maxima.len(),
            Absmax::Double {
                codes,
                nested_absmax,
                ..
            } => codes.len() + 4 * nested_absmax.len() + 4,
        };
        self.packed.len() + statistics
    }

    /// The maximum of every block in f32.
    pub fn absmax_f32(&self) -> Vec<f32> {
        (0..self.absmax.len()).map(|b| self.absmax.get(b)).collect()
    }

    /// Writes the whole weight, row-major, into `out` of `numel` elements.
    pub fn dequantize_into(&self, out: &mut [f32]) {
        self.dequantize_rows(0..self.shape[0], out);
    }

    /// Writes the rows `rows` into `out` of `rows.len() * in` elements, on all
    /// threads where that is worth it. A level times its block's maximum is
    /// one f32 product, as in bitsandbytes.
    ///
    /// # Panics
    /// If `rows` leaves the weight or `out` has another length.
    pub fn dequantize_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert!(
            rows.start <= rows.end && rows.end <= self.shape[0],
            "rows of the weight"
        );
        assert_eq!(
            out.len(),
            rows.len() * self.shape[1],
            "elements of the output"
        );
        let start = rows.start * self.shape[1];
        if out.len() <= TASK {
            return self.dequantize_from(start, out);
        }
        out.par_chunks_mut(TASK)
            .enumerate()
            .for_each(|(task, chunk)| self.dequantize_from(start + task * TASK, chunk));
    }

    /// The weight as bitsandbytes' CPU kernel (0.50.2) computes it on a CPU with
    /// AVX-512, where the reference runs were made. It differs from
    /// [`Nf4::dequantize_into`] only where rows are of even length and no multiple
    /// of the block: there the kernel takes maximum `row x (in / block) + column /
    /// block` (whole divisions), although blocks run on over the ends of rows.
    /// Linear layers of published models have rows of whole blocks.
    ///
    /// # Panics
    /// If `out` has another length than the weight.
    pub fn dequantize_as_cpu_kernel(&self, out: &mut [f32]) {
        let ([_, columns], block) = (self.shape, self.block_size);
        if columns % 2 == 1 || columns.is_multiple_of(block) {
            return self.dequantize_into(out);
        }
        assert_eq!(out.len(), self.numel(), "elements of the output");
        for (row, values) in out.chunks_exact_mut(columns).enumerate() {
            self.row_as_cpu_kernel(row, values);
        }
    }

    /// One row of [`Nf4::dequantize_as_cpu_kernel`], on the calling thread.
    ///
    /// # Panics
    /// If there is no such row or `out` has another length.
    pub fn row_as_cpu_kernel(&self, row: usize, out: &mut [f32]) {
        let ([rows, columns], block) = (self.shape, self.block_size);
        assert!(row < rows && out.len() == columns, "a row of the weight");
        if columns % 2 == 1 || columns.is_multiple_of(block) {
            return self.dequantize_from(row * columns, out);
        }
        for (piece, values) in out.chunks_mut(block).enumerate() {
            let maximum = self.absmax.get(row * (columns / block) + piece);
            unpack(&self.packed, row * columns + piece * block, maximum, values);
        }
    }

    /// Writes the flat elements from `start` on into `out`, block by block.
    fn dequantize_from(&self, start: usize, mut out: &mut [f32]) {
        let mut position = start;
        while !out.is_empty() {
            let block = position / self.block_size;
            let left = (block + 1) * self.block_size - position;
            let (now, rest) = out.split_at_mut(left.min(out.len()));
            unpack(&self.packed, position, self.absmax.get(block), now);
            position += now.len();
            out = rest;
        }
    }
}

#[cfg(test)]
#[path = "nf4_tests.rs"]
mod tests;
