//! Data files into examples, one at a time: a file is streamed, never held whole.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use super::error::{DataError, RowProblem};
use super::example::Example;
use super::reader::Source;
use super::spec::{Answers, Spec, Tasks};
use super::{chat, delimited, jsonl, parquet, plain, squad, tokens};
use crate::config::types::{DataConfig, DataFormat, OnError, TaskKind};

/// The bytes looked at to guess a format, and the size of the read buffer.
const HEAD: usize = 256 * 1024;

/// What is wanted of a file.
#[derive(Clone, Debug)]
pub struct Want {
    pub kind: TaskKind,
    pub answers: Answers,
    /// Questions of several tasks: a row with options is multiple choice, one
    /// without is a short answer, unless a column `task` or `type` says which.
    pub by_row: bool,
    /// What a column `task` may say then.
    pub tasks: Option<Arc<Tasks>>,
}

impl Want {
    pub fn new(kind: TaskKind, answers: Answers) -> Self {
        Self {
            kind,
            answers,
            by_row: false,
            tasks: None,
        }
    }
}

/// A file's examples.
#[derive(Debug)]
pub struct Read {
    pub examples: Vec<Example>,
    /// What was wrong with the rows that were left out (`data.on_error=skip`).
    pub skipped: Vec<DataError>,
}

/// Examples in file order. Ends after the first error; with `data.on_error=skip`
/// after the first that concerns more than its row.
pub struct Examples {
    inner: Source,
    spec: Spec,
    format: DataFormat,
    count: usize,
    /// Hashes of the ids that the file gives, and their rows.
    ids: HashMap<u128, usize>,
    /// The numbers that stand for ids, as runs: most files give all ids or none.
    numbered: Vec<Range<usize>>,
    on_error: OnError,
    skipped: Vec<DataError>,
    done: bool,
}

impl Examples {
    /// Opens `path`; its format is `data.format`, or is guessed from the name and
    /// the first bytes. Lines are counted from 1.
    ///
    /// # Errors
    /// The file is missing, a directory, a device, empty, of an unknown format, or has
    /// not the columns that a task of this `kind` needs.
    pub fn open(path: &Path, data: &DataConfig, want: Want) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|e| DataError::io(path, e))?;
        let kind = file.metadata().map_err(|e| DataError::io(path, e))?;
        let kind = kind.file_type();
        if kind.is_dir() {
            return Err(DataError::Directory(path.to_path_buf()));
        }
        // A device like /dev/zero has no end, and neither has its first line.
        if !kind.is_file() && !kind.is_fifo() {
            return Err(format_error(
                path,
                "is a device, not a file",
                "name a file or a pipe",
            ));
        }
        let mut input = BufReader::with_capacity(HEAD, file);
        let head = input.fill_buf().map_err(|e| DataError::io(path, e))?;
        if head.starts_with(&[0xFF, 0xFE]) || head.starts_with(&[0xFE, 0xFF]) {
            return Err(format_error(path, "is UTF-16", "save it as UTF-8"));
        }
        let bom = head.starts_with(b"\xEF\xBB\xBF");
        let head = &head[if bom { 3 } else { 0 }..];
        if head.iter().all(u8::is_ascii_whitespace) && head.len() < HEAD - 3 {
            return Err(DataError::Empty {
                path: path.to_path_buf(),
                what: "the file is empty",
            });
        }
        let format = match data.format {
            Some(format) if format != DataFormat::Parquet && head.starts_with(parquet::MAGIC) => {
                return Err(format_error(
                    path,
                    "is a Parquet file",
                    "set data.format=parquet",
                ));
            }
            Some(format) => format,
            None => guess(path, head)?,
        };
        if bom {
            input.consume(3);
        }
        let columns = data.columns.clone();
        let spec = Spec {
            path: Arc::from(path),
            kind: want.kind,
            by_row: want.by_row,
            tasks: want.tasks,
            answers: want.answers,
            columns,
        };
        check_task(&spec, format)?;
        let inner = match format {
            DataFormat::Csv => delimited::open(&spec, input, b',')?,
            DataFormat::Tsv => delimited::open(&spec, input, b'\t')?,
            DataFormat::Jsonl => jsonl::open(&spec, input)?,
            DataFormat::Squad => squad::open(&spec, input),
            DataFormat::Text => plain::open(&spec, input)?,
            DataFormat::Chat => chat::open(&spec, input)?,
            DataFormat::Tokens => tokens::open(&spec, input),
            DataFormat::Parquet => parquet::open(&spec, input.into_inner())?,
        };
        Ok(Self {
            inner,
            spec,
            format,
            count: 0,
            ids: HashMap::new(),
            numbered: Vec::new(),
            on_error: data.on_error,
            skipped: Vec::new(),
            done: false,
        })
    }

    /// The format that was named or guessed.
    pub fn format(&self) -> DataFormat {
        self.format
    }

    /// What was wrong with the rows left out so far.
    pub fn skipped(&self) -> &[DataError] {
        &self.skipped
    }

    /// The next row, good or bad, counted.
    fn next_row(&mut self) -> Option<Result<Example, DataError>> {
        let row = self.inner.next()?;
        // Bad rows count, so that ids do not depend on what is skipped.
        self.count += 1;
        Some(row.and_then(|example| self.finish(example)))
    }

    fn finish(&mut self, mut example: Example) -> Result<Example, DataError> {
        let fail = |problem| Err(DataError::row(&self.spec.path, example.row, problem));
        let given = !example.id.is_empty();
        if !given {
            example.id = self.count.to_string();
        }
        let first = self.ids.get(&hash(&example.id)).copied();
        let id = example.id.clone();
        match (given, first) {
            (true, Some(first)) => return fail(RowProblem::DuplicateId { id, first }),
            (true, None) if self.stands_for_an_id(&id) => {
                return fail(RowProblem::NumberAsId { id });
            }
            (true, None) => {
                self.ids.insert(hash(&id), example.row);
            }
            (false, Some(_)) => return fail(RowProblem::NumberAsId { id }),
            (false, None) => match self.numbered.last_mut() {
                Some(run) if run.end == self.count => run.end += 1,
                _ => self.numbered.push(self.count..self.count + 1),
            },
        }
        Ok(example)
    }

    /// Whether an earlier row without an id goes by this one.
    fn stands_for_an_id(&self, id: &str) -> bool {
        let number = id.parse::<usize>().ok().filter(|n| n.to_string() == id);
        number.is_some_and(|number| {
            let at = self.numbered.partition_point(|run| run.end <= number);
            self.numbered
                .get(at)
                .is_some_and(|run| run.contains(&number))
        })
    }
}

impl Iterator for Examples {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = loop {
            match self.next_row() {
                Some(Err(bad)) if self.on_error == OnError::Skip && bad.is_of_one_row() => {
                    self.skipped.push(bad);
                }
                row => break row,
            }
        };
        let item = match row {
            Some(item) => item,
            None if self.count == self.skipped.len() && self.count > 0 => {
                Err(DataError::NoneLeft {
                    path: self.spec.path.to_path_buf(),
                    rows: self.count,
                    first: Box::new(self.skipped.remove(0)),
                })
            }
            None if self.count == 0 => Err(DataError::Empty {
                path: self.spec.path.to_path_buf(),
                what: match self.format {
                    DataFormat::Csv | DataFormat::Tsv => "has a header but no rows",
                    _ => "has no examples",
                },
            }),
            None => {
                self.done = true;
                return None;
            }
        };
        self.done = item.is_err();
        Some(item)
    }
}

/// 128 bits of an id: two of a thousand million ids have the same by a chance of 1e-21.
fn hash(id: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, id).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Every example of `path`. See [`Examples::open`].
///
/// # Errors
/// The first row that cannot be used and may not be skipped.
pub fn read_examples(path: &Path, data: &DataConfig, want: Want) -> Result<Read, DataError> {
    let mut rows = Examples::open(path, data, want)?;
    let examples = rows.by_ref().collect::<Result<_, _>>()?;
    Ok(Read {
        examples,
        skipped: rows.skipped,
    })
}

fn format_error(path: &Path, what: &str, remedy: &str) -> DataError {
    DataError::Format {
        path: path.to_path_buf(),
        what: what.to_string(),
        remedy: remedy.to_string(),
    }
}

/// Refuses pairs of format and task that cannot work.
fn check_task(spec: &Spec, format: DataFormat) -> Result<(), DataError> {
    let fail = |what, remedy| Err(format_error(&spec.path, what, remedy));
    match (format, spec.kind) {
        (DataFormat::Text, TaskKind::Mcq | TaskKind::Saq) => fail(
            "plain text has no questions and answers",
            "use a CSV, TSV, JSONL or SQuAD file, or a task of type text",
        ),
        (DataFormat::Chat, TaskKind::Mcq | TaskKind::Saq) => fail(
            "conversations have no single question and answer",
            "use task=chat, or another task of type text",
        ),
        (DataFormat::Squad, TaskKind::Mcq) => fail(
            "SQuAD questions have no options",
            "use task=squad or another short-answer task",
        ),
        (DataFormat::Squad, TaskKind::Text) => fail(
            "SQuAD holds questions, not documents",
            "use task=squad or another short-answer task",
        ),
        _ => Ok(()),
    }
}

const NAME_FORMAT: &str = "set data.format=text if it is plain text, else to csv, tsv, jsonl, \
     squad, chat, tokens or parquet";

/// The format of a file by its extension, and for JSON and unknown extensions by
/// its first bytes (without byte order mark).
fn guess(path: &Path, head: &[u8]) -> Result<DataFormat, DataError> {
    if head.starts_with(parquet::MAGIC) {
        return Ok(DataFormat::Parquet);
    }
    if head.starts_with(b"version https://git-lfs") {
        return Err(format_error(
            path,
            "is a pointer of Git LFS, not the data",
            "run git lfs pull where it comes from",
        ));
    }
    if head.contains(&0) {
        return Err(format_error(
            path,
            "is a binary file, not a data file",
            "convert it to CSV or JSONL",
        ));
    }
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
        .to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Ok(DataFormat::Csv),
        "tsv" | "tab" => Ok(DataFormat::Tsv),
        "txt" | "text" | "md" => Ok(DataFormat::Text),
        "parquet" | "pq" => Err(format_error(
            path,
            "is no Parquet file, which begins with PAR1",
            "download or write it again, or set data.format",
        )),
        "json" | "jsonl" | "ndjson" => guess_json(path, head),
        _ if matches!(head.trim_ascii_start().first(), Some(b'{' | b'[')) => guess_json(path, head),
        _ => {
            let line = head
                .split(|b| *b == b'\n')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            let known = |separator| {
                line.split(|b| *b == separator)
                    .any(|c| matches!(c.trim_ascii(), b"question" | b"answer" | b"text"))
            };
            if line.contains(&b'\t') && known(b'\t') {
                Ok(DataFormat::Tsv)
            } else if line.contains(&b',') && known(b',') {
                Ok(DataFormat::Csv)
            } else {
                Err(format_error(
                    path,
                    "cannot tell the format from the name or the first line",
                    NAME_FORMAT,
                ))
            }
        }
    }
}

/// Whether this is SQuAD's object: a list `data`, of articles or beside nothing else. A row may
/// have a column of that name.
fn is_squad(map: &serde_json::Map<String, serde_json::Value>) -> bool {
    let articles = map.get("data").and_then(serde_json::Value::as_array);
    articles.is_some_and(|all| {
        all.iter()
            .any(|article| article.get("paragraphs").is_some())
            || map.keys().all(|key| key == "data" || key == "version")
    })
}

/// JSONL or a list of objects, conversations, ready tokens or SQuAD, told apart by the first line.
fn guess_json(path: &Path, head: &[u8]) -> Result<DataFormat, DataError> {
    let head = head.trim_ascii_start();
    let has = |within: &[u8], key: &str| within.windows(key.len()).any(|w| w == key.as_bytes());
    let talks = |within: &[u8]| has(within, "\"messages\"") || has(within, "\"conversations\"");
    if head.first() == Some(&b'[') {
        if talks(head) {
            return Ok(DataFormat::Chat);
        }
        if has(head, "\"input_ids\"") {
            let remedy = "write one JSON object a line (jq -c '.[]' FILE > FILE.jsonl)";
            return Err(format_error(path, "is one JSON list of tokens", remedy));
        }
        return Ok(DataFormat::Jsonl);
    }
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line) {
        Ok(map) if map.contains_key("input_ids") => Ok(DataFormat::Tokens),
        Ok(map) if chat::conversation(&map).is_some() => Ok(DataFormat::Chat),
        Ok(map) if is_squad(&map) => Ok(DataFormat::Squad),
        Ok(_) => Ok(DataFormat::Jsonl),
        // Longer than the head, or an object over several lines.
        Err(_) if has(head, "\"paragraphs\"") => Ok(DataFormat::Squad),
        Err(_) if has(line, "\"input_ids\"") => Ok(DataFormat::Tokens),
        Err(_) if line.len() > 1 && talks(line) => Ok(DataFormat::Chat),
        // A broken or very long first line: the JSONL reader names what is wrong.
        Err(_) if line.len() > 1 => Ok(DataFormat::Jsonl),
        Err(_) => Err(format_error(
            path,
            "is one JSON object over several lines, and not SQuAD",
            NAME_FORMAT,
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    use super::*;
    use crate::data::tests::config;

    fn open(path: &Path, format: Option<DataFormat>) -> Result<Examples, DataError> {
        let want = Want::new(TaskKind::Text, Answers::Required);
        Examples::open(path, &config(format), want)
    }

    #[test]
    fn devices_are_refused_and_pipes_read() {
        for name in ["/dev/zero", "/dev/null"] {
            for format in [None, Some(DataFormat::Text), Some(DataFormat::Jsonl)] {
                let error = open(Path::new(name), format).err();
                assert_eq!(
                    error.map(|e| e.to_string()),
                    Some(format!(
                        "{name}: is a device, not a file: name a file or a pipe"
                    ))
                );
            }
        }
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"{\"text\": \"one\"}\n").unwrap();
        drop(writer);
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let mut examples = open(&path, None).unwrap();
        assert_eq!(examples.next().unwrap().unwrap().text.unwrap(), "one");
    }

    #[test]
    fn plain_text_goes_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let format = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            open(&path, None).map(|examples| examples.format())
        };
        for name in ["a.txt", "a.text", "a.md", "A.TXT"] {
            assert_eq!(format(name, "One, two.\n").unwrap(), DataFormat::Text);
        }
        let json = format("a.jsonl", "{\"text\": \"one\"}\n");
        assert_eq!(json.unwrap(), DataFormat::Jsonl);
        let error = format("a.dat", "One, two.\n").unwrap_err().to_string();
        assert!(
            error.contains("set data.format=text if it is plain text"),
            "{error}"
        );
    }
}
