//! The next token from a row of logits.
//!
//! The rules and their order are transformers': repetition penalty, then, where
//! sampling, temperature, top-k, top-p and min-p (`generation/logits_process.py`). The
//! random number is a function of (stream, counter), so a run can be replayed.

use std::borrow::Cow;
use std::collections::HashSet;

use thiserror::Error;

use super::room::NoRoom;
use super::scores::Wanted;
use crate::config::types::InferenceConfig;
use crate::ops::cpu::argmax;
use crate::ops::leading::{Leading, MOST_LEADING, descending};
use crate::rng::Stream;

/// Logits or settings that give no token, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum SamplingError {
    #[error(
        "the model's logits hold no finite value: the weights are damaged or training diverged; use another adapter or checkpoint"
    )]
    NoFinite,
    #[error(
        "inference.temperature is {0}: set it above 0, or inference.do_sample=false for the likeliest token"
    )]
    Temperature(f64),
    #[error("inference.top_p is {0}: set it above 0 and at most 1")]
    TopP(f64),
    #[error("inference.min_p is {0}: set it between 0 and 1, or to null")]
    MinP(f64),
    #[error("inference.repetition_penalty is {0}: set it above 0; 1 leaves it out")]
    RepetitionPenalty(f64),
    #[error(
        "{0}: lower inference.max_new_tokens, or ask for less at once (inference.batch_size, inference.num_beams)"
    )]
    NoRoom(#[from] NoRoom),
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    do_sample: bool,
    temperature: f32,
    top_k: Option<usize>,
    top_p: f64,
    min_p: Option<f64>,
    repetition_penalty: f32,
}

/// A token that may be drawn, with its logit.
pub(super) type Candidate = (u32, f32);

/// Likeliest tokens that are looked at first where a share of all probability is wanted.
const NUCLEUS: usize = 128;
/// Tokens more that are looked at where some may be penalized.
const PENALIZED: usize = 64;

impl Sampler {
    /// Temperature 0 chooses the likeliest token, whatever `do_sample` says.
    ///
    /// # Errors
    /// A setting is outside its range.
    pub fn new(config: &InferenceConfig) -> Result<Self, SamplingError> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        if !positive(config.repetition_penalty) {
            return Err(SamplingError::RepetitionPenalty(config.repetition_penalty));
        }
        let temperature = config.temperature as f32;
        if config.do_sample && !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(SamplingError::Temperature(config.temperature));
        }
        if config.do_sample && !(config.top_p > 0.0 && config.top_p <= 1.0) {
            return Err(SamplingError::TopP(config.top_p));
        }
        if let Some(p) = config.min_p.filter(|p| !(0.0..=1.0).contains(p)) {
            return Err(SamplingError::MinP(p));
        }
        Ok(Self {
            do_sample: config.do_sample && temperature > 0.0,
            temperature,
            top_k: config.top_k.filter(|k| *k > 0),
            top_p: config.top_p,
            min_p: config.min_p,
            repetition_penalty: config.repetition_penalty as f32,
        })
    }

    /// The same settings but sampling, for a retry of an invalid answer.
    pub fn sampling(self) -> Self {
        let temperature = if self.temperature > 0.0 {
            self.temperature
        } else {
            1.0
        };
        let top_p = if self.top_p > 0.0 && self.top_p <= 1.0 {
            self.top_p
        } else {
            1.0
        };
        Self {
            do_sample: true,
            temperature,
            top_p,
            ..self
        }
    }

    /// How much of the logits the next token mostly depends on.
    pub(super) fn wants(&self) -> Wanted {
        let penalized = self.repetition_penalty != 1.0;
        let (count, temperature) = match self.top_k {
            _ if !self.do_sample && !penalized => return Wanted::Likeliest,
            _ if !self.do_sample => (1, None),
            Some(k) => (k, None),
            None if self.top_p == 1.0 && self.min_p.is_some_and(|p| p > 0.0) => (NUCLEUS, None),
            None if !penalized => (NUCLEUS, Some(self.temperature)),
            None => return Wanted::All,
        };
        leading_despite(self.repetition_penalty, count, temperature)
    }

    /// [`Sampler::next_token`] by the largest logits of a row alone; `None` where others
    /// matter.
    ///
    /// # Errors
    /// No logit is finite.
    pub(super) fn next_among(
        &self,
        leading: &Leading,
        seen: &[u32],
        bits: u64,
    ) -> Result<Option<u32>, SamplingError> {
        if leading.numbers.is_empty() {
            return Err(SamplingError::NoFinite);
        }
        let penalty = self.repetition_penalty;
        let mut candidates = known(leading, seen, penalty, |logit| logit);
        candidates.sort_unstable_by_key(|(id, _)| *id);
        Ok(self.pick(
            Known {
                candidates,
                all: leading.all,
                total: leading.total.filter(|_| penalty == 1.0),
            },
            bits,
        ))
    }

    /// Chooses the next token from `logits`, one a token of the vocabulary. `seen`
    /// holds the prompt and what was generated; `counter` picks the random number of
    /// `stream`.
    ///
    /// # Errors
    /// No logit is finite.
    pub fn next_token(
        &self,
        logits: &[f32],
        seen: &[u32],
        stream: Stream,
        counter: u64,
    ) -> Result<u32, SamplingError> {
        let logits = penalized(logits, seen, self.repetition_penalty);
        if !self.do_sample {
            return argmax(&logits).ok_or(SamplingError::NoFinite);
        }
        let finite = logits.iter().enumerate().filter(|(_, l)| l.is_finite());
        let known = Known {
            candidates: finite.map(|(i, l)| (i as u32, *l)).collect(),
            all: true,
            total: None,
        };
        self.pick(known, stream.bits(counter))
            .ok_or(SamplingError::NoFinite)
    }

    /// One of the candidates; `None` where there is none, or others may matter.
    fn pick(&self, known: Known, bits: u64) -> Option<u32> {
        let Known {
            mut candidates,
            mut all,
            total,
        } = known;
        let largest = largest(&candidates);
        if !self.do_sample {
            return candidates.iter().find(|c| c.1 == largest).map(|c| c.0);
        }
        // Against the largest first: a tiny temperature must not overflow.
        for (_, logit) in &mut candidates {
            *logit = (*logit - largest) / self.temperature;
        }
        if let Some(k) = self.top_k {
            if !all && candidates.len() < k {
                return None;
            }
            keep_top_k(&mut candidates, k);
            all = true;
        }
        let sum = |of: &[Candidate]| of.iter().map(weight).sum();
        if self.top_p < 1.0 {
            let total = if all { sum(&candidates) } else { total? };
            match reaching(&mut candidates, self.top_p * total) {
                Some(last) => candidates.truncate(last + 1),
                None if all => {}
                None => return None,
            }
            all = true;
        }
        if let Some(p) = self.min_p {
            // What is not among the candidates is less than each of them.
            all |= candidates.iter().any(|c| weight(c) < p);
            keep_min_p(&mut candidates, p);
        }
        let uniform = (bits >> 11) as f64 / (1u64 << 53) as f64;
        let total = if all { sum(&candidates) } else { total? };
        let drawn = reaching(&mut candidates, uniform * total);
        // Rounding can leave a trifle: the last token that has any weight.
        let last = || candidates.iter().rposition(|c| weight(c) > 0.0);
        let drawn = drawn.or_else(|| last().filter(|_| all))?;
        Some(candidates[drawn].0)
    }
}

/// Tokens of which the next is one, in order of their ids.
struct Known {
    candidates: Vec<Candidate>,
    /// Whether there are no others. Else each other is less than each of these.
    all: bool,
    /// The sum of the weights of all, these and the others.
    total: Option<f64>,
}

/// The largest logits that a choice of `count` tokens wants: more where a penalty may lower
/// some, all where it raises some.
pub(super) fn leading_despite(penalty: f32, count: usize, temperature: Option<f32>) -> Wanted {
    let count = if penalty > 1.0 {
        count + PENALIZED
    } else {
        count
    };
    if penalty < 1.0 || count > MOST_LEADING {
        return Wanted::All;
    }
    Wanted::Leading { count, temperature }
}

/// The leading tokens with their scores, `score` of each logit, less the penalty of at
/// least 1 on those in `seen`; without those that it lowers so far that tokens which are
/// not leading may be above them.
pub(super) fn known(
    leading: &Leading,
    seen: &[u32],
    penalty: f32,
    score: impl Fn(f32) -> f32,
) -> Vec<Candidate> {
    let scored = leading.numbers.iter().map(|(id, l)| (*id, score(*l)));
    let mut scored: Vec<Candidate> = scored.collect();
    let least = scored.last().map_or(f32::NEG_INFINITY, |c| c.1);
    if penalty != 1.0 {
        let seen: HashSet<_> = seen.iter().collect();
        for (_, score) in scored.iter_mut().filter(|c| seen.contains(&c.0)) {
            *score = one_penalized(*score, penalty);
        }
        scored.retain(|c| leading.all || c.1 >= least);
    }
    scored
}

/// Divides the positive logits of the tokens in `seen` by `penalty` and multiplies
/// the negative ones, once a token (CTRL, Keskar et al., 2019).
pub(super) fn penalized<'a>(logits: &'a [f32], seen: &[u32], penalty: f32) -> Cow<'a, [f32]> {
    let mut logits = Cow::Borrowed(logits);
    if penalty == 1.0 {
        return logits;
    }
    for id in seen.iter().collect::<HashSet<_>>() {
        if let Some(l) = logits.to_mut().get_mut(*id as usize) {
            *l = one_penalized(*l, penalty);
        }
    }
    logits
}

fn one_penalized(logit: f32, penalty: f32) -> f32 {
    if logit < 0.0 {
        logit * penalty
    } else {
        logit / penalty
    }
}

/// Keeps the tokens whose logit is at least the k-th largest; equals all stay.
fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k >= candidates.len() {
        return;
    }
    let (_, &mut (_, least), _) = candidates.select_nth_unstable_by(k - 1, descending);
    candidates.retain(|(_, l)| *l >= least);
    candidates.sort_unstable_by_key(|(id, _)| *id);
}

/// The weight of a token whose logit is relative to the largest.
fn weight(candidate: &Candidate) -> f64 {
    f64::from(candidate.1).exp()
}

/// Which candidate, in descending order, is the first with which their weights reach `sum`
/// together. Sorts only as many as that takes; `None` where they do not reach it, all of
/// them sorted.
fn reaching(candidates: &mut [Candidate], sum: f64) -> Option<usize> {
    let n = candidates.len();
    let mut sorted = 64.min(n);
    loop {
        if sorted < n {
            candidates.select_nth_unstable_by(sorted - 1, descending);
        }
        candidates[..sorted].sort_unstable_by(descending);
        let mut so_far = 0.0;
        let found = candidates[..sorted].iter().position(|candidate| {
            so_far += weight(candidate);
            so_far >= sum
        });
        if found.is_some() || sorted == n {
            return found;
        }
        sorted = (sorted * 8).min(n);
    }
}

/// Keeps the tokens with at least the share `p` of the likeliest one's probability
/// (Nguyen et al., 2024).
fn keep_min_p(candidates: &mut Vec<Candidate>, p: f64) {
    candidates.retain(|c| c.1 == 0.0 || weight(c) >= p);
}

fn largest(candidates: &[Candidate]) -> f32 {
    candidates
        .iter()
        .map(|(_, l)| *l)
        .fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
