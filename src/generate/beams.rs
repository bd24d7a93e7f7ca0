//! Beam search with the rules of transformers' `generate`: a beam's score is the sum
//! of its tokens' log-probabilities, that of a finished one is divided by its length
//! to the power of `length_penalty`.

use super::options::Beams;
use super::sampling::{SamplingError, known, penalized};
use super::scores::Row;
use super::slot::{Context, Copy, Feed};
use crate::config::types::EarlyStopping;
use crate::ops::leading::Leading;

/// A beam that goes on.
#[derive(Clone)]
struct Running {
    /// Prompt and answer.
    ids: Vec<u32>,
    score: f32,
    /// Where its keys and values lie.
    lane: usize,
}

/// A token that may follow a beam.
struct Candidate {
    score: f32,
    beam: usize,
    token: u32,
}

/// The search from one prompt.
pub(super) struct BeamSearch<'a> {
    settings: Beams,
    prompt: &'a [u32],
    /// Best first.
    running: Vec<Running>,
    /// Best first, at most `num_beams`: final score and answer, the closing token
    /// included.
    finished: Vec<(f32, Vec<u32>)>,
    /// Tokens of each running beam that lie in the cache.
    cached: usize,
    /// Which lanes hold the prompt.
    prompted: Vec<bool>,
    copies: Vec<Copy>,
}

impl<'a> BeamSearch<'a> {
    pub(super) fn new(prompt: &'a [u32], settings: Beams) -> Self {
        let mut prompted = vec![false; settings.num_beams];
        prompted[0] = true;
        Self {
            settings,
            prompt,
            // One at first: equal beams would only find the same tokens.
            running: vec![Running {
                ids: prompt.to_vec(),
                score: 0.0,
                lane: 0,
            }],
            finished: Vec::new(),
            cached: 0,
            prompted,
            copies: Vec::new(),
        }
    }

    /// Beams that wait for logits.
    pub(super) fn lanes(&self) -> usize {
        self.running.len()
    }

    pub(super) fn feeds(&self) -> Vec<Feed<'_>> {
        let beams = self.running.iter();
        beams
            .map(|beam| Feed {
                lane: beam.lane,
                tokens: &beam.ids[self.cached..],
                cached: self.cached,
            })
            .collect()
    }

    /// Nothing of it is in the cache any more. Each beam gets all of its tokens anew, the
    /// prompt's among them.
    pub(super) fn begin_again(&mut self) {
        self.cached = 0;
        self.copies.clear();
        self.prompted.fill(false);
        for beam in &self.running {
            self.prompted[beam.lane] = true;
        }
    }

    /// What must be copied in the cache before the next pass.
    pub(super) fn take_copies(&mut self) -> Vec<Copy> {
        std::mem::take(&mut self.copies)
    }

    /// Goes on by one token with the logits of each running beam. The answer, without
    /// an end-of-sequence token, once the search is over.
    pub(super) fn advance(
        &mut self,
        cx: &Context<'_>,
        rows: &[Row<'_>],
    ) -> Result<Option<Vec<u32>>, SamplingError> {
        let options = cx.options;
        self.cached = self.running[0].ids.len();
        let keep = self.settings.continuations(options.eos_ids.len());
        let candidates = self.candidates(rows, keep)?;
        let length = self.cached + 1 - self.prompt.len();
        let mut next: Vec<(Running, usize)> = Vec::new();
        let mut all_end = true;
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let parent = &self.running[candidate.beam];
            let mut ids = Vec::with_capacity(parent.ids.len() + 1);
            ids.extend_from_slice(&parent.ids);
            ids.push(candidate.token);
            let answer = &ids[self.prompt.len()..];
            let ends = options.eos_ids.contains(&candidate.token)
                || length == options.max_new_tokens
                || (cx.stop)(answer);
            all_end &= ends;
            if !ends && next.len() < self.settings.num_beams {
                let (score, lane) = (candidate.score, parent.lane);
                next.push((Running { ids, score, lane }, lane));
            } else if ends && rank < self.settings.num_beams {
                let score = candidate.score / self.norm(length);
                self.finished.push((score, answer.to_vec()));
            }
        }
        // Stable, so that of equals the older stays.
        self.finished.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.finished.truncate(self.settings.num_beams);
        if all_end || next.is_empty() || self.is_over(next[0].0.score, length, options) {
            return Ok(Some(self.answer(&options.eos_ids)));
        }
        self.settle(next);
        Ok(None)
    }

    /// The `keep` best continuations of all beams, best first.
    fn candidates(&self, rows: &[Row<'_>], keep: usize) -> Result<Vec<Candidate>, SamplingError> {
        let penalty = self.settings.repetition_penalty;
        let mut all = Vec::new();
        for (beam, (running, row)) in self.running.iter().zip(rows).enumerate() {
            let leading = row.leading();
            let scored = match leading.and_then(|l| enough(l, &running.ids, penalty, keep)) {
                Some(scored) => scored,
                None => every(&row.all(), &running.ids, penalty).ok_or(SamplingError::NoFinite)?,
            };
            all.extend(scored.into_iter().map(|(token, score)| Candidate {
                score: score + running.score,
                beam,
                token,
            }));
        }
        let better = |a: &Candidate, b: &Candidate| {
            let order = b.score.total_cmp(&a.score);
            order.then((a.beam, a.token).cmp(&(b.beam, b.token)))
        };
        if keep < all.len() {
            all.select_nth_unstable_by(keep, better);
            all.truncate(keep);
        }
        all.sort_unstable_by(better);
        Ok(all)
    }

    fn norm(&self, length: usize) -> f32 {
        (length as f32).powf(self.settings.length_penalty)
    }

    /// Whether no running beam, the best of which has the score `best` after `length`
    /// tokens, is expected to do better than the worst finished one.
    fn is_over(&self, best: f32, length: usize, options: &super::GenerateOptions) -> bool {
        if self.finished.len() < self.settings.num_beams {
            return false;
        }
        let longest = match self.settings.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if self.settings.length_penalty > 0.0 => options.max_new_tokens,
            EarlyStopping::Never | EarlyStopping::False => length,
        };
        let worst = self.finished.last().map_or(f32::NEG_INFINITY, |f| f.0);
        best / self.norm(longest) <= worst
    }

    /// Gives every beam a lane: the first child of a beam stays in its parent's, the
    /// others take lanes that nobody needs any more.
    fn settle(&mut self, next: Vec<(Running, usize)>) {
        let mut used = vec![false; self.settings.num_beams];
        let mut stays = Vec::with_capacity(next.len());
        for (_, parent) in &next {
            stays.push(!std::mem::replace(&mut used[*parent], true));
        }
        let mut free = (0..used.len()).filter(|lane| !used[*lane]);
        self.running.clear();
        for ((mut beam, source), stays) in next.into_iter().zip(stays) {
            if !stays && let Some(target) = free.next() {
                // The prompt's keys and values are the same in all lanes.
                let prompted = std::mem::replace(&mut self.prompted[target], true);
                let first = if prompted { self.prompt.len() } else { 0 };
                self.copies.push(Copy {
                    source,
                    target,
                    tokens: first..self.cached,
                });
                beam.lane = target;
            }
            self.running.push(beam);
        }
    }

    /// The best finished beam, or the best that there is.
    fn answer(&mut self, eos_ids: &[u32]) -> Vec<u32> {
        let best = self.finished.first().map(|(_, tokens)| tokens.clone());
        let mut answer = best.unwrap_or_else(|| {
            let running = self.running.first();
            running.map_or_else(Vec::new, |b| b.ids[self.prompt.len()..].to_vec())
        });
        if answer.last().is_some_and(|token| eos_ids.contains(token)) {
            answer.pop();
        }
        answer
    }
}

/// The best continuations of a beam with their penalized log-probabilities; `None` where
/// `keep` of them are not sure to be the best.
fn enough(leading: &Leading, seen: &[u32], penalty: f32, keep: usize) -> Option<Vec<(u32, f32)>> {
    let (_, largest) = *leading.numbers.first()?;
    let log_sum = leading.total?.ln() as f32;
    let scored = known(leading, seen, penalty, |logit| logit - largest - log_sum);
    (leading.all || scored.len() >= keep).then_some(scored)
}

/// All continuations of a beam with their penalized log-probabilities; `None` where no
/// logit is finite.
fn every(logits: &[f32], seen: &[u32], penalty: f32) -> Option<Vec<(u32, f32)>> {
    let scores = log_softmax(logits)?;
    let scores = penalized(&scores, seen, penalty);
    let scored = (0..).zip(scores.iter().copied());
    Some(scored.filter(|(_, score)| score.is_finite()).collect())
}

/// `None` where no logit is finite. NaN counts as minus infinity.
fn log_softmax(logits: &[f32]) -> Option<Vec<f32>> {
    let finite = logits.iter().copied().filter(|l| l.is_finite());
    let largest = finite.clone().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() {
        return None;
    }
    let sum: f64 = finite.map(|l| f64::from(l - largest).exp()).sum();
    let log_sum = sum.ln() as f32;
    let one = |l: &f32| match l.is_finite() {
        true => l - largest - log_sum,
        false => f32::NEG_INFINITY,
    };
    Some(logits.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn the_largest_logits_hold_the_best_continuations() {
        let random = Stream::new(3, &[]);
        let mut sure = 0;
        for case in 0..300_u64 {
            let pick = |at: u64, n: u64| random.bits(case << 16 | at) % n;
            let n = 1 + pick(0, 500);
            let logit = |i: u64| random.normal((case << 16) | (1000 + i)) * 4.0;
            let logits: Vec<f32> = (0..n).map(logit).collect();
            let seen: Vec<u32> = (0..pick(1, 40)).map(|i| pick(2 + i, n) as u32).collect();
            let penalty = [1.0, 1.2, 9.0][pick(50, 3) as usize];
            let keep = 1 + pick(51, 12) as usize;
            let leading = Leading::of(&logits, keep + 5, Some(1.0));
            let Some(mut got) = enough(&leading, &seen, penalty, keep) else {
                continue;
            };
            sure += 1;
            let mut want = every(&logits, &seen, penalty).unwrap();
            for list in [&mut got, &mut want] {
                list.sort_unstable_by(crate::ops::leading::descending);
                list.truncate(keep);
            }
            assert_eq!(got, want, "case {case}");
        }
        assert!(sure > 200, "{sure}");
    }
}
