//! A layer's pass over new tokens of sequences whose earlier ones are in a KV cache.
//! Nothing is kept for a backward, so linears of one input go together.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::attention::{Attention, Qkv, turn};
use super::kv_cache::LayerCache;
use super::layer::Layer;
use super::layer_context::LayerContext;
use super::linear::Linear;
use super::mlp::Mlp;
use super::operands::Operands;
use super::pass::Pass;
use super::ragged::Begun;
use crate::ops::Then;

impl Layer {
    /// The output for `x`, `[tokens, hidden]`, whose keys and values are appended to the
    /// cache; the queries attend to all of it.
    pub fn extend(&self, cx: &LayerContext<'_>, x: Tensor<2>, cache: &mut LayerCache) -> Tensor<2> {
        let operands = match cx.pass.adapter {
            Some(adapter) => cache.operands(adapter, || self.lasting_operands(&cx.pass)),
            None => Arc::<Operands>::default(),
        };
        let cx = &cx.with(&operands);
        let n1 = self.attention_norm.forward(&cx.pass, &x);
        let h = self.attention.extend(cx, &n1, &x, cache);
        drop((n1, x));
        let n2 = self.mlp_norm.forward(&cx.pass, &h);
        self.mlp.extend(&cx.pass, n2, &h)
    }
}

impl Attention {
    /// `residual` and the output for `x`, already normalised.
    fn extend(
        &self,
        cx: &LayerContext<'_>,
        x: &Tensor<2>,
        residual: &Tensor<2>,
        cache: &mut LayerCache,
    ) -> Tensor<2> {
        let (pass, ops) = (&cx.pass, cx.pass.ops);
        let [q, k, v] = match &self.qkv {
            Qkv::Split([q, k, v]) => {
                let mut all = together(pass, x, &[q, k, v], &Then::Nothing);
                let [k, v] = [all.remove(1), all.remove(1)];
                [one(all), k, v]
            }
            Qkv::Fused(_) => self.project(cx, x).0,
        };
        let (q, k) = self.norm_heads(cx, q, k);
        let begun = cx.batch.begun().filter(|_| ops.likes_prompts_apart());
        let out = match begun {
            Some(begun) => self.attend_apart(cx, begun, [q, k, v], cache),
            None => {
                let q = cache.append(ops, [q, k, v], cx.rope, &cx.batch.positions);
                let (keys, values) = (&cache.keys, &cache.values);
                ops.attend(&q, keys, values, &cx.batch.spans, self.shape(cx))
            }
        };
        one(together(pass, &out, &[&self.o], &Then::Add(residual)))
    }
}

impl Attention {
    /// Attention where some sequences begin: these to their own rows, as in training, the
    /// others to the cache.
    fn attend_apart(
        &self,
        cx: &LayerContext<'_>,
        begun: &Begun,
        [q, k, v]: [Tensor<2>; 3],
        cache: &mut LayerCache,
    ) -> Tensor<2> {
        let (ops, shape) = (cx.pass.ops, self.shape(cx));
        let (q, k) = (turn(cx, q, false), turn(cx, k, false));
        let new = [q.clone(), k.clone(), v.clone()];
        cache.append(ops, new, None, &cx.batch.positions);
        let Some((rows, spans)) = &begun.others else {
            return ops.attention(&q, &k, &v, &begun.spans, shape).0;
        };
        let own = [&q, &k, &v].map(|x| ops.gather_rows(x, &begun.rows));
        let own = ops
            .attention(&own[0], &own[1], &own[2], &begun.spans, shape)
            .0;
        let others = ops.gather_rows(&q, rows);
        let others = ops.attend(&others, &cache.keys, &cache.values, spans, shape);
        let out = ops.zeros(q.dims(), &q.device());
        let out = ops.write_rows(out, &begun.rows, &own);
        ops.write_rows(out, rows, &others)
    }
}

impl Mlp {
    /// `residual` and the output for `x`, already normalised.
    fn extend(&self, pass: &Pass<'_>, x: Tensor<2>, residual: &Tensor<2>) -> Tensor<2> {
        if self.is_tiled(pass, x.dims()[0]) {
            return pass.ops.add(self.output(pass, x), residual);
        }
        let activated = match self {
            Self::SwiGlu([gate, up, _]) => one(together(pass, &x, &[gate, up], &Then::SwiGlu)),
            Self::Gelu([fc, _]) => pass.ops.gelu(&fc.forward(pass, &x).0),
        };
        drop(x);
        one(together(
            pass,
            &activated,
            &[self.last()],
            &Then::Add(residual),
        ))
    }
}

/// Linears of one input, and what `then` makes of their outputs.
fn together(
    pass: &Pass<'_>,
    x: &Tensor<2>,
    linears: &[&Linear],
    then: &Then<'_>,
) -> Vec<Tensor<2>> {
    let parts: Option<Vec<_>> = linears.iter().map(|linear| linear.part(pass)).collect();
    if let Some(parts) = parts {
        return pass.ops.linears(x, &parts, then);
    }
    let outputs = linears.iter().map(|linear| linear.forward(pass, x).0);
    then.of(pass.ops, outputs.collect())
}

/// The one output.
fn one(mut outputs: Vec<Tensor<2>>) -> Tensor<2> {
    outputs.remove(0)
}
