//! How prompts are continued.

use super::sampling::Sampler;
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
}
