//! One example of a data set, whatever file it came from.

use std::sync::Arc;

use super::chat::Conversation;
use crate::config::types::TaskKind;

/// One question, document or ready token row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// The file's own id, else the number of the example, from 1.
    pub id: String,
    /// The line where it starts, from 1 (SQuAD: the number of the question).
    pub row: usize,
    /// The kind of question, in a file that may mix tasks.
    pub kind: Option<TaskKind>,
    /// The task that the row of such a file names.
    pub task: Option<Arc<str>>,
    pub question: Option<String>,
    /// Shared: SQuAD asks several questions of one paragraph.
    pub context: Option<Arc<str>>,
    /// The options of a multiple-choice question, else empty.
    pub options: Vec<String>,
    /// Every reference answer; for multiple choice, the text of the right option.
    /// Empty only where the file was read for prediction and has no answer.
    pub answers: Vec<String>,
    /// The index of the right option, from 0.
    pub answer_index: Option<usize>,
    /// A whole document.
    pub text: Option<String>,
    /// The messages of a chat.
    pub conversation: Option<Arc<Conversation>>,
    /// Ready tokens.
    pub tokens: Option<TokenRow>,
    /// The columns that have no meaning of their own; prompts may use them.
    pub fields: Vec<(Arc<str>, String)>,
}

/// A row of the `tokens` format, taken as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRow {
    pub input_ids: Vec<u32>,
    /// As long as `input_ids`; -100 marks what is not supervised.
    pub labels: Vec<i64>,
}

/// The letter of option `index`: 0 is A. Data sets have at most 26 options.
pub fn option_letter(index: usize) -> char {
    char::from(b'A' + (index % 26) as u8)
}

impl Example {
    /// The letter of the right option.
    pub fn letter(&self) -> Option<char> {
        self.answer_index.map(option_letter)
    }
}
