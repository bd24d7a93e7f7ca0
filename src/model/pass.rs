//! What a pass through the model needs besides the model.

use burn::tensor::Tensor;

use super::operands::Operands;
use super::params::{ParamId, Params};
use crate::ops::HotOps;

/// Where in the training the masks belong; the same key replays the same masks.
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey {
    pub seed: u64,
    /// Optimiser step, from 0.
    pub step: u64,
    /// Micro-batch within the step.
    pub micro: u64,
}

/// What a pass through the model needs besides the model.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub ops: &'static dyn HotOps,
    pub params: &'a Params,
    /// The number of the adapter that computes; `None` is the base alone.
    pub adapter: Option<usize>,
    /// Set in training where LoRA dropout applies.
    pub dropout: Option<DropoutKey>,
    /// What a layer has prepared for its linears.
    pub operands: Option<&'a Operands>,
    /// The row of the batch at which the tensors at hand begin.
    pub first_row: usize,
    /// Rows that a feed-forward part takes at once where its results are not kept.
    pub mlp_rows: usize,
}

impl Pass<'_> {
    /// The same pass over tensors that begin `rows` rows later.
    pub fn later(&self, rows: usize) -> Self {
        let first_row = self.first_row + rows;
        Self { first_row, ..*self }
    }

    /// A parameter among activations.
    pub fn operand(&self, id: ParamId) -> Tensor<2> {
        let prepared = self.operands.and_then(|all| all.get(id));
        let made = || self.ops.operand(self.params.get(id));
        prepared.cloned().unwrap_or_else(made)
    }
}
