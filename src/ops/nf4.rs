//! NF4: 4-bit weights whose 16 levels are quantiles of the normal distribution
//! (Dettmers et al., 2023, arXiv:2305.14314), bit for bit as bitsandbytes 0.50
//! packs them: blocks run over the flat row-major weight, the first element of
//! a pair is the high nibble, ties go to the lower level.

use std::ops::Range;

use rayon::prelude::*;

pub use super::nf4_code::CODE;
use super::nf4_map;
pub use super::nf4_map::{NESTED_BLOCK, dynamic_map};
use super::nf4_pack;
use super::nf4_unpack::unpack;
use super::stored::{self, Stored};

/// Block sizes that bitsandbytes accepts.
pub const BLOCK_SIZES: [usize; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

/// Elements that one task handles; a multiple of every block size.
pub const TASK: usize = 1 << 16;

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
}

/// Quantises a row-major `[out, in]` weight, on all threads.
///
/// # Panics
/// If `x` does not have `shape`'s number of elements or holds NaN or infinity, or
/// `block_size` is none of [`BLOCK_SIZES`]; callers have checked all three.
pub fn quantize(x: &[f32], shape: [usize; 2], block_size: usize, double: bool) -> Nf4 {
    assert_eq!(x.len(), shape[0] * shape[1], "elements of the weight");
    let piece = |range: Range<usize>, packed: &mut [u8], maxima: &mut [f32]| {
        let bytes = stored::bytes_of(&x[range]);
        nf4_pack::pack::<stored::F32>(&bytes, packed, maxima, block_size)
    };
    by_pieces(
        shape,
        block_size,
        double,
        || (),
        |(), range, packed, maxima| piece(range, packed, maxima),
    )
    .unwrap_or_else(|_| panic!("a weight to be quantised is not finite"))
}

/// Quantises a weight that is read from a file: neither its bytes nor its numbers are
/// ever whole in memory. `read` puts the bytes of some elements into a buffer, and is
/// called for pieces on all threads.
///
/// # Errors
/// Those of `read`, and what `bad` says of the first element of its piece that is NaN
/// or infinite, which no 4-bit weight can hold.
///
/// # Panics
/// If `block_size` is none of [`BLOCK_SIZES`], or `read` gives another number of
/// bytes.
pub fn quantize_from<S: Stored, E: Send>(
    shape: [usize; 2],
    block_size: usize,
    double: bool,
    read: impl Fn(Range<usize>, &mut Vec<u8>) -> Result<(), E> + Sync + Send,
    bad: impl Fn(usize) -> E + Sync + Send,
) -> Result<Nf4, E> {
    let piece =
        |bytes: &mut Vec<u8>, range: Range<usize>, packed: &mut [u8], maxima: &mut [f32]| {
            let at = range.start;
            let wanted = range.len() * S::BYTES;
            read(range, bytes)?;
            assert_eq!(bytes.len(), wanted, "bytes of the weight");
            nf4_pack::pack::<S>(bytes, packed, maxima, block_size).map_err(|block| {
                let numbers = bytes.chunks_exact(S::BYTES).map(S::value);
                let mut numbers = numbers.skip(block * block_size);
                let inside = numbers.position(|v| !v.is_finite()).unwrap_or(0);
                bad(at + block * block_size + inside)
            })
        };
    by_pieces(shape, block_size, double, Vec::new, piece)
}

/// Has `piece` pack one range of elements after the other, on all threads, each with
/// a buffer of its own.
fn by_pieces<B, E: Send>(
    shape: [usize; 2],
    block_size: usize,
    double: bool,
    buffer: impl Fn() -> B + Sync + Send,
    piece: impl Fn(&mut B, Range<usize>, &mut [u8], &mut [f32]) -> Result<(), E> + Sync + Send,
) -> Result<Nf4, E> {
    assert!(
        BLOCK_SIZES.contains(&block_size),
        "NF4 block size {block_size}"
    );
    let numel = shape[0] * shape[1];
    let mut packed = vec![0u8; numel.div_ceil(2)];
    let mut maxima = vec![0f32; numel.div_ceil(block_size)];
    packed
        .par_chunks_mut(TASK / 2)
        .zip(maxima.par_chunks_mut(TASK / block_size))
        .enumerate()
        .try_for_each_init(buffer, |buffer, (task, (packed, maxima))| {
            let at = task * TASK;
            piece(buffer, at..(at + TASK).min(numel), packed, maxima)
        })?;
    Ok(finish(packed, maxima, shape, block_size, double))
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

    /// Writes the whole weight, row-major, into `out` of `numel` elements.
    pub fn dequantize_into(&self, out: &mut [f32]) {
        self.dequantize_rows(0..self.shape[0], out);
    }

    /// Writes the rows `rows` into `out` of `rows.len() * in` elements, on all
    /// threads where that is worth it. A level times its block's maximum is
    /// one f32 product, as in bitsandbytes. Where rows are of even length and no
    /// multiple of the block, bitsandbytes' CPU kernel (0.50.2, AVX-512) takes
    /// the maxima of other blocks; its CUDA kernels and this do not.
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

    /// Numbers of one row from column `from` on, on the calling thread.
    ///
    /// # Panics
    /// If there is no such row or it has not as many as `out`.
    pub fn dequantize_part(&self, row: usize, from: usize, out: &mut [f32]) {
        let [rows, columns] = self.shape;
        assert!(
            row < rows && from + out.len() <= columns,
            "a part of a row of the weight"
        );
        self.dequantize_from(row * columns + from, out);
    }

    /// Writes the flat elements from `start` on into `out`, block by block: a block
    /// may hold several rows, and a row end within one.
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
