//! Decoding passes that the device does again instead of being given each piece of them.
//! All launches of a pass over one new token a sequence are the same from token to token:
//! what changes lies in memory that is overwritten before.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::ragged::Ragged;
use crate::ops::warning::warn;
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
    /// Nothing is recorded any more.
    pub(super) off: bool,
    /// The device failed at it, and the cache cannot be read any more.
    pub(super) lost: bool,
}

impl Replays {
    /// For a cache over which nothing is to be recorded.
    pub(super) fn none() -> Self {
        Self {
            off: true,
            ..Self::default()
        }
    }

    /// The device failed at work that writes to the cache.
    pub(super) fn fail(&mut self, at: &str, problem: &str) {
        // cubecl's errors go on for lines.
        let told = problem.lines().map(str::trim);
        let told = told.filter(|line| !line.to_lowercase().contains("backtrace"));
        let problem = told.collect::<Vec<_>>().join(" ");
        warn(&format!(
            "the device could not {at} a pass of decoding ({problem}); answers under way are \
             computed anew, and each pass is launched from now on"
        ));
        *self = Self::none();
        self.lost = true;
    }
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
    ///
    /// # Errors
    /// What the device said. What the pass writes, the cache among it, is lost.
    pub(super) fn run(
        &self,
        ops: &dyn HotOps,
        x: &Tensor<2>,
        batch: &Ragged,
        to: &Indices,
    ) -> Result<(), String> {
        // Without rotation nothing after the embedding reads positions.
        if let Some(positions) = self.batch.positions.copy() {
            ops.overwrite(positions, &batch.positions);
        }
        let read = self.batch.spans.singles_copy().zip(self.write_to.copy());
        let (spans, rows) = read.ok_or("it does not read where tokens go")?;
        ops.overwrite(spans, &batch.spans.singles());
        ops.overwrite(rows, to);
        ops.overwrite_rows(&self.x, &self.places, x);
        self.work.run()
    }
}
