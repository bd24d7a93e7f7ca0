//! A chart of curves over one axis.

use super::svg::{
    Anchor, Axis, BOTTOM, COLOURS, Drawing, HEIGHT, LEFT, RIGHT, WIDTH, figure, x_of, y_of,
};

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// In the order in which they are joined. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// The chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub series: Vec<Series>,
    /// Ticks stand at the values of x, which may be logarithmic: for swept keys.
    pub ticks_at_values: bool,
}

/// Up to so many points of a curve are marked by dots.
const DOTS: usize = 40;

impl Chart {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let series: Vec<Vec<(f64, f64)>> = self
            .series
            .iter()
            .map(|one| {
                let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
                one.points.iter().copied().filter(finite).collect()
            })
            .collect();
        let points = || series.iter().flatten();
        let xs: Vec<f64> = points().map(|p| p.0).collect();
        let x_axis = match self.ticks_at_values {
            true => Axis::of_values(&xs),
            false => Axis::linear(xs.iter().copied()),
        };
        let y_axis = Axis::linear(points().map(|p| p.1));
        let mut drawing = Drawing::new(&self.title);
        if self.series.len() > 1 {
            let names: Vec<String> = self.series.iter().map(|one| one.name.clone()).collect();
            drawing.legend(&names);
        }
        drawing.y_axis(&y_axis, &self.y_label, figure);
        for &tick in &x_axis.ticks {
            drawing.x_tick(x_of(&x_axis, tick), &figure(tick));
        }
        for (i, points) in series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let place = |(x, y): &(f64, f64)| (x_of(&x_axis, *x), y_of(&y_axis, *y));
            let placed: Vec<(f64, f64)> = points.iter().map(place).collect();
            if placed.len() > 1 {
                drawing.path(&placed, colour);
            }
            if placed.len() <= DOTS {
                for (x, y) in placed {
                    drawing.dot(x, y, colour);
                }
            }
        }
        if xs.is_empty() {
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

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "loss".to_string(),
            x_label: "step".to_string(),
            y_label: "nats".to_string(),
            series: vec![Series {
                name: "train".to_string(),
                points,
            }],
            ticks_at_values: false,
        }
    }

    #[test]
    fn a_curve_goes_through_its_points() {
        let svg = chart(vec![(0.0, 0.0), (5.0, 5.0), (10.0, 10.0)]).svg();
        // The plot is 548 x 240 with its corner at (72, 304).
        assert!(
            svg.contains("points=\"72.0,304.0 346.0,184.0 620.0,64.0\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<circle").count(), 3);
        for part in [">loss<", ">step<", ">nats<"] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn few_or_odd_points_make_a_chart_too() {
        assert!(chart(Vec::new()).svg().contains("no figures"));
        let svg = chart(vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, f64::INFINITY)]).svg();
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
