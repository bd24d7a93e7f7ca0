//! The asking: abstracts wait for pairs, pairs for their review, until each is done or
//! its attempts are used up.

use std::collections::VecDeque;

use serde_json::Value;

use super::journal::{Entry, Journal};
use super::read::Abstract;
use crate::ask::{Ask, AskError, Outcome};
use crate::config::types::SynthConfig;
use crate::experiment::error::SynthError;
use crate::synth::{Pair, Wanted, again, read_pairs, read_review, review_chat, write_chat};

/// Chats in a round for each that is asked at once, so that one slow answer does not
/// hold up the others for long.
const ROUND: usize = 4;

/// An abstract on its way.
struct Open<'a> {
    text: &'a str,
    entry: Entry,
    chat: Vec<Value>,
    /// Attempts at the present step.
    attempts: usize,
    /// The most pairs that a malformed reply had.
    best: Vec<Pair>,
}

/// How many pairs of each kind the config asks for.
pub(super) fn wanted(config: &SynthConfig) -> Wanted {
    Wanted {
        answers: config.answers,
        refusals: config.refusals,
        corrections: config.corrections,
    }
}

/// Whether nothing is left to ask about an abstract. What failed is asked about again
/// where the config now allows more attempts or longer replies.
pub(super) fn is_done(entry: &Entry, config: &SynthConfig) -> bool {
    let larger =
        config.max_attempts > entry.max_attempts || config.asked.max_tokens > entry.max_tokens;
    match (entry.pairs.is_empty(), config.review, &entry.review) {
        (true, ..) => !larger,
        (false, false, _) | (false, true, Some(_)) => true,
        (false, true, None) => entry.no_review.is_some() && !larger,
    }
}

/// Asks about every abstract that the journal does not have whole, and tells `done` of
/// each that is finished.
///
/// # Errors
/// An error that concerns more than one chat, or a journal that cannot be written. What
/// came before stands in the journal.
pub(super) fn ask_all(
    abstracts: &[&Abstract],
    config: &SynthConfig,
    asker: &mut dyn Ask,
    journal: &mut Journal,
    done: &mut dyn FnMut(),
) -> Result<(), SynthError> {
    let wanted = wanted(config);
    let mut waiting: VecDeque<Open<'_>> = VecDeque::new();
    for one in abstracts {
        match journal.entry(&one.hash) {
            Some(entry) if is_done(entry, config) => done(),
            had => {
                let mut entry = had.cloned().unwrap_or_default();
                entry.text.clone_from(&one.hash);
                entry.no_review = None;
                entry.max_attempts = config.max_attempts;
                entry.max_tokens = config.asked.max_tokens;
                waiting.push_back(Open::new(&one.text, entry, &wanted));
            }
        }
    }
    while !waiting.is_empty() {
        let size = waiting.len().min(asker.at_once().max(1) * ROUND);
        let mut round: Vec<Option<Open<'_>>> = waiting.drain(..size).map(Some).collect();
        let chats: Vec<Vec<Value>> = round.iter().flatten().map(|o| o.chat.clone()).collect();
        let mut next = Vec::new();
        let mut failed = None;
        asker.ask(&chats, &mut |at, outcome| {
            let Some(open) = round.get_mut(at).and_then(Option::take) else {
                return;
            };
            match open.take(outcome, config, &wanted, journal) {
                Ok(Some(open)) => next.push((at, open)),
                Ok(None) => done(),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        // In the order of the file, whoever answered first; those begun go first.
        next.sort_by_key(|(at, _)| *at);
        for (_, open) in next.into_iter().rev() {
            waiting.push_front(open);
        }
    }
    Ok(())
}

impl<'a> Open<'a> {
    /// At the step that the entry has come to: pairs are to be written, or reviewed.
    fn new(text: &'a str, entry: Entry, wanted: &Wanted) -> Self {
        let chat = match entry.pairs.is_empty() {
            true => write_chat(text, wanted),
            false => review_chat(text, &entry.pairs),
        };
        Self {
            text,
            chat,
            entry,
            attempts: 0,
            best: Vec::new(),
        }
    }

    /// Takes a reply; what is to be asked next, if anything.
    fn take(
        mut self,
        outcome: Outcome,
        config: &SynthConfig,
        wanted: &Wanted,
        journal: &mut Journal,
    ) -> Result<Option<Self>, SynthError> {
        self.attempts += 1;
        self.entry.requests += 1;
        let reply = match outcome {
            Ok(reply) => Ok(reply),
            Err(error) if error.is_of_one_chat() => Err(error),
            Err(error) => return Err(error.into()),
        };
        let last = self.attempts >= config.max_attempts;
        match self.entry.pairs.is_empty() {
            true => self.take_pairs(reply, wanted, last, config, journal),
            false => self.take_review(reply, last, journal),
        }
    }

    fn take_pairs(
        mut self,
        reply: Result<String, AskError>,
        wanted: &Wanted,
        last: bool,
        config: &SynthConfig,
        journal: &mut Journal,
    ) -> Result<Option<Self>, SynthError> {
        let (why, usable) = match &reply {
            Err(error) => (error.to_string(), Vec::new()),
            Ok(text) => match read_pairs(text, wanted) {
                Ok((pairs, surplus)) => {
                    self.entry.pairs = pairs;
                    self.entry.surplus = surplus;
                    return self.written(config, wanted, journal);
                }
                Err(malformed) => (malformed.why, malformed.usable),
            },
        };
        if usable.len() > self.best.len() {
            self.best = usable;
        }
        self.entry.malformed.push(why.clone());
        if last {
            self.entry.pairs = self.best.split_off(0);
            return self.written(config, wanted, journal);
        }
        self.chat = match &reply {
            Ok(text) => again(write_chat(self.text, wanted), text, &why),
            Err(_) => write_chat(self.text, wanted),
        };
        Ok(Some(self))
    }

    /// The pairs are there; the journal keeps them before their review is asked for.
    fn written(
        self,
        config: &SynthConfig,
        wanted: &Wanted,
        journal: &mut Journal,
    ) -> Result<Option<Self>, SynthError> {
        journal.add(self.entry.clone())?;
        Ok(match is_done(&self.entry, config) {
            true => None,
            false => Some(Self::new(self.text, self.entry, wanted)),
        })
    }

    fn take_review(
        mut self,
        reply: Result<String, AskError>,
        last: bool,
        journal: &mut Journal,
    ) -> Result<Option<Self>, SynthError> {
        let why = match &reply {
            Err(error) => error.to_string(),
            Ok(text) => match read_review(text, self.entry.pairs.len()) {
                Ok(verdicts) => {
                    self.entry.review = Some(verdicts);
                    journal.add(self.entry)?;
                    return Ok(None);
                }
                Err(why) => why,
            },
        };
        self.entry.malformed.push(why.clone());
        if last {
            self.entry.no_review = Some(why);
            journal.add(self.entry)?;
            return Ok(None);
        }
        let chat = review_chat(self.text, &self.entry.pairs);
        self.chat = match &reply {
            Ok(text) => again(chat, text, &why),
            Err(_) => chat,
        };
        Ok(Some(self))
    }
}
