//! Data: files -> examples -> prompts -> tokens and labels -> batches.

mod added_tokens;
pub mod batch;
pub mod chat;
mod delimited;
pub mod encode;
mod encode_chat;
pub mod error;
pub mod example;
mod fields;
pub mod formats;
mod guard;
mod hex;
mod json_list;
mod jsonl;
pub mod options;
pub mod pack;
mod parquet;
mod plain;
pub mod prompt;
mod reader;
mod sample;
pub mod shown;
pub mod split;
mod squad;
pub mod store;
#[cfg(test)]
mod tests;
pub mod tokenise;
pub mod tokenizer;
mod tokens;

pub use batch::{Schedule, ScheduleError, Window, Windows};
pub use chat::{ChatError, ChatTemplate, Conversation};
pub use encode::{EncodeError, EncodeReport, Encoded, Encoder};
pub use error::{DataError, RowProblem};
pub use example::{Example, TokenRow, option_letter};
pub use fields::{Answers, Tasks};
pub use formats::{Examples, Read, Want, read_examples};
pub use prompt::{PromptError, Prompter, Template};
pub use sample::{Brief, IGNORED, Sample};
pub use split::{Split, epoch_order, split};
pub use store::{Part, Samples, Store};
pub use tokenise::{Cache, Source, TokeniseError, Tokenised};
pub use tokenizer::{Tokenizer, TokenizerError};
