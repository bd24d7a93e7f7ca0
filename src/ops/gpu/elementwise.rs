//! Element by element: sums, SwiGLU, GELU, rotary embedding.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{cover, dims, elem, empty, vector_size};

fn count(tensor: &CubeTensor) -> usize {
    tensor.meta.num_elements()
}

#[cube(launch_unchecked)]
fn add_kernel<A: Float, B: Float, N: Size>(
    a: &mut [Vector<A, N>],
    b: &[Vector<B, N>],
    vectors: usize,
    #[define(A, B)] _types: [ElemType; 2],
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let sum = Vector::<f32, N>::cast_from(a[i]) + Vector::<f32, N>::cast_from(b[i]);
    a[i] = Vector::cast_from(sum);
}

#[cube(launch_unchecked)]
fn scale_kernel<F: Float, N: Size>(
    x: &mut [Vector<F, N>],
    factor: f32,
    vectors: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let scaled = Vector::<f32, N>::cast_from(x[i]) * Vector::<f32, N>::new(factor);
    x[i] = Vector::cast_from(scaled);
}

#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    one / (one + Vector::exp(-x))
}

#[cube(launch_unchecked)]
fn swiglu_kernel<F: Float, N: Size>(
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let g = Vector::<f32, N>::cast_from(gate[i]);
    let u = Vector::<f32, N>::cast_from(up[i]);
    out[i] = Vector::cast_from(g * sigmoid::<N>(g) * u);
}

#[cube(launch_unchecked)]
fn swiglu_backward_kernel<F: Float, N: Size>(
    gate: &mut [Vector<F, N>],
    up: &mut [Vector<F, N>],
    dy: &[Vector<F, N>],
    vectors: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let one = Vector::<f32, N>::new(1.0f32);
    let g = Vector::<f32, N>::cast_from(gate[i]);
    let u = Vector::<f32, N>::cast_from(up[i]);
    let d = Vector::<f32, N>::cast_from(dy[i]);
    let s = sigmoid::<N>(g);
    gate[i] = Vector::cast_from(d * u * s * (one + g * (one - s)));
    up[i] = Vector::cast_from(d * g * s);
}

/// 2 sqrt(2/pi), so that the logistic function stands for (1 + tanh) / 2.
const GELU_SLOPE: f32 = 1.595_769;
const GELU_CUBIC: f32 = 0.044_715;

/// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, or dy times its slope.
#[cube(launch_unchecked)]
fn gelu_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    #[comptime] backward: bool,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let one = Vector::<f32, N>::new(1.0f32);
    let slope = Vector::<f32, N>::new(GELU_SLOPE);
    let cubic = Vector::<f32, N>::new(GELU_CUBIC);
    let x = Vector::<f32, N>::cast_from(x[i]);
    let s = sigmoid::<N>(slope * (x + cubic * x * x * x));
    if comptime!(backward) {
        let three = Vector::<f32, N>::new(3.0f32);
        let inner = slope * (one + three * cubic * x * x);
        let d = Vector::<f32, N>::cast_from(dy[i]);
        out[i] = Vector::cast_from(d * (s + x * s * (one - s) * inner));
    } else {
        out[i] = Vector::cast_from(x * s);
    }
}

/// One unit a run of `N` pairs; pair (j, j + half) of a head turns in place.
#[cube(launch_unchecked)]
fn rope_kernel<F: Float, N: Size>(
    x: &mut [Vector<F, N>],
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    positions: &[u32],
    half: usize,
    row: usize,
    pairs: usize,
    sign: f32,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= pairs {
        terminate!();
    }
    // `half` and `row` count vectors; a row has row / 2 runs of pairs.
    let token = i / (row / 2);
    let rest = i % (row / 2);
    let j = rest % half;
    let left = token * row + rest / half * 2 * half + j;
    let angle = positions[token] as usize * half + j;
    let (c, s) = (cos[angle], sin[angle] * Vector::<f32, N>::new(sign));
    let a = Vector::<f32, N>::cast_from(x[left]);
    let b = Vector::<f32, N>::cast_from(x[left + half]);
    x[left] = Vector::cast_from(a * c - b * s);
    x[left + half] = Vector::cast_from(b * c + a * s);
}

/// `a += b`; `a` must not be shared.
pub fn add(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    assert_eq!(a.meta.shape(), b.meta.shape());
    let n = vector_size(count(&a));
    let (cubes, dim) = cover(count(&a) / n);
    let types = [elem(&a), elem(&b)];
    // SAFETY: both have as many elements as `a`.
    unsafe {
        add_kernel::launch_unchecked(
            &a.client,
            cubes,
            dim,
            n,
            a.clone().into_buffer_arg(),
            b.into_buffer_arg(),
            count(&a) / n,
            types,
        );
    }
    a
}

/// `x *= factor`; `x` must not be shared.
pub fn scale(x: CubeTensor, factor: f32) -> CubeTensor {
    let n = vector_size(count(&x));
    let (cubes, dim) = cover(count(&x) / n);
    // SAFETY: each unit writes its own vector of `x`.
    unsafe {
        scale_kernel::launch_unchecked(
            &x.client,
            cubes,
            dim,
            n,
            x.clone().into_buffer_arg(),
            factor,
            count(&x) / n,
            elem(&x),
        );
    }
    x
}

pub fn swiglu(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
    let out = empty(&gate, &dims(&gate), gate.dtype);
    let n = vector_size(count(&gate));
    let (cubes, dim) = cover(count(&gate) / n);
    let (vectors, kind) = (count(&gate) / n, elem(&gate));
    // SAFETY: all three have the same number of elements.
    unsafe {
        swiglu_kernel::launch_unchecked(
            &out.client,
            cubes,
            dim,
            n,
            gate.into_buffer_arg(),
            up.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            kind,
        );
    }
    out
}

/// GELU in its tanh approximation, or with `dy` its gradient.
pub fn gelu(x: CubeTensor, dy: Option<CubeTensor>) -> CubeTensor {
    let out = empty(&x, &dims(&x), x.dtype);
    let n = vector_size(count(&x));
    let (cubes, dim) = cover(count(&x) / n);
    let (vectors, kind, backward) = (count(&x) / n, elem(&x), dy.is_some());
    // A kernel takes all its buffers; forward, this one is not read.
    let dy = dy.unwrap_or_else(|| x.clone());
    // SAFETY: all three have the same number of elements.
    unsafe {
        gelu_kernel::launch_unchecked(
            &out.client,
            cubes,
            dim,
            n,
            x.into_buffer_arg(),
            dy.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            backward,
            kind,
        );
    }
    out
}

/// Writes the gradients over `gate` and `up`, which must not be shared.
pub fn swiglu_backward(
    gate: CubeTensor,
    up: CubeTensor,
    dy: CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let n = vector_size(count(&gate));
    let (cubes, dim) = cover(count(&gate) / n);
    let (vectors, kind) = (count(&gate) / n, elem(&gate));
    // SAFETY: all three have the same number of elements.
    unsafe {
        swiglu_backward_kernel::launch_unchecked(
            &dy.client.clone(),
            cubes,
            dim,
            n,
            gate.clone().into_buffer_arg(),
            up.clone().into_buffer_arg(),
            dy.into_buffer_arg(),
            vectors,
            kind,
        );
    }
    (gate, up)
}

/// Rotates `x` in place; it must not be shared. `cos` and `sin` are
/// `[positions, head_dim / 2]`.
pub fn rope(
    x: CubeTensor,
    cos: CubeTensor,
    sin: CubeTensor,
    positions: CubeTensor,
    head_dim: usize,
    inverse: bool,
) -> CubeTensor {
    let [_, width] = dims(&x);
    let half = head_dim / 2;
    let n = vector_size(half);
    let pairs = count(&x) / 2 / n;
    let (cubes, dim) = cover(pairs);
    // SAFETY: each unit owns its pairs; positions lie inside the table, which
    // covers all that the batch has.
    unsafe {
        rope_kernel::launch_unchecked(
            &x.client,
            cubes,
            dim,
            n,
            x.clone().into_buffer_arg(),
            cos.into_buffer_arg(),
            sin.into_buffer_arg(),
            positions.into_buffer_arg(),
            half / n,
            width / n,
            pairs,
            if inverse { -1.0 } else { 1.0 },
            elem(&x),
        );
    }
    x
}
