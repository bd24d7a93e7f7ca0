//! Generation: the engine with its KV cache, sampling, answer validation.

pub mod beams;
pub mod engine;
mod room;
pub mod sampling;
mod single;
pub mod validate;

pub use beams::Beams;
pub use engine::{GenerateOptions, Progress, Prompt, generate, stream};
pub use room::{NoRoom, Room};
