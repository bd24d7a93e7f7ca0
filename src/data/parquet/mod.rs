//! Parquet: each row becomes the JSON object that a line of JSONL would hold, so
//! columns, lists and conversations mean the same in both.
//!
//! Read are a row group at a time, of each column the page at hand, and of the page a
//! few rows. The crate's column readers find damage; what they do not find and panic
//! over is caught here.

mod column;
mod footer;
mod shape;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use self::column::Column;
use self::shape::Shape;
use super::error::{DataError, MAX_ROW, RowProblem};
use super::example::Example;
use super::reader::Source;
use super::spec::Spec;
use super::{chat, guard, jsonl, tokens};
use crate::config::types::TaskKind;

/// The bytes that a file begins with.
pub(super) const MAGIC: &[u8] = b"PAR1";
/// Rows of a column that are decoded at once.
const ROWS: usize = 64;

/// What is wrong while a row is put together.
enum Trouble {
    /// With this row; the next ones can be read.
    Row(RowProblem),
    /// With the file.
    Damage(String),
}

/// The rows of a file.
struct Rows {
    spec: Spec,
    file: SerializedFileReader<File>,
    /// The columns that are read, as a tree over their leaves.
    shape: Vec<(String, Shape)>,
    /// The numbers of the leaves among the file's.
    leaves: Vec<usize>,
    /// The row group at hand, its columns and how many of its rows they have not
    /// decoded yet.
    group: usize,
    columns: Vec<Column>,
    left: usize,
    /// Decoded rows that were not taken yet.
    ready: usize,
    /// Rows taken, from the beginning of the file.
    row: usize,
    into: Into,
    done: bool,
}

/// What the rows of a file are.
enum Into {
    /// Questions or documents.
    Fields(jsonl::Objects),
    /// Conversations, and documents where a row has none.
    Chat(jsonl::Objects),
    Tokens,
}

/// Opens the file; `row` of an example is the number of its row, from 1.
pub(super) fn open(spec: &Spec, file: File) -> Result<Source, DataError> {
    let path = &*spec.path;
    footer::check(&file).map_err(|what| damaged(path, &what))?;
    let file = guarded(|| SerializedFileReader::new(file)).map_err(|e| damaged(path, &e))?;
    let schema = file.metadata().file_metadata().schema_descr_ptr();
    let mut leaves = Vec::new();
    let shape = shape::of(&schema, &mut leaves).map_err(|what| damaged(path, &what))?;
    let names: Vec<String> = shape.iter().map(|(name, _)| name.clone()).collect();
    if let Some((codec, column)) = unreadable_codec(&file, &leaves) {
        return Err(DataError::Format {
            path: path.to_path_buf(),
            what: format!("column '{column}' is compressed with {codec}, which is not read here"),
            remedy: "write it again with zstd or snappy, e.g. in pandas \
                     df.to_parquet(FILE, compression='zstd')"
                .to_string(),
        });
    }
    let has = |wanted: &str| names.iter().any(|n| n == wanted);
    let into = match spec.kind {
        _ if has("input_ids") => Into::Tokens,
        TaskKind::Text if has("messages") || has("conversations") => {
            Into::Chat(jsonl::Objects::new(spec))
        }
        _ => Into::Fields(jsonl::Objects::of_columns(spec, names)?),
    };
    Ok(Box::new(Rows {
        spec: spec.clone(),
        file,
        shape,
        leaves,
        group: 0,
        columns: Vec::new(),
        left: 0,
        ready: 0,
        row: 0,
        into,
        done: false,
    }))
}

/// The first column among `leaves` whose compression this program is built without.
fn unreadable_codec(
    file: &SerializedFileReader<File>,
    leaves: &[usize],
) -> Option<(&'static str, String)> {
    let groups = file.metadata().row_groups().iter();
    let mut columns =
        groups.flat_map(|group| leaves.iter().filter_map(|&i| group.columns().get(i)));
    columns.find_map(|column| {
        let codec = match column.compression() {
            Compression::LZ4 | Compression::LZ4_RAW => "LZ4",
            Compression::BROTLI(_) => "Brotli",
            Compression::LZO => "LZO",
            _ => return None,
        };
        Some((codec, column.column_path().string()))
    })
}

/// Runs the crate's code; its errors and its panics as text.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match guard::guarded(work) {
        Some(result) => result.map_err(|e| match e {
            ParquetError::General(what) | ParquetError::EOF(what) => what,
            other => other.to_string(),
        }),
        None => Err(guard::CONTRADICTION.to_string()),
    }
}

fn damaged(path: &Path, what: &str) -> DataError {
    DataError::Format {
        path: path.to_path_buf(),
        what: format!("cannot be read as Parquet ({})", what.trim_end_matches('.')),
        remedy: "the file is cut off or damaged: download or write it again".to_string(),
    }
}

impl Rows {
    /// Decodes the next rows; false at the end of the file.
    fn fill(&mut self) -> Result<bool, String> {
        while self.left == 0 {
            if self.group == self.file.num_row_groups() {
                return Ok(false);
            }
            let (file, leaves, number) = (&self.file, &self.leaves, self.group);
            let (rows, columns) = guarded(|| {
                let group = file.get_row_group(number)?;
                let columns: Result<Vec<_>, _> =
                    leaves.iter().map(|&i| Column::open(&*group, i)).collect();
                Ok((group.metadata().num_rows(), columns?))
            })
            .map_err(|e| format!("row group {}: {e}", number + 1))?;
            self.columns = columns;
            self.left = usize::try_from(rows).map_err(|_| "a row group of negative length")?;
            self.group += 1;
        }
        let wanted = self.left.min(ROWS);
        for column in &mut self.columns {
            let read = guarded(|| column.fill(wanted));
            let problem = match read {
                Ok(read) if read == wanted => continue,
                Ok(read) => format!("{read} rows where {wanted} are announced"),
                Err(what) => what,
            };
            return Err(format!(
                "row group {}, column '{}', rows from {}: {problem}",
                self.group,
                column.name(),
                self.row + 1
            ));
        }
        (self.left, self.ready) = (self.left - wanted, wanted);
        Ok(true)
    }

    /// The object of the next row.
    fn object(&mut self) -> Result<Option<Map<String, Value>>, Trouble> {
        if self.ready == 0 && !self.fill().map_err(Trouble::Damage)? {
            return Ok(None);
        }
        self.ready -= 1;
        self.row += 1;
        let (mut map, mut problem) = (Map::new(), None);
        self.columns.iter_mut().for_each(Column::start_row);
        for (name, shape) in &self.shape {
            let mut unreadable = None;
            let value = shape
                .read(&mut self.columns, &mut unreadable)
                .map_err(|column| {
                    let row = self.row;
                    Trouble::Damage(format!(
                        "row {row}, column '{column}': its levels are wrong"
                    ))
                })?;
            // Bytes that say nowhere that they are text may be something else.
            let foreign = match &self.into {
                Into::Fields(rows) => shape.is_bare_bytes(&self.columns) && !rows.uses(name),
                Into::Chat(_) | Into::Tokens => shape.is_bare_bytes(&self.columns),
            };
            if !foreign {
                problem = problem.or(unreadable);
            }
            map.insert(name.clone(), value);
        }
        let bytes: usize = self.columns.iter().map(Column::row_bytes).sum();
        if bytes >= MAX_ROW && self.spec.kind != TaskKind::Text {
            return Err(Trouble::Row(RowProblem::TooLong { bytes }));
        }
        match problem {
            Some(problem) => Err(Trouble::Row(problem)),
            None => Ok(Some(map)),
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Example, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let map = match self.object() {
            Ok(Some(map)) => map,
            Ok(None) => return None,
            Err(Trouble::Row(problem)) => {
                return Some(Err(DataError::row(&self.spec.path, self.row, problem)));
            }
            Err(Trouble::Damage(what)) => {
                self.done = true;
                return Some(Err(damaged(&self.spec.path, &what)));
            }
        };
        let path = Arc::clone(&self.spec.path);
        Some(match &mut self.into {
            Into::Fields(rows) => rows.example(self.row, map),
            Into::Chat(rows) => chat::example(rows, self.row, map),
            Into::Tokens => tokens::example(self.row, Value::Object(map))
                .map_err(|p| DataError::row(&path, self.row, p)),
        })
    }
}
