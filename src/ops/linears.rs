//! Linear layers of one input, for passes that keep nothing for a backward.

use burn::tensor::Tensor;

use super::{HotOps, Nf4Tensor};

/// A linear layer as an operation takes it: `x W^T + scale (x A^T) B^T + bias`.
pub struct Part<'a> {
    pub weight: Matrix<'a>,
    pub low: Option<Low>,
    /// `[1, out]`.
    pub bias: Option<Tensor<2>>,
}

/// A weight `[out, in]`.
pub enum Matrix<'a> {
    Dense(Tensor<2>),
    Nf4(&'a Nf4Tensor),
}

/// LoRA's matrices as operands.
pub struct Low {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    pub scale: f32,
}

/// What comes of the outputs.
pub enum Then<'a> {
    /// One tensor a linear.
    Nothing,
    /// The sum of this and the output of the one linear.
    Add(&'a Tensor<2>),
    /// `silu(y) x z` of the outputs of two (Shazeer, 2020).
    SwiGlu,
}

impl Then<'_> {
    /// What comes of `outputs`.
    pub fn of<O: HotOps + ?Sized>(&self, ops: &O, outputs: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        match self {
            Self::Nothing => outputs,
            Self::Add(other) => outputs.into_iter().map(|y| ops.add(y, other)).collect(),
            Self::SwiGlu => vec![ops.swiglu(&outputs[0], &outputs[1])],
        }
    }
}

/// [`HotOps::linears`] one product after another.
pub(super) fn one_by_one<O: HotOps + ?Sized>(
    ops: &O,
    x: &Tensor<2>,
    parts: &[Part<'_>],
    then: &Then<'_>,
) -> Vec<Tensor<2>> {
    then.of(ops, parts.iter().map(|part| output(ops, x, part)).collect())
}

fn output<O: HotOps + ?Sized>(ops: &O, x: &Tensor<2>, part: &Part<'_>) -> Tensor<2> {
    let low = part.low.as_ref().map(|low| {
        let u = ops.gemm(x, false, &low.a, true, low.scale);
        (u, &low.b)
    });
    let y = match (&part.weight, &low) {
        (Matrix::Nf4(w), Some((u, b))) => ops.nf4_gemm_low(None, x, w, [u, b], true),
        (Matrix::Nf4(w), None) => ops.nf4_gemm(None, x, w, true),
        (Matrix::Dense(w), low) => {
            let y = ops.gemm(x, false, w, true, 1.0);
            match low {
                Some((u, b)) => ops.gemm_add(y, u, false, b, true, 1.0),
                None => y,
            }
        }
    };
    match &part.bias {
        Some(bias) => ops.add_bias(y, bias),
        None => y,
    }
}
