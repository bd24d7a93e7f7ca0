//! `training.packing`: what it changes (which examples share a step) and what it must
//! not (loss, gradients, repeatability).

use crate::common;
use crate::log::Log;

use burn::tensor::Device;
use common::sandbox::{Sandbox, config, table};
use kiln::config::types::{LoraConfig, ModelInit, QuantMethod, TargetModules, TrainingConfig};
use kiln::data::Sample;
use kiln::data::batch::Schedule as Plan;
use kiln::data::pack::packs;
use kiln::model::{Adaptation, Decoder, Grads, Keep, LoadOptions, StepOptions, load};
use kiln::rng::Stream;
use kiln::train::{Optimizer, Progress, Schedule, Trainer, ragged};

const VOCAB: usize = 97;
const LONGEST: usize = 40;

pub fn model() -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config(VOCAB, 32, 2)).unwrap();
    let lora = LoraConfig {
        dropout: 0.0,
        target_modules: TargetModules::Named("all-linear".into()),
        ..common::default_config().lora
    };
    let mut model = load(&LoadOptions {
        dir: dir.path(),
        init: ModelInit::Random,
        quantization: &common::quantization(QuantMethod::None),
        adaptation: Adaptation::Lora(&lora),
        seed: 3,
        device: &Device::flex(),
        precision: kiln::ops::Precision::F32,
    })
    .unwrap();
    model.reserve_positions(LONGEST);
    model
}

/// Fresh samples of 2 to 20 tokens; the seed is printed.
pub fn samples(n: usize) -> Vec<Sample> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = std::env::var("KILN_TEST_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(now.unwrap().as_nanos() as u64);
    println!("KILN_TEST_SEED={seed}");
    let random = Stream::new(seed, &[]);
    let one = |row: u64| {
        let tokens = 2 + random.bits(row * 64) % 19;
        let ids: Vec<u32> = (1..=tokens)
            .map(|t| (random.bits(row * 64 + t) % VOCAB as u64) as u32)
            .collect();
        let masked = random.bits(row * 64 + 63) % (tokens - 1);
        let label = |(t, id): (usize, &u32)| match t as u64 > masked {
            true => i64::from(*id),
            false => -100,
        };
        Sample {
            row: row as usize + 1,
            labels: ids.iter().enumerate().map(label).collect(),
            input_ids: ids,
            cut: 0,
        }
    };
    (0..n as u64).map(one).collect()
}

fn training() -> TrainingConfig {
    TrainingConfig {
        packing: true,
        max_seq_length: LONGEST,
        learning_rate: 1e-2,
        ..common::reference_training(true)
    }
}

fn lengths(samples: &[Sample]) -> Vec<usize> {
    samples.iter().map(|s| s.input_ids.len()).collect()
}

fn floats(grads: &Grads) -> Vec<f32> {
    let all = grads.iter().flatten();
    all.flat_map(|g| g.clone().into_data().iter::<f32>().collect::<Vec<_>>())
        .collect()
}

#[track_caller]
fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0, f32::max);
    assert!(off <= tolerance * largest, "{off} of {largest}");
}

#[test]
fn a_pack_has_the_loss_and_the_gradients_of_its_samples() {
    let (model, samples) = (model(), samples(30));
    let packs = packs(&lengths(&samples), &training(), 7);
    assert!(packs.len() < 15, "{packs:?}");
    for keep in [Keep::Tapes, Keep::Inputs] {
        let options = StepOptions {
            scale: 0.01,
            keep,
            dropout: None,
        };
        for pack in &packs {
            let mut packed = Grads::new(&model.params);
            let batch = ragged(pack.iter().map(|&i| &samples[i]));
            let loss = model.loss_backward(&batch, options, &mut packed).value();
            let (mut single, mut sum) = (Grads::new(&model.params), 0.0);
            for &i in pack {
                let batch = ragged(std::iter::once(&samples[i]));
                sum += model.loss_backward(&batch, options, &mut single).value();
            }
            assert!((loss - sum).abs() < 1e-5 * sum.abs(), "{loss} {sum}");
            close(&floats(&packed), &floats(&single), 2e-5);
        }
    }
}

/// The losses of a run over one epoch and the parameters after it.
fn run(samples: &[Sample], config: &TrainingConfig, seed: u64) -> (Vec<f64>, Vec<f32>) {
    let mut model = model();
    let packs = packs(&lengths(samples), config, seed);
    let (batch, accumulation) = (config.batch_size, config.gradient_accumulation_steps);
    let plan = Plan::new(packs.len(), batch, accumulation, 1.0, None).unwrap();
    assert_eq!(
        plan.total_steps(),
        packs.len().div_ceil(batch).div_ceil(accumulation)
    );
    let mut log = Log::default();
    let mut trainer = Trainer {
        optimizer: Optimizer::new(&model.params, config.optimizer),
        model: &mut model,
        progress: Progress::default(),
        config,
        seed,
        train: &samples,
        val: &Vec::new(),
        packs: &packs,
        plan,
        schedule: Schedule::new(config, plan.total_steps()),
    };
    trainer.run(&mut log).unwrap_or_else(|never| match never {});
    let values = model.params.values().iter();
    let values = values.flat_map(|p| p.clone().into_data().iter::<f32>().collect::<Vec<_>>());
    (log.0.iter().map(|e| e.loss).collect(), values.collect())
}

#[test]
fn a_packed_run_does_not_depend_on_how_its_window_is_cut() {
    let samples = samples(60);
    let with = |batch_size, gradient_accumulation_steps, gradient_checkpointing| TrainingConfig {
        batch_size,
        gradient_accumulation_steps,
        gradient_checkpointing,
        shuffle: true,
        ..training()
    };
    let (losses, params) = run(&samples, &with(4, 1, true), 5);
    assert!(losses.len() >= 3);
    for config in [with(1, 4, true), with(2, 2, true)] {
        let (others, cut) = run(&samples, &config, 5);
        assert_eq!(others.len(), losses.len());
        for (a, b) in others.iter().zip(&losses) {
            assert!((a - b).abs() < 1e-5 * b, "{a} {b}");
        }
        // Adam amplifies the rounding of gradients near zero.
        close(&cut, &params, 2e-3);
    }
    let kept = run(&samples, &with(4, 1, false), 5);
    assert!(
        kept == (losses.clone(), params.clone()),
        "recomputation changed bits"
    );
    let again = run(&samples, &with(4, 1, true), 5);
    assert!(
        again == (losses.clone(), params),
        "the same seed gave other bits"
    );
    let (other, _) = run(&samples, &with(4, 1, true), 6);
    assert_ne!(losses, other, "another seed gives other packs");
}

#[test]
fn steps_count_packs_and_a_packed_run_resumes() {
    let sandbox = Sandbox::new();
    let train = "train task=tokens data.path=tokens.jsonl model.path=model training.val_ratio=0.2 \
                 training.max_seq_length=64 training.packing=true training.batch_size=2 \
                 training.gradient_accumulation_steps=2 training.epochs=3 training.logging_steps=1 \
                 training.save_steps=2 training.eval_steps=0";
    let stdout = sandbox.ok(&format!("{train} hydra.run.dir=whole"));
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let before = |word: &str| -> usize {
        let at = words.iter().position(|w| w.starts_with(word)).unwrap();
        words[at - 1].parse().unwrap()
    };
    let (packs, steps) = (before("packs)"), before("steps"));
    assert!(packs < 32, "{stdout}");
    let per_epoch = packs.div_ceil(2).div_ceil(2);
    assert_eq!(steps, 3 * per_epoch);
    let (_, rows) = table(&sandbox.read("whole/metrics.csv"));
    let last = rows.iter().rfind(|row| row[2] == "train").unwrap();
    assert_eq!((&last[0], last[1].parse()), (&steps.to_string(), Ok(3.0)));
    let plan = sandbox.ok(&format!("plan {}", &train["train ".len()..]));
    assert!(plan.contains(&format!(" {steps} steps")), "{plan}");

    sandbox.ok(&format!("{train} hydra.run.dir=run"));
    let summary = sandbox.read("run/summary.json");
    sandbox.write(
        "run/summary.json",
        &summary.replace("\"finished\"", "\"running\""),
    );
    let stdout = sandbox.ok(&format!("{train} training.resume=run"));
    assert!(stdout.contains("resuming from "), "{stdout}");
    let adapter = |run: &str| sandbox.bytes(&format!("{run}/adapter/adapter_model.safetensors"));
    assert!(adapter("run") == adapter("whole"));
}
