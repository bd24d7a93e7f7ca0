//! A batch without padding: the real tokens of all sequences, row after row.

use crate::ops::{Indices, Span, Spans};

/// Token rows of several sequences. Row i holds token `ids[i]` at `positions[i]`.
#[derive(Clone, Debug, Default)]
pub struct Ragged {
    pub ids: Indices,
    pub positions: Indices,
    pub spans: Spans,
    /// Rows whose logits are supervised, and the token each should predict.
    pub rows: Indices,
    pub targets: Indices,
}

impl Ragged {
    /// Adds a whole sequence without labels.
    pub fn push(&mut self, ids: &[u32]) {
        let start = self.ids.len();
        self.ids.extend(ids.iter().copied());
        self.positions.extend(0..ids.len() as u32);
        self.spans.push(Span {
            q_start: start,
            q_len: ids.len(),
            k_start: start,
            k_len: ids.len(),
        });
    }

    /// Adds a sequence with its labels, one a token; a label that is not negative
    /// supervises the row before it, so that of the first token never counts.
    pub fn push_labelled(&mut self, ids: &[u32], labels: &[i64]) {
        let start = self.ids.len() as u32;
        self.push(ids);
        for (t, &label) in labels.iter().enumerate().skip(1) {
            if let Ok(target) = u32::try_from(label) {
                self.rows.push(start + t as u32 - 1);
                self.targets.push(target);
            }
        }
    }

    /// Row of the last token of each sequence.
    pub fn last_rows(&self) -> Indices {
        let last = |s: &Span| (s.q_start + s.q_len - 1) as u32;
        self.spans.iter().map(last).collect::<Vec<_>>().into()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_supervise_the_row_before() {
        let mut r = Ragged::default();
        r.push_labelled(&[5, 6, 7], &[5, -100, 7]);
        r.push_labelled(&[8, 9], &[-100, 9]);
        assert_eq!(*r.rows, [1, 3]);
        assert_eq!(*r.targets, [7, 9]);
        assert_eq!(*r.positions, [0, 1, 2, 0, 1]);
        assert_eq!(*r.last_rows(), [2, 4]);
    }
}
