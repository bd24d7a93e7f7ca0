//! Products with a frozen `[out, in]` weight that is held as something else than f32.
//! Its rows become numbers a block at a time, so that no dense copy of it exists.

use super::bf16;
use super::elementwise::by_rows;
use super::few_rows;
use super::gemm::{gemm_raw, product_scratch};
use super::mat::{Mat, Threads};
use super::pairs;
use super::weight_rows::Rows;

/// Bytes of a block in f32: enough that its product takes far longer than making it,
/// few enough to stay in the last cache meanwhile.
const BLOCK_BYTES: usize = 8 << 20;

/// Rows of a block, of so many columns.
pub fn block_rows(columns: usize) -> usize {
    (BLOCK_BYTES / 4 / columns.max(1)).max(1)
}

/// Bytes that [`product`] takes for `rows` rows besides a block of the weight: packed
/// operands, and with bf16 operands the left one, rounded.
pub fn frozen_scratch(
    rows: usize,
    [out, inn]: [usize; 2],
    transposed: bool,
    in_bf16: bool,
    threads: usize,
) -> usize {
    let [from, to] = if transposed { [inn, out] } else { [out, inn] };
    let rounded = if in_bf16 { 4 * rows * from } else { 0 };
    if in_bf16 && pairs::available() {
        let depth = if transposed {
            inn
        } else {
            out.min(block_rows(inn))
        };
        return rounded + pairs::scratch(rows, depth, threads);
    }
    rounded + product_scratch(rows, from, to)
}

/// `y (+)= x W^T` if `transposed`, else `y (+)= x W`, for the weight
/// `W` of `[out, in]`.
pub fn product(
    y: &mut [f32],
    x: &[f32],
    weight: Rows<'_>,
    [out, inn]: [usize; 2],
    transposed: bool,
    accumulate: bool,
) {
    let [from, to] = if transposed { [inn, out] } else { [out, inn] };
    let rows = x.len() / from.max(1);
    assert!(x.len() == rows * from && y.len() == rows * to, "shapes");
    // Once, not for every block.
    let rounded = weight.in_bf16().then(|| bf16::rounded(x));
    let x = rounded.as_deref().unwrap_or(x);
    if transposed && few_rows::is_for(rows, inn) {
        if !accumulate {
            y.fill(0.0);
        }
        return few_rows::add_product(y, x, inn, weight, 1.0);
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
            by_rows(dense, inn, |row, part| {
                for (i, out) in part.chunks_exact_mut(inn).enumerate() {
                    weight.fill(first + row + i, out);
                }
            });
        }
        let block = Mat::row_major(dense, n, inn);
        let (dst, a, b, accumulate) = if transposed {
            let x = Mat::row_major(x, rows, inn);
            // SAFETY: columns `first..first + n` of `y`.
            (
                unsafe { y.as_mut_ptr().add(first) },
                x,
                block.t(),
                accumulate,
            )
        } else {
            let x = Mat::strided(&x[first..], rows, n, out);
            (y.as_mut_ptr(), x, block, accumulate || first > 0)
        };
        // SAFETY: `y` has `rows` rows of `to` numbers and is borrowed for us alone.
        unsafe {
            match weight.in_bf16() {
                true => bf16::gemm(dst, to, a, b, accumulate),
                false => gemm_raw(dst, to, a, b, 1.0, accumulate, Threads::All),
            }
        }
    }
}
