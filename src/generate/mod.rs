//! Generation: the engine with its KV cache, sampling, answer validation.

pub mod engine;
pub mod sampling;
pub mod validate;

pub use engine::{GenerateOptions, Prompt, generate};
