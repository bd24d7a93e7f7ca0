//! One run, whole.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::RegistryError;
use super::list::when;
use super::record::Record;
use super::text::{NONE, duration, loss, percent, table};
use crate::compose::saved_origin;
use crate::experiment::checkpoints;
use crate::experiment::fsx::human_bytes;
use crate::experiment::metrics::{self, COLUMNS, MetricRow};

/// So many of the last rows of metrics.csv are shown.
const ROWS: usize = 5;

/// What there is to know of one run.
#[derive(Clone, Debug)]
pub struct RunView {
    pub record: Record,
    /// The run whose config it took, if it is a rerun.
    pub rerun_of: Option<PathBuf>,
    /// `adapter/`, or `model/` after full fine-tuning.
    pub adapter: Option<PathBuf>,
    /// The newest checkpoint with all its files.
    pub checkpoint: Option<PathBuf>,
    /// The last rows of metrics.csv.
    pub metrics: Vec<MetricRow>,
}

impl RunView {
    /// Reads a run directory.
    ///
    /// # Errors
    /// A file that is damaged; it is named. What is missing is left out.
    pub fn read(dir: &Path) -> Result<RunView, RegistryError> {
        let record = Record::read(dir)?;
        let paths = &record.paths;
        let metrics = match paths.metrics().exists() {
            true => metrics::read(&paths.metrics())?,
            false => Vec::new(),
        };
        let adapter = [paths.adapter(), paths.model()];
        let checkpoint = match paths.checkpoints().exists() {
            true => checkpoints::list(&paths.checkpoints())?.pop(),
            false => None,
        };
        let origin = match paths.hydra().exists() {
            true => saved_origin(&paths.hydra())?,
            false => None,
        };
        let rerun_of = origin.and_then(|hydra| hydra.parent().map(below_here));
        Ok(RunView {
            rerun_of,
            adapter: adapter.into_iter().find(|path| path.is_dir()),
            checkpoint: checkpoint.map(|checkpoint| checkpoint.path),
            metrics: metrics[metrics.len().saturating_sub(ROWS)..].to_vec(),
            record,
        })
    }

    /// For programs: the whole summary, and what stands beside it.
    pub fn json(&self) -> Value {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        json!({
            "directory": self.record.paths.root().display().to_string(),
            "status": self.record.state,
            "overrides": self.record.overrides,
            "rerun_of": path(&self.rerun_of),
            "adapter": path(&self.adapter),
            "checkpoint": path(&self.checkpoint),
            "summary": self.record.summary,
            "metrics": self.metrics,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let record = &self.record;
        let mut lines: Vec<(&str, String)> = vec![
            ("run", record.paths.root().display().to_string()),
            ("status", record.state.name().to_string()),
            ("started", record.started.map_or(NONE.to_string(), when)),
            ("overrides", record.overrides.join(" ")),
        ];
        if let Some(run) = &self.rerun_of {
            lines.push(("rerun of", run.display().to_string()));
        }
        if let Some(summary) = &record.summary {
            lines.insert(
                1,
                ("command", format!("{} {}", summary.command, summary.task)),
            );
            lines.push(("time", duration(summary.duration_s)));
            lines.push(("device", summary.device.clone()));
            if let Some(count) = summary.trainable_parameters {
                let share = summary.trainable_percent.unwrap_or_default();
                lines.push(("trainable", format!("{count} parameters ({share:.2} %)")));
            }
            lines.push(("train_loss", loss(summary.train_loss)));
            lines.push(("val_loss", loss(summary.val_loss)));
            let (base, tuned) = (&summary.metrics.base, &summary.metrics.tuned);
            let more = base.keys().filter(|name| !tuned.contains_key(*name));
            for name in tuned.keys().chain(more) {
                let of = |side: &indexmap::IndexMap<String, f64>| percent(side.get(name).copied());
                lines.push((name, format!("{} -> {}", of(base), of(tuned))));
            }
            if let Some(speed) = summary.tokens_per_s {
                lines.push(("speed", format!("{speed:.0} tokens/s")));
            }
            if let Some(bytes) = summary.peak_memory_bytes {
                lines.push(("peak memory", human_bytes(bytes)));
            }
            if let Some(error) = &summary.error {
                let mut parts = error.lines().map(str::to_string);
                lines.push(("error", parts.next().unwrap_or_default()));
                lines.extend(parts.map(|part| ("", part)));
            }
        }
        if let Some(path) = &self.adapter {
            lines.push(("adapter", path.display().to_string()));
        } else if let Some(path) = &self.checkpoint {
            lines.push(("checkpoint", path.display().to_string()));
        }
        let cells = |(name, value): (&str, String)| vec![name.to_string(), value];
        let mut text = table(&lines.into_iter().map(cells).collect::<Vec<_>>());
        if !self.metrics.is_empty() {
            text.push_str("\nlast rows of metrics.csv\n");
            text.push_str(&self.metrics_table());
        }
        text
    }

    fn metrics_table(&self) -> String {
        // What tells how training went; the file has the rest.
        const SHOWN: usize = 6;
        let mut rows = vec![COLUMNS[..SHOWN].iter().map(ToString::to_string).collect()];
        rows.extend(self.metrics.iter().map(|row| {
            let number = |x: Option<f64>, text: fn(f64) -> String| x.map_or(NONE.to_string(), text);
            vec![
                row.step.to_string(),
                format!("{:.2}", row.epoch),
                row.split.name().to_string(),
                loss(Some(row.loss)),
                number(row.learning_rate, |x| format!("{x:.2e}")),
                number(row.grad_norm, |x| format!("{x:.3}")),
            ]
        }));
        table(&rows)
    }
}

/// A path below the working directory, shown from there.
fn below_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_path_buf()));
    below.unwrap_or_else(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::experiment::registry::{RunList, State};
    use crate::experiment::summary::{Status, Summary};

    #[test]
    fn a_summary_alone_is_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("copy");
        fs::create_dir(&run).unwrap();
        let mut summary = Summary::started("train", "m\ncq", "cpu");
        summary.status = Status::Finished;
        summary.error = Some("first\nsecond".to_string());
        summary.write(&run.join("summary.json")).unwrap();
        let list = RunList::read(dir.path()).unwrap();
        assert_eq!(list.runs[0].status, State::Finished);
        assert!(list.runs[0].overrides.is_empty());
        assert!(list.text().contains("train m cq"), "{}", list.text());
        let text = RunView::read(&run).unwrap().text();
        let has = |line: &str| text.lines().any(|one| one == line);
        assert!(has("command     train m cq"), "{text}");
        assert!(
            has("error       first") && has("            second"),
            "{text}"
        );
    }
}
