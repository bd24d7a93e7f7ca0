//! Generation throughput of one shape: loads an HF directory, continues random
//! prompts greedily with a KV cache and prints one JSON line.
//!
//! `cargo bench --bench generate -- --dir DIR [--quantization nf4] [--batch 1]
//! [--prompt 64] [--new 64] [--rounds 3] [--bf16 true]`
//!
//! The peer is benches/generate.py on the same directory; benches/generate.sh runs
//! both.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use common::{cpu_seconds, defaults, options, precision};
use kiln::config::types::{ModelInit, QuantMethod, QuantizationConfig};
use kiln::generate::sampling::Sampler;
use kiln::generate::{GenerateOptions, Prompt, generate};
use kiln::model::{Adaptation, LoadOptions, load};
use kiln::rng::Stream;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    kiln::device::keep_freed_memory();
    kiln::device::compute_here().expect("threads");
    let given = options();
    let options: HashMap<&str, &str> = given
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let number = |name: &str, default: usize| -> usize {
        let given = options.get(name);
        given.map_or(default, |v| v.parse().expect("a number"))
    };
    let Some(dir) = options.get("dir") else {
        println!("usage: cargo bench --bench generate -- --dir DIR; see the head of the file");
        return;
    };
    let nf4 = options.get("quantization") == Some(&"nf4");
    let (batch, prompt, new) = (number("batch", 1), number("prompt", 64), number("new", 64));
    let mut model = load(&LoadOptions {
        dir: &PathBuf::from(dir),
        init: ModelInit::Pretrained,
        quantization: &QuantizationConfig {
            method: if nf4 {
                QuantMethod::Nf4
            } else {
                QuantMethod::None
            },
            double_quant: true,
            block_size: 64,
        },
        adaptation: Adaptation::None,
        seed: 42,
        device: &burn::tensor::Device::flex(),
        precision: precision(&given),
    })
    .expect("the model loads");
    let random = Stream::new(7, &[]);
    let vocab = model.arch.vocab_size as u64;
    let ids: Vec<Vec<u32>> = (0..batch)
        .map(|row| {
            let id = |i| (random.bits((row * prompt + i) as u64) % vocab) as u32;
            (0..prompt).map(id).collect()
        })
        .collect();
    let mut inference = defaults().inference;
    inference.do_sample = false;
    let options = GenerateOptions {
        max_new_tokens: new,
        sampler: Sampler::new(&inference).expect("greedy is valid"),
        beams: None,
        eos_ids: Vec::new(),
        seed: 42,
        adapter: true,
        slots: batch,
    };
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..number("rounds", 3) + 1 {
        let prompts = ids.iter().enumerate().map(|(i, ids)| Prompt {
            ids,
            key: [i as u64, 0],
        });
        let prompts: Vec<Prompt<'_>> = prompts.collect();
        let (began, cpu) = (Instant::now(), cpu_seconds());
        let out = generate(&mut model, &prompts, &options, &|_| false).expect("finite logits");
        assert!(out.iter().all(|tokens| tokens.len() == new));
        walls.push(began.elapsed().as_secs_f64());
        cpus.push(cpu_seconds() - cpu);
    }
    // The first round warms up.
    let tokens = (batch * new) as f64;
    println!(
        "{}",
        serde_json::json!({
            "side": "kiln",
            "mode": if nf4 { "nf4" } else { "dense" },
            "precision": format!("{:?}", precision(&given)),
            "batch": batch,
            "threads": rayon::current_num_threads(),
            "tokens_per_s": tokens / median(walls.split_off(1)),
            "tokens_per_cpu_s": tokens / median(cpus.split_off(1)),
        })
    );
}
