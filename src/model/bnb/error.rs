//! Why a checkpoint of quantised weights cannot be used.

use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;

use crate::model::checkpoint::{Checkpoint, CheckpointError};

#[derive(Debug, Error)]
pub enum BnbError {
    #[error("{}: the weights are quantised with {found}, which cannot be read; bitsandbytes' 4-bit NF4 can. Give the dense checkpoint and set quantization=nf4, which quantises it while loading", file.display())]
    Method { file: PathBuf, found: String },
    #[error("{}: `{key}` {problem}", file.display())]
    Config {
        file: PathBuf,
        key: String,
        problem: String,
    },
    #[error("{}: tensor `{tensor}` {problem}; copy the checkpoint again, or quantise the dense one (run quantize)", file.display())]
    Weight {
        file: PathBuf,
        tensor: String,
        problem: String,
    },
    #[error("{}: holds NF4 weights, but its config.json has no quantization_config; copy config.json again from the same place as the weights", dir.display())]
    NoConfig { dir: PathBuf },
    #[error("{}: the weights are quantised to NF4 already, so quantization=none cannot have them dense: leave quantization=nf4, give the dense checkpoint, or write a dense one with `run merge`", dir.display())]
    NotDense { dir: PathBuf },
    #[error("{}: method=full trains every weight, which quantised weights cannot be: give the dense checkpoint, or use method=lora quantization=nf4", dir.display())]
    Full { dir: PathBuf },
    #[error("{}: the weights are quantised to NF4 already, but lora.init_lora_weights={init} begins with dense ones: give the dense checkpoint, or use lora.init_lora_weights=true", dir.display())]
    Start { dir: PathBuf, init: String },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl BnbError {
    /// That a tensor of `checkpoint` is not as it must be.
    pub(super) fn weight(checkpoint: &Checkpoint, tensor: &str, problem: String) -> Self {
        BnbError::Weight {
            file: checkpoint.file_of(tensor).to_path_buf(),
            tensor: tensor.to_string(),
            problem,
        }
    }
}

/// What a value of JSON is.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The beginning of a text that may be long.
pub(super) fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}
