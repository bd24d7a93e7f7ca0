//! From a file of data to its samples, a few examples at a time; into memory, or into
//! a file of the cache that the next run finds by what the samples depend on.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::encode::Encoder;
use super::encode_error::EncodeError;
use super::error::DataError;
use super::example::Example;
use super::formats::{Examples, Want};
use super::hex::hex;
use super::store::{self, Damage, Said, Store, Writer};
use crate::config::types::{DataConfig, OnError};

/// Examples are encoded together up to this number and these bytes of text.
const EXAMPLES: usize = 512;
const BYTES: usize = 1 << 20;
/// To be raised where the same file and settings come to other samples than before, so
/// that those in the cache are left alone.
const READING: &str = "3";
/// Temporary files begin with this.
const MAKING: &str = "making-";
/// A temporary file that nobody has written to for so long was left behind.
const STALE: Duration = Duration::from_secs(24 * 3600);

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
    /// Without a place to write to, the samples are kept in memory instead.
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
#[error("{path}: cannot keep tokens there: {error}: free some space, or set data.cache to another directory or to off",
    path = path.display())]
pub struct CacheError {
    path: PathBuf,
    error: io::Error,
}

impl Source<'_> {
    /// The samples, from `cache` where they are there.
    ///
    /// # Errors
    /// The first row that cannot be read or encoded, or a cache that cannot be written.
    pub fn tokenise(&self, cache: Option<&Cache>) -> Result<Tokenised, TokeniseError> {
        let Some(cache) = cache else {
            return self.in_memory(Vec::new());
        };
        let name = format!("{}.tokens", self.key(&cache.settings)?);
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
        let file = match begin(&cache.dir) {
            Ok(file) => file,
            Err(error) if cache.optional => {
                notes.push(format!(
                    "tokens are kept in memory: {}: {error}",
                    cache.dir.display()
                ));
                return self.in_memory(notes);
            }
            Err(error) => return Err(failed(&cache.dir, error)),
        };
        let io = |error| failed(&path, error);
        let writer = Writer::new(BufWriter::with_capacity(1 << 20, file), true).map_err(io)?;
        let (writer, said) = self.fill(writer, &path)?;
        let (out, _) = writer.finish(&said).map_err(io)?;
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(&path).map_err(|e| io(e.error))?;
        notes.push(format!("tokens kept in {}", path.display()));
        let store = store::open(&path).map_err(|damage| match damage {
            Damage::Io(error) => io(error),
            Damage::What(what) => io(io::Error::other(what)),
        })?;
        Ok(Tokenised {
            store,
            cached: false,
            notes,
        })
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

    /// Encodes the file into `writer`, which writes to `path`.
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
        let length = store::hash_all(file, &mut hash).map_err(io)?;
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

/// A temporary file in `dir`, which is made where it is missing and rid of what a
/// killed run left.
fn begin(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    fs::create_dir_all(dir)?;
    let now = SystemTime::now();
    for entry in fs::read_dir(dir)?.flatten() {
        let changed = entry.metadata().and_then(|m| m.modified());
        let age = changed.ok().and_then(|at| now.duration_since(at).ok());
        let ours = entry.file_name().to_string_lossy().starts_with(MAKING);
        if ours && age.is_some_and(|age| age > STALE) {
            // Another run may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
    tempfile::Builder::new().prefix(MAKING).tempfile_in(dir)
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
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::config::types::{PromptConfig, TaskKind};
    use crate::data::store::Samples;
    use crate::data::tokenizer::tests::write_words;
    use crate::data::{Answers, Tokenizer, read_examples};

    struct Fixture {
        folder: tempfile::TempDir,
        tokenizer: Tokenizer,
        data: DataConfig,
    }

    /// Three good rows and a bad one.
    const ROWS: &str = "question,answer\nq1 q2,a1\nq3,\nq4 q1,a2\nq2 q2 q2,a1\n";

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            write_words(folder.path(), true, &["q1", "q2", "q3", "q4", "a1", "a2"]);
            let config = folder.path().join("tokenizer_config.json");
            std::fs::write(config, r#"{"eos_token": "</s>"}"#).unwrap();
            std::fs::write(folder.path().join("d.csv"), ROWS).unwrap();
            Self {
                tokenizer: Tokenizer::load(folder.path()).unwrap(),
                folder,
                data: DataConfig {
                    path: None,
                    test_path: None,
                    format: None,
                    on_error: OnError::Skip,
                    cache: "off".to_string(),
                    columns: IndexMap::new(),
                },
            }
        }

        fn encoder(&self) -> Encoder<'_> {
            let prompt = PromptConfig {
                template: "{question} ".to_string(),
                answer: "{answer}".to_string(),
                ..PromptConfig::default()
            };
            Encoder::new(&prompt, TaskKind::Saq, Some(&self.tokenizer), 64).unwrap()
        }

        fn cache(&self, settings: &str) -> Cache {
            Cache {
                dir: self.folder.path().join("cache/tokens"),
                settings: settings.to_string(),
                optional: false,
            }
        }

        fn run(&self, cache: Option<&Cache>) -> Result<Tokenised, TokeniseError> {
            let encoder = self.encoder();
            let source = Source {
                path: &self.folder.path().join("d.csv"),
                data: &self.data,
                want: Want::new(TaskKind::Saq, Answers::Required),
                encoder: &encoder,
            };
            source.tokenise(cache)
        }

        fn kept(&self) -> Vec<PathBuf> {
            let dir = std::fs::read_dir(self.cache("").dir).unwrap();
            let mut kept: Vec<_> = dir.map(|e| e.unwrap().path()).collect();
            kept.sort();
            kept
        }
    }

    #[test]
    fn the_samples_are_those_of_encoding_the_whole_file_at_once() {
        let f = Fixture::new();
        let path = f.folder.path().join("d.csv");
        let want = Want::new(TaskKind::Saq, Answers::Required);
        let read = read_examples(&path, &f.data, want).unwrap();
        let whole = f.encoder().encode(&read.examples, &path).unwrap();
        let cache = f.cache("");
        for (cache, cached) in [(None, false), (Some(&cache), false), (Some(&cache), true)] {
            let run = f.run(cache).unwrap();
            assert_eq!(run.cached, cached);
            let found: Vec<_> = (0..3).map(|i| run.store.get(i).into_owned()).collect();
            assert_eq!((run.store.len(), found), (3, whole.samples.clone()));
            assert_eq!(run.store.said.report, whole.report);
            assert_eq!(run.store.said.examples, 3);
            let skipped = ":3: answer is empty: fill it or remove the row";
            assert_eq!(run.store.said.skipped, [skipped]);
        }
        assert_eq!(f.kept().len(), 1);
    }

    #[test]
    fn a_row_that_cannot_be_encoded_can_be_skipped() {
        let mut f = Fixture::new();
        let path = f.folder.path().join("d.jsonl");
        let row = |more: &str| format!("{{\"question\": \"q1\", \"answer\": \"a1\"{more}}}\n");
        let prompt = PromptConfig {
            template: "{topic} {question}".to_string(),
            answer: " {answer}".to_string(),
            ..PromptConfig::default()
        };
        let run = |f: &Fixture, rows: &[&str]| {
            std::fs::write(&path, rows.iter().map(|more| row(more)).collect::<String>()).unwrap();
            let encoder = Encoder::new(&prompt, TaskKind::Saq, Some(&f.tokenizer), 64).unwrap();
            let source = Source {
                path: &path,
                data: &f.data,
                want: Want::new(TaskKind::Saq, Answers::Required),
                encoder: &encoder,
            };
            source
                .tokenise(None)
                .map(|t| t.store)
                .map_err(|e| e.to_string())
        };
        let topic = ", \"topic\": \"q2\"";
        let store = run(&f, &[topic, "", topic]).unwrap();
        assert_eq!((store.len(), store.said.examples), (2, 2));
        let said = &store.said.skipped;
        assert!(
            said.len() == 1 && said[0].starts_with(":2: prompt.template: no field"),
            "{said:?}"
        );
        // With none left the first one's error says why.
        assert!(run(&f, &["", ""]).is_err_and(|e| e.contains("d.jsonl:1: prompt.template")));
        f.data.on_error = OnError::Fail;
        assert!(run(&f, &[topic, ""]).is_err_and(|e| e.contains("d.jsonl:2: prompt.template")));
    }

    #[test]
    fn what_the_samples_depend_on_names_them() {
        let mut f = Fixture::new();
        let cached = |f: &Fixture, settings: &str| f.run(Some(&f.cache(settings))).unwrap().cached;
        assert!(!cached(&f, "a"));
        assert!(cached(&f, "a"));
        assert!(!cached(&f, "b"));
        let path = f.folder.path().join("d.csv");
        std::fs::write(&path, ROWS.replace("q4", "q3")).unwrap();
        assert!(!cached(&f, "a"));
        std::fs::write(&path, ROWS).unwrap();
        assert!(cached(&f, "a"), "by content, not by time");
        f.data.columns.insert("id".to_string(), None);
        assert!(!cached(&f, "a"));
        assert_eq!(f.kept().len(), 4);
    }

    #[test]
    fn a_damaged_file_is_made_again() {
        let f = Fixture::new();
        let cache = f.cache("");
        f.run(Some(&cache)).unwrap();
        let path = &f.kept()[0];
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
        let again = f.run(Some(&cache)).unwrap();
        assert!(!again.cached);
        let said = format!(
            "{}: its checksum does not match; made again",
            path.display()
        );
        assert_eq!(again.notes[0], said);
        assert_eq!(std::fs::read(path).unwrap(), whole);
        assert!(f.run(Some(&cache)).unwrap().cached);
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let mut f = Fixture::new();
        f.data.on_error = OnError::Fail;
        assert!(f.run(Some(&f.cache(""))).is_err());
        assert!(f.kept().is_empty());
        // A file where the directory should be.
        std::fs::write(f.folder.path().join("file"), "").unwrap();
        f.data.on_error = OnError::Skip;
        let mut cache = f.cache("");
        cache.dir = f.folder.path().join("file/tokens");
        let error = f.run(Some(&cache)).err().unwrap().to_string();
        assert!(
            error.contains("set data.cache to another directory"),
            "{error}"
        );
        cache.optional = true;
        let run = f.run(Some(&cache)).unwrap();
        assert!(run.notes[0].starts_with("tokens are kept in memory"));
        assert_eq!(run.store.len(), 3);
    }
}
