//! Counts over encoded samples.

use serde::{Deserialize, Serialize};

use super::sample::{Brief, Sample};

/// What encoding did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodeReport {
    pub samples: usize,
    pub tokens: usize,
    /// Targets of the loss, after the causal shift.
    pub supervised_tokens: usize,
    /// Samples that lost tokens.
    pub truncated: usize,
    /// Tokens of the longest sample, before and after truncation.
    pub longest_whole: usize,
    pub longest: usize,
    /// The largest token id, to compare with the model's vocabulary.
    pub largest_id: u32,
}

impl EncodeReport {
    /// Counts another sample.
    pub fn add(&mut self, sample: &Sample) {
        let brief = Brief::of(sample);
        self.samples += 1;
        self.tokens += brief.tokens;
        self.supervised_tokens += brief.supervised;
        self.truncated += usize::from(brief.cut > 0);
        self.longest = self.longest.max(brief.tokens);
        self.longest_whole = self.longest_whole.max(brief.tokens + brief.cut);
        let labels = sample.labels.iter().filter_map(|l| u32::try_from(*l).ok());
        let ids = sample.input_ids.iter().copied().chain(labels);
        self.largest_id = ids.fold(self.largest_id, u32::max);
    }
}
