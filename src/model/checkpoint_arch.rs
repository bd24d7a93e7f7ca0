//! A checkpoint as the weights of an architecture: its tensors under the names that
//! the architecture has for them, and whether all are there.

use std::path::Path;

use super::bnb::names::{SUFFIXES, is_quantised};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::hf_config::ArchConfig;

impl Checkpoint {
    /// Opens the weights in `dir` and checks that they are those of `arch`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], and a tensor that is missing or does not fit.
    pub fn open_for(dir: &Path, arch: &ArchConfig) -> Result<Self, CheckpointError> {
        let mut checkpoint = Self::open(dir)?;
        checkpoint.name_as(arch);
        checkpoint.check(arch)?;
        Ok(checkpoint)
    }

    /// Calls tensors by the names that `arch` knows them by, where the checkpoint
    /// has others: it was saved without the output projection's wrapper, as GPT-2 on
    /// the hub, or keeps the one matrix of a tied model under the head's name.
    pub(super) fn name_as(&mut self, arch: &ArchConfig) {
        for parameter in arch.parameters() {
            if let Some(bare) = parameter.name.strip_prefix(arch.base_prefix()) {
                self.rename(bare, &parameter.name);
                for suffix in SUFFIXES {
                    self.rename(
                        &format!("{bare}{suffix}"),
                        &format!("{}{suffix}", parameter.name),
                    );
                }
            }
        }
        if arch.tie_word_embeddings {
            self.rename("lm_head.weight", &arch.embedding().name);
        }
    }

    /// Checks without reading any data that every tensor `arch` needs is there
    /// in a readable type and its shape.
    pub fn check(&self, arch: &ArchConfig) -> Result<(), CheckpointError> {
        let parameters = arch.parameters();
        let mut missing = parameters.iter().filter(|p| !self.contains(&p.name));
        if let Some(first) = missing.next() {
            return Err(self.missing(&first.name, missing.count()));
        }
        for parameter in &parameters {
            // NF4 weights have checks of their own ([`super::bnb`]).
            if !is_quantised(self, &parameter.name) {
                self.expect(&parameter.name, &parameter.shape)?;
            }
        }
        Ok(())
    }
}
