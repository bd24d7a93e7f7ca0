//! sweep.csv: one row a cell that has ended.

use std::path::Path;

use indexmap::{IndexMap, IndexSet};

use super::best::best;
use super::outcome::Outcome;
use crate::experiment::fsx::{self, FsError};
use crate::experiment::summary::{Status, Summary};

/// Writes the whole table, atomically: cells may bring metrics that those before
/// them did not have.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write(path: &Path, keys: &[String], outcomes: &[Outcome]) -> Result<(), FsError> {
    let text = render(keys, outcomes).map_err(|e| FsError::new("write", path, e))?;
    fsx::write(path, &text)
}

fn render(keys: &[String], outcomes: &[Outcome]) -> Result<Vec<u8>, std::io::Error> {
    let base = names(outcomes, |summary| &summary.metrics.base);
    let tuned = names(outcomes, |summary| &summary.metrics.tuned);
    let mut header: Vec<String> = ["cell", "directory"].map(String::from).to_vec();
    header.extend(keys.iter().cloned());
    header.extend(["overrides", "status", "error", "best"].map(String::from));
    header.extend(base.iter().map(|name| format!("metrics.base.{name}")));
    header.extend(tuned.iter().map(|name| format!("metrics.tuned.{name}")));
    header.extend(
        [
            "train_loss",
            "val_loss",
            "trainable_parameters",
            "peak_memory_bytes",
            "tokens_per_s",
            "duration_s",
        ]
        .map(String::from),
    );
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(&header)?;
    let best = best(outcomes);
    for (index, outcome) in outcomes.iter().enumerate() {
        let summary = outcome.summary.as_ref();
        let mut row = vec![
            outcome.num.to_string(),
            outcome.directory.display().to_string(),
        ];
        row.extend(outcome.values.iter().cloned());
        row.push(outcome.overrides.clone());
        row.push(status(outcome.status).to_string());
        row.push(one_line(outcome.error.as_deref().unwrap_or_default()));
        row.push(best.contains(&index).to_string());
        let figure = |figures: Option<&IndexMap<String, f64>>, name: &str| {
            float(figures.and_then(|figures| figures.get(name).copied()))
        };
        row.extend((base.iter()).map(|name| figure(summary.map(|s| &s.metrics.base), name)));
        row.extend((tuned.iter()).map(|name| figure(summary.map(|s| &s.metrics.tuned), name)));
        row.push(float(summary.and_then(|s| s.train_loss)));
        row.push(float(summary.and_then(|s| s.val_loss)));
        row.push(count(summary.and_then(|s| s.trainable_parameters)));
        row.push(count(summary.and_then(|s| s.peak_memory_bytes)));
        row.push(float(summary.and_then(|s| s.tokens_per_s)));
        row.push(float(Some(outcome.took())));
        out.write_record(&row)?;
    }
    out.into_inner().map_err(|e| e.into_error())
}

/// The names of metrics in the order in which cells brought them.
fn names(
    outcomes: &[Outcome],
    of: impl Fn(&Summary) -> &IndexMap<String, f64>,
) -> IndexSet<String> {
    let summaries = outcomes.iter().filter_map(|o| o.summary.as_ref());
    summaries.flat_map(|s| of(s).keys().cloned()).collect()
}

/// As summary.json spells it.
pub(super) fn status(status: Status) -> &'static str {
    match status {
        Status::Running => "running",
        Status::Finished => "finished",
        Status::Failed => "failed",
    }
}

/// In full precision, as in metrics.csv.
fn float(value: Option<f64>) -> String {
    value.map_or(String::new(), |v| format!("{v:?}"))
}

fn count(value: Option<u64>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
