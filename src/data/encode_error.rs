//! Why examples cannot be encoded, with the row and the way out.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::chat::ChatError;
use super::error::list;
use super::example::Example;
use super::prompt::PromptError;
use super::tokenizer::TokenizerError;

/// Why examples cannot be encoded.
#[derive(Debug, Error)]
pub enum EncodeError {
    #[error(transparent)]
    Template(PromptError),
    #[error("{path}:{row}: {error}", path = path.display())]
    Prompt {
        path: PathBuf,
        row: usize,
        error: PromptError,
    },
    #[error("{path}:{row}: {error}", path = path.display())]
    Tokenizer {
        path: PathBuf,
        row: usize,
        error: TokenizerError,
    },
    #[error("{path}:{row}: text needs a tokenizer and the model directory has none: add tokenizer.json to it, or give ready tokens (data.format=tokens)",
        path = path.display())]
    NoTokenizer { path: PathBuf, row: usize },
    #[error("{0}")]
    NoChat(String),
    #[error("{path}:{row}: {error}", path = path.display())]
    Chat {
        path: PathBuf,
        row: usize,
        error: ChatError,
    },
    #[error("{path}:{row}: {key} is set, but this row has no messages and no question: unset {key}, or give conversations (data.format=chat)",
        path = path.display())]
    NotChat {
        path: PathBuf,
        row: usize,
        key: &'static str,
    },
    #[error("{path}:{first}: training.max_seq_length={max_length} leaves no supervised token in {count} of the samples (rows {rows}): set training.max_seq_length={fits}",
        path = path.display(), rows = few(rows), first = rows.first().copied().unwrap_or(0), count = rows.len())]
    Truncation {
        path: PathBuf,
        rows: Vec<usize>,
        max_length: usize,
        fits: usize,
    },
    #[error("{path}:{first}: no supervised token in {count} of the samples (rows {rows}): remove them, or give them an answer or labels that are not all -100 (the first position never counts)",
        path = path.display(), rows = few(rows), first = rows.first().copied().unwrap_or(0), count = rows.len())]
    Unsupervised { path: PathBuf, rows: Vec<usize> },
    #[error("{path}:{row}: training.max_seq_length={max_length} leaves no room for a prompt before the longest option, which takes {answer} tokens: set training.max_seq_length={fits}, or shorten the option",
        path = path.display())]
    LongOption {
        path: PathBuf,
        row: usize,
        max_length: usize,
        answer: usize,
        fits: usize,
    },
}

impl EncodeError {
    /// Whether other rows can be encoded.
    pub(super) fn is_of_one_row(&self) -> bool {
        matches!(
            self,
            Self::Prompt { .. } | Self::Chat { .. } | Self::NotChat { .. }
        )
    }
}

/// The first rows of many.
fn few(rows: &[usize]) -> String {
    match rows.len() {
        0..=8 => list(rows),
        n => format!("{} and {} more", list(&rows[..8]), n - 8),
    }
}

pub(super) fn prompt_error(error: PromptError, example: &Example, path: &Path) -> EncodeError {
    EncodeError::Prompt {
        path: path.to_path_buf(),
        row: example.row,
        error,
    }
}

pub(super) fn tokenizer_error(
    error: TokenizerError,
    example: &Example,
    path: &Path,
) -> EncodeError {
    EncodeError::Tokenizer {
        path: path.to_path_buf(),
        row: example.row,
        error,
    }
}
