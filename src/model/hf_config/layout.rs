//! The modules and tensors of a checkpoint: their names, shapes and orientation.

use super::arch::{ArchConfig, MlpKind, Naming, NormKind, Positions};

/// A linear layer of the model: `y = x W^T (+ b)` with `W` of [out, in].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Module path, e.g. `model.layers.0.self_attn.q_proj`.
    pub module: String,
    pub out_features: usize,
    pub in_features: usize,
    pub bias: bool,
    /// The checkpoint stores `W^T`, as transformers' Conv1D does.
    pub transposed: bool,
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

impl Linear {
    /// The weight as the checkpoint stores it.
    pub fn weight(&self) -> Parameter {
        let shape = match self.transposed {
            true => [self.in_features, self.out_features],
            false => [self.out_features, self.in_features],
        };
        Parameter::new(format!("{}.weight", self.module), &shape)
    }
}

impl ArchConfig {
    /// Every linear layer of the decoder layers, in the order of the model's
    /// modules. The output projection is [`ArchConfig::lm_head`].
    pub fn linears(&self) -> Vec<Linear> {
        (0..self.num_layers)
            .flat_map(|layer| self.layer_linears(layer))
            .collect()
    }

    /// Of one layer: first q, k and v (or all three in one), then the projection
    /// after attention, then the feed-forward part's.
    pub fn layer_linears(&self, layer: usize) -> Vec<Linear> {
        let d = self.hidden_size;
        let heads = self.num_heads * self.head_dim;
        let kv = self.num_kv_heads * self.head_dim;
        let f = self.intermediate_size;
        let (qkv, out, mlp) = (self.qkv_bias, self.out_bias, self.mlp_bias);
        let (attention, transposed): (&[_], bool) = match self.naming {
            Naming::Llama => (
                &[
                    ("self_attn.q_proj", heads, d, qkv),
                    ("self_attn.k_proj", kv, d, qkv),
                    ("self_attn.v_proj", kv, d, qkv),
                    ("self_attn.o_proj", d, heads, out),
                ],
                false,
            ),
            Naming::Gpt2 => (
                &[
                    ("attn.c_attn", heads + 2 * kv, d, qkv),
                    ("attn.c_proj", d, heads, out),
                ],
                true,
            ),
        };
        let feed_forward: &[_] = match self.mlp {
            MlpKind::SwiGlu => &[
                ("mlp.gate_proj", f, d, mlp),
                ("mlp.up_proj", f, d, mlp),
                ("mlp.down_proj", d, f, mlp),
            ],
            MlpKind::Gelu => &[("mlp.c_fc", f, d, mlp), ("mlp.c_proj", d, f, mlp)],
        };
        let prefix = self.layer_prefix(layer);
        let all = attention.iter().chain(feed_forward);
        all.map(|&(name, out_features, in_features, bias)| Linear {
            module: format!("{prefix}.{name}"),
            out_features,
            in_features,
            bias,
            transposed,
        })
        .collect()
    }

    /// How many of a layer's linears make q, k and v: three, or one for all.
    pub fn qkv_linears(&self) -> usize {
        match self.naming {
            Naming::Llama => 3,
            Naming::Gpt2 => 1,
        }
    }

    /// The output projection; with `tie_word_embeddings` its weight is the
    /// embedding's.
    pub fn lm_head(&self) -> Linear {
        Linear {
            module: "lm_head".into(),
            out_features: self.vocab_size,
            in_features: self.hidden_size,
            bias: false,
            transposed: false,
        }
    }

    pub fn layer_prefix(&self, layer: usize) -> String {
        match self.naming {
            Naming::Llama => format!("model.layers.{layer}"),
            Naming::Gpt2 => format!("transformer.h.{layer}"),
        }
    }

    /// What transformers calls the part under the output projection. Checkpoints
    /// saved from that part alone lack it in their names.
    pub fn base_prefix(&self) -> &'static str {
        match self.naming {
            Naming::Llama => "model.",
            Naming::Gpt2 => "transformer.",
        }
    }

    /// The embedding's tensor.
    pub fn embedding(&self) -> Parameter {
        let name = match self.naming {
            Naming::Llama => "model.embed_tokens.weight",
            Naming::Gpt2 => "transformer.wte.weight",
        };
        Parameter::new(name, &[self.vocab_size, self.hidden_size])
    }

    /// The table of learned positions, where there is one.
    pub fn position_embedding(&self) -> Option<Parameter> {
        let shape = [self.max_position_embeddings, self.hidden_size];
        (self.positions == Positions::Learned)
            .then(|| Parameter::new("transformer.wpe.weight", &shape))
    }

    /// Modules of a layer's norms: before attention, and before the feed-forward
    /// part.
    pub fn layer_norms(&self, layer: usize) -> [String; 2] {
        let names = match self.naming {
            Naming::Llama => ["input_layernorm", "post_attention_layernorm"],
            Naming::Gpt2 => ["ln_1", "ln_2"],
        };
        let prefix = self.layer_prefix(layer);
        names.map(|name| format!("{prefix}.{name}"))
    }

    /// Modules of the norms over the heads of q and k, where there are any.
    pub fn qk_norms(&self, layer: usize) -> Option<[String; 2]> {
        let prefix = self.layer_prefix(layer);
        self.qk_norm
            .then(|| ["q_norm", "k_norm"].map(|name| format!("{prefix}.self_attn.{name}")))
    }

    /// Module of the norm before the output projection.
    pub fn final_norm(&self) -> &'static str {
        match self.naming {
            Naming::Llama => "model.norm",
            Naming::Gpt2 => "transformer.ln_f",
        }
    }

    fn norm_parameters(&self, module: &str, width: usize) -> Vec<Parameter> {
        let mut all = vec![Parameter::new(format!("{module}.weight"), &[width])];
        if self.norm == NormKind::Layer {
            all.push(Parameter::new(format!("{module}.bias"), &[width]));
        }
        all
    }

    /// Every tensor that a checkpoint of this model holds.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut all = vec![self.embedding()];
        all.extend(self.position_embedding());
        for layer in 0..self.num_layers {
            for linear in self.layer_linears(layer) {
                all.push(linear.weight());
                if linear.bias {
                    let name = format!("{}.bias", linear.module);
                    all.push(Parameter::new(name, &[linear.out_features]));
                }
            }
            for module in self.qk_norms(layer).into_iter().flatten() {
                all.extend(self.norm_parameters(&module, self.head_dim));
            }
            for module in self.layer_norms(layer) {
                all.extend(self.norm_parameters(&module, self.hidden_size));
            }
        }
        all.extend(self.norm_parameters(self.final_norm(), self.hidden_size));
        if !self.tie_word_embeddings {
            all.push(self.lm_head().weight());
        }
        all
    }

    /// Number of weights, a tied matrix counted once.
    pub fn num_parameters(&self) -> usize {
        self.parameters().iter().map(Parameter::numel).sum()
    }
}
