//! Which pairs are kept, and why the others are not.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::journal::Journal;
use super::read::Abstract;
use crate::config::types::SynthConfig;
use crate::synth::{Kind, Pair, Questions, grounded, row};

/// A line of the report.
pub(super) struct Line {
    pub abstract_id: String,
    pub row: usize,
    /// `None` for what concerns an abstract as a whole.
    pub pair: Option<Pair>,
    /// `None` for a pair that is kept.
    pub reason: Option<(Reason, String)>,
}

/// Why something is not in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// The same abstract stands in the file twice.
    SameAbstract,
    Malformed,
    NoPairs,
    NotReviewed,
    Rejected,
    NotGrounded,
    Duplicate,
    NearDuplicate,
}

impl Reason {
    pub fn words(self) -> &'static str {
        match self {
            Reason::SameAbstract => "abstract given twice",
            Reason::Malformed => "malformed reply",
            Reason::NoPairs => "no usable reply",
            Reason::NotReviewed => "not reviewed",
            Reason::Rejected => "rejected in review",
            Reason::NotGrounded => "not grounded",
            Reason::Duplicate => "duplicate question",
            Reason::NearDuplicate => "near-duplicate question",
        }
    }
}

/// All pairs with their fate.
#[derive(Default)]
pub(super) struct Sorted {
    /// The texts that are kept.
    pub rows: Vec<String>,
    pub kept: IndexMap<&'static str, usize>,
    pub lines: Vec<Line>,
    pub requests: usize,
    pub surplus: usize,
}

impl Sorted {
    /// Lines that have a reason, by reason.
    pub fn counts(&self) -> IndexMap<Reason, usize> {
        let mut counts = IndexMap::new();
        for (reason, _) in self.lines.iter().filter_map(|line| line.reason.as_ref()) {
            *counts.entry(*reason).or_default() += 1;
        }
        counts
    }
}

/// Applies the checks to what the journal has, in the order of the file.
pub(super) fn sort(abstracts: &[Abstract], config: &SynthConfig, journal: &Journal) -> Sorted {
    let mut sorted = Sorted {
        kept: Kind::ALL.into_iter().map(|kind| (kind.word(), 0)).collect(),
        ..Sorted::default()
    };
    let mut seen = HashSet::new();
    let mut questions = Questions::default();
    let mut asked: Vec<(String, String)> = Vec::new();
    for one in abstracts {
        let line = |pair: Option<Pair>, reason: Option<(Reason, String)>| Line {
            abstract_id: one.id.clone(),
            row: one.row,
            pair,
            reason,
        };
        if !seen.insert(&one.hash) {
            let reason = (Reason::SameAbstract, String::new());
            sorted.lines.push(line(None, Some(reason)));
            continue;
        }
        let Some(entry) = journal.entry(&one.hash) else {
            continue;
        };
        sorted.requests += entry.requests;
        sorted.surplus += entry.surplus;
        for why in &entry.malformed {
            let reason = (Reason::Malformed, why.clone());
            sorted.lines.push(line(None, Some(reason)));
        }
        if entry.pairs.is_empty() {
            let attempts = format!("{} attempts", entry.malformed.len());
            sorted
                .lines
                .push(line(None, Some((Reason::NoPairs, attempts))));
        }
        for (i, pair) in entry.pairs.iter().enumerate() {
            let verdict = entry.review.as_ref().and_then(|v| v.get(i)?.clone());
            let checked = || {
                if let (true, Some(why)) = (config.review, &entry.no_review) {
                    return Err((Reason::NotReviewed, why.clone()));
                }
                if let (true, Some(why)) = (config.review, verdict) {
                    return Err((Reason::Rejected, why));
                }
                grounded(&one.text, pair, config.min_grounded)
                    .map_err(|why| (Reason::NotGrounded, why))?;
                questions
                    .add(&pair.question, config.max_overlap)
                    .map_err(|same| {
                        let (id, question) = &asked[same.earlier];
                        let of = format!("of '{question}' (abstract {id})");
                        match same.overlap >= 1.0 {
                            true => (Reason::Duplicate, of),
                            false => {
                                let percent = 100.0 * same.overlap;
                                (Reason::NearDuplicate, format!("{percent:.0} % {of}"))
                            }
                        }
                    })
            };
            let outcome = { checked }();
            if outcome.is_ok() {
                asked.push((one.id.clone(), pair.question.clone()));
                *sorted.kept.entry(pair.kind.word()).or_default() += 1;
                let context = config.context.then_some(one.text.as_str());
                let text = row(config.system.as_deref(), context, pair);
                sorted.rows.push(text);
            }
            sorted.lines.push(line(Some(pair.clone()), outcome.err()));
        }
    }
    sorted
}
