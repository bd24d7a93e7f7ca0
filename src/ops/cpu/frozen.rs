//! Products with a frozen `[out, in]` weight that is held as something else than f32.
//! Its rows become numbers as they are packed for a product of ours, or for the gemm
//! crate a block at a time: no dense copy of it exists.

use super::bf16;
use super::elementwise::by_rows;
use super::few_rows;
use super::gemm::{gemm_raw, product_scratch};
use super::mat::{Mat, Threads};
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, Operand, Target};
use super::weight_rows::Rows;

/// Bytes of a block in f32: enough that its product takes far longer than making it,
/// few enough to stay in the last cache meanwhile.
const BLOCK_BYTES: usize = 8 << 20;

/// Rows of a block, of so many columns.
pub(super) fn block_rows(columns: usize) -> usize {
    (BLOCK_BYTES / 4 / columns.max(1)).max(1)
}

/// Whether the CPU multiplies bf16 numbers itself. Others multiply the same rounded
/// numbers in f32, which is exact for each product.
pub fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return tiles::multiplies_bf16();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Bytes that [`product`] takes for `rows` rows: packed operands, a block of the
/// weight, and with bf16 operands the left one, rounded, each where it is needed.
pub fn frozen_scratch(
    rows: usize,
    [out, inn]: [usize; 2],
    transposed: bool,
    in_bf16: bool,
    threads: usize,
) -> usize {
    let [from, to] = if transposed { [inn, out] } else { [out, inn] };
    let rounded = if in_bf16 { 4 * rows * from } else { 0 };
    #[cfg(target_arch = "x86_64")]
    if tiles::is_for(rows, to, in_bf16) {
        // Pairs are rounded as they are packed.
        let rounded = if multiplies_bf16() { 0 } else { rounded };
        return rounded + tiles::scratch_bytes(rows, from, to, in_bf16, threads);
    }
    let _ = threads;
    let block = 4 * inn * out.min(block_rows(inn));
    rounded + block + product_scratch(rows, from, to)
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
    let few = transposed && few_rows::is_for(rows, inn);
    #[cfg(target_arch = "x86_64")]
    let target = Target {
        dst: y.as_mut_ptr(),
        stride: to,
        accumulate,
        alpha: 1.0,
    };
    #[cfg(target_arch = "x86_64")]
    if !few && from > 0 && multiplies_bf16() && tiles::is_for(rows, to, true) && weight.in_bf16() {
        let [a, b] = operands(x, weight.unrounded(), [out, inn], transposed);
        // SAFETY: `y` has `rows` rows of `to` numbers and is borrowed for us alone.
        return unsafe { tiles::gemm_bf16(target, a, b) };
    }
    // Once, not for every block.
    let rounded = weight.in_bf16().then(|| bf16::rounded(x));
    let x = rounded.as_deref().unwrap_or(x);
    if few {
        if !accumulate {
            y.fill(0.0);
        }
        return few_rows::add_product(y, x, inn, weight, 1.0);
    }
    if rows == 0 || to == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if from > 0 && tiles::is_for(rows, to, false) {
        let [a, b] = operands(x, weight, [out, inn], transposed);
        // SAFETY: as above.
        return unsafe { tiles::gemm(target, a, b, Threads::All) };
    }
    by_blocks(y, x, weight, [out, inn], transposed, accumulate);
}

/// A product for tiles: the lines of `x` and of the weight.
#[cfg(target_arch = "x86_64")]
fn operands<'a>(
    x: &'a [f32],
    weight: Rows<'a>,
    shape: [usize; 2],
    transposed: bool,
) -> [Operand<'a>; 2] {
    let from = shape[usize::from(transposed)];
    let x = Operand::Numbers(Mat::row_major(x, x.len() / from, from));
    let weight = match transposed {
        true => Operand::Weight(weight, shape),
        false => Operand::WeightColumns(weight, shape),
    };
    [x, weight]
}

/// [`product`] by the gemm crate.
fn by_blocks(
    y: &mut [f32],
    x: &[f32],
    weight: Rows<'_>,
    [out, inn]: [usize; 2],
    transposed: bool,
    accumulate: bool,
) {
    let [from, to] = if transposed { [inn, out] } else { [out, inn] };
    let rows = y.len() / to;
    if from == 0 && !accumulate {
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
                    weight.fill(first + row + i, inn, 0, out);
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
        unsafe { gemm_raw(dst, to, a, b, 1.0, accumulate, Threads::All) }
    }
}
