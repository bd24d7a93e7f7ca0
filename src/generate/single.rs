//! One sequence continued token by token: greedy, or sampling.

use super::sampling::SamplingError;
use super::slot::{Context, Feed, Prompt};
use crate::rng::Stream;

/// Names the sampling stream among the program's random streams.
const SAMPLING: u64 = 0x5A3F;

/// A prompt and its answer so far.
pub(super) struct Single<'a> {
    /// Prompt and answer.
    ids: Vec<u32>,
    prompt: &'a [u32],
    cached: usize,
    stream: Stream,
}

impl<'a> Single<'a> {
    pub(super) fn new(prompt: &Prompt<'a>, seed: u64) -> Self {
        let [row, attempt] = prompt.key;
        Self {
            ids: prompt.ids.to_vec(),
            prompt: prompt.ids,
            cached: 0,
            stream: Stream::new(seed, &[SAMPLING, row, attempt]),
        }
    }

    /// The answer so far.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.ids[self.prompt.len()..]
    }

    pub(super) fn feed(&self) -> Feed<'_> {
        Feed {
            lane: 0,
            tokens: &self.ids[self.cached..],
            cached: self.cached,
        }
    }

    /// Takes the next token from the logits of the last; whether the answer ends.
    pub(super) fn advance(
        &mut self,
        cx: &Context<'_>,
        logits: &[f32],
    ) -> Result<bool, SamplingError> {
        let options = cx.options;
        self.cached = self.ids.len();
        let counter = self.tokens().len() as u64;
        let token = options
            .sampler
            .next_token(logits, &self.ids, self.stream, counter)?;
        if options.eos_ids.contains(&token) {
            return Ok(true);
        }
        self.ids.push(token);
        let tokens = self.tokens();
        Ok(tokens.len() == options.max_new_tokens || (cx.stop)(tokens))
    }
}
