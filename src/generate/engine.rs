//! Generation with a KV cache and continuous batching: a fixed number of slots, each
//! with one prompt; when one has its answer, the next prompt takes its place in the
//! very next pass.

use std::collections::VecDeque;

use super::beams::BeamSearch;
use super::options::GenerateOptions;
use super::room::Room;
use super::sampling::SamplingError;
use super::scores::{Row, Scores, Wanted};
use super::single::Single;
use super::slot::{Context, Copy, Feed, Prompt};
use crate::device::Memory;
use crate::model::{Decoder, KvCache, Ragged};
use crate::ops::Span;
use crate::ops::is_cpu;

/// What a caller sees of an answer while it grows.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Which prompt.
    pub prompt: usize,
    /// All new tokens so far.
    pub tokens: &'a [u32],
    /// Whether the answer ends here.
    pub done: bool,
}

/// Continues every prompt until an end-of-sequence token, until `stop` says so of
/// the tokens generated so far, or for `max_new_tokens`. Returns the new tokens
/// without the end-of-sequence token. Prompts must not be empty.
///
/// # Errors
/// The model gave no finite logit, or there is no room for so many tokens.
pub fn generate(
    model: &mut Decoder,
    prompts: &[Prompt<'_>],
    options: &GenerateOptions,
    stop: &dyn Fn(&[u32]) -> bool,
) -> Result<Vec<Vec<u32>>, SamplingError> {
    stream(model, prompts, options, stop, &mut |_| {})
}

/// [`generate`] that tells `watch` of each new token; of a beam search only the end,
/// since its best beam is not known before.
///
/// # Errors
/// As [`generate`].
pub fn stream(
    model: &mut Decoder,
    prompts: &[Prompt<'_>],
    options: &GenerateOptions,
    stop: &dyn Fn(&[u32]) -> bool,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<Vec<u32>>, SamplingError> {
    let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
    if longest == 0 || options.max_new_tokens == 0 {
        return Ok(vec![Vec::new(); prompts.len()]);
    }
    let cx = Context { options, stop };
    let capacity = longest.saturating_add(options.max_new_tokens);
    let mut engine = Engine::new(model, prompts, &cx, capacity)?;
    while engine.step(model, &cx, watch)? {}
    Ok(engine.outputs)
}

/// Prompts that are being continued, and those that wait.
struct Engine<'a> {
    prompts: &'a [Prompt<'a>],
    waiting: VecDeque<usize>,
    work: Vec<Option<(usize, Work<'a>)>>,
    /// Sequences of a slot.
    lanes: usize,
    cache: KvCache,
    outputs: Vec<Vec<u32>>,
}

impl<'a> Engine<'a> {
    fn new(
        model: &mut Decoder,
        prompts: &'a [Prompt<'a>],
        cx: &Context<'_>,
        capacity: usize,
    ) -> Result<Self, SamplingError> {
        let options = cx.options;
        let lanes = options.beams.map_or(1, |beams| beams.num_beams);
        let slots = options.slots.clamp(1, prompts.len());
        let room = Room {
            sequences: slots.saturating_mul(lanes),
            capacity,
        };
        // A GPU says itself that it has no memory left.
        let memory = Memory::probe().filter(|_| is_cpu(&model.device));
        room.check(&model.arch, 4, memory.map(|memory| memory.total_bytes))?;
        model.reserve_positions(capacity);
        let width = model.arch.num_kv_heads * model.arch.head_dim;
        let (layers, ops, device) = (model.layers.len(), model.ops(), &model.device);
        Ok(Self {
            prompts,
            waiting: (0..prompts.len()).collect(),
            work: (0..slots).map(|_| None).collect(),
            lanes,
            cache: KvCache::new(layers, slots * lanes, capacity, width, ops, device),
            outputs: vec![Vec::new(); prompts.len()],
        })
    }

    /// Gives every slot a prompt while there are some, and each sequence its next token,
    /// unless a device lost the cache: then all sequences begin again with their tokens so
    /// far. Whether there was anything to do.
    fn step(
        &mut self,
        model: &Decoder,
        cx: &Context<'_>,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<bool, SamplingError> {
        for slot in self.work.iter_mut().filter(|slot| slot.is_none()) {
            *slot = self
                .waiting
                .pop_front()
                .map(|i| (i, begin(cx.options, &self.prompts[i])));
        }
        let batch = cached_batch(&self.work, self.lanes, &mut self.cache);
        if batch.is_empty() {
            return Ok(false);
        }
        let rows = batch.last_rows();
        let cache = Some(&mut self.cache);
        let logits = model.logits_on_device(&batch, &rows, cx.options.adapter, cache);
        let Some(logits) = logits.filter(|_| !self.cache.is_lost()) else {
            self.cache.renew(model.ops(), &model.device);
            let work = self.work.iter_mut().flatten();
            work.for_each(|(_, state)| state.begin_again());
            return Ok(true);
        };
        let scores = Scores::new(logits, wanted(cx.options), model.ops());
        let mut next = 0;
        let mut copies = Copies::default();
        for (at, slot) in self.work.iter_mut().enumerate() {
            let Some((prompt, state)) = slot else {
                continue;
            };
            let prompt = *prompt;
            let end = match state {
                Work::Single(single) => {
                    let token = single.choose(cx, scores.row(next))?;
                    next += 1;
                    let end = single.advance(cx, token);
                    let (tokens, done) = (single.tokens(), end);
                    watch(Progress {
                        prompt,
                        tokens,
                        done,
                    });
                    end.then(|| tokens.to_vec())
                }
                Work::Beams(search) => {
                    let lanes = next..next + search.lanes();
                    next = lanes.end;
                    let rows: Vec<Row<'_>> = lanes.map(|at| scores.row(at)).collect();
                    let end = search.advance(cx, &rows)?;
                    let first = at * self.lanes * self.cache.capacity;
                    for copy in search.take_copies() {
                        copies.add(first, self.cache.capacity, &copy);
                    }
                    if let Some(tokens) = &end {
                        let done = true;
                        watch(Progress {
                            prompt,
                            tokens,
                            done,
                        });
                    }
                    end
                }
            };
            if let Some(tokens) = end {
                self.outputs[prompt] = tokens;
                *slot = None;
            }
        }
        if !copies.from.is_empty() {
            self.cache.copy_rows(model.ops(), copies.from, copies.to);
        }
        Ok(true)
    }
}

/// How much of the logits of a pass is looked at.
fn wanted(options: &GenerateOptions) -> Wanted {
    match options.beams {
        Some(beams) => beams.wants(options.eos_ids.len()),
        None => options.sampler.wants(),
    }
}

/// A prompt that is being continued.
enum Work<'a> {
    Single(Single<'a>),
    Beams(BeamSearch<'a>),
}

impl Work<'_> {
    /// Nothing of it is in the cache any more.
    fn begin_again(&mut self) {
        match self {
            Self::Single(single) => single.begin_again(),
            Self::Beams(search) => search.begin_again(),
        }
    }
}

/// Begins to continue a prompt.
fn begin<'p>(options: &GenerateOptions, prompt: &Prompt<'p>) -> Work<'p> {
    match options.beams {
        None => Work::Single(Single::new(prompt, options.seed)),
        Some(beams) => Work::Beams(BeamSearch::new(prompt.ids, beams)),
    }
}

/// Rows of the cache that become those of other rows.
#[derive(Default)]
struct Copies {
    from: Vec<u32>,
    to: Vec<u32>,
}

impl Copies {
    /// `first` is the cache row at which the slot begins.
    fn add(&mut self, first: usize, capacity: usize, copy: &Copy) {
        for (rows, lane) in [(&mut self.from, copy.source), (&mut self.to, copy.target)] {
            let base = first + lane * capacity;
            rows.extend(copy.tokens.clone().map(|t| (base + t) as u32));
        }
    }
}

/// The next tokens of all slots as a batch over the cache, and where their keys and
/// values go.
fn cached_batch(work: &[Option<(usize, Work<'_>)>], lanes: usize, cache: &mut KvCache) -> Ragged {
    let mut batch = Ragged::default();
    let mut write_to = Vec::new();
    for (at, (_, state)) in work
        .iter()
        .enumerate()
        .filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    {
        let feeds = match state {
            Work::Single(single) => vec![single.feed()],
            Work::Beams(search) => search.feeds(),
        };
        for Feed {
            lane,
            tokens,
            cached,
        } in feeds
        {
            let base = (at * lanes + lane) * cache.capacity;
            let all = cached..cached + tokens.len();
            batch.spans.push(Span {
                q_start: batch.ids.len(),
                q_len: tokens.len(),
                k_start: base,
                k_len: all.end,
            });
            batch.ids.extend(tokens.iter().copied());
            batch.positions.extend(all.clone().map(|p| p as u32));
            write_to.extend(all.map(|p| (base + p) as u32));
        }
    }
    cache.write_to(write_to);
    batch
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
