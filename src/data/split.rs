//! Which examples train, which validate, and in what order each epoch sees them.

use super::store::Samples;
use crate::rng::Stream;

/// Names of the random streams of this file.
const SPLIT: u64 = u64::from_be_bytes(*b"split   ");
const EPOCH: u64 = u64::from_be_bytes(*b"epoch   ");

/// Indices of samples, each in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<usize>,
    pub val: Vec<usize>,
}

/// Draws `ratio` of the examples for validation. All samples of an example (pieces of a
/// document or of a conversation) are on its side: what is held out is never trained on.
pub fn split(samples: &impl Samples, ratio: f64, seed: u64) -> Split {
    // Where the samples of each example begin.
    let mut begins = Vec::new();
    let mut row = None;
    for (i, sample) in samples.briefs().enumerate() {
        if row.replace(sample.row) != Some(sample.row) {
            begins.push(i);
        }
    }
    let parts = split_examples(begins.len(), ratio, seed);
    let of = |examples: Vec<usize>| {
        let end = |e: usize| begins.get(e + 1).copied().unwrap_or(samples.len());
        let samples = examples.into_iter().flat_map(|e| begins[e]..end(e));
        samples.collect()
    };
    Split {
        train: of(parts.train),
        val: of(parts.val),
    }
}

/// Draws `ratio` of `n` examples for validation, rounded to the nearest, by `seed`.
///
/// A ratio above 0 gives at least one validation example where there are two
/// or more; one example at least always stays for training.
fn split_examples(n: usize, ratio: f64, seed: u64) -> Split {
    let wanted = if ratio > 0.0 {
        ((n as f64 * ratio).round() as usize).max(1)
    } else {
        0
    };
    let count = wanted.min(n.saturating_sub(1));
    let mut val = Stream::new(seed, &[SPLIT]).permutation(n);
    let mut train = val.split_off(count);
    val.sort_unstable();
    train.sort_unstable();
    Split { train, val }
}

/// The order of the `n` training samples in `epoch`, from 0: a new shuffle each
/// epoch, or the file's order.
pub fn epoch_order(n: usize, seed: u64, epoch: usize, shuffle: bool) -> Vec<usize> {
    if shuffle {
        Stream::new(seed, &[EPOCH, epoch as u64]).permutation(n)
    } else {
        (0..n).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sample::Sample;
    use super::*;

    #[test]
    fn parts_are_disjoint_whole_and_sized() {
        for (n, ratio, val) in [
            (100, 0.15, 15),
            (10, 0.0, 0),
            (1, 0.5, 0),
            (0, 0.5, 0),
            (2, 0.01, 1),
            (5, 1.0, 4),
            (7, 0.5, 4),
        ] {
            let s = split_examples(n, ratio, 42);
            assert_eq!(s.val.len(), val, "{n} {ratio}");
            assert!(s.train.is_sorted() && s.val.is_sorted());
            let mut all = [s.train, s.val].concat();
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }

    /// Samples of these rows.
    fn samples(rows: impl IntoIterator<Item = usize>) -> Vec<Sample> {
        let sample = |row| Sample {
            row,
            input_ids: vec![1, 2],
            labels: vec![1, 2],
            cut: 0,
        };
        rows.into_iter().map(sample).collect()
    }

    #[test]
    fn the_samples_of_an_example_stay_together() {
        let rows = (1..40).flat_map(|row| vec![2 * row; 1 + row * row % 5]);
        let samples = samples(rows);
        for (ratio, held_out) in [(0.15, 6), (0.5, 20), (0.0, 0)] {
            let s = split(&samples, ratio, 3);
            let rows =
                |of: &[usize]| -> BTreeSet<usize> { of.iter().map(|&i| samples[i].row).collect() };
            let (train, val) = (rows(&s.train), rows(&s.val));
            assert!(train.is_disjoint(&val), "{ratio}");
            assert_eq!((val.len(), train.len()), (held_out, 39 - held_out));
            assert!(s.val.is_sorted() && s.train.is_sorted());
            assert_eq!(s.val.len() + s.train.len(), samples.len());
        }
    }

    #[test]
    fn one_sample_an_example_is_split_by_number() {
        let samples = samples((0..50).map(|i| 3 * i));
        assert_eq!(split(&samples, 0.2, 7), split_examples(50, 0.2, 7));
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(split_examples(50, 0.2, 7), split_examples(50, 0.2, 7));
        assert_ne!(split_examples(50, 0.2, 7), split_examples(50, 0.2, 8));
        assert_eq!(epoch_order(30, 1, 2, true), epoch_order(30, 1, 2, true));
        assert_ne!(epoch_order(30, 1, 2, true), epoch_order(30, 1, 3, true));
        assert_ne!(epoch_order(30, 1, 2, true), epoch_order(30, 2, 2, true));
        assert_eq!(epoch_order(4, 1, 9, false), [0, 1, 2, 3]);
    }
}
