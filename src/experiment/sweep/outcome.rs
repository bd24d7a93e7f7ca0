//! What is known of a cell that has run.

use std::path::PathBuf;

use crate::experiment::summary::{Status, Summary};

/// What became of a cell.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub num: usize,
    pub directory: PathBuf,
    /// All its overrides.
    pub overrides: String,
    /// The values of the swept keys.
    pub values: Vec<String>,
    pub status: Status,
    pub error: Option<String>,
    pub task: String,
    /// The metric that the task is judged by.
    pub main_metric: Option<String>,
    pub duration_s: f64,
    /// `None` where the run failed before it wrote one.
    pub summary: Option<Summary>,
}

impl Outcome {
    /// The main metric of the base and of the tuned model.
    pub fn main_figures(&self) -> (Option<f64>, Option<f64>) {
        match (&self.summary, &self.main_metric) {
            (Some(summary), Some(name)) => {
                let metrics = &summary.metrics;
                let of = |figures: &indexmap::IndexMap<String, f64>| figures.get(name).copied();
                (of(&metrics.base), of(&metrics.tuned))
            }
            _ => (None, None),
        }
    }

    /// Seconds that the run took, which may have been before the sweep was gone on with.
    pub fn took(&self) -> f64 {
        let summary = self.summary.as_ref().and_then(|s| s.duration_s);
        summary.unwrap_or(self.duration_s)
    }

    pub fn val_loss(&self) -> Option<f64> {
        self.summary.as_ref().and_then(|summary| summary.val_loss)
    }
}
