//! Element-wise and row-wise kernels, and what cuts their rows among threads.

use rayon::prelude::*;

use crate::ops::RopeTable;
use crate::ops::vectorised::vectorised;
use crate::rng::Stream;

/// Elements a task gets at least; less is not worth another thread.
const GRAIN: usize = 1 << 14;

/// Calls `f(first row, rows)` on blocks of whole rows of `out`, in parallel
/// where there is enough to do.
pub fn by_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let block = GRAIN.div_ceil(width.max(1)) * width;
    if out.len() <= block {
        f(0, out);
    } else {
        out.par_chunks_mut(block)
            .enumerate()
            .for_each(|(i, rows)| f(i * block / width, rows));
    }
}

/// e^x to about 1 ulp for x <= 88: Cody and Waite reduction by ln 2, then the
/// degree-6 polynomial of Cephes' expf. Vectorises, which libm's does not.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.336_54, 88.376_26);
    // Adding 1.5 x 2^23 rounds to the nearest integer in the low mantissa bits.
    let magic = 12_582_912.0f32;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, magic);
    let n = shifted - magic;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    // 2^n: the shift leaves n + 127 of the bits, where a conversion to an integer, which
    // must saturate, would go number by number.
    y * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

pub fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    by_rows(&mut out, 1, |at, out| {
        vectorised(
            #[inline(always)]
            || {
                for ((o, &g), &u) in out.iter_mut().zip(&gate[at..]).zip(&up[at..]) {
                    *o = g * sigmoid(g) * u;
                }
            },
        );
    });
    out
}

/// d gate = dy up s (1 + gate (1 - s)) and d up = dy gate s, with s = sigmoid(gate);
/// each in place of what it is the gradient of.
pub fn swiglu_backward(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
    gate.par_chunks_mut(GRAIN)
        .zip(up.par_chunks_mut(GRAIN))
        .zip(dy.par_chunks(GRAIN))
        .for_each(|((gate, up), dy)| {
            vectorised(
                #[inline(always)]
                || {
                    for i in 0..dy.len() {
                        let (g, u) = (gate[i], up[i]);
                        let s = sigmoid(g);
                        gate[i] = dy[i] * u * s * (1.0 + g * (1.0 - s));
                        up[i] = dy[i] * g * s;
                    }
                },
            );
        });
}

/// 2 sqrt(2/pi), so that the logistic function stands for (1 + tanh) / 2.
const GELU_SLOPE: f32 = 1.595_769;
const GELU_CUBIC: f32 = 0.044_715;

/// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, 1, |at, out| {
        vectorised(
            #[inline(always)]
            || {
                for (o, &x) in out.iter_mut().zip(&x[at..]) {
                    *o = x * sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * x * x));
                }
            },
        );
    });
    out
}

/// x P(X <= x) of a standard normal X. The tail of the error function is formula
/// 7.1.26 of Abramowitz and Stegun, within 1.5e-7.
pub fn gelu_erf(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, 1, |at, out| {
        vectorised(
            #[inline(always)]
            || {
                for (o, &x) in out.iter_mut().zip(&x[at..]) {
                    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
                    let t = 1.0 / z.mul_add(0.327_591_1, 1.0);
                    let p = 1.061_405_4f32;
                    let p = p.mul_add(t, -1.453_152);
                    let p = p.mul_add(t, 1.421_413_7);
                    let p = p.mul_add(t, -0.284_496_74);
                    let p = p.mul_add(t, 0.254_829_6);
                    let tail = 0.5 * p * t * exp(-z * z);
                    *o = x * if x < 0.0 { tail } else { 1.0 - tail };
                }
            },
        );
    });
    out
}

pub fn gelu_backward(x: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, 1, |at, out| {
        vectorised(
            #[inline(always)]
            || {
                for ((o, &x), d) in out.iter_mut().zip(&x[at..]).zip(&dy[at..]) {
                    let s = sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * x * x));
                    let slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBIC * x * x);
                    *o = d * (s + x * s * (1.0 - s) * slope);
                }
            },
        );
    });
    out
}

pub fn add(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    by_rows(a, 1, |at, a| {
        for (a, b) in a.iter_mut().zip(&b[at..]) {
            *a += b;
        }
    });
}

pub fn dropout(x: &[f32], p: f32, stream: Stream) -> Vec<f32> {
    let keep = 1.0 / (1.0 - p);
    let mut out = vec![0.0; x.len()];
    by_rows(&mut out, 1, |at, out| {
        vectorised(
            #[inline(always)]
            || {
                for (i, (o, &x)) in out.iter_mut().zip(&x[at..]).enumerate() {
                    let kept = stream.uniform((at + i) as u64) >= p;
                    *o = if kept { x * keep } else { 0.0 };
                }
            },
        );
    });
    out
}

pub fn gather_rows(table: &[f32], width: usize, ids: &[u32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(ids.len() * width);
    for &id in ids {
        let at = id as usize * width;
        out.extend_from_slice(&table[at..at + width]);
    }
    out
}

/// Rotary embedding in place: pairs (j, j + head_dim/2) turn by the row's angle.
pub fn rope(x: &mut [f32], width: usize, table: &RopeTable, positions: &[u32], inverse: bool) {
    let half = table.head_dim / 2;
    let sign = if inverse { -1.0 } else { 1.0 };
    by_rows(x, width, |first, rows| {
        vectorised(
            #[inline(always)]
            || {
                for (row, &position) in rows.chunks_exact_mut(width).zip(&positions[first..]) {
                    let at = position as usize * half;
                    let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
                    for head in row.chunks_exact_mut(2 * half) {
                        let (a, b) = head.split_at_mut(half);
                        for j in 0..half {
                            let (u, v, s) = (a[j], b[j], sin[j] * sign);
                            a[j] = u * cos[j] - v * s;
                            b[j] = v * cos[j] + u * s;
                        }
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_libm() {
        let s = Stream::new(1, &[]);
        for i in 0..200_000 {
            let x = (s.uniform(i) - 0.5) * 170.0;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!((got - want).abs() <= 2.5e-7 * want, "{x}: {got} {want}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn gelu_by_the_error_function_is_the_integral_of_the_normal_density() {
        let s = Stream::new(4, &[]);
        for i in 0..500 {
            let x = (s.uniform(i) - 0.5) * 16.0;
            // Simpson's rule from 0 to x.
            let (n, to) = (2000, f64::from(x));
            let density = |u: f64| (-0.5 * u * u).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let h = to / f64::from(n);
            let weight = |k: i32| match k {
                0 => 1.0,
                k if k == n => 1.0,
                k if k % 2 == 1 => 4.0,
                _ => 2.0,
            };
            let sum: f64 = (0..=n).map(|k| weight(k) * density(f64::from(k) * h)).sum();
            let want = to * (0.5 + sum * h / 3.0);
            let got = f64::from(gelu_erf(&[x])[0]);
            assert!(
                (got - want).abs() < 6e-7 * (1.0 + to.abs()),
                "{x}: {got} {want}"
            );
        }
        assert_eq!(
            gelu_erf(&[0.0, f32::MIN_POSITIVE]),
            [0.0, f32::MIN_POSITIVE / 2.0]
        );
    }

    #[test]
    fn dropout_keeps_the_mean_and_its_backward_is_itself() {
        let x = vec![1.0; 100_000];
        let y = dropout(&x, 0.3, Stream::new(5, &[1]));
        let mean = y.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        let zeros = y.iter().filter(|v| **v == 0.0).count();
        assert!((29_000..31_000).contains(&zeros));
        assert_eq!(y, dropout(&x, 0.3, Stream::new(5, &[1])));
    }
}
