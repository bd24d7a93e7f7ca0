//! Writes a model's tensors into one `model.safetensors` or into shards with
//! their index, a tensor at a time, in the order of torch's writer: types that
//! align widest first, then by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::export::{ExportError, io_error, write_text};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The one size of the shape is an upper bound; the tensor is a list of bytes.
    pub bound: bool,
}

impl Spec {
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            bound: false,
        }
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of all tensors.
    pub bytes: u64,
    pub files: usize,
}

/// Writes `groups` of tensors into `dir`, each group into one file of at most
/// `max_bytes` where it fits. `fill` is asked for the tensors of one group after
/// the other, by the number of the group.
///
/// # Errors
/// What `fill` returns, and anything that keeps a file from being written.
pub(super) fn write<E: From<ExportError>>(
    dir: &Path,
    groups: &[Vec<Spec>],
    max_bytes: u64,
    mut fill: impl FnMut(usize, &mut Shard) -> Result<(), E>,
) -> Result<Written, E> {
    let plan = split(groups, max_bytes);
    let count = plan.len();
    let mut written = Written {
        bytes: 0,
        files: count,
    };
    let mut map = BTreeMap::new();
    for (number, mut members) in plan.into_iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        // States are written one behind the other: their order is the file's.
        members.sort_by(|a, b| first_name(&groups[*a]).cmp(first_name(&groups[*b])));
        let specs = members.iter().flat_map(|i| groups[*i].iter().cloned());
        let mut shard = Shard::create(&dir.join(&name), specs.collect())?;
        for group in members {
            fill(group, &mut shard)?;
        }
        for slot in &shard.slots {
            map.insert(slot.spec.name.clone(), Value::from(name.clone()));
        }
        written.bytes += shard.finish()?;
    }
    if count > 1 {
        let index = json!({
            "metadata": {"total_size": written.bytes},
            "weight_map": map,
        });
        let file = dir.join("model.safetensors.index.json");
        write_text(&file, &format!("{index:#}\n"))?;
    }
    Ok(written)
}

fn first_name(group: &[Spec]) -> &str {
    group.first().map_or("", |spec| &spec.name)
}

/// The groups of each file: in order, a new file where the next would not fit.
fn split(groups: &[Vec<Spec>], max_bytes: u64) -> Vec<Vec<usize>> {
    let mut files: Vec<Vec<usize>> = vec![Vec::new()];
    let mut held = 0;
    for (i, group) in groups.iter().enumerate() {
        let bytes = group.iter().map(|spec| spec.bytes() as u64).sum::<u64>();
        if held + bytes > max_bytes && held > 0 {
            files.push(Vec::new());
            held = 0;
        }
        held += bytes;
        if let Some(file) = files.last_mut() {
            file.push(i);
        }
    }
    files
}

/// One file that is being written.
pub(super) struct Shard {
    file: PathBuf,
    handle: File,
    /// Where tensors begin; room for the header with all bounds taken up.
    start: u64,
    slots: Vec<Slot>,
    index: BTreeMap<String, usize>,
}

struct Slot {
    spec: Spec,
    /// Unknown for a bound until the tensor is written.
    bytes: Option<usize>,
    written: bool,
}

impl Shard {
    fn create(file: &Path, mut specs: Vec<Spec>) -> Result<Self, ExportError> {
        specs.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let slots: Vec<Slot> = specs
            .into_iter()
            .map(|spec| Slot {
                bytes: (!spec.bound).then(|| spec.bytes()),
                spec,
                written: false,
            })
            .collect();
        let index = slots.iter().enumerate();
        let index = index.map(|(i, slot)| (slot.spec.name.clone(), i)).collect();
        Ok(Self {
            handle: File::create(file).map_err(io_error(file))?,
            start: header(&slots, 0).len() as u64,
            file: file.to_path_buf(),
            slots,
            index,
        })
    }

    /// Writes the tensor `name` with what `fill` gives.
    ///
    /// # Errors
    /// `fill`'s, a file that cannot be written, or another number of bytes than
    /// the tensor's shape takes.
    pub fn put<E: From<ExportError>>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Sink<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let wrong = |found: usize, expected: usize| ExportError::Elements {
            file: self.file.clone(),
            tensor: name.to_string(),
            found,
            expected,
        };
        let slot = self.index.get(name).copied();
        let before = slot.and_then(|i| {
            self.slots[..i]
                .iter()
                .map(|slot| slot.bytes)
                .sum::<Option<usize>>()
        });
        let Some((slot, before)) = slot.zip(before) else {
            return Err(wrong(0, 0).into());
        };
        let at = self.start + before as u64;
        self.handle
            .seek(SeekFrom::Start(at))
            .map_err(io_error(&self.file))?;
        let mut sink = Sink {
            handle: &self.handle,
            file: &self.file,
            bytes: 0,
        };
        fill(&mut sink)?;
        let bytes = sink.bytes;
        let spec = &self.slots[slot].spec;
        let fits = match spec.bound {
            true => bytes <= spec.bytes(),
            false => bytes == spec.bytes(),
        };
        if !fits {
            return Err(wrong(bytes, spec.bytes()).into());
        }
        self.slots[slot].bytes = Some(bytes);
        self.slots[slot].written = true;
        Ok(())
    }

    /// Writes the header; returns the bytes of all tensors.
    fn finish(mut self) -> Result<u64, ExportError> {
        if let Some(slot) = self.slots.iter().find(|slot| !slot.written) {
            return Err(ExportError::Elements {
                file: self.file.clone(),
                tensor: slot.spec.name.clone(),
                found: 0,
                expected: slot.spec.bytes(),
            });
        }
        let header = header(&self.slots, self.start as usize);
        let mut write = || -> io::Result<()> {
            self.handle.seek(SeekFrom::Start(0))?;
            self.handle.write_all(&header)?;
            self.handle.flush()
        };
        write().map_err(io_error(&self.file))?;
        Ok(self
            .slots
            .iter()
            .filter_map(|slot| slot.bytes)
            .sum::<usize>() as u64)
    }
}

/// Takes the bytes of one tensor.
pub(super) struct Sink<'s> {
    handle: &'s File,
    file: &'s Path,
    bytes: usize,
}

impl Sink<'_> {
    /// Adds bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.bytes += bytes.len();
        self.handle.write_all(bytes).map_err(io_error(self.file))
    }
}

/// The header with its length before it, at least `least` bytes long. Lengths not
/// known yet count as their bound.
fn header(slots: &[Slot], least: usize) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for slot in slots {
        let bytes = slot.bytes.unwrap_or_else(|| slot.spec.bytes());
        let shape = match slot.spec.bound {
            true => json!([bytes]),
            false => json!(slot.spec.shape),
        };
        let entry = json!({
            "dtype": slot.spec.dtype.to_string(),
            "shape": shape,
            "data_offsets": [offset, offset + bytes],
        });
        object.insert(slot.spec.name.clone(), entry);
        offset += bytes;
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    text.resize(
        text.len().next_multiple_of(8).max(least.saturating_sub(8)),
        b' ',
    );
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}
