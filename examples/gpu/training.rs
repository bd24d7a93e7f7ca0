//! `gpu training`: a small random Llama trains for 20 steps on the CPU and on the
//! device, from the same adapter on the same batches.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use burn::tensor::Device;
use kiln::config::types::{ModelInit, Scheduler, TrainingConfig};
use kiln::data::batch::Schedule as Plan;
use kiln::data::{IGNORED, Sample};
use kiln::model::{Adaptation, Decoder, Keep, LoadOptions, MLP_ROWS, load};
use kiln::ops::Precision;
use kiln::rng::Stream;
use kiln::train::{Diverged, Event, Observer, Optimizer, Progress, Schedule, Trainer};

use super::{common, table};

const STEPS: usize = 20;
/// Rows of a tile of the feed-forward part, where it is taken in tiles.
const TILE: usize = 16;
const VOCABULARY: u64 = 1000;
/// Sequences draw their tokens from so many, so that there is something to learn.
const USED: u64 = 50;
/// What rounding explains of the losses' relative difference.
const F32_BOUND: f64 = 2e-5;
const BF16_BOUND: f64 = 2e-2;

#[derive(clap::Args)]
pub struct Args {
    /// Of the weights, the tokens and the dropout
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Tokens of the longest sequence
    #[arg(long, default_value_t = 96)]
    longest: u64,
    /// Width of the model; a multiple of 64
    #[arg(long, default_value_t = 256)]
    hidden: usize,
    #[arg(long, default_value_t = 4)]
    layers: usize,
}

impl Args {
    fn model(&self) -> String {
        let (hidden, layers) = (self.hidden, self.layers);
        format!(
            r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama",
"vocab_size": {VOCABULARY}, "hidden_size": {hidden}, "intermediate_size": {wide},
"num_hidden_layers": {layers}, "num_attention_heads": 8, "num_key_value_heads": 2,
"max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
"initializer_range": 0.05, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2}}"#,
            // Rows of whole NF4 blocks: in others the CPU follows bitsandbytes' CPU
            // kernel, which takes other maxima than its CUDA kernel.
            wide = 3 * hidden,
        )
    }
}

/// Losses and gradient norms by step, and the adapter's file.
struct Outcome {
    losses: Vec<f64>,
    norms: Vec<f64>,
    adapter: Vec<u8>,
    seconds: f64,
}

#[derive(Default)]
struct Log {
    losses: Vec<f64>,
    norms: Vec<f64>,
}

impl Observer for Log {
    type Error = anyhow::Error;
    fn step(&mut self, _: usize, _: usize, _: f64, _: f64, _: u64) {}
    fn event(&mut self, event: &Event) -> Result<()> {
        self.losses.push(event.loss);
        self.norms.push(event.grad_norm.unwrap_or(f64::NAN));
        Ok(())
    }
    fn checkpoint(&mut self, _: &Decoder, _: &Optimizer, _: &Progress) -> Result<()> {
        Ok(())
    }
    fn diverged(&self, step: usize, what: Diverged) -> anyhow::Error {
        anyhow!("step {step}: {what}")
    }
}

/// True where the device agrees with the CPU and with itself.
pub fn call(args: &Args) -> Result<bool> {
    let device = common::card()?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let base = folder.path().join("base");
    std::fs::create_dir(&base)?;
    std::fs::write(base.join("config.json"), args.model())?;
    let samples = samples(args.seed, args.longest.max(8));
    let tokens: usize = samples.iter().map(|s| s.input_ids.len()).sum();
    println!(
        "device {device:?}, seed {}: {STEPS} steps, {} sequences with {tokens} tokens",
        args.seed,
        samples.len()
    );
    let run_tiled = |device: &Device, precision, keep, mlp_rows| {
        train(
            &base, &samples, device, precision, keep, mlp_rows, args.seed,
        )
    };
    let run = |device: &Device, precision, keep| run_tiled(device, precision, keep, MLP_ROWS);
    let cpu = run(&Device::flex(), Precision::F32, Keep::Inputs)?;
    println!(
        "the CPU's loss went from {:.4} to {:.4} in {:.1} s",
        cpu.losses[0],
        cpu.losses[STEPS - 1],
        cpu.seconds
    );
    let mut report = Report::default();
    for (precision, bound) in [(Precision::F32, F32_BOUND), (Precision::Bf16, BF16_BOUND)] {
        let name = common::name(precision);
        if precision == Precision::Bf16 && !common::has_bf16(&device) {
            println!("{name}: left out, this device does not compute in it");
            continue;
        }
        let first = run(&device, precision, Keep::Inputs)?;
        println!("{name}: {:.1} s on the device", first.seconds);
        let again = run(&device, precision, Keep::Inputs)?;
        let kept = run(&device, precision, Keep::Tapes)?;
        let offloaded = run(&device, precision, Keep::InputsOnHost)?;
        let tiled = run_tiled(&device, precision, Keep::Inputs, TILE)?;
        let worst = difference(&first.losses, &cpu.losses);
        report.number(name, "losses beside the CPU's", worst, Some(bound));
        let worst = difference(&first.norms, &cpu.norms);
        report.number(name, "gradient norms beside the CPU's", worst, None);
        // Sums over rows are cut differently.
        let worst = difference(&tiled.losses, &first.losses);
        report.number(name, "the feed-forward part in tiles", worst, Some(bound));
        report.equal(name, "the same run again", &first, &again);
        report.equal(name, "without recomputation", &first, &kept);
        report.equal(name, "inputs in host memory", &first, &offloaded);
    }
    println!();
    table::print(&["type", "what", "seen", "bound", ""], &report.rows);
    Ok(!report.failed)
}

#[derive(Default)]
struct Report {
    rows: Vec<Vec<String>>,
    failed: bool,
}

impl Report {
    fn number(&mut self, name: &str, what: &str, seen: f64, bound: Option<f64>) {
        // NaN does not pass.
        let verdict = bound.map(|bound| seen <= bound);
        let bound = bound.map_or("-".to_string(), |b| format!("{b:.0e}"));
        self.push(name, what, format!("{seen:.2e}"), bound, verdict);
    }

    fn equal(&mut self, name: &str, what: &str, a: &Outcome, b: &Outcome) {
        let bits = |x: &[f64]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let losses = bits(&a.losses) == bits(&b.losses);
        let adapters = a.adapter == b.adapter;
        let seen = match (losses, adapters) {
            (true, true) => "same bytes".to_string(),
            (true, false) => "same losses, another adapter".to_string(),
            _ => format!("losses differ by {:.1e}", difference(&b.losses, &a.losses)),
        };
        let bound = "same bytes".to_string();
        self.push(name, what, seen, bound, Some(losses && adapters));
    }

    fn push(&mut self, name: &str, what: &str, seen: String, bound: String, ok: Option<bool>) {
        self.failed |= ok == Some(false);
        let verdict = match ok {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "",
        };
        let row = [name, what, &seen, &bound, verdict];
        self.rows.push(row.map(String::from).to_vec());
    }
}

/// The largest relative difference; NaN where either holds one.
fn difference(got: &[f64], want: &[f64]) -> f64 {
    if got.len() != want.len() {
        return f64::NAN;
    }
    let each = got.iter().zip(want).map(|(g, w)| (g - w).abs() / w.abs());
    each.fold(0.0, |worst, d| if d <= worst { worst } else { d })
}

/// Sequences of unequal lengths; the first third of each is not supervised.
fn samples(seed: u64, longest: u64) -> Vec<Sample> {
    let sequence = |row: u64| {
        let random = Stream::new(seed, &[row]);
        let n = 3 + random.bits(0) % (longest - 2);
        let token = |t| (random.bits(t + 1) % USED * (VOCABULARY / USED)) as u32;
        let input_ids: Vec<u32> = (0..n).map(token).collect();
        let prompt = input_ids.len() / 3;
        let label = |(t, id): (usize, &u32)| match t < prompt {
            true => IGNORED,
            false => i64::from(*id),
        };
        Sample {
            row: row as usize + 1,
            labels: input_ids.iter().enumerate().map(label).collect(),
            input_ids,
            cut: 0,
        }
    };
    (0..4 * STEPS as u64).map(sequence).collect()
}

fn train(
    base: &Path,
    samples: &[Sample],
    device: &Device,
    precision: Precision,
    keep: Keep,
    mlp_rows: usize,
    seed: u64,
) -> Result<Outcome> {
    let began = Instant::now();
    let lora = common::all_linear(8, 0.05)?;
    let mut model = load(&LoadOptions {
        dir: base,
        init: ModelInit::Random,
        quantization: &common::double_nf4(),
        adaptation: Adaptation::Lora(&lora),
        seed,
        device,
        precision,
    })?;
    model.mlp_rows = mlp_rows;
    let config = TrainingConfig {
        max_steps: Some(STEPS),
        batch_size: 2,
        gradient_accumulation_steps: 2,
        learning_rate: 1e-3,
        warmup_steps: Some(3),
        scheduler: Scheduler::Cosine,
        weight_decay: 0.01,
        gradient_checkpointing: keep != Keep::Tapes,
        activation_offloading: keep == Keep::InputsOnHost,
        logging_steps: 1,
        ..common::defaults()?.training
    };
    let mut log = Log::default();
    let packs = kiln::data::pack::alone(samples.len());
    let mut trainer = Trainer {
        optimizer: Optimizer::new(&model.params, config.optimizer),
        model: &mut model,
        progress: Progress::default(),
        config: &config,
        seed,
        train: &samples,
        val: &Vec::new(),
        packs: &packs,
        plan: Plan::new(samples.len(), 2, 2, 1.0, Some(STEPS))?,
        schedule: Schedule::new(&config, STEPS),
    };
    trainer.run(&mut log)?;
    let folder = tempfile::tempdir()?;
    let adapter = folder.path().join("adapter");
    let lora = model.adapter(base).context("the model has no adapter")?;
    lora.write(&adapter)?;
    Ok(Outcome {
        losses: log.losses,
        norms: log.norms,
        adapter: std::fs::read(adapter.join("adapter_model.safetensors"))?,
        seconds: began.elapsed().as_secs_f64(),
    })
}
