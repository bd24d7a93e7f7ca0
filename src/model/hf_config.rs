//! `config.json` of a Hugging Face checkpoint, read into an architecture that
//! the decoder, the checkpoint reader and the exporter share.
//!
//! Both styles are read: transformers 4 (`rope_theta`, `rope_scaling`,
//! `torch_dtype`) and transformers 5 (`rope_parameters`, `dtype`). Missing
//! optional keys take the defaults of transformers' `LlamaConfig`.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

#[path = "hf_config_keys.rs"]
mod keys;
#[path = "hf_config_rope.rs"]
mod rope;

use keys::{Keys, parse_object, read};
use rope::read_rope;
pub use rope::{Rope, RopeScaling};

/// The `model_type` values this program can build.
pub const SUPPORTED_MODEL_TYPES: [&str; 1] = ["llama"];
const SUPPORTED_ACTIVATIONS: [&str; 2] = ["silu", "swish"];

/// Upper bounds that no real model comes near: a larger number is a broken file.
const MAX_WIDTH: usize = 1 << 22;
const MAX_VOCAB: usize = 1 << 25;
const MAX_LAYERS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_POSITIONS: usize = 1 << 31;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("{}: cannot read the model's configuration: {source}. A Hugging Face model directory holds a config.json", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}:{line}: not valid JSON: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}: `{key}` {problem}", file.display())]
    Key {
        file: PathBuf,
        key: String,
        problem: String,
    },
    #[error("{}: {what} `{found}` is not supported; supported: {supported}", file.display())]
    Unsupported {
        file: PathBuf,
        what: &'static str,
        found: String,
        supported: String,
    },
}

/// A decoder-only transformer, described by its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchConfig {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    /// Key and value heads; a divisor of `num_heads`.
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope: Rope,
    /// The output projection is the embedding matrix.
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
    /// The q, k, v and o projections have biases.
    pub attention_bias: bool,
    /// The gate, up and down projections have biases.
    pub mlp_bias: bool,
    /// Standard deviation of a fresh random start.
    pub initializer_range: f64,
    pub bos_token_id: Option<u32>,
    /// Any of these ends a sequence.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// Storage type named by the file, e.g. `bfloat16`.
    pub dtype: Option<String>,
}

/// A linear layer of the model: `y = x W^T (+ b)` with `W` of [out, in].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Module path, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    pub out_features: usize,
    pub in_features: usize,
    pub bias: bool,
}

/// A tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// e.g. `model.embed_tokens.weight`.
    pub name: String,
    pub shape: Vec<usize>,
}

impl Parameter {
    fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
        }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

impl ArchConfig {
    /// Reads `dir/config.json`. Where `dir/generation_config.json` names
    /// end-of-sequence tokens, those win, as in transformers' `generate`.
    ///
    /// # Errors
    /// A file that is missing or not JSON, a key of the wrong type, a size that
    /// is zero or absurd, or a family, activation or RoPE type not supported.
    pub fn from_dir(dir: &Path) -> Result<Self, ConfigError> {
        let file = dir.join("config.json");
        let mut arch = Self::from_json(&read(&file)?, &file)?;
        let file = dir.join("generation_config.json");
        if file.is_file() {
            let object = parse_object(&read(&file)?, &file)?;
            let eos = Keys::new(&object, &file).token_ids("eos_token_id")?;
            if let Some(ids) = eos.filter(|ids| !ids.is_empty()) {
                arch.eos_token_ids = ids;
            }
        }
        Ok(arch)
    }

    /// Reads the text of a `config.json`; `file` names it in errors.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let object = parse_object(text, file)?;
        let keys = Keys::new(&object, file);
        let unsupported = |what, found: &str, supported: &[&str]| ConfigError::Unsupported {
            file: file.to_path_buf(),
            what,
            found: found.to_string(),
            supported: supported.join(", "),
        };
        let model_type = keys
            .string("model_type")?
            .ok_or_else(|| keys.error("model_type", "is missing".into()))?;
        if !SUPPORTED_MODEL_TYPES.contains(&model_type.as_str()) {
            return Err(unsupported(
                "model_type",
                &model_type,
                &SUPPORTED_MODEL_TYPES,
            ));
        }
        let activation = keys.string("hidden_act")?.unwrap_or_else(|| "silu".into());
        if !SUPPORTED_ACTIVATIONS.contains(&activation.as_str()) {
            return Err(unsupported(
                "hidden_act",
                &activation,
                &SUPPORTED_ACTIVATIONS,
            ));
        }
        let hidden_size = keys.size("hidden_size", MAX_WIDTH)?;
        let num_heads = keys.size("num_attention_heads", MAX_WIDTH)?;
        if !hidden_size.is_multiple_of(num_heads) {
            return Err(keys.error(
                "num_attention_heads",
                format!("is {num_heads}, which does not divide hidden_size {hidden_size}"),
            ));
        }
        let num_kv_heads = keys
            .optional_size("num_key_value_heads", MAX_WIDTH)?
            .unwrap_or(num_heads);
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(keys.error(
                "num_key_value_heads",
                format!("is {num_kv_heads}, which does not divide num_attention_heads {num_heads}"),
            ));
        }
        let head_dim = keys
            .optional_size("head_dim", MAX_HEAD_DIM)?
            .unwrap_or(hidden_size / num_heads);
        if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
            return Err(keys.error(
                "head_dim",
                format!(
                    "is {head_dim}; rotary embedding needs an even number of at most {MAX_HEAD_DIM}"
                ),
            ));
        }
        let max_position_embeddings = keys
            .optional_size("max_position_embeddings", MAX_POSITIONS)?
            .unwrap_or(2048);
        Ok(Self {
            vocab_size: keys.size("vocab_size", MAX_VOCAB)?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size", MAX_WIDTH)?,
            num_layers: keys.size("num_hidden_layers", MAX_LAYERS)?,
            num_heads,
            num_kv_heads,
            head_dim,
            rms_norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
            rope: read_rope(&keys, max_position_embeddings)?,
            tie_word_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(false),
            max_position_embeddings,
            attention_bias: keys.boolean("attention_bias")?.unwrap_or(false),
            mlp_bias: keys.boolean("mlp_bias")?.unwrap_or(false),
            initializer_range: keys.positive("initializer_range")?.unwrap_or(0.02),
            // LlamaConfig's defaults, where the key is absent rather than null.
            bos_token_id: match keys.named("bos_token_id") {
                true => keys.token_id("bos_token_id")?,
                false => Some(1),
            },
            eos_token_ids: match keys.named("eos_token_id") {
                true => keys.token_ids("eos_token_id")?.unwrap_or_default(),
                false => vec![2],
            },
            pad_token_id: keys.token_id("pad_token_id")?,
            dtype: match keys.string("dtype")? {
                Some(dtype) => Some(dtype),
                None => keys.string("torch_dtype")?,
            },
            model_type,
        })
    }

    /// The rotary frequencies in f32, `head_dim / 2` of them.
    pub fn inv_freq(&self) -> Vec<f32> {
        self.rope.inv_freq(self.head_dim)
    }

    /// Every linear layer of the decoder layers, in the order of the model's
    /// modules. The output projection is [`ArchConfig::lm_head`].
    pub fn linears(&self) -> Vec<Linear> {
        (0..self.num_layers)
            .flat_map(|layer| self.layer_linears(layer))
            .collect()
    }

    fn layer_linears(&self, layer: usize) -> [Linear; 7] {
        let hidden = self.hidden_size;
        let heads = self.num_heads * self.head_dim;
        let kv = self.num_kv_heads * self.head_dim;
        let wide = self.intermediate_size;
        [
            ("self_attn.q_proj", heads, hidden, self.attention_bias),
            ("self_attn.k_proj", kv, hidden, self.attention_bias),
            ("self_attn.v_proj", kv, hidden, self.attention_bias),
            ("self_attn.o_proj", hidden, heads, self.attention_bias),
            ("mlp.gate_proj", wide, hidden, self.mlp_bias),
            ("mlp.up_proj", wide, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, wide, self.mlp_bias),
        ]
        .map(|(name, out_features, in_features, bias)| Linear {
            module: format!("model.layers.{layer}.{name}"),
            out_features,
            in_features,
            bias,
        })
    }

    /// The output projection; with `tie_word_embeddings` its weight is
    /// `model.embed_tokens.weight`.
    pub fn lm_head(&self) -> Linear {
        Linear {
            module: "lm_head".into(),
            out_features: self.vocab_size,
            in_features: self.hidden_size,
            bias: false,
        }
    }

    /// Every tensor that a checkpoint of this model holds.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = vec![Parameter::new(
            "model.embed_tokens.weight",
            &[self.vocab_size, self.hidden_size],
        )];
        for layer in 0..self.num_layers {
            for linear in self.layer_linears(layer) {
                let Linear {
                    module,
                    out_features,
                    in_features,
                    bias,
                } = linear;
                all.push(Parameter::new(
                    format!("{module}.weight"),
                    &[out_features, in_features],
                ));
                if bias {
                    all.push(Parameter::new(format!("{module}.bias"), &[out_features]));
                }
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                all.push(Parameter::new(
                    format!("model.layers.{layer}.{norm}.weight"),
                    &[self.hidden_size],
                ));
            }
        }
        all.push(Parameter::new("model.norm.weight", &[self.hidden_size]));
        if !self.tie_word_embeddings {
            all.push(Parameter::new(
                "lm_head.weight",
                &[self.vocab_size, self.hidden_size],
            ));
        }
        all
    }

    /// Number of weights, a tied matrix counted once.
    pub fn num_parameters(&self) -> usize {
        self.parameters().iter().map(Parameter::numel).sum()
    }

    /// The text of a `config.json` that transformers 4 and 5 both read: the
    /// rotary settings and the storage type stand in both styles.
    pub fn to_json(&self) -> String {
        let mut rope = Map::new();
        match self.rope.scaling {
            RopeScaling::None => {
                rope.insert("rope_type".into(), json!("default"));
            }
            RopeScaling::Linear { factor } => {
                rope.insert("rope_type".into(), json!("linear"));
                rope.insert("factor".into(), json!(factor));
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position,
            } => {
                rope.insert("rope_type".into(), json!("llama3"));
                rope.insert("factor".into(), json!(factor));
                rope.insert("low_freq_factor".into(), json!(low_freq_factor));
                rope.insert("high_freq_factor".into(), json!(high_freq_factor));
                rope.insert(
                    "original_max_position_embeddings".into(),
                    json!(original_max_position),
                );
            }
        }
        let scaling = match self.rope.scaling {
            RopeScaling::None => Value::Null,
            _ => Value::Object(rope.clone()),
        };
        rope.insert("rope_theta".into(), json!(self.rope.theta));
        let mut object = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos_value(&self.eos_token_ids),
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": self.mlp_bias,
            "model_type": self.model_type,
            "num_attention_heads": self.num_heads,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.num_kv_heads,
            "pad_token_id": self.pad_token_id,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "rope_scaling": scaling,
            "rope_theta": self.rope.theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if let Some(dtype) = &self.dtype {
            object["dtype"] = json!(dtype);
            object["torch_dtype"] = json!(dtype);
        }
        object.sort_all_objects();
        format!("{object:#}\n")
    }

    /// The text of a `generation_config.json`: the special tokens.
    pub fn generation_json(&self) -> String {
        let mut object = Map::new();
        if let Some(id) = self.bos_token_id {
            object.insert("bos_token_id".into(), json!(id));
        }
        if !self.eos_token_ids.is_empty() {
            object.insert("eos_token_id".into(), eos_value(&self.eos_token_ids));
        }
        if let Some(id) = self.pad_token_id {
            object.insert("pad_token_id".into(), json!(id));
        }
        format!("{:#}\n", Value::Object(object))
    }
}

/// One end token as a number, several as a list, as transformers writes them.
fn eos_value(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

#[cfg(test)]
#[path = "hf_config_tests.rs"]
mod tests;
