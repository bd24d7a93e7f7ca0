//! Files and directories that are either whole or absent.
//!
//! A file is written under a temporary name beside its target, synced, renamed,
//! and the directory synced; a directory is built the same way and exchanged
//! with the one it replaces. A killed process leaves only temporary names. Each
//! is locked (flock) by its writer for as long as that lives, so [`sweep`] can
//! tell the stale ones from those at work.

mod lock;

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use self::lock::lacks_locks;
pub use self::lock::{LockFile, Locking};

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
        let elsewhere = "write elsewhere with hydra.run.dir=DIR";
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

/// The directory a path lies in; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
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
    let mut temp = Temp::create(path, Kind::File).map_err(fail)?;
    let written = (|| {
        let mut writer = BufWriter::new(&temp.handle);
        fill(&mut writer)?;
        writer.flush()?;
        drop(writer);
        temp.handle.sync_all()?;
        fs::rename(&temp.path, path)
    })();
    if let Err(e) = written {
        // The partial file goes first, so that the message counts its space as free.
        drop(temp);
        return Err(fail(e));
    }
    temp.keep = true;
    sync_dir(parent_of(path)).map_err(fail)
}

/// Replaces the directory `target` by one that `build` fills, all or nothing.
///
/// Readers that open a path below `target` find the old or the new file, never
/// none (on file systems that cannot exchange two names: but for an instant).
/// When `build` fails nothing is left behind.
pub fn publish_dir<T, E, F>(target: &Path, build: F) -> Result<T, E>
where
    E: From<FsError>,
    F: FnOnce(&Path) -> Result<T, E>,
{
    let fail = |e| FsError::new("write the directory", target, e);
    let target_is_link = fs::symlink_metadata(target).is_ok_and(|m| m.is_symlink());
    let resolved = if target_is_link {
        fs::canonicalize(target).map_err(fail)?
    } else {
        target.to_path_buf()
    };
    let parent = parent_of(&resolved);
    create_dir_all(parent)?;
    sweep(parent);
    let temp = Temp::create(&resolved, Kind::Directory).map_err(fail)?;
    let value = build(&temp.path)?;
    sync_tree(&temp.path).map_err(fail)?;
    swap_in(&temp.path, &resolved).map_err(fail)?;
    // What was at `target` now lies under the temporary name, if anything.
    drop(temp);
    sync_dir(parent).map_err(fail)?;
    Ok(value)
}

/// Removes a directory so that a kill in the middle leaves no torn one under
/// its own name. A missing directory is not an error.
pub fn remove_dir(path: &Path) -> Result<(), FsError> {
    let doomed = temp_path(path, TEMP_TAG);
    match fs::rename(path, &doomed) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(FsError::new("remove", path, e)),
    }
    match fs::remove_dir_all(&doomed) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(FsError::new("remove", doomed, e)),
        _ => Ok(()),
    }
}

/// Clears `dir` of what killed writers left: temporary names whose lock is free
/// go; a directory that a fallback rename had moved aside comes back if nothing
/// took its place. Returns how many entries were handled.
pub fn sweep(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let mut handled = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Some((target, tag)) = name.to_str().and_then(parse_temp_name) else {
            continue;
        };
        let Ok(handle) = File::open(&path) else {
            continue;
        };
        // The name may have changed hands before the lock was ours.
        if handle.try_lock().is_err() || !still_at(&handle, &path) {
            continue;
        }
        let target = dir.join(target);
        let done = if tag == ASIDE_TAG && !target.exists() {
            fs::rename(&path, &target).is_ok()
        } else {
            remove_any(&path).is_ok()
        };
        handled += usize::from(done);
    }
    handled
}

const TEMP_TAG: &str = "tmp";
const ASIDE_TAG: &str = "old";

/// `.NAME.TAG-PID-COUNT` beside `target`: hidden, unique, recognisable.
fn temp_path(target: &Path, tag: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsStr::new(".").to_os_string();
    name.push(target.file_name().unwrap_or(OsStr::new("unnamed")));
    name.push(format!(".{tag}-{}-{count}", std::process::id()));
    parent_of(target).join(name)
}

/// The target's name and the tag of a name made by [`temp_path`].
fn parse_temp_name(name: &str) -> Option<(&str, &str)> {
    let (head, count) = name.strip_prefix('.')?.rsplit_once('-')?;
    let (head, pid) = head.rsplit_once('-')?;
    let (target, tag) = head.rsplit_once('.')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    (digits(count) && digits(pid) && !target.is_empty() && matches!(tag, TEMP_TAG | ASIDE_TAG))
        .then_some((target, tag))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Directory,
}

/// A file or directory under a temporary name; removed on drop unless kept.
struct Temp {
    path: PathBuf,
    /// Open and locked: tells [`sweep`] that the writer lives.
    handle: File,
    keep: bool,
}

impl Temp {
    fn create(target: &Path, kind: Kind) -> io::Result<Temp> {
        let mut tries = 0;
        loop {
            tries += 1;
            let path = temp_path(target, TEMP_TAG);
            let made = match kind {
                Kind::File => File::create_new(&path),
                Kind::Directory => fs::create_dir(&path).and_then(|()| File::open(&path)),
            };
            let handle = match made {
                Ok(handle) => handle,
                // Left by a killed process that had our pid, or swept between mkdir and open.
                Err(e)
                    if tries < 1000
                        && (e.kind() == ErrorKind::AlreadyExists
                            || (e.kind() == ErrorKind::NotFound && parent_of(target).is_dir())) =>
                {
                    continue;
                }
                Err(e) => return Err(e),
            };
            match handle.lock() {
                Ok(()) => {}
                Err(e) if lacks_locks(&e) => {}
                Err(e) => {
                    let _ = remove_any(&path);
                    return Err(e);
                }
            }
            // A sweeper may have seen the name before it was locked.
            if still_at(&handle, &path) || tries >= 1000 {
                return Ok(Temp {
                    path,
                    handle,
                    keep: false,
                });
            }
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is swept later.
            let _ = remove_any(&self.path);
        }
    }
}

fn still_at(handle: &File, path: &Path) -> bool {
    match (handle.metadata(), fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}

fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Puts `temp` in the place of `target`; an old directory ends under `temp`.
fn swap_in(temp: &Path, target: &Path) -> io::Result<()> {
    loop {
        match fs::rename(temp, target) {
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                ) => {}
            other => return other,
        }
        match exchange(temp, target) {
            // Someone removed the target between the two calls.
            Err(e) if e.kind() == ErrorKind::NotFound && temp.exists() => {}
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                return rename_away(temp, target);
            }
            other => return other,
        }
    }
}

/// Swaps two names in one step (Linux: `renameat2` with `RENAME_EXCHANGE`).
#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let a = CString::new(a.as_os_str().as_bytes())?;
    let b = CString::new(b.as_os_str().as_bytes())?;
    // SAFETY: both names end with a zero byte and live through the call.
    let code = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Two renames where one exchange is not to be had. Between them `target` is
/// missing; a process killed there is repaired by [`sweep`].
fn rename_away(temp: &Path, target: &Path) -> io::Result<()> {
    let aside = temp_path(target, ASIDE_TAG);
    fs::rename(target, &aside)?;
    if let Err(e) = fs::rename(temp, target) {
        fs::rename(&aside, target)?;
        return Err(e);
    }
    match remove_any(&aside) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a rename in `dir` last through a power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|d| d.sync_all()) {
        // Some network and FUSE file systems refuse fsync on directories.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
pub(crate) mod tests;
