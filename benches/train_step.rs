//! Training throughput of one shape: loads an HF directory, runs steps on random
//! tokens and prints one JSON line with wall time, CPU time and peak memory.
//!
//! `cargo bench --bench train_step -- --dir DIR [--quantization nf4] [--steps 4]
//! [--batch 4] [--seq 256] [--checkpointing true] [--init random] [--bf16 true]`
//!
//! One measurement a process, since peak memory is counted by process. The peer
//! is benches/peft_train.py on the same directory; benches/train.sh runs both.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use common::{cpu_seconds, defaults, options, precision};
use kiln::config::types::{LoraConfig, ModelInit, QuantMethod, QuantizationConfig, TargetModules};
use kiln::experiment::metrics::peak_memory_bytes;
use kiln::model::{Adaptation, Grads, Keep, LoadOptions, Ragged, StepOptions, load};
use kiln::rng::Stream;
use kiln::train::Optimizer;

fn main() {
    kiln::device::keep_freed_memory();
    kiln::device::compute_here().expect("threads");
    let given = options();
    let options: HashMap<&str, &str> = given
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let number = |name: &str, default: usize| -> usize {
        options
            .get(name)
            .map_or(default, |v| v.parse().expect("a number"))
    };
    let Some(dir) = options.get("dir") else {
        println!("usage: cargo bench --bench train_step -- --dir DIR; see the head of the file");
        return;
    };
    let nf4 = options.get("quantization") == Some(&"nf4");
    let checkpointing = options.get("checkpointing") != Some(&"false");
    let keep = match checkpointing {
        true => Keep::Inputs,
        false => Keep::Tapes,
    };
    let (steps, batch, seq) = (number("steps", 4), number("batch", 4), number("seq", 256));

    let lora = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        target_modules: TargetModules::Named("all-linear".into()),
        ..defaults().lora
    };
    let began = Instant::now();
    let mut model = load(&LoadOptions {
        dir: &PathBuf::from(dir),
        init: match options.get("init") {
            Some(&"random") => ModelInit::Random,
            _ => ModelInit::Pretrained,
        },
        quantization: &QuantizationConfig {
            method: if nf4 {
                QuantMethod::Nf4
            } else {
                QuantMethod::None
            },
            double_quant: true,
            block_size: 64,
        },
        adaptation: Adaptation::Lora(&lora),
        seed: 42,
        device: &burn::tensor::Device::flex(),
        precision: precision(&given),
    })
    .expect("the model loads");
    let load_s = began.elapsed().as_secs_f64();
    model.reserve_positions(seq);
    let random = Stream::new(1, &[]);
    let mut ragged = Ragged::default();
    for b in 0..batch {
        let id =
            |t: usize| 3 + random.bits((b * seq + t) as u64) % (model.arch.vocab_size as u64 - 3);
        let ids: Vec<u32> = (0..seq).map(|t| id(t) as u32).collect();
        let labels: Vec<i64> = ids.iter().map(|i| i64::from(*i)).collect();
        ragged.push_labelled(&ids, &labels);
    }
    let training = kiln::config::types::TrainingConfig {
        learning_rate: 1e-4,
        ..defaults().training
    };
    let mut optimizer = Optimizer::new(&model.params, training.optimizer);
    let (mut wall, mut cpu, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=steps {
        let (w, c) = (Instant::now(), cpu_seconds());
        let mut grads = Grads::new(&model.params);
        let step = StepOptions {
            scale: 1.0 / ragged.rows.len() as f32,
            keep,
            dropout: None,
        };
        let loss = model.loss_backward(&ragged, step, &mut grads);
        let ops = model.ops();
        optimizer.step(ops, &mut model.params, grads, &training, 1e-4);
        wall.push(w.elapsed().as_secs_f64());
        cpu.push(cpu_seconds() - c);
        losses.push(loss.value() / ragged.rows.len() as f64);
    }
    // The first step warms up.
    let median = |values: &[f64]| {
        let mut sorted = values[1..].to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let tokens = (batch * seq) as f64;
    let report = serde_json::json!({
        "side": "kiln",
        "mode": if nf4 { "qlora" } else { "lora" },
        "precision": format!("{:?}", precision(&given)),
        "checkpointing": checkpointing,
        "threads": rayon::current_num_threads(),
        "load_s": load_s,
        "step_s": median(&wall),
        "tokens_per_s": tokens / median(&wall),
        "tokens_per_cpu_s": tokens / median(&cpu),
        "peak_rss_mib": peak_memory_bytes().unwrap_or(0) / (1 << 20),
        "loss": losses,
    });
    println!("{report}");
}
