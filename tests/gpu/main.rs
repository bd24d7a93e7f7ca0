//! What a GPU computes beside the CPU: software Vulkan with the feature `wgpu`, a
//! card with the feature `cuda`.

#[path = "../common/mod.rs"]
mod common;

mod generate;
mod ops;
mod paged;
mod training_steps;
