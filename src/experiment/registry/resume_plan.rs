//! Which run `training.resume` goes on with.

use std::path::{Path, PathBuf};

use super::config_diff::Leaves;
use super::error::RegistryError;
use super::find::find_runs;
use super::inputs::Inputs;
use crate::experiment::checkpoints::{self, Checkpoint};
use crate::experiment::fsx;
use crate::experiment::run_dir::{RunDir, RunDirError, RunPaths};
use crate::experiment::summary::{Status, Summary};

/// What `training.resume` comes to.
#[derive(Debug)]
pub enum ResumePlan {
    /// A new run in a new directory.
    Fresh,
    /// The run to go on with, locked for this process.
    Continue {
        run: RunDir,
        /// None: the run was killed before its first checkpoint, and begins
        /// again in its directory.
        checkpoint: Option<Checkpoint>,
        /// Keys whose values differ from the run's own config, and inputs whose content
        /// differs from what the checkpoint was made with, each as `key: then -> now`.
        changed: Vec<String>,
    },
    /// Nothing to do: the named run is finished and stays as it is.
    AlreadyFinished {
        run_dir: PathBuf,
        /// As of `Continue`, of the config alone.
        changed: Vec<String>,
    },
}

/// What [`plan_resume`] decides by.
#[derive(Clone, Copy, Debug)]
pub struct ResumeRequest<'a> {
    /// `training.resume`: None, `auto` or a run directory.
    pub resume: Option<&'a str>,
    /// `hydra.run.dir` where the user set it; None for the default pattern.
    pub run_dir: Option<&'a Path>,
    /// Where runs lie by default.
    pub outputs: &'a Path,
    /// The text that config.resolved.yaml would get.
    pub resolved_config: &'a str,
}

/// Finds the run to go on with.
///
/// - no `training.resume`: a new run;
/// - `auto`: the run that `hydra.run.dir` names, where that exists, else the
///   newest unfinished run with the same resolved config that has a whole
///   checkpoint and no process at work in it, else a new run;
/// - a directory: that run, or, when it is a `checkpoints/step-NNNNNN` of a
///   run, that checkpoint.
pub fn plan_resume(request: &ResumeRequest) -> Result<ResumePlan, RegistryError> {
    match (request.resume, request.run_dir) {
        (None, _) => Ok(ResumePlan::Fresh),
        (Some("auto"), Some(dir)) if dir.exists() => {
            let plan = plan_named(dir, None, request.resolved_config)?;
            Ok(plan.unwrap_or(ResumePlan::Fresh))
        }
        (Some("auto"), _) => plan_search(request),
        (Some(named), given) => {
            let named = Path::new(named);
            if !named.is_dir() {
                return Err(RegistryError::NoSuchRun(named.to_path_buf()));
            }
            let (run, checkpoint) = split_checkpoint(named);
            if let Some(given) = given.filter(|given| !fsx::same_place(given, &run)) {
                return Err(RegistryError::TwoDirectories {
                    resume: run,
                    run_dir: given.to_path_buf(),
                });
            }
            plan_named(&run, checkpoint, request.resolved_config)?
                .ok_or_else(|| RegistryError::NotARun(named.to_path_buf()))
        }
    }
}

/// The plan for a run named by its directory; None where that holds no run.
fn plan_named(
    dir: &Path,
    checkpoint: Option<Checkpoint>,
    config: &str,
) -> Result<Option<ResumePlan>, RegistryError> {
    let finished = |paths: &RunPaths| -> Result<bool, RegistryError> {
        if !paths.summary().exists() {
            return Ok(false);
        }
        let summary = Summary::read(&paths.summary())?;
        if summary.command != "train" {
            return Err(RegistryError::NotTraining {
                path: dir.to_path_buf(),
                command: summary.command,
            });
        }
        Ok(summary.status == Status::Finished)
    };
    let paths = RunPaths::new(dir);
    // A process killed in its first moments leaves the config and no summary.
    let run_files = [paths.summary(), paths.resolved_config(), paths.hydra()];
    if !run_files.iter().any(|path| path.exists()) {
        return Ok(None);
    }
    let config = Leaves::parse(config)?.completed();
    let changes = || -> Result<Vec<String>, RegistryError> {
        if !paths.resolved_config().exists() {
            return Ok(Vec::new());
        }
        let then = Leaves::read(&paths.resolved_config())?.completed();
        Ok(then.changes(&config))
    };
    let done = || {
        Ok(Some(ResumePlan::AlreadyFinished {
            run_dir: dir.to_path_buf(),
            changed: changes().unwrap_or_default(),
        }))
    };
    if finished(&paths)? {
        return done();
    }
    let run = RunDir::reopen(dir)?;
    // It may have been finished by a process that let go of it just now.
    if finished(&run)? {
        return done();
    }
    if let Some(named) = &checkpoint {
        checkpoints::verify(&named.path)?;
    }
    let checkpoint = match checkpoint {
        Some(named) => Some(named),
        None => checkpoints::newest_whole(&run.checkpoints())?,
    };
    let mut changed = changes()?;
    let then = checkpoint.as_ref();
    if let Some(then) = then.and_then(|found| Inputs::of_checkpoint(&found.path)) {
        changed.extend(Inputs::of(&config).changes_since(&then));
    }
    Ok(Some(ResumePlan::Continue {
        run,
        checkpoint,
        changed,
    }))
}

fn plan_search(request: &ResumeRequest) -> Result<ResumePlan, RegistryError> {
    let wanted = Leaves::parse(request.resolved_config)?.completed();
    for entry in find_runs(request.outputs).into_iter().rev() {
        if entry.summary.command != "train" || entry.summary.status == Status::Finished {
            continue;
        }
        // A run whose config is gone or damaged is not this one.
        let then = Leaves::read(&entry.paths.resolved_config()).ok();
        if then.map(Leaves::completed).as_ref() != Some(&wanted) {
            continue;
        }
        match plan_named(entry.paths.root(), None, request.resolved_config) {
            Ok(Some(
                plan @ ResumePlan::Continue {
                    checkpoint: Some(_),
                    ..
                },
            )) => return Ok(plan),
            // Without a checkpoint, finished meanwhile, or another process's: look on.
            Ok(_) | Err(RegistryError::RunDir(RunDirError::Busy { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ResumePlan::Fresh)
}

/// `RUN/checkpoints/step-NNNNNN` -> the run and the checkpoint.
fn split_checkpoint(path: &Path) -> (PathBuf, Option<Checkpoint>) {
    let found = path
        .parent()
        .filter(|parent| parent.ends_with("checkpoints"));
    if let Some((parent, step)) = found.zip(checkpoints::step_of(path)) {
        let run = fsx::parent_of(parent).to_path_buf();
        let path = path.to_path_buf();
        return (run, Some(Checkpoint { step, path }));
    }
    (path.to_path_buf(), None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::experiment::run_dir::Snapshot;

    const CONFIG: &str = "seed: 42\ntraining:\n  learning_rate: 0.0001\n  resume: null\n";
    /// The same but for what does not count.
    const RESUMING: &str = "seed: 42\ntraining:\n  learning_rate: 1.0e-4\n  resume: auto\n\
                            hydra:\n  run:\n    dir: elsewhere\n";
    const OTHER: &str = "seed: 43\ntraining:\n  learning_rate: 0.0001\n  resume: null\n";

    struct Runs {
        dir: tempfile::TempDir,
    }

    impl Runs {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { dir }
        }

        fn outputs(&self) -> PathBuf {
            self.dir.path().join("outputs")
        }

        /// A run as a killed process leaves it.
        fn add(&self, name: &str, config: &str, status: Status, steps: &[usize]) -> PathBuf {
            let run = RunDir::create_given(&self.outputs().join(name)).unwrap();
            run.write_snapshot(&Snapshot {
                config,
                overrides: "[]\n",
                hydra: "hydra: {}\n",
                resolved: config,
            })
            .unwrap();
            let mut summary = Summary::started("train", "mcq", "cpu");
            summary.status = status;
            summary.write(&run.summary()).unwrap();
            for &step in steps {
                checkpoints::save(&run.checkpoints(), step, &[], &json!({})).unwrap();
            }
            run.root().to_path_buf()
        }

        fn plan(&self, resume: Option<&str>, run_dir: Option<&Path>) -> Result<ResumePlan, String> {
            plan_resume(&ResumeRequest {
                resume,
                run_dir,
                outputs: &self.outputs(),
                resolved_config: RESUMING,
            })
            .map_err(|e| e.to_string())
        }
    }

    /// The run and step a plan goes on with.
    fn continued(plan: ResumePlan) -> (PathBuf, usize) {
        match plan {
            ResumePlan::Continue {
                run,
                checkpoint: Some(checkpoint),
                ..
            } => (run.root().to_path_buf(), checkpoint.step),
            other => panic!("not a continuation: {other:?}"),
        }
    }

    #[test]
    fn a_key_that_an_older_version_did_not_write_has_its_default() {
        let runs = Runs::new();
        let older = "seed: 42\ntraining:\n  resume: null\n";
        let run = runs.add("2025-01-01/12-00-00", older, Status::Running, &[5]);
        let plan = runs.plan(Some("auto"), None).unwrap();
        let ResumePlan::Continue { changed, .. } = &plan else {
            panic!("{plan:?}");
        };
        assert!(changed.is_empty(), "{changed:?}");
        assert_eq!(continued(plan), (run, 5));
    }

    #[test]
    fn auto_takes_the_newest_unfinished_run_with_the_same_config() {
        let runs = Runs::new();
        assert!(matches!(
            runs.plan(Some("auto"), None),
            Ok(ResumePlan::Fresh)
        ));
        // Named so that the order of names is not the order of time.
        runs.add("2025-01-01/12-00-00-9", CONFIG, Status::Failed, &[5]);
        let newest = runs.add("2025-01-01/12-00-00-10", CONFIG, Status::Running, &[5, 10]);
        runs.add("2025-01-01/12-00-02", OTHER, Status::Running, &[20]);
        runs.add("2025-01-01/12-00-03", CONFIG, Status::Finished, &[30]);
        runs.add("2025-01-01/12-00-04", CONFIG, Status::Running, &[]);
        let plan = runs.plan(Some("auto"), None).unwrap();
        assert_eq!(continued(plan), (newest.clone(), 10));
        // A directory that does not exist yet names no run.
        let plan = runs.plan(Some("auto"), Some(Path::new("none"))).unwrap();
        assert_eq!(continued(plan), (newest, 10));
        assert!(matches!(runs.plan(None, None), Ok(ResumePlan::Fresh)));
    }

    #[test]
    fn auto_leaves_a_run_alone_that_another_process_works_in() {
        let runs = Runs::new();
        let older = runs.add("2025-01-01/a", CONFIG, Status::Running, &[5]);
        let newer = runs.add("2025-01-01/b", CONFIG, Status::Running, &[6]);
        let first = runs.plan(Some("auto"), None).unwrap();
        let second = runs.plan(Some("auto"), None).unwrap();
        let third = runs.plan(Some("auto"), None).unwrap();
        assert!(matches!(third, ResumePlan::Fresh));
        let text = runs.plan(Some("auto"), Some(&newer)).unwrap_err();
        assert!(text.contains("another process is at work"), "{text}");
        assert_eq!(continued(first).0, newer);
        assert_eq!(continued(second).0, older);
    }

    #[test]
    fn a_given_directory_is_the_run_whatever_its_config() {
        let runs = Runs::new();
        runs.add("2025-01-01/a", CONFIG, Status::Running, &[5]);
        let mine = runs.add("mine", OTHER, Status::Running, &[2, 4]);
        match runs.plan(Some("auto"), Some(&mine)).unwrap() {
            ResumePlan::Continue {
                run,
                checkpoint,
                changed,
            } => {
                assert_eq!(run.root(), mine);
                assert_eq!(checkpoint.map(|c| c.step), Some(4));
                assert_eq!(changed, ["seed: 43 -> 42"]);
            }
            other => panic!("{other:?}"),
        }
        let done = runs.add("done", CONFIG, Status::Finished, &[9]);
        assert!(matches!(
            runs.plan(Some("auto"), Some(&done)),
            Ok(ResumePlan::AlreadyFinished { run_dir, .. }) if run_dir == done
        ));
        let empty = runs.dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(matches!(
            runs.plan(Some("auto"), Some(&empty)),
            Ok(ResumePlan::Fresh)
        ));
    }

    #[test]
    fn a_named_run_must_be_one_that_can_go_on() {
        let runs = Runs::new();
        let run = runs.add("a", CONFIG, Status::Running, &[5, 10]);
        let name = run.to_str().unwrap();
        assert_eq!(
            continued(runs.plan(Some(name), None).unwrap()),
            (run.clone(), 10)
        );
        let step = run.join("checkpoints/step-000005");
        let plan = runs.plan(step.to_str(), Some(&run)).unwrap();
        assert_eq!(continued(plan), (run.clone(), 5));
        let elsewhere = runs.dir.path().join("elsewhere");
        let text = runs.plan(Some(name), Some(&elsewhere)).unwrap_err();
        assert!(text.contains("leave hydra.run.dir out"), "{text}");
        let text = runs.plan(elsewhere.to_str(), None).unwrap_err();
        assert!(text.contains("no such run directory"), "{text}");
        let bare = runs.add("bare", CONFIG, Status::Running, &[]);
        fs::create_dir(&elsewhere).unwrap();
        let text = runs.plan(elsewhere.to_str(), None).unwrap_err();
        assert!(text.contains("holds no run"), "{text}");
        let done = runs.add("done", CONFIG, Status::Finished, &[9]);
        assert!(matches!(
            runs.plan(done.to_str(), None),
            Ok(ResumePlan::AlreadyFinished { .. })
        ));
        let mut summary = Summary::started("infer", "mcq", "cpu");
        summary.status = Status::Failed;
        summary.write(&bare.join("summary.json")).unwrap();
        let text = runs.plan(bare.to_str(), None).unwrap_err();
        assert!(text.contains("made by `run infer`"), "{text}");
    }

    #[test]
    fn a_run_killed_before_its_first_checkpoint_begins_again_in_its_directory() {
        let runs = Runs::new();
        let run = runs.add("a", CONFIG, Status::Running, &[]);
        let from_the_start = |plan| match plan {
            Ok(ResumePlan::Continue {
                checkpoint: None,
                run,
                ..
            }) => run.root().to_path_buf(),
            other => panic!("{other:?}"),
        };
        assert_eq!(from_the_start(runs.plan(Some("auto"), Some(&run))), run);
        assert_eq!(from_the_start(runs.plan(run.to_str(), None)), run);
        fs::remove_file(run.join("summary.json")).unwrap();
        fs::remove_file(run.join("config.resolved.yaml")).unwrap();
        assert_eq!(from_the_start(runs.plan(Some("auto"), Some(&run))), run);
    }

    #[test]
    fn other_bytes_of_the_same_size_are_a_change() {
        let runs = Runs::new();
        let at = |name: &str| runs.dir.path().join(name);
        let (data, base) = (at("train.csv"), at("base"));
        fs::write(&data, "a,b\n1,2\n").unwrap();
        fs::create_dir(&base).unwrap();
        fs::write(base.join("model.safetensors"), [0u8; 9000]).unwrap();
        let (data_path, base_path) = (data.display(), base.display());
        let config = format!("data:\n  path: {data_path}\nmodel:\n  path: {base_path}\n");
        let run = runs.add("a", &config, Status::Running, &[]);
        let save = |step: usize, state: serde_json::Value| {
            checkpoints::save(&run.join("checkpoints"), step, &[], &state).unwrap();
        };
        let changed = || -> Vec<String> {
            let plan = plan_resume(&ResumeRequest {
                resume: run.to_str(),
                run_dir: None,
                outputs: &runs.outputs(),
                resolved_config: &config,
            });
            match plan.unwrap() {
                ResumePlan::Continue { changed, .. } => changed,
                other => panic!("{other:?}"),
            }
        };
        save(5, json!({"inputs": Inputs::of_run(&RunPaths::new(&run))}));
        assert_eq!(changed(), [""; 0]);
        fs::write(&data, "a,b\n1,3\n").unwrap();
        assert!(changed()[0].starts_with("the content of data.path: "));
        let mut weights = [0u8; 9000];
        weights[8999] = 1;
        fs::write(base.join("model.safetensors"), weights).unwrap();
        let both = changed();
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[1].starts_with("the content of model.path: "));
        // The later checkpoints of the run tell how it began.
        save(6, json!({"inputs": Inputs::of_run(&RunPaths::new(&run))}));
        assert_eq!(changed(), both);
        // As earlier versions left them.
        save(7, json!({}));
        assert_eq!(changed(), [""; 0]);
    }

    #[test]
    fn a_torn_newest_checkpoint_gives_way_to_the_one_before() {
        let runs = Runs::new();
        let run = runs.add("a", CONFIG, Status::Running, &[5, 10]);
        fs::write(run.join("checkpoints/step-000010/state.json"), "{}").unwrap();
        assert_eq!(continued(runs.plan(Some("auto"), None).unwrap()), (run, 5));
    }
}
