//! Which examples train, which validate, and in what order each epoch sees them.

use crate::rng::Stream;

/// Names of the random streams of this file.
const SPLIT: u64 = u64::from_be_bytes(*b"split   ");
const EPOCH: u64 = u64::from_be_bytes(*b"epoch   ");

/// Indices into the data set, each in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<usize>,
    pub val: Vec<usize>,
}

/// Draws `ratio` of `n` examples for validation, rounded to the nearest, by `seed`.
///
/// A ratio above 0 gives at least one validation example where there are two
/// or more; one example at least always stays for training.
pub fn split(n: usize, ratio: f64, seed: u64) -> Split {
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
            let s = split(n, ratio, 42);
            assert_eq!(s.val.len(), val, "{n} {ratio}");
            assert!(s.train.is_sorted() && s.val.is_sorted());
            let mut all = [s.train, s.val].concat();
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(split(50, 0.2, 7), split(50, 0.2, 7));
        assert_ne!(split(50, 0.2, 7), split(50, 0.2, 8));
        assert_eq!(epoch_order(30, 1, 2, true), epoch_order(30, 1, 2, true));
        assert_ne!(epoch_order(30, 1, 2, true), epoch_order(30, 1, 3, true));
        assert_ne!(epoch_order(30, 1, 2, true), epoch_order(30, 2, 2, true));
        assert_eq!(epoch_order(4, 1, 9, false), [0, 1, 2, 3]);
    }
}
