//! The directory of a sweep: made once, never reused, locked by the process
//! that works in it.

use std::path::{Path, PathBuf};

use super::error::SweepError;
use crate::experiment::fsx::{self, LockFile, Locking};
use crate::experiment::run_dir::{lock_note, make_numbered};

const MASTER: &str = "multirun.yaml";
const TABLE: &str = "sweep.csv";

/// A sweep directory in which this process, and no other, works.
pub(super) struct SweepDir {
    root: PathBuf,
    _lock: LockFile,
}

impl SweepDir {
    /// Makes `wanted`; where it exists and the user did not name it, `wanted-1`,
    /// `wanted-2`, ... A directory that the user named may exist when it holds
    /// nothing of a sweep: none of its files and none of the cells' directories; or,
    /// where the sweep `resumes`, all of it.
    ///
    /// # Errors
    /// It cannot be made, is in use, or holds what would be overwritten.
    pub fn create(
        wanted: &Path,
        given: bool,
        resumes: bool,
        subdirs: &[PathBuf],
    ) -> Result<Self, SweepError> {
        let root = if given {
            fsx::create_dir_all(wanted)?;
            wanted.to_path_buf()
        } else {
            make_numbered(wanted)?
        };
        let lock = match LockFile::acquire(&root.join(".lock"), &lock_note())? {
            Locking::Held(lock) => lock,
            Locking::Busy(owner) => return Err(SweepError::Busy { path: root, owner }),
        };
        Self::refuse_occupied(&root, given, resumes, subdirs)?;
        Ok(Self { root, _lock: lock })
    }

    /// Makes the directory of a sweep for one of its cells, beside which others may be at work.
    ///
    /// # Errors
    /// It cannot be made, or the whole sweep runs in it.
    pub fn join(root: &Path, master: &str) -> Result<(), SweepError> {
        fsx::create_dir_all(root)?;
        let lock = root.join(".lock");
        if LockFile::is_held(&lock) {
            return Err(SweepError::Busy {
                path: root.to_path_buf(),
                owner: String::new(),
            });
        }
        let file = root.join(MASTER);
        if !file.exists() {
            fsx::write(&file, master.as_bytes())?;
        }
        Ok(())
    }

    /// # Errors
    /// A directory that the user named holds what the sweep would overwrite.
    pub fn refuse_occupied(
        root: &Path,
        given: bool,
        resumes: bool,
        subdirs: &[PathBuf],
    ) -> Result<(), SweepError> {
        let goes_on = resumes && root.join(MASTER).is_file();
        let rows = match goes_on {
            true => csv_rows(&root.join(TABLE)),
            false => 0,
        };
        if rows > subdirs.len() {
            return Err(SweepError::Directory(format!(
                "{}: {TABLE} has {rows} cells, and this sweep {}: give it the same cells to go on, \
                 or another hydra.sweep.dir",
                root.display(),
                subdirs.len()
            )));
        }
        if !given || goes_on || !root.exists() {
            return Ok(());
        }
        let files = [Path::new(MASTER), Path::new(TABLE)];
        let cells = subdirs.iter().map(PathBuf::as_path);
        // A cell may lie in the root itself, which is there.
        let mut names = files
            .into_iter()
            .chain(cells.filter(|dir| *dir != Path::new(".")));
        match names.find(|name| root.join(name).symlink_metadata().is_ok()) {
            None => Ok(()),
            Some(found) => Err(SweepError::Occupied {
                path: root.to_path_buf(),
                found: found.display().to_string(),
            }),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `sweep.csv`.
    pub fn table(&self) -> PathBuf {
        self.root.join(TABLE)
    }

    /// Writes `multirun.yaml`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_master(&self, yaml: &str) -> Result<(), SweepError> {
        Ok(fsx::write(&self.root.join(MASTER), yaml.as_bytes())?)
    }
}

/// Rows of a table; none where it is not there or cannot be read.
fn csv_rows(path: &Path) -> usize {
    csv::Reader::from_path(path).map_or(0, |mut table| table.records().flatten().count())
}
