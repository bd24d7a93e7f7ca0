//! The sizes of what a run computes on.

use crate::data::batch::Schedule;

/// Upper bounds over a set of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tokens of all sequences together.
    pub tokens: u64,
    /// Tokens whose loss counts.
    pub supervised: u64,
    /// Tokens of the longest sequence.
    pub longest: u64,
    pub sequences: u64,
}

impl Batch {
    /// The larger of both in each respect.
    pub fn max(self, other: Batch) -> Batch {
        Batch {
            tokens: self.tokens.max(other.tokens),
            supervised: self.supervised.max(other.supervised),
            longest: self.longest.max(other.longest),
            sequences: self.sequences.max(other.sequences),
        }
    }

    /// One batch of these sequences.
    pub fn of(sequences: impl Iterator<Item = Lengths>) -> Batch {
        let mut batch = Batch::default();
        for one in sequences {
            batch.tokens += one.tokens;
            batch.supervised += one.supervised;
            batch.longest = batch.longest.max(one.tokens);
            batch.sequences += 1;
        }
        batch
    }

    /// The bounds of any `size` sequences in a row: those that may be taken up at once
    /// where a new one takes the place of each that is done.
    pub fn of_any(sequences: &[Lengths], size: usize) -> Batch {
        let size = size.clamp(1, sequences.len().max(1));
        let windows = sequences.windows(size);
        windows
            .map(|rows| Batch::of(rows.iter().copied()))
            .fold(Batch::default(), Batch::max)
    }

    /// The bounds of all batches of up to `size` that are cut from `sequences` in
    /// order.
    pub fn largest(sequences: &[Lengths], size: usize) -> Batch {
        let batches = sequences.chunks(size.max(1));
        batches
            .map(|rows| Batch::of(rows.iter().copied()))
            .fold(Batch::default(), Batch::max)
    }
}

/// One sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    pub tokens: u64,
    pub supervised: u64,
}

impl Lengths {
    /// Cut to at most `longest` tokens.
    pub fn within(self, longest: usize) -> Lengths {
        let tokens = self.tokens.min(longest as u64);
        Lengths {
            tokens,
            supervised: self.supervised.min(tokens),
        }
    }
}

/// What the test at the end computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Options are ranked: forward passes over whole prompts.
    Ranked(Batch),
    /// Answers are generated with a KV cache of so many tokens for each sequence; each
    /// beam is one.
    Generated { prompts: Batch, capacity: u64 },
}

/// A sentence encoder that compares answers with references, on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Similarity {
    /// Bytes of its weights, which stay from the first score on.
    pub weights: u64,
    /// Bytes at work on the largest batch of texts.
    pub working: u64,
}

/// All that a run computes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Over the micro-batches of training.
    pub train: Batch,
    /// Whether gradients of one micro-batch wait for another.
    pub accumulates: bool,
    /// `None` without a validation set.
    pub validation: Option<Batch>,
    pub test: Option<Test>,
    /// What is asked at every validation.
    pub sampled: Option<Test>,
    /// What compares the answers of both.
    pub similarity: Option<Similarity>,
    /// Whether checkpoints are written.
    pub checkpoints: bool,
    /// Whether the parameters are copied where a validation is the best so far.
    pub keeps_best: bool,
    /// Optimiser steps.
    pub steps: usize,
    /// Of all steps together.
    pub tokens: u64,
    pub supervised: u64,
    /// Sum over all sequences of the square of their length, for attention.
    pub squares: u64,
}

impl Workload {
    /// The training part of a run over `packs` of samples, by the very windows it will
    /// see.
    pub fn training(
        samples: &[Lengths],
        packs: &[Vec<usize>],
        schedule: Schedule,
        seed: u64,
        shuffle: bool,
    ) -> Workload {
        let mut workload = Workload {
            steps: schedule.total_steps(),
            ..Workload::default()
        };
        for window in schedule.windows(seed, shuffle, 0) {
            workload.accumulates |= window.micro_batches.len() > 1;
            for rows in &window.micro_batches {
                let rows = rows.iter().flat_map(|&pack| &packs[pack]);
                let rows = rows.map(|&row| samples[row]);
                let batch = Batch::of(rows.clone());
                workload.train = workload.train.max(batch);
                workload.tokens += batch.tokens;
                workload.supervised += batch.supervised;
                workload.squares += rows.map(|row| row.tokens.pow(2)).sum::<u64>();
            }
        }
        workload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pack::alone;

    fn lengths(tokens: &[u64]) -> Vec<Lengths> {
        let one = |&tokens: &u64| Lengths {
            tokens,
            supervised: tokens / 2,
        };
        tokens.iter().map(one).collect()
    }

    #[test]
    fn training_sees_the_windows_of_the_schedule() {
        let samples = lengths(&[4, 10, 6, 8, 2]);
        let schedule = Schedule::new(5, 2, 2, 1.0, None).unwrap();
        let plain = Workload::training(&samples, &alone(5), schedule, 1, false);
        // Micro-batches 14 and 14, then 2 alone.
        assert_eq!((plain.train.tokens, plain.train.longest), (14, 10));
        assert_eq!((plain.steps, plain.tokens, plain.supervised), (2, 30, 15));
        assert_eq!(plain.squares, 16 + 100 + 36 + 64 + 4);
        assert!(plain.accumulates);
        let whole = Schedule::new(5, 5, 1, 2.0, None).unwrap();
        let whole = Workload::training(&samples, &alone(5), whole, 1, true);
        assert_eq!(
            (whole.train.tokens, whole.tokens, whole.accumulates),
            (30, 60, false)
        );
        // Packs of 4 + 6, 10 and 8 + 2, one a step: a sequence is never longer than its
        // sample, and attention stays within samples.
        let packs = [vec![0, 2], vec![1], vec![3, 4]];
        let schedule = Schedule::new(3, 1, 1, 1.0, None).unwrap();
        let packed = Workload::training(&samples, &packs, schedule, 1, true);
        assert_eq!((packed.train.tokens, packed.train.longest), (10, 10));
        assert_eq!((packed.train.sequences, packed.steps), (2, 3));
        assert_eq!((packed.tokens, packed.squares), (30, plain.squares));
    }

    #[test]
    fn bounds_are_over_all_batches_and_lengths_can_be_cut() {
        let samples = lengths(&[4, 10, 6]);
        let largest = Batch::largest(&samples, 2);
        let want = Batch {
            tokens: 14,
            supervised: 7,
            longest: 10,
            sequences: 2,
        };
        assert_eq!(largest, want);
        let cut = samples[1].within(3);
        assert_eq!((cut.tokens, cut.supervised), (3, 3));
        assert_eq!(Batch::largest(&[], 2), Batch::default());
        let any = Batch::of_any(&samples, 2);
        assert_eq!((any.tokens, any.sequences, any.longest), (16, 2, 10));
        assert_eq!(Batch::of_any(&samples, 9).tokens, 20);
        assert_eq!(Batch::of_any(&[], 2), Batch::default());
    }
}
