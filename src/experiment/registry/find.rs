//! The runs on disk, and the one that a name means.

use std::path::{Component, Path, PathBuf};

use chrono::DateTime;
use walkdir::WalkDir;

use super::error::RegistryError;
use super::record::started;
use crate::compose::nearest;
use crate::experiment::run_dir::RunPaths;
use crate::experiment::summary::Summary;

/// A run on disk.
#[derive(Clone, Debug)]
pub struct RunEntry {
    pub paths: RunPaths,
    pub summary: Summary,
}

/// The directories below `outputs` that hold a run, whole or not, in the order
/// of their names. What lies inside a run belongs to it. A missing `outputs`
/// holds none.
pub fn run_dirs(outputs: &Path) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let mut walk = WalkDir::new(outputs).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_dir() {
            continue;
        }
        let below = entry.depth() > 0;
        let hidden = below && entry.file_name().to_string_lossy().starts_with('.');
        if hidden || entry.path() == outputs.join("adapters") {
            walk.skip_current_dir();
        } else if is_run(entry.path()) {
            dirs.push(entry.path().to_path_buf());
            // A run in `outputs` itself has the others beside it.
            if below {
                walk.skip_current_dir();
            }
        }
    }
    dirs
}

/// The runs below `outputs` with a readable summary.json, oldest first by their start.
pub fn find_runs(outputs: &Path) -> Vec<RunEntry> {
    let mut runs: Vec<RunEntry> = run_dirs(outputs)
        .into_iter()
        .filter_map(|dir| {
            let paths = RunPaths::new(dir);
            let summary = Summary::read(&paths.summary()).ok()?;
            Some(RunEntry { paths, summary })
        })
        .collect();
    // Stable: runs of the same instant stay in the order of their names.
    runs.sort_by_key(|run| DateTime::parse_from_rfc3339(&run.summary.started).ok());
    runs
}

/// Whether a directory holds a run. A process killed in its first moments
/// leaves the config and no summary.
fn is_run(dir: &Path) -> bool {
    let paths = RunPaths::new(dir);
    [paths.summary(), paths.resolved_config(), paths.hydra()]
        .iter()
        .any(|path| path.exists())
}

/// The run that `name` means: a run directory, its `.hydra` or a file in there,
/// or the last part of the path of one run below `outputs` (`14-03-22`).
///
/// # Errors
/// No run or several: the message names those there are.
pub fn locate(name: &Path, outputs: &Path) -> Result<PathBuf, RegistryError> {
    let run = around_hydra(name).unwrap_or(name);
    if is_run(run) {
        return Ok(run.to_path_buf());
    }
    let tail: PathBuf = run
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect();
    let all = run_dirs(outputs);
    let empty = tail.as_os_str().is_empty();
    let mut found: Vec<PathBuf> = all
        .iter()
        .filter(|dir| !empty && dir.ends_with(&tail))
        .cloned()
        .collect();
    if found.is_empty() {
        // A day, or a sweep.
        let below = |dir: &Path| lies_in(dir, run) || !empty && has_part(dir, &tail, outputs);
        found = all.iter().filter(|dir| below(dir)).cloned().collect();
    }
    let name = name.display().to_string();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(RegistryError::Unknown {
            near: near(&tail, all),
            name,
            below: outputs.to_path_buf(),
        }),
        _ => Err(RegistryError::Ambiguous { name, runs: found }),
    }
}

/// The run of a `.hydra` or of a file in it, there or not: Hydra's users name
/// `.hydra/config.pickle`.
fn around_hydra(path: &Path) -> Option<&Path> {
    let hydra = path
        .ancestors()
        .take(2)
        .find(|dir| dir.file_name().is_some_and(|name| name == ".hydra"))?;
    hydra.parent().map(|run| match run.as_os_str().is_empty() {
        true => Path::new("."),
        false => run,
    })
}

/// Whether a directory between `outputs` and `dir` ends with `tail`.
fn has_part(dir: &Path, tail: &Path, outputs: &Path) -> bool {
    dir.ancestors()
        .take_while(|part| *part != outputs)
        .any(|part| part.ends_with(tail))
}

fn lies_in(dir: &Path, parent: &Path) -> bool {
    match (dir.canonicalize(), parent.canonicalize()) {
        (Ok(dir), Ok(parent)) => dir.starts_with(parent),
        _ => false,
    }
}

/// The newest runs, before them the one whose name is closest to `tail`.
fn near(tail: &Path, mut all: Vec<PathBuf>) -> Vec<PathBuf> {
    const NEWEST: usize = 5;
    all.sort_by_cached_key(|dir| std::cmp::Reverse(started(&RunPaths::new(dir))));
    let parts = tail.components().count();
    let end = |dir: &PathBuf| -> String {
        let names: Vec<_> = dir.iter().map(|part| part.to_string_lossy()).collect();
        names[names.len().saturating_sub(parts)..].join("/")
    };
    let ends: Vec<String> = all.iter().map(end).collect();
    let closest = nearest(&tail.to_string_lossy(), ends.iter().map(String::as_str));
    if let Some(place) = closest.and_then(|name| ends.iter().position(|end| end == name)) {
        all[..=place].rotate_right(1);
    }
    all.truncate(NEWEST);
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Runs that have only a config, and perhaps a summary.
    fn outputs(names: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, start) in names {
            let run = dir.path().join(name);
            fs::create_dir_all(run.join(".hydra")).unwrap();
            if let Some(start) = start {
                let mut summary = Summary::started("train", "mcq", "cpu");
                summary.started = start.to_string();
                summary.write(&run.join("summary.json")).unwrap();
            }
        }
        dir
    }

    const EARLY: Option<&str> = Some("2025-01-01T11:00:00+01:00");
    const LATE: Option<&str> = Some("2025-01-01T11:00:00+00:00");

    #[test]
    fn runs_are_found_once_and_in_order_of_time() {
        let dir = outputs(&[
            ("2025-01-01/11-00-00", LATE),
            ("2025-01-01/11-00-01", None),
            ("multirun/2025-01-01/12-00-00/0", EARLY),
            ("adapters/adapter_mcq", LATE),
            (".cache/run", LATE),
            ("2025-01-01/11-00-00/copy", LATE),
        ]);
        fs::create_dir_all(dir.path().join("2025-01-01/11-00-02")).unwrap();
        let names = |dirs: Vec<PathBuf>| -> Vec<String> {
            let below = |run: &PathBuf| run.strip_prefix(dir.path()).unwrap().to_path_buf();
            let text = |run: &PathBuf| below(run).display().to_string();
            dirs.iter().map(text).collect()
        };
        assert_eq!(
            names(run_dirs(dir.path())),
            [
                "2025-01-01/11-00-00",
                "2025-01-01/11-00-01",
                "multirun/2025-01-01/12-00-00/0"
            ]
        );
        let found = find_runs(dir.path());
        let found = found.iter().map(|r| r.paths.root().to_path_buf()).collect();
        assert_eq!(
            names(found),
            ["multirun/2025-01-01/12-00-00/0", "2025-01-01/11-00-00"]
        );
        assert!(run_dirs(&dir.path().join("none")).is_empty());
    }

    #[test]
    fn a_run_is_named_by_its_path_or_its_tail() {
        let dir = outputs(&[
            ("2025-01-01/11-00-00", EARLY),
            ("2025-01-02/11-00-00", LATE),
            ("multirun/2025-01-01/12-00-00/0", EARLY),
            ("multirun/2025-01-01/12-00-00/1", EARLY),
        ]);
        let outputs = dir.path();
        let at = |name: &str| locate(Path::new(name), outputs).map_err(|e| e.to_string());
        let sweep = outputs.join("multirun/2025-01-01/12-00-00");
        assert_eq!(at("12-00-00/1"), Ok(sweep.join("1")));
        assert_eq!(at("./12-00-00/1/"), Ok(sweep.join("1")));
        let first = outputs.join("2025-01-01/11-00-00");
        assert_eq!(at("2025-01-01/11-00-00"), Ok(first.clone()));
        for inside in ["", ".hydra", ".hydra/config.yaml", ".hydra/config.pickle"] {
            let path = first.join(inside);
            assert_eq!(locate(&path, outputs).unwrap(), first, "{inside}");
        }
        let day = outputs.join("2025-01-02");
        assert_eq!(locate(&day, outputs).unwrap(), day.join("11-00-00"));

        let text = at("11-00-00").unwrap_err();
        assert!(text.contains("names 2 runs; say which:"), "{text}");
        assert!(text.contains("2025-01-02/11-00-00"), "{text}");
        for name in [sweep.as_path(), Path::new("multirun/2025-01-01/12-00-00")] {
            let text = locate(name, outputs).unwrap_err().to_string();
            assert!(text.contains("names 2 runs"), "{text}");
        }
        let text = at("12-00-00/11").unwrap_err();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("12-00-00/11: no such run; runs below"),
            "{text}"
        );
        assert!(
            lines[1].contains("12-00-00/1") && lines.len() == 5,
            "{text}"
        );
        let text = at("").unwrap_err();
        assert!(text.contains("no such run"), "{text}");
        let none = outputs.join("none");
        let text = locate(Path::new("x"), &none).unwrap_err().to_string();
        assert!(
            text.contains("x: no such run; there are no runs below"),
            "{text}"
        );
    }
}
