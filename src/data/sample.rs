//! One training sequence: token ids and labels, and its figures.

/// The label of a token that is not supervised, as in PyTorch's `ignore_index`.
pub const IGNORED: i64 = -100;

/// Labels of one row that count after the causal shift.
pub(crate) fn supervised(labels: &[i64]) -> usize {
    labels.iter().skip(1).filter(|l| **l != IGNORED).count()
}

/// The token ids of one training sequence and their labels, of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The row of the example it comes from.
    pub row: usize,
    pub input_ids: Vec<u32>,
    /// The label at position t supervises the logits at t - 1; -100 is masked.
    pub labels: Vec<i64>,
    /// Tokens that truncation removed.
    pub cut: usize,
}

/// Figures of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// The row of the example it comes from.
    pub row: usize,
    pub tokens: usize,
    /// Targets of the loss, after the causal shift.
    pub supervised: usize,
    /// Tokens that truncation removed.
    pub cut: usize,
}

impl Brief {
    pub fn of(sample: &Sample) -> Self {
        Self {
            row: sample.row,
            tokens: sample.input_ids.len(),
            supervised: supervised(&sample.labels),
            cut: sample.cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_label_never_counts() {
        assert_eq!(supervised(&[5, 6, IGNORED, 7]), 2);
        assert_eq!(supervised(&[5]), 0);
        assert_eq!(supervised(&[]), 0);
    }
}
