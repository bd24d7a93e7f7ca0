//! From files to a [`Decoder`]: a tensor at a time is read, quantised and let go.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::bnb::{self, BnbError};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::decoder::Decoder;
use super::hf_config::{ArchConfig, ConfigError, Parameter};
use super::init::initial;
use super::layer::Layer;
use super::linear::{Linear, Lora, Weight};
use super::params::Params;
use super::peft::{Adapter, AdapterConfig, PeftError, resolve_targets};
use crate::config::types::{LoraConfig, ModelInit, QuantMethod, QuantizationConfig};
use crate::ops::{Nf4Tensor, Precision, for_device, nf4};

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
    #[error(
        "{}: {key}=true (biases on linear layers) is not supported in this version: use a model without them",
        dir.display()
    )]
    Bias {
        dir: std::path::PathBuf,
        key: &'static str,
    },
}

/// What trains beside or instead of the base weights.
#[derive(Clone, Copy)]
pub enum Adaptation<'a> {
    /// The base alone.
    None,
    /// New LoRA matrices, or those of `lora.init_from`.
    Lora(&'a LoraConfig),
    /// The LoRA matrices of an adapter directory, for inference.
    Adapter(&'a Path),
    /// Every weight trains.
    Full,
}

/// Where a model comes from and how it is held.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// HF directory.
    pub dir: &'a Path,
    pub init: ModelInit,
    pub quantization: &'a QuantizationConfig,
    pub adaptation: Adaptation<'a>,
    /// For random weights and LoRA's A.
    pub seed: u64,
    pub device: &'a Device,
    /// Of activations and of weights that are not quantised.
    pub precision: Precision,
}

/// Loads a model.
///
/// # Errors
/// Names the file and tensor that cannot be used.
pub fn load(options: &LoadOptions<'_>) -> Result<Decoder, LoadError> {
    let arch = ArchConfig::from_dir(options.dir)?;
    for (key, on) in [
        ("attention_bias", arch.attention_bias),
        ("mlp_bias", arch.mlp_bias),
    ] {
        if on {
            let dir = options.dir.to_path_buf();
            return Err(LoadError::Bias { dir, key });
        }
    }
    let source = match options.init {
        ModelInit::Random => None,
        ModelInit::Pretrained => Some(open(&arch, options)?),
    };
    // Everything about the adapter that can be wrong is found before weights are read.
    let adapter = resolve_adapter(&arch, options)?;
    let mut loader = Loader {
        arch: &arch,
        options,
        source,
        params: Params::default(),
    };
    let hidden = arch.hidden_size;
    let embedding = loader.weight(
        "model.embed_tokens.weight",
        [arch.vocab_size, hidden],
        false,
    )?;
    let mut layers = Vec::with_capacity(arch.num_layers);
    for n in 0..arch.num_layers {
        layers.push(loader.layer(n)?);
    }
    let norm = loader.gain("model.norm.weight")?;
    let head = if arch.tie_word_embeddings {
        None
    } else {
        Some(loader.weight("lm_head.weight", [arch.vocab_size, hidden], false)?)
    };
    let mut params = loader.params;
    let adapter_config = adapter.as_ref().map(|(adapter, _)| adapter.config.clone());
    if let Some((adapter, dropout)) = adapter {
        attach(adapter, dropout, &mut layers, &mut params, options.device);
    }
    let device = options.device.clone();
    let mut model = Decoder::new(
        arch,
        embedding,
        layers,
        norm,
        head,
        params,
        device,
        options.precision,
    );
    model.adapter_config = adapter_config;
    Ok(model)
}

/// The weights, and whether they are NF4 already.
fn open(arch: &ArchConfig, options: &LoadOptions<'_>) -> Result<(Checkpoint, bool), LoadError> {
    let (checkpoint, quantised) = bnb::open(options.dir, arch)?;
    let dir = options.dir.to_path_buf();
    match (options.adaptation, options.quantization.method) {
        _ if quantised.is_none() => Ok((checkpoint, false)),
        (Adaptation::Full, _) => Err(BnbError::Full { dir }.into()),
        (_, QuantMethod::None) => Err(BnbError::NotDense { dir }.into()),
        (_, QuantMethod::Nf4) => Ok((checkpoint, true)),
    }
}

struct Loader<'a> {
    arch: &'a ArchConfig,
    options: &'a LoadOptions<'a>,
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

    /// Linears of the layers are quantised; embedding, head and norms are not, as
    /// bitsandbytes and transformers have it.
    fn weight(
        &mut self,
        name: &str,
        shape: [usize; 2],
        quantise: bool,
    ) -> Result<Weight, LoadError> {
        let held = match &self.source {
            Some((checkpoint, true)) if quantise => Some(bnb::held(checkpoint, name, shape)?),
            _ => None,
        };
        let device = self.options.device;
        if let Some(Some(weight)) = held {
            return Ok(Weight::Nf4(Nf4Tensor::new(weight, device)));
        }
        let values = self.values(name, &shape)?;
        let full = matches!(self.options.adaptation, Adaptation::Full);
        let q = self.options.quantization;
        // A linear that a quantised checkpoint holds dense was left out on purpose.
        if quantise && held.is_none() && !full && q.method == QuantMethod::Nf4 {
            let weight = nf4::quantize(&values, shape, q.block_size, q.double_quant);
            return Ok(Weight::Nf4(Nf4Tensor::new(weight, device)));
        }
        Ok(if full {
            let tensor = tensor(values, shape, device);
            Weight::Param(self.params.push(name.into(), tensor, true))
        } else {
            let ops = for_device(device, self.options.precision);
            Weight::Dense(ops.frozen(values, shape, device))
        })
    }

    /// Norm gains do not decay (transformers' `Trainer.get_decay_parameter_names`).
    fn gain(&mut self, name: &str) -> Result<Weight, LoadError> {
        let width = self.arch.hidden_size;
        let values = self.values(name, &[width])?;
        let tensor = tensor(values, [1, width], self.options.device);
        Ok(match self.options.adaptation {
            Adaptation::Full => Weight::Param(self.params.push(name.into(), tensor, false)),
            _ => Weight::Dense(tensor),
        })
    }

    fn layer(&mut self, n: usize) -> Result<Layer, LoadError> {
        let (arch, prefix) = (self.arch, format!("model.layers.{n}"));
        let (hidden, wide) = (arch.hidden_size, arch.intermediate_size);
        let heads = arch.num_heads * arch.head_dim;
        let kv = arch.num_kv_heads * arch.head_dim;
        let mut linear = |name: &str, shape: [usize; 2]| -> Result<Linear, LoadError> {
            let module = format!("{prefix}.{name}");
            let weight = self.weight(&format!("{module}.weight"), shape, true)?;
            Ok(Linear {
                module,
                weight,
                lora: None,
            })
        };
        let (q, k, v, o) = (
            linear("self_attn.q_proj", [heads, hidden])?,
            linear("self_attn.k_proj", [kv, hidden])?,
            linear("self_attn.v_proj", [kv, hidden])?,
            linear("self_attn.o_proj", [hidden, heads])?,
        );
        let (gate, up, down) = (
            linear("mlp.gate_proj", [wide, hidden])?,
            linear("mlp.up_proj", [wide, hidden])?,
            linear("mlp.down_proj", [hidden, wide])?,
        );
        Ok(Layer {
            attention_norm: self.gain(&format!("{prefix}.input_layernorm.weight"))?,
            q,
            k,
            v,
            o,
            mlp_norm: self.gain(&format!("{prefix}.post_attention_layernorm.weight"))?,
            gate,
            up,
            down,
        })
    }
}

fn tensor(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The adapter to attach and its dropout. One that is read keeps its own rank,
/// alpha and modules, whatever the config says; a new one follows the config.
fn resolve_adapter(
    arch: &ArchConfig,
    options: &LoadOptions<'_>,
) -> Result<Option<(Adapter, f64)>, LoadError> {
    let lora = match options.adaptation {
        Adaptation::None | Adaptation::Full => return Ok(None),
        Adaptation::Adapter(dir) => return Ok(Some((Adapter::read(dir, arch)?, 0.0))),
        Adaptation::Lora(lora) => lora,
    };
    if let Some(dir) = &lora.init_from {
        return Ok(Some((Adapter::read(dir, arch)?, lora.dropout)));
    }
    let targets = resolve_targets(&lora.target_modules, arch)?;
    let mut names: Vec<String> = Vec::new();
    for linear in targets {
        let last = linear
            .module
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_string();
        if !names.contains(&last) {
            names.push(last);
        }
    }
    let config = AdapterConfig {
        base_model_name_or_path: None,
        r: lora.r,
        lora_alpha: lora.alpha,
        lora_dropout: lora.dropout,
        target_modules: names,
        use_rslora: lora.use_rslora,
    };
    Ok(Some((
        Adapter::initial(config, arch, options.seed)?,
        lora.dropout,
    )))
}

/// Puts LoRA matrices beside their linears, in the order of the model's modules.
fn attach(
    adapter: Adapter,
    dropout: f64,
    layers: &mut [Layer],
    params: &mut Params,
    device: &Device,
) {
    let scale = adapter.config.scaling() as f32;
    let mut modules = adapter.modules;
    let linears = layers.iter_mut().flat_map(Layer::linears_mut);
    for (stream, linear) in linears.enumerate() {
        let Some(at) = modules.iter().position(|m| m.module == linear.module) else {
            continue;
        };
        let m = modules.swap_remove(at);
        let a = tensor(m.a, [m.r, m.in_features], device);
        let b = tensor(m.b, [m.out_features, m.r], device);
        linear.lora = Some(Lora {
            a: params.push(format!("{}.lora_A", m.module), a, true),
            b: params.push(format!("{}.lora_B", m.module), b, true),
            scale,
            dropout: dropout as f32,
            stream: stream as u64,
        });
    }
}
