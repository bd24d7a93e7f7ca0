//! A lock on a file, held by a process for as long as it lives.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::FsError;
use crate::staging::{lacks_locks, still_at};

/// How long [`LockFile::acquire`] waits, in all, for one who only looks.
const PATIENCE: [Duration; 3] = [Duration::from_millis(5); 3];

/// A lock file held by this process. The kernel frees it when the process dies,
/// however it dies; the file itself is removed on drop.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    _handle: File,
}

/// What [`LockFile::acquire`] found.
#[derive(Debug)]
pub enum Locking {
    Held(LockFile),
    /// Another process holds it; the text is what that one wrote into the file.
    Busy(String),
}

impl LockFile {
    /// Whether a living process holds the lock. Nothing is written. Where the
    /// file system knows no locks, a file that is there counts as held.
    pub fn is_held(path: &Path) -> bool {
        let Ok(handle) = File::open(path) else {
            return false;
        };
        match handle.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(e)) => lacks_locks(&e),
        }
    }

    /// Takes the lock without waiting for its holder and writes `note` into the
    /// file. Where the file system knows no locks the file alone is made.
    pub fn acquire(path: &Path, note: &str) -> Result<Locking, FsError> {
        let fail = |e| FsError::new("lock", path, e);
        let mut waits = PATIENCE.into_iter();
        loop {
            let mut handle = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .map_err(fail)?;
            match handle.try_lock() {
                // The former holder removed the file after we had opened it.
                Ok(()) if !still_at(&handle, path) => continue,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // It may be [`LockFile::is_held`], which lets go at once.
                    if let Some(wait) = waits.next() {
                        std::thread::sleep(wait);
                        continue;
                    }
                    let note = fs::read_to_string(path).unwrap_or_default();
                    return Ok(Locking::Busy(note.trim().to_string()));
                }
                Err(TryLockError::Error(e)) if lacks_locks(&e) => {}
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
            handle.set_len(0).map_err(fail)?;
            handle.write_all(note.as_bytes()).map_err(fail)?;
            return Ok(Locking::Held(LockFile {
                path: path.to_path_buf(),
                _handle: handle,
            }));
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // A file that stays is no harm: only the kernel's lock counts.
        let _ = fs::remove_file(&self.path);
    }
}
