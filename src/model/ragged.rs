//! A batch without padding: the real tokens of all sequences, row after row.

use std::sync::OnceLock;

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
    begun: OnceLock<Option<Begun>>,
}

/// Sequences that begin in a batch over a KV cache, apart from those that go on.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Rows of those that begin.
    pub rows: Indices,
    /// Of these rows alone, which are queries and keys.
    pub spans: Spans,
    /// The other rows, and spans of these alone; their keys are in the cache.
    pub others: Option<(Indices, Spans)>,
}

impl Ragged {
    /// `None` where no sequence of more than one token begins here.
    pub fn begun(&self) -> Option<&Begun> {
        self.begun.get_or_init(|| apart(&self.spans)).as_ref()
    }

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

fn apart(spans: &Spans) -> Option<Begun> {
    let begins = |span: &&Span| span.q_len > 1 && span.q_len == span.k_len;
    let (new, old): (Vec<Span>, Vec<Span>) = spans.iter().partition(begins);
    let rows_of = |spans: &[Span]| -> Indices {
        let rows = |s: &Span| s.q_start as u32..(s.q_start + s.q_len) as u32;
        spans.iter().flat_map(rows).collect::<Vec<_>>().into()
    };
    // Row after row, whatever lies between them in the batch.
    let closer = |spans: &[Span], own: bool| -> Spans {
        let mut next = 0;
        let move_up = |span: &Span| {
            let q_start = next;
            next += span.q_len;
            let k_start = if own { q_start } else { span.k_start };
            Span {
                q_start,
                k_start,
                ..*span
            }
        };
        spans.iter().map(move_up).collect::<Vec<_>>().into()
    };
    (!new.is_empty()).then(|| Begun {
        rows: rows_of(&new),
        spans: closer(&new, true),
        others: (!old.is_empty()).then(|| (rows_of(&old), closer(&old, false))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_that_begin_stand_apart() {
        let span = |[q_start, q_len, k_start, k_len]: [usize; 4]| Span {
            q_start,
            q_len,
            k_start,
            k_len,
        };
        let batch = |spans: &[[usize; 4]]| Ragged {
            spans: spans.iter().map(|s| span(*s)).collect::<Vec<_>>().into(),
            ..Ragged::default()
        };
        assert!(batch(&[[0, 1, 0, 9], [1, 1, 20, 1]]).begun().is_none());
        let all = batch(&[[0, 3, 40, 3], [3, 2, 80, 2]]);
        let begun = all.begun().unwrap();
        assert!(begun.others.is_none());
        assert_eq!(*begun.rows, [0, 1, 2, 3, 4]);
        assert_eq!(*begun.spans, [span([0, 3, 0, 3]), span([3, 2, 3, 2])]);
        let mixed = batch(&[[0, 1, 0, 9], [1, 3, 40, 3], [4, 1, 80, 2], [5, 2, 90, 2]]);
        let begun = mixed.begun().unwrap();
        assert_eq!(*begun.rows, [1, 2, 3, 5, 6]);
        assert_eq!(*begun.spans, [span([0, 3, 0, 3]), span([3, 2, 3, 2])]);
        let (rows, spans) = begun.others.as_ref().unwrap();
        assert_eq!(**rows, [0, 4]);
        assert_eq!(**spans, [span([0, 1, 0, 9]), span([1, 1, 80, 2])]);
    }

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
