//! AdamW in place, and the sum of squares for the global norm.

use rayon::prelude::*;

use crate::ops::AdamW;
use crate::ops::moments8::{self, Codes};
use crate::ops::nf4_map;
use crate::ops::vectorised::vectorised;

const BLOCK: usize = 1 << 14;
/// Blocks of 8-bit moments that one task takes at least.
const BLOCKS: usize = 16;

/// torch's update of the gradient times `grad_scale`: p *= 1 - lr wd; m, v; p -= lr / (1 - b1^t) . m / (sqrt(v) / sqrt(1 - b2^t) + eps).
pub fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], h: &AdamW, grad_scale: f64) {
    let t = h.step as i32;
    let decay = (1.0 - h.lr * h.weight_decay) as f32;
    let step_size = (h.lr / (1.0 - h.beta1.powi(t))) as f32;
    let inv_bias2 = (1.0 / (1.0 - h.beta2.powi(t)).sqrt()) as f32;
    let (b1, b2, eps, scale) = (
        h.beta1 as f32,
        h.beta2 as f32,
        h.eps as f32,
        grad_scale as f32,
    );
    let (c1, c2) = ((1.0 - h.beta1) as f32, (1.0 - h.beta2) as f32);
    p.par_chunks_mut(BLOCK)
        .zip(g.par_chunks(BLOCK))
        .zip(m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)))
        .for_each(|((p, g), (m, v))| {
            vectorised(
                #[inline(always)]
                || {
                    for i in 0..p.len() {
                        let g = g[i] * scale;
                        m[i] = m[i] * b1 + g * c1;
                        v[i] = v[i] * b2 + g * g * c2;
                        let denominator = v[i].sqrt() * inv_bias2 + eps;
                        p[i] = p[i] * decay - step_size * (m[i] / denominator);
                    }
                },
            );
        });
}

/// torch's update with moments that are 8 bits wide between two updates. The rounding
/// of each operation is that of bitsandbytes' CPU path, so its codes come out.
pub fn adamw_8bit(
    p: &mut [f32],
    g: &[f32],
    m: &mut Codes,
    v: &mut Codes,
    h: &AdamW,
    grad_scale: f64,
) {
    const BLOCK: usize = moments8::BLOCK;
    let t = h.step as i32;
    let decay = (1.0 - h.lr * h.weight_decay) as f32;
    let step = (-h.lr / (1.0 - h.beta1.powi(t))) as f32;
    let bias2 = (1.0 - h.beta2.powi(t)).sqrt() as f32;
    let (b1, b2, eps, scale) = (
        h.beta1 as f32,
        h.beta2 as f32,
        h.eps as f32,
        grad_scale as f32,
    );
    let (c1, c2) = ((1.0 - h.beta1) as f32, (1.0 - h.beta2) as f32);
    let (signed, unsigned) = (nf4_map::signed(), nf4_map::unsigned());
    let first = m.codes.par_chunks_mut(BLOCK).zip(&mut m.absmax);
    let second = v.codes.par_chunks_mut(BLOCK).zip(&mut v.absmax);
    p.par_chunks_mut(BLOCK)
        .zip(g.par_chunks(BLOCK))
        .zip(first.zip(second))
        .with_min_len(BLOCKS)
        .for_each(|((p, g), ((m, m_max), (v, v_max)))| {
            vectorised(
                #[inline(always)]
                || {
                    let (mut m32, mut v32) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
                    let n = p.len();
                    for i in 0..n {
                        let g = g[i] * scale;
                        let before = signed.values[m[i] as usize] * *m_max;
                        m32[i] = g.mul_add(c1, before * b1);
                        let before = unsigned.values[v[i] as usize] * *v_max;
                        v32[i] = (c2 * g).mul_add(g, before * b2);
                    }
                    for i in 0..n {
                        let denominator = v32[i].sqrt() / bias2 + eps;
                        p[i] = p[i] * decay + step * m32[i] / denominator;
                    }
                    *m_max = signed.quantize_block(&m32[..n], m);
                    *v_max = unsigned.quantize_block(&v32[..n], v);
                },
            );
        });
}

/// In f64, over fixed blocks added in order.
pub fn sum_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(BLOCK)
        .map(|x| x.iter().map(|&v| f64::from(v) * f64::from(v)).sum())
        .collect();
    parts.iter().sum()
}
