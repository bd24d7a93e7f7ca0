//! Checkpoints on disk: whole or absent, and a torn one is recognised.
//!
//! `checkpoints/step-000123/` holds `tensors.safetensors`, `state.json` and
//! `manifest.json`, which lists every other file with its size and CRC-32 (the
//! IEEE polynomial, as zlib and Python's `zlib.crc32`).

mod crc32;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View, serialize_to_file};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::fsx::{self, FsError};
use crate::ops::stored::bytes_of;

const MANIFEST: &str = "manifest.json";
const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";

/// A checkpoint that cannot be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(
        "{}: not a whole checkpoint: {why}; resume from an older one or start afresh",
        .path.display()
    )]
    Torn { path: PathBuf, why: String },
    #[error("{}: the checkpoint cannot be encoded: {why}", .path.display())]
    Encode { path: PathBuf, why: String },
}

/// A tensor by name: parameters, optimiser moments.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Row-major, as many values as `shape` says.
    pub data: Numbers,
}

/// What a tensor of a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    F32(Vec<f32>),
    /// Indices into a table.
    U8(Vec<u8>),
}

impl Numbers {
    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::U8(codes) => codes.len(),
        }
    }
}

/// A checkpoint's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Optimiser steps done.
    pub step: usize,
    pub path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    step: usize,
    files: Vec<ManifestFile>,
}

#[derive(Serialize, Deserialize)]
struct ManifestFile {
    name: String,
    bytes: u64,
    crc32: u32,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    /// Tensor names in the order they were given; safetensors sorts them.
    tensors: Vec<String>,
    state: serde_json::Value,
}

/// `step-000123`.
pub fn directory_name(step: usize) -> String {
    format!("step-{step:06}")
}

/// The step of a path whose last part is a [`directory_name`].
pub fn step_of(path: &Path) -> Option<usize> {
    parse_directory_name(path.file_name()?.to_str()?)
}

fn parse_directory_name(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("step-")?;
    let plain = digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Writes a checkpoint through a closure that fills a temporary directory
/// (files only, no folders), then gives it its name. A torn checkpoint of the
/// same step is replaced.
pub fn write<F>(dir: &Path, step: usize, fill: F) -> Result<Checkpoint, CheckpointError>
where
    F: FnOnce(&Path) -> Result<(), CheckpointError>,
{
    let path = dir.join(directory_name(step));
    fsx::publish_dir(&path, |temp| {
        let filled = fill(temp).and_then(|()| {
            let manifest = Manifest {
                format: 1,
                step,
                files: describe_files(temp)?,
            };
            write_json(&temp.join(MANIFEST), &manifest)
        });
        filled.map_err(|error| published_name(error, temp, &path))
    })?;
    Ok(Checkpoint { step, path })
}

/// The error with the path that a file in `temp` would have had below `path`.
fn published_name(mut error: CheckpointError, temp: &Path, path: &Path) -> CheckpointError {
    if let CheckpointError::Fs(FsError { path: named, .. })
    | CheckpointError::Encode { path: named, .. } = &mut error
        && let Ok(file) = named.strip_prefix(temp)
    {
        *named = path.join(file);
    }
    error
}

/// Saves tensors and a JSON state. JSON keeps integers and finite floats
/// exactly; NaN and infinities become null, so they belong into tensors.
pub fn save(
    dir: &Path,
    step: usize,
    tensors: &[NamedTensor],
    state: &serde_json::Value,
) -> Result<Checkpoint, CheckpointError> {
    let free = fsx::available_space(dir);
    let needed: u64 = tensors.iter().map(|t| t.data.bytes() as u64).sum();
    write(dir, step, |temp| {
        let file = temp.join(TENSORS);
        let named = dir.join(directory_name(step));
        serialize_to_file(
            tensors.iter().map(|t| (t.name.as_str(), TensorView(t))),
            None,
            &file,
        )
        .map_err(|e| match e {
            SafeTensorError::IoError(cause) => {
                let mut error = FsError::new("write", named, cause).needing(Some(needed));
                // Measured now it would count the torn file as used.
                error.available = error.available.and(free);
                CheckpointError::Fs(error)
            }
            other => CheckpointError::Encode {
                path: named,
                why: other.to_string(),
            },
        })?;
        let state = StateFile {
            tensors: tensors.iter().map(|t| t.name.clone()).collect(),
            state: state.clone(),
        };
        write_json(&temp.join(STATE), &state)?;
        // safetensors makes a file for its owner alone; whoever may read the state may
        // read the tensors.
        let mode = fs::metadata(temp.join(STATE)).map(|meta| meta.permissions());
        mode.and_then(|mode| fs::set_permissions(&file, mode))
            .map_err(|e| FsError::new("write", &file, e).into())
    })
}

/// Loads what [`save`] wrote, after checking every file against the manifest.
pub fn load(path: &Path) -> Result<(Vec<NamedTensor>, serde_json::Value), CheckpointError> {
    verify(path)?;
    let torn = |why: String| CheckpointError::Torn {
        path: path.to_path_buf(),
        why,
    };
    let text = fsx::read_to_string(&path.join(STATE))?;
    let state: StateFile =
        serde_json::from_str(&text).map_err(|e| torn(format!("{STATE}: {e}")))?;
    let tensors_path = path.join(TENSORS);
    let file = File::open(&tensors_path).map_err(|e| FsError::new("read", &tensors_path, e))?;
    // SAFETY: the run's lock keeps other processes of ours from changing the file.
    let bytes = unsafe { Mmap::map(&file) }.map_err(|e| FsError::new("read", &tensors_path, e))?;
    let read = SafeTensors::deserialize(&bytes).map_err(|e| torn(format!("{TENSORS}: {e}")))?;
    let tensors = state.tensors.into_iter().map(|name| {
        let view = read
            .tensor(&name)
            .map_err(|e| torn(format!("{TENSORS}: {e}")))?;
        let words = view.data().as_chunks::<4>().0.iter();
        let data = match view.dtype() {
            Dtype::F32 => Numbers::F32(words.map(|b| f32::from_le_bytes(*b)).collect()),
            Dtype::U8 => Numbers::U8(view.data().to_vec()),
            other => {
                let what = format!("{TENSORS}: tensor {name} is {other}, not f32 or u8");
                return Err(torn(what));
            }
        };
        Ok(NamedTensor {
            shape: view.shape().to_vec(),
            data,
            name,
        })
    });
    let tensors = tensors.collect::<Result<Vec<_>, CheckpointError>>()?;
    Ok((tensors, state.state))
}

/// Checks every file of a checkpoint against its manifest, sizes and checksums.
pub fn verify(path: &Path) -> Result<(), CheckpointError> {
    let torn = |why: String| CheckpointError::Torn {
        path: path.to_path_buf(),
        why,
    };
    for file in &check_sizes(path)?.files {
        let crc = crc32::of_file(&path.join(&file.name))?;
        if crc != file.crc32 {
            return Err(torn(format!(
                "{} has checksum {crc:08x}, its manifest says {:08x}",
                file.name, file.crc32
            )));
        }
    }
    Ok(())
}

/// The checkpoints in `dir` whose files all have their sizes, oldest first.
/// A missing directory holds none.
pub fn list(dir: &Path) -> Result<Vec<Checkpoint>, CheckpointError> {
    let mut all = named_steps(dir)?;
    all.retain(|c| check_sizes(&c.path).is_ok());
    Ok(all)
}

/// The newest checkpoint that passes [`verify`]; torn ones are skipped.
pub fn newest_whole(dir: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let mut all = list(dir)?;
    while let Some(checkpoint) = all.pop() {
        if verify(&checkpoint.path).is_ok() {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

/// Removes the oldest checkpoints until `limit` are left, never the newest
/// (so 0 acts as 1), and torn ones older than it. Returns what was removed; what is
/// busy has lost its name and is removed with a later one.
pub fn prune(dir: &Path, limit: usize) -> Result<Vec<Checkpoint>, CheckpointError> {
    let whole = list(dir)?;
    let Some(newest) = whole.last() else {
        return Ok(Vec::new());
    };
    let kept = &whole[whole.len() - limit.clamp(1, whole.len())..];
    let mut removed = named_steps(dir)?;
    removed.retain(|c| c.step < newest.step && !kept.contains(c));
    for checkpoint in &removed {
        fsx::remove_dir(&checkpoint.path)?;
    }
    Ok(removed)
}

/// Removes all checkpoints of later steps, newest first: those of a run that has gone
/// back to `step` belong to a past that it no longer has.
pub fn remove_after(dir: &Path, step: usize) -> Result<(), CheckpointError> {
    for checkpoint in named_steps(dir)?.iter().rev() {
        if checkpoint.step > step {
            fsx::remove_dir(&checkpoint.path)?;
        }
    }
    Ok(())
}

/// Directories named like checkpoints, whole or not, oldest first.
fn named_steps(dir: &Path) -> Result<Vec<Checkpoint>, CheckpointError> {
    let fail = |e| FsError::new("read", dir, e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e).into()),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if let Some(step) = step_of(&path) {
            steps.push(Checkpoint { step, path });
        }
    }
    steps.sort_by_key(|c| c.step);
    Ok(steps)
}

fn check_sizes(path: &Path) -> Result<Manifest, CheckpointError> {
    let torn = |why: String| CheckpointError::Torn {
        path: path.to_path_buf(),
        why,
    };
    let text = match fs::read_to_string(path.join(MANIFEST)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(torn(format!("it has no {MANIFEST}")));
        }
        other => other.map_err(|e| FsError::new("read", path.join(MANIFEST), e))?,
    };
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|e| torn(format!("{MANIFEST}: {e}")))?;
    if manifest.format != 1 {
        let found = manifest.format;
        return Err(torn(format!("{MANIFEST} has format {found}, known is 1")));
    }
    for file in &manifest.files {
        let bytes = fs::metadata(path.join(&file.name)).map(|m| m.len()).ok();
        if bytes != Some(file.bytes) {
            let found = bytes.map_or("missing".to_string(), |b| format!("{b} bytes long"));
            let (name, wanted) = (&file.name, file.bytes);
            return Err(torn(format!("{name} is {found}, not {wanted} bytes long")));
        }
    }
    Ok(manifest)
}

fn describe_files(dir: &Path) -> Result<Vec<ManifestFile>, CheckpointError> {
    let fail = |e| FsError::new("read", dir, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        files.push(ManifestFile {
            name: entry.file_name().to_string_lossy().into_owned(),
            bytes: entry.metadata().map_err(fail)?.len(),
            crc32: crc32::of_file(&entry.path())?,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CheckpointError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CheckpointError::Encode {
        path: path.to_path_buf(),
        why: e.to_string(),
    })?;
    Ok(fsx::write(path, text.as_bytes())?)
}

struct TensorView<'a>(&'a NamedTensor);

impl View for TensorView<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.data {
            Numbers::F32(_) => Dtype::F32,
            Numbers::U8(_) => Dtype::U8,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        match &self.0.data {
            // Not copied: a tensor may be a large part of the memory.
            Numbers::F32(values) => bytes_of(values),
            Numbers::U8(codes) => Cow::Borrowed(codes),
        }
    }
    fn data_len(&self) -> usize {
        self.0.data.bytes()
    }
}

#[cfg(test)]
mod tests;
