//! Writes directories that Hugging Face tools read: staged beside their target
//! and renamed, so that nobody ever sees half of one, and the same bytes for
//! the same content.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::bf16;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::hf_config::{ArchConfig, Parameter};
use crate::staging::{Staged, parent_of, sweep_beside, target_name};

#[derive(Debug, Error)]
pub enum ExportError {
    #[error("{}: {}; nothing was written", target.display(), explain(source))]
    Io { target: PathBuf, source: io::Error },
    #[error("{}: there is a file of that name; choose another output or remove it", target.display())]
    IsFile { target: PathBuf },
    #[error("{}: the directory is not empty; choose another output or empty it", target.display())]
    NotEmpty { target: PathBuf },
    #[error("{}: tensor `{tensor}` holds {value}, and {stored} only numbers up to {most}; set export.dtype=f32 (safetensors, unlike GGUF, also has bf16)", published(file).display())]
    TooLarge {
        file: PathBuf,
        tensor: String,
        value: f32,
        stored: &'static str,
        most: u32,
    },
    #[error("{}: tensor `{tensor}` has {found} elements instead of the {expected} of its shape", file.display())]
    Elements {
        file: PathBuf,
        tensor: String,
        found: usize,
        expected: usize,
    },
}

/// What the user can do about a failed write.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space left on the device; free some or choose another output".into()
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the directory is not writable; choose another output or change its permissions".into()
        }
        _ => format!("cannot write: {error}"),
    }
}

pub(super) fn io_error(target: &Path) -> impl Fn(io::Error) -> ExportError + '_ {
    move |source| ExportError::Io {
        target: published(target),
        source,
    }
}

/// The path that a staged file would have had: errors name what the user asked
/// for, not the temporary directory.
fn published(path: &Path) -> PathBuf {
    let names = path.components().map(|part| {
        let name = part.as_os_str();
        let target = name.to_str().and_then(target_name);
        target.map_or(name, std::ffi::OsStr::new)
    });
    names.collect()
}

/// A directory under a temporary name beside its target. Write into
/// [`StagedDir::path`], then commit; dropped before that, it is removed.
#[derive(Debug)]
pub struct StagedDir(Staged);

impl StagedDir {
    /// Makes the temporary directory, and the target's parents where missing; what
    /// killed writers of the same target left is removed.
    ///
    /// # Errors
    /// The target is a file, or its parent cannot be written.
    pub fn new(target: &Path) -> Result<Self, ExportError> {
        // A link is followed, so that its destination is replaced, not the link.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        if target.is_file() {
            return Err(ExportError::IsFile { target });
        }
        fs::create_dir_all(parent_of(&target)).map_err(io_error(&target))?;
        sweep_beside(&target);
        let staged = Staged::dir(&target).map_err(io_error(&target))?;
        Ok(Self(staged))
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// As [`StagedDir::new`] for a target that must not exist or be empty: found
    /// now, not after the work.
    ///
    /// # Errors
    /// Those of [`StagedDir::new`], and a directory that holds something.
    pub fn new_free(target: &Path) -> Result<Self, ExportError> {
        match holds_something(target) {
            true => Err(ExportError::NotEmpty {
                target: target.to_path_buf(),
            }),
            false => Self::new(target),
        }
    }

    /// Moves the directory to its target, which must not exist or be empty.
    pub fn commit_new(self) -> Result<(), ExportError> {
        let target = self.0.target().to_path_buf();
        match holds_something(&target) {
            true => Err(ExportError::NotEmpty { target }),
            false => self.0.put_new().map_err(io_error(&target)),
        }
    }

    /// Moves the directory to its target in one step; what stood there before
    /// is removed afterwards. The caller decides that it may be.
    pub fn commit_replacing(self) -> Result<(), ExportError> {
        let target = self.0.target().to_path_buf();
        self.0.replace().map_err(io_error(&target))
    }
}

fn holds_something(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    F32,
    /// Rounded to nearest, ties to even.
    Bf16,
}

impl WeightType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
        }
    }

    /// The name in `config.json`.
    pub fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// Writes `config.json`, `generation_config.json` and `model.safetensors` into
/// `dir`, which must exist (a [`StagedDir`]). `tensor` is asked for one
/// parameter after the other; only one is held at a time.
///
/// # Errors
/// What `tensor` returns, and anything that keeps a file from being written.
pub fn write_model<'t, E: From<ExportError>>(
    dir: &Path,
    arch: &ArchConfig,
    weight_type: WeightType,
    tensor: impl FnMut(&Parameter) -> Result<Cow<'t, [f32]>, E>,
) -> Result<(), E> {
    let mut stored = arch.clone();
    stored.dtype = Some(weight_type.torch().to_string());
    write_text(&dir.join("config.json"), &stored.to_json())?;
    write_text(
        &dir.join("generation_config.json"),
        &stored.generation_json(),
    )?;
    write_safetensors(
        &dir.join("model.safetensors"),
        arch.parameters(),
        weight_type,
        tensor,
    )
}

/// Writes a text file.
pub(crate) fn write_text(file: &Path, text: &str) -> Result<(), ExportError> {
    fs::write(file, text).map_err(io_error(file))
}

/// Streams tensors into a safetensors file, sorted by name, with the header
/// that PyTorch's writer gives (`format: pt`, padded to 8 bytes).
pub(crate) fn write_safetensors<'t, E: From<ExportError>>(
    file: &Path,
    mut parameters: Vec<Parameter>,
    weight_type: WeightType,
    mut tensor: impl FnMut(&Parameter) -> Result<Cow<'t, [f32]>, E>,
) -> Result<(), E> {
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    let error = io_error(file);
    let handle = File::create(file).map_err(&error)?;
    let mut out = BufWriter::with_capacity(1 << 20, handle);
    out.write_all(&header(&parameters, weight_type))
        .map_err(&error)?;
    for parameter in &parameters {
        let values = tensor(parameter)?;
        if values.len() != parameter.numel() {
            let mismatch = ExportError::Elements {
                file: file.to_path_buf(),
                tensor: parameter.name.clone(),
                found: values.len(),
                expected: parameter.numel(),
            };
            return Err(mismatch.into());
        }
        write_values(&mut out, &values, weight_type).map_err(&error)?;
    }
    out.flush().map_err(&error)?;
    Ok(())
}

fn header(parameters: &[Parameter], weight_type: WeightType) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut offset = 0;
    for parameter in parameters {
        let end = offset + parameter.numel() * weight_type.bytes();
        let entry = json!({
            "dtype": weight_type.safetensors(),
            "shape": parameter.shape,
            "data_offsets": [offset, end],
        });
        object.insert(parameter.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(object).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}

fn write_values(out: &mut impl Write, values: &[f32], weight_type: WeightType) -> io::Result<()> {
    let mut bytes = Vec::new();
    for chunk in values.chunks(1 << 14) {
        bytes.clear();
        match weight_type {
            WeightType::F32 => bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes())),
            WeightType::Bf16 => {
                bytes.extend(chunk.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
            }
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Checkpoint;
    use super::super::init::initial;
    use super::*;

    fn arch() -> ArchConfig {
        let text = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
            "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}"#;
        ArchConfig::from_json(text, Path::new("config.json")).unwrap()
    }

    fn export(target: &Path, weight_type: WeightType) -> Result<(), ExportError> {
        let staged = StagedDir::new(target)?;
        let arch = arch();
        write_model(staged.path(), &arch, weight_type, |p| {
            Ok::<_, ExportError>(initial(p, &arch, 3).into())
        })?;
        staged.commit_new()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        for (name, weight_type) in [("full", WeightType::F32), ("half", WeightType::Bf16)] {
            let target = dir.path().join("new/parents").join(name);
            export(&target, weight_type).unwrap();
            let read = ArchConfig::from_dir(&target).unwrap();
            assert_eq!(read.dtype.as_deref(), Some(weight_type.torch()));
            let checkpoint = Checkpoint::open(&target).unwrap();
            checkpoint.check(&read).unwrap();
            for parameter in read.parameters() {
                let values = checkpoint
                    .tensor_f32(&parameter.name, &parameter.shape)
                    .unwrap();
                let mut wanted = initial(&parameter, &arch(), 3);
                if weight_type == WeightType::Bf16 {
                    wanted
                        .iter_mut()
                        .for_each(|v| *v = bf16::from_f32(*v).to_f32());
                }
                assert_eq!(values, wanted);
            }
            let files = ["config.json", "generation_config.json", "model.safetensors"];
            assert_eq!(names(&target), files);
        }
        assert_eq!(names(&dir.path().join("new/parents")), ["full", "half"]);
    }

    #[test]
    fn the_same_model_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        export(&dir.path().join("a"), WeightType::F32).unwrap();
        export(&dir.path().join("b"), WeightType::F32).unwrap();
        for file in names(&dir.path().join("a")) {
            let read = |side: &str| fs::read(dir.path().join(side).join(&file)).unwrap();
            assert_eq!(read("a"), read("b"), "{file}");
        }
    }

    #[test]
    fn an_output_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let full = dir.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("mine"), "x").unwrap();
        let text = export(&full, WeightType::F32).unwrap_err().to_string();
        assert!(text.contains("not empty"), "{text}");
        assert_eq!(names(&full), ["mine"]);
        let text = export(&full.join("mine"), WeightType::F32).unwrap_err();
        assert!(text.to_string().contains("there is a file"), "{text}");
        assert_eq!(names(dir.path()), ["full"]);
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        export(&empty, WeightType::F32).unwrap();
    }

    #[test]
    fn replacing_swaps_the_whole_directory() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("adapter");
        for content in ["one", "two"] {
            let staged = StagedDir::new(&target).unwrap();
            fs::create_dir(staged.path().join("inner")).unwrap();
            fs::write(staged.path().join("inner").join(content), content).unwrap();
            staged.commit_replacing().unwrap();
            assert_eq!(names(&target.join("inner")), [content]);
            assert_eq!(names(dir.path()), ["adapter"]);
        }
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        for left in [".model.tmp-1-0", ".model.tmp-1-1", ".other.tmp-1-0"] {
            fs::create_dir(dir.path().join(left)).unwrap();
            fs::write(dir.path().join(left).join("model.safetensors"), "torn").unwrap();
        }
        let living = StagedDir::new(&dir.path().join("model")).unwrap();
        fs::write(living.path().join("config.json"), "{}").unwrap();
        export(&dir.path().join("model"), WeightType::F32).unwrap();
        assert!(living.path().join("config.json").exists());
        drop(living);
        assert_eq!(names(dir.path()), [".other.tmp-1-0", "model"]);
    }

    #[test]
    fn a_failed_export_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        let staged = StagedDir::new(&target).unwrap();
        let wrong = write_model(staged.path(), &arch(), WeightType::F32, |_| {
            Ok::<_, ExportError>(vec![0.0; 3].into())
        });
        let text = wrong.unwrap_err().to_string();
        assert!(text.contains("has 3 elements instead of the 88"), "{text}");
        drop(staged);
        assert!(names(dir.path()).is_empty());
        let file = dir.path().join(".model.tmp-1-0/config.json");
        let full = io_error(&file)(io::ErrorKind::StorageFull.into()).to_string();
        let wanted = dir.path().join("model/config.json");
        assert!(
            full.starts_with(&format!("{}: no space left", wanted.display())),
            "{full}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn modes_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (made, plain) = (dir.path().join("made"), dir.path().join("plain"));
        export(&made, WeightType::F32).unwrap();
        fs::create_dir(&plain).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&made), mode(&plain));
    }
}
