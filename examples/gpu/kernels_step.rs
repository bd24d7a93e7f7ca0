//! Attention, the loss and the optimiser.

use kiln::model::{Grads, Params};
use kiln::ops::{CrossEntropyGrad, Indices, Span};
use kiln::rng::Stream;
use kiln::train::Optimizer;

use super::common;
use super::kernels::{Bench, SETS};
use super::timing::Cost;

/// Rows of a head product.
const LOSS_ROWS: usize = 512;

impl Bench<'_> {
    pub fn attention(&mut self) {
        let (ops, a) = (self.ops, self.args);
        let (t, layers) = (a.tokens, a.layers);
        let dim = a.hidden / a.heads;
        let shape = common::attention_shape(a.hidden, a.heads, a.kv_heads);
        let (q, k, v) = (
            self.random(t, a.hidden),
            self.random(t, self.kv()),
            self.random(t, self.kv()),
        );
        let dout = self.random(t, a.hidden);
        // The benchmark's rows first; packed documents are not part of its step.
        for (length, calls) in [(t.div_ceil(2), layers), (256.min(t), 0)] {
            let spans = common::documents(t, length);
            let pairs = |span: &Span| (span.q_len * (span.q_len + 1) / 2) as f64;
            let pairs: f64 = spans.iter().map(pairs).sum();
            let name = format!("{} of {length}", t.div_ceil(length));
            // Scores and output; the backward makes the scores again.
            let product = 2.0 * pairs * (a.heads * dim) as f64;
            let numbers = t * (2 * a.hidden + 2 * self.kv());
            let cost = self.cost(numbers, 2.0 * product, calls);
            self.timer.time("attention", name.clone(), cost, |_| {
                drop(ops.attention(&q, &k, &v, &spans, shape));
            });
            let (out, lse) = ops.attention(&q, &k, &v, &spans, shape);
            let numbers = t * (4 * a.hidden + 4 * self.kv());
            let cost = self.cost(numbers, 5.0 * product, calls);
            self.timer.time("attention_backward", name, cost, |_| {
                drop(ops.attention_backward(&q, &k, &v, &out, &lse, &dout, &spans, shape));
            });
        }
    }

    pub fn loss(&mut self) {
        let (ops, a) = (self.ops, self.args);
        let rows = LOSS_ROWS.min(a.tokens);
        let hidden = self.sets(rows, a.hidden);
        let head = self.random(a.vocabulary, a.hidden).mul_scalar(0.02);
        let random = Stream::new(6, &[]);
        let targets: Indices = (0..rows as u64)
            .map(|i| (random.bits(i) % a.vocabulary as u64) as u32)
            .collect::<Vec<_>>()
            .into();
        // The head is read for the logits and for the gradient.
        let numbers = 2 * a.vocabulary * a.hidden + 2 * rows * a.hidden;
        let flops = 4.0 * (rows * a.hidden) as f64 * a.vocabulary as f64;
        let cost = self.cost(numbers, flops, a.tokens.div_ceil(rows));
        let shape = format!("{rows} rows of {}", a.vocabulary);
        self.timer.time("cross_entropy", shape, cost, |i| {
            let grad = CrossEntropyGrad::Hidden { scale: 1e-3 };
            drop(ops.cross_entropy(&hidden[i % SETS], &head, &targets, grad));
        });
    }

    /// Clipping and the update of all LoRA matrices, as the trainer calls it.
    pub fn optimiser(&mut self) {
        let Ok(training) = common::defaults().map(|config| config.training) else {
            panic!("the built-in defaults are not valid");
        };
        let (ops, r) = (self.ops, self.args.rank);
        let (mut params, mut grads) = (Params::default(), Vec::new());
        for layer in 0..self.args.layers {
            for (out, input, count) in self.linears() {
                for n in 0..count {
                    for shape in [[r, input], [out, r]] {
                        let value = self.random_f32(shape[0], shape[1]);
                        let id = params.push(format!("{layer}.{out}.{input}.{n}"), value, true);
                        grads.push((id, self.random_f32(shape[0], shape[1])));
                    }
                }
            }
        }
        let numbers = params.count();
        let cost = Cost {
            // The gradient twice, the parameter and both moments in and out.
            bytes: 32.0 * numbers as f64,
            flops: 0.0,
            calls: 1,
        };
        let shape = format!("{} matrices, {:.1}M", params.len(), numbers as f64 / 1e6);
        let mut optimizer = Optimizer::new(&params, kiln::config::types::Optimizer::Adamw);
        self.timer.time("clip and adamw", shape, cost, |_| {
            let mut all = Grads::new(&params);
            for (id, grad) in &grads {
                all.set(*id, Some(grad.clone()));
            }
            drop(optimizer.step(ops, &mut params, all, &training, 1e-4));
        });
    }
}
