//! The closing table of a sweep.

use super::best::best;
use super::csv::status;
use super::outcome::Outcome;

/// Longer values are cut: the table is for a glance, sweep.csv has them whole.
const WIDEST: usize = 32;

/// A line a cell: number, swept values, status, the task's main metric before and
/// after tuning, validation loss, duration. The best is marked with `*`.
pub(super) fn render(keys: &[String], outcomes: &[Outcome]) -> String {
    let best = best(outcomes);
    let metric = common_metric(outcomes);
    let mut header = vec![String::new(), "cell".to_string()];
    header.extend(keys.iter().map(|key| cut(key)));
    header.push("status".to_string());
    let name = metric.map_or("metric".to_string(), |name| name.replace('_', " "));
    header.extend([format!("{name}, base"), "tuned".to_string()]);
    header.extend(["val loss", "time"].map(String::from));
    // The figures are the last four columns, and they align on the right.
    let left = header.len() - 4;
    let mut lines = vec![header];
    for (index, outcome) in outcomes.iter().enumerate() {
        let mark = if best.contains(&index) { "*" } else { "" };
        let mut line = vec![mark.to_string(), format!("#{}", outcome.num)];
        line.extend(outcome.values.iter().map(|value| cut(value)));
        line.push(status(outcome.status).to_string());
        let (base, tuned) = outcome.main_figures();
        line.extend([percent(base), percent(tuned)]);
        line.push(outcome.val_loss().map_or("-".into(), |v| format!("{v:.4}")));
        line.push(duration(outcome.took()));
        lines.push(line);
    }
    let mut text = aligned(&lines, left);
    for &index in &best {
        let outcome = &outcomes[index];
        text.push_str(&format!(
            "\n* best{}: cell #{}, {}",
            task_of(outcome, outcomes),
            outcome.num,
            outcome.directory.display()
        ));
    }
    text
}

/// The main metric, where all cells have the same.
fn common_metric(outcomes: &[Outcome]) -> Option<&str> {
    let mut names = outcomes.iter().map(|o| o.main_metric.as_deref());
    let first = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
}

/// ` of TASK`, where there are several tasks.
fn task_of(outcome: &Outcome, outcomes: &[Outcome]) -> String {
    match outcomes.iter().all(|other| other.task == outcome.task) {
        true => String::new(),
        false => format!(" of {}", outcome.task),
    }
}

fn aligned(lines: &[Vec<String>], left: usize) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let rows = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, &width))| match column < left {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_string()
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |v| format!("{:.1} %", 100.0 * v))
}

/// `8.2 s`, from a minute on `m:ss`, from an hour on `h:mm:ss`.
fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (h, m, s) = (whole / 3600, whole / 60 % 60, whole % 60);
    match h {
        0 => format!("{m}:{s:02}"),
        _ => format!("{h}:{m:02}:{s:02}"),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_string();
    }
    text.chars().take(WIDEST - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown = [0.04, 59.94, 59.96, 61.0, 3599.6, 7322.0].map(duration);
        assert_eq!(
            shown,
            ["0.0 s", "59.9 s", "1:00", "1:01", "1:00:00", "2:02:02"]
        );
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(40)).chars().count(), WIDEST);
    }
}
