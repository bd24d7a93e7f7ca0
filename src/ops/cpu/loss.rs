//! Chunked linear head + cross-entropy.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::elementwise::exp;
use super::frozen;
use super::gemm::gemm;
use super::host::{Host, HostBf16, into_host_mut, is_bf16, tensor2};
use super::mat::{Mat, Threads};
use crate::ops::vectorised::vectorised;
use crate::ops::{CrossEntropy, CrossEntropyGrad, Scalar, chunk_rows};

/// The head, `[vocab, hidden]`.
enum Head {
    F32(Host),
    Bf16(HostBf16),
}

impl Head {
    /// `out = x head^T` if `transposed`, else `x head`.
    fn product(&self, out: &mut [f32], x: Mat<'_>, transposed: bool) {
        match self {
            Self::F32(head) => {
                let head = head.mat(transposed);
                gemm(out, head.cols, x, head, 1.0, false, Threads::All);
            }
            Self::Bf16(head) => {
                frozen::product(out, x.data, head.rows(), head.shape(), transposed, false)
            }
        }
    }
}

pub fn cross_entropy(
    hidden: &Tensor<2>,
    head: &Tensor<2>,
    targets: &[u32],
    grad: CrossEntropyGrad,
) -> CrossEntropy {
    let [vocab, _] = head.dims();
    let head = match is_bf16(head) {
        true => Head::Bf16(HostBf16::new(head)),
        false => Head::F32(Host::new(head)),
    };
    let hidden = Host::new(hidden);
    let [rows, width] = hidden.shape();
    assert_eq!(rows, targets.len());
    let (scale, mut d_head) = match grad {
        CrossEntropyGrad::None => (None, None),
        CrossEntropyGrad::Hidden { scale } => (Some(scale), None),
        CrossEntropyGrad::HiddenAndHead { scale, head_grad } => {
            let start =
                head_grad.unwrap_or_else(|| tensor2(vec![0.0; vocab * width], [vocab, width]));
            (Some(scale), Some(into_host_mut(start)))
        }
    };
    let mut d_hidden = scale.map(|_| vec![0.0; rows * width]);
    let step = chunk_rows(vocab);
    let mut logits = vec![0.0; step.min(rows) * vocab];
    let mut loss_sum = 0.0;
    for from in (0..rows).step_by(step) {
        let n = step.min(rows - from);
        let x = Mat::row_major(&hidden.slice()[from * width..(from + n) * width], n, width);
        let logits = &mut logits[..n * vocab];
        head.product(logits, x, true);
        let losses: Vec<f64> = logits
            .par_chunks_exact_mut(vocab)
            .zip(&targets[from..from + n])
            .map(|(row, &target)| {
                vectorised(
                    #[inline(always)]
                    || match scale {
                        Some(scale) => loss_and_gradient(row, target as usize, scale),
                        None => loss_only(row, target as usize),
                    },
                )
            })
            .collect();
        loss_sum += losses.iter().sum::<f64>();
        if let Some(d_hidden) = &mut d_hidden {
            let d_logits = Mat::row_major(logits, n, vocab);
            let out = &mut d_hidden[from * width..(from + n) * width];
            head.product(out, d_logits, false);
            if let Some(d_head) = &mut d_head {
                gemm(
                    d_head.slice_mut(),
                    width,
                    d_logits.t(),
                    x,
                    1.0,
                    true,
                    Threads::All,
                );
            }
        }
    }
    CrossEntropy {
        loss_sum: Scalar::Host(loss_sum),
        d_hidden: d_hidden.map(|d| tensor2(d, [rows, width])),
        d_head: d_head.map(|d| d.into_tensor()),
    }
}

#[inline(always)]
fn max_and_sum(row: &[f32]) -> (f32, f32) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let mut max = chunks
        .remainder()
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    for c in chunks {
        for (l, &x) in lanes.iter_mut().zip(c) {
            *l = if x > *l { x } else { *l };
        }
    }
    max = lanes.iter().copied().fold(max, f32::max);
    let mut sums = [0.0f32; 16];
    let chunks = row.chunks_exact(16);
    let mut sum: f32 = chunks.remainder().iter().map(|x| exp(x - max)).sum();
    for c in chunks {
        for (s, x) in sums.iter_mut().zip(c) {
            *s += exp(x - max);
        }
    }
    sum += sums.iter().sum::<f32>();
    (max, sum)
}

#[inline(always)]
fn loss_only(row: &[f32], target: usize) -> f64 {
    let (max, sum) = max_and_sum(row);
    f64::from(max) + f64::from(sum).ln() - f64::from(row[target])
}

/// Turns logits into (softmax - onehot) x scale.
#[inline(always)]
fn loss_and_gradient(row: &mut [f32], target: usize, scale: f32) -> f64 {
    let (max, sum) = max_and_sum(row);
    let loss = f64::from(max) + f64::from(sum).ln() - f64::from(row[target]);
    let factor = scale / sum;
    for x in row.iter_mut() {
        *x = exp(*x - max) * factor;
    }
    row[target] -= scale;
    loss
}
