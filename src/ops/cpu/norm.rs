//! RMSNorm and LayerNorm, forward and backward by rows, and sums over rows.

use super::elementwise::by_rows;
use crate::ops::vectorised::vectorised;
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

/// dgain = sum over rows of dy x r.
pub fn backward_gain(x: &[f32], dy: &[f32], width: usize, eps: f32) -> Vec<f32> {
    sum_rows(x.len(), width, |at, sum| {
        let (x, dy) = (&x[at..at + width], &dy[at..at + width]);
        let r = inverse_rms(x, eps);
        for ((s, x), d) in sum.iter_mut().zip(x).zip(dy) {
            *s += x * d * r;
        }
    })
}

/// Adds what `add(first element of a row, sum)` adds for every row. Partial sums
/// over fixed blocks of rows are added in order, so the result does not depend on
/// the threads.
fn sum_rows(len: usize, width: usize, add: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    const BLOCK: usize = 64;
    let blocks = (len / width).div_ceil(BLOCK);
    let block = |b: usize| {
        let mut sum = vec![0.0; width];
        let end = len.min((b + 1) * BLOCK * width);
        for at in (b * BLOCK * width..end).step_by(width) {
            vectorised(
                #[inline(always)]
                || add(at, &mut sum),
            );
        }
        sum
    };
    let partial: Vec<Vec<f32>> = (0..blocks).into_par_iter().map(block).collect();
    let mut total = vec![0.0; width];
    for part in partial {
        for (t, p) in total.iter_mut().zip(part) {
            *t += p;
        }
    }
    total
}

/// Sums over the rows.
pub fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    sum_rows(x.len(), width, |at, sum| {
        for (s, x) in sum.iter_mut().zip(&x[at..at + width]) {
            *s += x;
        }
    })
}

/// Mean and 1 / standard deviation of a row; the variance is of what is left
/// after the mean is taken away, which loses less than mean(x^2) - mean(x)^2.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let width = x.len() as f32;
    let mean = sum(x) / width;
    let mut lanes = [0.0f32; 16];
    let chunks = x.chunks_exact(16);
    let tail: f32 = chunks.remainder().iter().map(|x| (x - mean).powi(2)).sum();
    for chunk in chunks {
        for (l, x) in lanes.iter_mut().zip(chunk) {
            *l += (x - mean) * (x - mean);
        }
    }
    let variance = (lanes.iter().sum::<f32>() + tail) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let chunks = x.chunks_exact(16);
    let tail: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (l, x) in lanes.iter_mut().zip(chunk) {
            *l += x;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Sum of a (x - mean).
#[inline(always)]
fn dot_centred(a: &[f32], x: &[f32], mean: f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (ca, cx) = (a.chunks_exact(16), x.chunks_exact(16));
    let rest = ca.remainder().iter().zip(cx.remainder());
    let tail: f32 = rest.map(|(a, x)| a * (x - mean)).sum();
    for (a, x) in ca.zip(cx) {
        for ((l, a), x) in lanes.iter_mut().zip(a).zip(x) {
            *l += a * (x - mean);
        }
    }
    lanes.iter().sum::<f32>() + tail
}

pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let width = gain.len();
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, width, |first, out| {
        vectorised(
            #[inline(always)]
            || {
                let x = &x[first * width..];
                for (o, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let (mean, r) = moments(x, eps);
                    for (((o, x), g), b) in o.iter_mut().zip(x).zip(gain).zip(bias) {
                        *o = (x - mean) * r * g + b;
                    }
                }
            },
        );
    });
    out
}

/// With n = (x - mean) r and g = dy gain: dx = r (g - mean(g) - n mean(g n)).
pub fn layer_norm_backward_x(x: &[f32], gain: &[f32], dy: &[f32], eps: f32) -> Vec<f32> {
    let width = gain.len();
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, width, |first, out| {
        vectorised(
            #[inline(always)]
            || {
                let rows = x[first * width..].chunks_exact(width);
                let grads = dy[first * width..].chunks_exact(width);
                for ((o, x), dy) in out.chunks_exact_mut(width).zip(rows).zip(grads) {
                    let (mean, r) = moments(x, eps);
                    for ((o, d), g) in o.iter_mut().zip(dy).zip(gain) {
                        *o = d * g;
                    }
                    let level = sum(o) / width as f32;
                    let along = r * dot_centred(o, x, mean) / width as f32;
                    for (o, x) in o.iter_mut().zip(x) {
                        *o = r * (*o - level - (x - mean) * r * along);
                    }
                }
            },
        );
    });
    out
}

/// dgain = sum over rows of dy n.
pub fn layer_norm_backward_gain(x: &[f32], dy: &[f32], width: usize, eps: f32) -> Vec<f32> {
    sum_rows(x.len(), width, |at, sum| {
        let (x, dy) = (&x[at..at + width], &dy[at..at + width]);
        let (mean, r) = moments(x, eps);
        for ((s, x), d) in sum.iter_mut().zip(x).zip(dy) {
            *s += (x - mean) * r * d;
        }
    })
}
