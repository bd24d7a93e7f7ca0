//! A linear layer: a frozen or trainable weight, and LoRA beside it.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::dora::{Dora, DoraTape};
use super::host_table::HostTable;
use super::operands::Operands;
use super::params::{Grads, ParamId, Params};
use crate::ops::{HotOps, Indices, Nf4Tensor};
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
    /// The number of the adapter that computes; `None` is the base alone.
    pub adapter: Option<usize>,
    /// Set in training where LoRA dropout applies.
    pub dropout: Option<DropoutKey>,
    /// What a layer has prepared for its linears.
    pub operands: Option<&'a Operands>,
    /// The row of the batch at which the tensors at hand begin.
    pub first_row: usize,
    /// Rows that a feed-forward part takes at once where its results are not kept.
    pub mlp_rows: usize,
}

impl Pass<'_> {
    /// The same pass over tensors that begin `rows` rows later.
    pub fn later(&self, rows: usize) -> Self {
        let first_row = self.first_row + rows;
        Self { first_row, ..*self }
    }

    /// A parameter among activations.
    pub fn operand(&self, id: ParamId) -> Tensor<2> {
        let prepared = self.operands.and_then(|all| all.get(id));
        let made = || self.ops.operand(self.params.get(id));
        prepared.cloned().unwrap_or_else(made)
    }
}

/// A matrix `[out, in]` (or a gain `[1, n]`) wherever it lives.
#[derive(Clone)]
pub enum Weight {
    Dense(Tensor<2>),
    Nf4(Nf4Tensor),
    Param(ParamId),
    /// An embedding that is not on the device.
    Host(HostTable),
}

impl Weight {
    /// The dense values as an operand among activations; dequantised for this use
    /// only.
    pub fn dense(&self, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Dense(w) => w.clone(),
            Self::Nf4(w) => pass.ops.nf4_dequantize(w),
            Self::Param(id) => pass.ops.matrix_operand(pass.params.get(*id)),
            Self::Host(table) => table.whole(),
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

    /// Rows of an embedding as activations.
    pub fn rows(&self, pass: &Pass<'_>, ids: &Indices) -> Tensor<2> {
        let rows = match self {
            Self::Host(table) => table.rows(ids),
            other => pass.ops.gather_rows(&other.stored(pass), ids),
        };
        pass.ops.operand(&rows)
    }

    /// `sum + x W^T` if `transposed`, else `sum + x W`; and with LoRA's operands `low`
    /// their product, `left right^T` or `left right`.
    fn product_low(
        &self,
        pass: &Pass<'_>,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        low: [&Tensor<2>; 2],
        transposed: bool,
    ) -> Tensor<2> {
        let ops = pass.ops;
        if let Self::Nf4(w) = self {
            return ops.nf4_gemm_low(sum, x, w, low, transposed);
        }
        let y = self.product(pass, sum, x, transposed);
        ops.gemm_add(y, low[0], false, low[1], transposed, 1.0)
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

    /// Bytes of frozen weight that stay in the device's memory.
    pub fn frozen_bytes(&self) -> usize {
        match self {
            Self::Dense(w) => w.dtype().size() * w.dims().iter().product::<usize>(),
            Self::Nf4(w) => w.bytes(),
            Self::Param(_) | Self::Host(_) => 0,
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
    pub dora: Option<Dora>,
    /// A and B as they began, where the base lost them to the adapter (PiSSA).
    pub start: Option<Arc<[Vec<f32>; 2]>>,
}

impl Lora {
    /// Whether this pass drops elements of the adapter's input.
    fn drops(&self, pass: &Pass<'_>) -> bool {
        pass.dropout.is_some() && self.dropout > 0.0
    }

    fn dropout(&self, pass: &Pass<'_>, x: &Tensor<2>) -> Tensor<2> {
        match pass.dropout {
            Some(key) if self.drops(pass) => {
                let path = [DROPOUT, key.step, key.micro, self.stream];
                let first = pass.first_row as u64 * x.dims()[1] as u64;
                let stream = Stream::new(key.seed, &path).from(first);
                pass.ops.dropout(x, self.dropout, stream)
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
    /// Of each adapter in memory; `None` where it leaves this linear as it is.
    pub loras: Vec<Option<Lora>>,
}

/// What the backward of a [`Linear`] needs besides its input.
pub struct LinearTape(Option<LoraTape>);

/// What the weights' half of a backward leaves to that of the input, where there is an
/// adapter: the gradient of its `u`, and with DoRA of the base's product.
pub struct LoraBack(Option<(Tensor<2>, Option<Tensor<2>>)>);

struct LoraTape {
    /// `scale x dropout(x) A^T`.
    u: Tensor<2>,
    dora: Option<DoraTape>,
}

impl Linear {
    /// Of the adapter of that number.
    pub fn lora(&self, adapter: usize) -> Option<&Lora> {
        self.loras.get(adapter)?.as_ref()
    }

    /// `x` is `[tokens, in]`; returns `[tokens, out]`.
    pub fn forward(&self, pass: &Pass<'_>, x: &Tensor<2>) -> (Tensor<2>, LinearTape) {
        let ops = pass.ops;
        let Some(lora) = pass.adapter.and_then(|number| self.lora(number)) else {
            let y = self.weight.product(pass, None, x, true);
            return (self.add_bias(pass, y), LinearTape(None));
        };
        let dropped = lora.dropout(pass, x);
        let (a, b) = (pass.operand(lora.a), pass.operand(lora.b));
        let u = ops.gemm(&dropped, false, &a, true, lora.scale);
        let Some(dora) = &lora.dora else {
            let y = self.weight.product_low(pass, None, x, [&u, &b], true);
            let y = self.add_bias(pass, y);
            return (y, LinearTape(Some(LoraTape { u, dora: None })));
        };
        let y = self.weight.product(pass, None, x, true);
        let plain = match lora.drops(pass) {
            true => self.weight.product(pass, None, &dropped, true),
            false => y.clone(),
        };
        let delta = ops.gemm(&u, false, &b, true, 1.0);
        let y = self.add_bias(pass, y);
        let (y, tape) = dora.forward(pass, lora, &self.weight, plain, delta, y);
        let dora = Some(tape);
        (y, LinearTape(Some(LoraTape { u, dora })))
    }

    /// The tape of [`Linear::forward`] alone, where nobody needs the output.
    pub fn tape(&self, pass: &Pass<'_>, x: &Tensor<2>) -> LinearTape {
        match pass.adapter.and_then(|number| self.lora(number)) {
            None => LinearTape(None),
            // DoRA's tape has the output in it.
            Some(lora) if lora.dora.is_some() => self.forward(pass, x).1,
            Some(lora) => {
                let dropped = lora.dropout(pass, x);
                let a = pass.operand(lora.a);
                let u = pass.ops.gemm(&dropped, false, &a, true, lora.scale);
                LinearTape(Some(LoraTape { u, dora: None }))
            }
        }
    }

    fn add_bias(&self, pass: &Pass<'_>, y: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => pass.ops.add_bias(y, &bias.stored(pass)),
            None => y,
        }
    }

    /// Adds the weights' gradients to `grads` and, if `want_dx`, the gradient of
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
        let back = self.backward_weights(pass, x, tape, dy, grads);
        if !want_dx {
            return dx;
        }
        Some(self.backward_input(pass, back, dy, dx))
    }

    /// The first half of [`Linear::backward`], which alone needs the input `x`: the
    /// caller may drop a wide one before the second half makes its gradient.
    pub fn backward_weights(
        &self,
        pass: &Pass<'_>,
        x: &Tensor<2>,
        tape: &LinearTape,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> LoraBack {
        let ops = pass.ops;
        if let Some(id) = self.weight.param() {
            grads.add_product(ops, id, dy, true, x, false, 1.0);
        }
        if let Some(id) = self.bias.as_ref().and_then(Weight::param) {
            grads.add(ops, id, ops.column_sums(dy));
        }
        let lora = pass.adapter.and_then(|number| self.lora(number));
        let (Some(lora), Some(tape)) = (lora, &tape.0) else {
            return LoraBack(None);
        };
        let (d_delta, d_plain) = match (&lora.dora, &tape.dora) {
            (Some(dora), Some(tape)) => {
                let [d_delta, d_plain] = dora.backward(pass, tape, dy, grads);
                (d_delta, Some(d_plain))
            }
            _ => (dy.clone(), None),
        };
        grads.add_product(ops, lora.b, &d_delta, true, &tape.u, false, 1.0);
        let du = ops.gemm(&d_delta, false, &pass.operand(lora.b), false, lora.scale);
        let dropped = lora.dropout(pass, x);
        grads.add_product(ops, lora.a, &du, true, &dropped, false, 1.0);
        LoraBack(Some((du, d_plain)))
    }

    /// The second half of [`Linear::backward`]: `dx` and the gradient of the input.
    pub fn backward_input(
        &self,
        pass: &Pass<'_>,
        back: LoraBack,
        dy: &Tensor<2>,
        dx: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let ops = pass.ops;
        let lora = pass.adapter.and_then(|number| self.lora(number));
        let (Some(lora), Some((du, d_plain))) = (lora, back.0) else {
            return self.weight.product(pass, dx, dy, false);
        };
        let a = pass.operand(lora.a);
        if d_plain.is_none() && !lora.drops(pass) {
            return self.weight.product_low(pass, dx, dy, [&du, &a], false);
        }
        let dx = self.weight.product(pass, dx, dy, false);
        // Of what LoRA sees: through A, and with DoRA through the base too.
        let seen = |sum: Option<Tensor<2>>| {
            let sum = match &d_plain {
                Some(d) => Some(self.weight.product(pass, sum, d, false)),
                None => sum,
            };
            match sum {
                Some(sum) => ops.gemm_add(sum, &du, false, &a, false, 1.0),
                None => ops.gemm(&du, false, &a, false, 1.0),
            }
        };
        match lora.drops(pass) {
            true => ops.add(dx, &lora.dropout(pass, &seen(None))),
            false => seen(Some(dx)),
        }
    }
}
