//! Batched generation with a KV cache.

use super::sampling::{Sampler, SamplingError};
use crate::model::{Decoder, KvCache, Ragged};
use crate::ops::Span;
use crate::rng::Stream;

/// Names the sampling stream among the program's random streams.
const SAMPLING: u64 = 0x5A3F;

/// How to continue prompts.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    pub max_new_tokens: usize,
    pub sampler: Sampler,
    pub eos_ids: Vec<u32>,
    pub seed: u64,
    /// Use LoRA; false generates with the base alone.
    pub adapter: bool,
}

/// One prompt and what tells its random numbers from those of others, so that
/// samples do not depend on the batch.
#[derive(Clone, Debug)]
pub struct Prompt<'a> {
    pub ids: &'a [u32],
    /// E.g. the question's row and the attempt.
    pub key: [u64; 2],
}

/// Continues every prompt until an end-of-sequence token, until `stop` says so of
/// the tokens generated so far, or for `max_new_tokens`. Returns the new tokens
/// without the end-of-sequence token. Prompts must not be empty.
///
/// # Errors
/// The model gave no finite logit.
pub fn generate(
    model: &mut Decoder,
    prompts: &[Prompt<'_>],
    options: &GenerateOptions,
    stop: &dyn Fn(&[u32]) -> bool,
) -> Result<Vec<Vec<u32>>, SamplingError> {
    let mut outputs = vec![Vec::new(); prompts.len()];
    let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
    if longest == 0 || options.max_new_tokens == 0 {
        return Ok(outputs);
    }
    let capacity = longest + options.max_new_tokens;
    model.reserve_positions(capacity);
    let width = model.arch.num_kv_heads * model.arch.head_dim;
    let layers = model.layers.len();
    let (ops, device) = (model.ops(), &model.device);
    let mut cache = KvCache::new(layers, prompts.len(), capacity, width, ops, device);
    let vocab = model.arch.vocab_size;

    // Prefill: all prompts at once, then one row a live sequence and step.
    let mut live: Vec<usize> = (0..prompts.len()).collect();
    let mut lengths = vec![0usize; prompts.len()];
    let mut feed: Vec<Vec<u32>> = prompts.iter().map(|p| p.ids.to_vec()).collect();
    for step in 0..options.max_new_tokens {
        let batch = cached_batch(&live, &feed, &mut lengths, &mut cache);
        let rows = batch.last_rows();
        let mut logits = model.logits(&batch, &rows, options.adapter, Some(&mut cache));
        let mut still = Vec::with_capacity(live.len());
        let mut next_feed = Vec::with_capacity(live.len());
        for (slot, &i) in live.iter().enumerate() {
            let logits = &mut logits[slot * vocab..(slot + 1) * vocab];
            let [row, attempt] = prompts[i].key;
            let stream = Stream::new(options.seed, &[SAMPLING, row, attempt]);
            let before: Vec<u32> = prompts[i].ids.iter().chain(&outputs[i]).copied().collect();
            let token = options
                .sampler
                .next_token(logits, &before, stream, step as u64)?;
            if options.eos_ids.contains(&token) {
                continue;
            }
            outputs[i].push(token);
            if !stop(&outputs[i]) {
                still.push(i);
                next_feed.push(vec![token]);
            }
        }
        (live, feed) = (still, next_feed);
        if live.is_empty() {
            break;
        }
    }
    Ok(outputs)
}

/// The next tokens of the live sequences as a batch over the cache.
fn cached_batch(
    live: &[usize],
    feed: &[Vec<u32>],
    lengths: &mut [usize],
    cache: &mut KvCache,
) -> Ragged {
    let mut batch = Ragged::default();
    let mut write_to = Vec::new();
    for (&i, tokens) in live.iter().zip(feed) {
        let (done, base) = (lengths[i], i * cache.capacity);
        batch.spans.push(Span {
            q_start: batch.ids.len(),
            q_len: tokens.len(),
            k_start: base,
            k_len: done + tokens.len(),
        });
        batch.ids.extend(tokens.iter().copied());
        batch
            .positions
            .extend((done..done + tokens.len()).map(|p| p as u32));
        write_to.extend((base + done..base + done + tokens.len()).map(|r| r as u32));
        lengths[i] += tokens.len();
    }
    cache.write_to(write_to);
    batch
}
