//! The feed-forward part of a layer, forward and backward by hand.

use burn::tensor::Tensor;

use super::linear::{Linear, LinearTape, Pass};
use super::params::Grads;

/// The feed-forward part.
#[allow(clippy::large_enum_variant)]
pub enum Mlp {
    /// `down(silu(gate x) * up x)`: gate, up and down.
    SwiGlu([Linear; 3]),
    /// `proj(gelu(fc x))`: fc and proj.
    Gelu([Linear; 2]),
}

/// What the backward needs besides the input: what the activation was given, and
/// the tapes of the linears in their order.
pub struct MlpTape {
    inner: Vec<Tensor<2>>,
    linears: Vec<LinearTape>,
}

impl Mlp {
    pub fn linears(&self) -> &[Linear] {
        match self {
            Self::SwiGlu(linears) => linears,
            Self::Gelu(linears) => linears,
        }
    }

    pub fn linears_mut(&mut self) -> &mut [Linear] {
        match self {
            Self::SwiGlu(linears) => linears,
            Self::Gelu(linears) => linears,
        }
    }

    /// `x` is `[tokens, hidden]`, already normalised.
    pub fn forward(&self, pass: &Pass<'_>, x: &Tensor<2>) -> (Tensor<2>, MlpTape) {
        let ops = pass.ops;
        match self {
            Self::SwiGlu([gate, up, down]) => {
                let (g, tg) = gate.forward(pass, x);
                let (u, tu) = up.forward(pass, x);
                let (y, td) = down.forward(pass, &ops.swiglu(&g, &u));
                let tape = MlpTape {
                    inner: vec![g, u],
                    linears: vec![tg, tu, td],
                };
                (y, tape)
            }
            Self::Gelu([fc, proj]) => {
                let (h, tf) = fc.forward(pass, x);
                let (y, tp) = proj.forward(pass, &ops.gelu(&h));
                let tape = MlpTape {
                    inner: vec![h],
                    linears: vec![tf, tp],
                };
                (y, tape)
            }
        }
    }

    /// Adds the weights' gradients to `grads`; returns the gradient of `x`, which
    /// is dropped with the rest as soon as it has been used.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        x: Tensor<2>,
        tape: MlpTape,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> Option<Tensor<2>> {
        let ops = pass.ops;
        let MlpTape { mut inner, linears } = tape;
        match self {
            Self::SwiGlu([gate, up, down]) => {
                let (u, g) = (inner.pop()?, inner.pop()?);
                let s = ops.swiglu(&g, &u);
                let ds = down.backward(pass, &s, &linears[2], dy, grads, None, true)?;
                drop(s);
                let (dg, du) = ops.swiglu_backward(g, u, &ds);
                drop(ds);
                let dx = gate.backward(pass, &x, &linears[0], &dg, grads, None, true);
                drop(dg);
                up.backward(pass, &x, &linears[1], &du, grads, dx, true)
            }
            Self::Gelu([fc, proj]) => {
                let h = inner.pop()?;
                let s = ops.gelu(&h);
                let ds = proj.backward(pass, &s, &linears[1], dy, grads, None, true)?;
                drop(s);
                let dh = ops.gelu_backward(&h, &ds);
                drop((h, ds));
                fc.backward(pass, &x, &linears[0], &dh, grads, None, true)
            }
        }
    }
}
