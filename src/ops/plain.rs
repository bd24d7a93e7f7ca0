//! Operations of families other than Llama's, and DoRA's, in plain burn tensor
//! operations: what a device computes for which there are no kernels of our own, and
//! what those are compared with. Sums are f32.

use burn::tensor::{DType, Tensor};

/// sqrt(2 / pi)
const SLOPE: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

fn f32_of(x: &Tensor<2>) -> Tensor<2> {
    x.clone().cast(DType::F32)
}

/// `x - mean` and 1 / standard deviation, by rows.
fn centred(x: &Tensor<2>, eps: f32) -> (Tensor<2>, Tensor<2>) {
    let x = f32_of(x);
    let x = x.clone() - x.mean_dim(1);
    let inverse = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    (x, inverse)
}

pub fn layer_norm(x: &Tensor<2>, gain: &Tensor<2>, bias: &Tensor<2>, eps: f32) -> Tensor<2> {
    let (centred, inverse) = centred(x, eps);
    (centred * inverse * gain.clone() + bias.clone()).cast(x.dtype())
}

/// With n = (x - mean) / std and g = dy gain: dx = (g - mean(g) - n mean(g n)) / std.
pub fn layer_norm_backward(
    x: &Tensor<2>,
    gain: &Tensor<2>,
    dy: &Tensor<2>,
    eps: f32,
    want_gain: bool,
) -> (Tensor<2>, Option<Tensor<2>>) {
    let (centred, inverse) = centred(x, eps);
    let n = centred * inverse.clone();
    let dy = f32_of(dy);
    let d_gain = want_gain.then(|| (dy.clone() * n.clone()).sum_dim(0));
    let g = dy * gain.clone();
    let along = (g.clone() * n.clone()).mean_dim(1);
    let dx = (g.clone() - g.mean_dim(1) - n * along) * inverse;
    (dx.cast(x.dtype()), d_gain)
}

/// x and the logistic function of 2 sqrt(2/pi) (x + 0.044715 x^3): their product is
/// x (1 + tanh(..)) / 2.
fn gate(x: &Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let x = f32_of(x);
    let cube = x.clone().square() * x.clone();
    let u = (x.clone() + cube * CUBIC) * (2.0 * SLOPE);
    (x, burn::tensor::activation::sigmoid(u))
}

pub fn gelu(x: &Tensor<2>) -> Tensor<2> {
    let (wide, s) = gate(x);
    (wide * s).cast(x.dtype())
}

pub fn gelu_backward(x: &Tensor<2>, dy: &Tensor<2>) -> Tensor<2> {
    let (wide, s) = gate(x);
    let slope = (wide.clone().square() * (3.0 * CUBIC) + 1.0) * (2.0 * SLOPE);
    let d = s.clone() + wide * s.clone() * (s.neg() + 1.0) * slope;
    (f32_of(dy) * d).cast(x.dtype())
}

pub fn add_bias(x: Tensor<2>, bias: &Tensor<2>) -> Tensor<2> {
    let kind = x.dtype();
    (x.cast(DType::F32) + f32_of(bias)).cast(kind)
}

pub fn column_sums(x: &Tensor<2>) -> Tensor<2> {
    f32_of(x).sum_dim(0)
}

pub fn row_squares(w: &Tensor<2>) -> Tensor<2> {
    let rows = w.dims()[0];
    f32_of(w).square().sum_dim(1).reshape([1, rows])
}

pub fn dora_output(
    y: Tensor<2>,
    factors: &Tensor<2>,
    adapted: &Tensor<2>,
    plain: &Tensor<2>,
) -> Tensor<2> {
    let kind = y.dtype();
    (f32_of(&y) + f32_of(adapted) * factors.clone() - f32_of(plain)).cast(kind)
}

pub fn dora_backward(dy: &Tensor<2>, factors: &Tensor<2>, adapted: &Tensor<2>) -> [Tensor<2>; 3] {
    let (kind, dy) = (dy.dtype(), f32_of(dy));
    let slopes = (dy.clone() * f32_of(adapted)).sum_dim(0);
    let d_adapted = dy.clone() * factors.clone();
    let d_plain = d_adapted.clone() - dy;
    [slopes, d_adapted.cast(kind), d_plain.cast(kind)]
}
