//! The norms of the decoder: RMSNorm or LayerNorm, whose weights may train.

use burn::tensor::Tensor;

use super::params::Grads;
use super::pass::Pass;
use super::weight::Weight;

/// Normalises rows of the gain's width.
pub struct Norm {
    /// `[1, width]`.
    pub gain: Weight,
    /// `[1, width]` makes it a LayerNorm; an RMSNorm has none.
    pub bias: Option<Weight>,
    pub eps: f32,
}

impl Norm {
    pub fn forward(&self, pass: &Pass<'_>, x: &Tensor<2>) -> Tensor<2> {
        let gain = self.gain.stored(pass);
        match &self.bias {
            None => pass.ops.rms_norm(x, &gain, self.eps),
            Some(bias) => pass.ops.layer_norm(x, &gain, &bias.stored(pass), self.eps),
        }
    }

    /// Adds the gradients of gain and bias to `grads` where they train; returns
    /// that of `x`.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        x: &Tensor<2>,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> Tensor<2> {
        let (ops, gain) = (pass.ops, self.gain.stored(pass));
        let id = self.gain.param();
        let (dx, d_gain) = match &self.bias {
            None => ops.rms_norm_backward(x, &gain, dy, self.eps, id.is_some()),
            Some(_) => ops.layer_norm_backward(x, &gain, dy, self.eps, id.is_some()),
        };
        if let (Some(id), Some(d_gain)) = (id, d_gain) {
            grads.add(ops, id, d_gain);
        }
        if let Some(id) = self.bias.as_ref().and_then(Weight::param) {
            grads.add(ops, id, ops.column_sums(dy));
        }
        dx
    }

    /// Whether it needs the gradient of its output for weights of its own.
    pub fn trains(&self) -> bool {
        self.weights().any(|w| w.param().is_some())
    }

    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        std::iter::once(&self.gain).chain(&self.bias)
    }
}
