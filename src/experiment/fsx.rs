//! A run's files and directories: written whole or not at all ([`staging`]), locked,
//! and every failure with a way out.

mod lock;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::staging::{self, Staged};

pub use self::lock::{LockFile, Locking};
pub use crate::staging::{parent_of, sweep};

/// A file operation that failed: the path, the cause and a way out.
#[derive(Debug, Error)]
#[error("{}: cannot {action}: {}", .path.display(), self.reason())]
pub struct FsError {
    /// What was tried, e.g. `write`.
    pub action: &'static str,
    pub path: PathBuf,
    pub cause: io::Error,
    /// Bytes the operation had to write, where known.
    pub needed: Option<u64>,
    /// Bytes free on the file system, filled in when the space ran out.
    pub available: Option<u64>,
}

impl FsError {
    /// `cause` met while trying to `action` the `path`.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, cause: io::Error) -> Self {
        let path = path.into();
        let available = if out_of_space(&cause) {
            available_space(&path)
        } else {
            None
        };
        Self {
            action,
            path,
            cause,
            needed: None,
            available,
        }
    }

    /// Adds how many bytes were to be written.
    pub fn needing(mut self, bytes: Option<u64>) -> Self {
        self.needed = bytes;
        self
    }

    fn reason(&self) -> String {
        // Which of them the path comes from is not known here.
        let elsewhere =
            "write elsewhere (hydra.run.dir=DIR moves a run, output=PATH what `output` names)";
        let reading = self.action == "read";
        match self.cause.kind() {
            _ if out_of_space(&self.cause) => {
                let mut figures = Vec::new();
                if let Some(bytes) = self.needed {
                    figures.push(format!("{} needed", human_bytes(bytes)));
                }
                if let Some(bytes) = self.available {
                    figures.push(format!("{} available", human_bytes(bytes)));
                }
                let figures = if figures.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", figures.join(", "))
                };
                format!("no space left on the device{figures}; free some space, or {elsewhere}")
            }
            ErrorKind::PermissionDenied if reading => {
                "permission denied; make it readable for this user".to_string()
            }
            ErrorKind::PermissionDenied => {
                format!("permission denied; change its owner or mode, or {elsewhere}")
            }
            ErrorKind::ReadOnlyFilesystem => {
                format!("the file system is mounted read-only; {elsewhere}")
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                match file_among_ancestors(&self.path) {
                    Some(file) => format!(
                        "{} is a file, not a directory; move it away, or {elsewhere}",
                        file.display()
                    ),
                    None => format!("{}; move it away", self.cause),
                }
            }
            ErrorKind::IsADirectory => "it is a directory; move it away".to_string(),
            ErrorKind::NotFound => "no such file or directory; check the path".to_string(),
            _ if reading => format!("{}; check the file and its disk", self.cause),
            _ => format!("{}; check the disk, or {elsewhere}", self.cause),
        }
    }
}

fn out_of_space(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn file_among_ancestors(path: &Path) -> Option<&Path> {
    path.ancestors()
        .find(|p| fs::metadata(p).is_ok_and(|m| !m.is_dir()))
}

/// Bytes this user may still write where `path` lies (or would lie).
pub fn available_space(path: &Path) -> Option<u64> {
    let mut existing = path
        .ancestors()
        .map(|p| {
            if p.as_os_str().is_empty() {
                Path::new(".")
            } else {
                p
            }
        })
        .filter(|p| p.exists());
    let name = CString::new(existing.next()?.as_os_str().as_bytes()).ok()?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` ends with a zero byte and `stat` is a buffer of the right type.
    if unsafe { libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: statvfs returned success, so it filled the buffer.
    let stat = unsafe { stat.assume_init() };
    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    (stat.f_bavail as u64).checked_mul(stat.f_frsize as u64)
}

/// A size for people: `512 B`, `1.5 kB`, `3.2 MB` (decimal units).
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `fs::create_dir_all` with a message.
pub fn create_dir_all(path: &Path) -> Result<(), FsError> {
    fs::create_dir_all(path).map_err(|e| FsError::new("create the directory", path, e))
}

/// `fs::read_to_string` with a message.
pub fn read_to_string(path: &Path) -> Result<String, FsError> {
    fs::read_to_string(path).map_err(|e| FsError::new("read", path, e))
}

/// Replaces `path` by `bytes`, all or nothing.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    write_with(path, Some(bytes.len() as u64), |w| w.write_all(bytes))
}

/// Replaces `path` by what `fill` writes, all or nothing; `needed` is the size
/// in bytes, where known, for the message when the space runs out.
pub fn write_with<F>(path: &Path, needed: Option<u64>, fill: F) -> Result<(), FsError>
where
    F: FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
{
    let fail = |e| FsError::new("write", path, e).needing(needed);
    let staged = Staged::file(path).map_err(fail)?;
    let filled = (|| {
        let mut writer = BufWriter::new(staged.handle());
        fill(&mut writer)?;
        writer.flush()
    })();
    // A partial file is gone by then, so that the message counts its space as free.
    filled.and_then(|()| staged.replace()).map_err(fail)
}

/// Replaces the directory `target` by one that `build` fills, all or nothing.
///
/// Readers that open a path below `target` find the old or the new file, never
/// none. When `build` fails nothing is left behind. A symbolic link gives way to the
/// new directory; what it points to is left alone.
pub fn publish_dir<T, E, F>(target: &Path, build: F) -> Result<T, E>
where
    E: From<FsError>,
    F: FnOnce(&Path) -> Result<T, E>,
{
    let fail = |e| FsError::new("write the directory", target, e);
    let parent = parent_of(target);
    create_dir_all(parent)?;
    sweep(parent);
    let staged = Staged::dir(target).map_err(fail)?;
    let value = build(staged.path())?;
    staged.replace().map_err(fail)?;
    Ok(value)
}

/// Removes a directory so that a kill in the middle leaves no torn one under
/// its own name. A missing directory is not an error.
pub fn remove_dir(path: &Path) -> Result<(), FsError> {
    staging::remove_dir(path).map_err(|(path, e)| FsError::new("remove", path, e))
}

/// Whether two paths lead to one file or directory that is there.
pub fn same_place(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
