//! The tokenizer of a Hugging Face model directory: `tokenizer.json` and the
//! special tokens that `tokenizer_config.json` and its neighbours name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::added_tokens::add_tokens;
use super::guard::{CONTRADICTION, guarded};
use crate::digest::hex;

/// What can be wrong with a tokenizer's files.
#[derive(Debug, Error)]
pub enum TokenizerError {
    #[error("{path}: no such file: give a model directory that has a tokenizer (model.path=DIR); only training with data.format=tokens needs none",
        path = .0.display())]
    Missing(PathBuf),
    #[error("{path}: cannot read: {error}", path = path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{path}: cannot write: {error}: check the free space and the permissions", path = path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{path}: {what}: copy the file again from the model's page", path = path.display())]
    Bad { path: PathBuf, what: String },
    #[error("{path}: cannot turn {what} into tokens or text: {error}", path = path.display())]
    Use {
        path: PathBuf,
        what: &'static str,
        error: String,
    },
    #[error("{path}: no end-of-sequence token is known: set eos_token in tokenizer_config.json", path = .0.display())]
    NoEos(PathBuf),
}

/// The files that make up a tokenizer; an adapter carries a copy of them.
pub const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
];

/// Text to token ids and back, as transformers does it with these files.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    dir: PathBuf,
    /// What the post-processor puts before a text: BOS, or nothing.
    prefix: Vec<u32>,
    /// What it puts behind: the separator of an encoder, or nothing.
    suffix: Vec<u32>,
    /// It puts a blank before a text, so that the first word is as one in the middle.
    adds_blank: bool,
    eos: Option<u32>,
    stops: Vec<u32>,
    /// Special tokens and those that end generation, as they are written.
    marks: Vec<(String, u32)>,
}

/// Token ids, and the bytes of the text that each stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    pub ids: Vec<u32>,
    pub bytes: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Loads the tokenizer of the model directory `dir`.
    ///
    /// Truncation and padding stored in `tokenizer.json` are switched off, as
    /// transformers does for a plain call.
    ///
    /// # Errors
    /// `tokenizer.json` is missing, or one of the files is broken.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        Self::load_optional(dir)?.ok_or_else(|| TokenizerError::Missing(dir.join("tokenizer.json")))
    }

    /// As [`Tokenizer::load`]; `None` where the directory has no `tokenizer.json`.
    pub fn load_optional(dir: &Path) -> Result<Option<Self>, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let bad = |what: String| TokenizerError::Bad {
            path: path.clone(),
            what,
        };
        let broken = || bad(CONTRADICTION.to_string());
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes))
            .ok_or_else(broken)?
            .map_err(|e| bad(format!("not a tokenizer: {e}")))?;
        inner
            .with_truncation(None)
            .map_err(|e| bad(e.to_string()))?;
        inner.with_padding(None);

        let config_file = dir.join("tokenizer_config.json");
        let config = json(&config_file)?;
        add_tokens(&mut inner, &config).map_err(|what| TokenizerError::Bad {
            path: config_file,
            what,
        })?;
        let map = json(&dir.join("special_tokens_map.json"))?;
        let generation = json(&dir.join("generation_config.json"))?;
        let model = json(&dir.join("config.json"))?;
        let mut stops = [&generation, &model]
            .into_iter()
            .map(|file| ids(file.get("eos_token_id")))
            .find(|ids| !ids.is_empty())
            .unwrap_or_default();
        let eos = [&config, &map]
            .into_iter()
            .filter_map(|file| token_text(file.get("eos_token")?))
            .find_map(|text| inner.token_to_id(text))
            .or_else(|| stops.first().copied());
        if let Some(eos) = eos
            && !stops.contains(&eos)
        {
            stops.push(eos);
        }
        let (prefix, suffix) = guarded(|| around(&inner))
            .ok_or_else(broken)?
            .map_err(|error| TokenizerError::Use {
                path: path.clone(),
                what: "a text",
                error,
            })?;
        let mut marks: Vec<(String, u32)> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(id, token)| token.special || stops.contains(id))
            .map(|(id, token)| (token.content, id))
            .collect();
        // The longest first, for a mark that begins with another one.
        marks.sort_by(|a, b| (b.0.len(), &a.0).cmp(&(a.0.len(), &b.0)));
        Ok(Some(Self {
            adds_blank: adds_blank(&inner),
            inner,
            dir: dir.to_path_buf(),
            prefix,
            suffix,
            eos,
            stops,
            marks,
        }))
    }

    /// Token ids of `text`. With `special`, BOS goes before it where the model's
    /// post-processor adds one, but never a second one. EOS is never added here.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.run("a text", |inner| inner.encode_fast(text, false))?;
        let ids = encoding.get_ids();
        if !special || ids.starts_with(&self.prefix) {
            return Ok(ids.to_vec());
        }
        Ok([&self.prefix, ids].concat())
    }

    /// Token ids of `text` where it follows other text, without the blank that the
    /// tokenizer puts before a text that stands alone.
    pub fn encode_after(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if self.adds_blank {
            // A line end merges with no word, so what follows it is as behind any text.
            let line = self.encode("\n", false)?;
            let mut ids = self.encode(&format!("\n{text}"), false)?;
            if ids.starts_with(&line) {
                return Ok(ids.split_off(line.len()));
            }
        }
        self.encode(text, false)
    }

    /// Token ids of `text` between all that the post-processor puts around it, the
    /// text cut on the right so that there are at most `max`: what an encoder reads.
    pub fn encode_between(&self, text: &str, max: usize) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode(text, false)?;
        let room = max.saturating_sub(self.prefix.len() + self.suffix.len());
        let ids = &ids[..ids.len().min(room)];
        Ok([&self.prefix, ids, &self.suffix].concat())
    }

    /// Token ids of `text` as it stands, nothing added, with the bytes of each. A
    /// blank that a tokenizer leaves out of a token's place belongs to the token
    /// after it.
    pub fn encode_located(&self, text: &str) -> Result<Located, TokenizerError> {
        let encoding = self.run("a text", |inner| inner.encode(text, false))?;
        let mut bytes = Vec::with_capacity(encoding.len());
        let mut before = 0;
        for &(start, end) in encoding.get_offsets() {
            bytes.push(start.min(before)..end);
            before = end;
        }
        Ok(Located {
            ids: encoding.get_ids().to_vec(),
            bytes,
        })
    }

    /// Whether `id` is a special token or ends generation.
    pub fn is_mark(&self, id: u32) -> bool {
        self.stops.contains(&id) || self.marks.iter().any(|(_, mark)| *mark == id)
    }

    /// The special token that `text` begins with.
    pub fn mark_at(&self, text: &str) -> Option<u32> {
        let mut marks = self.marks.iter();
        marks.find(|(m, _)| text.starts_with(m)).map(|(_, id)| *id)
    }

    /// `text` without the blanks behind a special token at its end.
    pub fn trim_after_mark<'t>(&self, text: &'t str) -> &'t str {
        let trimmed = text.trim_end();
        match self.marks.iter().any(|(mark, _)| trimmed.ends_with(mark)) {
            true => trimmed,
            false => text,
        }
    }

    /// The text of `ids`, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.run("tokens", |inner| inner.decode(ids, true))
    }

    /// The token of `id` as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token written `token` in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// What goes before every text: one BOS, or nothing.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// What goes behind every text that an encoder reads: one separator, or nothing.
    pub fn suffix(&self) -> &[u32] {
        &self.suffix
    }

    /// The token that ends an answer in training: the tokenizer's `eos_token`,
    /// else the first `eos_token_id` of `generation_config.json` or `config.json`.
    ///
    /// # Errors
    /// None of the files names one.
    pub fn eos_id(&self) -> Result<u32, TokenizerError> {
        self.eos
            .ok_or_else(|| TokenizerError::NoEos(self.dir.clone()))
    }

    /// Every token that ends generation: the `eos_token_id` list of the model and
    /// the tokenizer's own `eos_token`.
    pub fn eos_ids(&self) -> &[u32] {
        &self.stops
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Copies the tokenizer's files into the directory `to`; gives their new paths.
    pub fn copy_files(&self, to: &Path) -> Result<Vec<PathBuf>, TokenizerError> {
        let mut copied = Vec::new();
        for name in TOKENIZER_FILES {
            if let Some(bytes) = read(&self.dir.join(name))? {
                let path = to.join(name);
                // Not `fs::copy`, which would carry over a read-only mode.
                fs::write(&path, bytes).map_err(|error| TokenizerError::Write {
                    path: path.clone(),
                    error,
                })?;
                copied.push(path);
            }
        }
        Ok(copied)
    }

    /// A hash of all that tokens depend on.
    ///
    /// # Errors
    /// `tokenizer.json` is gone.
    pub fn fingerprint(&self) -> Result<String, TokenizerError> {
        let path = self.dir.join("tokenizer.json");
        let bytes = read(&path)?.ok_or(TokenizerError::Missing(path))?;
        let mut hash = Sha256::new();
        hash.update(bytes);
        let ids = (&self.prefix, self.eos, &self.stops, &self.marks);
        hash.update(format!("{ids:?}"));
        // Some may be named beside tokenizer.json alone.
        let added = self.inner.get_added_tokens_decoder();
        hash.update(format!("{:?}", BTreeMap::from_iter(added)));
        Ok(hex(&hash.finalize()))
    }

    /// What the crate makes of `what`.
    fn run<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&tokenizers::Tokenizer) -> tokenizers::Result<T>,
    ) -> Result<T, TokenizerError> {
        match guarded(|| work(&self.inner)) {
            Some(result) => result.map_err(|error| TokenizerError::Use {
                path: self.dir.clone(),
                what,
                error: error.to_string(),
            }),
            None => Err(TokenizerError::Bad {
                path: self.dir.join("tokenizer.json"),
                what: CONTRADICTION.to_string(),
            }),
        }
    }
}

/// Whether a part of the tokenizer says that it puts a blank, or what stands for one,
/// before each text.
fn adds_blank(inner: &tokenizers::Tokenizer) -> bool {
    fn says(part: &Value) -> bool {
        match part {
            Value::Array(parts) => parts.iter().any(says),
            Value::Object(fields) => {
                fields.get("type").and_then(Value::as_str) == Some("Prepend")
                    || fields.get("add_prefix_space") == Some(&Value::Bool(true))
                    || (fields.get("prepend_scheme").and_then(Value::as_str))
                        .is_some_and(|scheme| scheme != "never")
                    || fields.values().any(says)
            }
            _ => false,
        }
    }
    let normalizer = inner.get_normalizer().map(serde_json::to_value);
    let before = inner.get_pre_tokenizer().map(serde_json::to_value);
    [normalizer, before]
        .into_iter()
        .flatten()
        .flatten()
        .any(|part| says(&part))
}

/// The file's bytes, or `None` where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(TokenizerError::Read {
            path: path.to_path_buf(),
            error,
        }),
    }
}

/// The JSON object in `path`, or null where there is no such file.
fn json(path: &Path) -> Result<Value, TokenizerError> {
    let Some(bytes) = read(path)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|e| TokenizerError::Bad {
        path: path.to_path_buf(),
        what: format!("bad JSON: {e}"),
    })
}

/// A special token: its text, or an `AddedToken` object.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// One id or a list of them.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Finds what the post-processor puts before and behind a text by trying one.
fn around(inner: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let probe = "a";
    let plain = inner.encode_fast(probe, false).map_err(|e| e.to_string())?;
    let whole = inner.encode_fast(probe, true).map_err(|e| e.to_string())?;
    let (plain, whole) = (plain.get_ids(), whole.get_ids());
    if plain.is_empty() {
        return Ok(Default::default());
    }
    let at = whole
        .windows(plain.len())
        .position(|w| w == plain)
        .unwrap_or(0);
    let end = (at + plain.len()).min(whole.len());
    Ok((whole[..at].to_vec(), whole[end..].to_vec()))
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
pub(crate) mod tests;
