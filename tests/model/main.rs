//! The model, its training and generation beside reference results.

mod best;
#[path = "../common/mod.rs"]
mod common;
mod generation;
mod gradients;
mod log;
mod packing;
mod paged;
mod reference;
mod tiles;
mod training_parity;
