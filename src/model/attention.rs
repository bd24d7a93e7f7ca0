//! The attention of a layer, forward and backward by hand: projections, norms of
//! the heads, rotation, attention, output projection.

use burn::tensor::Tensor;

use super::layer_context::LayerContext;
use super::linear::{Linear, LinearTape};
use super::norm::Norm;
use super::params::Grads;
use crate::ops::AttentionShape;

/// The projections to queries, keys and values.
pub enum Qkv {
    Split([Linear; 3]),
    /// One matrix whose columns are those of all three (GPT-2).
    Fused(Linear),
}

/// Grouped-query attention with its projections.
pub struct Attention {
    pub qkv: Qkv,
    /// Norms over each head of q and of k.
    pub qk_norm: Option<[Norm; 2]>,
    pub o: Linear,
    pub window: Option<usize>,
}

/// What the backward needs besides the input.
pub struct AttentionTape {
    /// As attention takes them: normalised and turned.
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    /// q and k as projected, where they are normalised afterwards.
    projected: Option<[Tensor<2>; 2]>,
    out: Tensor<2>,
    lse: Tensor<2>,
    /// Of q, k and v, or of all three in one.
    qkv: Vec<LinearTape>,
    o: LinearTape,
}

impl Attention {
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        let qkv = match &self.qkv {
            Qkv::Split(linears) => linears.as_slice(),
            Qkv::Fused(linear) => std::slice::from_ref(linear),
        };
        qkv.iter().chain([&self.o])
    }

    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let qkv = match &mut self.qkv {
            Qkv::Split(linears) => linears.as_mut_slice(),
            Qkv::Fused(linear) => std::slice::from_mut(linear),
        };
        qkv.iter_mut().chain([&mut self.o])
    }

    pub(super) fn shape(&self, cx: &LayerContext<'_>) -> AttentionShape {
        AttentionShape {
            window: self.window,
            ..cx.attention
        }
    }

    /// `x` is `[tokens, hidden]`, already normalised.
    pub fn forward(&self, cx: &LayerContext<'_>, x: &Tensor<2>) -> (Tensor<2>, AttentionTape) {
        let (pass, ops) = (&cx.pass, cx.pass.ops);
        let ([q, k, v], qkv) = self.project(cx, x);
        let projected = self.qk_norm.is_some().then(|| [q.clone(), k.clone()]);
        let (q, k) = self.norm_heads(cx, q, k);
        let (q, k) = (turn(cx, q, false), turn(cx, k, false));
        let shape = self.shape(cx);
        let (out, lse) = ops.attention(&q, &k, &v, &cx.batch.spans, shape);
        let (y, o) = self.o.forward(pass, &out);
        let tape = AttentionTape {
            q,
            k,
            v,
            projected,
            out,
            lse,
            qkv,
            o,
        };
        (y, tape)
    }

    /// Queries and keys, normalised where the family does that.
    pub(super) fn norm_heads(
        &self,
        cx: &LayerContext<'_>,
        q: Tensor<2>,
        k: Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let normed =
            |norm: &Norm, x: Tensor<2>| join(norm.forward(&cx.pass, &heads(&x, cx)), x.dims());
        match &self.qk_norm {
            None => (q, k),
            Some([q_norm, k_norm]) => (normed(q_norm, q), normed(k_norm, k)),
        }
    }

    pub(super) fn project(
        &self,
        cx: &LayerContext<'_>,
        x: &Tensor<2>,
    ) -> ([Tensor<2>; 3], Vec<LinearTape>) {
        match &self.qkv {
            Qkv::Split(linears) => {
                let [q, k, v] = linears.each_ref().map(|l| l.forward(&cx.pass, x));
                ([q.0, k.0, v.0], vec![q.1, k.1, v.1])
            }
            Qkv::Fused(linear) => {
                let (y, tape) = linear.forward(&cx.pass, x);
                let (dim, kv) = (cx.attention.head_dim, cx.attention.kv_heads);
                let (wide, narrow) = (cx.attention.heads * dim, kv * dim);
                let part = |from, width| y.clone().narrow(1, from, width);
                let parts = [
                    part(0, wide),
                    part(wide, narrow),
                    part(wide + narrow, narrow),
                ];
                (parts, vec![tape])
            }
        }
    }

    /// Adds the weights' gradients to `grads`; returns the gradient of the input
    /// unless `want_dx` is false.
    pub fn backward(
        &self,
        cx: &LayerContext<'_>,
        x: &Tensor<2>,
        tape: AttentionTape,
        dy: &Tensor<2>,
        grads: &mut Grads,
        want_dx: bool,
    ) -> Option<Tensor<2>> {
        let (pass, ops) = (&cx.pass, cx.pass.ops);
        let AttentionTape {
            q,
            k,
            v,
            projected,
            out,
            lse,
            qkv,
            o,
        } = tape;
        let d_out = self.o.backward(pass, &out, &o, dy, grads, None, true)?;
        let (spans, shape) = (&cx.batch.spans, self.shape(cx));
        let (dq, dk, dv) = ops.attention_backward(&q, &k, &v, &out, &lse, &d_out, spans, shape);
        // What has been used is dropped at once.
        drop((q, k, v, out, lse, d_out));
        let (mut dq, mut dk) = (turn(cx, dq, true), turn(cx, dk, true));
        if let (Some([q_norm, k_norm]), Some([q, k])) = (&self.qk_norm, projected) {
            let mut back = |norm: &Norm, x: Tensor<2>, d: Tensor<2>| {
                let dx = norm.backward(pass, &heads(&x, cx), &heads(&d, cx), grads);
                join(dx, x.dims())
            };
            dq = back(q_norm, q, dq);
            dk = back(k_norm, k, dk);
        }
        match &self.qkv {
            Qkv::Split(linears) => {
                let mut dx = None;
                for ((linear, tape), d) in linears.iter().zip(&qkv).zip([&dq, &dk, &dv]) {
                    dx = linear.backward(pass, x, tape, d, grads, dx, want_dx);
                }
                dx
            }
            Qkv::Fused(linear) => {
                let d = Tensor::cat(vec![dq, dk, dv], 1);
                linear.backward(pass, x, &qkv[0], &d, grads, None, want_dx)
            }
        }
    }
}

/// `[tokens, heads x head_dim]` as `[tokens x heads, head_dim]`.
fn heads(x: &Tensor<2>, cx: &LayerContext<'_>) -> Tensor<2> {
    let ([rows, width], dim) = (x.dims(), cx.attention.head_dim);
    x.clone().reshape([rows * width / dim, dim])
}

fn join(x: Tensor<2>, shape: [usize; 2]) -> Tensor<2> {
    x.reshape(shape)
}

/// Turns each head by its row's position, where positions are rotary.
pub(super) fn turn(cx: &LayerContext<'_>, x: Tensor<2>, inverse: bool) -> Tensor<2> {
    match cx.rope {
        Some(rope) => cx.pass.ops.rope(x, rope, &cx.batch.positions, inverse),
        None => x,
    }
}
