//! The layout in which transformers stores bitsandbytes NF4 weights, in and out:
//! `quantization_config` in config.json, and for each weight `X` the tensors `X`
//! (two levels a byte), `X.absmax`, `X.quant_map`, with double quantisation
//! `X.nested_absmax` and `X.nested_quant_map`, and `X.quant_state.bitsandbytes__nf4`,
//! whose bytes are JSON. Codes and scales are taken over as they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::bnb_names::{STATE, is_quantised};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::hf_config::ArchConfig;
use crate::config::types::{Method, QuantMethod, QuantizationConfig};
use crate::ops::nf4::{Absmax, BLOCK_SIZES, CODE, NESTED_BLOCK, Nf4, dynamic_map};

/// A state is a line of JSON; more is no state.
const MAX_STATE_BYTES: usize = 1 << 16;

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
                        return Err(weight_error(&checkpoint, &parameter.name, problem));
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

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Type that the weight `name` had before it was quantised, e.g. `bfloat16`.
pub(super) fn dense_type(checkpoint: &Checkpoint, name: &str) -> Result<Dtype, BnbError> {
    Ok(State::read(checkpoint, name)?.dtype)
}

/// Reads the NF4 weight `name` of `[out, in]`: its bytes and scales as they are.
///
/// # Errors
/// A part that is missing, of another type or length, or scales that are not
/// finite numbers.
pub fn read(checkpoint: &Checkpoint, name: &str, shape: [usize; 2]) -> Result<Nf4, BnbError> {
    let parts = Parts::find(checkpoint, name, shape)?;
    let weight = Nf4 {
        packed: checkpoint.bytes(name).unwrap_or_default().to_vec(),
        absmax: parts.absmax()?,
        block_size: parts.state.block_size,
        shape,
    };
    checkpoint.release(name);
    Ok(weight)
}

/// As [`read`]; `None` where the checkpoint holds the weight dense.
pub(super) fn held(
    checkpoint: &Checkpoint,
    name: &str,
    shape: [usize; 2],
) -> Result<Option<Nf4>, BnbError> {
    match is_quantised(checkpoint, name) {
        true => read(checkpoint, name, shape).map(Some),
        false => Ok(None),
    }
}

/// A tensor in f32, dequantised where need be: embeddings and heads, which
/// transformers leaves dense unless told otherwise.
pub(super) fn tensor_f32(
    checkpoint: &Checkpoint,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, BnbError> {
    match *shape {
        [rows, columns] if is_quantised(checkpoint, name) => {
            let weight = read(checkpoint, name, [rows, columns])?;
            let mut values = vec![0.0; weight.numel()];
            weight.dequantize_into(&mut values);
            Ok(values)
        }
        _ => Ok(checkpoint.tensor_f32(name, shape)?),
    }
}

/// The JSON of `quant_state`, checked.
struct State {
    block_size: usize,
    shape: Vec<u64>,
    dtype: Dtype,
    /// Block size and offset of double quantisation.
    nested: Option<(usize, f32)>,
}

impl State {
    fn read(checkpoint: &Checkpoint, name: &str) -> Result<Self, BnbError> {
        let tensor = format!("{name}.{STATE}");
        let error = |problem: String| weight_error(checkpoint, &tensor, problem);
        let bytes =
            checkpoint
                .bytes(&tensor)
                .ok_or_else(|| match is_quantised(checkpoint, name) {
                    true => weight_error(
                        checkpoint,
                        name,
                        "is quantised to fp4, which cannot be read".into(),
                    ),
                    false => error("is missing".into()),
                })?;
        if bytes.len() > MAX_STATE_BYTES {
            return Err(error(format!(
                "has {} bytes, too many for a state",
                bytes.len()
            )));
        }
        let object: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|e| error(format!("is not a JSON object: {e}")))?;
        let field = |key: &str| {
            let value = object.get(key).filter(|value| !value.is_null());
            value.ok_or_else(|| error(format!("has no `{key}`")))
        };
        let text = |key: &str| {
            let value = field(key)?;
            value
                .as_str()
                .ok_or_else(|| error(format!("has a `{key}` that is {}", kind(value))))
        };
        match text("quant_type")? {
            "nf4" => {}
            other => {
                return Err(error(format!(
                    "says quant_type `{}`; only nf4 can be read",
                    brief(other)
                )));
            }
        }
        let dtype = match text("dtype")? {
            "float32" => Dtype::F32,
            "float16" => Dtype::F16,
            "bfloat16" => Dtype::BF16,
            other => {
                return Err(error(format!(
                    "says dtype `{}`, which no weight has",
                    brief(other)
                )));
            }
        };
        let block_size = field("blocksize")?
            .as_u64()
            .and_then(|n| usize::try_from(n).ok());
        let block_size = block_size
            .filter(|n| BLOCK_SIZES.contains(n))
            .ok_or_else(|| error(format!("has a `blocksize` that is none of {BLOCK_SIZES:?}")))?;
        let shape: Option<Vec<u64>> = field("shape")?
            .as_array()
            .filter(|list| list.len() <= 8)
            .and_then(|list| list.iter().map(Value::as_u64).collect());
        let shape = shape.ok_or_else(|| error("has a `shape` that is no list of sizes".into()))?;
        let nested = match object.contains_key("nested_blocksize") {
            false => None,
            true => {
                let size = field("nested_blocksize")?
                    .as_u64()
                    .filter(|n| (1..=1 << 20).contains(n));
                let size = size.ok_or_else(|| {
                    error("has a `nested_blocksize` that is no size of blocks".into())
                })?;
                if text("nested_dtype")? != "float32" {
                    return Err(error("has a `nested_dtype` other than float32".into()));
                }
                let offset = field("nested_offset")?.as_f64().map(|x| x as f32);
                let offset = offset.filter(|x| x.is_finite());
                let offset = offset.ok_or_else(|| {
                    error("has a `nested_offset` that is no finite number".into())
                })?;
                Some((size as usize, offset))
            }
        };
        Ok(Self {
            block_size,
            shape,
            dtype,
            nested,
        })
    }
}

fn weight_error(checkpoint: &Checkpoint, tensor: &str, problem: String) -> BnbError {
    BnbError::Weight {
        file: checkpoint.file_of(tensor).to_path_buf(),
        tensor: tensor.to_string(),
        problem,
    }
}

/// The tensors of one weight, their lengths checked.
struct Parts<'c> {
    checkpoint: &'c Checkpoint,
    name: &'c str,
    state: State,
}

impl<'c> Parts<'c> {
    fn find(
        checkpoint: &'c Checkpoint,
        name: &'c str,
        shape: [usize; 2],
    ) -> Result<Self, BnbError> {
        let state = State::read(checkpoint, name)?;
        let parts = Self {
            checkpoint,
            name,
            state,
        };
        if parts.state.shape != shape.map(|n| n as u64) {
            return Err(parts.error(
                STATE,
                format!(
                    "says shape {:?}, but config.json asks for {shape:?}",
                    parts.state.shape
                ),
            ));
        }
        // config.json's sizes are bounded, so that this cannot overflow.
        let numel = shape[0] * shape[1];
        let packed = checkpoint.bytes(name).map_or(0, <[u8]>::len);
        if packed != numel.div_ceil(2) {
            let problem = format!(
                "has {packed} bytes; {shape:?} takes {} in NF4",
                numel.div_ceil(2)
            );
            return Err(weight_error(checkpoint, name, problem));
        }
        let blocks = numel.div_ceil(parts.state.block_size);
        match parts.state.nested {
            None => parts.expect("absmax", Dtype::F32, blocks)?,
            Some((size, _)) => {
                parts.expect("absmax", Dtype::U8, blocks)?;
                parts.expect("nested_absmax", Dtype::F32, blocks.div_ceil(size))?;
                parts.expect("nested_quant_map", Dtype::F32, 256)?;
            }
        }
        parts.expect("quant_map", Dtype::F32, 16)?;
        Ok(parts)
    }

    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    fn error(&self, part: &str, problem: String) -> BnbError {
        weight_error(self.checkpoint, &self.key(part), problem)
    }

    fn expect(&self, part: &str, dtype: Dtype, elements: usize) -> Result<(), BnbError> {
        let key = self.key(part);
        let found = self.checkpoint.dtype(&key).zip(self.checkpoint.shape(&key));
        match found {
            None => Err(self.error(part, "is missing".into())),
            Some((found, shape)) if found != dtype || shape != [elements] => Err(self.error(
                part,
                format!("is {found} of {shape:?} instead of {dtype} of [{elements}]"),
            )),
            Some(_) => Ok(()),
        }
    }

    fn floats(&self, part: &str) -> Result<Vec<f32>, BnbError> {
        let bytes = self.checkpoint.bytes(&self.key(part)).unwrap_or_default();
        let values: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.error(part, format!("holds NaN or infinity (element {at})"))),
        }
    }

    fn absmax(&self) -> Result<Absmax, BnbError> {
        if bits(&self.floats("quant_map")?) != bits(&CODE) {
            return Err(self.error("quant_map", "holds other levels than those of NF4".into()));
        }
        let Some((size, offset)) = self.state.nested else {
            return Ok(Absmax::Plain(self.floats("absmax")?));
        };
        let codes = self
            .checkpoint
            .bytes(&self.key("absmax"))
            .unwrap_or_default();
        let nested_absmax = self.floats("nested_absmax")?;
        let map = self.floats("nested_quant_map")?;
        if size == NESTED_BLOCK && bits(&map) == bits(dynamic_map()) {
            return Ok(Absmax::Double {
                codes: codes.to_vec(),
                nested_absmax,
                offset,
            });
        }
        // Another 8-bit type: the maxima it stands for, in f32.
        let maxima = codes.iter().enumerate();
        let maxima =
            maxima.map(|(block, code)| map[*code as usize] * nested_absmax[block / size] + offset);
        Ok(Absmax::Plain(maxima.collect()))
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A tensor that stands for a quantised weight in a file.
pub(super) struct Stored {
    /// After the weight's name, with the dot; empty for the packed levels.
    pub suffix: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The shape is an upper bound: the state's length depends on its numbers.
    pub bound: bool,
}

/// The tensors that [`stored_bytes`] gives for a weight, known from its shape.
pub(super) fn stored(
    shape: [usize; 2],
    dtype: Dtype,
    block_size: usize,
    double: bool,
) -> Vec<Stored> {
    let numel = shape[0] * shape[1];
    let blocks = numel.div_ceil(block_size);
    let part = |suffix, dtype, shape: &[usize]| Stored {
        suffix,
        dtype,
        shape: shape.to_vec(),
        bound: false,
    };
    let mut all = vec![
        part("", Dtype::U8, &[numel.div_ceil(2), 1]),
        part(
            ".absmax",
            if double { Dtype::U8 } else { Dtype::F32 },
            &[blocks],
        ),
        part(".quant_map", Dtype::F32, &[16]),
    ];
    if double {
        all.push(part(
            ".nested_absmax",
            Dtype::F32,
            &[blocks.div_ceil(NESTED_BLOCK)],
        ));
        all.push(part(".nested_quant_map", Dtype::F32, &[256]));
    }
    // The longest float is one of 17 digits with sign, point and exponent.
    let longest = state_json(
        shape,
        dtype,
        block_size,
        double.then_some(f32::MIN_POSITIVE),
    )
    .len()
        + 24;
    all.push(Stored {
        suffix: ".quant_state.bitsandbytes__nf4",
        dtype: Dtype::U8,
        shape: vec![longest],
        bound: true,
    });
    all
}

/// The bytes of each tensor of [`stored`], in the same order.
pub(super) fn stored_bytes(weight: &Nf4, dtype: Dtype) -> Vec<std::borrow::Cow<'_, [u8]>> {
    let floats =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let mut all = vec![weight.packed.as_slice().into()];
    let offset = match &weight.absmax {
        Absmax::Plain(maxima) => {
            all.push(floats(maxima).into());
            all.push(floats(&CODE).into());
            None
        }
        Absmax::Double {
            codes,
            nested_absmax,
            offset,
        } => {
            all.push(codes.as_slice().into());
            all.push(floats(&CODE).into());
            all.push(floats(nested_absmax).into());
            all.push(floats(dynamic_map()).into());
            Some(*offset)
        }
    };
    let state = state_json(weight.shape, dtype, weight.block_size, offset);
    all.push(state.into_bytes().into());
    all
}

/// The state as Python's `json.dumps` writes it.
fn state_json(shape: [usize; 2], dtype: Dtype, block_size: usize, offset: Option<f32>) -> String {
    let [rows, columns] = shape;
    let dtype = torch_name(dtype);
    let mut text = format!(
        "{{\"quant_type\": \"nf4\", \"blocksize\": {block_size}, \"dtype\": \"{dtype}\", \
         \"shape\": [{rows}, {columns}]"
    );
    if let Some(offset) = offset {
        text += &format!(
            ", \"nested_blocksize\": {NESTED_BLOCK}, \"nested_dtype\": \"float32\", \
             \"nested_offset\": {}",
            python_float(f64::from(offset))
        );
    }
    text + "}"
}

/// torch's name of a floating-point type.
pub(super) fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// A number as Python's `repr` writes it: the shortest digits, an exponent below
/// 1e-4 and from 1e16.
fn python_float(x: f64) -> String {
    let text = format!("{x:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        // Rust's `{:?}` goes on without an exponent in this range.
        _ => format!("{x:?}"),
    }
}

/// `quantization_config` as transformers writes it for these settings.
pub(super) fn config_json(double: bool, compute_dtype: &str) -> Value {
    json!({
        "_load_in_4bit": true,
        "_load_in_8bit": false,
        "bnb_4bit_compute_dtype": compute_dtype,
        "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "llm_int8_enable_fp32_cpu_offload": false,
        "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": null,
        "llm_int8_threshold": 6.0,
        "load_in_4bit": true,
        "load_in_8bit": false,
        "quant_method": "bitsandbytes",
    })
}

#[cfg(test)]
#[path = "bnb_tests.rs"]
mod tests;
