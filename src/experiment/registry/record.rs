//! What a run directory says about its run.

use std::fs;
use std::path::Path;

use chrono::{DateTime, FixedOffset, Local};
use serde::Serialize;

use super::error::RegistryError;
use crate::compose::saved_overrides;
use crate::experiment::run_dir::RunPaths;
use crate::experiment::summary::{Metrics, Status, Summary};

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A process is at work in it.
    Running,
    Finished,
    Failed,
    /// Its process is gone without having finished it.
    Interrupted,
    /// A file of it is missing or damaged.
    Unreadable,
}

impl State {
    /// As in summary.json, or as nobody was left to write it there.
    pub fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Finished => "finished",
            State::Failed => "failed",
            State::Interrupted => "interrupted",
            State::Unreadable => "unreadable",
        }
    }

    fn of(paths: &RunPaths, summary: Option<&Summary>) -> State {
        match summary.map(|summary| summary.status) {
            Some(Status::Finished) => State::Finished,
            _ if paths.is_locked() => State::Running,
            Some(Status::Failed) => State::Failed,
            _ => State::Interrupted,
        }
    }
}

/// A run as its directory tells it.
#[derive(Clone, Debug)]
pub struct Record {
    pub paths: RunPaths,
    pub state: State,
    /// None where the process was killed before it wrote one.
    pub summary: Option<Summary>,
    pub overrides: Vec<String>,
    pub started: Option<DateTime<FixedOffset>>,
}

impl Record {
    /// Reads a run directory.
    ///
    /// # Errors
    /// A damaged summary.json, a damaged `.hydra`, or neither of them there.
    pub fn read(dir: &Path) -> Result<Record, RegistryError> {
        let paths = RunPaths::new(dir);
        let summary = match paths.summary().exists() {
            true => Some(Summary::read(&paths.summary())?),
            false => None,
        };
        Ok(Record {
            state: State::of(&paths, summary.as_ref()),
            overrides: match summary.is_some() && !paths.hydra().exists() {
                // A copy without it: the summary tells what matters.
                true => Vec::new(),
                false => saved_overrides(&paths.hydra())?,
            },
            started: started(&paths),
            paths,
            summary,
        })
    }
}

/// When a run began: by its summary, else by its first file.
pub fn started(paths: &RunPaths) -> Option<DateTime<FixedOffset>> {
    let told = Summary::read(&paths.summary()).ok();
    told.and_then(|summary| DateTime::parse_from_rfc3339(&summary.started).ok())
        .or_else(|| {
            let places = [
                paths.hydra().join("config.yaml"),
                paths.root().to_path_buf(),
            ];
            let time = places
                .iter()
                .find_map(|path| fs::metadata(path).ok()?.modified().ok())?;
            Some(DateTime::<Local>::from(time).fixed_offset())
        })
}

/// The metric that stands for a run: the first one of its task, with its values
/// of base and tuned model.
pub fn main_metric(metrics: &Metrics) -> Option<(&str, Option<f64>, Option<f64>)> {
    let (base, tuned) = (&metrics.base, &metrics.tuned);
    let name = tuned.keys().chain(base.keys()).next()?;
    Some((name, base.get(name).copied(), tuned.get(name).copied()))
}
