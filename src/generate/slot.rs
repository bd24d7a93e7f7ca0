//! What a slot of the engine works on, and what it asks of the cache.

use super::options::GenerateOptions;

/// One prompt and what tells its random numbers from those of others, so that
/// samples do not depend on the batch.
#[derive(Clone, Debug)]
pub struct Prompt<'a> {
    pub ids: &'a [u32],
    /// E.g. the question's row and the attempt.
    pub key: [u64; 2],
}

/// What all prompts share.
pub(super) struct Context<'a> {
    pub(super) options: &'a GenerateOptions,
    pub(super) stop: &'a dyn Fn(&[u32]) -> bool,
}

/// Tokens that a sequence of a slot has not seen yet.
pub(super) struct Feed<'a> {
    /// Which of the slot's sequences.
    pub(super) lane: usize,
    pub(super) tokens: &'a [u32],
    /// Tokens that it has in the cache.
    pub(super) cached: usize,
}

/// Tokens `from..to` of one lane of a slot are also those of another.
pub(super) struct Copy {
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) tokens: std::ops::Range<usize>,
}
