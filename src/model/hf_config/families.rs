//! The families, each read from the keys and with the defaults of its own
//! configuration class in transformers.

use super::arch::{ArchConfig, MlpKind, Naming, NormKind, Positions};
use super::error::ConfigError;
use super::keys::Keys;
use super::rope::{MAX_POSITIONS, read_rope};

/// The `model_type` values this program can build.
pub const SUPPORTED_MODEL_TYPES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

/// Upper bounds that no real model comes near: a larger number is a broken file.
const MAX_WIDTH: usize = 1 << 22;
const MAX_VOCAB: usize = 1 << 25;
const MAX_LAYERS: usize = 4096;
const MAX_HEAD_DIM: usize = 4096;
const MAX_RANGE: f64 = 1e3;

/// What the families of Llama's shape have by default or for good.
struct Defaults {
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    max_positions: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    window: Window,
}

/// How a family speaks of sliding windows.
enum Window {
    Never,
    /// With a `sliding_window`, in every layer or where `layer_types` says so.
    Everywhere,
    /// Only with `use_sliding_window`, from layer `max_window_layers` on or where
    /// `layer_types` says so.
    Switched,
}

pub(super) fn read_family(keys: &Keys) -> Result<ArchConfig, ConfigError> {
    let model_type = keys
        .string("model_type")?
        .ok_or_else(|| keys.error("model_type", "is missing".into()))?;
    let llama = Defaults {
        kv_heads: None,
        head_dim: None,
        max_positions: 2048,
        bos: Some(1),
        eos: Some(2),
        window: Window::Never,
    };
    let qwen = Defaults {
        kv_heads: Some(32),
        head_dim: None,
        max_positions: 32_768,
        bos: None,
        eos: None,
        window: Window::Switched,
    };
    match model_type.as_str() {
        "llama" => {
            let mut arch = read_llama_shape(keys, &llama)?;
            let bias = keys.boolean("attention_bias")?.unwrap_or(false);
            (arch.qkv_bias, arch.out_bias) = (bias, bias);
            arch.mlp_bias = keys.boolean("mlp_bias")?.unwrap_or(false);
            Ok(arch)
        }
        "mistral" => read_llama_shape(
            keys,
            &Defaults {
                kv_heads: Some(8),
                max_positions: 131_072,
                window: Window::Everywhere,
                ..llama
            },
        ),
        "qwen2" => {
            let mut arch = read_llama_shape(keys, &qwen)?;
            arch.qkv_bias = true;
            Ok(arch)
        }
        "qwen3" => {
            let defaults = Defaults {
                head_dim: Some(128),
                ..qwen
            };
            let mut arch = read_llama_shape(keys, &defaults)?;
            let bias = keys.boolean("attention_bias")?.unwrap_or(false);
            (arch.qkv_bias, arch.out_bias) = (bias, bias);
            arch.qk_norm = true;
            Ok(arch)
        }
        "gpt2" => read_gpt2(keys),
        other => Err(keys.unsupported("model_type", other, &SUPPORTED_MODEL_TYPES)),
    }
}

fn read_llama_shape(keys: &Keys, defaults: &Defaults) -> Result<ArchConfig, ConfigError> {
    choice(keys, "hidden_act", "silu", &["silu", "swish"])?;
    let hidden_size = keys.size("hidden_size", MAX_WIDTH)?;
    let num_heads = keys.size("num_attention_heads", MAX_WIDTH)?;
    let num_kv_heads = keys
        .optional_size("num_key_value_heads", MAX_WIDTH)?
        .unwrap_or(match keys.named("num_key_value_heads") {
            true => num_heads,
            false => defaults.kv_heads.unwrap_or(num_heads),
        });
    if !num_heads.is_multiple_of(num_kv_heads) {
        return Err(keys.error(
            "num_key_value_heads",
            format!("is {num_kv_heads}, which does not divide num_attention_heads {num_heads}"),
        ));
    }
    let head_dim = match keys
        .optional_size("head_dim", MAX_HEAD_DIM)?
        .or(defaults.head_dim)
    {
        Some(head_dim) => head_dim,
        None => head_dim_of(
            keys,
            "num_attention_heads",
            "hidden_size",
            hidden_size,
            num_heads,
        )?,
    };
    if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
        return Err(keys.error(
            "head_dim",
            format!(
                "is {head_dim}; rotary embedding needs an even number of at most {MAX_HEAD_DIM}"
            ),
        ));
    }
    let num_layers = keys.size("num_hidden_layers", MAX_LAYERS)?;
    let (sliding_window, window_layers) = read_window(keys, &defaults.window, num_layers)?;
    let max_position_embeddings = keys
        .optional_size("max_position_embeddings", MAX_POSITIONS)?
        .unwrap_or(defaults.max_positions);
    Ok(ArchConfig {
        model_type: keys.string("model_type")?.unwrap_or_default(),
        naming: Naming::Llama,
        vocab_size: keys.size("vocab_size", MAX_VOCAB)?,
        hidden_size,
        intermediate_size: keys.size("intermediate_size", MAX_WIDTH)?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        norm: NormKind::Rms,
        norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(1e-6),
        positions: Positions::Rotary(read_rope(keys, max_position_embeddings)?),
        mlp: MlpKind::SwiGlu,
        qk_norm: false,
        tie_word_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(false),
        max_position_embeddings,
        sliding_window,
        window_layers,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        initializer_range: initializer_range(keys)?,
        dropout: dropout(keys, &[("attention_dropout", 0.0)])?,
        bos_token_id: token(keys, "bos_token_id", defaults.bos)?,
        eos_token_ids: tokens(keys, "eos_token_id", defaults.eos)?,
        pad_token_id: keys.token_id("pad_token_id")?,
        dtype: dtype(keys)?,
    })
}

fn read_gpt2(keys: &Keys) -> Result<ArchConfig, ConfigError> {
    // All three are the tanh approximation.
    let gelu = ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"];
    choice(keys, "activation_function", "gelu_new", &gelu)?;
    for (key, value) in [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
    ] {
        if keys.boolean(key)?.is_some_and(|found| found != value) {
            return Err(keys.error(key, format!("is {}; only {value} is supported", !value)));
        }
    }
    // transformers knows its sizes by the other families' names too, and takes those first.
    let size = |name: &str, own: &str, most: usize| match keys.optional_size(name, most)? {
        Some(size) => Ok(Some(size)),
        None => keys.optional_size(own, most),
    };
    let width = size("hidden_size", "n_embd", MAX_WIDTH)?.unwrap_or(768);
    let num_heads = size("num_attention_heads", "n_head", MAX_WIDTH)?.unwrap_or(12);
    let num_layers = size("num_hidden_layers", "n_layer", MAX_LAYERS)?.unwrap_or(12);
    let head_dim = head_dim_of(keys, "n_head", "n_embd", width, num_heads)?;
    if head_dim > MAX_HEAD_DIM {
        let problem = format!("gives heads of {head_dim}; at most {MAX_HEAD_DIM} are supported");
        return Err(keys.error("n_head", problem));
    }
    // Before n_positions there was n_ctx.
    let positions = match size("max_position_embeddings", "n_positions", MAX_POSITIONS)? {
        Some(positions) => positions,
        None => keys.optional_size("n_ctx", MAX_POSITIONS)?.unwrap_or(1024),
    };
    Ok(ArchConfig {
        model_type: "gpt2".into(),
        naming: Naming::Gpt2,
        vocab_size: keys
            .optional_size("vocab_size", MAX_VOCAB)?
            .unwrap_or(50_257),
        hidden_size: width,
        intermediate_size: keys
            .optional_size("n_inner", MAX_WIDTH)?
            .unwrap_or(4 * width),
        num_layers,
        num_heads,
        num_kv_heads: num_heads,
        head_dim,
        norm: NormKind::Layer,
        norm_eps: keys.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        positions: Positions::Learned,
        mlp: MlpKind::Gelu,
        qk_norm: false,
        tie_word_embeddings: keys.boolean("tie_word_embeddings")?.unwrap_or(true),
        max_position_embeddings: positions,
        sliding_window: None,
        window_layers: vec![false; num_layers],
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        initializer_range: initializer_range(keys)?,
        dropout: dropout(
            keys,
            &[
                ("attn_pdrop", 0.1),
                ("embd_pdrop", 0.1),
                ("resid_pdrop", 0.1),
            ],
        )?,
        bos_token_id: token(keys, "bos_token_id", Some(50_256))?,
        eos_token_ids: tokens(keys, "eos_token_id", Some(50_256))?,
        pad_token_id: keys.token_id("pad_token_id")?,
        dtype: dtype(keys)?,
    })
}

fn choice(
    keys: &Keys,
    key: &'static str,
    default: &str,
    supported: &[&str],
) -> Result<(), ConfigError> {
    let found = keys.string(key)?.unwrap_or_else(|| default.into());
    match supported.contains(&found.as_str()) {
        true => Ok(()),
        false => Err(keys.unsupported(key, &found, supported)),
    }
}

/// The deviation of new weights: they are drawn in f32, and squares of them summed.
fn initializer_range(keys: &Keys) -> Result<f64, ConfigError> {
    let key = "initializer_range";
    match keys.positive(key)? {
        Some(range) if range > MAX_RANGE => Err(keys.error(
            key,
            format!("is {range:e}; it must be at most {MAX_RANGE}, and is 0.02 in most models"),
        )),
        range => Ok(range.unwrap_or(0.02)),
    }
}

/// The keys of a family's dropout with what they hold, or by default.
fn dropout(
    keys: &Keys,
    defaults: &[(&'static str, f64)],
) -> Result<Vec<(&'static str, f64)>, ConfigError> {
    let read = |&(key, default)| Ok((key, keys.share(key)?.unwrap_or(default)));
    defaults.iter().map(read).collect()
}

fn head_dim_of(
    keys: &Keys,
    heads_key: &str,
    width_key: &str,
    width: usize,
    heads: usize,
) -> Result<usize, ConfigError> {
    match width.is_multiple_of(heads) {
        true => Ok(width / heads),
        false => Err(keys.error(
            heads_key,
            format!("is {heads}, which does not divide {width_key} {width}"),
        )),
    }
}

fn read_window(
    keys: &Keys,
    window: &Window,
    layers: usize,
) -> Result<(Option<usize>, Vec<bool>), ConfigError> {
    // MistralConfig and the Qwen classes slide over 4,096 tokens unless told otherwise.
    let size = || -> Result<Option<usize>, ConfigError> {
        Ok(match keys.named("sliding_window") {
            true => keys.optional_size("sliding_window", MAX_POSITIONS)?,
            false => Some(4096),
        })
    };
    let none = (None, vec![false; layers]);
    let from = match window {
        Window::Never => return Ok(none),
        Window::Everywhere => 0,
        Window::Switched => {
            if !keys.boolean("use_sliding_window")?.unwrap_or(false) {
                return Ok(none);
            }
            keys.whole("max_window_layers")?.unwrap_or(28)
        }
    };
    let Some(size) = size()? else {
        return Ok(none);
    };
    let marks: Vec<bool> = match keys.strings("layer_types")? {
        None => (0..layers).map(|layer| layer >= from).collect(),
        Some(types) if types.len() == layers => {
            let kinds = ["full_attention", "sliding_attention"];
            for kind in &types {
                if !kinds.contains(&kind.as_str()) {
                    return Err(keys.unsupported("layer_types", kind, &kinds));
                }
            }
            types.iter().map(|kind| kind == kinds[1]).collect()
        }
        Some(types) => {
            let problem = format!("has {} entries for {layers} layers", types.len());
            return Err(keys.error("layer_types", problem));
        }
    };
    Ok((Some(size), marks))
}

/// A token whose default holds where the key is absent rather than null.
fn token(keys: &Keys, key: &str, default: Option<u32>) -> Result<Option<u32>, ConfigError> {
    match keys.named(key) {
        true => keys.token_id(key),
        false => Ok(default),
    }
}

fn tokens(keys: &Keys, key: &str, default: Option<u32>) -> Result<Vec<u32>, ConfigError> {
    match keys.named(key) {
        true => Ok(keys.token_ids(key)?.unwrap_or_default()),
        false => Ok(default.into_iter().collect()),
    }
}

fn dtype(keys: &Keys) -> Result<Option<String>, ConfigError> {
    match keys.string("dtype")? {
        Some(dtype) => Ok(Some(dtype)),
        None => keys.string("torch_dtype"),
    }
}
