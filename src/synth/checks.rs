//! The checks that a pair has to pass: its answer stands on the abstract, and its
//! question has not been asked before.

use std::collections::{HashMap, HashSet};

use super::words::{content_words, numbers, says_no, word_pairs};
use super::{Kind, Pair};
use crate::evaluate::metrics::normalize;

/// Whether the answer stands on the abstract: at least the share `least` (0 to 1) of
/// its content words, and all of its numbers. A correction may repeat the question,
/// whose words count as well; a refusal has to say no and may name no number that
/// neither abstract nor question has.
///
/// # Errors
/// What is not covered.
pub fn grounded(text: &str, pair: &Pair, least: f64) -> Result<(), String> {
    if least == 0.0 {
        return Ok(());
    }
    let mut known = numbers(text);
    let mut sources = content_words(text);
    if pair.kind != Kind::Answer {
        known.extend(numbers(&pair.question));
        sources.extend(content_words(&pair.question));
    }
    if let Some(number) = numbers(&pair.answer).iter().find(|n| !known.contains(n)) {
        return Err(format!("the number {number} is not in the abstract"));
    }
    if pair.kind == Kind::Refusal {
        return match says_no(&pair.answer) {
            true => Ok(()),
            false => Err("a refusal that does not say no".to_string()),
        };
    }
    let sources: HashSet<String> = sources.into_iter().collect();
    let words = content_words(&pair.answer);
    let covered = words.iter().filter(|w| sources.contains(*w)).count();
    let share = covered as f64 / words.len().max(1) as f64;
    // An answer of numbers and small words alone has been checked above.
    if words.is_empty() || share >= least {
        return Ok(());
    }
    Err(format!(
        "{covered} of {} content words are in the abstract",
        words.len()
    ))
}

/// A question that was there before.
#[derive(Clone, Debug, PartialEq)]
pub struct Same {
    /// Its number, in the order of [`Questions::add`].
    pub earlier: usize,
    /// Shared word pairs over all word pairs of both, 0 to 1.
    pub overlap: f64,
}

/// Questions that are kept, and an index that finds those like another.
#[derive(Debug, Default)]
pub struct Questions {
    exact: HashMap<String, usize>,
    /// Which questions have a word pair.
    having: HashMap<String, Vec<usize>>,
    /// Word pairs of each question.
    sizes: Vec<usize>,
}

impl Questions {
    /// Adds a question, unless it is one that is there already after the normalisation
    /// of exact match, or shares more than `most` (0 to 1) of its word pairs with one
    /// (Jaccard): then that one, the likest.
    ///
    /// # Errors
    /// The question that was there before.
    pub fn add(&mut self, question: &str, most: f64) -> Result<(), Same> {
        let normal = normalize(question);
        if let Some(&earlier) = self.exact.get(&normal) {
            let overlap = 1.0;
            return Err(Same { earlier, overlap });
        }
        let pairs = word_pairs(&normal);
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for having in pairs.iter().filter_map(|pair| self.having.get(pair)) {
            for &earlier in having {
                *shared.entry(earlier).or_default() += 1;
            }
        }
        let overlap = |(&earlier, &shared): (&usize, &usize)| Same {
            earlier,
            overlap: shared as f64 / (pairs.len() + self.sizes[earlier] - shared) as f64,
        };
        // The first of those that are equally like.
        let likest = shared.iter().map(overlap).max_by(|a, b| {
            let by_overlap = a.overlap.total_cmp(&b.overlap);
            by_overlap.then(b.earlier.cmp(&a.earlier))
        });
        if let Some(same) = likest.filter(|same| same.overlap > most) {
            return Err(same);
        }
        let number = self.sizes.len();
        self.sizes.push(pairs.len());
        for pair in pairs {
            self.having.entry(pair).or_default().push(number);
        }
        self.exact.insert(normal, number);
        Ok(())
    }
}
