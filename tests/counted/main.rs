//! What is in memory at most, counted by the allocator.

#[path = "../common/mod.rs"]
mod common;

mod allocator;
mod data_stream;
mod encoder;
mod plan;
