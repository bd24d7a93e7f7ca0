//! `gpu kernels`: the operations of a training step one by one, at the Llama-3-8B
//! shape. Inputs are random; memory-bound operations walk through several sets of
//! them, so that the cache does not answer.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use burn::tensor::{DType, Device, Distribution, Tensor};
use kiln::experiment::crash;
use kiln::ops::{HotOps, Precision, for_device};

use super::timing::{BYTES_PER_S, Cost, FLOP_PER_S, Timer};
use super::{common, table};

/// Sets of inputs that launches walk through.
pub const SETS: usize = 4;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 4096)]
    pub tokens: usize,
    #[arg(long, default_value_t = 4096)]
    pub hidden: usize,
    #[arg(long, default_value_t = 14336)]
    pub wide: usize,
    #[arg(long, default_value_t = 32)]
    pub heads: usize,
    #[arg(long, default_value_t = 8)]
    pub kv_heads: usize,
    #[arg(long, default_value_t = 32)]
    pub layers: usize,
    #[arg(long, default_value_t = 128_256)]
    pub vocabulary: usize,
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
    /// Bytes a second that a copy reaches on this card
    #[arg(long, default_value_t = BYTES_PER_S)]
    bandwidth: f64,
    /// Operations a second that a large bf16 product reaches on this card
    #[arg(long, default_value_t = FLOP_PER_S)]
    rate: f64,
    /// Only groups whose name holds this: nf4, gemm, lora, rows, attention, loss, adamw
    #[arg(long, default_value = "")]
    only: String,
    /// Compute in f32 even where the device has bf16
    #[arg(long)]
    f32: bool,
    /// Also write one JSON line a row to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What the groups of operations share.
pub struct Bench<'a> {
    pub args: &'a Args,
    pub ops: &'static dyn HotOps,
    /// Bytes of an activation.
    pub width: f64,
    pub timer: Timer,
}

type Group<'a> = (&'static str, fn(&mut Bench<'a>));

fn groups<'a>() -> [Group<'a>; 7] {
    [
        ("nf4", Bench::nf4),
        ("gemm", Bench::products),
        ("lora", Bench::lora),
        ("rows", Bench::rows),
        ("attention", Bench::attention),
        ("loss", Bench::loss),
        ("adamw", Bench::optimiser),
    ]
}

pub fn call(args: &Args) -> Result<bool> {
    if args.heads == 0 || !args.hidden.is_multiple_of(args.heads) || args.tokens < 2 {
        bail!("--hidden must be a multiple of --heads, --tokens at least 2");
    }
    let device = common::card()?;
    let precision = common::precision(&device, args.f32);
    println!(
        "device {device:?}, {}, {} tokens; floor: bytes at {:.2} TB/s or matrix products at {:.0} TFLOP/s",
        common::name(precision),
        args.tokens,
        args.bandwidth / 1e12,
        args.rate / 1e12
    );
    let create = |path: &PathBuf| File::create(path).with_context(|| path.display().to_string());
    let sink = args.json.as_ref().map(create).transpose()?;
    let mut bench = Bench {
        args,
        ops: for_device(&device, precision),
        width: match precision {
            Precision::Bf16 => 2.0,
            Precision::F32 => 4.0,
        },
        timer: Timer {
            device,
            bytes_per_s: args.bandwidth,
            flop_per_s: args.rate,
            rows: Vec::new(),
            sink,
        },
    };
    let mut broken = false;
    let groups = groups().into_iter();
    for (name, group) in groups.filter(|(name, _)| name.contains(&args.only)) {
        if let Err(why) = crash::catch(|| group(&mut bench)) {
            println!("{name}: {why}");
            broken = true;
        }
    }
    let rows = &bench.timer.rows;
    let mut cells: Vec<Vec<String>> = rows.iter().map(|row| row.cells()).collect();
    // Of those that could be timed.
    let (mut measured, mut floor) = (0.0, 0.0);
    for (row, seconds) in rows
        .iter()
        .filter_map(|r| Some((r, r.seconds.as_ref().ok()?)))
    {
        measured += seconds * row.cost.calls as f64;
        floor += row.floor * row.cost.calls as f64;
    }
    cells.push(vec![
        "all calls of a step".to_string(),
        "layers' results kept".to_string(),
        format!("{:.2}", measured * 1e3),
        format!("{:.2}", floor * 1e3),
        format!("{:.2}", measured / floor),
        String::new(),
    ]);
    table::print(&["op", "shape", "ms", "floor ms", "ratio", "calls"], &cells);
    Ok(!broken && !rows.is_empty() && rows.iter().all(|row| row.seconds.is_ok()))
}

impl Bench<'_> {
    pub fn device(&self) -> &Device {
        &self.timer.device
    }

    /// Random numbers in the compute type.
    pub fn random(&self, rows: usize, columns: usize) -> Tensor<2> {
        self.ops.operand(&self.random_f32(rows, columns))
    }

    pub fn random_f32(&self, rows: usize, columns: usize) -> Tensor<2> {
        let normal = Distribution::Normal(0.0, 1.0);
        Tensor::random([rows, columns], normal, (self.device(), DType::F32))
    }

    pub fn sets(&self, rows: usize, columns: usize) -> Vec<Tensor<2>> {
        (0..SETS).map(|_| self.random(rows, columns)).collect()
    }

    pub fn cost(&self, numbers: usize, flops: f64, calls: usize) -> Cost {
        let bytes = self.width * numbers as f64;
        Cost {
            bytes,
            flops,
            calls,
        }
    }

    pub fn kv(&self) -> usize {
        self.args.hidden / self.args.heads * self.args.kv_heads
    }

    /// `[out, in]` of the linears of a layer, and how many there are of each.
    pub fn linears(&self) -> [(usize, usize, usize); 4] {
        let (hidden, wide) = (self.args.hidden, self.args.wide);
        [
            (hidden, hidden, 2),
            (self.kv(), hidden, 2),
            (wide, hidden, 2),
            (hidden, wide, 1),
        ]
    }
}
