//! The cache on disk: `models--ORG--NAME/` with `refs/`, `blobs/` and `snapshots/`,
//! as huggingface_hub lays it out.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Needs;
use super::error::HubError;

/// Small files that are taken where the model has them.
pub(super) const SMALL: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// What sentence-transformers keeps beside an encoder: taken where the model has them.
pub(super) const SENTENCES: [&str; 4] = [
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];
pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The largest index that is read; that of a model of 700 billion weights has 9 MB.
const INDEX_BYTES: u64 = 64 << 20;

/// Whether the model is of no use without `file`.
pub(super) fn is_required(file: &str) -> bool {
    !SMALL.contains(&file) && !SENTENCES.contains(&file)
}

/// The small files that a job takes where the model has them.
pub(super) fn small(needs: Needs) -> impl Iterator<Item = &'static str> {
    let sentences = match needs {
        Needs::Encoder => &SENTENCES[..],
        _ => &[],
    };
    SMALL.iter().chain(sentences).copied()
}

/// A model in the cache.
pub(super) struct Repo {
    pub name: String,
    pub dir: PathBuf,
}

/// A file or branch name that stays where it is put.
fn plain(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 255 && !text.starts_with('.') && text.chars().all(inner)
}

pub(super) fn check_revision(revision: &str) -> Result<&str, HubError> {
    match !revision.is_empty() && revision.split('/').all(plain) {
        true => Ok(revision),
        false => Err(HubError::Revision(revision.to_string())),
    }
}

impl Repo {
    pub fn new(cache: &Path, name: &str) -> Result<Self, HubError> {
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|part| plain(part)) || name.contains("--") {
            return Err(HubError::Name(name.to_string()));
        }
        Ok(Self {
            name: name.to_string(),
            dir: cache.join(format!("models--{}", parts.join("--"))),
        })
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    pub fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    /// The commit of `revision` that the cache holds.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("refs").join(revision));
        let commit = text.unwrap_or_else(|_| revision.to_string());
        let commit = commit.trim();
        (plain(commit) && self.snapshot(commit).is_dir()).then(|| commit.to_string())
    }

    /// Notes that `revision` is `commit`.
    pub fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        let temp = path.with_extension(format!("{}.tmp", std::process::id()));
        create_parent(&path)?;
        fs::write(&temp, commit).map_err(|e| HubError::io("write", &temp, e))?;
        fs::rename(&temp, &path).map_err(|e| HubError::io("write", &path, e))
    }

    fn has(&self, commit: &str, file: &str) -> bool {
        // Follows the link: a blob that was removed is not there.
        self.snapshot(commit).join(file).is_file()
    }

    /// Whether `file` is neither there nor known to be absent.
    pub fn may_have(&self, commit: &str, file: &str) -> bool {
        !self.has(commit, file) && !self.absence(commit, file).exists()
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.dir.join(".no_exist").join(commit).join(file)
    }

    /// Notes that the model has no `file`, so that it is not asked for again. A cache
    /// that cannot be written costs that question each time, no more.
    pub fn note_absent(&self, commit: &str, file: &str) {
        let path = self.absence(commit, file);
        if create_parent(&path).is_ok() {
            let _ = fs::write(&path, "");
        }
    }

    /// The files that a job lacks.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn lacks(&self, commit: &str, needs: Needs) -> Result<Vec<String>, HubError> {
        let mut lacking = Vec::new();
        if !self.has(commit, "config.json") {
            lacking.push("config.json".to_string());
        }
        if needs == Needs::Config {
            return Ok(lacking);
        }
        let small = small(needs).filter(|file| self.may_have(commit, file));
        lacking.extend(small.map(str::to_string));
        if needs.weights() {
            match self.weights(commit)? {
                Some(shards) => lacking.extend(shards),
                None => lacking.push(SINGLE.to_string()),
            }
        }
        Ok(lacking)
    }

    pub fn is_sharded(&self, commit: &str) -> bool {
        self.has(commit, INDEX)
    }

    /// The weight files that are lacking; `None` where it is not known which there
    /// are.
    ///
    /// # Errors
    /// An index that cannot be read, or that names files elsewhere.
    pub fn weights(&self, commit: &str) -> Result<Option<Vec<String>>, HubError> {
        if self.has(commit, SINGLE) {
            return Ok(Some(Vec::new()));
        }
        if !self.is_sharded(commit) {
            return Ok(None);
        }
        let path = self.snapshot(commit).join(INDEX);
        let bad = |what: String| HubError::BadIndex {
            path: path.clone(),
            what,
        };
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        if size > INDEX_BYTES {
            return Err(bad(format!("{size} bytes are too many for an index")));
        }
        let bytes = fs::read(&path).map_err(|e| HubError::io("read", &path, e))?;
        let index: Value =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("bad JSON: {e}")))?;
        let map = index.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| bad("has no weight_map".to_string()))?;
        let mut shards = BTreeSet::new();
        for shard in map.values() {
            match shard.as_str() {
                Some(shard) if plain(shard) => shards.insert(shard.to_string()),
                _ => {
                    return Err(bad(format!(
                        "weight_map names {shard}, which is no file name"
                    )));
                }
            };
        }
        if shards.is_empty() {
            return Err(bad("weight_map is empty".to_string()));
        }
        shards.retain(|shard| !self.has(commit, shard));
        Ok(Some(shards.into_iter().collect()))
    }

    /// Puts the blob under its name in the snapshot of `commit`.
    pub fn link(&self, commit: &str, file: &str, blob: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        let temp = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temp);
        link_or_copy(&self.blobs(), blob, file, &temp)
            .map_err(|e| HubError::io("link", &temp, e))?;
        fs::rename(&temp, &path).map_err(|e| HubError::io("write", &path, e))
    }
}

#[cfg(unix)]
fn link_or_copy(_: &Path, blob: &str, file: &str, to: &Path) -> io::Result<()> {
    // From the file's folder up to the model's.
    let up = "../".repeat(2 + file.matches('/').count());
    std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(blob), to)
}

#[cfg(not(unix))]
fn link_or_copy(blobs: &Path, blob: &str, _: &str, to: &Path) -> io::Result<()> {
    fs::copy(blobs.join(blob), to).map(drop)
}

pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(dir) => fs::create_dir_all(dir).map_err(|e| HubError::io("create", dir, e)),
        None => Ok(()),
    }
}
