//! One run, one directory: made by a `mkdir` that must succeed, never reused,
//! locked by the process that works in it.

use std::fs;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};
use thiserror::Error;

use super::fsx::{self, FsError, LockFile, Locking};
use super::summary::{Status, Summary};

/// A run directory that cannot be had.
#[derive(Debug, Error)]
pub enum RunDirError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(
        "{}: holds a finished run, and a run directory is never reused; \
         choose another hydra.run.dir, or move this one away", .0.display()
    )]
    Finished(PathBuf),
    #[error(
        "{}: holds an unfinished run; go on with it by training.resume=auto, \
         or choose another hydra.run.dir", .0.display()
    )]
    Unfinished(PathBuf),
    #[error(
        "{}: already holds {found}, which a run would overwrite; \
         choose another hydra.run.dir, or move it away", .path.display()
    )]
    Occupied { path: PathBuf, found: String },
    #[error(
        "{}: another process is at work in this run{}; \
         wait for it, stop it, or choose another hydra.run.dir",
        .path.display(), if .owner.is_empty() { String::new() } else { format!(" ({})", .owner) }
    )]
    Busy { path: PathBuf, owner: String },
}

/// Where everything in a run directory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPaths {
    root: PathBuf,
}

impl RunPaths {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// `.hydra/`: the config, overrides and Hydra settings, as Hydra writes them.
    pub fn hydra(&self) -> PathBuf {
        self.root.join(".hydra")
    }
    pub fn resolved_config(&self) -> PathBuf {
        self.root.join("config.resolved.yaml")
    }
    pub fn adapter(&self) -> PathBuf {
        self.root.join("adapter")
    }
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
    /// The parameters with the lowest validation loss so far.
    pub fn best(&self) -> PathBuf {
        self.checkpoints().join("best")
    }
    /// The whole model, after full fine-tuning.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }
    /// The base as rounds of LoftQ quantised it.
    pub fn base(&self) -> PathBuf {
        self.root.join("base")
    }
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.csv")
    }
    pub fn eval_metrics(&self) -> PathBuf {
        self.root.join("eval_metrics.csv")
    }
    pub fn predictions(&self) -> PathBuf {
        self.root.join("predictions.csv")
    }
    /// Every question with the answers of base and tuned model.
    pub fn evaluation(&self) -> PathBuf {
        self.root.join("evaluation.csv")
    }
    pub fn marking_sheet(&self) -> PathBuf {
        self.root.join("evaluation_for_marking.csv")
    }
    pub fn marking_key(&self) -> PathBuf {
        self.root.join("marking_key.csv")
    }
    pub fn comparison_chart(&self) -> PathBuf {
        self.root.join("comparison.svg")
    }
    pub fn verdicts(&self) -> PathBuf {
        self.root.join("verdicts.csv")
    }
    pub fn summary(&self) -> PathBuf {
        self.root.join("summary.json")
    }
    pub fn log(&self) -> PathBuf {
        self.root.join("run.log")
    }
    /// Whether a process is at work in the run.
    pub fn is_locked(&self) -> bool {
        LockFile::is_held(&self.lock())
    }
    fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }
}

/// The texts a run directory begins with.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// `.hydra/config.yaml`: the job config, interpolations kept.
    pub config: &'a str,
    /// `.hydra/overrides.yaml`: the task overrides as a YAML list.
    pub overrides: &'a str,
    /// `.hydra/hydra.yaml`: Hydra's own settings.
    pub hydra: &'a str,
    /// `config.resolved.yaml`: every value, interpolations resolved.
    pub resolved: &'a str,
}

/// A run directory in which this process, and no other, works.
#[derive(Debug)]
pub struct RunDir {
    paths: RunPaths,
    lock: LockFile,
    origin: Origin,
}

/// How this process came by a run directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// With so many directories, itself and those above it.
    Made(usize),
    /// It was there, without a run in it.
    Given,
    Reopened,
}

impl Deref for RunDir {
    type Target = RunPaths;
    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

/// `OUTPUTS/YYYY-MM-DD/HH-MM-SS`, the default pattern of `hydra.run.dir`.
pub fn default_path(outputs: &Path, now: DateTime<Local>) -> PathBuf {
    outputs
        .join(now.format("%Y-%m-%d").to_string())
        .join(now.format("%H-%M-%S").to_string())
}

impl RunDir {
    /// Makes `wanted`, or `wanted-1`, `wanted-2`, ... when it exists. The call
    /// to use for the default pattern, where two runs may begin in one second.
    pub fn create_numbered(wanted: &Path) -> Result<Self, RunDirError> {
        Self::lock(make_numbered(wanted)?, Origin::Made(1))
    }

    /// Makes the directory that the user named. One that exists will do when
    /// it holds nothing that a run would overwrite.
    pub fn create_given(path: &Path) -> Result<Self, RunDirError> {
        let missing = path
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let origin = match missing.count() {
            0 => Origin::Given,
            made => Origin::Made(made),
        };
        fsx::create_dir_all(path)?;
        let run = Self::lock(path.to_path_buf(), origin)?;
        match first_of_a_run(&run.paths) {
            None => Ok(run),
            Some(found) => Err(match Summary::read(&run.summary()) {
                Ok(summary) if summary.status == Status::Finished => {
                    RunDirError::Finished(path.to_path_buf())
                }
                Ok(_) => RunDirError::Unfinished(path.to_path_buf()),
                Err(_) => RunDirError::Occupied {
                    path: path.to_path_buf(),
                    found,
                },
            }),
        }
    }

    /// Opens an existing run to go on with it, and clears what a killed
    /// process left half-written.
    pub fn reopen(path: &Path) -> Result<Self, RunDirError> {
        let run = Self::lock(path.to_path_buf(), Origin::Reopened)?;
        for dir in [run.root.clone(), run.hydra(), run.checkpoints(), run.best()] {
            fsx::sweep(&dir);
        }
        Ok(run)
    }

    /// Writes the config files, each atomically.
    pub fn write_snapshot(&self, snapshot: &Snapshot) -> Result<(), RunDirError> {
        let hydra = self.hydra();
        fsx::create_dir_all(&hydra)?;
        fsx::write(&hydra.join("config.yaml"), snapshot.config.as_bytes())?;
        fsx::write(&hydra.join("overrides.yaml"), snapshot.overrides.as_bytes())?;
        fsx::write(&hydra.join("hydra.yaml"), snapshot.hydra.as_bytes())?;
        fsx::write(&self.resolved_config(), snapshot.resolved.as_bytes())?;
        Ok(())
    }

    /// Takes back a run that fails before its first step: what
    /// [`RunDir::write_snapshot`] and the log wrote goes, and the directories with
    /// it that this process made. A reopened run stays as it is.
    pub fn abandon(self) {
        if self.origin == Origin::Reopened {
            return;
        }
        // The error that led here is the one to tell, not one of these.
        let _ = fs::remove_dir_all(self.hydra());
        for file in [self.resolved_config(), self.log()] {
            let _ = fs::remove_file(file);
        }
        let made = match self.origin {
            Origin::Made(made) => made,
            Origin::Given | Origin::Reopened => 0,
        };
        let root = self.paths.root;
        drop(self.lock);
        for dir in root.ancestors().take(made) {
            let _ = fs::remove_dir(dir);
        }
    }

    fn lock(root: PathBuf, origin: Origin) -> Result<Self, RunDirError> {
        let paths = RunPaths { root };
        match LockFile::acquire(&paths.lock(), &lock_note())? {
            Locking::Held(lock) => Ok(Self {
                paths,
                lock,
                origin,
            }),
            Locking::Busy(owner) => Err(RunDirError::Busy {
                path: paths.root,
                owner,
            }),
        }
    }
}

/// Makes `wanted`, or `wanted-1`, `wanted-2`, ... when it exists: of two
/// processes only one makes a directory.
pub(super) fn make_numbered(wanted: &Path) -> Result<PathBuf, FsError> {
    fsx::create_dir_all(fsx::parent_of(wanted))?;
    let mut path = wanted.to_path_buf();
    let mut count = 0u32;
    loop {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                count += 1;
                let mut name = wanted.file_name().unwrap_or_default().to_os_string();
                name.push(format!("-{count}"));
                path = wanted.with_file_name(name);
            }
            Err(e) => return Err(FsError::new("create the directory", path, e)),
        }
    }
}

/// The first thing in the directory that a run would write itself.
fn first_of_a_run(paths: &RunPaths) -> Option<String> {
    [
        paths.summary(),
        paths.resolved_config(),
        paths.hydra(),
        paths.metrics(),
        paths.eval_metrics(),
        paths.predictions(),
        paths.evaluation(),
        paths.marking_sheet(),
        paths.marking_key(),
        paths.comparison_chart(),
        paths.verdicts(),
        paths.adapter(),
        paths.model(),
        paths.base(),
        paths.checkpoints(),
        paths.log(),
    ]
    .into_iter()
    .find(|path| fs::symlink_metadata(path).is_ok())
    .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
}

/// Who holds a lock. Several machines may share a file system, so a process id
/// alone says little.
pub(super) fn lock_note() -> String {
    format!("process {}{}", std::process::id(), on_host())
}

fn on_host() -> String {
    match fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => format!(" on {}", name.trim()),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::TimeZone;

    use super::*;

    #[test]
    fn the_default_pattern_is_date_and_time() {
        let now = Local.with_ymd_and_hms(2025, 3, 9, 7, 5, 1).unwrap();
        assert_eq!(
            default_path(Path::new("outputs"), now),
            Path::new("outputs/2025-03-09/07-05-01")
        );
    }

    #[test]
    fn fifty_threads_get_fifty_directories() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("outputs/2025-03-09/07-05-01");
        let made: HashSet<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..50)
                .map(|_| scope.spawn(|| RunDir::create_numbered(&wanted).unwrap()))
                .collect();
            let runs: Vec<RunDir> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            runs.iter().map(|r| r.root().to_path_buf()).collect()
        });
        let expected: HashSet<PathBuf> = std::iter::once(wanted.clone())
            .chain((1..50).map(|k| wanted.with_file_name(format!("07-05-01-{k}"))))
            .collect();
        assert_eq!(made, expected);
    }

    #[test]
    fn of_many_claims_on_a_given_directory_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("mine");
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| RunDir::create_given(&wanted)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        let refused = results.into_iter().find_map(Result::err).unwrap();
        assert!(refused.to_string().contains("another process is at work"));
    }

    #[test]
    fn a_given_directory_is_taken_when_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        let run = RunDir::create_given(&path).unwrap();
        let mut summary = Summary::started("train", "mcq", "cpu");
        summary.write(&run.summary()).unwrap();
        drop(run);
        let text = RunDir::create_given(&path).unwrap_err().to_string();
        assert!(text.contains("training.resume=auto"), "{text}");
        summary.status = Status::Finished;
        summary.write(&path.join("summary.json")).unwrap();
        let text = RunDir::create_given(&path).unwrap_err().to_string();
        assert!(text.contains("finished run"), "{text}");
        fs::remove_file(path.join("summary.json")).unwrap();
        fs::write(path.join("metrics.csv"), "step\n").unwrap();
        let text = RunDir::create_given(&path).unwrap_err().to_string();
        assert!(text.contains("already holds metrics.csv"), "{text}");
        fs::remove_file(path.join("metrics.csv")).unwrap();
        // The base that full fine-tuning would replace by its own result.
        fs::create_dir(path.join("model")).unwrap();
        let text = RunDir::create_given(&path).unwrap_err().to_string();
        assert!(text.contains("already holds model"), "{text}");
        // A refusal leaves no trace.
        assert!(!path.join(".lock").exists());
    }

    #[test]
    fn snapshot_files_lie_where_hydra_puts_them() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create_given(&dir.path().join("r")).unwrap();
        let snapshot = Snapshot {
            config: "a: ${b}\n",
            overrides: "- b=1\n",
            hydra: "hydra: {}\n",
            resolved: "a: 1\n",
        };
        run.write_snapshot(&snapshot).unwrap();
        let read = |name: &str| fs::read_to_string(run.root().join(name)).unwrap();
        assert_eq!(read(".hydra/config.yaml"), "a: ${b}\n");
        assert_eq!(read(".hydra/overrides.yaml"), "- b=1\n");
        assert_eq!(read(".hydra/hydra.yaml"), "hydra: {}\n");
        assert_eq!(read("config.resolved.yaml"), "a: 1\n");
    }

    #[test]
    fn an_abandoned_run_leaves_what_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let text = "a: 1\n";
        let snapshot = Snapshot {
            config: text,
            overrides: text,
            hydra: text,
            resolved: text,
        };
        let made = dir.path().join("deep/made");
        let given = dir.path().join("given");
        fs::create_dir(&given).unwrap();
        fs::write(given.join("notes.txt"), "mine").unwrap();
        for path in [&made, &given] {
            let run = RunDir::create_given(path).unwrap();
            run.write_snapshot(&snapshot).unwrap();
            run.abandon();
        }
        assert!(!dir.path().join("deep").exists());
        assert_eq!(fs::read_dir(&given).unwrap().count(), 1);
        drop(RunDir::create_given(&made).unwrap());
        let run = RunDir::reopen(&made).unwrap();
        run.write_snapshot(&snapshot).unwrap();
        run.abandon();
        assert!(made.join("config.resolved.yaml").exists());
    }

    #[test]
    fn reopening_clears_what_a_kill_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        drop(RunDir::create_given(&path).unwrap());
        fs::write(path.join(".lock"), "process of a killed run").unwrap();
        let best = path.join("checkpoints/best");
        fs::create_dir_all(best.join(".step-000003.tmp-1-2")).unwrap();
        fs::create_dir_all(path.join("checkpoints/.step-000004.tmp-1-1")).unwrap();
        fs::write(path.join(".summary.json.tmp-1-0"), "{").unwrap();
        let run = RunDir::reopen(&path).unwrap();
        assert!(!path.join(".summary.json.tmp-1-0").exists());
        assert_eq!(fs::read_dir(run.checkpoints()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(run.best()).unwrap().count(), 0);
        assert!(matches!(
            RunDir::reopen(&path),
            Err(RunDirError::Busy { .. })
        ));
    }

    #[test]
    fn a_parent_that_is_a_file_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outputs"), "").unwrap();
        let wanted = dir.path().join("outputs/2025-03-09/07-05-01");
        for result in [
            RunDir::create_numbered(&wanted),
            RunDir::create_given(&wanted),
        ] {
            let text = result.unwrap_err().to_string();
            assert!(
                text.contains("outputs is a file, not a directory"),
                "{text}"
            );
            assert!(text.contains("hydra.run.dir=DIR"), "{text}");
        }
    }

    #[test]
    fn an_unwritable_parent_is_an_error_before_anything_is_made() {
        let Some(disk) = fsx::tests::small_disk::SmallDisk::mount("64k,ro") else {
            println!("skipped: mounting a tmpfs is not permitted here");
            return;
        };
        let error = RunDir::create_numbered(&disk.path().join("a/b")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("mounted read-only"), "{text}");
    }
}
