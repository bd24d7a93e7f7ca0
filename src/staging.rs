//! Files and directories that are either whole or absent.
//!
//! Each is built under a temporary name beside its target, synced, renamed, and the
//! directory synced; a directory is exchanged with the one it replaces. A killed process
//! leaves only temporary names. Each is locked (flock) by its writer for as long as that
//! lives, so [`sweep`] can tell the stale ones from those at work.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const TEMP_TAG: &str = "tmp";
const ASIDE_TAG: &str = "old";

/// A file or directory under a temporary name. Dropped before it gets its own, it is
/// removed.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    target: PathBuf,
    kind: Kind,
    /// Open and locked: tells [`sweep`] that the writer lives.
    handle: File,
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    File,
    Directory,
}

impl Staged {
    /// An empty file beside `target`.
    pub fn file(target: &Path) -> io::Result<Self> {
        Self::create(target, Kind::File)
    }

    /// An empty directory beside `target`.
    pub fn dir(target: &Path) -> io::Result<Self> {
        Self::create(target, Kind::Directory)
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The file, open for writing.
    pub fn handle(&self) -> &File {
        &self.handle
    }

    /// Gives it the target's name. Readers find what stood there or the new, never none
    /// (directories on file systems that cannot exchange two names: but for an instant).
    pub fn replace(mut self) -> io::Result<()> {
        self.sync()?;
        match self.kind {
            Kind::File => {
                fs::rename(&self.path, &self.target)?;
                self.keep = true;
            }
            Kind::Directory => swap_in(&self.path, &self.target)?,
        }
        self.end()
    }

    /// Gives it the target's name, which must be free; that of an empty directory may be
    /// taken by a directory.
    pub fn put_new(mut self) -> io::Result<()> {
        self.sync()?;
        match self.kind {
            Kind::Directory => fs::rename(&self.path, &self.target)?,
            Kind::File => match rename_with(Flag::NoReplace, &self.path, &self.target) {
                Err(e) if not_to_be_had(&e) => fs::hard_link(&self.path, &self.target)?,
                Err(e) => return Err(e),
                Ok(()) => self.keep = true,
            },
        }
        self.end()
    }

    /// Removes what lies under the temporary name now, and makes the renames last.
    fn end(self) -> io::Result<()> {
        let parent = parent_of(&self.target).to_path_buf();
        drop(self);
        sync_dir(&parent)
    }

    fn sync(&self) -> io::Result<()> {
        match self.kind {
            Kind::File => self.handle.sync_all(),
            Kind::Directory => sync_tree(&self.path),
        }
    }

    fn create(target: &Path, kind: Kind) -> io::Result<Self> {
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
                return Ok(Self {
                    path,
                    target: target.to_path_buf(),
                    kind,
                    handle,
                    keep: false,
                });
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed now is swept later.
            let _ = remove_any(&self.path);
        }
    }
}

/// Clears `dir` of what killed writers left: temporary names whose lock is free
/// go; a directory that a fallback rename had moved aside comes back if nothing
/// took its place. Returns how many entries were handled.
pub fn sweep(dir: &Path) -> usize {
    sweep_names(dir, |_| true)
}

/// [`sweep`] for `target` alone, in a directory that may hold the files of others.
pub fn sweep_beside(target: &Path) -> usize {
    let name = target.file_name();
    sweep_names(parent_of(target), |of| Some(OsStr::new(of)) == name)
}

fn sweep_names(dir: &Path, wanted: impl Fn(&str) -> bool) -> usize {
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
        if !wanted(target) {
            continue;
        }
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

/// Removes a directory so that a kill in the middle leaves no torn one under
/// its own name. A missing directory is not an error.
///
/// # Errors
/// It cannot be moved out of its name.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    let doomed = temp_path(path, TEMP_TAG);
    match fs::rename(path, &doomed) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    // What is busy, as an open file on NFS, is swept later.
    let _ = fs::remove_dir_all(&doomed);
    Ok(())
}

/// The name of the target that the file name `name` stands for temporarily.
pub fn target_name(name: &str) -> Option<&str> {
    let (target, tag) = parse_temp_name(name)?;
    (tag == TEMP_TAG).then_some(target)
}

/// The directory a path lies in; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Whether `path` still names the file that `handle` has open.
pub fn still_at(handle: &File, path: &Path) -> bool {
    match (handle.metadata(), fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}

/// ENOLCK and EBADF: network file systems whose server or client has no locks.
pub fn lacks_locks(e: &io::Error) -> bool {
    e.kind() == ErrorKind::Unsupported
        || matches!(e.raw_os_error(), Some(libc::ENOLCK | libc::EBADF))
}

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
            Err(e) if e.kind() == ErrorKind::NotADirectory && target.is_symlink() => {}
            other => return other,
        }
        match rename_with(Flag::Exchange, temp, target) {
            // Someone removed the target between the two calls.
            Err(e) if e.kind() == ErrorKind::NotFound && temp.exists() => {}
            Err(e) if not_to_be_had(&e) => return rename_away(temp, target),
            other => return other,
        }
    }
}

/// What a rename is to do besides, or not to do.
enum Flag {
    /// The two names swap.
    Exchange,
    /// A name that is taken stays as it is.
    NoReplace,
}

/// Not every system and file system knows the flags of [`rename_with`].
fn not_to_be_had(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// A rename in one step that the standard library has not (Linux: `renameat2`).
#[cfg(target_os = "linux")]
fn rename_with(flag: Flag, from: &Path, to: &Path) -> io::Result<()> {
    let from = CString::new(from.as_os_str().as_bytes())?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    let flag = match flag {
        Flag::Exchange => libc::RENAME_EXCHANGE,
        Flag::NoReplace => libc::RENAME_NOREPLACE,
    };
    // SAFETY: both names end with a zero byte and live through the call.
    let code = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            flag,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn rename_with(_: Flag, _: &Path, _: &Path) -> io::Result<()> {
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
    // The new one has its name: what cannot be removed now is swept later.
    let _ = remove_any(&aside);
    Ok(())
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
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A directory whose files say `text`.
    fn put(target: &Path, text: &str) {
        let staged = Staged::dir(target).unwrap();
        fs::create_dir(staged.path().join("inner")).unwrap();
        for file in ["a.txt", "inner/b.txt"] {
            fs::write(staged.path().join(file), text).unwrap();
        }
        staged.replace().unwrap();
    }

    #[test]
    fn a_new_name_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.gguf");
        for (text, taken) in [("one", false), ("two", true)] {
            let staged = Staged::file(&file).unwrap();
            fs::write(staged.path(), text).unwrap();
            let put = staged.put_new().map_err(|e| e.kind());
            assert_eq!(
                put,
                if taken {
                    Err(ErrorKind::AlreadyExists)
                } else {
                    Ok(())
                }
            );
            assert_eq!(fs::read(&file).unwrap(), b"one");
        }
        let (empty, full) = (dir.path().join("empty"), dir.path().join("full"));
        for target in [&empty, &full] {
            fs::create_dir(target).unwrap();
        }
        fs::write(full.join("mine"), "").unwrap();
        for target in [&empty, &full] {
            let staged = Staged::dir(target).unwrap();
            fs::write(staged.path().join("new"), "").unwrap();
            assert_eq!(staged.put_new().is_ok(), target == &empty);
        }
        assert_eq!(
            (names(&empty), names(&full)),
            (vec!["new".into()], vec!["mine".into()])
        );
        assert_eq!(names(dir.path()), ["empty", "full", "model.gguf"]);
    }

    #[test]
    fn the_fallback_replaces_too_and_a_kill_in_between_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("adapter");
        let temp = dir.path().join("new");
        put(&target, "old");
        put(&temp, "new");
        rename_away(&temp, &target).unwrap();
        assert_eq!(fs::read(target.join("a.txt")).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["adapter"]);
        // Killed between the two renames: the old one lies aside, the new one unlocked.
        fs::rename(&target, dir.path().join(".adapter.old-1-1")).unwrap();
        fs::create_dir(dir.path().join(".adapter.tmp-1-2")).unwrap();
        assert_eq!(sweep(dir.path()), 2);
        assert_eq!(names(dir.path()), ["adapter"]);
        assert_eq!(fs::read(target.join("inner/b.txt")).unwrap(), b"new");
    }

    #[test]
    fn sweep_takes_stale_names_and_leaves_living_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path(".x.json.tmp-99999999-0"), b"torn").unwrap();
        fs::create_dir(path(".d.tmp-4-7")).unwrap();
        fs::write(path(".d.tmp-4-7/half"), b"torn").unwrap();
        for own in [".hidden", ".x.tmp-a-1", "x.tmp-1-1", ".x.bak-1-1"] {
            fs::write(path(own), b"keep").unwrap();
        }
        let living = Staged::dir(&path("d")).unwrap();
        assert_eq!(sweep_beside(&path("d")), 1);
        assert_eq!(sweep(dir.path()), 1);
        assert!(living.path().is_dir());
        drop(living);
        assert_eq!(
            names(dir.path()),
            [".hidden", ".x.bak-1-1", ".x.tmp-a-1", "x.tmp-1-1"]
        );
    }

    #[test]
    fn a_temporary_name_tells_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let staged = Staged::file(&dir.path().join("x-1.json")).unwrap();
        let name = staged.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(target_name(name), Some("x-1.json"));
        assert_eq!(target_name("x-1.json"), None);
    }
}
