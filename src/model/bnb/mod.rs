//! Checkpoints whose weights transformers stored in bitsandbytes' NF4: what their
//! `quantization_config` says, and whether their tensors are there.

mod error;
pub(super) mod names;
mod read;
mod write;

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::config::types::{Method, QuantMethod, QuantizationConfig};
use crate::model::checkpoint::{Checkpoint, CheckpointError};
use crate::model::hf_config::ArchConfig;

pub use error::BnbError;
pub use read::read;
pub(super) use read::{dense_type, held, tensor_f32};
pub(super) use write::{config_json, stored, stored_bytes, torch_name};

use error::{brief, kind};
use names::{STATE, is_quantised};
use read::{Parts, State};

/// What a pre-quantised checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreQuantized {
    /// Weights that share one scale, as the first quantised weight has it.
    pub block_size: usize,
    pub double_quant: bool,
}

impl PreQuantized {
    /// Reads `dir`'s config.json and the header of its weights; `None` where they
    /// are dense.
    ///
    /// # Errors
    /// Another quantisation than NF4, or weights that contradict config.json.
    pub fn of_dir(dir: &Path) -> Result<Option<Self>, BnbError> {
        match config_of(dir)? {
            None => Ok(None),
            Some(double_quant) => Self::of(&Checkpoint::open(dir)?, dir, double_quant).map(Some),
        }
    }

    fn of(checkpoint: &Checkpoint, dir: &Path, double_quant: bool) -> Result<Self, BnbError> {
        let suffix = format!(".{STATE}");
        let name = checkpoint
            .names()
            .find_map(|name| name.strip_suffix(&suffix));
        let Some(name) = name else {
            return Err(BnbError::Config {
                file: dir.join("config.json"),
                key: "quantization_config".into(),
                problem: format!(
                    "promises NF4 weights, but no tensor of the checkpoint has a {STATE}; was it \
                     quantised with another method?"
                ),
            });
        };
        let state = State::read(checkpoint, name)?;
        Ok(Self {
            block_size: state.block_size,
            double_quant,
        })
    }
}

/// Puts what a checkpoint that is quantised already says of itself into
/// `settings`, and returns them; `None` where it is dense.
///
/// # Errors
/// Another quantisation than NF4, or a config that asks for dense weights.
pub fn settle(
    dir: &Path,
    method: Method,
    settings: &mut QuantizationConfig,
) -> Result<Option<QuantizationConfig>, BnbError> {
    let Some(found) = PreQuantized::of_dir(dir)? else {
        return Ok(None);
    };
    let dir = dir.to_path_buf();
    match (method, settings.method) {
        (Method::Full, _) => return Err(BnbError::Full { dir }),
        (Method::Lora, QuantMethod::None) => return Err(BnbError::NotDense { dir }),
        (Method::Lora, QuantMethod::Nf4) => {}
    }
    settings.block_size = found.block_size;
    settings.double_quant = found.double_quant;
    Ok(Some(settings.clone()))
}

/// Opens the weights in `dir`, checks that they are those of `arch`, and tells
/// whether they are quantised.
///
/// # Errors
/// A tensor that is missing or does not fit; another quantisation than NF4.
pub fn open(dir: &Path, arch: &ArchConfig) -> Result<(Checkpoint, Option<PreQuantized>), BnbError> {
    let double_quant = config_of(dir)?;
    let checkpoint = Checkpoint::open_for(dir, arch)?;
    let Some(double_quant) = double_quant else {
        if checkpoint.names().any(|name| name.ends_with(STATE)) {
            let dir = dir.to_path_buf();
            return Err(BnbError::NoConfig { dir });
        }
        return Ok((checkpoint, None));
    };
    // `[out, in]`, also where the dense checkpoint has it the other way (Conv1D).
    let linears: HashMap<String, [usize; 2]> = arch
        .linears()
        .into_iter()
        .map(|l| (l.module, [l.out_features, l.in_features]))
        .collect();
    for parameter in arch.parameters() {
        let Some(module) = parameter.name.strip_suffix(".weight") else {
            continue;
        };
        if is_quantised(&checkpoint, &parameter.name) {
            let shape = match linears.get(module) {
                Some(shape) => *shape,
                None => match parameter.shape[..] {
                    [rows, columns] => [rows, columns],
                    _ => {
                        let problem = "is quantised, but no matrix".into();
                        return Err(BnbError::weight(&checkpoint, &parameter.name, problem));
                    }
                },
            };
            Parts::find(&checkpoint, &parameter.name, shape)?;
        }
    }
    let found = PreQuantized::of(&checkpoint, dir, double_quant)?;
    Ok((checkpoint, Some(found)))
}

/// What `dir`'s config.json says of double quantisation; `None` for dense weights.
fn config_of(dir: &Path) -> Result<Option<bool>, BnbError> {
    let file = dir.join("config.json");
    let text = std::fs::read_to_string(&file).map_err(|source| CheckpointError::Io {
        file: file.clone(),
        source,
    })?;
    // What else the file holds, and whether it is JSON, is judged by its own reader.
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    read_config(config.get("quantization_config"), &file)
}

/// Whether `quantization_config` asks for double quantisation; `None` without one.
fn read_config(value: Option<&Value>, file: &Path) -> Result<Option<bool>, BnbError> {
    let object = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(object)) => object,
        Some(other) => {
            return Err(BnbError::Config {
                file: file.to_path_buf(),
                key: "quantization_config".into(),
                problem: format!("is {}; it must be an object", kind(other)),
            });
        }
    };
    let flag = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(BnbError::Config {
            file: file.to_path_buf(),
            key: format!("quantization_config.{key}"),
            problem: format!("is {}; it must be true or false", kind(other)),
        }),
    };
    let other = |found: String| BnbError::Method {
        file: file.to_path_buf(),
        found,
    };
    let (four, eight) = (flag("load_in_4bit")?, flag("load_in_8bit")?);
    match object.get("quant_method").and_then(Value::as_str) {
        Some("bitsandbytes") => {}
        None if four || eight => {}
        Some(name) => return Err(other(brief(name))),
        None => return Err(other("an unnamed method".into())),
    }
    if eight {
        return Err(other("bitsandbytes' 8-bit LLM.int8".into()));
    }
    if !four {
        return Err(other("bitsandbytes, but neither in 4 nor in 8 bits".into()));
    }
    // bitsandbytes' own default is fp4.
    let kind_of_4 = object.get("bnb_4bit_quant_type").and_then(Value::as_str);
    match kind_of_4.unwrap_or("fp4") {
        "nf4" => flag("bnb_4bit_use_double_quant").map(Some),
        name => Err(other(format!("bitsandbytes' 4-bit {}", brief(name)))),
    }
}

#[cfg(test)]
mod tests;
