//! `outputs/adapters/adapter_TASK/`: the newest adapter of a task, under a
//! name that stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::fsx::{self, FsError};

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
        "{}: the adapter could not be published there: {cause}; make it writable, or start the \
         program in another directory", .path.display()
    )]
    NotWritable { path: PathBuf, cause: io::Error },
    #[error(
        "{}: {what}, which the adapter will not replace; move it away, or publish under another \
         name (task.name=NAME)", .path.display()
    )]
    Occupied { path: PathBuf, what: &'static str },
}

/// Where the adapter of `task` is published below `outputs`.
pub fn adapter_path(outputs: &Path, task: &str) -> Result<PathBuf, PublishError> {
    let first = task.chars().next().is_some_and(char::is_alphanumeric);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !first || !task.chars().all(plain) {
        return Err(PublishError::Name(task.to_string()));
    }
    Ok(outputs.join("adapters").join(format!("adapter_{task}")))
}

/// Finds out whether the adapter of `task` can be published below `outputs`.
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
    (filled && !adapter).then_some("the directory holds something other than an adapter")
}

/// Copies a run's adapter directory to [`adapter_path`], in one step: a path
/// below it opens the old adapter's file or the new one's, whole. Returns the place.
pub fn publish_adapter(
    outputs: &Path,
    task: &str,
    adapter: &Path,
) -> Result<PathBuf, PublishError> {
    let target = adapter_path(outputs, task)?;
    fsx::publish_dir(&target, |temp| copy_files(adapter, temp))?;
    Ok(target)
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
            fs::copy(&source, &target)
                .map_err(|e| FsError::new("copy", &source, e).needing(Some(meta.len())))?;
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
        let text = check_writable(&outputs, "mcq").unwrap_err().to_string();
        assert!(
            text.contains("adapters/adapter_mcq: the adapter could"),
            "{text}"
        );
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
        publish_adapter(dir.path(), "old", &adapter(dir.path(), "1")).unwrap();
        for (task, what) in [
            ("full", Some("something other than an adapter")),
            ("file", Some("a file of that name")),
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
