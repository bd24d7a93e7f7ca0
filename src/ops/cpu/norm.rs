//! RMSNorm forward and backward by rows.

use super::elementwise::{by_rows, vectorised};
use rayon::prelude::*;

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt()
}

/// Dot product in sixteen lanes, so that it vectorises with a fixed order.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (ca, cb) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for ((l, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *l += x * y;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

pub fn forward(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let width = gain.len();
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, width, |first, out| {
        vectorised(
            #[inline(always)]
            || {
                let x = &x[first * width..];
                for (o, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let r = inverse_rms(x, eps);
                    for ((o, x), g) in o.iter_mut().zip(x).zip(gain) {
                        *o = x * r * g;
                    }
                }
            },
        );
    });
    out
}

/// dx = r (dy g) - x r^3 / d . sum(dy g x), with r = 1 / rms(x).
pub fn backward_x(x: &[f32], gain: &[f32], dy: &[f32], eps: f32) -> Vec<f32> {
    let width = gain.len();
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, width, |first, out| {
        vectorised(
            #[inline(always)]
            || {
                let rows = x[first * width..].chunks_exact(width);
                let grads = dy[first * width..].chunks_exact(width);
                for ((o, x), dy) in out.chunks_exact_mut(width).zip(rows).zip(grads) {
                    let r = inverse_rms(x, eps);
                    for ((o, d), g) in o.iter_mut().zip(dy).zip(gain) {
                        *o = d * g;
                    }
                    let c = dot(o, x) * r * r * r / width as f32;
                    for (o, x) in o.iter_mut().zip(x) {
                        *o = *o * r - x * c;
                    }
                }
            },
        );
    });
    out
}

/// dgain = sum over rows of dy x r. Partial sums over fixed blocks of rows are
/// added in order, so the result does not depend on the threads.
pub fn backward_gain(x: &[f32], dy: &[f32], width: usize, eps: f32) -> Vec<f32> {
    const BLOCK: usize = 64;
    let partial: Vec<Vec<f32>> = x
        .par_chunks(BLOCK * width)
        .zip(dy.par_chunks(BLOCK * width))
        .map(|(x, dy)| {
            let mut sum = vec![0.0; width];
            for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
                let r = inverse_rms(x, eps);
                for ((s, x), d) in sum.iter_mut().zip(x).zip(dy) {
                    *s += x * d * r;
                }
            }
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for part in partial {
        for (t, p) in total.iter_mut().zip(part) {
            *t += p;
        }
    }
    total
}
