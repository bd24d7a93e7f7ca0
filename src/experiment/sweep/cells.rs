//! Running one cell: a run like any other.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::outcome::Outcome;
use super::plan::Plan;
use crate::config::Job;
use crate::device;
use crate::experiment::metrics::reset_peak_memory;
use crate::experiment::run_dir::RunPaths;
use crate::experiment::summary::{Status, Summary};
use crate::experiment::{crash, fsx};

/// Runs a cell below `root`. Whatever goes wrong in it, a panic too, is its outcome.
pub(super) fn run<E: Display>(
    plan: &Plan,
    num: usize,
    root: &Path,
    work: impl Fn(Job) -> Result<(), E>,
) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome {
        num,
        directory: PathBuf::new(),
        overrides: plan.title(num),
        values: plan.values(num).to_vec(),
        status: Status::Finished,
        error: None,
        task: String::new(),
        main_metric: None,
        duration_s: 0.0,
        summary: None,
    };
    let result = match plan.job(num, root) {
        Ok(job) => {
            outcome.directory.clone_from(&job.run_dir);
            outcome.task.clone_from(&job.config.task.name);
            outcome.main_metric = main_metric(&job);
            attempt(job, work)
        }
        Err(error) => Err(error.to_string()),
    };
    outcome.summary = Summary::read(&RunPaths::new(&outcome.directory).summary()).ok();
    outcome.duration_s = began.elapsed().as_secs_f64();
    if let Err(error) = result {
        outcome.status = Status::Failed;
        outcome.error = Some(error);
    }
    outcome
}

/// The first of `task.metrics`, by the name it has in summaries.
fn main_metric(job: &Job) -> Option<String> {
    let metrics = job.resolved.select("task.metrics")?;
    Some(metrics.as_list()?.first()?.as_str()?.to_string())
}

fn attempt<E: Display>(job: Job, work: impl Fn(Job) -> Result<(), E>) -> Result<(), String> {
    // Each cell's peak memory is to be its own.
    device::give_back_freed_memory();
    reset_peak_memory();
    let dir = job.run_dir.clone();
    // A directory that exists is the one that training.resume=auto looks into,
    // so a cell never goes on with a run that lies elsewhere.
    fsx::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let result = match crash::catch(|| work(job)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = crash::sentence(&panic);
            close_crashed(&dir, &text);
            Err(text)
        }
    };
    if result.is_err() {
        // Only an empty one goes: the run failed before it wrote anything.
        let _ = fs::remove_dir(&dir);
    }
    result
}

/// A run that panicked could not say so in its summary.
fn close_crashed(dir: &Path, error: &str) {
    let path = RunPaths::new(dir).summary();
    if let Ok(mut summary) = Summary::read(&path)
        && summary.status == Status::Running
    {
        summary.status = Status::Failed;
        summary.error = Some(error.to_string());
        // The crash is what the user hears of.
        let _ = summary.write(&path);
    }
}
