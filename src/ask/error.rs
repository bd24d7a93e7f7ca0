//! Why a chat has no answer, and what to do about it.

use std::path::PathBuf;

use thiserror::Error;

use crate::data::EncodeError;
use crate::data::tokenizer::TokenizerError;
use crate::generate::NoRoom;
use crate::generate::sampling::SamplingError;

/// A failure to get an answer. `keys` is the section that the keys to change are in,
/// `synth` or `judge`.
#[derive(Debug, Error)]
pub enum AskError {
    #[error(
        "{keys}.base_url={url}: is not an address: write http://HOST:PORT/v1 or https://HOST/v1"
    )]
    Address { keys: &'static str, url: String },
    #[error(
        "{keys}.base_url holds a user name or password, which would be written into files: take it \
         out, and put a key into the environment variable that {keys}.api_key_env names"
    )]
    Secret { keys: &'static str },
    #[error(
        "{keys}.model is not set: name the model that {url} is to answer with, e.g. {keys}.model=NAME"
    )]
    NoModel { keys: &'static str, url: String },
    #[error(
        "nobody to ask: name an OpenAI-compatible endpoint ({keys}.base_url=URL {keys}.model=NAME), \
         or a local model ({keys}.path=DIR)"
    )]
    Nobody { keys: &'static str },
    #[error(
        "{keys}.base_url and {keys}.path are both set: ask the endpoint or the local model, and \
         set the other to null"
    )]
    Both { keys: &'static str },
    #[error(
        "the environment variable {variable} ({keys}.api_key_env) holds a line end or another \
         character that no key has: set it anew"
    )]
    BadKey {
        keys: &'static str,
        variable: String,
    },
    #[error(
        "{}: cannot read the certificates: {cause}; correct SSL_CERT_FILE or unset it", .path.display()
    )]
    Certificates {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{url} cannot be reached: {cause}: check {keys}.base_url and whether the server runs")]
    Unreachable {
        keys: &'static str,
        url: String,
        cause: String,
    },
    #[error("{url} refused the key ({status}{message}): {remedy}")]
    KeyRefused {
        url: String,
        status: u16,
        message: String,
        remedy: String,
    },
    #[error(
        "{url} knows no such address or model (404{message}): check {keys}.base_url, which ends \
         before /chat/completions, and {keys}.model={model}"
    )]
    NotFound {
        keys: &'static str,
        url: String,
        model: String,
        message: String,
    },
    #[error(
        "{url} refused the request ({status}{message}): check {keys}.model and {keys}.max_tokens"
    )]
    Refused {
        keys: &'static str,
        url: String,
        status: u16,
        message: String,
    },
    #[error(
        "{url} redirects to {to}, and a key is not sent on to another address: set \
         {keys}.base_url to the one that is meant"
    )]
    Redirect {
        keys: &'static str,
        url: String,
        to: String,
    },
    #[error(
        "{url} did not answer after {tries} tries ({last}): wait and run the same command again, \
         ask less at once ({keys}.concurrency) or try longer ({keys}.max_retries)"
    )]
    Busy {
        keys: &'static str,
        url: String,
        tries: usize,
        last: String,
    },
    #[error(
        "{url} wants {seconds} s of patience (Retry-After), more than the {most} s that are waited: \
         run the same command again later"
    )]
    WaitTooLong {
        url: String,
        seconds: u64,
        most: u64,
    },
    #[error(
        "{url} answers with something that is no chat completion ({what}): check {keys}.base_url, \
         which is that of an OpenAI-compatible API, e.g. http://127.0.0.1:8000/v1"
    )]
    NotAnApi {
        keys: &'static str,
        url: String,
        what: String,
    },
    #[error("the answer was cut off at {keys}.max_tokens={limit}: raise it")]
    Truncated { keys: &'static str, limit: usize },
    #[error("no text in the answer{0}")]
    NoText(String),
    #[error(
        "the chat takes {tokens} tokens and the answer up to {answer}, but the model has learned \
         {most} positions: shorten the text or lower {keys}.max_tokens"
    )]
    TooLong {
        keys: &'static str,
        tokens: usize,
        answer: usize,
        most: usize,
    },
    #[error(
        "{keys}.path={}: token id {id} of the chat is outside the model's vocabulary of {vocab}: \
         tokenizer.json belongs to another model; copy it again from the model's page", .path.display()
    )]
    Vocabulary {
        keys: &'static str,
        path: PathBuf,
        id: u32,
        vocab: usize,
    },
    #[error("{room}: lower {keys}.max_tokens, or ask less at once ({keys}.concurrency)")]
    NoRoom { keys: &'static str, room: NoRoom },
    #[error("{}: {error}; {keys}.path needs a model that was tuned for chat", .path.display())]
    NoChat {
        keys: &'static str,
        path: PathBuf,
        error: String,
    },
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

impl AskError {
    /// Whether another chat, or the same one again, may well be answered.
    pub fn is_of_one_chat(&self) -> bool {
        matches!(
            self,
            Self::Truncated { .. } | Self::NoText(_) | Self::TooLong { .. }
        )
    }
}
