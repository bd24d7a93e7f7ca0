//! Weight-decomposed LoRA (Liu et al., 2024, arXiv:2402.09353): the adapted weight
//! `V = W + s B A` keeps its direction by rows and gets a trained length,
//! `y = m / |V| x V^T`. Neither V nor its product is built: the norms come from
//! |w + s bA|^2 = |w|^2 + 2s b.(A w) + s^2 b (A A^T) b^T, the output from the
//! base's and LoRA's. The norms count as constants in the backward (section 4.3).

use burn::tensor::Tensor;

use super::lora::{Dora, Lora};
use super::params::Grads;
use super::pass::Pass;
use super::weight::Weight;

/// What the backward needs of the forward.
pub struct DoraTape {
    /// m / |V|, `[1, out]`.
    scale: Tensor<2>,
    /// 1 / |V|.
    inverse: Tensor<2>,
    /// `x V^T`, `[tokens, out]`.
    adapted: Tensor<2>,
}

impl Dora {
    /// 1 / |V| of every row.
    pub(super) fn inverse_norms(&self, pass: &Pass<'_>, lora: &Lora, weight: &Weight) -> Tensor<2> {
        let known = pass.operands.and_then(|o| o.inverse_norms(self.magnitude));
        if let Some(known) = known {
            return known.clone();
        }
        let (ops, out) = (pass.ops, self.squares.dims()[1]);
        let (a, b) = (pass.params.get(lora.a), pass.params.get(lora.b));
        let dense = weight.dense(pass);
        let along = ops.gradient(None, &dense, false, &pass.operand(lora.a), true, 1.0);
        drop(dense);
        let gram = ops.gemm(a, false, a, true, 1.0);
        let own = ops.gemm(b, false, &gram, false, lora.scale * lora.scale);
        let rows = (b.clone() * (along * (2.0 * lora.scale) + own)).sum_dim(1);
        // Cancellation may leave a hair below zero of a row of zeros.
        let squares = self.squares.clone() + rows.reshape([1, out]);
        squares.clamp_min(1e-30).sqrt().recip()
    }

    /// Turns `y`, the base's output, into DoRA's. `plain` is `x W^T` of the input
    /// that LoRA sees, without bias, where dropout makes that another than the
    /// base's; `delta` is `s x A^T B^T`.
    pub(super) fn forward(
        &self,
        pass: &Pass<'_>,
        lora: &Lora,
        weight: &Weight,
        plain: Tensor<2>,
        delta: Tensor<2>,
        y: Tensor<2>,
    ) -> (Tensor<2>, DoraTape) {
        let inverse = self.inverse_norms(pass, lora, weight);
        let scale = pass.params.get(self.magnitude).clone() * inverse.clone();
        let adapted = pass.ops.add(plain.clone(), &delta);
        let y = pass.ops.dora_output(y, &scale, &adapted, &plain);
        let tape = DoraTape {
            scale,
            inverse,
            adapted,
        };
        (y, tape)
    }

    /// Adds the gradient of the lengths; returns those that reach `delta` and
    /// `plain`.
    pub(super) fn backward(
        &self,
        pass: &Pass<'_>,
        tape: &DoraTape,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> [Tensor<2>; 2] {
        let ops = pass.ops;
        let [slopes, d_delta, d_plain] = ops.dora_backward(dy, &tape.scale, &tape.adapted);
        grads.add(ops, self.magnitude, slopes * tape.inverse.clone());
        [d_delta, d_plain]
    }
}
