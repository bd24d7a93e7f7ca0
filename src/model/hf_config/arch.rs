//! The architecture of a model: what the decoder, the checkpoint reader and the
//! exporter have to know of it.

use super::rope::Rope;

/// How a layer's input is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Zhang and Sennrich, 2019: no mean, no bias.
    Rms,
    /// Ba et al., 2016, with a bias.
    Layer,
}

/// What tells a token its place.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are turned (Su et al., 2021).
    Rotary(Rope),
    /// A learned vector for each of `max_position_embeddings` places is added to
    /// the embedding.
    Learned,
}

/// The feed-forward part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpKind {
    /// `down(silu(gate x) * up x)` (Shazeer, 2020).
    SwiGlu,
    /// `proj(gelu(fc x))` with the tanh approximation (Hendrycks and Gimpel, 2016).
    Gelu,
}

/// The names of a checkpoint's tensors and the orientation of its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `model.layers.N.self_attn.q_proj`; matrices are `[out, in]`.
    Llama,
    /// `transformer.h.N.attn.c_attn`, with q, k and v in one matrix; the matrices
    /// of a layer are Conv1D's `[in, out]`.
    Gpt2,
}

/// A decoder-only transformer, described by its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchConfig {
    pub model_type: String,
    pub naming: Naming,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    /// Key and value heads; a divisor of `num_heads`.
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub norm: NormKind,
    pub norm_eps: f64,
    pub positions: Positions,
    pub mlp: MlpKind,
    /// RMSNorm over each head of q and k before they are turned (Qwen3).
    pub qk_norm: bool,
    /// The output projection is the embedding matrix.
    pub tie_word_embeddings: bool,
    pub max_position_embeddings: usize,
    /// A query sees so many of the newest keys, itself included (Beltagy et al.,
    /// 2020), in the layers that `window_layers` marks.
    pub sliding_window: Option<usize>,
    /// For each layer, whether the window applies; all false without one.
    pub window_layers: Vec<bool>,
    /// The q, k and v projections have biases.
    pub qkv_bias: bool,
    /// The projection after attention has a bias.
    pub out_bias: bool,
    /// The feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Standard deviation of a fresh random start.
    pub initializer_range: f64,
    /// The dropout the base was trained with, by its keys in `config.json`. No
    /// training here applies it; it is kept for what is written.
    pub dropout: Vec<(&'static str, f64)>,
    pub bos_token_id: Option<u32>,
    /// Any of these ends a sequence.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// Storage type named by the file, e.g. `bfloat16`.
    pub dtype: Option<String>,
}

impl ArchConfig {
    /// The token whose row of the embedding lookups do not train.
    pub fn frozen_padding(&self) -> Option<u32> {
        self.pad_token_id.filter(|_| self.naming == Naming::Llama)
    }

    /// The base's own dropout that training leaves out, where it has any.
    pub fn dropout_note(&self) -> Option<String> {
        let some = self.dropout.iter().filter(|(_, share)| *share > 0.0);
        let all: Vec<String> = some.map(|(key, share)| format!("{key} {share}")).collect();
        (!all.is_empty()).then(|| {
            format!(
                "the base's own dropout ({}) is not applied in training; lora.dropout drops \
                 inputs of the adapter",
                all.join(", ")
            )
        })
    }

    /// The window of a layer, where it has one.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let applies = self.window_layers.get(layer).copied().unwrap_or(false);
        self.sliding_window.filter(|_| applies)
    }

    /// The most tokens of a sequence that the model can take at all: as many as it
    /// has learned places. Rotary positions know no end.
    pub fn longest_sequence(&self) -> Option<usize> {
        (self.positions == Positions::Learned).then_some(self.max_position_embeddings)
    }

    pub fn rope(&self) -> Option<&Rope> {
        match &self.positions {
            Positions::Rotary(rope) => Some(rope),
            Positions::Learned => None,
        }
    }

    /// The rotary frequencies in f32, `head_dim / 2` of them; none where positions
    /// are learned.
    pub fn inv_freq(&self) -> Vec<f32> {
        match self.rope() {
            Some(rope) => rope.inv_freq(self.head_dim),
            None => Vec::new(),
        }
    }
}
