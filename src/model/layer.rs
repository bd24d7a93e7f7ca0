//! One decoder layer of the Llama shape, forward and backward by hand.

use burn::tensor::Tensor;

use super::kv_cache::LayerCache;
use super::linear::{Linear, LinearTape, Pass, Weight};
use super::params::Grads;
use super::ragged::Ragged;
use crate::ops::{AttentionShape, RopeTable};

/// Pre-norm attention and SwiGLU with residuals.
pub struct Layer {
    pub attention_norm: Weight,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    pub mlp_norm: Weight,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// What all layers share.
pub struct LayerContext<'a> {
    pub pass: Pass<'a>,
    pub batch: &'a Ragged,
    pub rope: &'a RopeTable,
    pub attention: AttentionShape,
    pub eps: f32,
}

/// The intermediate results that the backward of a layer needs.
pub struct LayerTape {
    x: Tensor<2>,
    n1: Tensor<2>,
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    out: Tensor<2>,
    lse: Tensor<2>,
    h: Tensor<2>,
    n2: Tensor<2>,
    gate: Tensor<2>,
    up: Tensor<2>,
    /// Of q, k, v, o, gate, up, down.
    linears: [LinearTape; 7],
}

impl Layer {
    pub fn linears(&self) -> [&Linear; 7] {
        [
            &self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down,
        ]
    }

    pub fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [
            &mut self.q,
            &mut self.k,
            &mut self.v,
            &mut self.o,
            &mut self.gate,
            &mut self.up,
            &mut self.down,
        ]
    }

    /// `x` is `[tokens, hidden]`. With a cache, the new keys and values are
    /// appended to it and the queries attend to all of it.
    pub fn forward(
        &self,
        cx: &LayerContext<'_>,
        x: Tensor<2>,
        cache: Option<&mut LayerCache>,
    ) -> (Tensor<2>, LayerTape) {
        let (pass, ops) = (&cx.pass, cx.pass.ops);
        let n1 = ops.rms_norm(&x, &self.attention_norm.stored(pass), cx.eps);
        let (q, tq) = self.q.forward(pass, &n1);
        let (k, tk) = self.k.forward(pass, &n1);
        let (v, tv) = self.v.forward(pass, &n1);
        let q = ops.rope(q, cx.rope, &cx.batch.positions, false);
        let k = ops.rope(k, cx.rope, &cx.batch.positions, false);
        let (out, lse) = match cache {
            Some(cache) => {
                let (keys, values) = cache.append(ops, &k, &v);
                ops.attention(&q, keys, values, &cx.batch.spans, cx.attention)
            }
            None => ops.attention(&q, &k, &v, &cx.batch.spans, cx.attention),
        };
        let (y, to) = self.o.forward(pass, &out);
        let h = ops.add(y, &x);
        let n2 = ops.rms_norm(&h, &self.mlp_norm.stored(pass), cx.eps);
        let (gate, tg) = self.gate.forward(pass, &n2);
        let (up, tu) = self.up.forward(pass, &n2);
        let (y, td) = self.down.forward(pass, &ops.swiglu(&gate, &up));
        let y = ops.add(y, &h);
        let tape = LayerTape {
            x,
            n1,
            q,
            k,
            v,
            out,
            lse,
            h,
            n2,
            gate,
            up,
            linears: [tq, tk, tv, to, tg, tu, td],
        };
        (y, tape)
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
        let (pass, ops) = (&cx.pass, cx.pass.ops);
        let LayerTape {
            x,
            n1,
            q,
            k,
            v,
            out,
            lse,
            h,
            n2,
            gate,
            up,
            linears: [tq, tk, tv, to, tg, tu, td],
        } = tape;

        // What has been used is dropped at once: the widest results come first.
        let s = ops.swiglu(&gate, &up);
        let ds = self.down.backward(pass, &s, &td, &dy, grads, None, true)?;
        drop(s);
        let (d_gate, d_up) = ops.swiglu_backward(&gate, &up, &ds);
        drop((gate, up, ds));
        let dn2 = self
            .gate
            .backward(pass, &n2, &tg, &d_gate, grads, None, true);
        drop(d_gate);
        let dn2 = self.up.backward(pass, &n2, &tu, &d_up, grads, dn2, true)?;
        drop((n2, d_up));
        let dh = self.norm_backward(cx, &self.mlp_norm, &h, &dn2, grads);
        let dh = ops.add(dh, &dy);
        drop((h, dn2, dy));

        let d_out = self.o.backward(pass, &out, &to, &dh, grads, None, true)?;
        let (spans, shape) = (&cx.batch.spans, cx.attention);
        let (dq, dk, dv) = ops.attention_backward(&q, &k, &v, &out, &lse, &d_out, spans, shape);
        drop((q, k, v, out, lse, d_out));
        let dq = ops.rope(dq, cx.rope, &cx.batch.positions, true);
        let dk = ops.rope(dk, cx.rope, &cx.batch.positions, true);
        // A trainable norm needs the gradient of its output even in the first layer.
        let want = want_dx || self.attention_norm.param().is_some();
        let dn1 = self.q.backward(pass, &n1, &tq, &dq, grads, None, want);
        let dn1 = self.k.backward(pass, &n1, &tk, &dk, grads, dn1, want);
        let dn1 = self.v.backward(pass, &n1, &tv, &dv, grads, dn1, want)?;
        drop((n1, dq, dk, dv));
        let dx = self.norm_backward(cx, &self.attention_norm, &x, &dn1, grads);
        want_dx.then(|| ops.add(dx, &dh))
    }

    fn norm_backward(
        &self,
        cx: &LayerContext<'_>,
        gain: &Weight,
        x: &Tensor<2>,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> Tensor<2> {
        norm_backward(&cx.pass, gain, x, dy, cx.eps, grads)
    }
}

/// Backward of RMSNorm whose gain may be a parameter.
pub fn norm_backward(
    pass: &Pass<'_>,
    gain: &Weight,
    x: &Tensor<2>,
    dy: &Tensor<2>,
    eps: f32,
    grads: &mut Grads,
) -> Tensor<2> {
    let id = gain.param();
    let (dx, dg) = pass
        .ops
        .rms_norm_backward(x, &gain.stored(pass), dy, eps, id.is_some());
    if let (Some(id), Some(dg)) = (id, dg) {
        grads.add(pass.ops, id, dg);
    }
    dx
}
