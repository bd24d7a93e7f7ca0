//! What a pass over new tokens with a KV cache does: attention to the cache, turned keys
//! written to it, linears together.

use burn::tensor::Tensor;

use super::{Check, Checker};
use crate::ops::cpu::{self, CPU};
use crate::ops::leading::Leading;
use crate::ops::nf4::quantize;
use crate::ops::{
    AttentionShape, HotOps, Indices, Low, Matrix, Nf4Tensor, Part, Precision, RopeTable, Span,
    Spans, Then,
};

/// A linear on both.
struct Both {
    want: (Tensor<2>, Option<[Tensor<2>; 2]>, Option<Tensor<2>>),
    got: (Stored, Option<[Tensor<2>; 2]>, Option<Tensor<2>>),
}

enum Stored {
    Dense(Tensor<2>),
    Nf4(Nf4Tensor),
}

const SCALE: f32 = 0.6;

fn low([a, b]: &[Tensor<2>; 2]) -> Low {
    Low {
        a: a.clone(),
        b: b.clone(),
        scale: SCALE,
    }
}

impl Both {
    fn on_cpu(&self) -> Part<'_> {
        let (weight, both, bias) = &self.want;
        Part {
            weight: Matrix::Dense(weight.clone()),
            low: both.as_ref().map(low),
            bias: bias.clone(),
        }
    }

    fn on_gpu(&self) -> Part<'_> {
        let (weight, both, bias) = &self.got;
        Part {
            weight: match weight {
                Stored::Dense(weight) => Matrix::Dense(weight.clone()),
                Stored::Nf4(weight) => Matrix::Nf4(weight),
            },
            low: both.as_ref().map(low),
            bias: bias.clone(),
        }
    }
}

impl Checker {
    pub(super) fn decoding(&mut self) {
        self.cached_attention();
        self.single_queries();
        self.turned_keys();
        self.linears();
        self.likeliest();
        self.leading();
    }

    /// Levels, so that equals occur, and numbers that are not finite.
    fn likeliest(&mut self) {
        for [rows, vocab] in [[1, 1], [5, 3], [3, 1026], [2, 8193], [4, 17_000]] {
            let levels = self.indices(rows * vocab, 9);
            let mut values: Vec<f32> = levels.iter().map(|level| *level as f32 - 6.5).collect();
            for (i, kind) in self.indices(rows * vocab, 8).iter().enumerate() {
                match kind {
                    0 => values[i] = f32::NAN,
                    1 => values[i] = f32::INFINITY,
                    2 => values[i] = f32::NEG_INFINITY,
                    _ => {}
                }
            }
            // In the last row nothing is finite, or only the least number that there is.
            let last = &mut values[(rows - 1) * vocab..];
            last.fill(f32::NAN);
            if vocab % 2 == 0 {
                last[vocab - 1] = match self.precision {
                    Precision::F32 => f32::MIN,
                    Precision::Bf16 => half::bf16::MIN.to_f32(),
                };
            }
            let on_gpu = self.gpu.frozen(values.clone(), [rows, vocab], &self.device);
            let want = CPU.likeliest(&cpu::tensor2(values, [rows, vocab]));
            let got = self.gpu.likeliest(&on_gpu);
            assert_eq!(got.len(), want.len());
            let differ = got.iter().zip(&want).filter(|(a, b)| a != b).count();
            self.checks.push(Check {
                op: "likeliest",
                case: format!("{rows}x{vocab}"),
                error: differ as f64,
                bound: 0.0,
            });
        }
    }

    /// All that reaches the least that is listed is listed, and at least so many as were
    /// asked for.
    fn leading(&mut self) {
        let cases = [
            ([1, 1], 1, Some(1.0)),
            ([3, 5], 2, Some(0.7)),
            ([4, 1026], 50, None),
            ([2, 8193], 192, Some(1.3)),
            ([3, 50_260], 128, Some(1.0)),
        ];
        for ([rows, vocab], count, temperature) in cases {
            let (numbers, on_gpu) = self.activations([rows, vocab]);
            let mut numbers = crate::ops::logits::numbers(numbers.into_data());
            let mut on_gpu = on_gpu;
            if vocab > 5 {
                // Much that is not finite, in the last row nothing else, in the first so many
                // equals that a device may give up.
                for (i, kind) in self.indices(rows * vocab, 8).iter().enumerate() {
                    match kind {
                        _ if i < vocab => numbers[i] = numbers[i].signum(),
                        0 => numbers[i] = f32::NAN,
                        1 => numbers[i] = f32::INFINITY,
                        2 => numbers[i] = f32::NEG_INFINITY,
                        _ => {}
                    }
                }
                numbers[(rows - 1) * vocab..].fill(f32::NAN);
                numbers[rows * vocab - 3] = -2.0;
                on_gpu = self
                    .gpu
                    .frozen(numbers.clone(), [rows, vocab], &self.device);
            }
            let got = self.gpu.leading(&on_gpu, count, temperature);
            assert_eq!(got.len(), rows);
            let (mut wrong, mut off) = (0.0, 0.0_f64);
            for (at, (row, got)) in numbers.chunks(vocab).zip(&got).enumerate() {
                let Some(got) = got else {
                    wrong += f64::from(u8::from(at > 0 || vocab < 6));
                    continue;
                };
                let finite = row.iter().filter(|x| x.is_finite()).count();
                let least = got.numbers.last().map_or(f32::MIN, |n| n.1);
                let bound = if got.all { f32::MIN } else { least };
                let mut want = Leading::of(row, finite, temperature);
                want.numbers.retain(|n| n.1 >= bound);
                let few = got.numbers.len() < count.min(finite);
                wrong += f64::from(u8::from(few || got.numbers != want.numbers));
                if let (Some(got), Some(want)) = (got.total, want.total)
                    && want > 0.0
                {
                    off = off.max((got - want).abs() / want);
                }
            }
            let case = format!("{count} of {rows}x{vocab}");
            for (op, error, bound) in [("leading", wrong, 0.0), ("leading, total", off, 1e-5)] {
                let case = case.clone();
                self.checks.push(Check {
                    op,
                    case,
                    error,
                    bound,
                });
            }
        }
    }

    /// A few new queries over longer keys that lie apart, as with a KV cache.
    fn cached_attention(&mut self) {
        let shape = AttentionShape {
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            scale: 0.25,
            window: None,
        };
        let mut spans = Spans::default();
        for (q_start, q_len, k_start, k_len) in [(0, 1, 0, 41), (1, 1, 64, 7), (2, 20, 128, 50)] {
            spans.push(Span {
                q_start,
                q_len,
                k_start,
                k_len,
            });
        }
        let (q, gq) = self.activations([22, 64]);
        let (k, gk) = self.activations([192, 32]);
        let (v, gv) = self.activations([192, 32]);
        let (out, lse) = CPU.attention(&q, &k, &v, &spans, shape);
        let (gout, glse) = self.gpu.attention(&gq, &gk, &gv, &spans, shape);
        self.record("attention", "three caches", &gout, &out);
        self.record_within("attention lse", "three caches", &glse, &lse, 1e-5);
    }

    /// One new query a sequence. Some sequences are long enough to be cut.
    fn single_queries(&mut self) {
        type Case<'a> = (&'a [usize], usize, usize, usize, Option<usize>, usize);
        let cases: [Case<'_>; 10] = [
            (&[1], 1, 1, 4, None, 0),
            (&[5, 1, 130], 4, 2, 16, None, 0),
            (&[129, 300], 6, 2, 64, None, 0),
            (&[700, 3, 513], 8, 2, 128, None, 0),
            (&[1500], 14, 2, 64, None, 0),
            (&[90, 700], 12, 1, 80, Some(33), 0),
            (&[700, 20], 4, 4, 128, Some(600), 0),
            // Cut for more keys than there are, as where passes are recorded.
            (&[5, 130, 1], 4, 2, 64, None, 4096),
            (&[5, 690], 6, 2, 128, Some(600), 1100),
            // Left to the kernel for any queries.
            (&[40, 7], 2, 1, 6, None, 0),
        ];
        for (lengths, heads, kv_heads, head_dim, window, room) in cases {
            let case = format!(
                "{lengths:?}, {heads}/{kv_heads} heads of {head_dim}, {window:?}, room {room}"
            );
            let shape = AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window,
            };
            // Sequences lie apart, their queries in another order.
            let mut spans = Spans::default();
            let mut keys = 3;
            for (at, &k_len) in lengths.iter().enumerate() {
                spans.push(Span {
                    q_start: lengths.len() - 1 - at,
                    q_len: 1,
                    k_start: keys,
                    k_len,
                });
                keys += k_len + 5;
            }
            let spans = spans.with_room(room);
            let (q, gq) = self.activations([lengths.len(), heads * head_dim]);
            let (k, gk) = self.activations([keys, kv_heads * head_dim]);
            let (v, gv) = self.activations([keys, kv_heads * head_dim]);
            let want = CPU.attention(&q, &k, &v, &spans, shape).0;
            let got = self.gpu.attend(&gq, &gk, &gv, &spans, shape);
            self.record("attend", &case, &got, &want);
        }
    }

    fn turned_keys(&mut self) {
        for (tokens, heads, kv_heads, dim) in [(1, 1, 1, 2), (3, 6, 2, 6), (9, 4, 1, 64)] {
            let case = format!("{tokens} tokens, {heads}/{kv_heads} heads of {dim}");
            let frequencies: Vec<f32> = (0..dim / 2).map(|i| 0.9f32.powi(i as i32)).collect();
            let table = RopeTable::new(&frequencies, 64);
            let positions = self.indices(tokens, 64);
            let ids: Indices = (0..tokens as u32)
                .map(|t| (7 * t + 2) % 31)
                .collect::<Vec<_>>()
                .into();
            let mut both = |rows: usize, heads: usize| self.activations([rows, heads * dim]);
            let (q, gq) = both(tokens, heads);
            let (k, gk) = both(tokens, kv_heads);
            let (v, gv) = both(tokens, kv_heads);
            let (keys, gkeys) = both(31, kv_heads);
            let (values, gvalues) = both(31, kv_heads);
            let (want, kept) =
                CPU.turn_into_cache([q, k, v], [keys, values], &ids, &table, &positions);
            let (got, got_kept) =
                self.gpu
                    .turn_into_cache([gq, gk, gv], [gkeys, gvalues], &ids, &table, &positions);
            self.record("turn_into_cache queries", &case, &got, &want);
            self.record("turn_into_cache keys", &case, &got_kept[0], &kept[0]);
            self.record_within("turn_into_cache values", &case, &got_kept[1], &kept[1], 0.0);
        }
    }

    /// A weight `[out, width]`, dense or in NF4, LoRA of that rank (0 for none), a bias.
    fn linear(&mut self, [out, width]: [usize; 2], block: usize, rank: usize, bias: bool) -> Both {
        let (mut weight, mut stored) = {
            let (w, g) = self.activations([out, width]);
            (w, Stored::Dense(g))
        };
        if block > 0 {
            let values: Vec<f32> = weight.into_data().iter::<f32>().collect();
            let nf4 = quantize(&values, [out, width], block, block < 128);
            let mut dense = vec![0.0; values.len()];
            nf4.dequantize_into(&mut dense);
            if self.precision == Precision::Bf16 {
                for v in &mut dense {
                    *v = half::bf16::from_f32(*v).to_f32();
                }
            }
            weight = cpu::tensor2(dense, [out, width]);
            stored = Stored::Nf4(Nf4Tensor::new(nf4, &self.device));
        }
        let low = (rank > 0).then(|| {
            let (a, ga) = self.activations([rank, width]);
            let (b, gb) = self.activations([out, rank]);
            ([a, b], [ga, gb])
        });
        let bias = bias.then(|| self.parameters([1, out]));
        let (low, low_gpu) = low.unzip();
        let (bias, bias_gpu) = bias.unzip();
        Both {
            want: (weight, low, bias),
            got: (stored, low_gpu, bias_gpu),
        }
    }

    /// Of one input: three; two with SwiGLU and one with something added; few rows and
    /// many, and kinds that do not go together.
    fn linears(&mut self) {
        let plain = [false; 2];
        for (rows, width, outs, blocks, ranks, [bias, more]) in [
            (1, 64, [8, 4, 4], [64; 3], [16, 16, 16], plain),
            (3, 384, [12, 4, 8], [128; 3], [8, 0, 4], [true, true]),
            (6, 1040, [64, 16, 16], [0; 3], [16, 16, 16], [false, true]),
            (9, 64, [14, 2, 6], [64; 3], [2, 2, 6], [false, true]),
            (16, 128, [32, 8, 8], [0; 3], [0; 3], [true, false]),
            // Each for itself: mixed kinds, an odd rank, an odd width, many rows.
            (4, 64, [8, 8, 8], [64, 0, 64], [8; 3], plain),
            (3, 64, [8, 8, 8], [64; 3], [3, 8, 8], plain),
            (2, 33, [8, 8, 8], [0; 3], [8; 3], [true, true]),
            (17, 64, [8, 8, 8], [64; 3], [8; 3], [false, true]),
        ] {
            let case = format!("{rows}x{width}, {outs:?}, blocks {blocks:?}, ranks {ranks:?}");
            let (x, gx) = self.activations([rows, width]);
            let three: Vec<Both> = (0..3)
                .map(|i| self.linear([outs[i], width], blocks[i], ranks[i], bias))
                .collect();
            self.compare_linears(&case, &three, [&x, &gx], [&Then::Nothing; 2]);
            if !more {
                continue;
            }
            let (other, g_other) = self.activations([rows, outs[0]]);
            let then = [&Then::Add(&other), &Then::Add(&g_other)];
            self.compare_linears(&case, &three[..1], [&x, &gx], then);
            let gated = [0, 1].map(|i| self.linear([outs[0], width], blocks[0], ranks[i], bias));
            self.compare_linears(&case, &gated, [&x, &gx], [&Then::SwiGlu; 2]);
        }
    }

    fn compare_linears(
        &mut self,
        case: &str,
        linears: &[Both],
        [x, gx]: [&Tensor<2>; 2],
        [then, g_then]: [&Then<'_>; 2],
    ) {
        let op = match then {
            Then::Nothing => "linears",
            Then::Add(_) => "linears added",
            Then::SwiGlu => "linears with SwiGLU",
        };
        let parts: Vec<_> = linears.iter().map(Both::on_cpu).collect();
        let want = CPU.linears(x, &parts, then);
        let parts: Vec<_> = linears.iter().map(Both::on_gpu).collect();
        let got = self.gpu.linears(gx, &parts, g_then);
        assert_eq!(got.len(), want.len(), "{op} {case}");
        for (got, want) in got.iter().zip(&want) {
            self.record(op, case, got, want);
        }
    }
}
