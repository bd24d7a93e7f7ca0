//! Every CPU kernel against the composed reference on fresh random inputs, odd
//! shapes included, and every backward against finite differences.

use burn::tensor::{Device, Tensor, TensorData};

use super::composed::Composed;
use super::cpu::CPU;
use super::*;

/// New inputs in every run; the seed is printed so that a failure can be replayed.
fn fresh() -> Stream {
    let seed = std::env::var("KILN_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64)
    });
    println!("KILN_TEST_SEED={seed}");
    Stream::new(seed, &[])
}

pub(super) struct Source(Stream, u64);

impl Source {
    pub(super) fn new() -> Self {
        Self(fresh(), 0)
    }

    pub(super) fn vec(&mut self, n: usize) -> Vec<f32> {
        let from = self.1;
        self.1 += n as u64;
        (from..self.1).map(|i| self.0.normal(i)).collect()
    }

    fn tensor(&mut self, shape: [usize; 2]) -> Tensor<2> {
        let data = self.vec(shape[0] * shape[1]);
        Tensor::from_data(TensorData::new(data, shape), &Device::flex())
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.1 += 1;
        (self.0.bits(self.1) % n as u64) as usize
    }
}

fn data(t: &Tensor<2>) -> Vec<f32> {
    t.clone().into_data().iter::<f32>().collect()
}

#[track_caller]
fn close(a: &Tensor<2>, b: &Tensor<2>, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (data(a), data(b));
    // Inputs are near 1, so a result near 0 is what is left of terms near 1.
    let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        assert!(
            (x - y).abs() <= tolerance * scale,
            "element {i}: {x} against {y}"
        );
    }
}

/// An NF4 weight dequantised an element at a time: element `i` is its level times
/// maximum `i / block_size`.
pub(crate) fn by_definition(weight: &nf4::Nf4) -> Vec<f32> {
    let element = |i: usize| {
        let byte = weight.packed[i / 2];
        let level = if i.is_multiple_of(2) {
            byte >> 4
        } else {
            byte & 15
        };
        nf4::CODE[usize::from(level)] * weight.absmax.get(i / weight.block_size)
    };
    (0..weight.numel()).map(element).collect()
}

const SHAPES: [[usize; 3]; 5] = [
    [1, 1, 1],
    [7, 33, 5],
    [65, 17, 130],
    [3, 129, 64],
    [300, 64, 96],
];

#[test]
fn gemm_in_all_transpositions() {
    let mut s = Source::new();
    for [m, k, n] in SHAPES {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = s.tensor(if ta { [k, m] } else { [m, k] });
            let b = s.tensor(if tb { [n, k] } else { [k, n] });
            let c = s.tensor([m, n]);
            let want = Composed.gemm(&a, ta, &b, tb, 0.5);
            close(&CPU.gemm(&a, ta, &b, tb, 0.5), &want, 1e-5);
            let want = Composed.gemm_add(c.clone(), &a, ta, &b, tb, -1.5);
            close(&CPU.gemm_add(c.clone(), &a, ta, &b, tb, -1.5), &want, 1e-5);
        }
    }
}

#[test]
fn products_with_nf4() {
    let mut s = Source::new();
    for (rows, out, columns, block) in [
        (1, 1, 1, 64),
        (1, 70, 130, 64),
        (3, 33, 256, 64),
        (16, 65, 96, 64),
        (8, 31, 200, 128),
        (17, 40, 64, 64),
        // Blocks across the ends of rows, and blocks of several rows.
        (4, 37, 91, 64),
        (50, 37, 91, 128),
        (2, 60, 72, 256),
        (33, 61, 72, 4096),
        (9, 50, 384, 256),
        (70, 50, 384, 1024),
    ] {
        let values = data(&s.tensor([out, columns]));
        let weight = nf4::quantize(&values, [out, columns], block, true);
        let dense = cpu::tensor2(by_definition(&weight), [out, columns]);
        let held = Nf4Tensor::new(weight.clone(), &Device::flex());
        close(&CPU.nf4_dequantize(&held), &dense, 0.0);
        let weight = held;
        let (x, sum) = (s.tensor([rows, columns]), s.tensor([rows, out]));
        let got = CPU.nf4_gemm(None, &x, &weight, true);
        close(&got, &Composed.gemm(&x, false, &dense, true, 1.0), 1e-5);
        let want = Composed.gemm_add(sum.clone(), &x, false, &dense, true, 1.0);
        close(&CPU.nf4_gemm(Some(sum), &x, &weight, true), &want, 1e-5);
        let dy = s.tensor([rows, out]);
        let want = Composed.gemm(&dy, false, &dense, false, 1.0);
        close(&CPU.nf4_gemm(None, &dy, &weight, false), &want, 1e-5);
        // A row alone gives the bits that it gives among others.
        if rows <= 16 {
            let alone = CPU.nf4_gemm(None, &x.narrow(0, rows - 1, 1), &weight, true);
            assert_eq!(data(&alone), data(&got)[(rows - 1) * out..]);
        }
    }
}

#[test]
fn in_place_operations_leave_shared_tensors_alone() {
    let mut s = Source::new();
    let (a, b) = (s.tensor([9, 4]), s.tensor([9, 4]));
    let before = data(&a);
    let sum = CPU.add(a.clone(), &b);
    assert_eq!(data(&a), before);
    close(&sum, &Composed.add(a, &b), 0.0);
}

#[test]
fn views_are_read_as_they_look() {
    let mut s = Source::new();
    let a = s.tensor([12, 9]);
    let view = a.narrow(0, 3, 5).transpose();
    let b = s.tensor([5, 4]);
    let want = view.clone().matmul(b.clone());
    close(&CPU.gemm(&view, false, &b, false, 1.0), &want, 1e-5);
}

#[test]
fn rms_norm_and_its_backward() {
    let mut s = Source::new();
    for [rows, width, _] in SHAPES {
        let (x, g, dy) = (
            s.tensor([rows, width]),
            s.tensor([1, width]),
            s.tensor([rows, width]),
        );
        close(
            &CPU.rms_norm(&x, &g, 1e-5),
            &Composed.rms_norm(&x, &g, 1e-5),
            1e-5,
        );
        let (dx, dg) = CPU.rms_norm_backward(&x, &g, &dy, 1e-5, true);
        let (dx_want, dg_want) = Composed.rms_norm_backward(&x, &g, &dy, 1e-5, true);
        close(&dx, &dx_want, 2e-5);
        close(&dg.unwrap(), &dg_want.unwrap(), 2e-5);
    }
}

#[test]
fn layer_norm_and_its_backward() {
    let mut s = Source::new();
    for [rows, width, _] in SHAPES {
        let (x, dy) = (s.tensor([rows, width]), s.tensor([rows, width]));
        let (g, b) = (s.tensor([1, width]), s.tensor([1, width]));
        let want = Composed.layer_norm(&x, &g, &b, 1e-5);
        close(&CPU.layer_norm(&x, &g, &b, 1e-5), &want, 1e-5);
        // Of one number there is no deviation, and eps alone scales the gradient.
        if width > 1 {
            let (dx, dg) = CPU.layer_norm_backward(&x, &g, &dy, 1e-5, true);
            let (dx_want, dg_want) = Composed.layer_norm_backward(&x, &g, &dy, 1e-5, true);
            close(&dx, &dx_want, 5e-5);
            close(&dg.unwrap(), &dg_want.unwrap(), 2e-5);
        }
    }
}

#[test]
fn gelu_bias_and_column_sums() {
    let mut s = Source::new();
    for [rows, width, _] in SHAPES {
        let (x, dy) = (s.tensor([rows, width]), s.tensor([rows, width]));
        let bias = s.tensor([1, width]);
        // Far out, where tanh is flat, as well as near 0.
        let x = x * 3.0;
        close(&CPU.gelu(&x), &Composed.gelu(&x), 1e-6);
        let want = Composed.gelu_backward(&x, &dy);
        close(&CPU.gelu_backward(&x, &dy), &want, 2e-6);
        let want = Composed.add_bias(x.clone(), &bias);
        close(&CPU.add_bias(x.clone(), &bias), &want, 0.0);
        close(&CPU.column_sums(&x), &Composed.column_sums(&x), 1e-5);
    }
}

#[test]
fn dora_and_its_backward() {
    let mut s = Source::new();
    for [rows, width, _] in SHAPES {
        let [y, adapted, plain] = [0; 3].map(|_| s.tensor([rows, width]));
        let factors = s.tensor([1, width]);
        let want = Composed.dora_output(y.clone(), &factors, &adapted, &plain);
        close(
            &CPU.dora_output(y.clone(), &factors, &adapted, &plain),
            &want,
            1e-6,
        );
        let want = Composed.dora_backward(&y, &factors, &adapted);
        let got = CPU.dora_backward(&y, &factors, &adapted);
        for (got, want) in got.iter().zip(&want) {
            close(got, want, 1e-5);
        }
        close(&CPU.row_squares(&y), &Composed.row_squares(&y), 1e-5);
    }
}

#[test]
fn swiglu_and_its_backward() {
    let mut s = Source::new();
    for [rows, width, _] in SHAPES {
        let (g, u, dy) = (
            s.tensor([rows, width]),
            s.tensor([rows, width]),
            s.tensor([rows, width]),
        );
        close(&CPU.swiglu(&g, &u), &Composed.swiglu(&g, &u), 1e-6);
        let (dg, du) = CPU.swiglu_backward(g.clone(), u.clone(), &dy);
        let (dg_want, du_want) = Composed.swiglu_backward(g, u, &dy);
        close(&dg, &dg_want, 1e-6);
        close(&du, &du_want, 1e-6);
    }
}

#[test]
fn rope_turns_and_turns_back() {
    let mut s = Source::new();
    for (rows, heads, dim) in [(1, 1, 2), (13, 3, 10), (70, 5, 64)] {
        let inv: Vec<f32> = (0..dim / 2).map(|i| 0.3f32.powi(i as i32)).collect();
        let table = RopeTable::new(&inv, 50);
        let positions: Vec<u32> = (0..rows).map(|_| s.below(50) as u32).collect();
        let positions = Indices::from(positions);
        let x = s.tensor([rows, heads * dim]);
        let y = CPU.rope(x.clone(), &table, &positions, false);
        close(
            &y,
            &Composed.rope(x.clone(), &table, &positions, false),
            1e-6,
        );
        close(&CPU.rope(y, &table, &positions, true), &x, 1e-6);
    }
}

fn spans(lengths: &[usize]) -> Spans {
    let mut at = 0;
    let mut spans = Spans::default();
    for &n in lengths {
        spans.push(Span {
            q_start: at,
            q_len: n,
            k_start: at,
            k_len: n,
        });
        at += n;
    }
    spans
}

#[test]
fn attention_and_its_backward() {
    let mut s = Source::new();
    for (lengths, heads, kv_heads, dim, window) in [
        (vec![1], 1, 1, 2, None),
        (vec![5, 1, 9], 4, 2, 6, None),
        (vec![130, 64, 3], 6, 3, 16, None),
        (vec![65], 8, 1, 32, None),
        (vec![5, 1, 9], 4, 2, 6, Some(1)),
        (vec![130, 64, 3], 6, 3, 16, Some(50)),
        (vec![200], 2, 1, 8, Some(7)),
        (vec![40, 129], 2, 2, 8, Some(129)),
    ] {
        let shape = AttentionShape {
            heads,
            kv_heads,
            head_dim: dim,
            scale: 1.0 / (dim as f32).sqrt(),
            window,
        };
        let tokens = lengths.iter().sum();
        let spans = spans(&lengths);
        let (q, dout) = (
            s.tensor([tokens, heads * dim]),
            s.tensor([tokens, heads * dim]),
        );
        let (k, v) = (
            s.tensor([tokens, kv_heads * dim]),
            s.tensor([tokens, kv_heads * dim]),
        );
        let (out, lse) = CPU.attention(&q, &k, &v, &spans, shape);
        let (out_want, lse_want) = Composed.attention(&q, &k, &v, &spans, shape);
        close(&out, &out_want, 1e-5);
        close(&lse, &lse_want, 1e-5);
        let got = CPU.attention_backward(&q, &k, &v, &out, &lse, &dout, &spans, shape);
        let want = Composed.attention_backward(&q, &k, &v, &out, &lse, &dout, &spans, shape);
        close(&got.0, &want.0, 2e-5);
        close(&got.1, &want.1, 2e-5);
        close(&got.2, &want.2, 2e-5);
    }
}

#[test]
fn attention_over_a_cache_equals_the_last_rows_of_the_whole() {
    for window in [None, Some(2), Some(9)] {
        attention_over_a_cache(window);
    }
}

fn attention_over_a_cache(window: Option<usize>) {
    let mut s = Source::new();
    let shape = AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        scale: 0.3,
        window,
    };
    let (n, tail) = (21, 3);
    let (q, k, v) = (s.tensor([n, 32]), s.tensor([n, 16]), s.tensor([n, 16]));
    let (whole, _) = CPU.attention(&q, &k, &v, &self::spans(&[n]), shape);
    let spans = Spans::from(vec![Span {
        q_start: 0,
        q_len: tail,
        k_start: 0,
        k_len: n,
    }]);
    let last = q.narrow(0, n - tail, tail);
    let (part, _) = CPU.attention(&last, &k, &v, &spans, shape);
    close(&part, &whole.clone().narrow(0, n - tail, tail), 1e-6);
    let (part, _) = Composed.attention(&last, &k, &v, &spans, shape);
    close(&part, &whole.narrow(0, n - tail, tail), 1e-5);
}

#[test]
fn rows_are_gathered_added_and_written() {
    let mut s = Source::new();
    let (table, src) = (s.tensor([11, 6]), s.tensor([4, 6]));
    let ids = Indices::from(vec![3, 0, 10, 3]);
    close(
        &CPU.gather_rows(&table, &ids),
        &Composed.gather_rows(&table, &ids),
        0.0,
    );
    let want = Composed.scatter_add_rows(table.clone(), &ids, &src);
    close(
        &CPU.scatter_add_rows(table.clone(), &ids, &src),
        &want,
        1e-6,
    );
    let ids = Indices::from(vec![3, 0, 10, 7]);
    let want = Composed.write_rows(table.clone(), &ids, &src);
    close(&CPU.write_rows(table, &ids, &src), &want, 1e-6);
}

#[test]
fn cross_entropy_by_chunks() {
    let mut s = Source::new();
    for (rows, width, vocab) in [(1, 3, 2), (37, 16, 101), (1100, 8, 5000)] {
        let (h, w) = (s.tensor([rows, width]), s.tensor([vocab, width]));
        let targets: Vec<u32> = (0..rows).map(|_| s.below(vocab) as u32).collect();
        let targets = Indices::from(targets);
        let grad = |head_grad| CrossEntropyGrad::HiddenAndHead {
            scale: 0.25,
            head_grad,
        };
        let start = s.tensor([vocab, width]);
        let got = CPU.cross_entropy(&h, &w, &targets, grad(Some(start.clone())));
        let want = Composed.cross_entropy(&h, &w, &targets, grad(Some(start)));
        let (loss, want_loss) = (got.loss_sum.value(), want.loss_sum.value());
        let relative = (loss - want_loss).abs() / want_loss.abs();
        assert!(relative < 1e-5, "{loss} against {want_loss}");
        close(&got.d_hidden.unwrap(), &want.d_hidden.unwrap(), 2e-5);
        close(&got.d_head.unwrap(), &want.d_head.unwrap(), 2e-5);
        let plain = CPU.cross_entropy(&h, &w, &targets, CrossEntropyGrad::None);
        assert!((plain.loss_sum.value() - loss).abs() <= 1e-9 * loss.abs());
        assert!(plain.d_hidden.is_none() && plain.d_head.is_none());
    }
}

#[test]
fn adamw_and_norm() {
    let mut s = Source::new();
    for n in [1, 17, 40_000] {
        let (p, g, m) = (s.tensor([1, n]), s.tensor([1, n]), s.tensor([1, n]));
        let v = s.tensor([1, n]).square();
        let hyper = AdamW {
            lr: 3e-3,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 3,
        };
        let (a, b) = (CPU.sum_squares(&[&g, &m]), Composed.sum_squares(&[&g, &m]));
        assert!((a.value() - b.value()).abs() <= 1e-5 * b.value());
        let clip = Clip {
            max_norm: 0.7 * a.value().sqrt(),
            squared_norm: a,
        };
        let got = CPU.adamw(p.clone(), &g, m.clone(), v.clone(), &hyper, &clip);
        let want = Composed.adamw(p, &g, m, v, &hyper, &clip);
        close(&got.0, &want.0, 1e-6);
        close(&got.1, &want.1, 1e-6);
        close(&got.2, &want.2, 1e-6);
    }
}

#[test]
fn dropout_masks_agree() {
    let mut s = Source::new();
    let x = s.tensor([33, 70]);
    let stream = Stream::new(4, &[1]);
    close(
        &CPU.dropout(&x, 0.2, stream),
        &Composed.dropout(&x, 0.2, stream),
        1e-6,
    );
}

/// d/dx of sum(f(x) w) by central differences at a few places.
fn check_gradient(
    s: &mut Source,
    x: &Tensor<2>,
    gradient: &Tensor<2>,
    f: &dyn Fn(&Tensor<2>) -> f64,
) {
    let (values, gradient) = (data(x), data(gradient));
    for _ in 0..6 {
        let i = s.below(values.len());
        let h = 1e-2;
        let at = |d: f32| {
            let mut v = values.clone();
            v[i] += d;
            f(&Tensor::from_data(
                TensorData::new(v, x.dims()),
                &Device::flex(),
            ))
        };
        let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
        let got = f64::from(gradient[i]);
        assert!(
            (slope - got).abs() < 2e-2 * (1.0 + got.abs()),
            "{slope} against {got}"
        );
    }
}

fn weighted(y: &Tensor<2>, w: &Tensor<2>) -> f64 {
    data(y)
        .iter()
        .zip(data(w))
        .map(|(a, b)| f64::from(*a) * f64::from(b))
        .sum()
}

#[test]
fn backwards_agree_with_finite_differences() {
    let mut s = Source::new();
    let (x, g, w) = (s.tensor([5, 12]), s.tensor([1, 12]), s.tensor([5, 12]));
    let (dx, dg) = CPU.rms_norm_backward(&x, &g, &w, 1e-5, true);
    check_gradient(&mut s, &x, &dx, &|x| {
        weighted(&CPU.rms_norm(x, &g, 1e-5), &w)
    });
    check_gradient(&mut s, &g, &dg.unwrap(), &|g| {
        weighted(&CPU.rms_norm(&x, g, 1e-5), &w)
    });

    let bias = s.tensor([1, 12]);
    let (dx, dg) = CPU.layer_norm_backward(&x, &g, &w, 1e-5, true);
    check_gradient(&mut s, &x, &dx, &|x| {
        weighted(&CPU.layer_norm(x, &g, &bias, 1e-5), &w)
    });
    check_gradient(&mut s, &g, &dg.unwrap(), &|g| {
        weighted(&CPU.layer_norm(&x, g, &bias, 1e-5), &w)
    });
    check_gradient(&mut s, &bias, &CPU.column_sums(&w), &|bias| {
        weighted(&CPU.layer_norm(&x, &g, bias, 1e-5), &w)
    });
    let dx = CPU.gelu_backward(&x, &w);
    check_gradient(&mut s, &x, &dx, &|x| weighted(&CPU.gelu(x), &w));

    let up = s.tensor([5, 12]);
    let (dg, du) = CPU.swiglu_backward(x.clone(), up.clone(), &w);
    check_gradient(&mut s, &x, &dg, &|x| weighted(&CPU.swiglu(x, &up), &w));
    check_gradient(&mut s, &up, &du, &|up| weighted(&CPU.swiglu(&x, up), &w));

    let spans = spans(&[3, 2]);
    let (k, v) = (s.tensor([5, 6]), s.tensor([5, 6]));
    for window in [None, Some(2)] {
        let shape = AttentionShape {
            heads: 2,
            kv_heads: 1,
            head_dim: 6,
            scale: 0.4,
            window,
        };
        let (out, lse) = CPU.attention(&x, &k, &v, &spans, shape);
        let (dq, dk, dv) = CPU.attention_backward(&x, &k, &v, &out, &lse, &w, &spans, shape);
        check_gradient(&mut s, &x, &dq, &|x| {
            weighted(&CPU.attention(x, &k, &v, &spans, shape).0, &w)
        });
        check_gradient(&mut s, &k, &dk, &|k| {
            weighted(&CPU.attention(&x, k, &v, &spans, shape).0, &w)
        });
        check_gradient(&mut s, &v, &dv, &|v| {
            weighted(&CPU.attention(&x, &k, v, &spans, shape).0, &w)
        });
    }

    let head = s.tensor([9, 12]);
    let targets = Indices::from(vec![1, 8, 0, 3, 3]);
    let loss = |x: &Tensor<2>, head: &Tensor<2>| {
        CPU.cross_entropy(x, head, &targets, CrossEntropyGrad::None)
            .loss_sum
            .value()
    };
    let grad = CrossEntropyGrad::HiddenAndHead {
        scale: 1.0,
        head_grad: None,
    };
    let out = CPU.cross_entropy(&x, &head, &targets, grad);
    check_gradient(&mut s, &x, &out.d_hidden.unwrap(), &|x| loss(x, &head));
    check_gradient(&mut s, &head, &out.d_head.unwrap(), &|h| loss(&x, h));
}
