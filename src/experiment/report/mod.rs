//! `run report`: a run or a sweep as one HTML file, from what it left on disk.

mod run;
mod sweep;

use std::path::{Component, Path, PathBuf};

use thiserror::Error;
use walkdir::WalkDir;

use super::fsx::{self, FsError};
use super::metrics::MetricsError;
use super::registry::{ConfigError, RegistryError, locate};

/// The table of a sweep; a directory with one is a sweep.
const SWEEP: &str = "sweep.csv";

/// A report that cannot be written.
#[derive(Debug, Error)]
pub enum ReportError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{}:{line}: {what}; restore the file or run again", .path.display())]
    Table {
        path: PathBuf,
        line: u64,
        what: String,
    },
    #[error("output={}: is a directory; name a file, e.g. output={}/report.html", .0.display(), .0.display())]
    OutputIsDirectory(PathBuf),
}

/// Writes the report of the run or sweep that `name` means, a directory or the last
/// part of its path below `outputs`, to `output` or to report.html in it. Returns
/// where it lies.
///
/// # Errors
/// There is no such run, a file of it is damaged, or the report cannot be written.
pub fn report(name: &Path, outputs: &Path, output: Option<&Path>) -> Result<PathBuf, ReportError> {
    let (dir, text) = match sweep_dir(name, outputs)? {
        Some(dir) => {
            let text = sweep::page(&dir)?;
            (dir, text)
        }
        None => {
            let dir = locate(name, outputs)?;
            let text = run::page(&dir)?;
            (dir, text)
        }
    };
    let path = match output {
        Some(path) if path.is_dir() => {
            return Err(ReportError::OutputIsDirectory(path.to_path_buf()));
        }
        Some(path) => {
            fsx::create_dir_all(fsx::parent_of(path))?;
            path.to_path_buf()
        }
        None => dir.join("report.html"),
    };
    fsx::write(&path, text.as_bytes())?;
    Ok(path)
}

/// The sweep that `name` means; `None` where it means none.
fn sweep_dir(name: &Path, outputs: &Path) -> Result<Option<PathBuf>, ReportError> {
    if name.join(SWEEP).is_file() {
        return Ok(Some(name.to_path_buf()));
    }
    let parts = name.components();
    let tail: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
    // A run of this name comes first.
    if tail.as_os_str().is_empty() || name.is_dir() {
        return Ok(None);
    }
    let walk = WalkDir::new(outputs.join("multirun")).sort_by_file_name();
    let tables = walk.into_iter().flatten();
    let tables = tables.filter(|entry| entry.file_name() == SWEEP);
    let mut found: Vec<PathBuf> = tables
        .filter_map(|entry| entry.path().parent().map(Path::to_path_buf))
        .filter(|dir| dir.ends_with(&tail))
        .collect();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(RegistryError::Ambiguous {
            name: name.display().to_string(),
            runs: found,
        }
        .into()),
    }
}

/// Rows of a CSV file by its header. Blanks are kept.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(path: &Path) -> Result<Self, ReportError> {
        let text = fsx::read_to_string(path)?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let fail = |error: &csv::Error| ReportError::Table {
            path: path.to_path_buf(),
            line: error.position().map_or(1, csv::Position::line),
            what: format!("cannot be read as a table: {error}"),
        };
        let fields = |record: &csv::StringRecord| record.iter().map(str::to_string).collect();
        let header = fields(reader.headers().map_err(|e| fail(&e))?);
        let rows = reader.records().map(|row| row.map(|row| fields(&row)));
        let rows: Result<Vec<Vec<String>>, csv::Error> = rows.collect();
        Ok(Self {
            header,
            rows: rows.map_err(|e| fail(&e))?,
        })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// A figure; `None` where the cell is blank or no number.
    fn number(&self, row: usize, column: usize) -> Option<f64> {
        self.rows[row].get(column)?.parse().ok()
    }
}
