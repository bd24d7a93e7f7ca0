//! What all charts share: their frame, ticks, numbers and text.

use std::fmt::Write;

/// Size of a chart and of the margins around its plot, in pixels.
pub const WIDTH: f64 = 640.0;
pub const HEIGHT: f64 = 360.0;
pub const LEFT: f64 = 72.0;
pub const RIGHT: f64 = 20.0;
pub const TOP: f64 = 64.0;
pub const BOTTOM: f64 = 56.0;

/// Colours that stay apart for colour-blind readers too (Okabe and Ito, 2008).
pub const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000",
];

/// Text as it may stand in XML and HTML. Control characters, which XML cannot hold,
/// become blanks.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A figure for people: four digits that count, no trailing zeros.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_string();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    if !(1e-3..1e15).contains(&size) {
        return format!("{value:.3e}").replace(".000e", "e");
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// An axis: the range that is drawn and the places of its ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub min: f64,
    pub max: f64,
    pub ticks: Vec<f64>,
    log: bool,
}

impl Axis {
    /// Holds all `values`, with steps of 1, 2 or 5 times a power of ten.
    pub fn linear(values: impl Iterator<Item = f64>) -> Axis {
        let (mut min, mut max) = bounds(values);
        if min == max {
            let around = if min == 0.0 { 1.0 } else { min.abs() * 0.1 };
            (min, max) = (min - around, max + around);
        }
        let rough = (max - min) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|s| s * power)
            .find(|s| *s >= rough * 0.999)
            .unwrap_or(power);
        let (low, high) = ((min / step).floor(), (max / step).ceil());
        let ticks = (0..=(high - low).min(20.0) as i32).map(|i| (low + f64::from(i)) * step);
        Axis {
            min: low * step,
            max: high * step,
            ticks: ticks.collect(),
            log: false,
        }
    }

    /// From 0 to 1.
    pub fn fraction() -> Axis {
        Axis {
            min: 0.0,
            max: 1.0,
            ticks: (0..=5).map(|i| f64::from(i) / 5.0).collect(),
            log: false,
        }
    }

    /// Ticks at the values themselves; logarithmic where they are positive and spread
    /// over more than an order of magnitude.
    pub fn of_values(values: &[f64]) -> Axis {
        let (min, max) = bounds(values.iter().copied());
        let log = min > 0.0 && max / min > 10.0;
        let mut ticks = values.to_vec();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let mut axis = Axis {
            min,
            max,
            ticks,
            log,
        };
        if min == max {
            (axis.min, axis.max) = (min - 1.0, max + 1.0);
        }
        axis
    }

    /// Where a value lies: 0 at the beginning, 1 at the end.
    pub fn place(&self, value: f64) -> f64 {
        match self.log {
            true => (value / self.min).ln() / (self.max / self.min).ln(),
            false => (value - self.min) / (self.max - self.min),
        }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    let (min, max) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    match min <= max {
        true => (min, max),
        false => (0.0, 1.0),
    }
}

/// A chart that is being drawn.
pub struct Drawing {
    out: String,
}

/// How a text lies to its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Drawing {
    /// An empty chart with its title.
    pub fn new(title: &str) -> Drawing {
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\" \
             role=\"img\">\n<title>{}</title>\n",
            escaped(title)
        );
        out.push_str("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n");
        let mut drawing = Drawing { out };
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        drawing.text(middle, 22.0, Anchor::Middle, title, "font-size=\"15\"");
        drawing
    }

    fn add(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.out.write_fmt(arguments);
    }

    pub fn text(&mut self, x: f64, y: f64, anchor: Anchor, text: &str, more: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{text}</text>\n"
        ));
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\n",
            from.0, from.1, to.0, to.1
        ));
    }

    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\"/>\n"
        ));
    }

    pub fn dot(&mut self, x: f64, y: f64, colour: &str) {
        self.add(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>\n"
        ));
    }

    pub fn path(&mut self, points: &[(f64, f64)], colour: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n",
            points.join(" ")
        ));
    }

    /// Names of the series with their colours, below the title: in one row, or smaller
    /// in two, where long names lose their ends.
    pub fn legend(&mut self, names: &[String]) {
        const MARK: f64 = 30.0;
        let room = WIDTH - LEFT - RIGHT;
        let count = |name: &str| name.chars().count() as f64;
        let row: f64 = names.iter().map(|name| MARK + 7.0 * count(name)).sum();
        let (width, size, rows) = match row <= room {
            true => (7.0, "", 1),
            false => (5.8, "font-size=\"10\"", 2),
        };
        let columns = names.len().div_ceil(rows).max(1);
        for (i, name) in names.iter().enumerate() {
            let (x, most) = match rows {
                1 => {
                    let before = names[..i].iter().map(|name| MARK + width * count(name));
                    (before.sum::<f64>(), usize::MAX)
                }
                _ => {
                    let each = room / columns as f64;
                    let most = ((each - MARK) / width).max(3.0) as usize;
                    ((i % columns) as f64 * each, most)
                }
            };
            let (x, y): (f64, f64) = (LEFT + x, 34.0 + 14.0 * (i / columns) as f64);
            let shown = match name.chars().count() > most {
                true => name.chars().take(most - 2).collect::<String>() + "..",
                false => name.clone(),
            };
            self.rect(x, y, 10.0, 10.0, COLOURS[i % COLOURS.len()]);
            self.text(x + 15.0, y + 9.0, Anchor::Start, &shown, size);
        }
    }

    /// The vertical axis with its grid, and its name.
    pub fn y_axis(&mut self, axis: &Axis, label: &str, shown: impl Fn(f64) -> String) {
        for &tick in &axis.ticks {
            let y = y_of(axis, tick);
            self.line((LEFT, y), (WIDTH - RIGHT, y), "#dddddd");
            self.text(LEFT - 8.0, y + 4.0, Anchor::End, &shown(tick), "");
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let turned = format!("transform=\"rotate(-90 16 {middle:.1})\"");
        self.text(16.0, middle, Anchor::Middle, label, &turned);
        self.line((LEFT, TOP), (LEFT, HEIGHT - BOTTOM), "#333333");
    }

    /// The horizontal axis with its name.
    pub fn x_axis(&mut self, label: &str) {
        let y = HEIGHT - BOTTOM;
        self.line((LEFT, y), (WIDTH - RIGHT, y), "#333333");
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        self.text(middle, HEIGHT - 14.0, Anchor::Middle, label, "");
    }

    /// A tick of the horizontal axis.
    pub fn x_tick(&mut self, x: f64, text: &str) {
        let y = HEIGHT - BOTTOM;
        self.line((x, y), (x, y + 4.0), "#333333");
        self.text(x, y + 18.0, Anchor::Middle, text, "");
    }

    pub fn end(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

/// The height at which a value stands.
pub fn y_of(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
}

/// The place of a value from left to right.
pub fn x_of(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (value, want) in [
            (0.0, "0"),
            (1.0, "1"),
            (1234.56, "1235"),
            (0.123456, "0.1235"),
            (0.5, "0.5"),
            (1e-4, "1e-4"),
            (-2.5, "-2.5"),
            (1234567.0, "1234567"),
        ] {
            assert_eq!(figure(value), want);
        }
    }

    #[test]
    fn an_axis_holds_its_values() {
        let random = crate::rng::Stream::new(3, &[9]);
        for case in 0..500u64 {
            let scale = 10f64.powi((random.bits(case * 3) % 20) as i32 - 10);
            let value = |i| (random.bits(case * 3 + i) % 1000) as f64 * scale - 200.0 * scale;
            let (a, b) = (value(1), value(2));
            let axis = Axis::linear([a, b, f64::NAN].into_iter());
            for v in [a, b] {
                let place = axis.place(v);
                assert!((-1e-9..=1.0 + 1e-9).contains(&place), "{a} {b}: {place}");
            }
            assert!((2..=13).contains(&axis.ticks.len()), "{axis:?}");
        }
        let none = Axis::linear(std::iter::empty());
        assert_eq!((none.min, none.max), (0.0, 1.0));
        let log = Axis::of_values(&[1e-5, 1e-3, 1e-4]);
        assert!((log.place(1e-4) - 0.5).abs() < 1e-9);
        assert_eq!(log.ticks, [1e-5, 1e-4, 1e-3]);
    }

    #[test]
    fn a_long_legend_stays_in_the_picture() {
        for (series, length) in [(1, 3), (2, 20), (8, 20), (8, 90), (30, 10)] {
            let names: Vec<String> = (0..series).map(|_| "x".repeat(length)).collect();
            let mut drawing = Drawing::new("");
            drawing.legend(&names);
            let svg = drawing.end();
            for line in svg.lines().filter(|line| line.contains(">x")) {
                let number = |name: &str| -> f64 {
                    let from = line.split(&format!("{name}=\"")).nth(1).unwrap_or_default();
                    from.split('"')
                        .next()
                        .unwrap_or_default()
                        .parse()
                        .unwrap_or(f64::NAN)
                };
                let text = line.split('>').nth(1).unwrap_or_default();
                let letters = text.split('<').next().unwrap_or_default().len() as f64;
                let width = if line.contains("font-size") { 5.8 } else { 7.0 };
                let fits = number(" x") + letters * width <= WIDTH;
                assert!(fits || series > 20, "{line}");
                assert!(number(" y") < TOP, "{line}");
            }
            assert_eq!(svg.matches(">x").count(), series);
        }
    }

    #[test]
    fn text_cannot_break_out() {
        assert_eq!(escaped("a<b>&\"'\u{1b}"), "a&lt;b&gt;&amp;&quot;&#39; ");
    }
}
