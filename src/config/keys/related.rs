//! Keys that act on the same thing, and values to try: what `run explain` says beside
//! a key's own entry.

use super::{Default, Key, Kind};

/// A symptom, or a subject, and the keys to look at, the first one first.
pub struct Bundle {
    pub about: &'static str,
    pub keys: &'static [&'static str],
}

pub const BUNDLES: &[Bundle] = &[
    Bundle {
        about: "the model is not learning",
        keys: &[
            "training.learning_rate",
            "lora.r",
            "lora.alpha",
            "lora.target_modules",
            "training.epochs",
        ],
    },
    Bundle {
        about: "overfitting",
        keys: &[
            "training.epochs",
            "lora.dropout",
            "training.weight_decay",
            "lora.r",
            "training.val_ratio",
            "training.early_stopping_patience",
            "training.load_best_model_at_end",
            "training.metric_for_best_model",
            "training.eval_steps",
        ],
    },
    Bundle {
        about: "the loss jumps",
        keys: &[
            "training.learning_rate",
            "training.max_grad_norm",
            "training.warmup_ratio",
            "training.warmup_steps",
            "training.gradient_accumulation_steps",
            "lora.alpha",
        ],
    },
    Bundle {
        about: "memory runs out",
        keys: &[
            "training.batch_size",
            "training.gradient_accumulation_steps",
            "training.max_seq_length",
            "training.gradient_checkpointing",
            "training.activation_offloading",
            "quantization.method",
            "lora.r",
            "training.optimizer",
            "inference.batch_size",
        ],
    },
    Bundle {
        about: "strength of the adapter",
        keys: &[
            "lora.r",
            "lora.alpha",
            "lora.rank_pattern",
            "lora.alpha_pattern",
            "lora.use_rslora",
            "lora.use_dora",
            "lora.init_lora_weights",
            "lora.loftq_iter",
        ],
    },
    Bundle {
        about: "course of the learning rate",
        keys: &[
            "training.learning_rate",
            "training.scheduler",
            "training.warmup_ratio",
            "training.warmup_steps",
            "training.decay_ratio",
        ],
    },
    Bundle {
        about: "AdamW",
        keys: &[
            "training.optimizer",
            "training.learning_rate",
            "training.adam_beta1",
            "training.adam_beta2",
            "training.adam_epsilon",
            "training.weight_decay",
        ],
    },
    Bundle {
        about: "length of a run",
        keys: &[
            "training.epochs",
            "training.max_steps",
            "training.early_stopping_patience",
            "training.batch_size",
            "training.gradient_accumulation_steps",
        ],
    },
    Bundle {
        about: "checkpoints",
        keys: &[
            "training.save_steps",
            "training.save_total_limit",
            "training.resume",
            "training.load_best_model_at_end",
        ],
    },
    Bundle {
        about: "figures while training",
        keys: &[
            "training.logging_steps",
            "training.eval_steps",
            "training.eval_examples",
            "training.metric_for_best_model",
            "training.val_ratio",
            "task.metrics",
        ],
    },
    Bundle {
        about: "precision",
        keys: &["training.bf16", "training.fp16", "device"],
    },
    Bundle {
        about: "what repeats a run",
        keys: &["seed", "training.shuffle", "device"],
    },
    Bundle {
        about: "variety of answers",
        keys: &[
            "inference.do_sample",
            "inference.temperature",
            "inference.top_p",
            "inference.top_k",
            "inference.min_p",
            "inference.repetition_penalty",
            "seed",
        ],
    },
    Bundle {
        about: "beam search",
        keys: &[
            "inference.num_beams",
            "inference.length_penalty",
            "inference.early_stopping",
            "inference.do_sample",
        ],
    },
    Bundle {
        about: "where an answer ends",
        keys: &[
            "inference.max_new_tokens",
            "inference.use_stop_tokens",
            "inference.stop",
        ],
    },
    Bundle {
        about: "form of answers",
        keys: &[
            "inference.validation.enabled",
            "inference.validation.max_retries",
            "task.type",
        ],
    },
    Bundle {
        about: "which base",
        keys: &["model.path", "model.name", "model.revision", "model.init"],
    },
    Bundle {
        about: "which adapter",
        keys: &["adapter", "lora.init_from", "task.name"],
    },
    Bundle {
        about: "chats",
        keys: &[
            "prompt.chat_template",
            "prompt.chat_template_file",
            "prompt.system",
            "data.format",
        ],
    },
    Bundle {
        about: "the text of a prompt",
        keys: &[
            "prompt.template",
            "prompt.answer",
            "prompt.option",
            "prompt.option_separator",
            "training.max_seq_length",
        ],
    },
    Bundle {
        about: "who writes synthetic data",
        keys: &[
            "synth.base_url",
            "synth.model",
            "synth.path",
            "synth.api_key_env",
            "synth.temperature",
            "synth.max_tokens",
        ],
    },
    Bundle {
        about: "who judges",
        keys: &[
            "task.metrics",
            "judge.base_url",
            "judge.model",
            "judge.path",
            "judge.api_key_env",
            "judge.cache",
        ],
    },
    Bundle {
        about: "requests fail or take too long",
        keys: &[
            "synth.timeout_s",
            "synth.max_retries",
            "synth.concurrency",
            "synth.max_tokens",
            "judge.timeout_s",
            "judge.max_retries",
            "judge.concurrency",
            "judge.max_tokens",
        ],
    },
    Bundle {
        about: "which synthetic pairs are made and kept",
        keys: &[
            "synth.abstracts",
            "synth.answers",
            "synth.refusals",
            "synth.corrections",
            "synth.max_attempts",
            "synth.review",
            "synth.min_grounded",
            "synth.max_overlap",
        ],
    },
    Bundle {
        about: "which data",
        keys: &[
            "data.path",
            "data.test_path",
            "data.format",
            "training.val_ratio",
            "task.max_test_examples",
        ],
    },
];

/// The bundles that a key belongs to.
pub fn bundles(name: &str) -> impl Iterator<Item = &'static Bundle> {
    BUNDLES
        .iter()
        .filter(move |bundle| bundle.keys.contains(&name))
}

impl Key {
    /// An override that gives the key another value than its default, as typed in a
    /// shell.
    pub fn example(&self) -> String {
        format!("{}={}", self.name, self.another_value())
    }

    fn another_value(&self) -> String {
        // Where any value has the right type, but few make sense.
        let known = match self.name {
            "prompt.template" => Some("'\"Q: {question} A:\"'"),
            "prompt.answer" => Some("'\" {answer}\"'"),
            "prompt.option" => Some("'\"{letter}. {text}\"'"),
            "prompt.option_separator" => Some("'\" | \"'"),
            "prompt.system" => Some("'\"Answer briefly.\"'"),
            "hydra.run.dir" => Some("outputs/mine"),
            "hydra.sweep.dir" => Some("outputs/my-sweep"),
            "hydra.sweep.subdir" => Some("'${hydra.job.override_dirname}'"),
            "hydra.job.name" => Some("mine"),
            "hydra.sweeper.zip" => Some("[[lora.r,lora.alpha]]"),
            "hydra.searchpath" => Some("[file://my/configs]"),
            "model.name" => Some("Qwen/Qwen2.5-3B-Instruct"),
            "model.revision" => Some("main"),
            "task.name" => Some("mine"),
            "task.metrics" => Some("[exact_match,f1]"),
            "inference.stop" => Some("'[\"\\n\\n\"]'"),
            "lora.target_modules" => Some("all-linear"),
            "lora.exclude_modules" => Some("[layers.0.self_attn.q_proj]"),
            "lora.rank_pattern" => Some("{q_proj:8}"),
            "lora.alpha_pattern" => Some("{q_proj:16}"),
            "lora.init_lora_weights" => Some("pissa"),
            "training.resume" => Some("auto"),
            "training.bf16" => Some("true"),
            "training.warmup_steps" => Some("20"),
            "training.max_steps" => Some("100"),
            "training.early_stopping_patience" => Some("3"),
            "task.max_test_examples" => Some("100"),
            "inference.top_k" => Some("50"),
            "inference.top_p" => Some("0.9"),
            "inference.temperature" => Some("0.7"),
            "inference.repetition_penalty" => Some("1.2"),
            "inference.min_p" => Some("0.05"),
            "inference.num_beams" => Some("4"),
            "quantization.block_size" => Some("128"),
            "training.max_grad_norm" => Some("0.3"),
            "training.weight_decay" => Some("0.01"),
            "training.learning_rate" => Some("5e-5"),
            "training.eval_examples" => Some("50"),
            "training.adam_beta1" => Some("0.95"),
            "training.adam_beta2" => Some("0.99"),
            "evaluate.sas_model" => Some("sentence-transformers/all-MiniLM-L6-v2"),
            "inference.clean" => Some("[thinking,whitespace]"),
            "prompt.chat_template_file" => Some("template.jinja"),
            "synth.base_url" | "judge.base_url" => Some("http://127.0.0.1:8000/v1"),
            "synth.api_key_env" | "judge.api_key_env" => Some("MY_KEY"),
            "synth.system" => Some("'\"Answer briefly.\"'"),
            _ => None,
        };
        if let Some(known) = known {
            return known.to_string();
        }
        let other = |words: &[&str]| {
            let default = self.default.to_string();
            let word = words.iter().find(|word| **word != default);
            word.map_or(default.clone(), ToString::to_string)
        };
        match &self.kind {
            Kind::LoraInit => "gaussian".to_string(),
            Kind::Bool | Kind::BoolOr(_) => (self.default != Default::Bool(true)).to_string(),
            Kind::Int(range) => {
                let now = match self.default {
                    Default::Int(now) => now,
                    _ => 0,
                };
                let twice = (now * 2).max(1);
                match range.contains(twice as f64) {
                    true => twice.to_string(),
                    false => (now / 2).to_string(),
                }
            }
            Kind::Float(range) => {
                let now = match self.default {
                    Default::Float(now) => now,
                    Default::Int(now) => now as f64,
                    _ => range.min.max(0.0),
                };
                let twice = if now == 0.0 { 0.1 } else { now * 2.0 };
                match range.contains(twice) {
                    true => twice.to_string(),
                    false => (now / 2.0).to_string(),
                }
            }
            Kind::Enum(words) => other(words),
            Kind::Words(words) => format!("[{}]", other(words)),
            Kind::Device => "cpu".to_string(),
            Kind::Path => "PATH".to_string(),
            Kind::IntOrInts(_) => "[0,1]".to_string(),
            Kind::IntByName(_) | Kind::FloatByName(_) => "{q_proj:8}".to_string(),
            Kind::Str | Kind::Strings | Kind::StringsOr(_) => {
                self.name.rsplit('.').next().unwrap_or("x").to_string()
            }
        }
    }

    /// The command that most often sets it.
    pub fn command(&self) -> &'static str {
        let under = |prefix: &str| self.name.starts_with(prefix);
        match self.name {
            "adapter" | "output" => "infer",
            _ if under("inference.") => "infer",
            _ if under("evaluate.") => "eval",
            _ if under("export.") => "merge",
            _ if under("synth.") => "synth",
            _ if under("judge.") => "eval",
            _ => "train",
        }
    }

    /// Keys that its own text names: by their full name, or by the last part of it
    /// where that is no plain word.
    pub fn mentions(&self) -> Vec<&'static str> {
        let text = format!("{} {}", self.help, self.about);
        let is_part = |c: char| c.is_alphanumeric() || "_.-".contains(c);
        let words: Vec<&str> = text
            .split(|c| !is_part(c))
            .map(|word| word.trim_matches('.'))
            .collect();
        let section = self.name.split('.').next();
        super::all()
            .filter(|key| key.name != self.name)
            .filter(|key| {
                let last = key.name.rsplit('.').next().unwrap_or(key.name);
                let near = key.name.split('.').next() == section;
                let telling = last.contains('_') || matches!(last, "alpha" | "seed" | "r");
                words.contains(&key.name) && key.name.contains('.')
                    || near && telling && words.contains(&last)
            })
            .map(|key| key.name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{all, find};
    use super::*;

    #[test]
    fn bundles_name_keys_of_the_table() {
        for name in BUNDLES.iter().flat_map(|bundle| bundle.keys) {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_example_differs_from_the_default_and_passes_the_schema() {
        for key in all() {
            let example = key.example();
            let (_, value) = example.split_once('=').unwrap();
            assert_ne!(value, key.default.to_string(), "{}", key.name);
            // As the shell hands it over.
            let typed = example.replace('\'', "");
            let request = crate::compose::Request {
                sources: crate::config::search_path(None, None),
                config_name: Some("config".to_string()),
                overrides: vec![typed.clone()],
                closed: Some(crate::config::key_called),
                ..crate::compose::Request::default()
            };
            let composed =
                crate::compose::compose(&request).unwrap_or_else(|e| panic!("{typed}: {e}"));
            let strict = crate::config::Strictness::Printable;
            let errors = crate::config::check(&composed.job, strict);
            assert!(errors.is_empty(), "{typed}: {errors:?}");
        }
    }

    #[test]
    fn mentions_are_keys_not_words() {
        let of = |name: &str| find(name).unwrap().mentions();
        assert!(of("training.batch_size").contains(&"training.gradient_accumulation_steps"));
        assert!(of("lora.r").contains(&"lora.alpha"));
        assert!(!of("prompt.template").contains(&"prompt.answer"));
    }
}
