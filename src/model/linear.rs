//! A linear layer: a frozen or trainable weight, and LoRA beside it.

use burn::tensor::Tensor;

use super::params::{Grads, ParamId, Params};
use crate::ops::{HotOps, Nf4Tensor};
use crate::rng::Stream;

/// Names the dropout stream among the program's random streams.
const DROPOUT: u64 = 0xD509;

/// Where in the training the masks belong; the same key replays the same masks.
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey {
    pub seed: u64,
    /// Optimiser step, from 0.
    pub step: u64,
    /// Micro-batch within the step.
    pub micro: u64,
}

/// What a pass through the model needs besides the model.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub ops: &'static dyn HotOps,
    pub params: &'a Params,
    /// False computes the base alone, as if there were no adapter.
    pub adapter: bool,
    /// Set in training where LoRA dropout applies.
    pub dropout: Option<DropoutKey>,
}

/// A matrix `[out, in]` (or a gain `[1, n]`) wherever it lives.
#[derive(Clone)]
pub enum Weight {
    Dense(Tensor<2>),
    Nf4(Nf4Tensor),
    Param(ParamId),
}

impl Weight {
    /// The dense values as an operand among activations; dequantised for this use
    /// only.
    pub fn dense(&self, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Dense(w) => w.clone(),
            Self::Nf4(w) => pass.ops.nf4_dequantize(w),
            Self::Param(id) => pass.ops.operand(pass.params.get(*id)),
        }
    }

    /// The dense values in the type they are stored in, for operations that read
    /// either: gains and rows of an embedding.
    pub fn stored(&self, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Param(id) => pass.params.get(*id).clone(),
            other => other.dense(pass),
        }
    }

    /// `sum + x W^T` if `transposed`, else `sum + x W`.
    fn product(
        &self,
        pass: &Pass<'_>,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        transposed: bool,
    ) -> Tensor<2> {
        let ops = pass.ops;
        match (self, sum) {
            (Self::Nf4(w), sum) => ops.nf4_gemm(sum, x, w, transposed),
            (_, Some(sum)) => ops.gemm_add(sum, x, false, &self.dense(pass), transposed, 1.0),
            (_, None) => ops.gemm(x, false, &self.dense(pass), transposed, 1.0),
        }
    }

    pub fn param(&self) -> Option<ParamId> {
        match self {
            Self::Param(id) => Some(*id),
            _ => None,
        }
    }

    /// Bytes of frozen weight that stay in memory.
    pub fn frozen_bytes(&self) -> usize {
        match self {
            Self::Dense(w) => w.dtype().size() * w.dims().iter().product::<usize>(),
            Self::Nf4(w) => w.bytes(),
            Self::Param(_) => 0,
        }
    }
}

/// LoRA matrices of one linear (Hu et al., 2021): `y += scale x B A dropout(x)`.
#[derive(Clone, Debug)]
pub struct Lora {
    /// `[r, in]`.
    pub a: ParamId,
    /// `[out, r]`.
    pub b: ParamId,
    pub scale: f32,
    pub dropout: f32,
    /// Tells the dropout streams of different modules apart.
    pub stream: u64,
}

impl Lora {
    fn operands(&self, pass: &Pass<'_>) -> (Tensor<2>, Tensor<2>) {
        let operand = |id| pass.ops.operand(pass.params.get(id));
        (operand(self.a), operand(self.b))
    }

    fn dropout(&self, pass: &Pass<'_>, x: &Tensor<2>) -> Tensor<2> {
        match pass.dropout {
            Some(key) if self.dropout > 0.0 => {
                let path = [DROPOUT, key.step, key.micro, self.stream];
                pass.ops
                    .dropout(x, self.dropout, Stream::new(key.seed, &path))
            }
            _ => x.clone(),
        }
    }
}

/// `y = x W^T (+ bias) (+ LoRA)`.
#[derive(Clone)]
pub struct Linear {
    /// As in the checkpoint, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// `[out, in]`.
    pub weight: Weight,
    /// `[1, out]`.
    pub bias: Option<Weight>,
    pub lora: Option<Lora>,
}

/// What the backward of a [`Linear`] needs besides its input: `dropout(x) A^T`.
pub struct LinearTape(Option<Tensor<2>>);

impl Linear {
    /// `x` is `[tokens, in]`; returns `[tokens, out]`.
    pub fn forward(&self, pass: &Pass<'_>, x: &Tensor<2>) -> (Tensor<2>, LinearTape) {
        let ops = pass.ops;
        let y = self.weight.product(pass, None, x, true);
        let y = match &self.bias {
            Some(bias) => ops.add_bias(y, &bias.stored(pass)),
            None => y,
        };
        let Some(lora) = self.lora.as_ref().filter(|_| pass.adapter) else {
            return (y, LinearTape(None));
        };
        let dropped = lora.dropout(pass, x);
        let (a, b) = lora.operands(pass);
        let u = ops.gemm(&dropped, false, &a, true, 1.0);
        let y = ops.gemm_add(y, &u, false, &b, true, lora.scale);
        (y, LinearTape(Some(u)))
    }

    /// Adds the weight gradients to `grads` and, if `want_dx`, the gradient of
    /// the input to `dx`, which it returns.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        x: &Tensor<2>,
        tape: &LinearTape,
        dy: &Tensor<2>,
        grads: &mut Grads,
        dx: Option<Tensor<2>>,
        want_dx: bool,
    ) -> Option<Tensor<2>> {
        let ops = pass.ops;
        if let Some(id) = self.weight.param() {
            grads.add_product(ops, id, dy, true, x, false, 1.0);
        }
        if let Some(id) = self.bias.as_ref().and_then(Weight::param) {
            grads.add(ops, id, ops.column_sums(dy));
        }
        let mut dx = if want_dx {
            Some(self.weight.product(pass, dx, dy, false))
        } else {
            dx
        };
        if let (Some(lora), Some(u)) = (&self.lora, &tape.0) {
            let (a, b) = lora.operands(pass);
            grads.add_product(ops, lora.b, dy, true, u, false, lora.scale);
            let du = ops.gemm(dy, false, &b, false, lora.scale);
            let dropped = lora.dropout(pass, x);
            grads.add_product(ops, lora.a, &du, true, &dropped, false, 1.0);
            if want_dx {
                dx = dx.map(|dx| {
                    if pass.dropout.is_some() && lora.dropout > 0.0 {
                        let d = ops.gemm(&du, false, &a, false, 1.0);
                        ops.add(dx, &lora.dropout(pass, &d))
                    } else {
                        ops.gemm_add(dx, &du, false, &a, false, 1.0)
                    }
                });
            }
        }
        dx
    }
}
