//! Models that answer chats: one behind an OpenAI-compatible endpoint, or one from a
//! local directory. Who asks does not see which.

mod endpoint;
mod error;
mod local;
mod reply;
#[cfg(test)]
mod tests;

pub use endpoint::{Endpoint, Settings};
pub use error::AskError;
pub use local::Local;
pub use reply::{first_json, without_thoughts};

use serde_json::Value;

/// What a chat got: the text, or why there is none.
pub type Outcome = Result<String, AskError>;

/// A model that answers chats.
pub trait Ask {
    /// Asks all chats (messages with `role` and `content`, see [`crate::data::chat::message`])
    /// and tells `done` of each as soon as it is answered, in any order. After an error
    /// that concerns more than its chat ([`AskError::is_of_one_chat`]) the rest is left
    /// unasked.
    fn ask(&mut self, chats: &[Vec<Value>], done: &mut dyn FnMut(usize, Outcome));

    /// How many chats are best asked at once.
    fn at_once(&self) -> usize;

    /// Who answers, for logs: a model and where it is.
    fn name(&self) -> String;
}
