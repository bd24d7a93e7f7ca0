//! What a model is loaded with.

use std::path::Path;

use burn::tensor::Device;

use crate::config::types::{LoraConfig, ModelInit, QuantizationConfig};
use crate::ops::Precision;

/// What trains beside or instead of the base weights.
#[derive(Clone, Copy)]
pub enum Adaptation<'a> {
    /// The base alone.
    None,
    /// New LoRA matrices, or those of `lora.init_from`.
    Lora(&'a LoraConfig),
    /// The LoRA matrices of an adapter directory, for inference.
    Adapter(&'a Path),
    /// Every weight trains.
    Full,
}

/// Where a model comes from and how it is held.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// HF directory.
    pub dir: &'a Path,
    pub init: ModelInit,
    pub quantization: &'a QuantizationConfig,
    pub adaptation: Adaptation<'a>,
    /// For random weights and LoRA's A.
    pub seed: u64,
    pub device: &'a Device,
    /// Of activations and of weights that are not quantised.
    pub precision: Precision,
}
