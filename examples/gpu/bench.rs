//! `gpu bench`: QLoRA training steps at the shape of a model directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor};
use kiln::config::types::{ModelInit, TrainingConfig};
use kiln::experiment::metrics::peak_memory_bytes;
use kiln::model::{
    Adaptation, Decoder, DropoutKey, Grads, Keep, LoadOptions, Ragged, StepOptions, load,
};
use kiln::rng::Stream;
use kiln::train::Optimizer;
use serde_json::json;

use super::common;
use super::memory::{Nvml, Watch};
use super::timing::{median, quantile};

const LEARNING_RATE: f64 = 1e-4;
/// Memory must not grow from here on.
const SETTLED: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    /// A Hugging Face model directory
    #[arg(long)]
    dir: PathBuf,
    /// Compute each layer again in the backward instead of keeping its results
    #[arg(long, action = clap::ArgAction::Set)]
    checkpointing: bool,
    /// Sequences a step
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, default_value_t = 2048)]
    seq: usize,
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Of LoRA; the Python peers run without
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Steps that are timed
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Steps before them
    #[arg(long, default_value_t = 3)]
    warmup: usize,
    /// Start no further step after so many seconds of steps
    #[arg(long)]
    at_most: Option<f64>,
    /// Random weights for the directory's config.json instead of its checkpoint
    #[arg(long)]
    random: bool,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Compute in f32 even where the device has bf16
    #[arg(long)]
    f32: bool,
    /// A word for the table, such as cold or warm
    #[arg(long, default_value = "")]
    label: String,
}

impl Args {
    fn keep(&self) -> Keep {
        match self.checkpointing {
            true => Keep::Inputs,
            false => Keep::Tapes,
        }
    }
}

/// What is trained, and how.
struct Run<'a> {
    args: &'a Args,
    device: Device,
    model: Decoder,
    optimizer: Optimizer,
    training: TrainingConfig,
    done: usize,
}

/// Allocator bytes after a step.
#[derive(Clone, Copy, Default)]
struct Held {
    in_use: u64,
    reserved: u64,
}

pub fn call(args: &Args, began: Instant) -> Result<bool> {
    if args.steps == 0 || args.batch * args.seq < 2 {
        bail!("nothing to time: --steps, --batch and --seq must be above 0, --seq above 1");
    }
    let nvml = Nvml::open().map(Arc::new);
    let watch = nvml.clone().map(Watch::start);
    let device = common::card()?;
    let context = watch.as_ref().map(|watch| context_bytes(&device, watch));
    let context = context.transpose()?.flatten();
    let precision = common::precision(&device, args.f32);
    let lora = common::all_linear(args.rank, args.dropout)?;
    let loading = Instant::now();
    let mut model = load(&LoadOptions {
        dir: &args.dir,
        init: if args.random {
            ModelInit::Random
        } else {
            ModelInit::Pretrained
        },
        quantization: &common::double_nf4(),
        adaptation: Adaptation::Lora(&lora),
        seed: args.seed,
        device: &device,
        precision,
    })?;
    model.reserve_positions(args.seq);
    sync(&device)?;
    let load_s = loading.elapsed().as_secs_f64();
    let loaded = held(&device);
    let mut run = Run {
        args,
        device,
        optimizer: Optimizer::new(&model.params, common::defaults()?.training.optimizer),
        model,
        training: common::defaults()?.training,
        done: 0,
    };

    run.model
        .reserve_activations(args.batch * args.seq, args.keep());
    let (loss, norm) = run.step()?;
    let (mut losses, mut norms) = (vec![loss], vec![norm]);
    sync(&run.device)?;
    let first_step_s = began.elapsed().as_secs_f64();
    let stepping = Instant::now();
    let limit = args.at_most.map_or(Duration::MAX, Duration::from_secs_f64);
    let mut after = vec![held(&run.device)];
    let mut marks = Vec::new();
    while losses.len() < args.warmup.max(1) + args.steps && stepping.elapsed() < limit {
        if losses.len() >= args.warmup.max(1) && marks.is_empty() {
            sync(&run.device)?;
            marks.push(Instant::now());
        }
        let (loss, norm) = run.step()?;
        losses.push(loss);
        norms.push(norm);
        after.push(held(&run.device));
        if !marks.is_empty() {
            marks.push(Instant::now());
        }
    }
    sync(&run.device)?;
    let Some(last) = marks.last_mut() else {
        bail!(
            "the steps before timing took all of --at-most; give more seconds or a smaller --warmup"
        );
    };
    *last = Instant::now();
    let times: Vec<f64> = marks
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    let peak_in_use = run.step_watched()?;
    let peaks = watch.map(Watch::end).unwrap_or_default();

    let at = SETTLED.min(after.len()) - 1;
    let (settled, end) = (after[at], after[after.len() - 1]);
    let grown = |of: fn(&Held) -> u64| {
        (after.len() > SETTLED).then(|| of(&end) as i64 - of(&settled) as i64)
    };
    let tokens = (args.batch * args.seq) as f64;
    let report = json!({
        "side": "kiln",
        "variant": "qlora-nf4-double",
        "label": args.label,
        "checkpointing": args.checkpointing,
        "precision": common::name(precision),
        "device": format!("{:?}", run.device),
        "card": nvml.as_ref().map(|n| n.name.as_str()),
        "driver": nvml.as_ref().map(|n| n.driver.as_str()),
        "batch": args.batch,
        "seq": args.seq,
        "rank": args.rank,
        "dropout": args.dropout,
        "random_weights": args.random,
        "first_step_s": first_step_s,
        "load_s": load_s,
        "timed_steps": times.len(),
        "step_s": median(&times),
        "step_s_p10": quantile(&times, 0.1),
        "step_s_p90": quantile(&times, 0.9),
        "tokens_per_s": tokens / median(&times),
        "tokens_per_s_mean": tokens * times.len() as f64 / times.iter().sum::<f64>(),
        "context_bytes": context,
        "loaded_reserved_bytes": loaded.reserved,
        "loaded_in_use_bytes": loaded.in_use,
        "peak_reserved_bytes": held(&run.device).reserved,
        "peak_in_use_bytes": peak_in_use,
        "smi_peak_bytes": peaks.risen,
        "smi_process_peak_bytes": peaks.process,
        "growth_reserved_bytes": grown(|h| h.reserved),
        "growth_in_use_bytes": grown(|h| h.in_use),
        "peak_rss_bytes": peak_memory_bytes(),
        "loss_first": losses[0],
        "loss_last": losses[losses.len() - 1],
        "losses": losses,
        "grad_norms": norms,
    });
    println!("{report}");
    Ok(losses.iter().all(|l| l.is_finite()))
}

fn sync(device: &Device) -> Result<()> {
    device
        .sync()
        .context("the device reports a failed operation")
}

/// What the driver takes before a first tensor: the process's bytes once a tiny one
/// is there, less those that the allocator holds for it.
fn context_bytes(device: &Device, watch: &Watch) -> Result<Option<u64>> {
    let tiny = Tensor::<1>::zeros([1], device);
    sync(device)?;
    let reserved = held(device).reserved;
    let bytes = watch.now().map(|bytes| bytes.saturating_sub(reserved));
    drop(tiny);
    Ok(bytes)
}

fn held(device: &Device) -> Held {
    let usage = device.memory_pool_usage();
    usage.map_or(Held::default(), |usage| Held {
        in_use: usage.bytes_in_use,
        reserved: usage.bytes_reserved,
    })
}

impl Run<'_> {
    /// Full rows of random tokens, new ones each step; all but the first of a row
    /// are supervised.
    fn batch(&self) -> Ragged {
        let (args, vocabulary) = (self.args, self.model.arch.vocab_size as u64);
        let mut batch = Ragged::default();
        for row in 0..args.batch {
            let random = Stream::new(args.seed, &[self.done as u64, row as u64]);
            let token = |t| (random.bits(t) % vocabulary) as u32;
            let ids: Vec<u32> = (0..args.seq as u64).map(token).collect();
            let labels: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
            batch.push_labelled(&ids, &labels);
        }
        batch
    }

    /// One step as the trainer makes it; its mean loss, which waits for the device, and
    /// the norm of its gradients.
    fn step(&mut self) -> Result<(f64, f64)> {
        let batch = self.batch();
        let supervised = batch.rows.len() as f64;
        let mut grads = Grads::new(&self.model.params);
        let options = StepOptions {
            scale: 1.0 / supervised as f32,
            keep: self.args.keep(),
            dropout: (self.args.dropout > 0.0).then_some(DropoutKey {
                seed: self.args.seed,
                step: self.done as u64,
                micro: 0,
            }),
        };
        let loss = self.model.loss_backward(&batch, options, &mut grads);
        let (ops, params) = (self.model.ops(), &mut self.model.params);
        let norm = self
            .optimizer
            .step(ops, params, grads, &self.training, LEARNING_RATE);
        self.done += 1;
        let (loss, norm) = (loss.value() / supervised, norm.value().sqrt());
        if !loss.is_finite() || !norm.is_finite() {
            bail!("step {}: loss {loss}, gradient norm {norm}", self.done);
        }
        Ok((loss, norm))
    }

    /// One more step, not timed, with the allocator asked all along; the most bytes
    /// in use that were seen.
    fn step_watched(&mut self) -> Result<u64> {
        let (device, stop) = (self.device.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut peak = 0;
                while !stop.load(Ordering::Relaxed) {
                    peak = peak.max(held(&device).in_use);
                    std::thread::sleep(Duration::from_micros(200));
                }
                peak
            });
            let outcome = self.step();
            stop.store(true, Ordering::Relaxed);
            let peak = watching.join().unwrap_or(0);
            outcome.map(|_| peak)
        })
    }
}
