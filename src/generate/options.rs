//! How prompts are continued.

use super::sampling::{Sampler, leading_despite};
use super::scores::Wanted;
use crate::config::types::{EarlyStopping, InferenceConfig};

/// How to continue prompts.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    pub max_new_tokens: usize,
    pub sampler: Sampler,
    /// Searches in place of sampling.
    pub beams: Option<Beams>,
    pub eos_ids: Vec<u32>,
    pub seed: u64,
    /// Use LoRA; false generates with the base alone.
    pub adapter: bool,
    /// Prompts that are worked on at once.
    pub slots: usize,
}

/// Settings of a beam search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beams {
    pub num_beams: usize,
    /// Above 0 favours long answers, below 0 short ones.
    pub length_penalty: f32,
    pub early_stopping: EarlyStopping,
    pub repetition_penalty: f32,
}

impl Beams {
    /// The search that a config asks for; `None` for one beam.
    pub fn new(config: &InferenceConfig) -> Option<Self> {
        (config.num_beams > 1).then_some(Self {
            num_beams: config.num_beams,
            length_penalty: config.length_penalty as f32,
            early_stopping: config.early_stopping,
            repetition_penalty: config.repetition_penalty as f32,
        })
    }

    /// Continuations of all beams that are looked at: so many that `num_beams` are left
    /// where all of the best are an end.
    pub(super) fn continuations(&self, ends: usize) -> usize {
        self.num_beams * (1 + ends).max(2)
    }

    /// How much of the logits of a beam that mostly takes.
    pub(super) fn wants(&self, ends: usize) -> Wanted {
        let count = self.continuations(ends);
        leading_despite(self.repetition_penalty, count, Some(1.0))
    }
}
