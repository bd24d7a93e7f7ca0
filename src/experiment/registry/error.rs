//! Why a run cannot be found or gone on with.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::config_diff::ConfigError;
use crate::compose;
use crate::experiment::checkpoints::CheckpointError;
use crate::experiment::fsx::FsError;
use crate::experiment::metrics::MetricsError;
use crate::experiment::run_dir::RunDirError;
use crate::experiment::summary::SummaryError;

/// A run that cannot be found or gone on with.
#[derive(Debug, Error)]
pub enum RegistryError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Summary(#[from] SummaryError),
    #[error(
        "training.resume={}: no such run directory; name one that exists, or use \
         training.resume=auto", .0.display()
    )]
    NoSuchRun(PathBuf),
    #[error(
        "training.resume={}: holds no run; name a directory made by `run train`, or use \
         training.resume=auto", .0.display()
    )]
    NotARun(PathBuf),
    #[error(
        "{}: not a training run (it was made by `run {command}`); name a directory made by \
         `run train`", .path.display()
    )]
    NotTraining { path: PathBuf, command: String },
    #[error(
        "training.resume={} and hydra.run.dir={} name two directories; a resumed run goes on \
         in its own, so leave hydra.run.dir out", .resume.display(), .run_dir.display()
    )]
    TwoDirectories { resume: PathBuf, run_dir: PathBuf },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Compose(#[from] compose::Error),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("{}: no such directory; name the one that holds the runs with --dir DIR", .0.display())]
    NoOutputs(PathBuf),
    #[error("{name}: no such run{}", candidates(.near, .below))]
    Unknown {
        name: String,
        /// The runs whose names are close to it, or else the newest.
        near: Vec<PathBuf>,
        below: PathBuf,
    },
    #[error(
        "{name}: names {} runs; say which:{}", .runs.len(), lines(.runs)
    )]
    Ambiguous { name: String, runs: Vec<PathBuf> },
}

fn candidates(runs: &[PathBuf], below: &Path) -> String {
    match runs {
        [] => format!("; there are no runs below {}", below.display()),
        runs => format!("; runs below {}:{}", below.display(), lines(runs)),
    }
}

/// At most this many runs are named in a message.
const NAMED: usize = 10;

fn lines(runs: &[PathBuf]) -> String {
    let mut text = String::new();
    for run in runs.iter().take(NAMED) {
        text.push_str(&format!("\n  {}", run.display()));
    }
    if runs.len() > NAMED {
        text.push_str(&format!("\n  and {} more", runs.len() - NAMED));
    }
    text
}
