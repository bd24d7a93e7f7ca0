//! A weight as bitsandbytes stores it in NF4: for each weight `X` the tensors `X`
//! (two levels a byte), `X.absmax`, `X.quant_map`, with double quantisation
//! `X.nested_absmax` and `X.nested_quant_map`, and `X.quant_state.bitsandbytes__nf4`,
//! whose bytes are JSON. Codes and scales are taken over as they are.

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::error::{BnbError, brief, kind};
use super::names::{STATE, is_quantised};
use crate::model::checkpoint::Checkpoint;
use crate::ops::nf4::{Absmax, BLOCK_SIZES, CODE, NESTED_BLOCK, Nf4, dynamic_map};

/// A state is a line of JSON; more is no state.
pub(super) const MAX_STATE_BYTES: usize = 1 << 16;

/// Type that the weight `name` had before it was quantised, e.g. `bfloat16`.
pub(in crate::model) fn dense_type(checkpoint: &Checkpoint, name: &str) -> Result<Dtype, BnbError> {
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
pub(in crate::model) fn held(
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
pub(in crate::model) fn tensor_f32(
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
pub(super) struct State {
    pub(super) block_size: usize,
    shape: Vec<u64>,
    dtype: Dtype,
    /// Block size and offset of double quantisation.
    nested: Option<(usize, f32)>,
}

impl State {
    pub(super) fn read(checkpoint: &Checkpoint, name: &str) -> Result<Self, BnbError> {
        let tensor = format!("{name}.{STATE}");
        let error = |problem: String| BnbError::weight(checkpoint, &tensor, problem);
        let bytes =
            checkpoint
                .bytes(&tensor)
                .ok_or_else(|| match is_quantised(checkpoint, name) {
                    true => BnbError::weight(
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

/// The tensors of one weight, their lengths checked.
pub(super) struct Parts<'c> {
    checkpoint: &'c Checkpoint,
    name: &'c str,
    state: State,
}

impl<'c> Parts<'c> {
    pub(super) fn find(
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
            return Err(BnbError::weight(checkpoint, name, problem));
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
        BnbError::weight(self.checkpoint, &self.key(part), problem)
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
