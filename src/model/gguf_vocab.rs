//! The vocabulary of a GGUF file, from `tokenizer.json` and its neighbours.
//!
//! llama.cpp knows two kinds that Llama models use: byte-level BPE ("gpt2") with a
//! list of merges, and SentencePiece's ("llama"), where the neighbours whose union
//! has the highest score are joined first. A tokenizer of the second kind stands
//! in `tokenizer.json` as merges in order; their ranks become the scores.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::gguf_error::GgufError;
use crate::model::gguf_metadata::Metadata;
use crate::model::hf_config::ArchConfig;

/// llama.cpp's kinds of tokens.
mod token {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// How text is cut before merges apply, and llama.cpp's name for it.
const SPLITS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
];

pub(super) struct Vocabulary {
    tokens: Vec<String>,
    pub types: Vec<i32>,
    pub kind: Kind,
    /// By the last part of GGUF's key: bos, eos, unknown, padding.
    special: Vec<(&'static str, u32)>,
    pub add_bos: bool,
    pub chat_template: Option<String>,
}

pub(super) enum Kind {
    Bpe {
        pre: &'static str,
        merges: Vec<String>,
    },
    SentencePiece {
        scores: Vec<f32>,
        space_prefix: bool,
    },
}

impl Vocabulary {
    /// # Errors
    /// Files that cannot be read, or a tokenizer that llama.cpp has no kind for.
    pub fn read(dir: &Path, arch: &ArchConfig) -> Result<Self, GgufError> {
        let file = dir.join("tokenizer.json");
        let json = read_json(&file)?.ok_or_else(|| GgufError::Tokenizer {
            file: file.clone(),
            problem: "there is no such file".into(),
        })?;
        let reader = Reader { file, json };
        let (mut tokens, mut types) = reader.tokens(arch.vocab_size)?;
        let merges = reader.merges()?;
        let kind = match reader.split()? {
            Some(pre) => Kind::Bpe {
                pre,
                merges: merges.iter().map(|(a, b)| format!("{a} {b}")).collect(),
            },
            None => {
                for (token, kind) in tokens.iter().zip(types.iter_mut()) {
                    if *kind == token::NORMAL && is_byte(token) {
                        *kind = token::BYTE;
                    }
                }
                if types.iter().filter(|kind| **kind == token::BYTE).count() < 256 {
                    return Err(reader.unsupported(
                        "the tokenizer lacks some of the byte tokens <0x00> to <0xFF>, without \
                         which llama.cpp ends at the first character that has no token"
                            .into(),
                    ));
                }
                Kind::SentencePiece {
                    scores: scores(&tokens, &merges),
                    space_prefix: reader.space_prefix(),
                }
            }
        };
        let config = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let map = read_json(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
        let named = |key: &str| {
            let text = [&config, &map]
                .into_iter()
                .find_map(|file| content(file.get(key)?));
            let at = text.and_then(|text| tokens.iter().position(|token| token == text));
            at.map(|id| id as u32)
        };
        let unknown = named("unk_token").or_else(|| {
            let text = reader.json["model"]["unk_token"].as_str()?;
            tokens
                .iter()
                .position(|token| token == text)
                .map(|id| id as u32)
        });
        let bos = named("bos_token").or(arch.bos_token_id);
        let special = [
            ("bos", bos),
            (
                "eos",
                named("eos_token").or(arch.eos_token_ids.first().copied()),
            ),
            ("unknown", unknown),
            ("padding", named("pad_token").or(arch.pad_token_id)),
        ];
        let special = special.into_iter().filter_map(|(key, id)| Some((key, id?)));
        let special = special.collect();
        if let Some(kind) = unknown.and_then(|id| types.get_mut(id as usize)) {
            *kind = token::UNKNOWN;
        }
        tokens.shrink_to_fit();
        Ok(Self {
            add_bos: reader.begins_with(bos),
            chat_template: chat_template(dir, &config)?,
            tokens,
            types,
            kind,
            special,
        })
    }

    pub fn describe(&self, meta: &mut Metadata) {
        const KEY: &str = "tokenizer.ggml";
        match &self.kind {
            Kind::Bpe { pre, merges } => {
                meta.string(&format!("{KEY}.model"), "gpt2");
                meta.string(&format!("{KEY}.pre"), pre);
                meta.strings(&format!("{KEY}.merges"), merges.iter().map(String::as_str));
            }
            Kind::SentencePiece {
                scores,
                space_prefix,
            } => {
                meta.string(&format!("{KEY}.model"), "llama");
                meta.string(&format!("{KEY}.pre"), "default");
                meta.f32s(&format!("{KEY}.scores"), scores.iter().copied());
                meta.boolean(&format!("{KEY}.add_space_prefix"), *space_prefix);
            }
        }
        meta.strings(
            &format!("{KEY}.tokens"),
            self.tokens.iter().map(String::as_str),
        );
        meta.i32s(&format!("{KEY}.token_type"), self.types.iter().copied());
        for (name, id) in &self.special {
            meta.u32(&format!("{KEY}.{name}_token_id"), *id);
        }
        meta.boolean(&format!("{KEY}.add_bos_token"), self.add_bos);
        meta.boolean(&format!("{KEY}.add_eos_token"), false);
        if let Some(template) = &self.chat_template {
            meta.string("tokenizer.chat_template", template);
        }
    }
}

pub(super) struct Reader {
    pub file: PathBuf,
    pub json: Value,
}

impl Reader {
    fn unsupported(&self, problem: String) -> GgufError {
        GgufError::Unsupported {
            file: self.file.clone(),
            problem,
        }
    }

    fn broken(&self, problem: &str) -> GgufError {
        GgufError::Tokenizer {
            file: self.file.clone(),
            problem: problem.into(),
        }
    }

    /// Texts and kinds by id, as many as the model has rows.
    fn tokens(&self, rows: usize) -> Result<(Vec<String>, Vec<i32>), GgufError> {
        let model = &self.json["model"];
        let kind = model["type"].as_str().unwrap_or("of an unnamed type");
        if kind != "BPE" {
            return Err(self.unsupported(format!("the tokenizer is {kind}, not BPE")));
        }
        let vocab = model["vocab"].as_object();
        let vocab = vocab.ok_or_else(|| self.broken("it has no vocabulary"))?;
        let mut tokens: Vec<Option<String>> = vec![None; rows];
        let mut types = vec![token::UNUSED; rows];
        let mut place = |text: &str, id: Option<u64>, kind: i32| {
            let id = id
                .and_then(|id| usize::try_from(id).ok())
                .filter(|id| *id < rows);
            let id = id.ok_or_else(|| {
                self.broken(&format!(
                    "the token `{text}` has no row in the model's embedding"
                ))
            })?;
            tokens[id] = Some(text.to_string());
            types[id] = kind;
            Ok(())
        };
        for (text, id) in vocab {
            place(text, id.as_u64(), token::NORMAL)?;
        }
        for added in self.json["added_tokens"].as_array().into_iter().flatten() {
            let kind = match added["special"].as_bool() {
                Some(true) => token::CONTROL,
                _ => token::USER_DEFINED,
            };
            place(
                added["content"].as_str().unwrap_or_default(),
                added["id"].as_u64(),
                kind,
            )?;
        }
        let tokens = tokens.into_iter().enumerate();
        let tokens = tokens.map(|(id, text)| text.unwrap_or_else(|| format!("[PAD{id}]")));
        Ok((tokens.collect(), types))
    }

    /// Pairs of neighbours that are joined, the first ones first.
    fn merges(&self) -> Result<Vec<(&str, &str)>, GgufError> {
        let list = self.json["model"]["merges"].as_array();
        let list = list.ok_or_else(|| self.broken("it has no merges"))?;
        let pairs: Option<Vec<_>> = list.iter().map(merge_pair).collect();
        pairs.ok_or_else(|| self.broken("a merge is no pair of tokens"))
    }

    /// llama.cpp's name for the way of cutting text; `None` for SentencePiece.
    pub fn split(&self) -> Result<Option<&'static str>, GgufError> {
        let pre = &self.json["pre_tokenizer"];
        let parts: Vec<&Value> = match pre["type"].as_str() {
            Some("Sequence") => pre["pretokenizers"]
                .as_array()
                .into_iter()
                .flatten()
                .collect(),
            Some(_) => vec![pre],
            None => Vec::new(),
        };
        let of = |kind: &str| parts.iter().find(|part| part["type"] == kind);
        let Some(level) = of("ByteLevel") else {
            let known = ["Metaspace"];
            let strange = parts
                .iter()
                .find(|part| !known.contains(&part["type"].as_str().unwrap_or_default()));
            return match strange {
                None if self.marks_spaces() => Ok(None),
                None => Err(self.unsupported(
                    "the tokenizer is neither byte-level nor SentencePiece-like".into(),
                )),
                Some(part) => {
                    Err(self.unsupported(format!("the tokenizer cuts text by {}", part["type"])))
                }
            };
        };
        if level["add_prefix_space"] == true {
            return Err(self.unsupported("the tokenizer puts a space before a text".into()));
        }
        let pattern =
            of("Split").map(|split| split["pattern"]["Regex"].as_str().unwrap_or_default());
        let digits = of("Digits").is_some_and(|digits| digits["individual_digits"] == true);
        let plain = level["use_regex"] != false;
        let name = match (pattern, digits, plain, parts.len()) {
            (None, false, true, 1) => Some("gpt-2"),
            (None, true, true, 2) => Some("smollm"),
            (Some(pattern), false, false, 2) => {
                let known = SPLITS.iter().find(|(known, _)| *known == pattern);
                known.map(|(_, name)| *name)
            }
            _ => None,
        };
        match name {
            Some(name) => Ok(Some(name)),
            None => Err(self.unsupported(
                "the tokenizer cuts text in a way that has no name in llama.cpp".into(),
            )),
        }
    }

    /// Whether spaces become SentencePiece's mark.
    fn marks_spaces(&self) -> bool {
        let steps = ["normalizer", "pre_tokenizer"].map(|part| self.json[part].to_string());
        steps.iter().any(|step| step.contains('▁'))
    }

    /// Whether a space is put before a text.
    fn space_prefix(&self) -> bool {
        let normalizer = &self.json["normalizer"];
        let mut steps = normalizer["normalizers"].as_array().into_iter().flatten();
        let metaspace = &self.json["pre_tokenizer"];
        normalizer["type"] == "Prepend"
            || steps.any(|step| step["type"] == "Prepend")
            || (metaspace["type"] == "Metaspace" && metaspace["prepend_scheme"] != "never")
    }

    /// Whether the tokenizer itself puts `bos` first.
    fn begins_with(&self, bos: Option<u32>) -> bool {
        let post = &self.json["post_processor"];
        let parts = post["processors"].as_array();
        let mut parts = parts.into_iter().flatten().chain([post]);
        let template = parts.find(|part| part["type"] == "TemplateProcessing");
        let first = template.map(|template| &template["single"][0]["SpecialToken"]["id"]);
        let Some(name) = first.and_then(Value::as_str) else {
            return false;
        };
        let ids = template.map(|template| &template["special_tokens"][name]["ids"][0]);
        ids.and_then(Value::as_u64) == bos.map(u64::from)
    }
}

fn merge_pair(merge: &Value) -> Option<(&str, &str)> {
    // Older files write a pair as one string.
    match merge {
        Value::String(text) => text.split_once(' '),
        _ => Some((merge.get(0)?.as_str()?, merge.get(1)?.as_str()?)),
    }
}

/// Scores by which SentencePiece joins as the merges do: minus the rank of the
/// first merge that makes the token, zero for tokens that no merge makes.
fn scores(tokens: &[String], merges: &[(&str, &str)]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, (a, b)) in merges.iter().enumerate() {
        ranks.entry(format!("{a}{b}")).or_insert(rank);
    }
    let score = |token: &String| ranks.get(token).map_or(0.0, |rank| -(*rank as f32));
    tokens.iter().map(score).collect()
}

/// `<0x00>` to `<0xFF>`, which spell what has no token.
fn is_byte(token: &str) -> bool {
    let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && u8::from_str_radix(hex, 16).is_ok())
}

fn read_json(file: &Path) -> Result<Option<Value>, GgufError> {
    let error = |problem: String| GgufError::Tokenizer {
        file: file.to_path_buf(),
        problem,
    };
    match std::fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| error(format!("not valid JSON: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error(e.to_string())),
    }
}

/// A special token's text: a string, or an object with one.
fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// The chat template: a file of its own, or one text of tokenizer_config.json.
fn chat_template(dir: &Path, config: &Value) -> Result<Option<String>, GgufError> {
    let file = dir.join("chat_template.jinja");
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(config["chat_template"].as_str().map(str::to_string))
        }
        Err(e) => Err(GgufError::Tokenizer {
            file,
            problem: e.to_string(),
        }),
    }
}
