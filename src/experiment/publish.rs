//! `outputs/adapters/adapter_TASK/`: the newest adapter of a task, under a
//! name that stays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use walkdir::WalkDir;

use super::fsx::{self, FsError};

/// Where below the outputs directory adapters are published, and how their names begin.
const ADAPTERS: &str = "adapters";
const PREFIX: &str = "adapter_";

/// What a run writes and an adapter has not.
const OF_A_RUN: [&str; 4] = [
    ".hydra",
    "config.resolved.yaml",
    "metrics.csv",
    "checkpoints",
];

/// An adapter that cannot be published.
#[derive(Debug, Error)]
pub enum PublishError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(
        "task.name: \"{0}\" cannot name a directory; use letters, digits, '.', '_' and '-', \
         beginning with a letter or digit"
    )]
    Name(String),
    #[error(
        "{}: the adapter could not be published there: {}", .path.display(), way_out(.path, .cause)
    )]
    NotWritable { path: PathBuf, cause: io::Error },
    #[error(
        "{}: {what}, which the adapter will not replace; move it away, or publish under another \
         name (task.name=NAME)", .path.display()
    )]
    Occupied { path: PathBuf, what: &'static str },
    #[error(
        "{}: lies in {}, whose place a published adapter takes with all that is in \
         it; choose another hydra.run.dir (of a sweep hydra.sweep.dir)", .run.display(), .adapter.display()
    )]
    RunInside { run: PathBuf, adapter: PathBuf },
}

fn way_out(path: &Path, cause: &io::Error) -> String {
    if let Some(limit) = fsx::raise_limit(cause) {
        return format!("{cause}; {limit}");
    }
    let elsewhere = "start the program in another directory";
    match fsx::no_directory(fsx::parent_of(path)) {
        Some((place, what)) => {
            let place = place.display();
            format!("{place} {what}, not a directory; move it away, or {elsewhere}")
        }
        None => format!("{cause}; make it writable, or {elsewhere}"),
    }
}

/// Where the adapter of `task` is published below `outputs`.
pub fn adapter_path(outputs: &Path, task: &str) -> Result<PathBuf, PublishError> {
    let first = task.chars().next().is_some_and(char::is_alphanumeric);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !first || !task.chars().all(plain) {
        return Err(PublishError::Name(task.to_string()));
    }
    Ok(outputs.join(ADAPTERS).join(format!("{PREFIX}{task}")))
}

/// Finds out whether the directory of a run, which is there, lies where an adapter may be
/// published, of whatever task.
///
/// # Errors
/// It does, and would be lost.
pub fn check_apart(outputs: &Path, run: &Path) -> Result<(), PublishError> {
    let adapters = outputs.join(ADAPTERS);
    let Ok(real) = fs::canonicalize(&adapters) else {
        return Ok(());
    };
    // A link there gives way as well, so its own name counts besides what it leads to.
    let published = |place: &Path| {
        let name = place.file_name()?.to_str()?;
        let parent = fs::canonicalize(fsx::parent_of(place)).ok()?;
        (name.starts_with(PREFIX) && parent == real).then(|| adapters.join(name))
    };
    let resolved = fs::canonicalize(run).ok();
    let mut places = resolved
        .iter()
        .flat_map(|run| run.ancestors())
        .chain(run.ancestors());
    match places.find_map(published) {
        None => Ok(()),
        Some(adapter) => Err(PublishError::RunInside {
            run: run.to_path_buf(),
            adapter,
        }),
    }
}

/// Finds out whether the adapter of `task` can be published below `outputs`.
///
/// # Errors
/// It cannot, or something else than an adapter would be lost.
pub fn check_writable(outputs: &Path, task: &str) -> Result<(), PublishError> {
    let target = adapter_path(outputs, task)?;
    let parent = fsx::parent_of(&target);
    let blocked = |cause| PublishError::NotWritable {
        path: target.clone(),
        cause,
    };
    fs::create_dir_all(parent).map_err(blocked)?;
    if let Some(what) = occupant(&target) {
        return Err(PublishError::Occupied { path: target, what });
    }
    // A file without a name, which is gone when it is closed.
    tempfile::tempfile_in(parent).map(drop).map_err(blocked)
}

/// What stands at `target` and is no older adapter, if anything. A link gives way.
fn occupant(target: &Path) -> Option<&'static str> {
    let meta = fs::symlink_metadata(target).ok()?;
    if meta.is_symlink() {
        return None;
    }
    if !meta.is_dir() {
        return Some("there is a file of that name");
    }
    let filled = fs::read_dir(target).map_or(true, |mut entries| entries.next().is_some());
    let adapter = target.join("adapter_config.json").exists();
    if filled && !adapter {
        return Some("the directory holds something other than an adapter");
    }
    let of_a_run = |name: &OsStr| OF_A_RUN.iter().any(|own| name == *own);
    WalkDir::new(target)
        .into_iter()
        .flatten()
        .any(|entry| of_a_run(entry.file_name()))
        .then_some("the directory holds files of a run")
}

/// Copies a run's adapter directory to [`adapter_path`], in one step: a path
/// below it opens the old adapter's file or the new one's, whole. Returns the place.
///
/// # Errors
/// It cannot be copied; what was published before stays.
pub fn publish_adapter(
    outputs: &Path,
    task: &str,
    adapter: &Path,
) -> Result<PathBuf, PublishError> {
    let target = adapter_path(outputs, task)?;
    // Measured later it would count the torn copy as used.
    let free = fsx::available_space(&target);
    let copied = fsx::publish_dir(&target, |temp| {
        copy_files(adapter, temp).map_err(|error| published_name(error, temp, &target))
    });
    copied.map_err(|mut error| {
        if error.path.starts_with(&target) {
            error.available = error.available.and(free);
            error.kept = Some(format!("the adapter is kept in {}", adapter.display()).into());
        }
        error
    })?;
    Ok(target)
}

/// The error with the path that a file in `temp` would have had below `target`.
fn published_name(mut error: FsError, temp: &Path, target: &Path) -> FsError {
    if let Ok(file) = error.path.strip_prefix(temp) {
        error.path = target.join(file);
    }
    error
}

fn copy_files(from: &Path, to: &Path) -> Result<(), FsError> {
    let unreadable = |e| FsError::new("read", from, e);
    for entry in fs::read_dir(from).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let source = entry.path();
        let target = to.join(entry.file_name());
        let meta = fs::metadata(&source).map_err(|e| FsError::new("read", &source, e))?;
        if meta.is_dir() {
            fsx::create_dir_all(&target)?;
            copy_files(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(|e| match File::open(&source) {
                Ok(_) => FsError::new("write", &target, e).needing(Some(meta.len())),
                Err(unreadable) => FsError::new("read", &source, unreadable),
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join(format!("run-{text}/adapter"));
        fs::create_dir_all(path.join("extra")).unwrap();
        fs::write(path.join("adapter_config.json"), text).unwrap();
        fs::write(path.join("extra/t.json"), text).unwrap();
        path
    }

    #[test]
    fn a_new_adapter_takes_the_place_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = dir.path().join("outputs");
        for text in ["1", "2"] {
            let from = adapter(dir.path(), text);
            let place = publish_adapter(&outputs, "mcq", &from).unwrap();
            assert_eq!(place, outputs.join("adapters/adapter_mcq"));
            let read = |name: &str| fs::read_to_string(place.join(name)).unwrap();
            assert_eq!(read("adapter_config.json"), text);
            assert_eq!(read("extra/t.json"), text);
            assert!(from.join("adapter_config.json").exists());
        }
        assert_eq!(fs::read_dir(outputs.join("adapters")).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_found_before() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = dir.path().join("outputs");
        check_writable(&outputs, "mcq").unwrap();
        assert_eq!(fs::read_dir(outputs.join("adapters")).unwrap().count(), 0);
        fs::remove_dir(outputs.join("adapters")).unwrap();
        fs::write(outputs.join("adapters"), "").unwrap();
        let refused = || check_writable(&outputs, "mcq").unwrap_err().to_string();
        let text = refused();
        assert!(
            text.contains("adapters/adapter_mcq: the adapter could"),
            "{text}"
        );
        assert!(
            text.contains("outputs/adapters is a file, not a directory; move it away"),
            "{text}"
        );
        fs::remove_file(outputs.join("adapters")).unwrap();
        std::os::unix::fs::symlink("nowhere", outputs.join("adapters")).unwrap();
        let text = refused();
        assert!(
            text.contains("outputs/adapters is a link to nothing"),
            "{text}"
        );
        let limit = PublishError::NotWritable {
            path: PathBuf::from("outputs/adapters/adapter_mcq"),
            cause: io::Error::from_raw_os_error(libc::EMFILE),
        };
        let text = limit.to_string();
        assert!(
            text.contains("ulimit -n") && !text.contains("writable"),
            "{text}"
        );
    }

    #[test]
    fn a_run_where_adapters_are_published_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = dir.path().join("outputs");
        let adapters = outputs.join("adapters");
        // Where nothing was published yet.
        check_apart(&outputs, &adapters.join("adapter_mcq/run")).unwrap();
        fs::create_dir_all(adapters.join("adapter_mcq/deep/run")).unwrap();
        fs::create_dir_all(dir.path().join("runs/one")).unwrap();
        std::os::unix::fs::symlink("../../runs", adapters.join("adapter_saq")).unwrap();
        std::os::unix::fs::symlink("outputs/adapters", dir.path().join("link")).unwrap();
        for (run, lost) in [
            ("outputs/adapters/adapter_mcq", Some("adapter_mcq")),
            ("outputs/adapters/adapter_mcq/deep/run", Some("adapter_mcq")),
            ("link/adapter_mcq/deep", Some("adapter_mcq")),
            (
                "runs/../outputs/adapters/adapter_mcq/deep",
                Some("adapter_mcq"),
            ),
            ("outputs/adapters/adapter_saq/one", Some("adapter_saq")),
            ("runs/one", None),
            ("outputs/adapters", None),
            ("outputs", None),
        ] {
            let found = check_apart(&outputs, &dir.path().join(run));
            match (found.map_err(|e| e.to_string()), lost) {
                (Ok(()), None) => {}
                (Err(text), Some(name)) => assert!(
                    text.contains(&format!("lies in {}", adapters.join(name).display()))
                        && text.contains("choose another hydra.run.dir"),
                    "{text}"
                ),
                (found, _) => panic!("{run}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_full_disk_names_where_the_adapter_was_to_go() {
        let Some(disk) = fsx::tests::small_disk::SmallDisk::mount("64k") else {
            println!("skipped: mounting a tmpfs is not permitted here");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let from = adapter(dir.path(), "1");
        fs::write(from.join("weights"), vec![1; 200_000]).unwrap();
        let error = publish_adapter(disk.path(), "mcq", &from).unwrap_err();
        let text = error.to_string();
        let place = disk.path().join("adapters/adapter_mcq/weights");
        assert!(text.starts_with(&place.display().to_string()), "{text}");
        assert!(text.contains("200.0 kB needed, "), "{text}");
        let kept = format!("the adapter is kept in {}", from.display());
        assert!(
            text.ends_with(&kept) && !text.contains("0 B available"),
            "{text}"
        );
        let left = fs::read_dir(disk.path().join("adapters")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn what_is_no_adapter_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let adapters = dir.path().join("adapters");
        fs::create_dir_all(adapters.join("adapter_full")).unwrap();
        fs::write(adapters.join("adapter_full/notes.txt"), "").unwrap();
        fs::write(adapters.join("adapter_file"), "").unwrap();
        fs::create_dir_all(adapters.join("adapter_empty")).unwrap();
        std::os::unix::fs::symlink("adapter_full", adapters.join("adapter_link")).unwrap();
        let published = adapter(dir.path(), "1");
        for task in ["old", "run", "runs"] {
            publish_adapter(dir.path(), task, &published).unwrap();
        }
        fs::write(adapters.join("adapter_run/metrics.csv"), "").unwrap();
        fs::create_dir_all(adapters.join("adapter_runs/one/.hydra")).unwrap();
        for (task, what) in [
            ("full", Some("something other than an adapter")),
            ("file", Some("a file of that name")),
            ("run", Some("files of a run")),
            ("runs", Some("files of a run")),
            ("empty", None),
            ("link", None),
            ("old", None),
        ] {
            let found = check_writable(dir.path(), task).map_err(|e| e.to_string());
            match what {
                None => assert_eq!(found, Ok(()), "{task}"),
                Some(what) => {
                    let text = found.unwrap_err();
                    assert!(
                        text.contains(what) && text.contains("task.name=NAME"),
                        "{text}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_missing_source_leaves_the_published_one() {
        let dir = tempfile::tempdir().unwrap();
        let from = adapter(dir.path(), "1");
        let place = publish_adapter(dir.path(), "saq", &from).unwrap();
        let error = publish_adapter(dir.path(), "saq", &dir.path().join("none")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("none: cannot read: no such file")
        );
        assert!(place.join("adapter_config.json").exists());
        assert_eq!(
            fs::read_dir(dir.path().join("adapters")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_task_name_cannot_leave_the_directory() {
        for bad in ["", "../x", "a/b", ".hidden", "a b", "-x"] {
            let error = adapter_path(Path::new("outputs"), bad).unwrap_err();
            assert!(error.to_string().contains("task.name"), "{bad}");
        }
        assert!(adapter_path(Path::new("outputs"), "squad_v1.1-small").is_ok());
    }
}
