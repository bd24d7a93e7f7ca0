//! The closing table: each metric before and after tuning.

/// Most characters that a cell is filled up to: what a formatted width can be.
pub(super) const WIDEST: usize = u16::MAX as usize;

/// One metric of the base and the tuned model. None prints as `-`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// e.g. `MCQ accuracy`; see [`metric_label`].
    pub label: String,
    pub unit: Unit,
    pub base: Option<f64>,
    pub tuned: Option<f64>,
}

/// How a metric is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A fraction 0-1, printed in percent, its change in points.
    Fraction,
    /// A plain number such as a loss.
    Plain,
}

/// `mcq`, `exact_match` -> `MCQ exact match`, as tables name it.
pub fn metric_label(task: &str, metric: &str) -> String {
    let task = match task {
        "mcq" | "saq" => task.to_uppercase(),
        "squad" => "SQuAD".to_string(),
        "sst2" => "SST-2".to_string(),
        other => other.to_string(),
    };
    let metric = match metric {
        "f1" | "sas" => metric.to_uppercase(),
        "sas_x_em" => "SAS x EM".to_string(),
        "exact_match_ignore_case" => "exact match, ignoring case".to_string(),
        other => other.replace('_', " "),
    };
    format!("{task} {metric}")
}

/// The table as lines of ASCII: metric, base, tuned, change, aligned, headed
/// by `title` (e.g. `held-out test set, 200 questions`).
pub fn render(title: &str, rows: &[Comparison]) -> String {
    let mut cells = vec![[title, "base", "tuned", "change"].map(String::from)];
    cells.extend(rows.iter().map(|row| {
        let shown = |value: Option<f64>| value.map_or("-".to_string(), |v| row.unit.value(v));
        let change = match (row.base, row.tuned) {
            (Some(base), Some(tuned)) => row.unit.change(base, tuned),
            _ => "-".to_string(),
        };
        [row.label.clone(), shown(row.base), shown(row.tuned), change]
    }));
    let width = |column: usize| {
        let widths = cells.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0).min(WIDEST)
    };
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 4]| {
        format!(
            "{:<w0$}   {:>w1$}   {:>w2$}   {:>w3$}",
            row[0],
            row[1],
            row[2],
            row[3],
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3],
        )
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Unit {
    fn value(self, v: f64) -> String {
        match self {
            Unit::Fraction => format!("{:.1} %", 100.0 * v),
            Unit::Plain => format!("{v:.4}"),
        }
    }

    /// The difference of the figures as printed, so that the line adds up.
    fn change(self, base: f64, tuned: f64) -> String {
        let rounded = |v: f64, unit: f64| (v * unit).round() / unit;
        // Adding 0.0 turns -0.0 into 0.0.
        match self {
            Unit::Fraction => {
                let points = 100.0 * (rounded(tuned, 1e3) - rounded(base, 1e3));
                format!("{:+.1} points", rounded(points, 10.0) + 0.0)
            }
            Unit::Plain => {
                let difference = rounded(tuned, 1e4) - rounded(base, 1e4);
                format!("{:+.4}", rounded(difference, 1e4) + 0.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, unit: Unit, base: Option<f64>, tuned: Option<f64>) -> Comparison {
        Comparison {
            label: label.to_string(),
            unit,
            base,
            tuned,
        }
    }

    #[test]
    fn columns_align() {
        let rows = [
            row("MCQ accuracy", Unit::Fraction, Some(0.2531), Some(0.9684)),
            row("loss", Unit::Plain, Some(2.5), Some(0.31249)),
            row("SAQ F1", Unit::Fraction, Some(1.0), None),
        ];
        assert_eq!(
            render("held-out test set", &rows),
            "held-out test set      base    tuned         change\n\
             MCQ accuracy         25.3 %   96.8 %   +71.5 points\n\
             loss                 2.5000   0.3125        -2.1875\n\
             SAQ F1              100.0 %        -              -"
        );
    }

    #[test]
    fn changes_add_up_and_have_no_negative_zero() {
        assert_eq!(Unit::Fraction.change(0.2504, 0.2496), "+0.0 points");
        assert_eq!(Unit::Fraction.change(0.9, 0.5), "-40.0 points");
        assert_eq!(Unit::Fraction.change(0.0, 1.0), "+100.0 points");
        assert_eq!(Unit::Plain.change(1.0, 1.0), "+0.0000");
    }

    #[test]
    fn labels_use_the_fields_names() {
        assert_eq!(metric_label("mcq", "accuracy"), "MCQ accuracy");
        assert_eq!(metric_label("squad", "f1"), "SQuAD F1");
        assert_eq!(metric_label("mine", "exact_match"), "mine exact match");
    }
}
