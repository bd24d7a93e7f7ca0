//! RMSNorm (Zhang and Sennrich, 2019): one cube a row, sums in f32.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::columns;
use super::reduce::{cube_sum, vector_sum};
use super::tensors::{UNITS, cubes, dims, elem, empty, vector_size};

#[cube(launch_unchecked)]
fn rms_norm_kernel<F: Float, G: Float, N: Size>(
    x: &[Vector<F, N>],
    gain: &[Vector<G, N>],
    y: &mut [Vector<F, N>],
    rows: usize,
    vectors: usize,
    inv_width: f32,
    eps: f32,
    #[comptime] units: usize,
    #[define(F, G)] _types: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let first = row * vectors;
    let unit = UNIT_POS as usize;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut i = unit;
    while i < vectors {
        let v = Vector::<f32, N>::cast_from(x[first + i]);
        squares += v * v;
        i += units;
    }
    let sum = cube_sum(vector_sum::<N>(squares), &mut scratch, units);
    let r = Vector::<f32, N>::new(f32::recip(f32::sqrt(sum * inv_width + eps)));
    let mut i = unit;
    while i < vectors {
        let v = Vector::<f32, N>::cast_from(x[first + i]);
        let g = Vector::<f32, N>::cast_from(gain[i]);
        y[first + i] = Vector::cast_from(v * r * g);
        i += units;
    }
}

/// Also keeps 1/rms of each row for the gain's gradient.
#[cube(launch_unchecked)]
fn rms_norm_backward_kernel<F: Float, G: Float, N: Size>(
    x: &[Vector<F, N>],
    gain: &[Vector<G, N>],
    dy: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    inverse_rms: &mut [f32],
    rows: usize,
    vectors: usize,
    inv_width: f32,
    eps: f32,
    #[comptime] units: usize,
    #[define(F, G)] _types: [ElemType; 2],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let first = row * vectors;
    let unit = UNIT_POS as usize;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut products = Vector::<f32, N>::new(0.0f32);
    let mut i = unit;
    while i < vectors {
        let v = Vector::<f32, N>::cast_from(x[first + i]);
        let g = Vector::<f32, N>::cast_from(gain[i]);
        let d = Vector::<f32, N>::cast_from(dy[first + i]);
        squares += v * v;
        products += d * g * v;
        i += units;
    }
    let sum = cube_sum(vector_sum::<N>(squares), &mut scratch, units);
    let product = cube_sum(vector_sum::<N>(products), &mut scratch, units);
    let r = f32::recip(f32::sqrt(sum * inv_width + eps));
    let c = product * r * r * r * inv_width;
    if unit == 0 {
        inverse_rms[row] = r;
    }
    let (r, c) = (Vector::<f32, N>::new(r), Vector::<f32, N>::new(c));
    let mut i = unit;
    while i < vectors {
        let v = Vector::<f32, N>::cast_from(x[first + i]);
        let g = Vector::<f32, N>::cast_from(gain[i]);
        let d = Vector::<f32, N>::cast_from(dy[first + i]);
        dx[first + i] = Vector::cast_from(d * g * r - v * c);
        i += units;
    }
}

pub fn forward(x: CubeTensor, gain: CubeTensor, eps: f32) -> CubeTensor {
    let [rows, width] = dims(&x);
    let y = empty(&x, &[rows, width], x.dtype);
    let n = vector_size(width);
    let types = [elem(&x), elem(&gain)];
    // SAFETY: the kernel stays inside `rows x width` elements and the gain's `width`.
    unsafe {
        rms_norm_kernel::launch_unchecked(
            &y.client,
            cubes(rows),
            CubeDim::new_1d(UNITS as u32),
            n,
            x.into_buffer_arg(),
            gain.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            rows,
            width / n,
            1.0 / width as f32,
            eps,
            UNITS,
            types,
        );
    }
    y
}

/// Gradients to `x` and, if wanted, to the gain as `[1, width]` in f32.
pub fn backward(
    x: CubeTensor,
    gain: CubeTensor,
    dy: CubeTensor,
    eps: f32,
    want_gain: bool,
) -> (CubeTensor, Option<CubeTensor>) {
    let [rows, width] = dims(&x);
    let dx = empty(&x, &[rows, width], x.dtype);
    let inverse_rms = empty(&x, &[rows], DType::F32);
    let n = vector_size(width);
    let types = [elem(&x), elem(&gain)];
    // SAFETY: as in `forward`; `inverse_rms` has one element a row.
    unsafe {
        rms_norm_backward_kernel::launch_unchecked(
            &x.client,
            cubes(rows),
            CubeDim::new_1d(UNITS as u32),
            n,
            x.clone().into_buffer_arg(),
            gain.into_buffer_arg(),
            dy.clone().into_buffer_arg(),
            dx.clone().into_buffer_arg(),
            inverse_rms.clone().into_buffer_arg(),
            rows,
            width / n,
            1.0 / width as f32,
            eps,
            UNITS,
            types,
        );
    }
    let gradient = want_gain.then(|| columns::sums(&dy, Some(&x), Some(&inverse_rms)));
    (dx, gradient)
}
