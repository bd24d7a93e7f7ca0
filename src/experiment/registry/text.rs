//! Figures and tables for the terminal.

use crate::experiment::table::WIDEST;

/// What stands where there is no value.
pub const NONE: &str = "-";

/// Columns aligned to the left with two spaces between; the last one runs on. Whatever
/// the cells hold, a row is one line and nothing in it steers the terminal.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).min(WIDEST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell without control characters.
fn plain(cell: &str) -> String {
    let shown = |c: char| match c {
        c if c.is_control() && c.is_whitespace() => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    cell.chars().map(shown).collect()
}

/// A fraction 0-1 in percent.
pub fn percent(fraction: Option<f64>) -> String {
    fraction.map_or(NONE.to_string(), |x| format!("{:.1} %", 100.0 * x))
}

/// A loss.
pub fn loss(loss: Option<f64>) -> String {
    loss.map_or(NONE.to_string(), |x| format!("{x:.4}"))
}

/// Seconds in the two largest units that matter: `41 s`, `3 min 5 s`, `2 h 10 min`.
pub fn duration(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.filter(|s| s.is_finite() && *s >= 0.0) else {
        return NONE.to_string();
    };
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let text = |s| duration(Some(s));
        assert_eq!(text(0.04), "0.0 s");
        assert_eq!(text(9.949), "9.9 s");
        assert_eq!(text(59.4), "59 s");
        assert_eq!(text(59.6), "1 min 0 s");
        assert_eq!(text(7_830.0), "2 h 10 min");
        assert_eq!(duration(None), "-");
        assert_eq!(text(f64::NAN), "-");
    }

    #[test]
    fn columns_align_and_lines_have_no_tail() {
        let rows = [
            vec!["a".to_string(), "ü".to_string()],
            vec!["bcd".to_string()],
        ];
        assert_eq!(table(&rows), "a    ü\nbcd\n");
        assert_eq!(table(&[]), "");
        let long = "x".repeat(70_000);
        let text = table(&[vec![long.clone(), "y".to_string()]]);
        assert_eq!(text, format!("{long}  y\n"));
    }

    #[test]
    fn cells_neither_break_their_line_nor_steer_the_terminal() {
        let rows = [vec!["\u{1b}[2Jm\rcq\u{9b}".to_string(), "a\nb".to_string()]];
        assert_eq!(table(&rows), "?[2Jm cq?  a b\n");
    }
}
