//! All runs, one row a run.

use std::path::Path;

use chrono::{DateTime, FixedOffset};
use serde::Serialize;

use super::error::RegistryError;
use super::find::run_dirs;
use super::record::{Record, State, main_metric, started};
use super::text::{NONE, duration, loss, percent, table};
use crate::experiment::run_dir::RunPaths;

/// A run in a list. What is not known is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRow {
    pub directory: String,
    /// RFC 3339.
    pub started: Option<String>,
    pub command: Option<String>,
    pub task: Option<String>,
    pub status: State,
    /// The first metric of the task, a fraction 0-1 in base and tuned model.
    pub metric: Option<String>,
    pub base: Option<f64>,
    pub tuned: Option<f64>,
    pub val_loss: Option<f64>,
    pub duration_s: Option<f64>,
    pub overrides: Vec<String>,
    /// Why a run failed, or why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip)]
    time: Option<DateTime<FixedOffset>>,
}

/// The runs below a directory, oldest first.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct RunList {
    pub runs: Vec<RunRow>,
    #[serde(skip)]
    below: String,
}

impl RunList {
    /// Reads all runs below `outputs`. One that cannot be read is a row too.
    ///
    /// # Errors
    /// `outputs` is there and is no directory.
    pub fn read(outputs: &Path) -> Result<RunList, RegistryError> {
        if outputs.exists() && !outputs.is_dir() {
            return Err(RegistryError::NoOutputs(outputs.to_path_buf()));
        }
        let mut runs: Vec<RunRow> = run_dirs(outputs).iter().map(|dir| row(dir)).collect();
        // Stable: runs of the same instant stay in the order of their names.
        runs.sort_by_key(|run| run.time);
        Ok(RunList {
            runs,
            below: outputs.display().to_string(),
        })
    }

    /// The list as a table.
    pub fn text(&self) -> String {
        if self.runs.is_empty() {
            return format!("no runs below {}\n", self.below);
        }
        let head = [
            "run",
            "started",
            "command",
            "status",
            "base -> tuned",
            "val_loss",
            "time",
            "overrides",
        ];
        let mut rows = vec![head.map(String::from).to_vec()];
        rows.extend(self.runs.iter().map(RunRow::cells));
        table(&rows)
    }
}

impl RunRow {
    fn cells(&self) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_string());
        let words = [self.command.as_deref(), self.task.as_deref()];
        let command: Vec<&str> = words.into_iter().flatten().collect();
        let metric = self
            .metric
            .as_ref()
            .map(|name| format!("{name} {} -> {}", percent(self.base), percent(self.tuned)));
        let remark = match (self.status, &self.error) {
            // One line a run, whatever the error says.
            (State::Unreadable, Some(error)) => {
                error.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            _ => self.overrides.join(" "),
        };
        vec![
            self.directory.clone(),
            or_none(self.time.map(when)),
            or_none((!command.is_empty()).then(|| command.join(" "))),
            self.status.name().to_string(),
            or_none(metric),
            loss(self.val_loss),
            duration(self.duration_s),
            remark,
        ]
    }
}

/// The run's own local time.
pub fn when(time: DateTime<FixedOffset>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn row(dir: &Path) -> RunRow {
    let time = started(&RunPaths::new(dir));
    let mut row = RunRow {
        directory: dir.display().to_string(),
        started: time.map(|time| time.to_rfc3339()),
        command: None,
        task: None,
        status: State::Unreadable,
        metric: None,
        base: None,
        tuned: None,
        val_loss: None,
        duration_s: None,
        overrides: Vec::new(),
        error: None,
        time,
    };
    let record = match Record::read(dir) {
        Ok(record) => record,
        Err(error) => {
            row.error = Some(error.to_string());
            return row;
        }
    };
    row.status = record.state;
    row.overrides = record.overrides;
    if let Some(summary) = record.summary {
        if let Some((name, base, tuned)) = main_metric(&summary.metrics) {
            (row.metric, row.base, row.tuned) = (Some(name.to_string()), base, tuned);
        }
        (row.command, row.task) = (Some(summary.command), Some(summary.task));
        (row.val_loss, row.duration_s) = (summary.val_loss, summary.duration_s);
        row.error = summary.error;
    }
    row
}
