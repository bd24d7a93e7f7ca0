//! A bar chart: groups of bars side by side, each bar with its value.

use super::svg::{
    Anchor, Axis, BOTTOM, COLOURS, Drawing, HEIGHT, LEFT, RIGHT, WIDTH, figure, y_of,
};

/// Bars that stand together.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub label: String,
    /// One a series; none leaves its place empty.
    pub values: Vec<Option<f64>>,
}

/// The chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    /// What the bars of a group are, in order.
    pub series: Vec<String>,
    pub groups: Vec<Group>,
    /// Fractions 0-1 are shown in percent on an axis from 0 to 100.
    pub percent: bool,
}

impl Bars {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let values = || {
            self.groups
                .iter()
                .flat_map(|g| &g.values)
                .filter_map(|v| *v)
        };
        let axis = match self.percent {
            true => Axis::fraction(),
            // A bar has its foot at 0.
            false => Axis::linear(values().chain([0.0])),
        };
        let shown = |v: f64| match self.percent {
            true => format!("{:.0} %", 100.0 * v),
            false => figure(v),
        };
        let mut drawing = Drawing::new(&self.title);
        if self.series.len() > 1 {
            drawing.legend(&self.series);
        }
        drawing.y_axis(&axis, &self.y_label, shown);
        let room = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let bars = self.series.len().max(1) as f64;
        let width = (room * 0.7 / bars).min(90.0);
        for (i, group) in self.groups.iter().enumerate() {
            let middle = LEFT + room * (i as f64 + 0.5);
            drawing.x_tick(middle, &group.label);
            for (j, value) in group.values.iter().enumerate() {
                let x = middle + width * (j as f64 - bars / 2.0);
                let colour = COLOURS[j % COLOURS.len()];
                let Some(value) = value.filter(|v| v.is_finite()) else {
                    continue;
                };
                let (top, foot) = (y_of(&axis, value.max(0.0)), y_of(&axis, value.min(0.0)));
                drawing.rect(x + 2.0, top, width - 4.0, foot - top, colour);
                let text = match self.percent {
                    true => format!("{:.1} %", 100.0 * value),
                    false => figure(value),
                };
                let size = if width < 40.0 { "font-size=\"9\"" } else { "" };
                drawing.text(x + width / 2.0, top - 5.0, Anchor::Middle, &text, size);
            }
        }
        if self.groups.is_empty() {
            let (x, y) = ((LEFT + WIDTH - RIGHT) / 2.0, (HEIGHT - BOTTOM) / 1.5);
            drawing.text(x, y, Anchor::Middle, "no figures", "");
        }
        drawing.x_axis(&self.x_label);
        drawing.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_value() {
        let chart = Bars {
            title: "a < b".to_string(),
            x_label: "metric".to_string(),
            y_label: "score".to_string(),
            series: vec!["base".to_string(), "tuned".to_string()],
            groups: vec![
                Group {
                    label: "accuracy".to_string(),
                    values: vec![Some(0.25), Some(1.0)],
                },
                Group {
                    label: "f1".to_string(),
                    values: vec![None, Some(0.5)],
                },
            ],
            percent: true,
        };
        let svg = chart.svg();
        for part in [
            "a &lt; b", "25.0 %", "100.0 %", "50.0 %", ">metric<", ">score<", ">tuned<",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        // The whole, the legend and three bars.
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 3);
        // Twice the value, twice the height.
        let heights: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect x") && !line.contains("height=\"10.0\""))
            .map(|line| {
                let from = line.split("height=\"").nth(1).unwrap();
                from.split('"').next().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(heights, [60.0, 240.0, 120.0]);
    }
}
