//! Losses, gradient norms and adapters against PEFT's, step by step.

use crate::common;
use crate::log::Log;

use std::path::Path;

use kiln::config::types::{LoraConfig, LoraInit, ModelInit, QuantMethod, TargetModules};
use kiln::data::Sample;
use kiln::data::batch::Schedule as Plan;
use kiln::data::pack::alone;
use kiln::model::peft::Adapter;
use kiln::model::{Adaptation, Decoder, LoadOptions, load};
use kiln::ops::Precision;
use kiln::train::{Event, Optimizer, Progress, Schedule, Trainer};
use safetensors::SafeTensors;

/// The reference's batches without their padding.
fn samples(run: &Path) -> Vec<Sample> {
    let bytes = std::fs::read(run.join("batches.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: &str| -> Vec<i64> {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let (ids, mask, labels) = (read("input_ids"), read("attention_mask"), read("labels"));
    let width = *file.tensor("input_ids").unwrap().shape().last().unwrap();
    ids.chunks_exact(width)
        .zip(mask.chunks_exact(width))
        .zip(labels.chunks_exact(width))
        .map(|((ids, mask), labels)| {
            let n = mask.iter().filter(|m| **m == 1).count();
            Sample {
                row: 1,
                input_ids: ids[..n].iter().map(|i| *i as u32).collect(),
                labels: labels[..n].to_vec(),
                cut: 0,
            }
        })
        .collect()
}

fn run(name: &str, method: QuantMethod, checkpointing: bool) -> Option<(Vec<Event>, Decoder)> {
    run_on("tiny/llama_untied", name, method, checkpointing)
}

fn run_on(
    base: &str,
    name: &str,
    method: QuantMethod,
    checkpointing: bool,
) -> Option<(Vec<Event>, Decoder)> {
    let (events, model) = trained(base, name, method, checkpointing, Precision::F32)?;
    let run = common::shared(&format!("reference/runs/{name}"))?;
    compare_with_log(&run.join("log.jsonl"), &events);
    compare_adapter(&run.join("adapter/adapter_model.safetensors"), &model);
    Some((events, model))
}

/// Twenty steps from the reference's adapter on its batches.
fn trained(
    base: &str,
    name: &str,
    method: QuantMethod,
    checkpointing: bool,
    precision: Precision,
) -> Option<(Vec<Event>, Decoder)> {
    let run = common::shared(&format!("reference/runs/{name}"))?;
    let base = common::shared(&format!("reference/{base}"))?;
    let lora = LoraConfig {
        init_from: Some(run.join("init_adapter")),
        ..lora()
    };
    Some(train(&base, &run, &lora, method, checkpointing, precision))
}

fn lora() -> LoraConfig {
    LoraConfig {
        r: 8,
        alpha: 16.0,
        dropout: 0.0,
        target_modules: TargetModules::Named("all-linear".into()),
        ..common::default_config().lora
    }
}

/// Twenty steps on the batches of a reference run.
fn train(
    base: &Path,
    run: &Path,
    lora: &LoraConfig,
    method: QuantMethod,
    checkpointing: bool,
    precision: Precision,
) -> (Vec<Event>, Decoder) {
    let mut model = load(&LoadOptions {
        dir: base,
        init: ModelInit::Pretrained,
        quantization: &common::quantization(method),
        adaptation: Adaptation::Lora(lora),
        seed: 42,
        device: &burn::tensor::Device::flex(),
        precision,
    })
    .unwrap();
    let config = common::reference_training(checkpointing);
    let samples = samples(run);
    let plan = Plan::new(samples.len(), 2, 2, 1.0, Some(20)).unwrap();
    let mut log = Log::default();
    let packs = alone(samples.len());
    let mut trainer = Trainer {
        optimizer: Optimizer::new(&model.params, config.optimizer),
        model: &mut model,
        progress: Progress::default(),
        config: &config,
        seed: 42,
        train: &samples,
        val: &Vec::new(),
        packs: &packs,
        plan,
        schedule: Schedule::new(&config, 20),
    };
    trainer.run(&mut log).unwrap_or_else(|never| match never {});
    (log.0, model)
}

/// tests/python/pissa.py trained the same with PEFT; signs of singular vectors aside,
/// nothing in it is random.
#[test]
fn pissa_equals_peft_step_by_step() {
    let (Some(base), Some(run)) = (
        common::shared("reference/tiny/llama_untied"),
        common::shared("reference/runs/lora"),
    ) else {
        return;
    };
    let lora = LoraConfig {
        init_lora_weights: LoraInit::Pissa,
        ..lora()
    };
    let (events, model) = train(&base, &run, &lora, QuantMethod::None, false, Precision::F32);
    let golden = |name: &str| fixture("pissa", name);
    near_all(&events, |e| e.loss, &golden("run.losses"), 2e-5);
    // Saved as plain LoRA of twice the rank.
    let adapter = model.adapter(&base).unwrap();
    assert_eq!((adapter.config.r, adapter.config.lora_alpha), (16, 32.0));
    near_change(&adapter, &golden("run.change"));
}

/// Numbers of a file of tests/fixtures.
fn fixture(file: &str, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(format!("tests/fixtures/{file}.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// A figure of every step, within `most` of PEFT's, relative.
fn near_all(events: &[Event], figure: impl Fn(&Event) -> f64, want: &[f32], most: f64) {
    assert_eq!(events.len(), want.len());
    let mut worst = 0.0f64;
    for (event, want) in events.iter().zip(want) {
        let off = figure(event) / f64::from(*want) - 1.0;
        assert!(off.abs() < most, "step {}: {off:e}", event.step);
        worst = worst.max(off.abs());
    }
    println!("largest relative difference {worst:.2e}");
}

/// The product of the two matrices of one module.
fn near_change(adapter: &Adapter, want: &[f32]) {
    let name = "model.layers.1.mlp.down_proj";
    let module = adapter.modules.iter().find(|m| m.module == name).unwrap();
    for (at, want) in want.iter().enumerate() {
        let (row, column) = (at / module.in_features, at % module.in_features);
        let b = &module.b[row * module.r..(row + 1) * module.r];
        let a = module.a[column..].iter().step_by(module.in_features);
        let got: f32 = b.iter().zip(a).map(|(b, a)| b * a).sum();
        assert!((got - want).abs() < 2e-5, "{row}, {column}: {got} {want}");
    }
}

fn compare_with_log(path: &Path, events: &[Event]) {
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(events.len(), 20);
    let mut worst = 0.0f64;
    for (line, event) in text.lines().zip(events) {
        let want: serde_json::Value = serde_json::from_str(line).unwrap();
        let relative = |got: f64, key: &str| {
            let want = want[key].as_f64().unwrap();
            (got - want).abs() / want.abs().max(1e-12)
        };
        worst = worst.max(relative(event.loss, "loss"));
        assert!(
            relative(event.loss, "loss") < 2e-5,
            "step {}: {} {line}",
            event.step,
            event.loss
        );
        let norm = event.grad_norm.unwrap();
        assert!(
            relative(norm, "grad_norm") < 1e-3,
            "step {}: {norm} {line}",
            event.step
        );
        let lr = want["lr"].as_f64().unwrap();
        assert!(
            (event.learning_rate.unwrap() - lr).abs() < 1e-18,
            "step {}",
            event.step
        );
    }
    println!(
        "{}: largest relative loss difference {worst:.2e}",
        path.display()
    );
}

fn compare_adapter(path: &Path, model: &Decoder) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, value) in model.params.names().iter().zip(model.params.values()) {
        let end = match name.ends_with("lora_magnitude_vector") {
            true => "",
            false => ".weight",
        };
        let tensor = file.tensor(&format!("base_model.model.{name}{end}"));
        let tensor = tensor.unwrap();
        let want = tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let got: Vec<f32> = value.clone().into_data().iter::<f32>().collect();
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 5e-5, "{name}: {got} against {want}");
        }
    }
}

#[test]
fn lora_equals_peft_step_by_step() {
    run("lora", QuantMethod::None, true);
}

#[test]
fn other_families_equal_peft_step_by_step() {
    run_on("tiny/gpt2", "lora_gpt2", QuantMethod::None, true);
    run_on("tiny/qwen3_qknorm", "lora_qwen3", QuantMethod::None, true);
    run_on("tiny/qwen3_qknorm", "lora_qwen3", QuantMethod::None, false);
}

#[test]
fn rslora_and_dora_equal_peft_step_by_step() {
    run("lora_rslora", QuantMethod::None, true);
    run("lora_dora", QuantMethod::None, true);
    run("lora_dora", QuantMethod::None, false);
}

#[test]
fn lora_equals_peft_without_recomputation() {
    run("lora", QuantMethod::None, false);
}

/// tests/python/qlora.py: PEFT over weights dequantised by the definition. The folder's
/// log of this run does not serve: rows of down_proj are no whole blocks, and there
/// bitsandbytes' CPU kernel, which made it, takes the maxima of other blocks.
#[test]
fn qlora_equals_peft_step_by_step() {
    qlora("tiny/llama_untied");
}

fn qlora(base: &str) -> Option<Vec<Event>> {
    let (method, precision) = (QuantMethod::Nf4, Precision::F32);
    let (events, model) = trained(base, "qlora", method, true, precision)?;
    near_all(&events, |e| e.loss, &fixture("qlora", "losses"), 2e-5);
    let norms = fixture("qlora", "grad_norms");
    near_all(&events, |e| e.grad_norm.unwrap(), &norms, 1e-3);
    let base = common::shared(&format!("reference/{base}"))?;
    near_change(&model.adapter(&base).unwrap(), &fixture("qlora", "change"));
    Some(events)
}

/// From the checkpoint that bitsandbytes quantised: the same bits as from the dense
/// one that is quantised while loading.
#[test]
fn qlora_from_a_quantised_checkpoint_equals_peft() {
    let (Some(a), Some(b)) = (qlora("runs/qlora/base_4bit"), qlora("tiny/llama_untied")) else {
        return;
    };
    let losses = |events: &[Event]| events.iter().map(|e| e.loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(losses(&a), losses(&b));
}

#[test]
fn recomputation_changes_no_bit() {
    let (Some((a, model_a)), Some((b, model_b))) = (
        run("lora", QuantMethod::None, true),
        run("lora", QuantMethod::None, false),
    ) else {
        return;
    };
    let losses = |events: &[Event]| events.iter().map(|e| e.loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(losses(&a), losses(&b));
    for (a, b) in model_a.params.values().iter().zip(model_b.params.values()) {
        assert_eq!(a.clone().into_data(), b.clone().into_data());
    }
}

/// Operands of 8 bits leave losses near f32's, and repeat to the bit, recomputed or not.
#[test]
fn bf16_products_train_alike() {
    for (name, method) in [("lora", QuantMethod::None), ("qlora", QuantMethod::Nf4)] {
        let base = "tiny/llama_untied";
        let run = |precision, checkpointing| {
            let (events, _) = trained(base, name, method, checkpointing, precision)?;
            Some(events.iter().map(|e| e.loss).collect::<Vec<f64>>())
        };
        let (Some(wide), Some(narrow)) = (run(Precision::F32, true), run(Precision::Bf16, true))
        else {
            return;
        };
        assert_ne!(wide, narrow);
        for (step, (wide, narrow)) in wide.iter().zip(&narrow).enumerate() {
            let off = (narrow / wide - 1.0).abs();
            assert!(off < 2e-3, "{name}, step {step}: {narrow} against {wide}");
        }
        assert_eq!(run(Precision::Bf16, false), Some(narrow));
    }
}
