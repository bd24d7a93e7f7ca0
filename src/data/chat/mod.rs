//! Conversations: the model's chat template, and which of its text an assistant
//! has to learn.

mod jinja;
mod json;
mod limits;
mod rows;
mod tags;
mod template;
#[cfg(test)]
mod tests;
mod turns;

pub(super) use rows::{conversation, example, open};
pub use template::{ChatError, ChatTemplate, Rendered};
pub use turns::{Frame, Piece, frame, pieces};

use serde_json::Value;

/// The messages of one conversation, as the data file has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// Objects with `role` and `content`; other keys are there for the template.
    pub messages: Vec<Value>,
    /// Tool descriptions for the template; null where there are none.
    pub tools: Value,
}

/// A message of the form that chat templates expect.
pub fn message(role: &str, content: &str) -> Value {
    serde_json::json!({"role": role, "content": content})
}

/// The role of a message.
pub fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or("")
}
