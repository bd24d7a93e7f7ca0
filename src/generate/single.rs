//! One sequence continued token by token: greedy, or sampling.

use super::sampling::SamplingError;
use super::scores::Row;
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

    /// Nothing of it is in the cache any more.
    pub(super) fn begin_again(&mut self) {
        self.cached = 0;
    }

    /// The next token by the logits of the last.
    pub(super) fn choose(&self, cx: &Context<'_>, row: Row<'_>) -> Result<u32, SamplingError> {
        if let Some(token) = row.likeliest() {
            return token.ok_or(SamplingError::NoFinite);
        }
        let counter = self.tokens().len() as u64;
        let sampler = &cx.options.sampler;
        if let Some(leading) = row.leading() {
            let bits = self.stream.bits(counter);
            if let Some(token) = sampler.next_among(leading, &self.ids, bits)? {
                return Ok(token);
            }
        }
        sampler.next_token(&row.all(), &self.ids, self.stream, counter)
    }

    /// Takes the next token; whether the answer ends.
    pub(super) fn advance(&mut self, cx: &Context<'_>, token: u32) -> bool {
        let options = cx.options;
        self.cached = self.ids.len();
        if options.eos_ids.contains(&token) {
            return true;
        }
        self.ids.push(token);
        let tokens = self.tokens();
        tokens.len() == options.max_new_tokens || (cx.stop)(tokens)
    }
}
