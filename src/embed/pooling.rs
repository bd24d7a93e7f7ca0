//! From the vectors of a text's tokens to one vector.

/// One way to pool. Several are laid one after another, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The vector of the first token, [CLS].
    Cls,
    Max,
    Mean,
    /// The sum over the root of the number of tokens.
    MeanSqrtLen,
}

impl Mode {
    /// The name in `pooling_mode`, and the older switch for it.
    pub const NAMES: [(Mode, &'static str, &'static str); 4] = [
        (Mode::Cls, "cls", "pooling_mode_cls_token"),
        (Mode::Max, "max", "pooling_mode_max_tokens"),
        (Mode::Mean, "mean", "pooling_mode_mean_tokens"),
        (
            Mode::MeanSqrtLen,
            "mean_sqrt_len_tokens",
            "pooling_mode_mean_sqrt_len_tokens",
        ),
    ];
}

/// How a text's vector is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pooling {
    pub modes: Vec<Mode>,
    /// Scales vectors to length 1.
    pub normalize: bool,
}

impl Pooling {
    pub fn width(&self, hidden: usize) -> usize {
        self.modes.len() * hidden
    }

    /// `rows` are the tokens' vectors, at least one.
    pub fn pool(&self, rows: &[&[f32]]) -> Vec<f32> {
        let mut out = Vec::new();
        for mode in &self.modes {
            match mode {
                Mode::Cls => out.extend_from_slice(rows[0]),
                Mode::Max => out.extend(columns(rows, f32::NEG_INFINITY, f32::max)),
                Mode::Mean => out.extend(over(rows, rows.len() as f32)),
                Mode::MeanSqrtLen => out.extend(over(rows, (rows.len() as f32).sqrt())),
            }
        }
        if self.normalize {
            let squares: f64 = out.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            // The smallest divisor of torch's normalize.
            let norm = squares.sqrt().max(1e-12);
            out.iter_mut()
                .for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
        out
    }
}

fn columns(rows: &[&[f32]], from: f32, join: fn(f32, f32) -> f32) -> Vec<f32> {
    let mut out = vec![from; rows[0].len()];
    for row in rows {
        out.iter_mut()
            .zip(*row)
            .for_each(|(o, x)| *o = join(*o, *x));
    }
    out
}

fn over(rows: &[&[f32]], divisor: f32) -> impl Iterator<Item = f32> {
    let sums = columns(rows, 0.0, |a, b| a + b);
    sums.into_iter().map(move |sum| sum / divisor)
}
