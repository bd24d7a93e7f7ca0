//! A file of JSON lines that only grows, each line on the disk before the next is
//! begun: what a process knew when it was killed.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fsx::FsError;

/// The file, open at its end. One process at a time may hold it; see
/// [`super::fsx::LockFile`].
pub(super) struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens the file at `path`, or makes it; with the lines that are in it. A line that
    /// was being written when the process died is removed.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(path: &Path) -> Result<(Vec<String>, Self), FsError> {
        let fail = |e| FsError::new("write", path, e);
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(path).map_err(fail)?;
        let text = fs::read(path).map_err(|e| FsError::new("read", path, e))?;
        let whole = text
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(fail)?;
        file.seek(SeekFrom::End(0)).map_err(fail)?;
        let text = String::from_utf8_lossy(&text[..whole]);
        let lines = text.lines().map(str::to_string).collect();
        let path = path.to_path_buf();
        Ok((lines, Self { path, file }))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, line: &Value) -> Result<(), FsError> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|e| FsError::new("write", &self.path, e))
    }
}
