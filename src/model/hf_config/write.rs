//! An architecture back to the files that transformers 4 and 5 both read: the
//! rotary settings and the storage type stand in both styles.

use serde_json::{Map, Value, json};

use super::arch::{ArchConfig, Naming};
use super::rope::{Rope, RopeScaling};

impl ArchConfig {
    /// The text of a `config.json`.
    pub fn to_json(&self) -> String {
        let mut object = match self.naming {
            Naming::Llama => self.llama_json(),
            Naming::Gpt2 => self.gpt2_json(),
        };
        let common = [
            ("bos_token_id", json!(self.bos_token_id)),
            ("eos_token_id", eos_value(&self.eos_token_ids)),
            ("initializer_range", json!(self.initializer_range)),
            ("model_type", json!(self.model_type)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("use_cache", json!(true)),
            ("vocab_size", json!(self.vocab_size)),
        ];
        for (key, value) in common {
            object[key] = value;
        }
        for (key, share) in &self.dropout {
            object[key] = json!(share);
        }
        if let Some(dtype) = &self.dtype {
            object["dtype"] = json!(dtype);
            object["torch_dtype"] = json!(dtype);
        }
        object.sort_all_objects();
        format!("{object:#}\n")
    }

    fn llama_json(&self) -> Value {
        let class = match self.model_type.as_str() {
            "mistral" => "MistralForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => "LlamaForCausalLM",
        };
        let mut object = json!({
            "architectures": [class],
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_heads,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.num_kv_heads,
            "rms_norm_eps": self.norm_eps,
        });
        if let Some(rope) = self.rope() {
            let [parameters, scaling] = rope_values(rope);
            object["rope_parameters"] = parameters;
            object["rope_scaling"] = scaling;
            object["rope_theta"] = json!(rope.theta);
        }
        match self.model_type.as_str() {
            "mistral" => {
                object["sliding_window"] = json!(self.sliding_window);
                // Named only where it says something: transformers 5 takes a Mistral
                // with layer_types for a Ministral.
                if self.sliding_window.is_some() && self.window_layers.contains(&false) {
                    object["layer_types"] = json!(self.layer_types());
                }
            }
            "qwen2" | "qwen3" => self.write_switched_window(&mut object),
            _ => {}
        }
        if ["llama", "qwen3"].contains(&self.model_type.as_str()) {
            object["attention_bias"] = json!(self.qkv_bias);
        }
        if self.model_type == "llama" {
            object["mlp_bias"] = json!(self.mlp_bias);
        }
        object
    }

    fn layer_types(&self) -> Vec<&'static str> {
        let kind = |&windowed: &bool| match windowed {
            true => "sliding_attention",
            false => "full_attention",
        };
        self.window_layers.iter().map(kind).collect()
    }

    fn write_switched_window(&self, object: &mut Value) {
        // transformers 4 goes by the first layer that slides.
        let first = self.window_layers.iter().position(|windowed| *windowed);
        object["layer_types"] = json!(self.layer_types());
        object["max_window_layers"] = json!(first.unwrap_or(self.num_layers));
        object["sliding_window"] = json!(self.sliding_window);
        object["use_sliding_window"] = json!(self.sliding_window.is_some());
    }

    fn gpt2_json(&self) -> Value {
        json!({
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "layer_norm_epsilon": self.norm_eps,
            "n_ctx": self.max_position_embeddings,
            "n_embd": self.hidden_size,
            "n_head": self.num_heads,
            "n_inner": self.intermediate_size,
            "n_layer": self.num_layers,
            "n_positions": self.max_position_embeddings,
        })
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

/// `rope_parameters` of transformers 5 and `rope_scaling` of transformers 4.
fn rope_values(rope: &Rope) -> [Value; 2] {
    let mut object = match rope.scaling {
        RopeScaling::None => json!({"rope_type": "default"}),
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position,
        }),
    };
    let scaling = match rope.scaling {
        RopeScaling::None => Value::Null,
        _ => object.clone(),
    };
    object["rope_theta"] = json!(rope.theta);
    [object, scaling]
}

/// One end token as a number, several as a list, as transformers writes them.
fn eos_value(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}
