//! Products with a frozen `[out, in]` weight that is held as something else than f32.
//! Its rows become numbers a block at a time, so that no dense copy of it exists.

use rayon::prelude::*;

use super::bf16::{self, round_all};
use super::elementwise::vectorised;
use super::few_rows;
use super::gemm::{Mat, Threads, gemm_raw};
use crate::ops::nf4::Nf4;

/// Bytes of a block in f32: a product of it takes far longer than making it, and it
/// is gone from no larger cache meanwhile.
const BLOCK_BYTES: usize = 8 << 20;

/// Rows of a block, of so many columns.
pub fn block_rows(columns: usize) -> usize {
    (BLOCK_BYTES / 4 / columns.max(1)).max(1)
}

/// A weight that gives its rows as f32.
pub trait Rows: Sync {
    /// `[out, in]`.
    fn shape(&self) -> [usize; 2];

    /// Writes a row into `out`.
    fn fill(&self, row: usize, out: &mut [f32]);

    /// Whether products take both operands as bf16; then rows are bf16 numbers.
    fn narrow(&self) -> bool;
}

impl Rows for Nf4 {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn fill(&self, row: usize, out: &mut [f32]) {
        self.row_as_cpu_kernel(row, out);
    }

    fn narrow(&self) -> bool {
        false
    }
}

/// NF4 whose numbers are rounded to bf16 for the product.
pub struct NarrowNf4<'a>(pub &'a Nf4);

impl Rows for NarrowNf4<'_> {
    fn shape(&self) -> [usize; 2] {
        self.0.shape
    }

    fn fill(&self, row: usize, out: &mut [f32]) {
        self.0.row_as_cpu_kernel(row, out);
        round_all(out);
    }

    fn narrow(&self) -> bool {
        true
    }
}

/// A dense weight in bf16.
pub struct NarrowDense<'a> {
    pub values: &'a [half::bf16],
    pub shape: [usize; 2],
}

impl Rows for NarrowDense<'_> {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn fill(&self, row: usize, out: &mut [f32]) {
        let columns = self.shape[1];
        let values = &self.values[row * columns..][..columns];
        vectorised(
            #[inline(always)]
            || bf16::widen(values, out),
        );
    }

    fn narrow(&self) -> bool {
        true
    }
}

/// `y (+)= x W^T` if `transposed`, else `y (+)= x W`, for `rows` rows of `x`.
pub fn product(
    y: &mut [f32],
    x: &[f32],
    rows: usize,
    weight: &impl Rows,
    transposed: bool,
    accumulate: bool,
) {
    let [out, inn] = weight.shape();
    let [from, to] = if transposed { [inn, out] } else { [out, inn] };
    assert!(x.len() == rows * from && y.len() == rows * to, "shapes");
    if transposed && (1..=few_rows::MOST_ROWS).contains(&rows) {
        if !accumulate {
            y.fill(0.0);
        }
        let mut rounded = Vec::new();
        let x = if weight.narrow() {
            rounded.extend_from_slice(x);
            round_all(&mut rounded);
            &rounded
        } else {
            x
        };
        return few_rows::add_product(y, x, rows, weight);
    }
    if rows == 0 || to == 0 {
        return;
    }
    if out == 0 && !accumulate {
        y.fill(0.0);
    }
    let step = block_rows(inn);
    let mut dense = vec![0.0; step.min(out) * inn];
    for first in (0..out).step_by(step) {
        let n = step.min(out - first);
        let dense = &mut dense[..n * inn];
        if inn > 0 {
            dense
                .par_chunks_exact_mut(inn)
                .enumerate()
                .for_each(|(i, row)| weight.fill(first + i, row));
        }
        let block = Mat::row_major(dense, n, inn);
        let (dst, a, b, accumulate) = if transposed {
            let x = Mat::row_major(x, rows, inn);
            // SAFETY: columns `first..first + n` of `y`.
            (unsafe { y.as_mut_ptr().add(first) }, x, block.t(), accumulate)
        } else {
            let x = Mat::strided(&x[first..], rows, n, out);
            (y.as_mut_ptr(), x, block, accumulate || first > 0)
        };
        // SAFETY: `y` has `rows` rows of `to` numbers and is borrowed for us alone.
        unsafe {
            match weight.narrow() {
                true => bf16::gemm(dst, to, a, b, accumulate),
                false => gemm_raw(dst, to, a, b, 1.0, accumulate, Threads::All),
            }
        }
    }
}
