//! From one checkpoint to another, a tensor at a time: quantised to NF4, or with
//! an adapter merged in. Memory holds the tensor at hand and what it becomes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::{Map, Value};
use thiserror::Error;

use super::bnb::names::is_quantised;
use super::bnb::{self, BnbError, PreQuantized};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::export::{ExportError, write_text};
use super::gguf_error::GgufError;
use super::hf_config::{ArchConfig, ConfigError, Linear, Parameter};
use super::load::transpose;
use super::lora_modules::lora_modules;
use super::peft::{Adapter, LoraTensors, PeftError};
use super::shards::{Shard, Sink, Spec, Written, write};
use super::start::Start;
use crate::config::types::{LoraConfig, QuantMethod, QuantizationConfig};
use crate::ops::nf4;

#[derive(Debug, Error)]
pub enum RewriteError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Bnb(#[from] BnbError),
    #[error(transparent)]
    Peft(#[from] PeftError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("{}: is quantised to NF4 already; give the dense checkpoint", dir.display())]
    Quantised { dir: PathBuf },
    #[error("quantization.method=none: there is nothing to quantise to; use quantization=nf4")]
    NoMethod,
}

/// Type of a tensor in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    F32,
    F16,
    Bf16,
}

impl StoredType {
    fn safetensors(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }

    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    /// torch's name, as config.json has it.
    pub fn torch(self) -> &'static str {
        bnb::torch_name(self.safetensors())
    }
}

/// A checkpoint that is read to be written anew.
pub struct Base {
    pub dir: PathBuf,
    pub arch: ArchConfig,
    /// Where its weights are quantised already.
    pub quantised: Option<PreQuantized>,
    checkpoint: Checkpoint,
    /// config.json as it stands.
    config: Map<String, Value>,
    /// Weights that quantisation takes: the linears of the decoder layers.
    linears: BTreeMap<String, Linear>,
}

impl Base {
    /// Opens a checkpoint and checks its headers.
    ///
    /// # Errors
    /// Names the file and tensor that cannot be used.
    pub fn open(dir: &Path) -> Result<Self, RewriteError> {
        let arch = ArchConfig::from_dir(dir)?;
        let (checkpoint, quantised) = bnb::open(dir, &arch)?;
        let file = dir.join("config.json");
        let text = std::fs::read_to_string(&file)
            .map_err(|source| CheckpointError::Io { file, source })?;
        let linears = arch.linears().into_iter();
        Ok(Self {
            dir: dir.to_path_buf(),
            linears: linears.map(|l| (l.weight().name, l)).collect(),
            // ArchConfig has read the same text as an object.
            config: serde_json::from_str(&text).unwrap_or_default(),
            quantised,
            checkpoint,
            arch,
        })
    }

    /// Bytes of all tensors as stored.
    pub fn bytes(&self) -> u64 {
        self.checkpoint.total_bytes()
    }

    /// Type that a tensor is stored in, or was before it was quantised.
    fn dense_type(&self, name: &str) -> Result<Dtype, RewriteError> {
        Ok(match is_quantised(&self.checkpoint, name) {
            true => bnb::dense_type(&self.checkpoint, name)?,
            false => self.checkpoint.dtype(name).unwrap_or(Dtype::F32),
        })
    }

    /// The type of most weights: that of the first linear.
    pub fn stored_type(&self) -> Result<StoredType, RewriteError> {
        let name = self.linears.keys().next().map_or("", String::as_str);
        self.dense_type(name).map(StoredType::of)
    }

    fn copy(&self, parameter: &Parameter, sink: &mut Sink<'_>) -> Result<(), RewriteError> {
        self.checkpoint
            .stream(&parameter.name, &parameter.shape, |bytes, _| {
                Ok(sink.add(bytes)?)
            })
    }

    /// Writes the checkpoint quantised to NF4 into `dir`: config.json and weights
    /// as transformers' `save_pretrained` does. `compute_type` is what transformers
    /// will compute in.
    ///
    /// # Errors
    /// See [`RewriteError`].
    pub fn write_quantised(
        &self,
        dir: &Path,
        quantization: &QuantizationConfig,
        compute_type: StoredType,
        max_bytes: u64,
    ) -> Result<Written, RewriteError> {
        self.write_nf4(dir, quantization, compute_type, max_bytes, |_| None)
    }

    /// The same with the base beside which an adapter of `lora` stands after several
    /// rounds of LoftQ; `seed` is that of the run.
    ///
    /// # Errors
    /// See [`RewriteError`].
    pub fn write_loftq(
        &self,
        dir: &Path,
        quantization: &QuantizationConfig,
        lora: &LoraConfig,
        seed: u64,
        max_bytes: u64,
    ) -> Result<Written, RewriteError> {
        let start = Start::new(lora, quantization, seed);
        let adapted = lora_modules(lora, &self.arch)?;
        let compute_type = self.stored_type()?;
        self.write_nf4(dir, quantization, compute_type, max_bytes, |linear| {
            let start = start.as_ref()?;
            let adapted = adapted.iter().any(|m| m.linear.module == linear.module);
            adapted.then_some(start)
        })
    }

    /// `start` says which linears become what LoftQ leaves of them.
    fn write_nf4<'s>(
        &self,
        dir: &Path,
        quantization: &QuantizationConfig,
        compute_type: StoredType,
        max_bytes: u64,
        start: impl Fn(&Linear) -> Option<&'s Start>,
    ) -> Result<Written, RewriteError> {
        if self.quantised.is_some() {
            return Err(RewriteError::Quantised {
                dir: self.dir.clone(),
            });
        }
        if quantization.method == QuantMethod::None {
            return Err(RewriteError::NoMethod);
        }
        let (block, double) = (quantization.block_size, quantization.double_quant);
        let mut config = self.config.clone();
        config.insert(
            "quantization_config".into(),
            bnb::config_json(double, compute_type.torch()),
        );
        write_config(dir, config)?;
        let parameters = self.arch.parameters();
        let groups = parameters.iter().map(|parameter| {
            let dtype = self.checkpoint.dtype(&parameter.name).unwrap_or(Dtype::F32);
            match self.linear(parameter).map(shape_of) {
                None => vec![Spec::new(&parameter.name, dtype, &parameter.shape)],
                Some(shape) => bnb::stored(shape, dtype, block, double)
                    .into_iter()
                    .map(|part| Spec {
                        name: format!("{}{}", parameter.name, part.suffix),
                        dtype: part.dtype,
                        shape: part.shape,
                        bound: part.bound,
                    })
                    .collect(),
            }
        });
        let groups: Vec<Vec<Spec>> = groups.collect();
        write(dir, &groups, max_bytes, |number, shard: &mut Shard| {
            let parameter = &parameters[number];
            let Some(linear) = self.linear(parameter) else {
                return shard.put(&parameter.name, |sink| self.copy(parameter, sink));
            };
            let dtype = self.checkpoint.dtype(&parameter.name).unwrap_or(Dtype::F32);
            let shape = shape_of(linear);
            let weight = match (start(linear), linear.transposed) {
                (Some(start), _) => start.base(&mut self.matrix(linear)?, linear),
                (None, false) => {
                    (self.checkpoint).quantised(&parameter.name, shape, block, double)?
                }
                // Conv1D is turned before it is quantised, as transformers does.
                (None, true) => nf4::quantize(&self.matrix(linear)?, shape, block, double),
            };
            for (spec, bytes) in groups[number].iter().zip(bnb::stored_bytes(&weight, dtype)) {
                shard.put(&spec.name, |sink| sink.add(&bytes))?;
            }
            Ok(())
        })
    }

    fn linear(&self, parameter: &Parameter) -> Option<&Linear> {
        self.linears.get(&parameter.name)
    }

    /// A linear's dense weight as `[out, in]`.
    fn matrix(&self, linear: &Linear) -> Result<Vec<f32>, RewriteError> {
        let stored = linear.weight();
        let values = self.checkpoint.tensor_f32(&stored.name, &stored.shape)?;
        Ok(match linear.transposed {
            true => transpose(&values, linear.in_features, linear.out_features),
            false => values,
        })
    }
}

fn shape_of(linear: &Linear) -> [usize; 2] {
    [linear.out_features, linear.in_features]
}

/// A base with an adapter merged into it: `V = W + scale B A`, in f32, and with
/// DoRA the rows of V brought to the trained lengths.
pub struct Merged<'a> {
    pub base: &'a Base,
    pub adapter: Adapter,
    /// Set where the adapter is merged onto the quantised base: linears become
    /// what NF4 makes of them.
    pub quantization: Option<&'a QuantizationConfig>,
}

impl Merged<'_> {
    fn lora(&self, module: &str) -> Option<&LoraTensors> {
        self.adapter.modules.iter().find(|m| m.module == module)
    }

    /// One tensor of the merged model, in f32; `None` where it is the base's own.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    fn changed(&self, parameter: &Parameter) -> Result<Option<Vec<f32>>, RewriteError> {
        let checkpoint = &self.base.checkpoint;
        let Some(linear) = self.base.linear(parameter) else {
            // An embedding or a head that is quantised as well.
            return Ok(match parameter.shape[..] {
                [rows, columns] if is_quantised(checkpoint, &parameter.name) => {
                    Some(self.dequantised(parameter, [rows, columns])?)
                }
                _ => None,
            });
        };
        let lora = self.lora(&linear.module);
        let mut values = if is_quantised(checkpoint, &parameter.name) {
            self.dequantised(parameter, shape_of(linear))?
        } else {
            // A linear that a quantised base holds dense was left out on purpose.
            let quantise = self.quantization.filter(|_| self.base.quantised.is_none());
            if lora.is_none() && quantise.is_none() {
                return Ok(None);
            }
            let mut values = self.base.matrix(linear)?;
            if let Some(q) = quantise {
                let shape = shape_of(linear);
                let weight = nf4::quantize(&values, shape, q.block_size, q.double_quant);
                weight.dequantize_into(&mut values);
            }
            values
        };
        if let Some(lora) = lora {
            lora.add_to(
                &mut values,
                self.adapter.config.scaling(&lora.module) as f32,
            );
            if let Some(lengths) = &lora.magnitude {
                set_lengths(&mut values, lengths);
            }
        }
        Ok(Some(match linear.transposed {
            true => transpose(&values, linear.out_features, linear.in_features),
            false => values,
        }))
    }

    fn dequantised(
        &self,
        parameter: &Parameter,
        shape: [usize; 2],
    ) -> Result<Vec<f32>, RewriteError> {
        let weight = bnb::read(&self.base.checkpoint, &parameter.name, shape)?;
        let mut values = vec![0.0; weight.numel()];
        weight.dequantize_into(&mut values);
        Ok(values)
    }

    /// Hands one tensor of the merged model on, piece by piece, in f32.
    ///
    /// # Errors
    /// A tensor that cannot be read, and those of `piece`.
    pub(super) fn stream(
        &self,
        parameter: &Parameter,
        mut piece: impl FnMut(&[f32]) -> Result<(), RewriteError>,
    ) -> Result<(), RewriteError> {
        match self.changed(parameter)? {
            Some(values) => piece(&values),
            None => {
                let checkpoint = &self.base.checkpoint;
                checkpoint.stream(&parameter.name, &parameter.shape, |_, values| piece(values))
            }
        }
    }

    /// Writes config.json and the weights into `dir`, in `stored` or, where that is
    /// not given, each tensor in its own type.
    ///
    /// # Errors
    /// See [`RewriteError`].
    pub fn write(
        &self,
        dir: &Path,
        stored: Option<StoredType>,
        max_bytes: u64,
    ) -> Result<Written, RewriteError> {
        let mut config = self.base.config.clone();
        config.shift_remove("quantization_config");
        if let Some(stored) = stored {
            let old = config.contains_key("torch_dtype") && !config.contains_key("dtype");
            let key = if old { "torch_dtype" } else { "dtype" };
            config.insert(key.into(), stored.torch().into());
            if !old && config.contains_key("torch_dtype") {
                config.insert("torch_dtype".into(), stored.torch().into());
            }
        }
        write_config(dir, config)?;
        let parameters = self.base.arch.parameters();
        let types = parameters.iter().map(|parameter| match stored {
            Some(stored) => Ok(stored),
            None => self.base.dense_type(&parameter.name).map(StoredType::of),
        });
        let types = types.collect::<Result<Vec<_>, _>>()?;
        let specs = parameters.iter().zip(&types);
        let groups: Vec<Vec<Spec>> = specs
            .map(|(p, stored)| vec![Spec::new(&p.name, stored.safetensors(), &p.shape)])
            .collect();
        write(dir, &groups, max_bytes, |number, shard: &mut Shard| {
            let (parameter, stored) = (&parameters[number], types[number]);
            let file = dir.join("model.safetensors");
            shard.put(&parameter.name, |sink| {
                self.stream(parameter, |values| {
                    for chunk in values.chunks(CHUNK) {
                        sink.add(&encode(chunk, stored, &file, &parameter.name)?)?;
                    }
                    Ok(())
                })
            })
        })
    }
}

/// The largest number of f16.
pub(super) const F16_MOST: u32 = 65504;
/// Elements that are encoded at a time.
const CHUNK: usize = 1 << 16;

/// Numbers in the bytes of a type, rounded to nearest, ties to even.
///
/// # Errors
/// A number that f16 cannot hold.
pub(super) fn encode<'v>(
    values: &'v [f32],
    stored: StoredType,
    file: &Path,
    tensor: &str,
) -> Result<Cow<'v, [u8]>, ExportError> {
    Ok(match stored {
        StoredType::F32 => values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>(),
        StoredType::Bf16 => values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect(),
        StoredType::F16 => {
            let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            if let Some(at) = halves.iter().position(|h| !h.is_finite()) {
                return Err(ExportError::TooLarge {
                    file: file.to_path_buf(),
                    tensor: tensor.to_string(),
                    value: values[at],
                    stored: "f16",
                    most: F16_MOST,
                });
            }
            halves.iter().flat_map(|h| h.to_le_bytes()).collect()
        }
    }
    .into())
}

/// Brings the rows to these lengths (Liu et al., 2024, equation 5).
fn set_lengths(values: &mut [f32], lengths: &[f32]) {
    let width = values.len() / lengths.len().max(1);
    let rows = values.par_chunks_mut(width.max(1)).zip(lengths);
    rows.for_each(|(row, length)| {
        let square: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
        let factor = (f64::from(*length) / square.max(1e-30).sqrt()) as f32;
        row.iter_mut().for_each(|v| *v *= factor);
    });
}

fn write_config(dir: &Path, config: Map<String, Value>) -> Result<(), ExportError> {
    let mut config = Value::Object(config);
    config.sort_all_objects();
    write_text(&dir.join("config.json"), &format!("{config:#}\n"))
}

/// Files beside the weights that go with a model; the tokenizer's are
/// [`crate::data::tokenizer::TOKENIZER_FILES`].
pub const GENERATION_CONFIG: &str = "generation_config.json";

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
