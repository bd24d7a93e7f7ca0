//! The page of a sweep: its table, and each swept key against the metrics.

use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};

use super::run::curves;
use super::{ReportError, SWEEP, Table};
use crate::experiment::metrics;
use crate::experiment::run_dir::RunPaths;
use crate::report::svg::{COLOURS, figure};
use crate::report::{Bars, Chart, Group, Page, Series};

/// # Errors
/// A file of the sweep that is damaged, or no cell that has ended.
pub(super) fn page(dir: &Path) -> Result<String, ReportError> {
    let path = dir.join(SWEEP);
    let none = || ReportError::NoCell(dir.to_path_buf());
    if !path.is_file() {
        return Err(none());
    }
    let table = Table::read(&path)?;
    if table.rows.is_empty() {
        return Err(none());
    }
    let lacks = |name: &str| ReportError::Table {
        path: path.clone(),
        line: 1,
        what: format!("has no column {name}"),
    };
    let from = table
        .column("directory")
        .ok_or_else(|| lacks("directory"))?;
    let to = table
        .column("overrides")
        .ok_or_else(|| lacks("overrides"))?;
    let sweep = Sweep {
        keys: (from + 1..to).collect(),
        table: &table,
    };
    let mut page = Page::new(&format!("Sweep {}", dir.display()));
    let finished = table.column("status").map_or(0, |status| {
        let done = |row: &&Vec<String>| row.get(status).is_some_and(|s| s == "finished");
        table.rows.iter().filter(done).count()
    });
    page.paragraph(&format!(
        "{} cells, {finished} finished; the best is marked.",
        table.rows.len()
    ));
    sweep.table(&mut page);
    let charts = sweep.charts();
    if !charts.is_empty() {
        page.heading("Swept keys");
        page.charts(&charts);
    }
    let charts = sweep.curves(dir)?;
    if !charts.is_empty() {
        page.heading("Curves of the cells");
        page.charts(&charts);
    }
    Ok(page.end())
}

struct Sweep<'a> {
    table: &'a Table,
    /// The columns of the swept keys.
    keys: Vec<usize>,
}

/// The figures against which keys are shown, the best known first.
fn is_metric(name: &str) -> bool {
    name.starts_with("metrics.tuned.") || name == "val_loss"
}

impl Sweep<'_> {
    /// sweep.csv without what the other columns say already.
    fn table(&self, page: &mut Page) {
        let table = self.table;
        let is_shown = |column: &usize| {
            let filled = table
                .rows
                .iter()
                .any(|row| row.get(*column).is_some_and(|c| !c.is_empty()));
            filled && table.header[*column] != "overrides" && table.header[*column] != "best"
        };
        let columns: Vec<usize> = (0..table.header.len()).filter(is_shown).collect();
        let cell = |row: &Vec<String>, column: usize| {
            let text = row.get(column).cloned().unwrap_or_default();
            match text.parse::<f64>() {
                // What a key was set to stays as it was typed.
                Ok(value) if !self.keys.contains(&column) && text.contains('.') => figure(value),
                _ => text,
            }
        };
        let rows: Vec<Vec<String>> = table
            .rows
            .iter()
            .map(|row| columns.iter().map(|&column| cell(row, column)).collect())
            .collect();
        let header: Vec<&str> = columns.iter().map(|&c| table.header[c].as_str()).collect();
        let best = table.column("best");
        let marked = |i: &usize| {
            best.and_then(|best| table.rows[*i].get(best))
                .is_some_and(|cell| cell == "true")
        };
        let best: Vec<usize> = (0..rows.len()).filter(marked).collect();
        page.table(&header, &rows, &best);
    }

    /// Each key against each metric.
    fn charts(&self) -> Vec<String> {
        let metrics = (0..self.table.header.len()).filter(|&c| is_metric(&self.table.header[c]));
        let metrics: Vec<usize> = metrics.collect();
        let pairs = self
            .keys
            .iter()
            .flat_map(|key| metrics.iter().map(move |m| (*key, *m)));
        pairs
            .filter_map(|(key, metric)| self.chart(key, metric))
            .collect()
    }

    /// The other keys' values tell the series apart; where those are too many, their
    /// mean is shown.
    fn chart(&self, key: usize, metric: usize) -> Option<String> {
        let table = self.table;
        let others: Vec<usize> = self.keys.iter().copied().filter(|k| *k != key).collect();
        let mut series: IndexMap<String, IndexMap<String, Vec<f64>>> = IndexMap::new();
        for (i, row) in table.rows.iter().enumerate() {
            let (Some(value), Some(y)) = (row.get(key), table.number(i, metric)) else {
                continue;
            };
            let values = series.entry(self.named(row, &others)).or_default();
            values.entry(value.clone()).or_default().push(y);
        }
        if series.len() > COLOURS.len() {
            let mut all: IndexMap<String, Vec<f64>> = IndexMap::new();
            for (value, ys) in series.values().flatten() {
                all.entry(value.clone()).or_default().extend(ys);
            }
            series = IndexMap::from([("mean over the other keys".to_string(), all)]);
        }
        let mean = |ys: &Vec<f64>| ys.iter().sum::<f64>() / ys.len() as f64;
        let (key, metric) = (&table.header[key], &table.header[metric]);
        let values: IndexSet<&String> = series.values().flat_map(IndexMap::keys).collect();
        if values.is_empty() {
            return None;
        }
        let title = format!("{metric} by {key}");
        let numbers = values
            .iter()
            .all(|v| v.parse::<f64>().is_ok_and(f64::is_finite));
        if numbers && values.len() > 1 {
            let series = series.into_iter().map(|(name, points)| {
                let point = |(x, ys): (&String, &Vec<f64>)| Some((x.parse().ok()?, mean(ys)));
                let mut points: Vec<(f64, f64)> = points.iter().filter_map(point).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series { name, points }
            });
            let chart = Chart {
                title,
                x_label: key.clone(),
                y_label: metric.clone(),
                series: series.collect(),
                ticks_at_values: true,
            };
            return Some(chart.svg());
        }
        let group = |value: &&String| Group {
            label: (*value).clone(),
            values: series
                .values()
                .map(|one| one.get(*value).map(mean))
                .collect(),
        };
        let bars = Bars {
            title,
            x_label: key.clone(),
            y_label: metric.clone(),
            groups: values.iter().map(group).collect(),
            series: series.keys().cloned().collect(),
            percent: metric.starts_with("metrics."),
        };
        Some(bars.svg())
    }

    /// `seed=1, lora.r=8`: the values of `keys` in a row.
    fn named(&self, row: &[String], keys: &[usize]) -> String {
        let pairs = keys.iter().map(|&key| {
            let value = row.get(key).map_or("", String::as_str);
            format!("{}={value}", self.table.header[key])
        });
        pairs.collect::<Vec<_>>().join(", ")
    }

    /// Validation and training loss of all cells, where there are colours enough.
    fn curves(&self, dir: &Path) -> Result<Vec<String>, ReportError> {
        let table = self.table;
        if table.rows.len() > COLOURS.len() {
            return Ok(Vec::new());
        }
        let directory = table.column("directory");
        let mut charts: IndexMap<&str, Vec<Series>> = IndexMap::new();
        for row in &table.rows {
            let Some(cell) = directory.and_then(|d| row.get(d)) else {
                continue;
            };
            let paths = RunPaths::new(cell_dir(dir, Path::new(cell)));
            if !paths.metrics().exists() {
                continue;
            }
            let loss = curves(&metrics::read(&paths.metrics())?);
            let loss = loss.into_iter().find(|chart| chart.title == "Loss");
            for one in loss.into_iter().flat_map(|chart| chart.series) {
                let title = match one.name.as_str() {
                    "validation" => "Validation loss",
                    _ => "Training loss",
                };
                let name = self.named(row, &self.keys);
                charts
                    .entry(title)
                    .or_default()
                    .push(Series { name, ..one });
            }
        }
        let drawn = charts.into_iter().map(|(title, series)| {
            let chart = Chart {
                title: title.to_string(),
                x_label: "optimiser step".to_string(),
                y_label: "nats a token".to_string(),
                series,
                ticks_at_values: false,
            };
            chart.svg()
        });
        Ok(drawn.collect())
    }
}

/// A cell's directory, also where the sweep was moved since: the longest end of the
/// recorded path that is there below the sweep. A shorter one may be another cell's.
fn cell_dir(sweep: &Path, cell: &Path) -> PathBuf {
    let names: Vec<_> = cell.components().collect();
    (0..names.len())
        .map(|from| names[from..].iter().collect::<PathBuf>())
        .filter(|end| end.is_relative())
        .map(|end| sweep.join(end))
        .find(|dir| dir.is_dir())
        .unwrap_or_else(|| cell.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_cells_of_a_moved_sweep_are_found_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let sweep = dir.path().join("moved");
        for cell in ["a/0", "a/1", "1/0", "2"] {
            fs::create_dir_all(sweep.join(cell)).unwrap();
        }
        let recorded = Path::new("outputs/multirun/2026-03-02/11-00-00");
        for cell in ["a/0", "a/1", "1/0", "2"] {
            for root in [recorded, &dir.path().join("before"), &sweep] {
                assert_eq!(cell_dir(&sweep, &root.join(cell)), sweep.join(cell));
            }
        }
        let gone = recorded.join("7");
        assert_eq!(cell_dir(&sweep, &gone), gone);
    }
}
