//! A merged model as one GGUF file (version 3), which llama.cpp reads: metadata,
//! vocabulary, and the tensors in f32, f16 or q8_0.
//!
//! llama.cpp rotates neighbouring pairs where Hugging Face's Llama rotates the
//! halves of a head, so the rows of q and k are put in another order for it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;
use rayon::prelude::*;

use super::export::{ExportError, io_error};
pub use super::gguf_error::GgufError;
use super::gguf_metadata::{Metadata, put_string};
use super::hf_config::{ArchConfig, Parameter, Rope, RopeScaling};
use super::rewrite::{F16_MOST, Merged, RewriteError, StoredType, encode};

#[path = "gguf_vocab.rs"]
mod vocab;

use vocab::Vocabulary;

const VERSION: u32 = 3;
/// Tensors begin at multiples of this.
const ALIGNMENT: usize = 32;
/// Weights that share a scale in q8_0, and the bytes they take.
const Q8_BLOCK: usize = 32;
const Q8_BYTES: usize = 2 + Q8_BLOCK;

/// How matrices are stored; vectors are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    F32,
    F16,
    /// 8 bits a weight and an f16 scale for 32 of them.
    Q8_0,
}

impl GgufType {
    /// The type of a tensor: vectors stay f32, and rows that are no whole q8_0
    /// blocks f16.
    fn of(self, shape: &[usize]) -> Self {
        match (self, shape) {
            (_, [_]) => Self::F32,
            (Self::Q8_0, [.., width]) if !width.is_multiple_of(Q8_BLOCK) => Self::F16,
            _ => self,
        }
    }

    /// ggml's number of the type.
    fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
        }
    }

    /// llama.cpp's number of a file with mostly this type.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }

    fn bytes(self, elements: usize) -> usize {
        match self {
            Self::F32 => 4 * elements,
            Self::F16 => 2 * elements,
            Self::Q8_0 => elements / Q8_BLOCK * Q8_BYTES,
        }
    }
}

/// A tensor of the file.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    stored: GgufType,
    source: Source,
}

enum Source {
    Model(Parameter),
    Values(Vec<f32>),
}

/// Writes the merged model and the tokenizer of its base into `file`; returns the
/// bytes of its tensors. The caller puts the file in place once it is whole.
///
/// # Errors
/// A model or tokenizer that llama.cpp has no counterpart for, and anything that
/// keeps the file from being written.
pub fn write(merged: &Merged<'_>, file: &Path, stored: GgufType) -> Result<u64, RewriteError> {
    let (base, arch) = (merged.base, &merged.base.arch);
    let (family, rope) = family(arch, &base.dir)?;
    let vocab = Vocabulary::read(&base.dir, arch)?;
    let tensors = tensors(arch, rope, &base.dir, stored)?;
    let mut meta = Metadata::default();
    describe(&mut meta, arch, family, rope);
    let name = base.dir.file_name().map(|name| name.to_string_lossy());
    meta.string("general.name", name.as_deref().unwrap_or("model"));
    meta.u32("general.file_type", stored.file_type());
    meta.u32("general.quantization_version", 2);
    vocab.describe(&mut meta);
    let error = io_error(file);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(file).map_err(&error)?);
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(meta.count.to_le_bytes());
    head.append(&mut meta.bytes);
    let mut offset = 0usize;
    for tensor in &tensors {
        put_string(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            head.extend((*size as u64).to_le_bytes());
        }
        head.extend(tensor.stored.id().to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        offset += padded(tensor.bytes());
    }
    head.resize(padded(head.len()), 0);
    out.write_all(&head).map_err(&error)?;
    for tensor in &tensors {
        tensor.write(merged, file, &mut out)?;
        let padding = [0u8; ALIGNMENT];
        let missing = padded(tensor.bytes()) - tensor.bytes();
        out.write_all(&padding[..missing]).map_err(&error)?;
    }
    out.flush().map_err(&error)?;
    Ok(tensors.iter().map(|tensor| tensor.bytes() as u64).sum())
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.stored.bytes(self.shape.iter().product())
    }

    fn write(
        &self,
        merged: &Merged<'_>,
        file: &Path,
        out: &mut impl Write,
    ) -> Result<(), RewriteError> {
        let mut put = |values: &[f32]| -> Result<(), RewriteError> {
            for chunk in values.chunks(1 << 20) {
                let bytes = pack(chunk, self.stored, file, &self.name)?;
                out.write_all(&bytes).map_err(io_error(file))?;
            }
            Ok(())
        };
        let parameter = match &self.source {
            Source::Values(values) => return put(values),
            Source::Model(parameter) => parameter,
        };
        match rotary_heads(&merged.base.arch, &parameter.name) {
            None => merged.stream(parameter, put),
            Some(heads) => {
                let mut values = Vec::with_capacity(parameter.numel());
                merged.stream(parameter, |piece| {
                    values.extend_from_slice(piece);
                    Ok(())
                })?;
                let width = values.len() / parameter.shape[0];
                put(&paired(&values, heads, width))
            }
        }
    }
}

/// The numbers in the bytes of a type.
fn pack(
    values: &[f32],
    stored: GgufType,
    file: &Path,
    tensor: &str,
) -> Result<Vec<u8>, ExportError> {
    let plain = |stored| encode(values, stored, file, tensor).map(|bytes| bytes.into_owned());
    match stored {
        GgufType::F32 => plain(StoredType::F32),
        GgufType::F16 => plain(StoredType::F16),
        GgufType::Q8_0 => {
            let mut bytes = vec![0u8; stored.bytes(values.len())];
            let bad = bytes
                .par_chunks_mut(Q8_BYTES)
                .zip(values.par_chunks(Q8_BLOCK))
                .find_map_first(|(bytes, block)| match quantize_block(block, bytes) {
                    true => None,
                    false => {
                        let values = block.iter().copied();
                        values.max_by(|a, b| a.abs().total_cmp(&b.abs()))
                    }
                });
            match bad {
                None => Ok(bytes),
                Some(value) => Err(ExportError::TooLarge {
                    file: file.to_path_buf(),
                    tensor: tensor.to_string(),
                    value,
                    stored: "q8_0",
                    // A level of a block times its scale, which is f16.
                    most: 127 * F16_MOST,
                }),
            }
        }
    }
}

/// One block of q8_0: the scale, then round(x / scale), halves away from zero.
/// False where f16 cannot hold the scale.
fn quantize_block(block: &[f32], bytes: &mut [u8]) -> bool {
    let largest = block.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let half = f16::from_f32(scale);
    let (head, levels) = bytes.split_at_mut(2);
    head.copy_from_slice(&half.to_le_bytes());
    for (level, v) in levels.iter_mut().zip(block) {
        *level = (v * inverse).round() as i8 as u8;
    }
    half.is_finite()
}

/// Heads of a tensor whose rows llama.cpp wants in pairs.
fn rotary_heads(arch: &ArchConfig, name: &str) -> Option<usize> {
    if !["llama", "mistral"].contains(&arch.model_type.as_str()) {
        // llama.cpp turns the halves of Qwen's heads.
        return None;
    }
    if name.contains(".self_attn.q_proj.") {
        Some(arch.num_heads)
    } else if name.contains(".self_attn.k_proj.") {
        Some(arch.num_kv_heads)
    } else {
        None
    }
}

/// Row i of a head's first half, then row i of its second half, for each i.
fn paired(values: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let rows = values.len() / width;
    let half = rows / heads / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for i in 0..half {
            for part in 0..2 {
                let row = head * 2 * half + part * half + i;
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    out
}

/// llama.cpp's name of the architecture, and the rotary embedding.
fn family<'a>(arch: &'a ArchConfig, dir: &Path) -> Result<(&'static str, &'a Rope), GgufError> {
    let name = match arch.model_type.as_str() {
        "llama" | "mistral" => Some("llama"),
        "qwen2" => Some("qwen2"),
        "qwen3" => Some("qwen3"),
        _ => None,
    };
    name.zip(arch.rope()).ok_or_else(|| GgufError::Unsupported {
        file: dir.join("config.json"),
        problem: format!("model_type is `{}`", arch.model_type),
    })
}

fn tensors(
    arch: &ArchConfig,
    rope: &Rope,
    dir: &Path,
    stored: GgufType,
) -> Result<Vec<Tensor>, GgufError> {
    let mut tensors = Vec::new();
    if let RopeScaling::Llama3 { .. } = rope.scaling {
        // What the plain frequencies are divided by.
        let plain = Rope {
            scaling: RopeScaling::None,
            ..rope.clone()
        };
        let pairs = plain
            .inv_freq(arch.head_dim)
            .into_iter()
            .zip(arch.inv_freq());
        tensors.push(Tensor {
            name: "rope_freqs.weight".into(),
            shape: vec![arch.head_dim / 2],
            stored: GgufType::F32,
            source: Source::Values(pairs.map(|(plain, scaled)| plain / scaled).collect()),
        });
    }
    for parameter in arch.parameters() {
        let name = name_of(&parameter.name).ok_or_else(|| GgufError::Unsupported {
            file: dir.join("config.json"),
            problem: format!("llama.cpp has no name for the tensor `{}`", parameter.name),
        })?;
        tensors.push(Tensor {
            name,
            shape: parameter.shape.clone(),
            stored: stored.of(&parameter.shape),
            source: Source::Model(parameter),
        });
    }
    Ok(tensors)
}

fn name_of(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    let known = match module {
        "model.embed_tokens" => "token_embd".to_string(),
        "model.norm" => "output_norm".to_string(),
        "lm_head" => "output".to_string(),
        _ => {
            let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
            let part = match part {
                "input_layernorm" => "attn_norm",
                "self_attn.q_proj" => "attn_q",
                "self_attn.k_proj" => "attn_k",
                "self_attn.v_proj" => "attn_v",
                "self_attn.o_proj" => "attn_output",
                "self_attn.q_norm" => "attn_q_norm",
                "self_attn.k_norm" => "attn_k_norm",
                "post_attention_layernorm" => "ffn_norm",
                "mlp.gate_proj" => "ffn_gate",
                "mlp.up_proj" => "ffn_up",
                "mlp.down_proj" => "ffn_down",
                _ => return None,
            };
            format!("blk.{layer}.{part}")
        }
    };
    Some(format!("{known}.{kind}"))
}

fn describe(meta: &mut Metadata, arch: &ArchConfig, family: &str, rope: &Rope) {
    meta.string("general.architecture", family);
    let mut number = |key: &str, value: usize| meta.u32(&format!("{family}.{key}"), value as u32);
    number("block_count", arch.num_layers);
    // llama.cpp knows no sliding window in these families: within one it is the same.
    let window = (0..arch.num_layers)
        .filter_map(|layer| arch.window(layer))
        .min();
    let context = arch
        .max_position_embeddings
        .min(window.unwrap_or(usize::MAX));
    number("context_length", context);
    number("embedding_length", arch.hidden_size);
    number("feed_forward_length", arch.intermediate_size);
    number("attention.head_count", arch.num_heads);
    number("attention.head_count_kv", arch.num_kv_heads);
    number("attention.key_length", arch.head_dim);
    number("attention.value_length", arch.head_dim);
    number("rope.dimension_count", arch.head_dim);
    number("vocab_size", arch.vocab_size);
    let mut real = |key: &str, value: f64| meta.f32(&format!("{family}.{key}"), value as f32);
    real("attention.layer_norm_rms_epsilon", arch.norm_eps);
    real("rope.freq_base", rope.theta);
    if let RopeScaling::Linear { factor } = rope.scaling {
        real("rope.scaling.factor", factor);
        meta.string(&format!("{family}.rope.scaling.type"), "linear");
    }
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
