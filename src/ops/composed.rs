//! The hot operations in plain burn tensor operations: the slow and obvious
//! reference that the kernels are compared with.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};

use super::leading::Leading;
use super::moments8::{BLOCK, Codes};
use super::nf4_map::{self, DynamicMap};
use super::{
    AdamW, AttentionShape, Clip, CrossEntropy, CrossEntropyGrad, HotOps, Indices, Moments8,
    Nf4Tensor, RopeTable, Scalar, Span, Spans, chunk_rows,
};
use crate::rng::Stream;

/// The first of the largest numbers that are finite.
pub fn first_largest(numbers: &[f32]) -> Option<u32> {
    let mut best: Option<usize> = None;
    for (i, number) in numbers.iter().enumerate() {
        if number.is_finite() && best.is_none_or(|best| *number > numbers[best]) {
            best = Some(i);
        }
    }
    best.map(|i| i as u32)
}

/// The `count` largest finite numbers of a row and their equals, by sorting all of it.
pub fn sorted(row: &[f32], count: usize, temperature: Option<f32>) -> Leading {
    let mut numbers: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
    numbers.retain(|(_, x)| x.is_finite());
    numbers.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
    let weight = |x: f32, t: f32| ((f64::from(x) - f64::from(numbers[0].1)) / f64::from(t)).exp();
    let total = temperature.map(|t| numbers.iter().map(|n| weight(n.1, t)).sum());
    let all = numbers.len() <= count;
    if !all {
        let least = numbers[count - 1].1;
        numbers.retain(|n| n.1 >= least);
    }
    Leading {
        numbers,
        all,
        total,
    }
}

/// The implementation of [`HotOps`] by composition.
pub struct Composed;

fn floats<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape), device)
}

fn indices(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = ids.iter().map(|&i| i as i32).collect();
    let n = ids.len();
    Tensor::from_data(TensorData::new(ids, [n]), device)
}

fn op(x: &Tensor<2>, transposed: bool) -> Tensor<2> {
    if transposed {
        x.clone().transpose()
    } else {
        x.clone()
    }
}

fn inverse_rms(x: &Tensor<2>, eps: f32) -> Tensor<2> {
    (x.clone().square().mean_dim(1) + eps).sqrt().recip()
}

fn scalar(x: Tensor<1>) -> f64 {
    x.into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

/// Rows of a span as `[heads, rows, head_dim]`, key heads repeated for their group.
fn split_heads(x: &Tensor<2>, first: usize, rows: usize, heads: usize, repeat: usize) -> Tensor<3> {
    let dim = x.dims()[1] / heads;
    let x = x.clone().narrow(0, first, rows).reshape([rows, heads, dim]);
    let x = x.swap_dims(0, 1);
    x.reshape([heads, 1, rows * dim])
        .repeat_dim(1, repeat)
        .reshape([heads * repeat, rows, dim])
}

fn join_heads(x: Tensor<3>) -> Tensor<2> {
    let [heads, rows, dim] = x.dims();
    x.swap_dims(0, 1).reshape([rows, heads * dim])
}

/// Sums the gradients of the query heads that share a key head.
fn sum_groups(x: Tensor<3>, kv_heads: usize) -> Tensor<3> {
    let [heads, rows, dim] = x.dims();
    x.reshape([kv_heads, heads / kv_heads, rows * dim])
        .sum_dim(1)
        .reshape([kv_heads, rows, dim])
}

struct SpanTensors {
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    /// Scaled scores, -inf where a query must not look.
    scores: Tensor<3>,
}

fn span_tensors(
    q: &Tensor<2>,
    k: &Tensor<2>,
    v: &Tensor<2>,
    span: &Span,
    shape: AttentionShape,
) -> SpanTensors {
    let group = shape.heads / shape.kv_heads;
    let q = split_heads(q, span.q_start, span.q_len, shape.heads, 1);
    let k = split_heads(k, span.k_start, span.k_len, shape.kv_heads, group);
    let v = split_heads(v, span.k_start, span.k_len, shape.kv_heads, group);
    let offset = (span.k_len - span.q_len) as i64;
    let size = [span.q_len, span.k_len];
    let hidden: Tensor<2, Bool> = Tensor::tril_mask(size, offset, &q.device());
    // Below the diagonal that lies `window` to the left nothing is seen.
    let hidden = match shape.window {
        Some(window) => {
            let left = offset - window as i64;
            let near: Tensor<2, Bool> = Tensor::tril_mask(size, left, &q.device());
            hidden.bool_or(near.bool_not())
        }
        None => hidden,
    };
    let scores = q.clone().matmul(k.clone().swap_dims(1, 2)) * shape.scale;
    let scores = scores.mask_fill(hidden.unsqueeze::<3>(), f32::NEG_INFINITY);
    SpanTensors { q, k, v, scores }
}

impl HotOps for Composed {
    fn gemm(&self, a: &Tensor<2>, ta: bool, b: &Tensor<2>, tb: bool, alpha: f32) -> Tensor<2> {
        op(a, ta).matmul(op(b, tb)) * alpha
    }

    fn gemm_add(
        &self,
        c: Tensor<2>,
        a: &Tensor<2>,
        ta: bool,
        b: &Tensor<2>,
        tb: bool,
        alpha: f32,
    ) -> Tensor<2> {
        c + self.gemm(a, ta, b, tb, alpha)
    }

    fn nf4_dequantize(&self, weight: &Nf4Tensor) -> Tensor<2> {
        #[allow(clippy::infallible_destructuring_match)] // with a GPU there are two
        let weight = match weight {
            Nf4Tensor::Host(weight) => weight,
            #[cfg(feature = "gpu")]
            Nf4Tensor::Gpu(_) => panic!("the reference takes weights on the host"),
        };
        let mut out = vec![0.0; weight.shape[0] * weight.shape[1]];
        weight.dequantize_into(&mut out);
        floats(out, weight.shape, &Device::flex())
    }

    fn rms_norm(&self, x: &Tensor<2>, gain: &Tensor<2>, eps: f32) -> Tensor<2> {
        x.clone() * inverse_rms(x, eps) * gain.clone()
    }

    fn rms_norm_backward(
        &self,
        x: &Tensor<2>,
        gain: &Tensor<2>,
        dy: &Tensor<2>,
        eps: f32,
        want_gain: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let r = inverse_rms(x, eps);
        let width = x.dims()[1] as f32;
        let scaled = dy.clone() * gain.clone();
        let c = (scaled.clone() * x.clone()).sum_dim(1) * r.clone().powf_scalar(3.0) / width;
        let dx = scaled * r.clone() - x.clone() * c;
        let dg = want_gain.then(|| (dy.clone() * x.clone() * r).sum_dim(0));
        (dx, dg)
    }

    fn rope(
        &self,
        x: Tensor<2>,
        table: &RopeTable,
        positions: &Indices,
        inverse: bool,
    ) -> Tensor<2> {
        let ([rows, width], device) = (x.dims(), x.device());
        let (dim, half) = (table.head_dim, table.head_dim / 2);
        let sign = if inverse { -1.0 } else { 1.0 };
        let pick = |values: &[f32], sign: f32| {
            let rows_of = positions
                .iter()
                .flat_map(|&p| &values[p as usize * half..][..half]);
            floats(
                rows_of.map(|v| v * sign).collect(),
                [positions.len(), 1, half],
                &device,
            )
        };
        let (cos, sin) = (pick(&table.cos, 1.0), pick(&table.sin, sign));
        let x = x.reshape([rows, width / dim, dim]);
        let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let left = a.clone() * cos.clone() - b.clone() * sin.clone();
        let right = b * cos + a * sin;
        Tensor::cat(vec![left, right], 2).reshape([rows, width])
    }

    fn swiglu(&self, gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2> {
        activation::silu(gate.clone()) * up.clone()
    }

    fn swiglu_backward(
        &self,
        gate: Tensor<2>,
        up: Tensor<2>,
        dy: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let s = activation::sigmoid(gate.clone());
        let slope = s.clone() * (gate.clone() * (s.clone().neg() + 1.0) + 1.0);
        let d_gate = dy.clone() * up * slope;
        (d_gate, dy.clone() * gate * s)
    }

    fn attention(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>) {
        let (mut out, mut lse) = (Vec::new(), Vec::new());
        for span in spans.iter() {
            let t = span_tensors(q, k, v, span, shape);
            let max = t.scores.clone().max_dim(2);
            let exps = (t.scores - max.clone()).exp();
            let sum = exps.clone().sum_dim(2);
            out.push(join_heads((exps / sum.clone()).matmul(t.v)));
            lse.push(join_heads(sum.log() + max));
        }
        (Tensor::cat(out, 0), Tensor::cat(lse, 0))
    }

    fn attention_backward(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        out: &Tensor<2>,
        lse: &Tensor<2>,
        dout: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans.iter() {
            let t = span_tensors(q, k, v, span, shape);
            let rows = |x: &Tensor<2>| split_heads(x, span.q_start, span.q_len, shape.heads, 1);
            let (o, g, l) = (rows(out), rows(dout), rows(lse));
            let p = (t.scores - l).exp();
            let delta = (o * g.clone()).sum_dim(2);
            let dp = g.clone().matmul(t.v.swap_dims(1, 2));
            let ds = p.clone() * (dp - delta) * shape.scale;
            dq.push(join_heads(ds.clone().matmul(t.k)));
            dk.push(join_heads(sum_groups(
                ds.swap_dims(1, 2).matmul(t.q),
                shape.kv_heads,
            )));
            dv.push(join_heads(sum_groups(
                p.swap_dims(1, 2).matmul(g),
                shape.kv_heads,
            )));
        }
        (Tensor::cat(dq, 0), Tensor::cat(dk, 0), Tensor::cat(dv, 0))
    }

    fn dropout(&self, x: &Tensor<2>, p: f32, stream: Stream) -> Tensor<2> {
        let [rows, width] = x.dims();
        let keep = 1.0 / (1.0 - p);
        let mask = (0..(rows * width) as u64)
            .map(|i| if stream.uniform(i) < p { 0.0 } else { keep })
            .collect();
        x.clone() * floats(mask, [rows, width], &x.device())
    }

    fn add(&self, a: Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        a + b.clone()
    }

    fn likeliest(&self, logits: &Tensor<2>) -> Vec<Option<u32>> {
        let numbers: Vec<f32> = logits.clone().into_data().iter::<f32>().collect();
        let rows = numbers.chunks(logits.dims()[1]);
        rows.map(first_largest).collect()
    }

    fn leading(
        &self,
        logits: &Tensor<2>,
        count: usize,
        temperature: Option<f32>,
    ) -> Vec<Option<Leading>> {
        let numbers: Vec<f32> = logits.clone().into_data().iter::<f32>().collect();
        let rows = numbers.chunks(logits.dims()[1]);
        rows.map(|row| Some(sorted(row, count, temperature)))
            .collect()
    }

    fn gather_rows(&self, table: &Tensor<2>, ids: &Indices) -> Tensor<2> {
        table.clone().select(0, indices(ids, &table.device()))
    }

    fn scatter_add_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2> {
        let ids = indices(ids, &dst.device());
        dst.select_assign(0, ids, src.clone(), burn::tensor::IndexingUpdateOp::Add)
    }

    fn write_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2> {
        let old = self.gather_rows(&dst, ids);
        self.scatter_add_rows(dst, ids, &(src.clone() - old))
    }

    fn cross_entropy(
        &self,
        hidden: &Tensor<2>,
        head: &Tensor<2>,
        targets: &Indices,
        grad: CrossEntropyGrad,
    ) -> CrossEntropy {
        let (rows, vocab) = (targets.len(), head.dims()[0]);
        let (scale, mut d_head, want_head) = match grad {
            CrossEntropyGrad::None => (None, None, false),
            CrossEntropyGrad::Hidden { scale } => (Some(scale), None, false),
            CrossEntropyGrad::HiddenAndHead { scale, head_grad } => (Some(scale), head_grad, true),
        };
        let (mut loss_sum, mut d_hidden) = (0.0, Vec::new());
        for (at, chunk) in targets.chunks(chunk_rows(vocab)).enumerate() {
            let first = at * chunk_rows(vocab);
            let x = hidden.clone().narrow(0, first, chunk.len());
            let log_p = activation::log_softmax(self.gemm(&x, false, head, true, 1.0), 1);
            let ids: Tensor<2, Int> = indices(chunk, &x.device()).unsqueeze_dim(1);
            loss_sum -= scalar(log_p.clone().gather(1, ids.clone()).sum());
            let Some(scale) = scale else { continue };
            let hot: Tensor<2> = ids
                .one_hot_fill::<3>(vocab, 1.0, 0.0, 2)
                .squeeze_dim::<2>(1)
                .float();
            let d_logits = (log_p.exp() - hot) * scale;
            d_hidden.push(d_logits.clone().matmul(head.clone()));
            if want_head {
                let part = self.gemm(&d_logits, true, &x, false, 1.0);
                d_head = Some(match d_head {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
        }
        debug_assert_eq!(rows, hidden.dims()[0]);
        CrossEntropy {
            loss_sum: Scalar::Host(loss_sum),
            d_hidden: scale.map(|_| Tensor::cat(d_hidden, 0)),
            d_head,
        }
    }

    fn adamw(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        m: Tensor<2>,
        v: Tensor<2>,
        h: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let t = h.step as i32;
        let g = grad.clone() * clip.factor();
        let m = m * h.beta1 + g.clone() * (1.0 - h.beta1);
        let v = v * h.beta2 + g.square() * (1.0 - h.beta2);
        let denominator = v.clone().sqrt() / (1.0 - h.beta2.powi(t)).sqrt() + h.eps;
        let step = m.clone() / denominator * (h.lr / (1.0 - h.beta1.powi(t)));
        (param * (1.0 - h.lr * h.weight_decay) - step, m, v)
    }

    fn adamw_8bit(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        moments: Moments8,
        h: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Moments8) {
        let maps = [nf4_map::signed(), nf4_map::unsigned()];
        let (m, v) = moments.codes();
        let (shape, device) = (param.dims(), param.device());
        let numbers = |codes: &Codes, map: &DynamicMap| {
            let value =
                |(i, code): (usize, &u8)| map.values[*code as usize] * codes.absmax[i / BLOCK];
            floats(
                codes.codes.iter().enumerate().map(value).collect(),
                shape,
                &device,
            )
        };
        let (m, v) = (numbers(&m, maps[0]), numbers(&v, maps[1]));
        let (param, m, v) = self.adamw(param, grad, m, v, h, clip);
        let [m, v] = [(m, maps[0]), (v, maps[1])].map(|(x, map)| {
            let x: Vec<f32> = x.into_data().iter().collect();
            let mut codes = vec![0; x.len()];
            let blocks = x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK));
            let absmax = blocks
                .map(|(x, codes)| map.quantize_block(x, codes))
                .collect();
            Codes { codes, absmax }
        });
        (param, Moments8::from_codes(m, v, &device))
    }

    fn sum_squares(&self, tensors: &[&Tensor<2>]) -> Scalar {
        let squares = |x: &&Tensor<2>| scalar((*x).clone().square().sum());
        Scalar::Host(tensors.iter().map(squares).sum())
    }
}
