//! From files to a [`Decoder`]: a tensor at a time is read, quantised and let go.

use super::adapters::{resolve_adapter, tensor};
use super::attention::{Attention, Qkv};
use super::bnb::{self, BnbError};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::decoder::{Decoder, Parts};
use super::hf_config::{
    ArchConfig, ConfigError, Linear as Described, MlpKind, NormKind, Parameter,
};
use super::host_table::HostTable;
use super::init::initial;
use super::layer::Layer;
use super::linear::Linear;
use super::mlp::Mlp;
use super::norm::Norm;
use super::options::{Adaptation, LoadOptions};
use super::params::Params;
use super::peft::{Adapter, PeftError};
use super::start::Start;
use super::weight::Weight;
use crate::config::types::{LoraConfig, ModelInit, QuantMethod};
use crate::ops::is_cpu;
use crate::ops::{Nf4Tensor, for_device, nf4};

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Bnb(#[from] BnbError),
    #[error(transparent)]
    Peft(#[from] PeftError),
}

/// Loads a model.
///
/// # Errors
/// Names the file and tensor that cannot be used.
pub fn load(options: &LoadOptions<'_>) -> Result<Decoder, LoadError> {
    let arch = ArchConfig::from_dir(options.dir)?;
    let source = match options.init {
        ModelInit::Random => None,
        ModelInit::Pretrained => Some(open(&arch, options)?),
    };
    // Everything about the adapter that can be wrong is found before weights are read.
    let adapter = resolve_adapter(&arch, options)?;
    let start = match options.adaptation {
        Adaptation::Lora(lora) => start_of(lora, options),
        _ => None,
    };
    let mut loader = Loader {
        arch: &arch,
        options,
        adapter,
        start,
        source,
        params: Params::default(),
    };
    let embedding = loader.embedding()?;
    let positions = match arch.position_embedding() {
        Some(parameter) => Some(loader.lookup(&parameter)?),
        None => None,
    };
    let mut layers = Vec::with_capacity(arch.num_layers);
    for n in 0..arch.num_layers {
        layers.push(loader.layer(n)?);
    }
    let norm = loader.norm(arch.final_norm(), arch.hidden_size)?;
    let head = match arch.tie_word_embeddings {
        true => None,
        false => Some(loader.head(&arch.lm_head().weight())?),
    };
    let (params, adapter) = (loader.params, loader.adapter);
    let device = options.device.clone();
    let parts = Parts {
        embedding,
        positions,
        layers,
        norm,
        head,
    };
    let mut model = Decoder::new(arch, parts, params, device, options.precision);
    if let Some((adapter, dropout)) = adapter {
        model.attach(adapter, dropout);
    }
    Ok(model)
}

/// The weights, and whether they are NF4 already.
fn open(arch: &ArchConfig, options: &LoadOptions<'_>) -> Result<(Checkpoint, bool), LoadError> {
    let (checkpoint, quantised) = bnb::open(options.dir, arch)?;
    let dir = options.dir.to_path_buf();
    match (options.adaptation, options.quantization.method) {
        _ if quantised.is_none() => Ok((checkpoint, false)),
        (Adaptation::Full, _) => Err(BnbError::Full { dir }.into()),
        (Adaptation::Lora(lora), _) if start_of(lora, options).is_some() => {
            let init = lora.init_lora_weights.word();
            Err(BnbError::Start { dir, init }.into())
        }
        (_, QuantMethod::None) => Err(BnbError::NotDense { dir }.into()),
        (_, QuantMethod::Nf4) => Ok((checkpoint, true)),
    }
}

fn start_of(lora: &LoraConfig, options: &LoadOptions<'_>) -> Option<Start> {
    Start::new(lora, options.quantization, options.seed)
}

struct Loader<'a> {
    arch: &'a ArchConfig,
    options: &'a LoadOptions<'a>,
    /// To be attached when the weights are there.
    adapter: Option<(Adapter, f64)>,
    /// How the adapter takes its start out of the weights, where it does.
    start: Option<Start>,
    /// With whether it is quantised already.
    source: Option<(Checkpoint, bool)>,
    params: Params,
}

impl Loader<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        Ok(match &self.source {
            Some((checkpoint, true)) => bnb::tensor_f32(checkpoint, name, shape)?,
            Some((checkpoint, false)) => checkpoint.tensor_f32(name, shape)?,
            None => {
                let parameter = Parameter {
                    name: name.into(),
                    shape: shape.to_vec(),
                };
                initial(&parameter, self.arch, self.options.seed)
            }
        })
    }

    fn full(&self) -> bool {
        matches!(self.options.adaptation, Adaptation::Full)
    }

    /// The head: never quantised, as bitsandbytes and transformers have it.
    fn head(&mut self, parameter: &Parameter) -> Result<Weight, LoadError> {
        let values = self.values(&parameter.name, &parameter.shape)?;
        let shape = [parameter.shape[0], parameter.shape[1]];
        Ok(self.dense(&parameter.name, values, shape))
    }

    /// The table of an embedding, not quantised either.
    fn lookup(&mut self, parameter: &Parameter) -> Result<Weight, LoadError> {
        if !self.full() {
            return self.head(parameter);
        }
        let values = self.values(&parameter.name, &parameter.shape)?;
        let shape = [parameter.shape[0], parameter.shape[1]];
        let tensor = tensor(values, shape, self.options.device);
        let id = self.params.push_table(parameter.name.clone(), tensor);
        Ok(Weight::Param(id))
    }

    /// Beside a GPU a frozen embedding stays in host memory, unless the head, which a
    /// product needs whole, is the same matrix.
    fn embedding(&mut self) -> Result<Weight, LoadError> {
        let parameter = self.arch.embedding();
        let LoadOptions {
            device, precision, ..
        } = *self.options;
        if self.full() || self.arch.tie_word_embeddings || is_cpu(device) {
            return self.lookup(&parameter);
        }
        let values = self.values(&parameter.name, &parameter.shape)?;
        let shape = [parameter.shape[0], parameter.shape[1]];
        Ok(Weight::Host(HostTable::new(
            values, shape, device, precision,
        )))
    }

    fn dense(&mut self, name: &str, values: Vec<f32>, shape: [usize; 2]) -> Weight {
        let device = self.options.device;
        if self.full() {
            let tensor = tensor(values, shape, device);
            return Weight::Param(self.params.push(name.into(), tensor, true));
        }
        let ops = for_device(device, self.options.precision);
        Weight::Dense(ops.frozen(values, shape, device))
    }

    /// A norm's weight or a bias, f32. They do not decay (transformers'
    /// `Trainer.get_decay_parameter_names`).
    fn vector(&mut self, name: &str, width: usize) -> Result<Weight, LoadError> {
        let values = self.values(name, &[width])?;
        let tensor = tensor(values, [1, width], self.options.device);
        Ok(match self.full() {
            true => Weight::Param(self.params.push(name.into(), tensor, false)),
            false => Weight::Dense(tensor),
        })
    }

    fn norm(&mut self, module: &str, width: usize) -> Result<Norm, LoadError> {
        let gain = self.vector(&format!("{module}.weight"), width)?;
        let bias = match self.arch.norm {
            NormKind::Rms => None,
            NormKind::Layer => Some(self.vector(&format!("{module}.bias"), width)?),
        };
        Ok(Norm {
            gain,
            bias,
            eps: self.arch.norm_eps as f32,
        })
    }

    /// A linear of a layer, quantised where asked.
    fn linear(&mut self, described: Described) -> Result<Linear, LoadError> {
        let shape = [described.out_features, described.in_features];
        let weight = self.matrix(&described)?;
        let bias = match described.bias {
            true => Some(self.vector(&format!("{}.bias", described.module), shape[0])?),
            false => None,
        };
        Ok(Linear {
            module: described.module,
            weight,
            bias,
            loras: Vec::new(),
        })
    }

    /// The `[out, in]` weight of a linear.
    fn matrix(&mut self, described: &Described) -> Result<Weight, LoadError> {
        let stored = described.weight();
        let shape = [described.out_features, described.in_features];
        let held = |weight, device| Weight::Nf4(Nf4Tensor::new(weight, device));
        let mut quantise = !self.full() && self.options.quantization.method == QuantMethod::Nf4;
        if let Some((checkpoint, true)) = &self.source {
            if let Some(weight) = bnb::held(checkpoint, &stored.name, shape)? {
                return Ok(held(weight, self.options.device));
            }
            // A linear that such a checkpoint holds dense was left out on purpose.
            quantise = false;
        }
        let q = self.options.quantization;
        let lora = self.taken_by(&described.module);
        if let (Some((checkpoint, _)), true, false, None) =
            (&self.source, quantise, described.transposed, lora)
        {
            let weight = checkpoint.quantised(&stored.name, shape, q.block_size, q.double_quant)?;
            return Ok(held(weight, self.options.device));
        }
        let mut values = self.values(&stored.name, &stored.shape)?;
        if described.transposed {
            values = transpose(&values, shape[1], shape[0]);
        }
        if let (Some(at), Some(start), Some((adapter, _))) = (lora, &self.start, &mut self.adapter)
        {
            let module = &mut adapter.modules[at];
            let scale = adapter.config.scaling(&module.module) as f32;
            if let Some(weight) = start.take(&mut values, module, scale) {
                return Ok(held(weight, self.options.device));
            }
        }
        if quantise {
            let weight = nf4::quantize(&values, shape, q.block_size, q.double_quant);
            return Ok(held(weight, self.options.device));
        }
        Ok(self.dense(&stored.name, values, shape))
    }

    /// The place in the adapter of the matrices that begin with a part of this
    /// module's weight.
    fn taken_by(&self, module: &str) -> Option<usize> {
        let (Some(_), Some((adapter, _))) = (&self.start, &self.adapter) else {
            return None;
        };
        adapter.modules.iter().position(|m| m.module == module)
    }

    fn layer(&mut self, n: usize) -> Result<Layer, LoadError> {
        let arch = self.arch;
        let mut described = arch.layer_linears(n).into_iter();
        let mut linear = |loader: &mut Self| {
            let next = described.next();
            loader.linear(next.expect("the architecture lists every linear of a layer"))
        };
        let qkv = match arch.qkv_linears() {
            1 => Qkv::Fused(linear(self)?),
            _ => Qkv::Split([linear(self)?, linear(self)?, linear(self)?]),
        };
        let o = linear(self)?;
        let mlp = match arch.mlp {
            MlpKind::SwiGlu => Mlp::SwiGlu([linear(self)?, linear(self)?, linear(self)?]),
            MlpKind::Gelu => Mlp::Gelu([linear(self)?, linear(self)?]),
        };
        let qk_norm = match arch.qk_norms(n) {
            Some([q, k]) => Some([self.norm(&q, arch.head_dim)?, self.norm(&k, arch.head_dim)?]),
            None => None,
        };
        let [first, second] = arch.layer_norms(n);
        Ok(Layer {
            attention_norm: self.norm(&first, arch.hidden_size)?,
            attention: Attention {
                qkv,
                qk_norm,
                o,
                window: arch.window(n),
            },
            mlp_norm: self.norm(&second, arch.hidden_size)?,
            mlp,
        })
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}
