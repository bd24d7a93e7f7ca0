//! Cutting token ids to a length.

use super::sample::{IGNORED, Sample};

/// The last `limit` tokens, but with the first `head` where there is room for more.
pub(super) fn keep_right(ids: &[u32], head: usize, limit: usize) -> Vec<u32> {
    if ids.len() <= limit {
        return ids.to_vec();
    }
    let head = if limit > head { head } else { 0 };
    [&ids[..head], &ids[ids.len() - (limit - head)..]].concat()
}

/// A document in pieces of at most `max_length` (2 or more) tokens that overlap
/// by one; its first `masked` tokens are not supervised.
pub(super) fn chunks(row: usize, ids: &[u32], masked: usize, max_length: usize) -> Vec<Sample> {
    let labels: Vec<i64> = ids
        .iter()
        .enumerate()
        .map(|(t, id)| if t < masked { IGNORED } else { i64::from(*id) })
        .collect();
    let mut samples = Vec::new();
    let mut start = 0;
    loop {
        let end = ids.len().min(start + max_length);
        let (input_ids, labels) = (ids[start..end].to_vec(), labels[start..end].to_vec());
        samples.push(Sample {
            row,
            input_ids,
            labels,
            cut: 0,
        });
        if end == ids.len() {
            return samples;
        }
        start = end - 1;
    }
}
