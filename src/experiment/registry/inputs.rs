//! What a run reads besides its config, told apart by content: the training file and
//! the base.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::config_diff::Leaves;
use crate::digest::{hash_all, hex};
use crate::experiment::checkpoints;
use crate::experiment::run_dir::RunPaths;

/// Weights of up to so many bytes are read whole, of larger ones so many blocks of so many
/// bytes: reading them all would take as long as loading them.
const WHOLE: u64 = 64 << 20;
const BLOCKS: u64 = 64;
const BLOCK: u64 = 4096;
/// The most that is read of a header.
const HEADER: u64 = 1 << 24;
/// In place of a hash: changed while the run was at work, so that what it read is gone.
const UNKNOWN: &str = "unknown";

/// What a run trains on and from; each none where that is not known, as of a pipe, or of a
/// base from the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// The bytes of `data.path`.
    data: Option<String>,
    /// `config.json` and `tokenizer.json` of `model.path`, and blocks of its weights.
    base: Option<String>,
}

/// A hash, and when the newest file in it was changed.
struct Content {
    hash: String,
    newest: SystemTime,
}

impl Inputs {
    /// The inputs that a config names, as they are now.
    pub fn of(config: &Leaves) -> Self {
        let [data, base] = contents(config).map(|found| found.map(|content| content.hash));
        Self { data, base }
    }

    /// The inputs of a run as it began: as its newest checkpoint has them, and for the first
    /// one as they are now.
    pub fn of_run(paths: &RunPaths) -> Self {
        let earlier = checkpoints::list(&paths.checkpoints()).ok();
        let earlier = earlier.and_then(|mut all| all.pop());
        if let Some(inputs) = earlier.and_then(|found| Self::of_checkpoint(&found.path)) {
            return inputs;
        }
        let file = paths.resolved_config();
        let began = fs::metadata(&file).and_then(|meta| meta.modified());
        let (Ok(config), Ok(began)) = (Leaves::read(&file), began) else {
            return Self::default();
        };
        let [data, base] = contents(&config).map(|found| {
            found.map(|content| match content.newest > began {
                true => UNKNOWN.to_string(),
                false => content.hash,
            })
        });
        Self { data, base }
    }

    /// Those that a checkpoint was made with; none in one of an earlier version.
    pub fn of_checkpoint(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path.join("state.json")).ok()?;
        let file: Value = serde_json::from_str(&text).ok()?;
        serde_json::from_value(file.get("state")?.get("inputs")?.clone()).ok()
    }

    /// What is known to differ from `then`, each as `what: then -> now`.
    pub fn changes_since(&self, then: &Self) -> Vec<String> {
        let pairs = [
            ("data.path", &then.data, &self.data),
            ("model.path", &then.base, &self.base),
        ];
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_string();
        let changes = pairs.into_iter().filter_map(|(key, then, now)| {
            let (then, now) = (then.as_deref()?, now.as_deref()?);
            let line = || format!("the content of {key}: {} -> {}", short(then), short(now));
            (then != now).then(line)
        });
        changes.collect()
    }
}

/// The content of `data.path` and of `model.path`.
fn contents(config: &Leaves) -> [Option<Content>; 2] {
    let path = |key: &str| {
        let (_, value) = config.iter().find(|(name, _)| name.as_str() == key)?;
        value.as_str().map(PathBuf::from)
    };
    // What cannot be read is told by those who need it.
    let data = path("data.path").and_then(|path| of_data(&path).ok()?);
    let base = path("model.path").and_then(|path| of_base(&path).ok()?);
    [data, base]
}

fn of_data(path: &Path) -> io::Result<Option<Content>> {
    let meta = fs::metadata(path)?;
    // A pipe gives its bytes once, and opening it would wait for its writer.
    if !meta.is_file() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    hash_all(File::open(path)?, &mut hash)?;
    Ok(Some(Content {
        hash: hex(&hash.finalize()),
        newest: meta.modified()?,
    }))
}

fn of_base(dir: &Path) -> io::Result<Option<Content>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // A link to nothing is no part of it.
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_text = matches!(&*name, "config.json" | "tokenizer.json");
        if meta.is_file() && (is_text || name.ends_with(".safetensors")) {
            files.push((name.into_owned(), path.clone(), meta.modified()?, is_text));
        }
    }
    files.sort();
    let Some(newest) = files.iter().map(|file| file.2).max() else {
        return Ok(None);
    };
    let mut hash = Sha256::new();
    for (name, path, _, is_text) in &files {
        let file = File::open(path)?;
        hash.update(name.as_bytes());
        hash.update(file.metadata()?.len().to_le_bytes());
        match *is_text {
            true => drop(hash_all(file, &mut hash)?),
            false => hash_blocks(&file, &mut hash)?,
        }
    }
    let hash = hex(&hash.finalize());
    Ok(Some(Content { hash, newest }))
}

/// The header of a safetensors file and blocks of the rest; a short one whole.
fn hash_blocks(mut file: &File, hash: &mut Sha256) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length <= WHOLE {
        return hash_all(file, hash).map(drop);
    }
    let mut header = [0; 8];
    file.read_exact(&mut header)?;
    hash.update(header);
    hash_all(file.take(u64::from_le_bytes(header).min(HEADER)), hash)?;
    for i in 0..BLOCKS {
        file.seek(SeekFrom::Start((length - BLOCK) / (BLOCKS - 1) * i))?;
        hash_all(file.take(BLOCK), hash)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;

    #[test]
    fn large_weights_are_told_apart_by_header_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.safetensors");
        let length = WHOLE + (1 << 20);
        let weights = File::create(&file).unwrap();
        // A hole, which takes no room.
        weights.set_len(length).unwrap();
        weights.write_all_at(&20_000u64.to_le_bytes(), 0).unwrap();
        let mut hashes = Vec::new();
        // Nothing, the end of the header, the last block.
        for at in [None, Some(20_007), Some(length - 64)] {
            if let Some(at) = at {
                weights.write_all_at(&[1], at).unwrap();
            }
            hashes.push(of_base(dir.path()).unwrap().unwrap().hash);
        }
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        hashes.push(of_base(dir.path()).unwrap().unwrap().hash);
        let mut distinct = hashes.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), hashes.len());
        let again = of_base(dir.path()).unwrap().unwrap().hash;
        assert_eq!(hashes.last(), Some(&again));
    }

    #[test]
    fn what_changed_under_a_run_is_not_taken_for_what_it_read() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("train.csv");
        fs::write(&data, "a,b\n").unwrap();
        let paths = RunPaths::new(dir.path());
        let config = format!("data:\n  path: {}\n", data.display());
        fs::write(paths.resolved_config(), &config).unwrap();
        let now = Inputs::of(&Leaves::parse(&config).unwrap());
        assert!(now.data.is_some() && now.base.is_none());
        assert_eq!(Inputs::of_run(&paths), now);
        let file = File::options().write(true).open(&data).unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        file.set_modified(later).unwrap();
        let changes = now.changes_since(&Inputs::of_run(&paths));
        assert_eq!(changes.len(), 1);
        assert!(
            changes[0].starts_with("the content of data.path: unknown -> "),
            "{changes:?}"
        );
    }
}
