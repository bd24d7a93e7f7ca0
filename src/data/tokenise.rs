//! From a file of data to its samples, a few examples at a time; into memory, or into
//! a file of the cache that the next run finds by what the samples depend on.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::encode::Encoder;
use super::encode_error::EncodeError;
use super::error::DataError;
use super::example::Example;
use super::formats::{Examples, Want};
use super::store::{self, Damage, Said, Store, Writer};
use crate::config::types::{DataConfig, OnError};
use crate::digest::{hash_all, hex};
use crate::staging::{self, Staged, parent_of};

/// Examples are encoded together up to this number and these bytes of text.
const EXAMPLES: usize = 512;
const BYTES: usize = 1 << 20;
/// To be raised where the same file and settings come to other samples than before, so
/// that those in the cache are left alone.
const READING: &str = "3";
/// The names of the cache's files end with this.
const ENDING: &str = ".tokens";

/// A file and how it is encoded.
pub struct Source<'a> {
    pub path: &'a Path,
    pub data: &'a DataConfig,
    pub want: Want,
    pub encoder: &'a Encoder<'a>,
}

/// Where encoded samples are kept.
pub struct Cache {
    pub dir: PathBuf,
    /// What samples depend on besides the file and its columns; see [`Source::key`].
    pub settings: String,
    /// Where they cannot be written, the samples are kept in memory instead.
    pub optional: bool,
}

/// The samples of a file.
pub struct Tokenised {
    pub store: Store,
    /// They were there already.
    pub cached: bool,
    /// Lines for the log: where the samples are, and what was wrong with what was there.
    pub notes: Vec<String>,
}

#[derive(Debug, Error)]
pub enum TokeniseError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A place where tokens cannot be kept.
#[derive(Debug, Error)]
#[error("{path}: cannot keep tokens there: {error}: {room}set data.cache to another directory or to off",
    path = path.display(), room = room(error))]
pub struct CacheError {
    path: PathBuf,
    error: io::Error,
}

/// What may help against `error` besides another place.
fn room(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space, or ",
        _ => "",
    }
}

impl Source<'_> {
    /// The samples, from `cache` where they are there.
    ///
    /// # Errors
    /// The first row that cannot be read or encoded, or a cache that cannot be written and
    /// is not optional.
    pub fn tokenise(&self, cache: Option<&Cache>) -> Result<Tokenised, TokeniseError> {
        let Some(cache) = cache else {
            return self.in_memory(Vec::new());
        };
        // A pipe gives its bytes once. What is missing or a directory is refused there.
        if !self.path.is_file() {
            return self.in_memory(vec![format!(
                "tokens are kept in memory: {} is not a regular file",
                self.path.display()
            )]);
        }
        let name = format!("{}{ENDING}", self.key(&cache.settings)?);
        let path = cache.dir.join(name);
        let mut notes = Vec::new();
        match store::open(&path) {
            Ok(store) => {
                notes.push(format!("tokens from {}", path.display()));
                return Ok(Tokenised {
                    store,
                    cached: true,
                    notes,
                });
            }
            Err(Damage::Io(error)) if is_absent(&error) => {}
            Err(damage) => {
                let what: &dyn Display = match &damage {
                    Damage::Io(error) => error,
                    Damage::What(what) => what,
                };
                notes.push(format!("{}: {what}; made again", path.display()));
            }
        }
        let (store, unnamed) = match self.in_file(&path) {
            Ok(made) => made,
            Err(TokeniseError::Cache(CacheError { error, .. })) if cache.optional => {
                notes.push(format!(
                    "tokens are kept in memory: {}: {error}",
                    cache.dir.display()
                ));
                return self.in_memory(notes);
            }
            Err(error) => return Err(error),
        };
        notes.push(match unnamed {
            None => format!("tokens kept in {}", path.display()),
            Some(error) => format!(
                "{}: {error}; the next run may have to tokenise again",
                path.display()
            ),
        });
        Ok(Tokenised {
            store,
            cached: false,
            notes,
        })
    }

    /// The samples in a file that becomes `path`; they can be read also where it could
    /// not get that name, with why.
    fn in_file(&self, path: &Path) -> Result<(Store, Option<io::Error>), TokeniseError> {
        let dir = parent_of(path);
        let io = |error| failed(dir, error);
        let staged = begin(path).map_err(io)?;
        let out = BufWriter::with_capacity(1 << 20, staged.handle());
        let writer = Writer::new(out, true).map_err(io)?;
        let (writer, said) = self.fill(writer, dir)?;
        writer.finish(&said).map_err(io)?;
        // Not left to the renaming: what is not on the disk must not be used.
        staged.handle().sync_all().map_err(io)?;
        // Opened anew: the handle's lock would last as long as the samples.
        let file = File::open(staged.path()).map_err(io)?;
        let store = store::map(&file).map_err(|damage| match damage {
            Damage::Io(error) => io(error),
            Damage::What(what) => io(io::Error::other(what)),
        })?;
        Ok((store, staged.replace().err()))
    }

    fn in_memory(&self, notes: Vec<String>) -> Result<Tokenised, TokeniseError> {
        let io = |error| failed(self.path, error);
        let writer = Writer::new(Vec::new(), false).map_err(io)?;
        let (writer, said) = self.fill(writer, self.path)?;
        Ok(Tokenised {
            store: writer.into_store(said).map_err(io)?,
            cached: false,
            notes,
        })
    }

    /// Encodes the file into `writer`, whose errors name `path`.
    fn fill<W: Write>(
        &self,
        mut writer: Writer<W>,
        path: &Path,
    ) -> Result<(Writer<W>, Said), TokeniseError> {
        let mut said = Said::default();
        let mut refused: Vec<EncodeError> = Vec::new();
        let mut examples = Examples::open(self.path, self.data, self.want.clone())?;
        loop {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < EXAMPLES && bytes < BYTES {
                let Some(example) = examples.next() else {
                    break;
                };
                let example = example?;
                bytes += weight(&example);
                batch.push(example);
            }
            if batch.is_empty() {
                break;
            }
            let encode = |example| self.encoder.samples(example, self.path);
            let encoded: Vec<_> = batch.par_iter().map(encode).collect();
            for samples in encoded {
                let samples = match samples {
                    Err(bad) if self.data.on_error == OnError::Skip && bad.is_of_one_row() => {
                        refused.push(bad);
                        continue;
                    }
                    samples => samples?,
                };
                said.examples += 1;
                for sample in samples {
                    said.report.add(&sample);
                    writer.push(&sample).map_err(|e| failed(path, e))?;
                }
            }
        }
        if said.examples == 0 && !refused.is_empty() {
            return Err(refused.remove(0).into());
        }
        let place = self.path.display().to_string();
        let read = examples.skipped().iter().map(ToString::to_string);
        said.skipped = read
            .chain(refused.iter().map(ToString::to_string))
            .map(|text| match text.strip_prefix(&place) {
                Some(text) => text.to_string(),
                None => text,
            })
            .collect();
        Ok((writer, said))
    }

    /// The name of the samples: a hash of the file's content, of how it is read, of
    /// `settings`, which stand for tokenizer, prompt and truncation, and of the version
    /// of this program and of its reading.
    fn key(&self, settings: &str) -> Result<String, TokeniseError> {
        let io = |error| DataError::io(self.path, error);
        let mut hash = Sha256::new();
        let file = File::open(self.path).map_err(io)?;
        let length = hash_all(file, &mut hash).map_err(io)?;
        let ending = self.path.extension().map(|e| e.to_ascii_lowercase());
        let data = self.data;
        let how = format!(
            "{length} {ending:?} {:?} {:?} {:?} {:?}",
            data.format, data.on_error, data.columns, self.want
        );
        hash.update(store::MARK);
        for part in [&how, settings, env!("CARGO_PKG_VERSION"), READING] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Ok(hex(&hash.finalize()[..16]))
    }
}

/// A file that is to become `path`, in a directory that is made where it is missing and
/// rid of what killed runs left.
fn begin(path: &Path) -> io::Result<Staged> {
    let dir = parent_of(path);
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        // A directory that the user chose may hold temporary names of others.
        let target = name.to_str().and_then(staging::target_name);
        if let Some(target) = target.filter(|target| target.ends_with(ENDING)) {
            staging::sweep_beside(&dir.join(target));
        }
    }
    Staged::file(path)
}

fn is_absent(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(path: &Path, error: io::Error) -> TokeniseError {
    TokeniseError::Cache(CacheError {
        path: path.to_path_buf(),
        error,
    })
}

/// About the bytes that an example takes.
fn weight(example: &Example) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let listed = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    let talk = example.conversation.iter().flat_map(|c| &c.messages);
    let talk = talk.map(|m| m["content"].as_str().map_or(64, str::len));
    text(&example.question)
        + text(&example.text)
        + example.context.as_ref().map_or(0, |c| c.len())
        + listed(&example.options)
        + listed(&example.answers)
        + example.fields.iter().map(|(_, v)| v.len()).sum::<usize>()
        + talk.sum::<usize>()
        + example
            .tokens
            .as_ref()
            .map_or(0, |t| 12 * t.input_ids.len())
}

#[cfg(test)]
#[path = "tokenise_tests.rs"]
mod tests;
