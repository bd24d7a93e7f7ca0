//! `run report`: a run or a sweep as one HTML file, from what it left on disk.

mod run;
mod sweep;

use std::path::{Component, Path, PathBuf};

use thiserror::Error;
use walkdir::WalkDir;

use super::fsx::{self, FsError};
use super::metrics::MetricsError;
use super::registry::{ConfigError, RegistryError, locate};

/// The table of a sweep.
const SWEEP: &str = "sweep.csv";
/// What a sweep has before its first cell.
const MASTER: &str = "multirun.yaml";

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
    #[error(
        "{}: no cell of this sweep has ended yet; to go on with it, give its command again with \
         training.resume=auto hydra.sweep.dir={}", .0.display(), .0.display()
    )]
    NoCell(PathBuf),
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
/// There is no such run, a file of it is damaged, no cell of the sweep has ended, or the
/// report cannot be written.
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
    if is_sweep(name) {
        return Ok(Some(name.to_path_buf()));
    }
    let parts = name.components();
    let tail: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
    // A run of this name comes first.
    if tail.as_os_str().is_empty() || name.is_dir() {
        return Ok(None);
    }
    let walk = WalkDir::new(outputs.join("multirun")).sort_by_file_name();
    let dirs = walk.into_iter().flatten();
    let dirs = dirs.filter(|entry| entry.file_type().is_dir());
    let mut found: Vec<PathBuf> = dirs
        .map(walkdir::DirEntry::into_path)
        .filter(|dir| dir.ends_with(&tail) && is_sweep(dir))
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

fn is_sweep(dir: &Path) -> bool {
    [SWEEP, MASTER].iter().any(|name| dir.join(name).is_file())
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_sweep_killed_in_its_first_cell_says_how_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let sweep = dir.path().join("multirun/2026-03-02/11-00-00");
        for cell in ["0", "1"] {
            fs::create_dir_all(sweep.join(cell).join(".hydra")).unwrap();
        }
        fs::write(sweep.join(MASTER), "seed: 1\n").unwrap();
        let told = |name: &Path| report(name, dir.path(), None).unwrap_err().to_string();
        let expected = format!(
            "{at}: no cell of this sweep has ended yet; to go on with it, give its command again \
             with training.resume=auto hydra.sweep.dir={at}",
            at = sweep.display()
        );
        for table in [None, Some(""), Some("cell,directory,overrides\n")] {
            if let Some(text) = table {
                fs::write(sweep.join(SWEEP), text).unwrap();
            }
            for name in [sweep.as_path(), Path::new("2026-03-02/11-00-00")] {
                assert_eq!(told(name), expected, "{table:?}");
            }
        }
    }
}
