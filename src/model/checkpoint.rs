//! Weights of a Hugging Face directory: one `model.safetensors`, or shards
//! listed by `model.safetensors.index.json`, mapped into memory and read a
//! tensor at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;
use thiserror::Error;

use crate::ops::nf4::{self, Nf4, TASK};
use crate::ops::stored::{Bf16, F16, F32, Stored, non_finite_in, to_f32};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Elements that are handed on at a time, a bound on how much of the file counts as
/// this process's memory.
const WINDOW: usize = 1 << 22;

#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("{}: no model weights found; looked for {SINGLE} and {INDEX}{hint}", dir.display())]
    NoWeights { dir: PathBuf, hint: String },
    #[error("{}: cannot read: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
    #[error("{}: not a whole safetensors file: {problem}", file.display())]
    Damaged { file: PathBuf, problem: String },
    #[error("{}: {problem}", file.display())]
    Index { file: PathBuf, problem: String },
    #[error("{}: tensor `{tensor}` is missing{more}; does config.json belong to these weights?", dir.display())]
    Missing {
        dir: PathBuf,
        tensor: String,
        more: String,
    },
    #[error("{}: tensor `{tensor}` has shape {found:?}, but config.json asks for {expected:?}", file.display())]
    Shape {
        file: PathBuf,
        tensor: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("{}: tensor `{tensor}` is stored as {found}; F32, F16 and BF16 can be read", file.display())]
    Dtype {
        file: PathBuf,
        tensor: String,
        found: String,
    },
    #[error("{}: tensor `{tensor}` holds NaN or infinity (element {element}); the checkpoint is damaged", file.display())]
    NotFinite {
        file: PathBuf,
        tensor: String,
        element: usize,
    },
}

/// An open checkpoint. Files must not be cut while it is open: reading a
/// mapped page that is gone ends the process.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Shard {
    file: PathBuf,
    map: Mmap,
    #[cfg(unix)]
    handle: File,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes of the shard's file; checked to lie within it.
    bytes: Range<usize>,
}

impl Entry {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Checkpoint {
    /// Opens the weights in `dir` and checks every header: sizes, offsets that
    /// overlap or leave the file, and an index that names other directories.
    ///
    /// # Errors
    /// Names the file, and what to do where that is known.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self {
            dir: dir.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        if dir.join(SINGLE).is_file() {
            checkpoint.tensors = checkpoint.open_file(&dir.join(SINGLE))?;
        } else if dir.join(INDEX).is_file() {
            checkpoint.open_shards(&dir.join(INDEX))?;
        } else {
            return Err(no_weights(dir));
        }
        Ok(checkpoint)
    }

    /// Opens a lone safetensors file, such as an adapter's.
    pub(crate) fn open_single(file: &Path) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self {
            dir: file.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        checkpoint.tensors = checkpoint.open_file(file)?;
        Ok(checkpoint)
    }

    fn open_shards(&mut self, index: &Path) -> Result<(), CheckpointError> {
        let weight_map = read_index(index)?;
        let files: BTreeSet<&String> = weight_map.values().collect();
        let mut contents = BTreeMap::new();
        for name in files {
            let file = self.dir.join(name);
            if !file.is_file() {
                return Err(CheckpointError::Index {
                    file: index.to_path_buf(),
                    problem: format!(
                        "names the shard `{name}`, which is not in the directory; download the \
                         model again"
                    ),
                });
            }
            contents.insert(name, self.open_file(&file)?);
        }
        for (tensor, name) in &weight_map {
            let entry = contents
                .get_mut(name)
                .and_then(|shard| shard.remove(tensor));
            let entry = entry.ok_or_else(|| CheckpointError::Index {
                file: index.to_path_buf(),
                problem: format!("says that `{name}` holds `{tensor}`, but it does not"),
            })?;
            self.tensors.insert(tensor.clone(), entry);
        }
        Ok(())
    }

    /// Maps one file and returns what its header lists.
    fn open_file(&mut self, file: &Path) -> Result<BTreeMap<String, Entry>, CheckpointError> {
        let io = |source| CheckpointError::Io {
            file: file.to_path_buf(),
            source,
        };
        let handle = File::open(file).map_err(io)?;
        // SAFETY: the map is only read; cutting the file meanwhile is the
        // documented misuse.
        let map = unsafe { Mmap::map(&handle) }.map_err(io)?;
        let damaged = |problem| CheckpointError::Damaged {
            file: file.to_path_buf(),
            problem,
        };
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| damaged(explain(&error, map.len())))?;
        // The format counts offsets from the end of the header and its length field.
        let start = header + 8;
        let shard = self.shards.len();
        let mut entries = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            let bytes = match (start.checked_add(from), start.checked_add(to)) {
                (Some(from), Some(to)) if from <= to && to <= map.len() => from..to,
                _ => return Err(damaged(format!("tensor `{name}` lies outside the file"))),
            };
            let entry = Entry {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes,
            };
            entries.insert(name, entry);
        }
        self.shards.push(Shard {
            file: file.to_path_buf(),
            map,
            #[cfg(unix)]
            handle,
        });
        Ok(entries)
    }

    /// Calls the tensor `stored` by `name` where there is none of that name yet.
    pub(super) fn rename(&mut self, stored: &str, name: &str) {
        if !self.contains(name)
            && let Some(entry) = self.tensors.remove(stored)
        {
            self.tensors.insert(name.to_string(), entry);
        }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor, where there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Type of a tensor, where there is one of that name.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|entry| entry.dtype)
    }

    /// The bytes of a tensor as stored, whatever its type. Read, they count as
    /// memory of this process until [`Checkpoint::release`].
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let entry = self.tensors.get(name)?;
        Some(&self.shards[entry.shard].map[entry.bytes.clone()])
    }

    /// Gives back the memory that [`Checkpoint::bytes`] took.
    pub(super) fn release(&self, name: &str) {
        if let Some(entry) = self.tensors.get(name) {
            self.shards[entry.shard].release(entry.bytes.clone());
        }
    }

    /// The file that holds the tensor; the directory where there is none.
    pub(super) fn file_of(&self, name: &str) -> &Path {
        let entry = self.tensors.get(name);
        entry.map_or(&self.dir, |entry| &self.shards[entry.shard].file)
    }

    /// Bytes of all tensors as stored.
    pub fn total_bytes(&self) -> u64 {
        let bytes = self.tensors.values().map(|entry| entry.bytes.len() as u64);
        bytes.sum()
    }

    /// Checks without reading any data that a tensor is there in a readable type and
    /// its shape.
    ///
    /// # Errors
    /// It is not.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<(), CheckpointError> {
        self.entry(name, shape).map(drop)
    }

    /// One tensor in f32, row-major, from F32, F16 or BF16. Large ones are
    /// converted on all threads.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or type, or that holds NaN
    /// or infinity.
    pub fn tensor_f32(
        &self,
        name: &str,
        expected_shape: &[usize],
    ) -> Result<Vec<f32>, CheckpointError> {
        let entry = self.entry(name, expected_shape)?;
        let mut values = vec![0f32; entry.elements()];
        self.convert(name, entry, 0, &mut values)?;
        Ok(values)
    }

    /// One matrix quantised to NF4 as it is read: its f32 values are never whole in
    /// memory.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor_f32`].
    pub(super) fn quantised(
        &self,
        name: &str,
        shape: [usize; 2],
        block_size: usize,
        double: bool,
    ) -> Result<Nf4, CheckpointError> {
        let entry = self.entry(name, &shape)?;
        let shard = &self.shards[entry.shard];
        let read = |range: Range<usize>, out: &mut Vec<u8>| {
            let width = entry.bytes.len() / entry.elements().max(1);
            let start = entry.bytes.start;
            shard.read(start + range.start * width..start + range.end * width, out)
        };
        let bad = |element| self.not_finite(name, entry, element);
        match entry.dtype {
            Dtype::F32 => nf4::quantize_from::<F32, _>(shape, block_size, double, read, bad),
            Dtype::F16 => nf4::quantize_from::<F16, _>(shape, block_size, double, read, bad),
            Dtype::BF16 => nf4::quantize_from::<Bf16, _>(shape, block_size, double, read, bad),
            _ => Err(self.dtype_error(name, entry)),
        }
    }

    fn not_finite(&self, name: &str, entry: &Entry, element: usize) -> CheckpointError {
        CheckpointError::NotFinite {
            file: self.shards[entry.shard].file.clone(),
            tensor: name.to_string(),
            element,
        }
    }

    /// Hands a tensor on piece by piece, as stored and in f32, so that no more
    /// than a piece is in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor_f32`], and those of `piece`.
    pub(super) fn stream<E: From<CheckpointError>>(
        &self,
        name: &str,
        expected_shape: &[usize],
        mut piece: impl FnMut(&[u8], &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let entry = self.entry(name, expected_shape)?;
        let shard = &self.shards[entry.shard];
        let mut buffer = vec![0f32; entry.elements().min(WINDOW)];
        for at in (0..entry.elements()).step_by(WINDOW) {
            let window = &mut buffer[..WINDOW.min(entry.elements() - at)];
            let bytes = self.convert(name, entry, at, window)?;
            piece(&shard.map[bytes.clone()], window)?;
            shard.release(bytes);
        }
        Ok(())
    }

    /// Converts the elements from `at` on into `out`, on all threads; returns
    /// where they lie in the file.
    fn convert(
        &self,
        name: &str,
        entry: &Entry,
        at: usize,
        out: &mut [f32],
    ) -> Result<Range<usize>, CheckpointError> {
        let shard = &self.shards[entry.shard];
        let (width, convert) = reader(entry.dtype).ok_or_else(|| self.dtype_error(name, entry))?;
        let start = entry.bytes.start + at * width;
        let end = start + out.len() * width;
        out.par_chunks_mut(TASK).enumerate().try_for_each_init(
            Vec::new,
            |bytes, (task, values)| {
                let from = start + task * TASK * width;
                shard.read(from..from + values.len() * width, bytes)?;
                convert(bytes, values);
                // Looked at while they are in the cache.
                match non_finite_in(values) {
                    None => Ok(()),
                    Some(i) => Err(self.not_finite(name, entry, at + task * TASK + i)),
                }
            },
        )?;
        Ok(start..end)
    }

    fn entry(&self, name: &str, expected: &[usize]) -> Result<&Entry, CheckpointError> {
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| self.missing(name, 0))?;
        if reader(entry.dtype).is_none() {
            return Err(self.dtype_error(name, entry));
        }
        if entry.shape != expected {
            return Err(CheckpointError::Shape {
                file: self.shards[entry.shard].file.clone(),
                tensor: name.to_string(),
                found: entry.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        Ok(entry)
    }

    pub(super) fn missing(&self, tensor: &str, others: usize) -> CheckpointError {
        CheckpointError::Missing {
            dir: self.dir.clone(),
            tensor: tensor.to_string(),
            more: match others {
                0 => String::new(),
                n => format!(" and {n} more"),
            },
        }
    }

    fn dtype_error(&self, name: &str, entry: &Entry) -> CheckpointError {
        CheckpointError::Dtype {
            file: self.shards[entry.shard].file.clone(),
            tensor: name.to_string(),
            found: format!("{:?}", entry.dtype),
        }
    }
}

impl Shard {
    /// Reads `bytes` of the file into `out`. A copy into a buffer that stays in the
    /// cache costs less than the page faults of a map, and a file that was cut
    /// meanwhile is an error.
    #[cfg(unix)]
    fn read(&self, bytes: Range<usize>, out: &mut Vec<u8>) -> Result<(), CheckpointError> {
        use std::os::unix::fs::FileExt;
        out.resize(bytes.len(), 0);
        let read = self.handle.read_exact_at(out, bytes.start as u64);
        read.map_err(|source| CheckpointError::Io {
            file: self.file.clone(),
            source,
        })
    }

    #[cfg(not(unix))]
    fn read(&self, bytes: Range<usize>, out: &mut Vec<u8>) -> Result<(), CheckpointError> {
        out.clear();
        out.extend_from_slice(&self.map[bytes]);
        Ok(())
    }

    /// Gives the pages of `bytes` back, so that what was read no longer counts
    /// as memory of this process. They stay in the system's file cache.
    #[cfg(unix)]
    fn release(&self, bytes: Range<usize>) {
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: a read-only map of a file: dropped pages are read anew.
        let advised = unsafe {
            self.map
                .unchecked_advise_range(advice, bytes.start, bytes.len())
        };
        // A refusal costs memory, not correctness.
        drop(advised);
    }

    #[cfg(not(unix))]
    fn release(&self, _bytes: Range<usize>) {}
}

/// Bytes an element takes and how to read them.
type Reader = (usize, fn(&[u8], &mut [f32]));

fn reader(dtype: Dtype) -> Option<Reader> {
    match dtype {
        Dtype::F32 => Some((F32::BYTES, to_f32::<F32>)),
        Dtype::F16 => Some((F16::BYTES, to_f32::<F16>)),
        Dtype::BF16 => Some((Bf16::BYTES, to_f32::<Bf16>)),
        _ => None,
    }
}

fn no_weights(dir: &Path) -> CheckpointError {
    let hint = if !dir.is_dir() {
        ". There is no such directory".to_string()
    } else {
        let torch = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
        match torch.into_iter().find(|name| dir.join(name).is_file()) {
            Some(name) => format!(
                ". {name} is a pickle, which is not read: convert it to safetensors, for example \
                 with transformers' save_pretrained"
            ),
            None => ". Give a Hugging Face model directory with model.path=DIR".to_string(),
        }
    };
    CheckpointError::NoWeights {
        dir: dir.to_path_buf(),
        hint,
    }
}

/// The index's map from tensor to shard; shards must lie in the directory.
fn read_index(file: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let error = |problem: String| CheckpointError::Index {
        file: file.to_path_buf(),
        problem,
    };
    let text = std::fs::read_to_string(file).map_err(|source| CheckpointError::Io {
        file: file.to_path_buf(),
        source,
    })?;
    let value: Value =
        serde_json::from_str(&text).map_err(|e| error(format!("not valid JSON: {e}")))?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| error("has no `weight_map` object".into()))?;
    map.iter()
        .map(|(tensor, shard)| {
            let shard = shard
                .as_str()
                .ok_or_else(|| error(format!("the shard of `{tensor}` is not a file name")))?;
            let plain = Path::new(shard)
                .file_name()
                .is_some_and(|name| name == shard);
            if !plain || shard.contains(['/', '\\']) {
                return Err(error(format!(
                    "the shard `{shard}` of `{tensor}` is not a plain file name; files outside \
                     the model's directory are not opened"
                )));
            }
            Ok((tensor.clone(), shard.to_string()))
        })
        .collect()
}

/// What a header error of the safetensors library means for the user.
fn explain(error: &SafeTensorError, bytes: usize) -> String {
    use SafeTensorError as E;
    match error {
        E::HeaderTooSmall => format!("it has {bytes} bytes, too few for a header"),
        E::InvalidHeaderLength => {
            format!("its header claims to be longer than the file of {bytes} bytes")
        }
        E::HeaderTooLarge => "its header claims more than 100 MB, the format's limit".into(),
        E::MetadataIncompleteBuffer => format!(
            "the tensors that its header lists do not fill the file of {bytes} bytes; it was cut \
             or only partly downloaded"
        ),
        E::InvalidOffset(tensor) => {
            format!("the bytes of tensor `{tensor}` overlap another's or leave a gap")
        }
        E::TensorInvalidInfo => "a tensor's shape and number of bytes disagree".into(),
        E::ValidationOverflow => "a tensor's size overflows".into(),
        other => format!("its header cannot be read ({other})"),
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
