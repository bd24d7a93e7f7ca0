//! Causal grouped-query attention in blocks of query rows: at most `BLOCK x keys`
//! scores of one head exist per task, never S x S.

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::exp;
use super::gemm::{gemm, gemm_raw};
use super::mat::{Mat, Threads};
use super::norm::dot;
use crate::ops::vectorised::vectorised;
use crate::ops::{AttentionShape, Span};

/// Query rows of one task.
const BLOCK: usize = 64;

/// What the backward needs of the forward.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
}

/// A pointer that tasks write through at places no other task touches.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: every task writes a region of its own; see the uses.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: offsets stay inside the vector the pointer came from.
        unsafe { self.0.add(offset) }
    }
}

/// Columns of one head: `rows` rows from row `first`, the head's features.
fn head(x: &[f32], width: usize, first: usize, rows: usize, at: usize, dim: usize) -> Mat<'_> {
    if rows == 0 {
        return Mat::strided(&x[..0], 0, dim, width);
    }
    Mat::strided(&x[first * width + at..], rows, dim, width)
}

/// Keys that query row `i` of a span sees, counted from the span's first key.
fn visible(span: &Span, i: usize, shape: AttentionShape) -> Range<usize> {
    let end = span.k_len - span.q_len + i + 1;
    let start = shape.window.map_or(0, |window| end.saturating_sub(window));
    start..end
}

struct Task {
    span: Span,
    head: usize,
    from: usize,
    to: usize,
}

fn tasks(spans: &[Span], heads: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    for &span in spans {
        for head in 0..heads {
            for from in (0..span.q_len).step_by(BLOCK) {
                let to = (from + BLOCK).min(span.q_len);
                tasks.push(Task {
                    span,
                    head,
                    from,
                    to,
                });
            }
        }
    }
    tasks
}

/// Output `[tokens, heads x head_dim]` and log-sum-exp `[tokens, heads]`. Every query
/// sees all keys of its span unless the attention is `causal`.
pub fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    spans: &[Span],
    shape: AttentionShape,
    causal: bool,
) -> (Vec<f32>, Vec<f32>) {
    let visible = |span: &Span, i: usize, shape: AttentionShape| match causal {
        true => visible(span, i, shape),
        false => 0..span.k_len,
    };
    let (dim, heads) = (shape.head_dim, shape.heads);
    let (qw, kw) = (heads * dim, shape.kv_heads * dim);
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![0.0; q.len() / dim];
    let (out_at, lse_at) = (Shared(out.as_mut_ptr()), Shared(lse.as_mut_ptr()));
    tasks(spans, heads)
        .into_par_iter()
        .for_each_init(Vec::new, |scores: &mut Vec<f32>, task| {
            let Task {
                span,
                head: h,
                from,
                to,
            } = task;
            let kv = h / (heads / shape.kv_heads);
            let near = visible(&span, from, shape).start;
            let (rows, keys) = (to - from, visible(&span, to - 1, shape).end - near);
            let qm = head(q, qw, span.q_start + from, rows, h * dim, dim);
            let km = head(k, kw, span.k_start + near, keys, kv * dim, dim);
            let vm = head(v, kw, span.k_start + near, keys, kv * dim, dim);
            scores.resize((rows * keys).max(scores.len()), 0.0);
            let scores = &mut scores[..rows * keys];
            gemm(scores, keys, qm, km.t(), shape.scale, false, Threads::One);
            for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                let seen = visible(&span, from + i, shape);
                let seen = seen.start - near..seen.end - near;
                row[..seen.start].fill(0.0);
                row[seen.end..].fill(0.0);
                let value = vectorised(
                    #[inline(always)]
                    || softmax(&mut row[seen]),
                );
                let at = (span.q_start + from + i) * heads + h;
                // SAFETY: one task owns each (row, head) of the output.
                unsafe { *lse_at.at(at) = value };
            }
            let p = Mat::row_major(scores, rows, keys);
            let at = (span.q_start + from) * qw + h * dim;
            // SAFETY: one task owns each (row, head) of the output.
            unsafe { gemm_raw(out_at.at(at), qw, p, vm, 1.0, false, Threads::One) };
        });
    (out, lse)
}

/// Softmax in place; returns the log-sum-exp.
#[inline(always)]
fn softmax(row: &mut [f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0.0f32; 16];
    let mut chunks = row.chunks_exact_mut(16);
    for c in &mut chunks {
        for (l, x) in lanes.iter_mut().zip(c) {
            *x = exp(*x - max);
            *l += *x;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in chunks.into_remainder() {
        *x = exp(*x - max);
        sum += *x;
    }
    let inv = 1.0 / sum;
    for x in row {
        *x *= inv;
    }
    max + sum.ln()
}

/// Gradients to q, k and v. A task owns one key/value head of one span, so that
/// the query heads that share it add up in a fixed order.
pub fn backward(
    saved: Saved<'_>,
    dout: &[f32],
    spans: &[Span],
    shape: AttentionShape,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let Saved { q, k, v, out, lse } = saved;
    let (dim, heads) = (shape.head_dim, shape.heads);
    let (qw, kw) = (heads * dim, shape.kv_heads * dim);
    let group = heads / shape.kv_heads;
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let (dq_at, dk_at, dv_at) = (
        Shared(dq.as_mut_ptr()),
        Shared(dk.as_mut_ptr()),
        Shared(dv.as_mut_ptr()),
    );
    let work: Vec<(Span, usize)> = spans
        .iter()
        .flat_map(|&span| (0..shape.kv_heads).map(move |kv| (span, kv)))
        .collect();
    work.into_par_iter().for_each_init(
        || (Vec::new(), Vec::new()),
        |(p_buf, ds_buf): &mut (Vec<f32>, Vec<f32>), (span, kv)| {
            for h in kv * group..(kv + 1) * group {
                for from in (0..span.q_len).step_by(BLOCK) {
                    let to = (from + BLOCK).min(span.q_len);
                    let near = visible(&span, from, shape).start;
                    let (rows, keys) = (to - from, visible(&span, to - 1, shape).end - near);
                    let first = span.q_start + from;
                    let qm = head(q, qw, first, rows, h * dim, dim);
                    let dom = head(dout, qw, first, rows, h * dim, dim);
                    let km = head(k, kw, span.k_start + near, keys, kv * dim, dim);
                    let vm = head(v, kw, span.k_start + near, keys, kv * dim, dim);
                    let n = rows * keys;
                    p_buf.resize(n.max(p_buf.len()), 0.0);
                    ds_buf.resize(n.max(ds_buf.len()), 0.0);
                    let (p, ds) = (&mut p_buf[..n], &mut ds_buf[..n]);
                    gemm(p, keys, qm, km.t(), shape.scale, false, Threads::One);
                    gemm(ds, keys, dom, vm.t(), 1.0, false, Threads::One);
                    for i in 0..rows {
                        let seen = visible(&span, from + i, shape);
                        let seen = seen.start - near..seen.end - near;
                        let at = (first + i) * qw + h * dim;
                        let log_sum = lse[(first + i) * heads + h];
                        let (p, ds) = (&mut p[i * keys..][..keys], &mut ds[i * keys..][..keys]);
                        for scores in [&mut *p, &mut *ds] {
                            scores[..seen.start].fill(0.0);
                            scores[seen.end..].fill(0.0);
                        }
                        vectorised(
                            #[inline(always)]
                            || {
                                let delta = dot(&out[at..at + dim], &dout[at..at + dim]);
                                let seen = p[seen.clone()].iter_mut().zip(&mut ds[seen.clone()]);
                                for (p, ds) in seen {
                                    *p = exp(*p - log_sum);
                                    *ds = *p * (*ds - delta) * shape.scale;
                                }
                            },
                        );
                    }
                    let p = Mat::row_major(p, rows, keys);
                    let ds = Mat::row_major(ds, rows, keys);
                    let k_at = (span.k_start + near) * kw + kv * dim;
                    // SAFETY: this task alone writes the rows of `span` in the columns
                    // of key/value head `kv` and of the query heads that share it.
                    unsafe {
                        gemm_raw(dv_at.at(k_at), kw, p.t(), dom, 1.0, true, Threads::One);
                        gemm_raw(dk_at.at(k_at), kw, ds.t(), qm, 1.0, true, Threads::One);
                        let q_at = first * qw + h * dim;
                        gemm_raw(dq_at.at(q_at), qw, ds, km, 1.0, false, Threads::One);
                    }
                }
            }
        },
    );
    (dq, dk, dv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn both_ways_is_softmax_over_all_keys_of_the_sequence() {
        let (heads, kv_heads, dim) = (6, 3, 5);
        let lengths = [1usize, 67, 3, 130];
        let rows: usize = lengths.iter().sum();
        let random = |n: usize, stream: u64| -> Vec<f32> {
            let s = Stream::new(11, &[stream]);
            (0..n).map(|i| 4.0 * s.uniform(i as u64) - 2.0).collect()
        };
        let q = random(rows * heads * dim, 0);
        let (k, v) = (
            random(rows * kv_heads * dim, 1),
            random(rows * kv_heads * dim, 2),
        );
        let mut spans = Vec::new();
        let mut start = 0;
        for len in lengths {
            spans.push(Span {
                q_start: start,
                q_len: len,
                k_start: start,
                k_len: len,
            });
            start += len;
        }
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim: dim,
            scale: 0.7,
            window: None,
        };
        let (out, _) = forward(&q, &k, &v, &spans, shape, false);
        for span in &spans {
            let keys = span.k_start..span.k_start + span.k_len;
            for row in span.q_start..span.q_start + span.q_len {
                for h in 0..heads {
                    let at = |row: usize| (row * kv_heads + h / 2) * dim;
                    let query = &q[(row * heads + h) * dim..][..dim];
                    let weight = |key: usize| {
                        let pairs = query.iter().zip(&k[at(key)..][..dim]);
                        let score: f64 = pairs.map(|(a, b)| f64::from(a * b)).sum();
                        (0.7 * score).exp()
                    };
                    let weights: Vec<f64> = keys.clone().map(weight).collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..dim {
                        let values = keys.clone().map(|key| f64::from(v[at(key) + d]));
                        let want: f64 = values.zip(&weights).map(|(v, w)| v * w / total).sum();
                        let got = f64::from(out[(row * heads + h) * dim + d]);
                        assert!((got - want).abs() < 2e-5, "{row} {h} {d}: {got} {want}");
                    }
                }
            }
        }
    }
}
