//! Decoder models described by data: HF configuration and weights in and out,
//! LoRA, NF4 weights, PEFT adapters; forward and backward layer by layer.

mod adapters;
mod attention;
pub mod bnb;
mod bnb_names;
pub mod checkpoint;
mod checkpoint_arch;
mod decoder;
mod dora;
pub mod export;
pub mod gguf;
mod gguf_error;
mod gguf_metadata;
pub mod hf_config;
pub mod host_table;
mod init;
mod kv_cache;
mod layer;
mod layer_context;
mod linear;
mod load;
mod lora;
mod mlp;
mod norm;
mod operands;
mod options;
mod params;
mod pass;
pub mod peft;
mod peft_patterns;
mod ragged;
pub mod rewrite;
mod save;
pub mod shards;
mod start;
mod weight;

pub use decoder::{Decoder, Keep, StepOptions};
pub use kv_cache::KvCache;
pub use load::{LoadError, load};
pub use mlp::{MLP_ROWS, tile_rows};
pub use norm::Norm;
pub use options::{Adaptation, LoadOptions};
pub use params::{Grads, ParamId, Params};
pub use pass::DropoutKey;
pub use ragged::Ragged;
pub use weight::Weight;
