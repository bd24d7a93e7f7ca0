//! One decoder layer, forward and backward by hand: pre-norm attention and
//! feed-forward part with residuals.

use burn::tensor::Tensor;

use super::attention::{Attention, AttentionTape};
use super::layer_context::LayerContext;
use super::linear::Linear;
use super::mlp::{Mlp, MlpTape};
use super::norm::Norm;
use super::operands::Operands;
use super::params::Grads;
use super::pass::Pass;

pub struct Layer {
    pub attention_norm: Norm,
    pub attention: Attention,
    pub mlp_norm: Norm,
    pub mlp: Mlp,
}

/// The intermediate results that the backward of a layer needs.
pub struct LayerTape {
    operands: Operands,
    attended: Attended,
    n2: Tensor<2>,
    mlp: MlpTape,
}

/// What the backward needs of a layer up to its feed-forward part.
struct Attended {
    x: Tensor<2>,
    n1: Tensor<2>,
    attention: AttentionTape,
    h: Tensor<2>,
}

impl Layer {
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.attention.linears().chain(self.mlp.linears())
    }

    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.attention.linears_mut().chain(self.mlp.linears_mut())
    }

    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        let heads = self.attention.qk_norm.iter().flatten();
        [&self.attention_norm, &self.mlp_norm]
            .into_iter()
            .chain(heads)
    }

    /// Of the adapter that computes in `pass`.
    pub(super) fn operands(&self, pass: &Pass<'_>) -> Operands {
        let Some(adapter) = pass.adapter else {
            return Operands::default();
        };
        let loras = self.linears().filter_map(|linear| linear.lora(adapter));
        let ids = loras.flat_map(|lora| [lora.a, lora.b]).collect();
        Operands::new(pass.ops, pass.params, ids)
    }

    /// [`Layer::operands`] for passes between which no parameter changes.
    pub(super) fn lasting_operands(&self, pass: &Pass<'_>) -> Operands {
        let operands = self.operands(pass);
        let pass = Pass {
            operands: Some(&operands),
            ..*pass
        };
        let norms = self.linears().filter_map(|linear| {
            let lora = linear.lora(pass.adapter?)?;
            let dora = lora.dora.as_ref()?;
            let norms = dora.inverse_norms(&pass, lora, &linear.weight);
            Some((dora.magnitude, norms))
        });
        let norms = norms.collect();
        operands.lasting(norms)
    }

    /// `x` is `[tokens, hidden]`.
    pub fn forward(&self, cx: &LayerContext<'_>, x: Tensor<2>) -> (Tensor<2>, LayerTape) {
        let operands = self.operands(&cx.pass);
        let cx = &cx.with(&operands);
        let (attended, n2) = self.attend(cx, x);
        let (y, mlp) = self.mlp.forward(&cx.pass, &n2);
        let y = cx.pass.ops.add(y, &attended.h);
        let tape = LayerTape {
            operands,
            attended,
            n2,
            mlp,
        };
        (y, tape)
    }

    /// The output of [`Layer::forward`] alone: what only a backward would need goes as
    /// soon as it has been used.
    pub fn output(&self, cx: &LayerContext<'_>, x: Tensor<2>) -> Tensor<2> {
        let operands = self.operands(&cx.pass);
        let cx = &cx.with(&operands);
        let (Attended { h, .. }, n2) = self.attend(cx, x);
        let y = self.mlp.output(&cx.pass, n2);
        cx.pass.ops.add(y, &h)
    }

    /// Up to the feed-forward part, and what that is given.
    fn attend(&self, cx: &LayerContext<'_>, x: Tensor<2>) -> (Attended, Tensor<2>) {
        let pass = &cx.pass;
        let n1 = self.attention_norm.forward(pass, &x);
        let (y, attention) = self.attention.forward(cx, &n1);
        let h = pass.ops.add(y, &x);
        let n2 = self.mlp_norm.forward(pass, &h);
        let attended = Attended {
            x,
            n1,
            attention,
            h,
        };
        (attended, n2)
    }

    /// Adds this layer's weight gradients to `grads`; returns the gradient of its
    /// input unless `want_dx` is false (the first layer over a frozen embedding).
    pub fn backward(
        &self,
        cx: &LayerContext<'_>,
        tape: LayerTape,
        dy: Tensor<2>,
        grads: &mut Grads,
        want_dx: bool,
    ) -> Option<Tensor<2>> {
        let LayerTape {
            operands,
            attended,
            n2,
            mlp,
        } = tape;
        let cx = &cx.with(&operands);
        let dn2 = self.mlp.backward(&cx.pass, n2, mlp, &dy, grads)?;
        self.attend_backward(cx, attended, dn2, dy, grads, want_dx)
    }

    /// [`Layer::backward`] where only the input `x` was kept: the rest is computed
    /// again, but for the output, which has been used long ago.
    pub fn backward_again(
        &self,
        cx: &LayerContext<'_>,
        x: Tensor<2>,
        dy: Tensor<2>,
        grads: &mut Grads,
        want_dx: bool,
    ) -> Option<Tensor<2>> {
        let operands = self.operands(&cx.pass);
        let cx = &cx.with(&operands);
        let (attended, n2) = self.attend(cx, x);
        let dn2 = self.mlp.backward_again(&cx.pass, n2, &dy, grads)?;
        self.attend_backward(cx, attended, dn2, dy, grads, want_dx)
    }

    /// The backward of [`Layer::attend`]; `dy` is the gradient of the layer's output.
    fn attend_backward(
        &self,
        cx: &LayerContext<'_>,
        attended: Attended,
        dn2: Tensor<2>,
        dy: Tensor<2>,
        grads: &mut Grads,
        want_dx: bool,
    ) -> Option<Tensor<2>> {
        let Attended {
            x,
            n1,
            attention,
            h,
        } = attended;
        let (pass, ops) = (&cx.pass, cx.pass.ops);
        // What has been used is dropped at once: the widest results come first.
        let dh = self.mlp_norm.backward(pass, &h, &dn2, grads);
        let dh = ops.add(dh, &dy);
        drop((h, dn2, dy));
        // A trainable norm needs the gradient of its output even in the first layer.
        let want = want_dx || self.attention_norm.trains();
        let dn1 = self
            .attention
            .backward(cx, &n1, attention, &dh, grads, want)?;
        drop(n1);
        let dx = self.attention_norm.backward(pass, &x, &dn1, grads);
        want_dx.then(|| ops.add(dx, &dh))
    }
}
