//! What a directory of sentence-transformers says: the encoder's config.json, the
//! modules, the pooling, the longest text.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::error::EmbedError;
use super::pooling::{Mode, Pooling};
use crate::model::hf_config::ConfigError;
use crate::model::hf_config::keys::{Keys, parse_object, read};

/// Largest size of anything in a config.json.
const MOST: usize = 1 << 24;
/// `model_max_length` of a tokenizer without a bound is a number far above this.
const LONGEST: f64 = 1e6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// By the error function.
    Gelu,
    GeluTanh,
}

/// The shape of the encoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BertConfig {
    pub vocab: usize,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
    /// Learned positions: the longest text in tokens.
    pub positions: usize,
    pub token_types: usize,
    pub eps: f32,
    pub activation: Activation,
}

impl BertConfig {
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let file = dir.join("config.json");
        let object = parse_object(&read(&file)?, &file)?;
        let keys = Keys::new(&object, &file);
        let family = keys.string("model_type")?.unwrap_or_default();
        if family != "bert" {
            return Err(keys.unsupported("a sentence encoder of model_type", &family, &["bert"]));
        }
        let kind = keys.string("position_embedding_type")?;
        if let Some(kind) = kind.filter(|kind| kind != "absolute") {
            return Err(keys.unsupported("position_embedding_type", &kind, &["absolute"]));
        }
        if keys.boolean("is_decoder")? == Some(true) {
            return Err(keys.error(
                "is_decoder",
                "is true: this is a decoder, not an encoder".into(),
            ));
        }
        let name = keys
            .string("hidden_act")?
            .unwrap_or_else(|| "gelu".to_string());
        let activation = match name.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            other => {
                let known = ["gelu", "gelu_new", "gelu_pytorch_tanh"];
                return Err(keys.unsupported("hidden_act", other, &known));
            }
        };
        let config = Self {
            vocab: keys.size("vocab_size", MOST)?,
            hidden: keys.size("hidden_size", MOST)?,
            layers: keys.size("num_hidden_layers", MOST)?,
            heads: keys.size("num_attention_heads", MOST)?,
            intermediate: keys.size("intermediate_size", MOST)?,
            positions: keys.size("max_position_embeddings", MOST)?,
            token_types: keys.optional_size("type_vocab_size", MOST)?.unwrap_or(2),
            eps: keys.positive("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            activation,
        };
        if !config.hidden.is_multiple_of(config.heads) {
            let problem = format!(
                "is {}, which hidden_size={} is no multiple of",
                config.heads, config.hidden
            );
            return Err(keys.error("num_attention_heads", problem));
        }
        Ok(config)
    }
}

/// Where the encoder lies and what is done with its vectors.
#[derive(Debug, PartialEq)]
pub(super) struct Layout {
    pub transformer: PathBuf,
    pub pooling: Pooling,
    /// The longest text in tokens, special ones included, with the file and the key that
    /// say so.
    max_tokens: Option<(usize, PathBuf, &'static str)>,
    pub lower_case: bool,
}

impl Layout {
    /// The longest text in tokens that an encoder of this shape reads.
    pub fn max_tokens(&self, config: &BertConfig) -> usize {
        let positions = config.positions;
        let said = self.max_tokens.as_ref();
        said.map_or(positions, |(most, ..)| (*most).min(positions))
    }

    /// Checks that a text has room beside the `special` tokens around it.
    ///
    /// # Errors
    /// Names the file and the key that leave it none.
    pub fn check_room(&self, config: &BertConfig, special: usize) -> Result<(), EmbedError> {
        let most = self.max_tokens(config);
        if most > special {
            return Ok(());
        }
        let (file, key) = match &self.max_tokens {
            Some((said, file, key)) if *said == most => (file.clone(), *key),
            _ => {
                let file = self.transformer.join("config.json");
                (file, "max_position_embeddings")
            }
        };
        Err(EmbedError::Layout {
            file,
            what: format!(
                "`{key}` allows {most} tokens and the special tokens around a text are {special}, so that \
                 nothing of it would be read: copy the file again from the model's page"
            ),
        })
    }

    pub fn read(dir: &Path) -> Result<Self, EmbedError> {
        let mut layout = Self {
            transformer: dir.to_path_buf(),
            pooling: Pooling {
                modes: vec![Mode::Mean],
                normalize: false,
            },
            max_tokens: None,
            lower_case: false,
        };
        let modules = dir.join("modules.json");
        if modules.is_file() {
            layout.read_modules(dir, &modules)?;
        }
        let prompts = dir.join("config_sentence_transformers.json");
        if prompts.is_file() {
            let object = parse_object(&read(&prompts)?, &prompts)?;
            if let Some(name) = Keys::new(&object, &prompts).string("default_prompt_name")? {
                return Err(EmbedError::Layout {
                    file: prompts,
                    what: format!(
                        "puts the prompt `{name}` before every text, which is not supported: choose a \
                         model without a default prompt"
                    ),
                });
            }
        }
        layout.read_lengths()?;
        Ok(layout)
    }

    /// The transformer comes first, then the pooling, then a normalisation or none.
    fn read_modules(&mut self, dir: &Path, file: &Path) -> Result<(), EmbedError> {
        let bad = |what: String| EmbedError::Layout {
            file: file.to_path_buf(),
            what,
        };
        let value: Value = serde_json::from_str(&read(file)?).map_err(|e| {
            bad(format!(
                "bad JSON: {e}: copy the file again from the model's page"
            ))
        })?;
        let modules = value.as_array();
        let modules = modules.ok_or_else(|| bad("must hold a list of modules".to_string()))?;
        for (place, module) in modules.iter().enumerate() {
            let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = text("type").rsplit('.').next().unwrap_or_default();
            let path = Path::new(text("path"));
            if !path
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
            {
                return Err(bad(format!(
                    "module {place} lies outside the model's directory"
                )));
            }
            match (place, kind) {
                (0, "Transformer") => self.transformer = dir.join(path),
                (1, "Pooling") => {
                    self.pooling.modes = read_pooling(&dir.join(path).join("config.json"))?
                }
                (2, "Normalize") => self.pooling.normalize = true,
                _ => {
                    return Err(bad(format!(
                        "module {place} is `{}`, which is not supported; supported: a Transformer, a \
                         Pooling, a Normalize, in this order",
                        text("type")
                    )));
                }
            }
        }
        Ok(())
    }

    fn read_lengths(&mut self) -> Result<(), EmbedError> {
        let file = self.transformer.join("sentence_bert_config.json");
        if file.is_file() {
            let object = parse_object(&read(&file)?, &file)?;
            let keys = Keys::new(&object, &file);
            let key = "max_seq_length";
            let most = keys.optional_size(key, MOST)?;
            self.lower_case = keys.boolean("do_lower_case")?.unwrap_or(false);
            self.max_tokens = most.map(|most| (most, file.clone(), key));
        }
        let file = self.transformer.join("tokenizer_config.json");
        if self.max_tokens.is_none() && file.is_file() {
            let object = parse_object(&read(&file)?, &file)?;
            let key = "model_max_length";
            let most = object.get(key).and_then(Value::as_f64);
            self.max_tokens = most
                .filter(|most| *most < LONGEST)
                .map(|most| (most as usize, file, key));
        }
        Ok(())
    }
}

/// `pooling_mode`, one or several, or the older switches of which each turns one on.
fn read_pooling(file: &Path) -> Result<Vec<Mode>, EmbedError> {
    let object = parse_object(&read(file)?, file)?;
    let keys = Keys::new(&object, file);
    let named = match object.get("pooling_mode") {
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(_) => keys.strings("pooling_mode")?,
        None => None,
    };
    let supported: Vec<&str> = Mode::NAMES.iter().map(|(_, name, _)| *name).collect();
    if let Some(named) = named {
        let mode = |name: &String| {
            let found = Mode::NAMES.iter().find(|(_, known, _)| known == name);
            found
                .map(|(mode, ..)| *mode)
                .ok_or_else(|| keys.unsupported("pooling_mode", name, &supported).into())
        };
        return named.iter().map(mode).collect();
    }
    let mut modes = Vec::new();
    for (mode, _, switch) in Mode::NAMES {
        if keys.boolean(switch)? == Some(true) {
            modes.push(mode);
        }
    }
    for (key, value) in &object {
        let known = Mode::NAMES.iter().any(|(_, _, switch)| switch == key);
        if key.starts_with("pooling_mode_") && !known && value == &Value::Bool(true) {
            return Err(keys.unsupported("pooling", key, &supported).into());
        }
    }
    if modes.is_empty() {
        modes.push(Mode::Mean);
    }
    Ok(modes)
}
