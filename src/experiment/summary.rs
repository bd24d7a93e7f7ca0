//! summary.json: what a run was and what came out, for people and programs.

use std::path::Path;

use chrono::{Local, SecondsFormat};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::fsx::{self, FsError};

/// The burn release this build is pinned to (Cargo.toml).
const BURN_VERSION: &str = "0.22.1";

/// A summary that cannot be read or written.
#[derive(Debug, Error)]
pub enum SummaryError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(
        "{}:{}: not a run's summary: {cause}; restore the file or move the run away",
        .path.display(), .cause.line()
    )]
    Format {
        path: std::path::PathBuf,
        cause: serde_json::Error,
    },
}

/// How far a run has come. A killed run stays `running`: its lock is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Running,
    Finished,
    Failed,
}

/// Task metrics by name (`accuracy`, `exact_match`, `f1`, ...), fractions 0-1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    pub base: IndexMap<String, f64>,
    pub tuned: IndexMap<String, f64>,
}

/// The answers to the questions of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// None: the base alone.
    pub adapter: Option<String>,
    pub questions: usize,
    /// Answers that have the form of the task.
    pub valid: usize,
    /// Of the questions, 0-1.
    pub valid_rate: f64,
    /// Of the first attempts, 0-1: what it would be without retries.
    pub valid_rate_first: f64,
    /// Questions that were asked again.
    pub retried: usize,
    /// How often they were asked again, all together.
    pub retries: usize,
}

/// What a judge said of a model's answers beside the references.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    pub judge: String,
    /// Questions that count: with a verdict in both orders.
    pub questions: usize,
    pub wins: usize,
    pub losses: usize,
    pub ties: usize,
    /// Verdicts that differ by the order.
    pub contradictions: usize,
    /// Of `win_rate`, 0-1.
    pub standard_error: Option<f64>,
    /// Ids of the questions without a verdict.
    pub unparsed: Vec<String>,
}

/// The content of summary.json. What is not known is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub status: Status,
    /// The command line's command, e.g. `train`.
    pub command: String,
    pub task: String,
    pub device: String,
    /// Local time with offset, RFC 3339, to the microsecond.
    pub started: String,
    #[serde(default)]
    pub metrics: Metrics,
    /// Mean loss over the supervised tokens of the last logged window.
    pub train_loss: Option<f64>,
    pub val_loss: Option<f64>,
    pub trainable_parameters: Option<u64>,
    /// Of all parameters, 0-100.
    pub trainable_percent: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    /// What `plan` had forecast; null where nothing was planned.
    pub planned_memory_bytes: Option<u64>,
    pub tokens_per_s: Option<f64>,
    /// From the start of the process to the end; of a resumed run, the steps of earlier
    /// sessions besides.
    pub duration_s: Option<f64>,
    /// Rows of the data files that could not be used (`data.on_error=skip`).
    #[serde(default)]
    pub skipped_rows: u64,
    /// What `run infer` answered, by task.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub answers: IndexMap<String, Answered>,
    /// How `win_rate` came about, for `base` and `tuned`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub judged: IndexMap<String, Judged>,
    #[serde(default)]
    pub versions: IndexMap<String, String>,
    /// Why a failed run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Summary {
    /// The summary of a run that begins now.
    pub fn started(command: &str, task: &str, device: &str) -> Self {
        Self {
            status: Status::Running,
            command: command.to_string(),
            task: task.to_string(),
            device: device.to_string(),
            started: Local::now().to_rfc3339_opts(SecondsFormat::Micros, false),
            metrics: Metrics::default(),
            train_loss: None,
            val_loss: None,
            trainable_parameters: None,
            trainable_percent: None,
            peak_memory_bytes: None,
            planned_memory_bytes: None,
            tokens_per_s: None,
            duration_s: None,
            skipped_rows: 0,
            answers: IndexMap::new(),
            judged: IndexMap::new(),
            versions: versions(),
            error: None,
        }
    }

    /// Writes the file atomically.
    pub fn write(&self, path: &Path) -> Result<(), SummaryError> {
        let mut text =
            serde_json::to_string_pretty(self).map_err(|cause| SummaryError::Format {
                path: path.to_path_buf(),
                cause,
            })?;
        text.push('\n');
        Ok(fsx::write(path, text.as_bytes())?)
    }

    pub fn read(path: &Path) -> Result<Self, SummaryError> {
        let text = fsx::read_to_string(path)?;
        serde_json::from_str(&text).map_err(|cause| SummaryError::Format {
            path: path.to_path_buf(),
            cause,
        })
    }
}

/// What this program is made of, by name.
pub fn versions() -> IndexMap<String, String> {
    [("kiln", env!("CARGO_PKG_VERSION")), ("burn", BURN_VERSION)]
        .into_iter()
        .map(|(name, version)| (name.to_string(), version.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burn_version_is_the_pinned_one() {
        let pin = format!("burn = {{ version = \"={BURN_VERSION}\"");
        assert!(include_str!("../../Cargo.toml").contains(&pin), "{pin}");
    }

    #[test]
    fn the_contract_names_are_there_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        Summary::started("train", "mcq", "cpu")
            .write(&path)
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for key in [
            "task",
            "device",
            "metrics",
            "train_loss",
            "val_loss",
            "trainable_parameters",
            "trainable_percent",
            "peak_memory_bytes",
            "planned_memory_bytes",
            "tokens_per_s",
            "duration_s",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(value["status"], "running");
        assert!(value["planned_memory_bytes"].is_null());
        assert!(value.get("error").is_none());
        assert_eq!(value["versions"]["kiln"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn figures_survive_writing_and_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        let mut summary = Summary::started("train", "saq", "cuda:0");
        summary.status = Status::Failed;
        summary.error = Some("it \"broke\"".to_string());
        summary.metrics.base.insert("accuracy".to_string(), 0.25);
        summary
            .metrics
            .tuned
            .insert("accuracy".to_string(), 0.1 + 0.2);
        summary.train_loss = Some(1.0 / 3.0);
        summary.trainable_parameters = Some(u64::from(u32::MAX) + 7);
        summary.write(&path).unwrap();
        assert_eq!(Summary::read(&path).unwrap(), summary);
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["metrics"]["base"]["accuracy"], 0.25);
        assert_eq!(value["status"], "failed");
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        std::fs::write(&path, "{\n  \"status\": \"resting\"\n}").unwrap();
        let text = Summary::read(&path).unwrap_err().to_string();
        assert!(
            text.contains("summary.json:2: not a run's summary"),
            "{text}"
        );
        let text = Summary::read(&dir.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("cannot read: no such file"), "{text}");
    }
}
