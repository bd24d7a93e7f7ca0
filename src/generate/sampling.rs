//! The next token from a row of logits.
//!
//! The rules and their order are transformers': repetition penalty, then, where
//! sampling, temperature, top-k, top-p and min-p (`generation/logits_process.py`). The
//! random number is a function of (stream, counter), so a run can be replayed.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use thiserror::Error;

use super::room::NoRoom;
use crate::config::types::InferenceConfig;
use crate::ops::cpu::argmax;
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
type Candidate = (u32, f32);

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

    /// Whether the next token is the likeliest, so that no other logit matters.
    pub fn is_greedy(&self) -> bool {
        !self.do_sample && self.repetition_penalty == 1.0
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
        let Some(best) = argmax(&logits) else {
            return Err(SamplingError::NoFinite);
        };
        // Against the largest first: a tiny temperature must not overflow.
        let largest = logits[best as usize];
        let mut candidates: Vec<Candidate> = logits
            .iter()
            .enumerate()
            .filter(|(_, l)| l.is_finite())
            .map(|(i, l)| (i as u32, (l - largest) / self.temperature))
            .collect();
        if let Some(k) = self.top_k {
            keep_top_k(&mut candidates, k);
        }
        if self.top_p < 1.0 {
            keep_top_p(&mut candidates, self.top_p);
        }
        if let Some(p) = self.min_p {
            keep_min_p(&mut candidates, p);
        }
        Ok(draw(&candidates, stream.bits(counter)))
    }
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
            *l = if *l < 0.0 { *l * penalty } else { *l / penalty };
        }
    }
    logits
}

/// Larger logits first, then smaller ids.
fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
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

/// Keeps the fewest likeliest tokens whose probabilities together reach `p`; at
/// least one (Holtzman et al., 2020). Sorts only as many as it needs.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64) {
    let largest = largest(candidates);
    let weight = |l: f32| f64::from(l - largest).exp();
    let total: f64 = candidates.iter().map(|(_, l)| weight(*l)).sum();
    let n = candidates.len();
    let mut sorted = 64.min(n);
    loop {
        if sorted < n {
            candidates.select_nth_unstable_by(sorted - 1, descending);
        }
        candidates[..sorted].sort_unstable_by(descending);
        let mut sum = 0.0;
        let enough = candidates[..sorted].iter().position(|(_, l)| {
            sum += weight(*l);
            sum >= p * total
        });
        match enough {
            Some(last) => return candidates.truncate(last + 1),
            None if sorted == n => return,
            None => sorted = (sorted * 8).min(n),
        }
    }
}

/// Keeps the tokens with at least the share `p` of the likeliest one's probability
/// (Nguyen et al., 2024).
fn keep_min_p(candidates: &mut Vec<Candidate>, p: f64) {
    let largest = largest(candidates);
    candidates.retain(|(_, l)| *l == largest || f64::from(l - largest).exp() >= p);
}

fn largest(candidates: &[Candidate]) -> f32 {
    candidates
        .iter()
        .map(|(_, l)| *l)
        .fold(f32::NEG_INFINITY, f32::max)
}

/// Draws one of the candidates (at least one) by the softmax of their logits.
fn draw(candidates: &[Candidate], bits: u64) -> u32 {
    let largest = largest(candidates);
    let weights: Vec<f64> = candidates
        .iter()
        .map(|(_, l)| f64::from(l - largest).exp())
        .collect();
    let uniform = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let mut left = uniform * weights.iter().sum::<f64>();
    for ((id, _), weight) in candidates.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return *id;
        }
    }
    // Rounding can leave a trifle: the last token that has any weight.
    let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
    candidates[last].0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> InferenceConfig {
        serde_json::from_value(serde_json::json!({
            "max_new_tokens": 8, "do_sample": true, "temperature": 1.0, "top_p": 1.0, "top_k": null, "min_p": null,
            "num_beams": 1, "length_penalty": 1.0, "early_stopping": false, "stream": false,
            "repetition_penalty": 1.0, "batch_size": 1, "use_stop_tokens": false, "stop": [], "clean": [],
            "validation": {"enabled": false, "max_retries": 0}
        }))
        .unwrap()
    }

    fn random_logits(stream: Stream, at: u64, n: u64) -> Vec<f32> {
        (0..n)
            .map(|i| (stream.normal(at * 1000 + i) * 3.0 * 4.0).round() / 4.0)
            .collect()
    }

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let e: Vec<f64> = logits.iter().map(|l| f64::from(l - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|v| v / sum).collect()
    }

    /// transformers' TopPLogitsWarper, word for word: ascending order, cumulative
    /// probability at most 1 - p goes, the last stays.
    fn naive_top_p(logits: &[f32], p: f64) -> Vec<u32> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        let probs = softmax(logits);
        let mut cumulative = 0.0;
        let mut kept = Vec::new();
        for (rank, &i) in order.iter().enumerate() {
            cumulative += probs[i];
            if cumulative > 1.0 - p || rank + 1 == order.len() {
                kept.push(i as u32);
            }
        }
        kept.sort_unstable();
        kept
    }

    fn naive_top_k(logits: &[f32], k: usize) -> Vec<u32> {
        let mut sorted = logits.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted[k.min(sorted.len()) - 1];
        (0..logits.len() as u32)
            .filter(|i| logits[*i as usize] >= least)
            .collect()
    }

    fn ids(mut candidates: Vec<Candidate>) -> Vec<u32> {
        candidates.sort_unstable_by_key(|c| c.0);
        candidates.into_iter().map(|c| c.0).collect()
    }

    fn all(logits: &[f32]) -> Vec<Candidate> {
        logits
            .iter()
            .enumerate()
            .map(|(i, l)| (i as u32, *l))
            .collect()
    }

    #[test]
    fn top_k_and_top_p_equal_the_slow_rules() {
        let stream = Stream::new(21, &[4]);
        for case in 0..400 {
            let logits = random_logits(stream, case, 1 + case * 3 % 700);
            let k = 1 + (stream.bits(case) % 40) as usize;
            // Off the grid of tied sums, where the two orders of adding may differ.
            let p = 0.013_579 + f64::from(stream.uniform(case)) * 0.98;
            let (mut by_k, mut by_p) = (all(&logits), all(&logits));
            keep_top_k(&mut by_k, k);
            keep_top_p(&mut by_p, p);
            assert_eq!(ids(by_k), naive_top_k(&logits, k), "{case} k {k}");
            assert_eq!(ids(by_p), naive_top_p(&logits, p), "{case} p {p}");
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = vec![0.0, 1.0, -1.0, f32::NEG_INFINITY, 2.0];
        let sampler = Sampler::new(&InferenceConfig {
            temperature: 0.5,
            ..config()
        })
        .unwrap();
        let want = softmax(&logits.iter().map(|l| l / 0.5).collect::<Vec<_>>());
        let stream = Stream::new(1, &[]);
        let n = 40_000;
        let mut counts = [0.0; 5];
        for counter in 0..n {
            let id = sampler.next_token(&logits, &[], stream, counter).unwrap();
            counts[id as usize] += 1.0 / n as f64;
        }
        for (got, want) in counts.iter().zip(&want) {
            assert!((got - want).abs() < 0.01, "{counts:?} {want:?}");
        }
        let again = |c| sampler.next_token(&logits, &[], stream, c).unwrap();
        assert_eq!(
            (0..50).map(again).collect::<Vec<_>>(),
            (0..50).map(again).collect::<Vec<_>>()
        );
    }

    #[test]
    fn narrow_settings_are_greedy() {
        let stream = Stream::new(2, &[]);
        let greedy = Sampler::new(&InferenceConfig {
            do_sample: false,
            ..config()
        })
        .unwrap();
        assert!(!greedy.do_sample);
        let narrow = [
            Sampler::new(&InferenceConfig {
                top_k: Some(1),
                ..config()
            })
            .unwrap(),
            Sampler::new(&InferenceConfig {
                top_p: 1e-9,
                ..config()
            })
            .unwrap(),
            Sampler::new(&InferenceConfig {
                temperature: 1e-4,
                ..config()
            })
            .unwrap(),
        ];
        for case in 0..50 {
            let logits: Vec<f32> = (0..99).map(|i| stream.normal(case * 99 + i)).collect();
            let want = argmax(&logits).unwrap();
            assert_eq!(greedy.next_token(&logits, &[], stream, case), Ok(want));
            for sampler in &narrow {
                assert_eq!(sampler.next_token(&logits, &[], stream, case), Ok(want));
            }
        }
    }

    #[test]
    fn the_penalty_counts_each_token_once() {
        let logits = [3.0, -2.0, 2.9, 0.0];
        assert_eq!(
            *penalized(&logits, &[0, 0, 1, 3, 77], 2.0),
            [1.5, -4.0, 2.9, 0.0]
        );
        let sampler = Sampler::new(&InferenceConfig {
            do_sample: false,
            repetition_penalty: 2.0,
            ..config()
        })
        .unwrap();
        assert_eq!(
            sampler.next_token(&logits, &[0], Stream::new(0, &[]), 0),
            Ok(2)
        );
    }

    #[test]
    fn bad_logits_and_settings_are_errors() {
        let stream = Stream::new(0, &[]);
        for do_sample in [true, false] {
            let sampler = Sampler::new(&InferenceConfig {
                do_sample,
                ..config()
            })
            .unwrap();
            assert_eq!(
                sampler.next_token(&[f32::NAN; 3], &[], stream, 0),
                Err(SamplingError::NoFinite)
            );
        }
        let bad = |c: InferenceConfig| Sampler::new(&c).unwrap_err();
        assert_eq!(
            bad(InferenceConfig {
                temperature: -1.0,
                ..config()
            }),
            SamplingError::Temperature(-1.0)
        );
        assert_eq!(
            bad(InferenceConfig {
                top_p: 1.5,
                ..config()
            }),
            SamplingError::TopP(1.5)
        );
        assert_eq!(
            bad(InferenceConfig {
                repetition_penalty: 0.0,
                ..config()
            }),
            SamplingError::RepetitionPenalty(0.0)
        );
        let cold = InferenceConfig {
            temperature: 0.0,
            ..config()
        };
        let cold = Sampler::new(&cold).unwrap();
        assert!(!cold.do_sample && cold.sampling().do_sample);
        let tiny = InferenceConfig {
            temperature: 1e-38,
            ..config()
        };
        let tiny = Sampler::new(&tiny).unwrap();
        assert_eq!(tiny.next_token(&[1.0, 9.0, 8.5], &[], stream, 3), Ok(1));
    }
}
