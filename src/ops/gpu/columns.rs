//! Kernels with a number a column: biases, DoRA's factors, sums over the rows.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::many::buffers;
use super::tensors::{UNITS, cover, dims, elem, empty, vector_size};

/// Rows that a cube adds up; what cubes have is added up by another kernel.
const ROWS: usize = 64;
/// More than there are parts. The number itself would be compiled in, once for each.
const ALL: usize = 1 << 30;

#[cube(launch_unchecked)]
fn add_bias_kernel<F: Float, B: Float, N: Size>(
    x: &mut [Vector<F, N>],
    bias: &[Vector<B, N>],
    width: usize,
    vectors: usize,
    #[define(F, B)] _types: [ElemType; 2],
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let b = Vector::<f32, N>::cast_from(bias[i % width]);
    x[i] = Vector::cast_from(Vector::<f32, N>::cast_from(x[i]) + b);
}

/// `x + bias` in place; `x` must not be shared.
pub fn add_bias(x: CubeTensor, bias: CubeTensor) -> CubeTensor {
    let [rows, width] = dims(&x);
    let n = vector_size(width);
    let (count, dim) = cover(rows * width / n);
    let types = [elem(&x), elem(&bias)];
    // SAFETY: each unit has its own vector; the bias has one number a column.
    unsafe {
        add_bias_kernel::launch_unchecked(
            &x.client,
            count,
            dim,
            n,
            x.clone().into_buffer_arg(),
            bias.into_buffer_arg(),
            width / n,
            rows * width / n,
            types,
        );
    }
    x
}

/// What is summed over the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    /// Whether a second matrix multiplies the first.
    product: bool,
    /// Whether each row has a factor.
    factors: bool,
    rows: usize,
}

/// A unit has a column of `form.rows` rows, in order.
#[cube(launch_unchecked)]
#[allow(clippy::needless_range_loop)] // kernels have no iterators
fn sums_kernel<F: Float>(
    a: &[F],
    b: &Sequence<Box<[F]>>,
    factors: &Sequence<Box<[f32]>>,
    sums: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] form: Form,
    #[define(F)] _type: ElemType,
) {
    let column = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS as usize;
    if column >= width {
        terminate!();
    }
    let part = CUBE_POS_Y as usize;
    let first = part * form.rows;
    let end = min(first + form.rows, rows);
    let mut sum = f32::new(0.0);
    for row in first..end {
        let at = row * width + column;
        let mut value = f32::cast_from(a[at]);
        if comptime!(form.product) {
            value *= f32::cast_from(b.index(0usize)[at]);
        }
        if comptime!(form.factors) {
            value *= factors.index(0usize)[row];
        }
        sum += value;
    }
    sums[part * width + column] = sum;
}

/// Sums over the rows, `[1, width]` in f32: of `a`, times `b` of its shape and type, times
/// a factor a row. The order is always the same.
pub fn sums(a: &CubeTensor, b: Option<&CubeTensor>, factors: Option<&CubeTensor>) -> CubeTensor {
    let [rows, width] = dims(a);
    let parts = rows.div_ceil(ROWS).max(1);
    let partial = empty(a, &[parts, width], DType::F32);
    let kind = elem(a);
    let form = Form {
        product: b.is_some(),
        factors: factors.is_some(),
        rows: ROWS,
    };
    let launch = |a: &CubeTensor, b, factors, out: &CubeTensor, form: Form, rows, kind| {
        let parts = dims(out)[0] as u32;
        let across = CubeCount::Static(width.div_ceil(UNITS) as u32, parts, 1);
        // SAFETY: a column and its rows are checked; `out` has a row a part.
        unsafe {
            sums_kernel::launch_unchecked(
                &a.client,
                across,
                CubeDim::new_1d(UNITS as u32),
                a.clone().into_buffer_arg(),
                buffers(Option::<&CubeTensor>::into_iter(b)),
                buffers(Option::<&CubeTensor>::into_iter(factors)),
                out.clone().into_buffer_arg(),
                rows,
                width,
                form,
                kind,
            );
        }
    };
    launch(a, b, factors, &partial, form, rows, kind);
    if parts == 1 {
        return partial;
    }
    let whole = empty(a, &[1, width], DType::F32);
    let form = Form {
        product: false,
        factors: false,
        rows: ALL,
    };
    launch(&partial, None, None, &whole, form, parts, elem(&partial));
    whole
}

#[cube(launch_unchecked)]
fn dora_output_kernel<F: Float, N: Size>(
    y: &mut [Vector<F, N>],
    factors: &[Vector<f32, N>],
    adapted: &[Vector<F, N>],
    plain: &[Vector<F, N>],
    width: usize,
    vectors: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let moved = Vector::<f32, N>::cast_from(adapted[i]) * factors[i % width];
    let sum = Vector::<f32, N>::cast_from(y[i]) + moved;
    y[i] = Vector::cast_from(sum - Vector::<f32, N>::cast_from(plain[i]));
}

#[cube(launch_unchecked)]
fn dora_backward_kernel<F: Float, N: Size>(
    dy: &[Vector<F, N>],
    factors: &[Vector<f32, N>],
    d_adapted: &mut [Vector<F, N>],
    d_plain: &mut [Vector<F, N>],
    width: usize,
    vectors: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let d = Vector::<f32, N>::cast_from(dy[i]);
    let scaled = d * factors[i % width];
    d_adapted[i] = Vector::cast_from(scaled);
    d_plain[i] = Vector::cast_from(scaled - d);
}

/// `y + factors x adapted - plain` in place of `y`, which must not be shared.
pub fn dora_output(
    y: CubeTensor,
    factors: CubeTensor,
    adapted: CubeTensor,
    plain: CubeTensor,
) -> CubeTensor {
    let [rows, width] = dims(&y);
    let n = vector_size(width);
    let (count, dim) = cover(rows * width / n);
    // SAFETY: as in `add_bias`; all but the factors have the shape of `y`.
    unsafe {
        dora_output_kernel::launch_unchecked(
            &y.client,
            count,
            dim,
            n,
            y.clone().into_buffer_arg(),
            factors.into_buffer_arg(),
            adapted.into_buffer_arg(),
            plain.into_buffer_arg(),
            width / n,
            rows * width / n,
            elem(&y),
        );
    }
    y
}

/// Gradients to the factors, to `adapted` and to `plain`.
pub fn dora_backward(dy: CubeTensor, factors: CubeTensor, adapted: CubeTensor) -> [CubeTensor; 3] {
    let [rows, width] = dims(&dy);
    let slopes = sums(&dy, Some(&adapted), None);
    let result = || empty(&dy, &[rows, width], dy.dtype);
    let (d_adapted, d_plain) = (result(), result());
    let n = vector_size(width);
    let (count, dim) = cover(rows * width / n);
    let kind = elem(&dy);
    // SAFETY: as in `dora_output`.
    unsafe {
        dora_backward_kernel::launch_unchecked(
            &d_adapted.client,
            count,
            dim,
            n,
            dy.into_buffer_arg(),
            factors.into_buffer_arg(),
            d_adapted.clone().into_buffer_arg(),
            d_plain.clone().into_buffer_arg(),
            width / n,
            rows * width / n,
            kind,
        );
    }
    [slopes, d_adapted, d_plain]
}
