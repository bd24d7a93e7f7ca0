//! The page of a run: figures, curves, and where its config leaves the defaults.

use std::path::Path;

use indexmap::IndexMap;
use serde_json::Value;

use super::{ReportError, Table};
use crate::config::keys::{self, Default};
use crate::experiment::compare;
use crate::experiment::fsx::human_bytes;
use crate::experiment::metrics::{self, MetricRow, Split};
use crate::experiment::registry::{Leaves, Record, shown_value};
use crate::experiment::run_dir::RunPaths;
use crate::experiment::summary::Summary;
use crate::experiment::table::metric_label;
use crate::report::svg::figure;
use crate::report::{Chart, Page, Series};

/// # Errors
/// A file of the run that is damaged.
pub(super) fn page(dir: &Path) -> Result<String, ReportError> {
    let record = Record::read(dir)?;
    let paths = RunPaths::new(dir);
    let mut page = Page::new(&format!("Run {}", dir.display()));
    page.heading("Summary");
    let mut rows = vec![row("status", record.state.name())];
    if let Some(summary) = &record.summary {
        rows.extend(figures(summary));
    }
    page.table(&["", ""], &rows, &[]);
    if let Some(summary) = &record.summary {
        scores(&mut page, summary);
    }
    if paths.metrics().exists() {
        let rows = metrics::read(&paths.metrics())?;
        page.heading("Curves");
        let charts: Vec<String> = curves(&rows).iter().map(Chart::svg).collect();
        page.charts(&charts);
    }
    if paths.eval_metrics().exists() {
        let table = Table::read(&paths.eval_metrics())?;
        page.heading("Held-out questions, answered while it trained");
        page.charts(&[answered(&table).svg()]);
    }
    page.heading("Config");
    match record.overrides.is_empty() {
        true => page.paragraph("No overrides were given."),
        false => page.code(&record.overrides.join(" ")),
    }
    if paths.resolved_config().exists() {
        let config = Leaves::read(&paths.resolved_config())?;
        let rows = differences(&config);
        match rows.is_empty() {
            true => page.paragraph("Every value is the default of the table of keys."),
            false => page.table(&["key", "default", "value"], &rows, &[]),
        }
    }
    Ok(page.end())
}

fn row(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.to_string(), value.into()]
}

/// What summary.json knows.
fn figures(summary: &Summary) -> Vec<Vec<String>> {
    let mut rows = vec![
        row("command", &summary.command),
        row("task", &summary.task),
        row("device", &summary.device),
        row("started", &summary.started),
    ];
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push(row(name, value));
        }
    };
    add("duration", summary.duration_s.map(|s| format!("{s:.1} s")));
    add("training loss", summary.train_loss.map(figure));
    add("validation loss", summary.val_loss.map(figure));
    let parameters = summary.trainable_parameters.map(|count| {
        let share = summary.trainable_percent;
        share.map_or(count.to_string(), |p| format!("{count} ({} %)", figure(p)))
    });
    add("trainable parameters", parameters);
    add("peak memory", summary.peak_memory_bytes.map(human_bytes));
    add(
        "planned memory",
        summary.planned_memory_bytes.map(human_bytes),
    );
    add("tokens/s", summary.tokens_per_s.map(|t| format!("{t:.0}")));
    for (name, version) in &summary.versions {
        add(name, Some(version.clone()));
    }
    add("error", summary.error.clone());
    rows
}

/// Base and tuned as a table and as bars.
fn scores(page: &mut Page, summary: &Summary) {
    let (base, tuned) = (&summary.metrics.base, &summary.metrics.tuned);
    if base.is_empty() && tuned.is_empty() {
        return;
    }
    page.heading("Scores");
    let names = tuned
        .keys()
        .chain(base.keys().filter(|n| !tuned.contains_key(*n)));
    let percent = |all: &IndexMap<String, f64>, name: &str| {
        let value = all.get(name);
        value.map_or("-".to_string(), |v| format!("{:.1} %", 100.0 * v))
    };
    let rows: Vec<Vec<String>> = names
        .map(|name| {
            let label = metric_label(&summary.task, name);
            vec![label, percent(base, name), percent(tuned, name)]
        })
        .collect();
    page.table(&["metric", "base", "tuned"], &rows, &[]);
    let title = format!("{}: base and tuned", summary.task);
    page.charts(&[compare::chart(&summary.task, &title, &summary.metrics)]);
}

/// The charts that metrics.csv has figures for.
pub(super) fn curves(rows: &[MetricRow]) -> Vec<Chart> {
    let of = |split: Option<Split>, value: &dyn Fn(&MetricRow) -> Option<f64>| -> Vec<(f64, f64)> {
        rows.iter()
            .filter(|row| split.is_none_or(|split| row.split == split))
            .filter_map(|row| Some((row.step as f64, value(row)?)))
            .collect()
    };
    let loss = |split: Split| Series {
        name: match split {
            Split::Train => "training".to_string(),
            Split::Val => "validation".to_string(),
        },
        points: of(Some(split), &|row| Some(row.loss)),
    };
    let one = |title: &str, y: &str, split, value: &dyn Fn(&MetricRow) -> Option<f64>| {
        chart(
            title,
            y,
            vec![Series {
                name: title.to_string(),
                points: of(split, value),
            }],
        )
    };
    let charts = [
        chart(
            "Loss",
            "nats a token",
            vec![loss(Split::Train), loss(Split::Val)],
        ),
        one("Learning rate", "learning rate", None, &|row| {
            row.learning_rate
        }),
        one("Gradient norm", "L2 norm before clipping", None, &|row| {
            row.grad_norm
        }),
        // Validation has another speed.
        one("Speed", "tokens/s", Some(Split::Train), &|row| {
            row.tokens_per_s
        }),
        one("Peak memory", "MB", None, &|row| {
            Some(row.peak_memory_bytes? as f64 / 1e6)
        }),
    ];
    charts.into_iter().filter_map(with_figures).collect()
}

/// Without the series that have no points; `None` where none has.
fn with_figures(mut chart: Chart) -> Option<Chart> {
    chart.series.retain(|one| !one.points.is_empty());
    (!chart.series.is_empty()).then_some(chart)
}

fn chart(title: &str, y_label: &str, series: Vec<Series>) -> Chart {
    Chart {
        title: title.to_string(),
        x_label: "optimiser step".to_string(),
        y_label: y_label.to_string(),
        series,
        ticks_at_values: false,
    }
}

/// eval_metrics.csv as curves, one a metric.
fn answered(table: &Table) -> Chart {
    let column = |name: &str| table.column(name).unwrap_or(usize::MAX);
    let (step, metric, value) = (column("step"), column("metric"), column("value"));
    let mut series: IndexMap<String, Vec<(f64, f64)>> = IndexMap::new();
    for (i, row) in table.rows.iter().enumerate() {
        if let (Some(name), Some(x), Some(y)) = (
            row.get(metric),
            table.number(i, step),
            table.number(i, value),
        ) {
            series.entry(name.clone()).or_default().push((x, y));
        }
    }
    let series = series
        .into_iter()
        .map(|(name, points)| Series { name, points });
    chart(
        "Metrics on held-out questions",
        "fraction",
        series.collect(),
    )
}

/// Keys whose values are not the table's defaults: key, default, value.
fn differences(config: &Leaves) -> Vec<Vec<String>> {
    let differs = |(name, value): (&String, &Value)| {
        let Some(key) = keys::find(name) else {
            return Some(vec![name.clone(), "-".to_string(), shown_value(value)]);
        };
        let same = is_default(&key.default, value);
        (!same).then(|| vec![name.clone(), key.default.to_string(), shown_value(value)])
    };
    config.iter().filter_map(differs).collect()
}

fn is_default(default: &Default, value: &Value) -> bool {
    match default {
        Default::Null => value.is_null(),
        Default::Bool(b) => value.as_bool() == Some(*b),
        Default::Int(i) => value.as_f64() == Some(*i as f64),
        Default::Float(x) => value.as_f64() == Some(*x),
        Default::Str(s) => value.as_str() == Some(s),
        Default::List(items) => value.as_array().is_some_and(|list| {
            list.iter()
                .map(Value::as_str)
                .eq(items.iter().map(|item| Some(*item)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_changed_is_listed() {
        let config = Leaves::parse(
            "lora:\n  r: 8\n  alpha: 32.0\n  target_modules: [q_proj, k_proj, v_proj, o_proj]\n\
             training:\n  learning_rate: 0.0001\nadapter: null\nmine: x\n",
        )
        .unwrap();
        let rows = differences(&config);
        assert_eq!(rows, [vec!["lora.r", "16", "8"], vec!["mine", "-", "x"]]);
    }
}
