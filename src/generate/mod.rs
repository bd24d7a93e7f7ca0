//! Generation: the engine with its KV cache, sampling, answer validation.

mod beams;
pub mod engine;
mod options;
mod room;
pub mod sampling;
mod scores;
mod single;
mod slot;
pub mod validate;

pub use engine::{Progress, generate, stream};
pub use options::{Beams, GenerateOptions};
pub use room::{NoRoom, Room};
pub use slot::Prompt;
