//! Why a sentence encoder cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use crate::data::tokenizer::TokenizerError;
use crate::model::checkpoint::CheckpointError;
use crate::model::hf_config::ConfigError;

/// Each names the file and what to do.
#[derive(Debug, Error)]
pub enum EmbedError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{}: no such file; a sentence encoder needs it: copy the model's whole directory", .0.display())]
    NoTokenizer(PathBuf),
    #[error(
        "{}: puts no special tokens ([CLS], [SEP]) around a text, which an encoder of the BERT family was \
         trained with: take the tokenizer.json that belongs to the model", .0.display()
    )]
    NoSpecialTokens(PathBuf),
    #[error("{}: {what}", file.display())]
    Layout { file: PathBuf, what: String },
    #[error(
        "{}: gives the token id {id}, but the model has a vocabulary of {vocab}: tokenizer.json belongs to \
         another model; copy it again from the model's page", file.display()
    )]
    Vocabulary {
        file: PathBuf,
        id: u32,
        vocab: usize,
    },
}
