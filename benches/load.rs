//! What loading a checkpoint costs: reads and quantises an HF directory as
//! training does and prints one JSON line with wall time, CPU time, peak memory,
//! the bytes the model then holds, and the largest tensor in f32.
//!
//! `cargo bench --bench load -- --dir DIR [--quantization nf4|none]`
//!
//! benches/load.py makes the checkpoint, runs this and puts `cat` beside it.

mod common;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use common::{cpu_seconds, options};
use kiln::config::types::{ModelInit, QuantMethod, QuantizationConfig};
use kiln::experiment::metrics::peak_memory_bytes;
use kiln::model::{Adaptation, LoadOptions, load};

fn main() {
    kiln::device::keep_freed_memory();
    kiln::device::compute_here().expect("threads");
    let given = options();
    let options: HashMap<&str, &str> = given
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let Some(dir) = options.get("dir").map(PathBuf::from) else {
        println!("usage: cargo bench --bench load -- --dir DIR; see the head of the file");
        return;
    };
    let quantization = QuantizationConfig {
        method: match options.get("quantization") {
            Some(&"none") => QuantMethod::None,
            _ => QuantMethod::Nf4,
        },
        double_quant: true,
        block_size: 64,
    };
    let before = peak_memory_bytes().unwrap_or(0);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let model = load(&LoadOptions {
        dir: &dir,
        init: ModelInit::Pretrained,
        quantization: &quantization,
        adaptation: Adaptation::None,
        seed: 1,
        device: &burn::tensor::Device::flex(),
        precision: kiln::ops::Precision::F32,
    })
    .expect("the checkpoint loads");
    let (wall, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let sizes = model.arch.parameters().into_iter().map(|p| 4 * p.numel());
    let (largest, dense) = (sizes.clone().max().unwrap_or(0), sizes.sum::<usize>());
    // NF4 with double quantisation: half a byte a weight, a byte for 64, a float for 16384.
    let saved = |n: usize| 4 * n - n / 2 - n.div_ceil(64) - 4 * n.div_ceil(64 * 256);
    let linears = model
        .arch
        .linears()
        .into_iter()
        .map(|l| l.out_features * l.in_features);
    let held = match quantization.method {
        QuantMethod::Nf4 => dense - linears.map(saved).sum::<usize>(),
        QuantMethod::None => dense,
    };
    println!(
        "{}",
        serde_json::json!({
            "wall_s": wall,
            "cpu_s": cpu,
            "peak_bytes": peak_memory_bytes(),
            "peak_before_bytes": before,
            "held_bytes": held,
            "largest_tensor_bytes": largest,
        })
    );
}
