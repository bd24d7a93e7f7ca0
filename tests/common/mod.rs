//! Helpers that several integration tests share.
#![allow(dead_code)] // Each test binary uses some of them.

pub mod paged;
pub mod place;
pub mod sandbox;
pub mod server;
pub mod writer;
pub mod xml;

use std::path::{Path, PathBuf};

use kiln::config::types::{Optimizer, QuantMethod, QuantizationConfig, Scheduler, TrainingConfig};

/// The reference folder beside the project, or `None` with a printed reason.
pub fn shared(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(part);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: the reference folder ../shared/{part} is not here");
    None
}

pub fn quantization(method: QuantMethod) -> QuantizationConfig {
    QuantizationConfig {
        method,
        double_quant: true,
        block_size: 64,
    }
}

/// The settings of the reference runs: 2 x 2 sequences a step, cosine with 3
/// warmup steps, weight decay 0.01.
pub fn reference_training(checkpointing: bool) -> TrainingConfig {
    TrainingConfig {
        max_steps: Some(20),
        batch_size: 2,
        gradient_accumulation_steps: 2,
        learning_rate: 1e-4,
        warmup_steps: Some(3),
        scheduler: Scheduler::Cosine,
        optimizer: Optimizer::Adamw,
        weight_decay: 0.01,
        gradient_checkpointing: checkpointing,
        shuffle: false,
        logging_steps: 1,
        ..default_config().training
    }
}

/// The built-in defaults of every key.
pub fn default_config() -> kiln::config::Config {
    let tree = kiln::compose::Node {
        value: kiln::compose::Value::Map(kiln::compose::Map::new()),
        origin: kiln::compose::Origin::BuiltIn,
    };
    kiln::config::from_tree(&tree).expect("the defaults are valid")
}
