//! What is asked of the logits of a pass, and what is known of them.

use std::borrow::Cow;

use burn::tensor::Tensor;

use crate::ops::leading::Leading;
use crate::ops::logits::numbers;
use crate::ops::{HotOps, Indices};

/// How much of a row of logits a choice wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    /// The likeliest token alone.
    Likeliest,
    /// The `count` largest, as of [`HotOps::leading`].
    Leading {
        count: usize,
        temperature: Option<f32>,
    },
    All,
}

/// The logits of a pass, a row a sequence, as far as they were wanted.
pub(super) struct Scores {
    logits: Tensor<2>,
    ops: &'static dyn HotOps,
    found: Found,
}

enum Found {
    Likeliest(Vec<Option<u32>>),
    Leading(Vec<Option<Leading>>),
    All(Vec<f32>),
}

impl Scores {
    pub(super) fn new(logits: Tensor<2>, wanted: Wanted, ops: &'static dyn HotOps) -> Self {
        let found = match wanted {
            Wanted::Likeliest => Found::Likeliest(ops.likeliest(&logits)),
            Wanted::Leading { count, temperature } => {
                Found::Leading(ops.leading(&logits, count, temperature))
            }
            Wanted::All => Found::All(numbers(logits.clone().into_data())),
        };
        Self { logits, ops, found }
    }

    pub(super) fn row(&self, at: usize) -> Row<'_> {
        Row { scores: self, at }
    }
}

/// What is known of the logits of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    scores: &'a Scores,
    at: usize,
}

impl<'a> Row<'a> {
    /// The likeliest token, if that is all that was wanted; the inner `None` where no logit
    /// is finite.
    pub(super) fn likeliest(&self) -> Option<Option<u32>> {
        match &self.scores.found {
            Found::Likeliest(tokens) => Some(tokens[self.at]),
            Found::Leading(_) | Found::All(_) => None,
        }
    }

    pub(super) fn leading(&self) -> Option<&'a Leading> {
        match &self.scores.found {
            Found::Leading(rows) => rows[self.at].as_ref(),
            Found::Likeliest(_) | Found::All(_) => None,
        }
    }

    /// All logits; from the device where less was wanted at first.
    pub(super) fn all(&self) -> Cow<'a, [f32]> {
        let [_, vocab] = self.scores.logits.dims();
        if let Found::All(logits) = &self.scores.found {
            return Cow::Borrowed(&logits[self.at * vocab..][..vocab]);
        }
        let at = Indices::from(vec![self.at as u32]);
        let row = self.scores.ops.gather_rows(&self.scores.logits, &at);
        Cow::Owned(numbers(row.into_data()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::{CPU, tensor2};

    #[test]
    fn a_row_is_whole_whatever_was_wanted() {
        let logits = vec![0.5, -1.0, 3.0, 2.0, f32::NAN, 7.0];
        let leading = Wanted::Leading {
            count: 1,
            temperature: None,
        };
        for wanted in [Wanted::Likeliest, leading, Wanted::All] {
            let scores = Scores::new(tensor2(logits.clone(), [2, 3]), wanted, &CPU);
            for (at, want) in logits.chunks(3).enumerate() {
                let got = scores.row(at).all();
                let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&got), bits(want), "{wanted:?}");
            }
            let second = scores.row(1);
            assert_eq!(
                second.likeliest(),
                (wanted == Wanted::Likeliest).then_some(Some(2))
            );
            let found = second.leading().map(|leading| leading.numbers.clone());
            assert_eq!(found, (wanted == leading).then(|| vec![(2, 7.0)]));
        }
    }
}
