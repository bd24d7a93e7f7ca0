//! Cross-entropy of a chunk of logits and its gradient: one cube a row.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::reduce::{cube_max, cube_sum};
use super::tensors::{UNITS, cubes, dims, empty};
use burn::backend::cubecl::dtype_to_storage_type;

/// `losses[first + row] = log-sum-exp - logits[target]`, and if wanted
/// `gradient = (softmax - onehot) x scale`.
#[cube(launch_unchecked)]
fn cross_entropy_kernel<F: Float>(
    logits: &[f32],
    targets: &[u32],
    losses: &mut [f32],
    gradient: &mut [F],
    first: usize,
    rows: usize,
    vocab: usize,
    scale: f32,
    #[comptime] want_gradient: bool,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let from = row * vocab;
    let unit = UNIT_POS as usize;
    // Online softmax (Milakov and Gimelshein, 2018): one pass for both.
    let mut largest = f32::new(-3.0e38);
    let mut sum = f32::new(0.0);
    let mut i = unit;
    while i < vocab {
        let x = logits[from + i];
        let next = max(largest, x);
        sum = sum * f32::exp(largest - next) + f32::exp(x - next);
        largest = next;
        i += units;
    }
    let row_max = cube_max(largest, &mut scratch, units);
    let row_sum = cube_sum(sum * f32::exp(largest - row_max), &mut scratch, units);
    let target = targets[first + row] as usize;
    if unit == 0 {
        losses[first + row] = row_max + f32::ln(row_sum) - logits[from + target];
    }
    if comptime!(want_gradient) {
        let factor = scale / row_sum;
        let mut i = unit;
        while i < vocab {
            let mut d = f32::exp(logits[from + i] - row_max) * factor;
            if i == target {
                d -= scale;
            }
            gradient[from + i] = F::cast_from(d);
            i += units;
        }
    }
}

/// Writes the losses of rows `first..` of `targets`; returns the gradient of
/// `logits` (f32 `[rows, vocab]`) in `dtype`, scaled, where a scale is given.
pub fn chunk(
    logits: CubeTensor,
    targets: CubeTensor,
    losses: CubeTensor,
    first: usize,
    scale: Option<f32>,
    dtype: DType,
) -> Option<CubeTensor> {
    let [rows, vocab] = dims(&logits);
    let wanted = scale.is_some();
    let shape = if wanted { [rows, vocab] } else { [1, 1] };
    let gradient = empty(&logits, &shape, dtype);
    // SAFETY: targets are columns of the logits, which tokenised data was checked for.
    unsafe {
        cross_entropy_kernel::launch_unchecked(
            &gradient.client,
            cubes(rows),
            CubeDim::new_1d(UNITS as u32),
            logits.into_buffer_arg(),
            targets.into_buffer_arg(),
            losses.into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            first,
            rows,
            vocab,
            scale.unwrap_or(1.0),
            wanted,
            UNITS,
            dtype_to_storage_type(dtype),
        );
    }
    wanted.then_some(gradient)
}
