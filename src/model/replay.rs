//! Decoding passes that the device does again instead of being given each piece of them.
//! All launches of a pass over one new token a sequence are the same from token to token:
//! what changes lies in memory that is overwritten before.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::ragged::Ragged;
use crate::ops::{HotOps, Indices, Recorded};

/// Passes of one kind that go before it is recorded: kernels are compiled in the first,
/// and a kind that soon ends is not worth it.
pub(super) const BEFORE: usize = 3;
/// Passes that are kept. Each holds pages of the device's memory.
pub(super) const MOST: usize = 2;

/// What tells passes apart: how many sequences, and the adapter.
pub(super) type Kind = (usize, Option<usize>);

/// What has been recorded over a cache.
#[derive(Default)]
pub struct Replays {
    pub(super) kept: Vec<Replay>,
    /// The kind of the newest pass, and how many there were of it.
    pub(super) newest: Option<(Kind, usize)>,
    /// The device failed at it.
    pub(super) off: bool,
}

/// A recorded pass and what it reads anew at each run.
pub(super) struct Replay {
    pub(super) kind: Kind,
    /// Embedded tokens.
    pub(super) x: Tensor<2>,
    /// Rows `0..` of `x`, as which tokens come in.
    pub(super) places: Indices,
    pub(super) batch: Ragged,
    pub(super) write_to: Arc<Indices>,
    pub(super) work: Box<dyn Recorded>,
    pub(super) logits: Tensor<2>,
}

impl Replay {
    /// Gives the device the new tokens and its work; the logits come to lie in
    /// `self.logits`.
    pub(super) fn run(
        &mut self,
        ops: &dyn HotOps,
        x: &Tensor<2>,
        batch: &Ragged,
        to: &Indices,
    ) -> Option<()> {
        // Without rotation nothing after the embedding reads positions.
        if let Some(positions) = self.batch.positions.copy() {
            ops.overwrite(positions, &batch.positions);
        }
        ops.overwrite(self.batch.spans.singles_copy()?, &batch.spans.singles());
        ops.overwrite(self.write_to.copy()?, to);
        // Nobody else holds it, so the rows are written where the work reads them.
        let held = std::mem::replace(&mut self.x, Tensor::empty([1, 1], &x.device()));
        self.x = ops.write_rows(held, &self.places, x);
        self.work.run().ok()
    }
}
