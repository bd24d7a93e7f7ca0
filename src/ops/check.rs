//! Checks every GPU operation against the CPU's on fresh random inputs, odd shapes
//! included. The tests run it on software Vulkan, scripts/gpu.sh on a card.

mod decoding;
mod optimiser;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::cpu::CPU;
use super::gpu::with_precision;
use super::nf4::quantize;
use super::*;

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    pub op: &'static str,
    /// Shapes and flags.
    pub case: String,
    /// Norm of the difference over the norm of the reference.
    pub error: f64,
    /// What rounding explains.
    pub bound: f64,
}

impl Check {
    pub fn passed(&self) -> bool {
        // NaN does not pass.
        self.error <= self.bound
    }
}

struct Checker {
    device: Device,
    gpu: &'static dyn HotOps,
    precision: Precision,
    random: Stream,
    drawn: u64,
    checks: Vec<Check>,
}

/// Checks of one kind.
pub struct Section {
    pub name: &'static str,
    run: fn(&mut Checker),
}

/// All checks.
pub const SECTIONS: [Section; 10] = [
    section("products", Checker::products),
    section("nf4", Checker::nf4),
    section("products with nf4", Checker::nf4_products),
    section("norms", Checker::norms),
    section("elementwise", Checker::elementwise),
    section("rows", Checker::rows),
    section("attention", Checker::attention),
    section("decoding", Checker::decoding),
    section("loss", Checker::loss),
    section("optimiser", Checker::optimiser),
];

const fn section(name: &'static str, run: fn(&mut Checker)) -> Section {
    Section { name, run }
}

impl Section {
    /// Runs the section's checks on `device`.
    pub fn run(&self, device: &Device, precision: Precision, seed: u64) -> Vec<Check> {
        let mut checker = Checker {
            device: device.clone(),
            gpu: with_precision(precision),
            precision,
            random: Stream::new(seed, &[]),
            drawn: 0,
            checks: Vec::new(),
        };
        (self.run)(&mut checker);
        checker.checks
    }
}

/// Runs every check on `device`.
pub fn run(device: &Device, precision: Precision, seed: u64) -> Vec<Check> {
    let sections = SECTIONS.iter();
    sections
        .flat_map(|section| section.run(device, precision, seed))
        .collect()
}

fn numbers(t: &Tensor<2>) -> Vec<f64> {
    t.clone().into_data().iter::<f64>().collect()
}

impl Checker {
    /// Standard normal numbers that the compute type holds exactly, on the CPU and
    /// on the GPU.
    fn activations(&mut self, shape: [usize; 2]) -> (Tensor<2>, Tensor<2>) {
        let n = shape[0] * shape[1];
        let mut values: Vec<f32> = (0..n as u64)
            .map(|i| self.random.normal(self.drawn + i))
            .collect();
        self.drawn += n as u64;
        if self.precision == Precision::Bf16 {
            for v in &mut values {
                *v = half::bf16::from_f32(*v).to_f32();
            }
        }
        let gpu = self.gpu.frozen(values.clone(), shape, &self.device);
        (cpu::tensor2(values, shape), gpu)
    }

    /// Numbers in f32 on both.
    fn parameters(&mut self, shape: [usize; 2]) -> (Tensor<2>, Tensor<2>) {
        let n = shape[0] * shape[1];
        let values: Vec<f32> = (0..n as u64)
            .map(|i| self.random.normal(self.drawn + i))
            .collect();
        self.drawn += n as u64;
        let data = TensorData::new(values.clone(), shape);
        let gpu = Tensor::from_data(data, (&self.device, DType::F32));
        (cpu::tensor2(values, shape), gpu)
    }

    fn indices(&mut self, n: usize, below: usize) -> Indices {
        let ids = (0..n as u64).map(|i| (self.random.bits(self.drawn + i) % below as u64) as u32);
        let ids: Vec<u32> = ids.collect();
        self.drawn += n as u64;
        ids.into()
    }

    fn record(&mut self, op: &'static str, case: &str, got: &Tensor<2>, want: &Tensor<2>) {
        let bound = match self.precision {
            Precision::F32 => 1e-5,
            Precision::Bf16 => 1e-2,
        };
        self.record_within(op, case, got, want, bound);
    }

    fn record_within(
        &mut self,
        op: &'static str,
        case: &str,
        got: &Tensor<2>,
        want: &Tensor<2>,
        bound: f64,
    ) {
        assert_eq!(got.dims(), want.dims(), "{op} {case}");
        let (got, want) = (numbers(got), numbers(want));
        let difference: f64 = got.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum();
        let norm: f64 = want.iter().map(|b| b * b).sum();
        self.checks.push(Check {
            op,
            case: case.to_string(),
            error: (difference / norm.max(1e-30)).sqrt(),
            bound,
        });
    }

    fn record_scalar(&mut self, op: &'static str, case: &str, got: f64, want: f64, bound: f64) {
        self.checks.push(Check {
            op,
            case: case.to_string(),
            error: (got - want).abs() / want.abs().max(1e-30),
            bound,
        });
    }

    fn products(&mut self) {
        for [m, k, n] in [
            [1, 1, 1],
            [7, 33, 5],
            [65, 17, 130],
            [3, 129, 64],
            [130, 96, 72],
            // Few rows.
            [1, 1040, 64],
            [6, 264, 36],
            [16, 64, 62],
            [13, 2056, 4],
        ] {
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let case = format!("{m}x{k}x{n} {ta}/{tb}");
                let (a, ga) = self.activations(if ta { [k, m] } else { [m, k] });
                let (b, gb) = self.activations(if tb { [n, k] } else { [k, n] });
                let want = CPU.gemm(&a, ta, &b, tb, 0.7);
                let got = self.gpu.gemm(&ga, ta, &gb, tb, 0.7);
                self.record("gemm", &case, &got, &want);
                let (c, gc) = self.activations([m, n]);
                let want = CPU.gemm_add(c, &a, ta, &b, tb, -1.5);
                let got = self.gpu.gemm_add(gc, &ga, ta, &gb, tb, -1.5);
                // One number may cancel: what is left is the rounding of its parts.
                if m * n > 1 {
                    self.record("gemm_add", &case, &got, &want);
                }
                let (sum, gsum) = self.parameters([m, n]);
                let want = CPU.gradient(Some(sum), &a, ta, &b, tb, 0.5);
                let got = self.gpu.gradient(Some(gsum), &ga, ta, &gb, tb, 0.5);
                // f32 sums of exact products.
                self.record_within("gradient", &case, &got, &want, 1e-5);
            }
        }
    }

    fn nf4(&mut self) {
        for (shape, block, double) in [
            ([1, 1], 64, true),
            ([3, 43], 64, false),
            ([5, 64], 64, true),
            ([96, 320], 64, true),
            ([64, 160], 128, false),
            ([300, 256], 64, true),
        ] {
            let case = format!("{shape:?} block {block} double {double}");
            let (w, _) = self.parameters(shape);
            let values: Vec<f32> = w.into_data().iter::<f32>().collect();
            let weight = quantize(&values, shape, block, double);
            let mut dense = vec![0.0; values.len()];
            weight.dequantize_into(&mut dense);
            if self.precision == Precision::Bf16 {
                for v in &mut dense {
                    *v = half::bf16::from_f32(*v).to_f32();
                }
            }
            let want = cpu::tensor2(dense, shape);
            let got = self
                .gpu
                .nf4_dequantize(&Nf4Tensor::new(weight, &self.device));
            // The same products, rounded alike: at most a last bit of f32 apart.
            let bound = match self.precision {
                Precision::F32 => 1e-7,
                Precision::Bf16 => 1e-4,
            };
            self.record_within("nf4_dequantize", &case, &got, &want, bound);
        }
    }

    /// Products with a weight that stays in NF4. The sides are such that each kernel
    /// for it gets ragged and whole tiles, few rows and many, and shapes that it leaves
    /// to another.
    fn nf4_products(&mut self) {
        for (shape, rows, block, double, rank) in [
            ([7, 1], 9, 64, true, 1),
            ([3, 43], 5, 64, false, 8),
            ([64, 160], 33, 128, false, 16),
            ([192, 320], 70, 64, false, 40),
            ([320, 192], 300, 64, true, 16),
            ([128, 64], 20, 64, true, 12),
            ([36, 160], 1, 64, false, 16),
            ([320, 192], 3, 128, true, 3),
            ([192, 4160], 5, 64, true, 16),
            ([62, 64], 16, 64, true, 8),
        ] {
            let (w, _) = self.parameters(shape);
            let values: Vec<f32> = w.into_data().iter::<f32>().collect();
            let weight = quantize(&values, shape, block, double);
            let mut dense = vec![0.0; values.len()];
            weight.dequantize_into(&mut dense);
            if self.precision == Precision::Bf16 {
                for v in &mut dense {
                    *v = half::bf16::from_f32(*v).to_f32();
                }
            }
            let dense = cpu::tensor2(dense, shape);
            let weight = Nf4Tensor::new(weight, &self.device);
            for transposed in [true, false] {
                let (width, out) = if transposed {
                    (shape[1], shape[0])
                } else {
                    (shape[0], shape[1])
                };
                let case = format!("{rows}x{shape:?} block {block}, transposed {transposed}");
                let (x, gx) = self.activations([rows, width]);
                let want = CPU.gemm(&x, false, &dense, transposed, 1.0);
                let got = self.gpu.nf4_gemm(None, &gx, &weight, transposed);
                self.record("nf4_gemm", &case, &got, &want);
                let (sum, gsum) = self.activations([rows, out]);
                let want = CPU.gemm_add(sum, &x, false, &dense, transposed, 1.0);
                let got = self
                    .gpu
                    .nf4_gemm(Some(gsum.clone()), &gx, &weight, transposed);
                self.record("nf4_gemm added", &case, &got, &want);
                let case = format!("{case}, rank {rank}");
                let (left, gleft) = self.activations([rows, rank]);
                let (right, gright) = self.activations(match transposed {
                    true => [out, rank],
                    false => [rank, out],
                });
                let low = [&gleft, &gright];
                let want = CPU.gemm_add(want, &left, false, &right, transposed, 1.0);
                let sum = Some(gsum);
                let got = self.gpu.nf4_gemm_low(sum, &gx, &weight, low, transposed);
                self.record("nf4_gemm with low rank", &case, &got, &want);
            }
        }
    }

    fn norms(&mut self) {
        for [rows, width] in [
            [1, 1],
            [3, 7],
            [5, 130],
            [33, 64],
            [2, 4096],
            [70, 36],
            [129, 5],
        ] {
            let case = format!("{rows}x{width}");
            let (x, gx) = self.activations([rows, width]);
            let (g, gg) = self.parameters([1, width]);
            let (dy, gdy) = self.activations([rows, width]);
            let want = CPU.rms_norm(&x, &g, 1e-5);
            let got = self.gpu.rms_norm(&gx, &gg, 1e-5);
            self.record("rms_norm", &case, &got, &want);
            let (dx, dg) = CPU.rms_norm_backward(&x, &g, &dy, 1e-5, true);
            let (got, got_g) = self.gpu.rms_norm_backward(&gx, &gg, &gdy, 1e-5, true);
            // Of one number the gradient is what cancellation leaves.
            if width > 1 {
                self.record("rms_norm_backward", &case, &got, &dx);
            }
            let (Some(dg), Some(got_g)) = (dg, got_g) else {
                panic!("the gain's gradient was asked for");
            };
            self.record("rms_norm_backward gain", &case, &got_g, &dg);

            let (b, gb) = self.parameters([1, width]);
            let got = self.gpu.layer_norm(&gx, &gg, &gb, 1e-5);
            let want = CPU.layer_norm(&x, &g, &b, 1e-5);
            self.record("layer_norm", &case, &got, &want);
            let (dx, dg) = CPU.layer_norm_backward(&x, &g, &dy, 1e-5, true);
            let (got, got_g) = self.gpu.layer_norm_backward(&gx, &gg, &gdy, 1e-5, true);
            // Of one number there is no deviation.
            if width > 1 {
                self.record("layer_norm_backward", &case, &got, &dx);
                let (Some(dg), Some(got_g)) = (dg, got_g) else {
                    panic!("the gain's gradient was asked for");
                };
                self.record("layer_norm_backward gain", &case, &got_g, &dg);
            }
            let got = self.gpu.add_bias(gx.clone(), &gb);
            self.record("add_bias", &case, &got, &CPU.add_bias(x.clone(), &b));
            let (plain, gplain) = self.activations([rows, width]);
            let want = CPU.dora_output(x.clone(), &g, &dy, &plain);
            let got = self.gpu.dora_output(gx.clone(), &gg, &gdy, &gplain);
            self.record("dora_output", &case, &got, &want);
            let wants = CPU.dora_backward(&dy, &g, &plain);
            let gots = self.gpu.dora_backward(&gdy, &gg, &gplain);
            let names = ["factors", "adapted", "plain"];
            for ((name, got), want) in names.iter().zip(&gots).zip(&wants) {
                self.record("dora_backward", &format!("{case}, {name}"), got, want);
            }
            let got = self.gpu.row_squares(&gx);
            self.record("row_squares", &case, &got, &CPU.row_squares(&x));
            let got = self.gpu.column_sums(&gdy);
            self.record("column_sums", &case, &got, &CPU.column_sums(&dy));
        }
    }

    fn elementwise(&mut self) {
        for [rows, width] in [[1, 1], [3, 7], [33, 130], [64, 128]] {
            let case = format!("{rows}x{width}");
            let (a, ga) = self.activations([rows, width]);
            let (b, gb) = self.activations([rows, width]);
            let (dy, gdy) = self.activations([rows, width]);
            self.record("gelu", &case, &self.gpu.gelu(&ga), &CPU.gelu(&a));
            let got = self.gpu.gelu_backward(&ga, &gdy);
            self.record("gelu_backward", &case, &got, &CPU.gelu_backward(&a, &dy));
            let got = self.gpu.swiglu(&ga, &gb);
            self.record("swiglu", &case, &got, &CPU.swiglu(&a, &b));
            let (want_gate, want_up) = CPU.swiglu_backward(a.clone(), b.clone(), &dy);
            let (got_gate, got_up) = self.gpu.swiglu_backward(ga.clone(), gb.clone(), &gdy);
            self.record("swiglu_backward gate", &case, &got_gate, &want_gate);
            self.record("swiglu_backward up", &case, &got_up, &want_up);
            let got = self.gpu.add(ga.clone(), &gb);
            self.record("add", &case, &got, &CPU.add(a.clone(), &b));
            let stream = Stream::new(self.drawn, &[7]);
            let want = CPU.dropout(&a, 0.3, stream);
            let got = self.gpu.dropout(&ga, 0.3, stream);
            self.record("dropout", &case, &got, &want);
        }
        for (rows, heads, dim) in [(1, 1, 2), (5, 3, 6), (9, 2, 64), (33, 4, 128)] {
            let case = format!("{rows} rows, {heads} heads of {dim}");
            let frequencies: Vec<f32> = (0..dim / 2).map(|i| 0.9f32.powi(i)).collect();
            let table = RopeTable::new(&frequencies, 64);
            let positions = self.indices(rows, 64);
            let (x, gx) = self.activations([rows, heads * dim as usize]);
            for inverse in [false, true] {
                let want = CPU.rope(x.clone(), &table, &positions, inverse);
                let got = self.gpu.rope(gx.clone(), &table, &positions, inverse);
                self.record("rope", &case, &got, &want);
            }
        }
    }

    fn rows(&mut self) {
        for width in [1, 6, 33, 64] {
            let case = format!("width {width}");
            let (table, gtable) = self.activations([11, width]);
            let (src, gsrc) = self.activations([4, width]);
            let ids: Indices = vec![3, 0, 10, 3].into();
            let got = self.gpu.gather_rows(&gtable, &ids);
            self.record_within(
                "gather_rows",
                &case,
                &got,
                &CPU.gather_rows(&table, &ids),
                0.0,
            );
            let want = CPU.scatter_add_rows(table.clone(), &ids, &src);
            let got = self.gpu.scatter_add_rows(gtable.clone(), &ids, &gsrc);
            self.record("scatter_add_rows", &case, &got, &want);
            let ids: Indices = vec![3, 0, 10, 7].into();
            let want = CPU.write_rows(table, &ids, &src);
            let got = self.gpu.write_rows(gtable, &ids, &gsrc);
            self.record_within("write_rows", &case, &got, &want, 0.0);
        }
    }

    /// Packed documents of unequal lengths.
    fn attention(&mut self) {
        type Case<'a> = (&'a [usize], usize, usize, usize, Option<usize>);
        let cases: [Case<'_>; 8] = [
            (&[1], 1, 1, 6, None),
            (&[3, 2], 2, 1, 6, None),
            (&[70, 1, 19], 4, 2, 16, None),
            (&[33, 65], 6, 2, 64, None),
            (&[130, 40], 2, 1, 128, None),
            (&[70, 1, 19], 4, 2, 16, Some(5)),
            (&[33, 165], 6, 2, 64, Some(40)),
            (&[130, 40], 2, 1, 128, Some(1)),
        ];
        for (lengths, heads, kv_heads, head_dim, window) in cases {
            let mut case = format!("{lengths:?}, {heads}/{kv_heads} heads of {head_dim}");
            if let Some(window) = window {
                case = format!("{case}, window {window}");
            }
            let shape = AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window,
            };
            let mut spans = Spans::default();
            let mut tokens = 0;
            for &len in lengths {
                spans.push(Span {
                    q_start: tokens,
                    q_len: len,
                    k_start: tokens,
                    k_len: len,
                });
                tokens += len;
            }
            let (q, gq) = self.activations([tokens, heads * head_dim]);
            let (k, gk) = self.activations([tokens, kv_heads * head_dim]);
            let (v, gv) = self.activations([tokens, kv_heads * head_dim]);
            let (dout, gdout) = self.activations([tokens, heads * head_dim]);
            let (out, lse) = CPU.attention(&q, &k, &v, &spans, shape);
            let (gout, glse) = self.gpu.attention(&gq, &gk, &gv, &spans, shape);
            self.record("attention", &case, &gout, &out);
            self.record_within("attention lse", &case, &glse, &lse, 1e-5);
            let want = CPU.attention_backward(&q, &k, &v, &out, &lse, &dout, &spans, shape);
            let got = self
                .gpu
                .attention_backward(&gq, &gk, &gv, &gout, &glse, &gdout, &spans, shape);
            // With one key the score has no slope: dq and dk are rounding alone.
            if tokens > 1 && window != Some(1) {
                self.record("attention_backward q", &case, &got.0, &want.0);
                self.record("attention_backward k", &case, &got.1, &want.1);
            }
            self.record("attention_backward v", &case, &got.2, &want.2);
        }
    }

    fn loss(&mut self) {
        for (rows, width, vocab) in [(1, 3, 2), (37, 16, 101), (700, 8, 1000)] {
            let case = format!("{rows} rows, vocabulary {vocab}");
            let (h, gh) = self.activations([rows, width]);
            let (w, gw) = self.activations([vocab, width]);
            let targets = self.indices(rows, vocab);
            let (start, gstart) = self.parameters([vocab, width]);
            let grad = |head_grad| CrossEntropyGrad::HiddenAndHead {
                scale: 0.25,
                head_grad: Some(head_grad),
            };
            let want = CPU.cross_entropy(&h, &w, &targets, grad(start));
            let got = self.gpu.cross_entropy(&gh, &gw, &targets, grad(gstart));
            let (loss, want_loss) = (got.loss_sum.value(), want.loss_sum.value());
            self.record_scalar("cross_entropy", &case, loss, want_loss, 1e-5);
            let (Some(a), Some(b)) = (got.d_hidden, want.d_hidden) else {
                panic!("the gradient was asked for");
            };
            self.record("cross_entropy hidden", &case, &a, &b);
            let (Some(a), Some(b)) = (got.d_head, want.d_head) else {
                panic!("the head's gradient was asked for");
            };
            self.record("cross_entropy head", &case, &a, &b);
            let plain = self
                .gpu
                .cross_entropy(&gh, &gw, &targets, CrossEntropyGrad::None);
            let loss = plain.loss_sum.value();
            self.record_scalar("cross_entropy alone", &case, loss, want_loss, 1e-5);
        }
    }
}
