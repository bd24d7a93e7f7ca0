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
use super::hex::hex;

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
pub(crate) mod tests {
    use super::*;

    const SPECIAL: [&str; 3] = ["<s>", "</s>", "<eot>"];

    /// A word-level tokenizer with BOS, EOS and an end-of-turn token.
    pub(crate) fn write_words(dir: &Path, bos: bool, words: &[&str]) {
        let mut vocab = serde_json::Map::new();
        for word in SPECIAL.iter().chain(words) {
            let id = vocab.len();
            vocab.insert(word.to_string(), Value::from(id));
        }
        let added: Vec<Value> = (0..3)
            .map(|i| {
                serde_json::json!({"id": i, "content": SPECIAL[i], "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let post = serde_json::json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}});
        let tokenizer = serde_json::json!({"version": "1.0",
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 1,
                "pad_type_id": 0, "pad_token": "</s>"},
            "added_tokens": added, "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": if bos { post } else { Value::Null }, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<eot>"}});
        fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }

    pub(crate) fn put(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn stored_truncation_and_padding_are_off_and_bos_comes_once() {
        let dir = tempfile::tempdir().unwrap();
        write_words(dir.path(), true, &["a", "b", "c"]);
        let t = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(
            t.encode("a b c a b c", true).unwrap(),
            [0, 3, 4, 5, 3, 4, 5]
        );
        assert_eq!(t.encode("a", false).unwrap(), [3]);
        assert_eq!(t.encode("<s> a", true).unwrap(), [0, 3]);
        assert_eq!(t.encode("", true).unwrap(), [0]);
        assert_eq!(t.decode(&[0, 3, 5, 1]).unwrap(), "a c");
        assert_eq!((t.prefix(), t.vocab_size()), (&[0][..], 6));
        assert!(matches!(t.eos_id(), Err(TokenizerError::NoEos(_))));
        assert!(t.eos_ids().is_empty());
    }

    #[test]
    fn special_tokens_come_from_any_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        write_words(dir.path(), false, &["a"]);
        put(
            dir.path(),
            "config.json",
            r#"{"bos_token_id": 0, "eos_token_id": 1}"#,
        );
        let t = Tokenizer::load(dir.path()).unwrap();
        assert_eq!((t.eos_id().unwrap(), t.eos_ids()), (1, &[1][..]));
        assert!(t.prefix().is_empty());
        put(
            dir.path(),
            "generation_config.json",
            r#"{"eos_token_id": [1, 3]}"#,
        );
        put(
            dir.path(),
            "special_tokens_map.json",
            r#"{"eos_token": {"content": "<eot>", "lstrip": false}}"#,
        );
        let t = Tokenizer::load(dir.path()).unwrap();
        assert_eq!((t.eos_id().unwrap(), t.eos_ids()), (2, &[1, 3, 2][..]));
        put(
            dir.path(),
            "tokenizer_config.json",
            r#"{"eos_token": "</s>"}"#,
        );
        let t = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(t.eos_id().unwrap(), 1);
    }

    #[test]
    fn missing_and_broken_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tokenizer::load_optional(dir.path()).unwrap().is_none());
        let message = Tokenizer::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("tokenizer.json: no such file"),
            "{message}"
        );
        put(dir.path(), "tokenizer.json", "{\"version\":");
        assert!(matches!(
            Tokenizer::load(dir.path()),
            Err(TokenizerError::Bad { .. })
        ));
        write_words(dir.path(), true, &["a"]);
        put(dir.path(), "tokenizer_config.json", "[1,");
        let message = Tokenizer::load(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("tokenizer_config.json: bad JSON"),
            "{message}"
        );
    }

    #[test]
    fn the_files_are_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_words(from.path(), true, &["a"]);
        put(from.path(), "chat_template.jinja", "{{ messages }}");
        let t = Tokenizer::load(from.path()).unwrap();
        assert_eq!(t.copy_files(to.path()).unwrap().len(), 2);
        assert_eq!(
            Tokenizer::load(to.path())
                .unwrap()
                .encode("a", true)
                .unwrap(),
            [0, 3]
        );
        let missing = to.path().join("no");
        assert!(matches!(
            t.copy_files(&missing),
            Err(TokenizerError::Write { .. })
        ));
    }

    #[test]
    fn agrees_with_transformers() {
        let shared = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../shared/reference/tiny"
        ));
        let Ok(models) = fs::read_dir(shared) else {
            println!("skipped: no reference folder");
            return;
        };
        let mut checked = 0;
        for model in models {
            let dir = model.unwrap().path();
            let Ok(bytes) = fs::read(dir.join("reference_tokenizer.json")) else {
                continue;
            };
            let reference: Value = serde_json::from_slice(&bytes).unwrap();
            let t = Tokenizer::load(&dir).unwrap();
            for sample in reference["samples"].as_array().unwrap() {
                let text = sample["text"].as_str().unwrap();
                let special = t.encode(text, true).unwrap();
                assert_eq!(special, ids(Some(&sample["ids"])), "{dir:?} {text:?}");
                assert_eq!(
                    t.encode(text, false).unwrap(),
                    ids(Some(&sample["ids_no_special"])),
                    "{dir:?} {text:?}"
                );
                assert_eq!(
                    t.decode(&special).unwrap(),
                    sample["decoded_skip"].as_str().unwrap(),
                    "{dir:?} {text:?}"
                );
                checked += 1;
            }
        }
        assert!(checked > 0);
    }

    /// A `tokenizer.json` over the words a and b, with one part in place of its own.
    fn with_part(dir: &Path, name: &str, part: Value) {
        write_words(dir, true, &["a", "b"]);
        let path = dir.join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json[name] = part;
        fs::write(path, json.to_string()).unwrap();
    }

    #[test]
    fn a_file_that_makes_the_crate_panic_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let id = |name: &str| serde_json::json!({"SpecialToken": {"id": name, "type_id": 0}});
        let text = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
        let parts = [
            (
                "post_processor",
                serde_json::json!({"type": "TemplateProcessing", "single": [id("<s>"), text],
                    "pair": [text, text], "special_tokens": {}}),
            ),
            (
                "pre_tokenizer",
                serde_json::json!({"type": "FixedLength", "length": 0}),
            ),
            (
                "normalizer",
                serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}),
            ),
            (
                "model",
                serde_json::json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
                    "merges": ["a b"], "continuing_subword_prefix": "#####"}),
            ),
        ];
        for (name, part) in parts {
            with_part(dir.path(), name, part.clone());
            let error = match Tokenizer::load(dir.path()) {
                Err(error) => error,
                Ok(tokenizer) => tokenizer.encode("a b a", true).unwrap_err(),
            };
            let text = error.to_string();
            assert!(
                matches!(error, TokenizerError::Bad { .. }),
                "{part}: {text}"
            );
            assert!(
                text.contains("tokenizer.json: ") && text.contains("copy the file again"),
                "{text}"
            );
        }
    }
}
