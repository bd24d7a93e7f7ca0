//! Operations of a run: a multiply and an add count as two.

use serde::Serialize;

use super::workload::Workload;
use super::{Dims, Recipe};

/// Floating-point operations of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Of all steps.
    pub total: f64,
    pub per_step: f64,
    pub per_token: f64,
}

impl Recipe {
    /// The operations of the matrix products and of attention, which are nearly all;
    /// validation and the closing test come on top.
    pub fn work(&self, workload: &Workload) -> Work {
        let Dims { d, hq, vocab, .. } = self.dims();
        let shapes = self.linears();
        let layers = self.arch.num_layers as f64;
        // Gradients go no lower than the lowest layer that trains.
        let back = layers - self.lowest_trained() as f64;
        let numbers = |shapes: &[(u64, u64)], layers: f64| -> f64 {
            let numbers: u64 = shapes.iter().map(|(out, inn)| out * inn).sum();
            2.0 * numbers as f64 * layers
        };
        let adapter = if self.full { 0 } else { self.trainable() };
        let adapter = 2.0 * adapter as f64;
        // Gradient to the input, gradient to the weight.
        let gradients = if self.full { 2.0 } else { 1.0 };
        let again = if self.checkpointing { 1.0 } else { 0.0 };
        // What is computed again ends before a layer's last product, but with DoRA.
        let recomputed = match self.dora {
            true => numbers(&shapes, back),
            false => numbers(&shapes[..shapes.len() - 1], back),
        };
        let linears = numbers(&shapes, layers) + gradients * numbers(&shapes, back);
        let token = linears + recomputed * again + adapter * (3.0 + again);
        // Causal attention, half of the square: two products forward, five backward
        // (the scores again, and the gradients to v, the scores, q and k).
        let square = hq as f64 * (2.0 * layers + back * (5.0 + 2.0 * again));
        let head = (1.0 + gradients) * 2.0 * (vocab * d) as f64;
        let total = token * workload.tokens as f64
            + square * workload.squares as f64
            + head * workload.supervised as f64;
        Work {
            total,
            per_step: total / workload.steps.max(1) as f64,
            per_token: total / workload.tokens.max(1) as f64,
        }
    }
}

/// The shape (rows, out, in) of a product that stands for the model's, for timing:
/// its up projection on as many rows as a batch has, cut to `most` multiply-adds.
pub fn layer_product(recipe: &Recipe, workload: &Workload, most: usize) -> (usize, usize, usize) {
    let shapes = recipe.linears();
    let (out, inn) = shapes[shapes.len() - 2];
    let (out, inn) = (out as usize, inn as usize);
    let inn = inn.min(most.isqrt()).max(1);
    let out = out.min(most / inn).max(1);
    let rows = workload.train.tokens as usize;
    (rows.min(most / (inn * out)).max(1), out, inn)
}
