//! Kiln fine-tunes language models for question answering from one command line.
pub mod ops;
pub mod rng;
