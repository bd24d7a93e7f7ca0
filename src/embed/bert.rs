//! The encoder: attention in both directions, learned positions, a LayerNorm after
//! each residual (Devlin et al., 2019; the layout of transformers' BertModel).

use burn::tensor::Tensor;

use super::config::{Activation, BertConfig};
use crate::model::checkpoint::{Checkpoint, CheckpointError};
use crate::ops::cpu::{CPU, tensor2};
use crate::ops::{AttentionShape, HotOps, Indices, Span, Spans};

struct Linear {
    /// `[out, in]`.
    weight: Tensor<2>,
    /// `[1, out]`.
    bias: Tensor<2>,
}

impl Linear {
    fn forward(&self, x: &Tensor<2>) -> Tensor<2> {
        CPU.add_bias(CPU.gemm(x, false, &self.weight, true, 1.0), &self.bias)
    }
}

struct Norm {
    gain: Tensor<2>,
    bias: Tensor<2>,
    eps: f32,
}

impl Norm {
    fn forward(&self, x: &Tensor<2>) -> Tensor<2> {
        CPU.layer_norm(x, &self.gain, &self.bias, self.eps)
    }
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

pub(super) struct Bert {
    pub vocab: usize,
    pub hidden: usize,
    attention: AttentionShape,
    activation: Activation,
    /// `[vocab, hidden]`.
    words: Tensor<2>,
    /// `[positions, hidden]`, with the vector of the first token type added: a text
    /// by itself is all of that type.
    positions: Tensor<2>,
    norm: Norm,
    layers: Vec<Layer>,
}

/// Checks without reading data that all tensors are there in their shapes.
pub(super) fn check(weights: &Checkpoint, config: &BertConfig) -> Result<(), CheckpointError> {
    Reader::new(weights, true).bert(config).map(drop)
}

impl Bert {
    pub fn load(weights: &Checkpoint, config: &BertConfig) -> Result<Self, CheckpointError> {
        Reader::new(weights, false).bert(config)
    }

    /// The last layer's output of all tokens of all texts, row after row, each `hidden`
    /// wide.
    pub fn forward(&self, batch: &[Vec<u32>]) -> Vec<f32> {
        let mut spans = Vec::with_capacity(batch.len());
        let (mut ids, mut places) = (Indices::default(), Indices::default());
        for text in batch {
            spans.push(Span {
                q_start: ids.len(),
                q_len: text.len(),
                k_start: ids.len(),
                k_len: text.len(),
            });
            ids.extend(text.iter().copied());
            places.extend(0..text.len() as u32);
        }
        let spans = Spans::from(spans);
        let x = CPU.gather_rows(&self.words, &ids);
        let x = CPU.add(x, &CPU.gather_rows(&self.positions, &places));
        let mut x = self.norm.forward(&x);
        for layer in &self.layers {
            x = self.layer(layer, x, &spans);
        }
        CPU.values(&x)
    }

    fn layer(&self, layer: &Layer, x: Tensor<2>, spans: &Spans) -> Tensor<2> {
        let x = layer.attention_norm.forward(&self.attend(layer, x, spans));
        let inner = self.activate(layer.up.forward(&x));
        let x = CPU.add(layer.down.forward(&inner), &x);
        drop(inner);
        layer.norm.forward(&x)
    }

    fn attend(&self, layer: &Layer, x: Tensor<2>, spans: &Spans) -> Tensor<2> {
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|linear| linear.forward(&x));
        let seen = CPU.attention_both_ways(&q, &k, &v, spans, self.attention);
        CPU.add(layer.attention.forward(&seen), &x)
    }

    fn activate(&self, x: Tensor<2>) -> Tensor<2> {
        match self.activation {
            Activation::Gelu => CPU.gelu_erf(&x),
            Activation::GeluTanh => CPU.gelu(&x),
        }
    }
}

/// Reads tensors by the names of BertModel, with or without what a model with a head
/// puts before them.
struct Reader<'a> {
    weights: &'a Checkpoint,
    prefix: &'static str,
    /// Look at the headers, read no data.
    dry: bool,
}

impl<'a> Reader<'a> {
    fn new(weights: &'a Checkpoint, dry: bool) -> Self {
        let bare = weights.contains("embeddings.word_embeddings.weight");
        Self {
            weights,
            prefix: if bare { "" } else { "bert." },
            dry,
        }
    }

    /// A tensor with `shape` in the file, as rows of `width`.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let name = format!("{}{name}", self.prefix);
        match self.dry {
            true => self.weights.expect(&name, shape).map(|()| Vec::new()),
            false => self.weights.tensor_f32(&name, shape),
        }
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>, CheckpointError> {
        self.tensor(name, &shape)
            .map(|data| self.whole(data, shape))
    }

    fn vector(&self, name: &str, width: usize) -> Result<Tensor<2>, CheckpointError> {
        let data = self.tensor(name, &[width])?;
        Ok(self.whole(data, [1, width]))
    }

    fn whole(&self, data: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
        match self.dry {
            true => tensor2(vec![0.0], [1, 1]),
            false => tensor2(data, shape),
        }
    }

    fn linear(&self, name: &str, to: usize, from: usize) -> Result<Linear, CheckpointError> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), [to, from])?,
            bias: self.vector(&format!("{name}.bias"), to)?,
        })
    }

    fn norm(&self, name: &str, config: &BertConfig) -> Result<Norm, CheckpointError> {
        // Checkpoints converted from TensorFlow keep its names.
        let old = self
            .weights
            .contains(&format!("{}{name}.gamma", self.prefix));
        let [gain, bias] = match old {
            true => ["gamma", "beta"],
            false => ["weight", "bias"],
        };
        Ok(Norm {
            gain: self.vector(&format!("{name}.{gain}"), config.hidden)?,
            bias: self.vector(&format!("{name}.{bias}"), config.hidden)?,
            eps: config.eps,
        })
    }

    fn bert(&self, config: &BertConfig) -> Result<Bert, CheckpointError> {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let table =
            |name: &str, rows| self.tensor(&format!("embeddings.{name}.weight"), &[rows, hidden]);
        let words = table("word_embeddings", config.vocab)?;
        let mut positions = table("position_embeddings", config.positions)?;
        let types = table("token_type_embeddings", config.token_types)?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(x, t)| *x += t);
        }
        let norm = self.norm("embeddings.LayerNorm", config)?;
        let mut layers = Vec::new();
        for i in 0..config.layers {
            let at = format!("encoder.layer.{i}");
            layers.push(Layer {
                query: self.linear(&format!("{at}.attention.self.query"), hidden, hidden)?,
                key: self.linear(&format!("{at}.attention.self.key"), hidden, hidden)?,
                value: self.linear(&format!("{at}.attention.self.value"), hidden, hidden)?,
                attention: self.linear(&format!("{at}.attention.output.dense"), hidden, hidden)?,
                attention_norm: self.norm(&format!("{at}.attention.output.LayerNorm"), config)?,
                up: self.linear(&format!("{at}.intermediate.dense"), inner, hidden)?,
                down: self.linear(&format!("{at}.output.dense"), hidden, inner)?,
                norm: self.norm(&format!("{at}.output.LayerNorm"), config)?,
            });
        }
        let head_dim = hidden / config.heads;
        Ok(Bert {
            vocab: config.vocab,
            hidden,
            attention: AttentionShape {
                heads: config.heads,
                kv_heads: config.heads,
                head_dim,
                scale: (head_dim as f32).sqrt().recip(),
                window: None,
            },
            activation: config.activation,
            words: self.whole(words, [config.vocab, hidden]),
            positions: self.whole(positions, [config.positions, hidden]),
            norm,
            layers,
        })
    }
}
