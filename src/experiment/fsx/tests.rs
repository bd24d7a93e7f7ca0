//! Tests of the parent module, with killed processes and full disks.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fill(dir: &Path, text: &str) -> Result<(), FsError> {
    write(&dir.join("a.txt"), text.as_bytes())?;
    write(&dir.join("b.txt"), text.as_bytes())
}

#[test]
fn a_file_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    write(&path, b"one").unwrap();
    write(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(names(dir.path()), ["x.json"]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_replaced_file_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret.csv");
    fs::write(&path, "one").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    write(&path, b"two").unwrap();
    assert_eq!(
        (mode(&path), fs::read(&path).unwrap()),
        (0o600, b"two".to_vec())
    );
}

#[test]
fn a_link_stays_and_its_end_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::write(real.join("old"), "one").unwrap();
    fs::set_permissions(real.join("old"), fs::Permissions::from_mode(0o640)).unwrap();
    // Over another link, and to what is not there yet.
    for (link, end) in [("a", "real/old"), ("b", "a"), ("c", "real/new")] {
        std::os::unix::fs::symlink(end, dir.path().join(link)).unwrap();
    }
    for (link, end) in [("a", "old"), ("b", "old"), ("c", "new")] {
        let path = dir.path().join(link);
        check_writable(&path).unwrap();
        write(&path, link.as_bytes()).unwrap();
        assert!(path.is_symlink(), "{link}");
        assert_eq!(fs::read(real.join(end)).unwrap(), link.as_bytes());
    }
    assert_eq!(mode(&real.join("old")), 0o640);
    assert_eq!(names(dir.path()), ["a", "b", "c", "real"]);
    assert_eq!(names(&real), ["new", "old"]);
}

#[test]
fn a_pipe_is_written_to_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Nobody reads yet, and it must not wait for one.
    check_writable(&pipe).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe)
    });
    write(&pipe, b"answers").unwrap();
    let kind = fs::symlink_metadata(&pipe).unwrap().file_type();
    assert!(kind.is_fifo());
    assert_eq!(reader.join().unwrap().unwrap(), b"answers");
    assert_eq!(names(dir.path()), ["pipe"]);
}

#[test]
fn what_cannot_be_written_is_found_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    check_writable(&path).unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
    fs::write(&path, "old").unwrap();
    check_writable(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    let long = "x".repeat(250);
    for (bad, part) in [
        ("none/x.csv", "no such file or directory"),
        ("x.csv/y.csv", "x.csv is a file, not a directory"),
        ("", "it is a directory"),
        (long.as_str(), "give a shorter name"),
    ] {
        let text = check_writable(&dir.path().join(bad)).unwrap_err();
        let text = text.to_string();
        assert!(text.contains(part), "{bad}: {text}");
    }
}

#[test]
fn a_failing_writer_leaves_the_old_file_and_no_temp() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    write(&path, b"old").unwrap();
    let error = write_with(&path, Some(5_000_000), |w| {
        w.write_all(b"half")?;
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    })
    .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("x.json: cannot write: no space left"),
        "{text}"
    );
    assert!(text.contains("5.0 MB needed, "), "{text}");
    assert!(text.contains("available"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["x.json"]);
}

#[test]
fn a_directory_is_replaced_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("deep/adapter");
    publish_dir(&target, |d| fill(d, "1")).unwrap();
    publish_dir(&target, |d| {
        write(&d.join("c.txt"), b"2")?;
        Ok::<(), FsError>(())
    })
    .unwrap();
    assert_eq!(names(&target), ["c.txt"]);
    let failed = publish_dir(&target, |d| {
        fill(d, "3")?;
        Err::<(), _>(FsError::new("read", "gone", ErrorKind::NotFound.into()))
    });
    assert!(failed.is_err());
    assert_eq!(names(&target), ["c.txt"]);
    assert_eq!(names(target.parent().unwrap()), ["adapter"]);
}

#[test]
fn a_link_gives_way_and_what_it_points_to_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    publish_dir(&real, |d| fill(d, "1")).unwrap();
    for points_to in [real.clone(), dir.path().join("nowhere")] {
        let _ = fs::remove_dir_all(&link);
        std::os::unix::fs::symlink(&points_to, &link).unwrap();
        publish_dir(&link, |d| fill(d, "2")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_dir());
        assert_eq!(fs::read(link.join("a.txt")).unwrap(), b"2");
    }
    assert_eq!(fs::read(real.join("a.txt")).unwrap(), b"1");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn readers_never_miss_a_file_while_directories_are_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("adapter");
    publish_dir(&target, |d| fill(d, "0")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for name in ["a.txt", "b.txt"] {
                            fs::read(target.join(name)).expect("always there");
                            reads += 1;
                        }
                    }
                    reads
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|w| {
                let target = &target;
                scope.spawn(move || {
                    for i in 0..60 {
                        publish_dir(target, |d| fill(d, &format!("{w}.{i}"))).unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert_eq!(names(dir.path()), ["adapter"]);
}

#[test]
fn sweeping_while_writing_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sweep(dir.path());
            }
        });
        for i in 0..150 {
            let path = dir.path().join(format!("{}", i % 3));
            write(&path, format!("{i}").as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), i.to_string());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(dir.path()), ["0", "1", "2"]);
}

#[test]
fn a_lock_excludes_and_is_free_again_after_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".lock");
    fs::write(&path, "left by a killed process").unwrap();
    let held = LockFile::acquire(&path, "process 7").unwrap();
    assert!(matches!(held, Locking::Held(_)));
    assert!(LockFile::is_held(&path));
    match LockFile::acquire(&path, "process 8").unwrap() {
        Locking::Busy(note) => assert_eq!(note, "process 7"),
        Locking::Held(_) => panic!("two holders"),
    }
    drop(held);
    assert!(!path.exists());
    assert!(matches!(
        LockFile::acquire(&path, "").unwrap(),
        Locking::Held(_)
    ));
}

#[test]
fn every_cause_names_a_way_out() {
    let text =
        |errno| FsError::new("write", "out/x", io::Error::from_raw_os_error(errno)).to_string();
    for (errno, part) in [
        (libc::EACCES, "permission denied; change its owner"),
        (libc::EROFS, "mounted read-only; write elsewhere"),
        (libc::ENOSPC, "no space left on the device ("),
        (libc::EDQUOT, "no space left on the device ("),
        (libc::EISDIR, "it is a directory; move it away"),
        (libc::EIO, "check the disk"),
        (libc::EMFILE, "raise the limit of open files (ulimit -n)"),
        (libc::EFBIG, "raise the limit of a file's size (ulimit -f)"),
        (libc::ENAMETOOLONG, "give a shorter name"),
    ] {
        let text = text(errno);
        assert!(text.starts_with("out/x: cannot write: "), "{text}");
        assert!(text.contains(part), "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), b"").unwrap();
    let error = create_dir_all(&dir.path().join("file/below/it")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("file is a file, not a directory"), "{text}");
    // A run, or what `output` names.
    assert!(
        text.contains("hydra.run.dir=DIR") && text.contains("output=PATH"),
        "{text}"
    );
}

#[test]
fn a_full_disk_keeps_the_old_file() {
    let Some(disk) = small_disk::SmallDisk::mount("64k") else {
        println!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let path = disk.path().join("x.bin");
    write(&path, &[1; 10_000]).unwrap();
    let error = write(&path, &[2; 200_000]).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("200.0 kB needed, "), "{text}");
    assert!(
        error.available.unwrap() > 0,
        "counted without the torn file"
    );
    assert_eq!(fs::read(&path).unwrap(), vec![1; 10_000]);
    assert_eq!(names(disk.path()), ["x.bin"]);
}

#[test]
fn sizes_read_well() {
    assert_eq!(human_bytes(999), "999 B");
    assert_eq!(human_bytes(1500), "1.5 kB");
    assert_eq!(human_bytes(999_999), "1.0 MB");
    assert_eq!(human_bytes(3_200_000_000), "3.2 GB");
}

/// Runs this test binary again as a process that does `name` in `dir` until
/// it is killed; returns once it is at work.
fn spawn_worker(name: &str, dir: &Path) -> std::process::Child {
    let worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{TESTS}::{name}"), "--nocapture"])
        .env(WORK_DIR, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !dir.join("at-work").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no worker");
        std::thread::sleep(Duration::from_millis(2));
    }
    worker
}

const WORK_DIR: &str = "KILN_TEST_WORK_DIR";
/// This module's path without the crate's name, as the test runner prints it.
const TESTS: &str = "experiment::fsx::tests";

fn kill(mut worker: std::process::Child) {
    // SIGKILL on Unix: no destructor runs.
    worker.kill().unwrap();
    worker.wait().unwrap();
}

fn place<'a>(given: &'a Option<PathBuf>, own: &'a Option<tempfile::TempDir>) -> &'a Path {
    let own = own.as_ref().map(tempfile::TempDir::path);
    given.as_deref().or(own).unwrap()
}

/// Alone it publishes in a new directory and stops; as a worker, until killed.
#[test]
fn publishing_until_killed() {
    let dir = std::env::var_os(WORK_DIR).map(PathBuf::from);
    // A killed worker could not clean up a directory of its own.
    let own = dir.is_none().then(|| tempfile::tempdir().unwrap());
    let target = place(&dir, &own).join("adapter");
    for i in 0.. {
        publish_dir(&target, |d| fill(d, &format!("{i:0>5000}"))).unwrap();
        match &dir {
            Some(dir) => fs::write(dir.join("at-work"), "").unwrap(),
            None => break,
        }
    }
    assert_eq!(fs::read(target.join("a.txt")).unwrap().len(), 5000);
}

#[test]
fn a_killed_publisher_leaves_a_whole_directory_and_only_sweepable_rest() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let _ = fs::remove_file(dir.path().join("at-work"));
        let worker = spawn_worker("publishing_until_killed", dir.path());
        std::thread::sleep(Duration::from_micros(700 * round));
        kill(worker);
        let target = dir.path().join("adapter");
        let text = fs::read(target.join("a.txt")).unwrap();
        assert_eq!(text.len(), 5000);
        assert_eq!(fs::read(target.join("b.txt")).unwrap(), text, "a mixture");
        sweep(dir.path());
        assert_eq!(names(dir.path()), ["adapter", "at-work"]);
    }
}

/// Alone it takes a lock and lets go; as a worker it holds it until killed.
#[test]
fn holding_a_lock_until_killed() {
    let dir = std::env::var_os(WORK_DIR).map(PathBuf::from);
    // A killed worker could not clean up a directory of its own.
    let own = dir.is_none().then(|| tempfile::tempdir().unwrap());
    let path = place(&dir, &own).join(".lock");
    let held = LockFile::acquire(&path, "the worker").unwrap();
    assert!(matches!(held, Locking::Held(_)));
    if let Some(dir) = dir {
        fs::write(dir.join("at-work"), "").unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".lock");
    let worker = spawn_worker("holding_a_lock_until_killed", dir.path());
    let busy = LockFile::acquire(&path, "").unwrap();
    assert!(matches!(busy, Locking::Busy(note) if note == "the worker"));
    kill(worker);
    assert!(path.exists());
    let held = LockFile::acquire(&path, "").unwrap();
    assert!(matches!(held, Locking::Held(_)));
}

/// A tmpfs of a few kB, so that tests can run out of space.
pub(crate) mod small_disk {
    use std::path::Path;
    use std::process::{Command, Stdio};

    pub struct SmallDisk {
        dir: tempfile::TempDir,
    }

    impl SmallDisk {
        /// None where this user may not mount.
        pub fn mount(size: &str) -> Option<Self> {
            let dir = tempfile::tempdir().ok()?;
            let done = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
                .arg(dir.path())
                .stderr(Stdio::null())
                .status();
            done.is_ok_and(|s| s.success()).then_some(Self { dir })
        }

        pub fn path(&self) -> &Path {
            self.dir.path()
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.dir.path()).status();
        }
    }
}
