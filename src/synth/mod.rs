//! Questions and answers made of abstracts: what a model is asked for, how its replies
//! are read, and the checks that a pair has to pass. Knows nothing of files or of who
//! is asked.

mod checks;
mod prompt;
#[cfg(test)]
mod tests;
mod words;

pub use checks::{Questions, Same, grounded};
pub use prompt::{
    Malformed, PROMPTS, Verdict, Wanted, again, read_pairs, read_review, review_chat, row,
    write_chat,
};

use serde::{Deserialize, Serialize};

/// What a pair teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The abstract answers the question.
    Answer,
    /// It does not, and the answer says so.
    Refusal,
    /// The question supposes something false, which the answer corrects.
    Correction,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Answer, Kind::Refusal, Kind::Correction];

    /// The word for it in replies and reports.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Answer => "answer",
            Kind::Refusal => "refusal",
            Kind::Correction => "correction",
        }
    }
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub kind: Kind,
    pub question: String,
    pub answer: String,
}
