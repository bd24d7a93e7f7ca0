//! `gpu shapes`: products, attention and the loss at the Llama-3-8B shape against the same in f32 on
//! the card, row by row. `gpu ops` compares with the CPU, whose time bounds its shapes: there a block
//! has a tile or two, here many.

use std::time::Instant;

use anyhow::{Result, bail};
use burn::tensor::{DType, Device, Distribution, Tensor};
use kiln::experiment::crash;
use kiln::ops::nf4::quantize;
use kiln::ops::{CrossEntropyGrad, HotOps, Indices, Nf4Tensor, Precision, for_device};
use kiln::rng::Stream;
use rayon::prelude::*;

use super::{common, table};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 4096)]
    tokens: usize,
    /// Tokens of a sequence; attention stays within one
    #[arg(long, default_value_t = 2048)]
    seq: usize,
    #[arg(long, default_value_t = 4096)]
    hidden: usize,
    #[arg(long, default_value_t = 14336)]
    wide: usize,
    #[arg(long, default_value_t = 32)]
    heads: usize,
    #[arg(long, default_value_t = 8)]
    kv_heads: usize,
    #[arg(long, default_value_t = 128_256)]
    vocabulary: usize,
    #[arg(long, default_value_t = 16)]
    rank: usize,
}

/// Relative error of a row that rounding to bf16 explains; a few wrong numbers in a row of 14,336 are
/// above it. What a softmax is part of rounds more than once.
const BOUND: f64 = 1e-2;
const BOUND_OF_ATTENTION: f64 = 3e-2;
/// Rows of a head product.
const LOSS_ROWS: usize = 512;

struct Shapes<'a> {
    args: &'a Args,
    device: Device,
    ops: &'static dyn HotOps,
    /// The same in f32.
    exact: &'static dyn HotOps,
    cells: Vec<Vec<String>>,
    failed: usize,
}

type Group<'a> = (&'static str, fn(&mut Shapes<'a>));

/// True where all agree.
pub fn call(args: &Args) -> Result<bool> {
    let a = args;
    if a.heads == 0
        || a.kv_heads == 0
        || !a.hidden.is_multiple_of(a.heads)
        || a.tokens < 2
        || a.seq == 0
    {
        bail!(
            "--hidden must be a multiple of --heads, --tokens at least 2, --seq and --kv-heads above 0"
        );
    }
    let device = common::card()?;
    let precision = common::precision(&device, false);
    println!("device {device:?}, {} beside f32", common::name(precision));
    let mut shapes = Shapes {
        args,
        ops: for_device(&device, precision),
        exact: for_device(&device, Precision::F32),
        device,
        cells: Vec::new(),
        failed: 0,
    };
    let began = Instant::now();
    let groups: [Group<'_>; 4] = [
        ("nf4", Shapes::nf4),
        ("products", Shapes::products),
        ("attention", Shapes::attention),
        ("loss", Shapes::loss),
    ];
    for (name, group) in groups {
        eprintln!("{name}");
        if let Err(why) = crash::catch(|| group(&mut shapes)) {
            println!("FAILED {name}: {why}");
            shapes.failed += 1;
        }
    }
    println!(
        "shapes: {} comparisons, {} failed, {:.1} s",
        shapes.cells.len(),
        shapes.failed,
        began.elapsed().as_secs_f64()
    );
    table::print(&["op", "shape", "all", "worst row", ""], &shapes.cells);
    Ok(shapes.failed == 0 && !shapes.cells.is_empty())
}

fn f32_of(x: &Tensor<2>) -> Tensor<2> {
    x.clone().cast(DType::F32)
}

impl Shapes<'_> {
    /// Normal numbers in the compute type.
    fn random(&self, rows: usize, columns: usize) -> Tensor<2> {
        let normal = Distribution::Normal(0.0, 1.0);
        let numbers = Tensor::random([rows, columns], normal, (&self.device, DType::F32));
        self.ops.operand(&numbers)
    }

    fn rows_of_squares(&self, x: &Tensor<2>) -> Vec<f64> {
        let squares = self.exact.row_squares(x);
        squares.into_data().iter::<f64>().collect()
    }

    /// Compares all numbers, and each row by itself: a tile that is wrong shows there.
    fn compare(&mut self, op: &str, shape: &str, got: &Tensor<2>, want: &Tensor<2>, bound: f64) {
        let off = self.rows_of_squares(&(f32_of(got) - want.clone()));
        let whole = self.rows_of_squares(want);
        let sum = |rows: &[f64]| rows.iter().sum::<f64>();
        let mean = sum(&whole) / whole.len().max(1) as f64;
        let all = (sum(&off) / sum(&whole)).sqrt();
        let rows = off
            .iter()
            .zip(&whole)
            .map(|(d, w)| (d / w.max(mean)).sqrt());
        // NaN is worse than all.
        let worst = rows.fold(0.0, |a: f64, b| if a.is_nan() || b <= a { a } else { b });
        let passed = worst <= bound;
        if !passed {
            println!("FAILED {op} {shape}: {worst:.2e} in one row, above {bound:.0e}");
            self.failed += 1;
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        let numbers = [all, worst].map(|error| format!("{error:.1e}"));
        let [all, worst] = numbers;
        self.cells
            .push(vec![op.into(), shape.into(), all, worst, verdict.into()]);
    }

    fn kv(&self) -> usize {
        self.args.hidden / self.args.heads * self.args.kv_heads
    }

    /// Products with a weight in NF4 forward and to the input, alone, with low rank, of few rows.
    fn nf4(&mut self) {
        let (hidden, wide, t) = (self.args.hidden, self.args.wide, self.args.tokens);
        for (out, input) in [
            (hidden, hidden),
            (self.kv(), hidden),
            (wide, hidden),
            (hidden, wide),
        ] {
            let random = Stream::new((out * input) as u64, &[]);
            let value = |i: usize| random.uniform(i as u64) - 0.5;
            let values: Vec<f32> = (0..out * input).into_par_iter().map(value).collect();
            let weight = Nf4Tensor::new(quantize(&values, [out, input], 64, true), &self.device);
            // As the products round it.
            let dense = f32_of(&self.ops.nf4_dequantize(&weight));
            for transposed in [true, false] {
                let (from, to) = if transposed {
                    (input, out)
                } else {
                    (out, input)
                };
                for rows in [t, 8] {
                    let x = self.random(rows, from);
                    let shape = format!("{rows} x {from}->{to}");
                    let name = |op: &str| match transposed {
                        true => format!("{op} x.W^T"),
                        false => format!("{op} dy.W"),
                    };
                    let plain = self.exact.gemm(&f32_of(&x), false, &dense, transposed, 1.0);
                    let got = self.ops.nf4_gemm(None, &x, &weight, transposed);
                    self.compare(&name("nf4_gemm"), &shape, &got, &plain, BOUND);
                    let r = self.args.rank;
                    let (left, sum) = (self.random(rows, r), self.random(rows, to));
                    let right = match transposed {
                        true => self.random(to, r),
                        false => self.random(r, to),
                    };
                    let want = self.exact.add(plain, &f32_of(&sum));
                    let (left32, right32) = (f32_of(&left), f32_of(&right));
                    let want = self
                        .exact
                        .gemm_add(want, &left32, false, &right32, transposed, 1.0);
                    let low = [&left, &right];
                    let got = self
                        .ops
                        .nf4_gemm_low(Some(sum), &x, &weight, low, transposed);
                    self.compare(&name("nf4_gemm, low rank"), &shape, &got, &want, BOUND);
                }
            }
        }
    }

    /// Products of dense matrices: large ones, and those whose contraction is cut.
    fn products(&mut self) {
        let (hidden, wide, t) = (self.args.hidden, self.args.wide, self.args.tokens);
        let (x, w, dy) = (
            self.random(t, hidden),
            self.random(wide, hidden),
            self.random(t, wide),
        );
        let (x32, w32, dy32) = (f32_of(&x), f32_of(&w), f32_of(&dy));
        let want = self.exact.gemm(&x32, false, &w32, true, 0.5);
        let got = self.ops.gemm(&x, false, &w, true, 0.5);
        self.compare(
            "gemm x.W^T",
            &format!("{t} x {hidden}->{wide}"),
            &got,
            &want,
            BOUND,
        );
        let want = self.exact.gemm(&dy32, false, &w32, false, 0.5);
        let got = self.ops.gemm(&dy, false, &w, false, 0.5);
        self.compare(
            "gemm dy.W",
            &format!("{t} x {wide}->{hidden}"),
            &got,
            &want,
            BOUND,
        );
        let u = self.random(t, self.args.rank);
        let want = self
            .exact
            .gradient(None, &dy32, true, &f32_of(&u), false, 2.0);
        let got = self.ops.gradient(None, &dy, true, &u, false, 2.0);
        let shape = format!("{wide} x {t}->{}", self.args.rank);
        self.compare("gradient dy^T.u", &shape, &got, &want, BOUND);
        let up = self.ops.gemm(&x, false, &w, true, 0.5);
        let got = self.ops.swiglu(&dy, &up);
        let want = self.exact.swiglu(&dy32, &f32_of(&up));
        self.compare("swiglu", &format!("{t} x {wide}"), &got, &want, BOUND);
    }

    fn attention(&mut self) {
        let a = self.args;
        let (t, dim) = (a.tokens, a.hidden / a.heads);
        let shape = common::attention_shape(a.hidden, a.heads, a.kv_heads);
        let spans = common::documents(t, a.seq);
        let (q, dout) = (self.random(t, a.hidden), self.random(t, a.hidden));
        let (k, v) = (self.random(t, self.kv()), self.random(t, self.kv()));
        let [q32, k32, v32, d32] = [&q, &k, &v, &dout].map(f32_of);
        let (want, want_lse) = self.exact.attention(&q32, &k32, &v32, &spans, shape);
        let (got, lse) = self.ops.attention(&q, &k, &v, &spans, shape);
        let name = format!(
            "{} of {}, {}/{} heads of {dim}",
            t.div_ceil(a.seq),
            a.seq,
            a.heads,
            a.kv_heads
        );
        let bound = BOUND_OF_ATTENTION;
        self.compare("attention", &name, &got, &want, bound);
        let wants = self
            .exact
            .attention_backward(&q32, &k32, &v32, &want, &want_lse, &d32, &spans, shape);
        let gots = self
            .ops
            .attention_backward(&q, &k, &v, &got, &lse, &dout, &spans, shape);
        for (op, got, want) in [
            ("attention_backward q", &gots.0, &wants.0),
            ("attention_backward k", &gots.1, &wants.1),
            ("attention_backward v", &gots.2, &wants.2),
        ] {
            self.compare(op, &name, got, want, bound);
        }
    }

    fn loss(&mut self) {
        let a = self.args;
        let rows = LOSS_ROWS.min(a.tokens);
        let hidden = self.random(rows, a.hidden);
        let head = self.random(a.vocabulary, a.hidden).mul_scalar(0.02);
        let random = Stream::new(6, &[]);
        let target = |i| (random.bits(i) % a.vocabulary as u64) as u32;
        let targets: Indices = (0..rows as u64).map(target).collect::<Vec<_>>().into();
        let grad = || CrossEntropyGrad::Hidden { scale: 1.0 };
        let got = self.ops.cross_entropy(&hidden, &head, &targets, grad());
        let (hidden, head) = (f32_of(&hidden), f32_of(&head));
        let want = self.exact.cross_entropy(&hidden, &head, &targets, grad());
        let shape = format!("{rows} rows of {}", a.vocabulary);
        if let (Some(got), Some(want)) = (got.d_hidden, want.d_hidden) {
            self.compare(
                "cross_entropy to hidden",
                &shape,
                &got,
                &want,
                BOUND_OF_ATTENTION,
            );
        }
        let (got, want) = (got.loss_sum.value(), want.loss_sum.value());
        let error = (got - want).abs() / want.abs();
        let passed = error <= 1e-3;
        if !passed {
            println!("FAILED cross_entropy {shape}: {got} and {want}");
            self.failed += 1;
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        self.cells.push(vec![
            "cross_entropy".into(),
            shape,
            format!("{error:.1e}"),
            String::new(),
            verdict.into(),
        ]);
    }
}
