//! A linear layer: a frozen or trainable weight, and LoRA beside it.

use burn::tensor::Tensor;

use super::dora::DoraTape;
use super::lora::Lora;
use super::params::Grads;
use super::pass::Pass;
use super::weight::Weight;
use crate::ops::{Low, Matrix, Part};

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

    /// This linear as [`crate::ops::HotOps::linears`] takes it; `None` with DoRA or
    /// dropout, or where the weight is trained, of which the product makes an operand for
    /// itself.
    pub(super) fn part(&self, pass: &Pass<'_>) -> Option<Part<'_>> {
        let lora = pass.adapter.and_then(|number| self.lora(number));
        let apart = lora.is_some_and(|lora| lora.dora.is_some() || lora.drops(pass));
        if apart || self.weight.param().is_some() {
            return None;
        }
        Some(Part {
            weight: match &self.weight {
                Weight::Nf4(weight) => Matrix::Nf4(weight),
                other => Matrix::Dense(other.dense(pass)),
            },
            low: lora.map(|lora| Low {
                a: pass.operand(lora.a),
                b: pass.operand(lora.b),
                scale: lora.scale,
            }),
            bias: self.bias.as_ref().map(|bias| bias.stored(pass)),
        })
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
