//! A run's files and directories: written whole or not at all ([`staging`]), locked,
//! and every failure with a way out.

mod lock;

use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, fchown};
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
    /// What is not lost, e.g. `the answers are kept in DIR`.
    pub kept: Option<Box<str>>,
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
            kept: None,
        }
    }

    /// Adds how many bytes were to be written.
    pub fn needing(mut self, bytes: Option<u64>) -> Self {
        self.needed = bytes;
        self
    }

    fn reason(&self) -> String {
        match &self.kept {
            Some(kept) => format!("{}; {kept}", self.way_out()),
            None => self.way_out(),
        }
    }

    fn way_out(&self) -> String {
        if let Some(limit) = raise_limit(&self.cause) {
            return format!("{}; {limit}", self.cause);
        }
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
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => match no_directory(&self.path) {
                Some((place, what)) => format!(
                    "{} {what}, not a directory; move it away, or {elsewhere}",
                    place.display()
                ),
                None => format!("{}; move it away", self.cause),
            },
            ErrorKind::IsADirectory => "it is a directory; move it away".to_string(),
            ErrorKind::NotFound => "no such file or directory; check the path".to_string(),
            ErrorKind::InvalidFilename => {
                format!("{}; give a shorter name", self.cause)
            }
            ErrorKind::Unsupported if !reading => format!("{}; {elsewhere}", self.cause),
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

/// The way out where a limit of this process stops it, not the file system.
pub fn raise_limit(cause: &io::Error) -> Option<&'static str> {
    match cause.raw_os_error()? {
        libc::EMFILE => Some("raise the limit of open files (ulimit -n)"),
        libc::EFBIG => Some("raise the limit of a file's size (ulimit -f)"),
        _ => None,
    }
}

/// What stands at `path` or above it where a directory would have to be, and what it is.
pub fn no_directory(path: &Path) -> Option<(&Path, &'static str)> {
    path.ancestors()
        .find_map(|place| match fs::metadata(place) {
            Ok(there) if there.is_dir() => None,
            Ok(_) => Some((place, "is a file")),
            Err(_) if place.is_symlink() => Some((place, "is a link to nothing")),
            Err(_) => None,
        })
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

/// Replaces `path` by `bytes` as [`write_with`] does.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    write_with(path, Some(bytes.len() as u64), |w| w.write_all(bytes))
}

/// Replaces `path` by what `fill` writes, all or nothing; `needed` is the size
/// in bytes, where known, for the message when the space runs out.
///
/// A link stays and leads to the new file, which has the mode of the old one. What
/// is no file, such as a device or a pipe, is written to as it stands.
///
/// # Errors
/// The file cannot be written; the old one is still there.
pub fn write_with<F>(path: &Path, needed: Option<u64>, fill: F) -> Result<(), FsError>
where
    F: FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
{
    let fail = |e| FsError::new("write", path, e).needing(needed);
    let (target, old) = match place_of(path).map_err(fail)? {
        Place::File { target, old } => (target, old),
        Place::Device => {
            let device = File::options().write(true).open(path).map_err(fail)?;
            return fill_file(&device, fill).map_err(fail);
        }
        Place::Stream(stream) => return fill_file(&stream, fill).map_err(fail),
    };
    let staged = Staged::file(&target).map_err(fail)?;
    let kept = match &old {
        Some(old) => keep_access(staged.handle(), old),
        None => Ok(()),
    };
    let filled = kept.and_then(|()| fill_file(staged.handle(), fill));
    // A partial file is gone by then, so that the message counts its space as free.
    filled.and_then(|()| staged.replace()).map_err(fail)
}

/// Finds out whether [`write`] can write `path`, before there is something to write.
///
/// # Errors
/// It cannot.
pub fn check_writable(path: &Path) -> Result<(), FsError> {
    let found = place_of(path).and_then(|place| match place {
        Place::File { target, .. } => Staged::file(&target).map(drop),
        // Opening a pipe would wait for its reader, and a device may act on it.
        Place::Device => may_write(path),
        Place::Stream(_) => Ok(()),
    });
    found.map_err(|e| FsError::new("write", path, e))
}

/// How a file of this name is written.
enum Place {
    /// Beside `target` and over it.
    File {
        /// Where links lead from the name.
        target: PathBuf,
        /// The file that stands there.
        old: Option<Metadata>,
    },
    /// Opened as it stands: a device or a pipe.
    Device,
    /// Standard output or error of this process.
    Stream(File),
}

fn place_of(path: &Path) -> io::Result<Place> {
    let there = match fs::metadata(path) {
        Ok(there) => there,
        // A link to nothing makes the file that it names.
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let target = end_of_links(path);
            return Ok(Place::File { target, old: None });
        }
        Err(e) => return Err(e),
    };
    if there.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    // /dev/stdout, whatever it was redirected to: another file under that name would
    // leave the one that the user looks at.
    if let Some(stream) = own_stream(&there) {
        return Ok(Place::Stream(stream));
    }
    if !there.is_file() {
        return Ok(Place::Device);
    }
    Ok(Place::File {
        target: end_of_links(path),
        old: Some(there),
    })
}

/// Where a chain of links ends, whether or not something is there.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = path.to_path_buf();
    // Longer chains the kernel does not follow either.
    for _ in 0..40 {
        match fs::read_link(&end) {
            Ok(next) => end = parent_of(&end).join(next),
            Err(_) => break,
        }
    }
    end
}

/// The standard stream of this process that is `there`.
fn own_stream(there: &Metadata) -> Option<File> {
    let streams = [
        io::stdout().as_fd().try_clone_to_owned(),
        io::stderr().as_fd().try_clone_to_owned(),
    ];
    let mut streams = streams.into_iter().flatten().map(File::from);
    streams.find(|stream| {
        stream
            .metadata()
            .is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
    })
}

/// Gives a file the mode of the one it will replace and, where permitted, its owner.
fn keep_access(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
    // Some file systems know one mode only and refuse to change it.
    if new.permissions() != old.permissions() {
        file.set_permissions(old.permissions())?;
    }
    Ok(())
}

fn fill_file<F>(file: &File, fill: F) -> io::Result<()>
where
    F: FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
{
    let mut writer = BufWriter::new(file);
    fill(&mut writer)?;
    writer.flush()
}

/// Whether this user may write to what stands at `path`, without opening it.
fn may_write(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `name` ends with a zero byte and lives through the call.
    match unsafe { libc::access(name.as_ptr(), libc::W_OK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
/// its own name. A missing directory is not an error; what cannot be removed once it
/// has lost its name is left to [`sweep`].
///
/// # Errors
/// It cannot be moved out of its name.
pub fn remove_dir(path: &Path) -> Result<(), FsError> {
    staging::remove_dir(path).map_err(|e| FsError::new("remove", path, e))
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
