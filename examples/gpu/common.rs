//! What the parts share: the device, the config's defaults, what is trained.

use anyhow::{Context, Result};
use burn::tensor::{DType, Device};
use kiln::compose::{Map, Node, Origin, Value};
use kiln::config::Config;
use kiln::config::types::{LoraConfig, QuantMethod, QuantizationConfig, TargetModules};
use kiln::ops::{AttentionShape, Precision, Span, Spans};

/// The device that this build measures: the first NVIDIA GPU, or software Vulkan.
#[cfg(not(feature = "wgpu"))]
pub fn card() -> Result<Device> {
    Ok(kiln::device::choose("cuda")?.device)
}

#[cfg(feature = "wgpu")]
pub fn card() -> Result<Device> {
    kiln::device::for_checks().context("there is no software Vulkan")
}

pub fn has_bf16(device: &Device) -> bool {
    device.supports_dtype(DType::BF16)
}

/// bf16 where the device has it, unless it `must_be_f32`.
pub fn precision(device: &Device, must_be_f32: bool) -> Precision {
    match has_bf16(device) && !must_be_f32 {
        true => Precision::Bf16,
        false => Precision::F32,
    }
}

pub fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// The built-in defaults of every key.
pub fn defaults() -> Result<Config> {
    let empty = Node {
        value: Value::Map(Map::new()),
        origin: Origin::BuiltIn,
    };
    kiln::config::from_tree(&empty).context("the built-in defaults")
}

/// LoRA on all linear layers, alpha twice the rank.
pub fn all_linear(r: usize, dropout: f64) -> Result<LoraConfig> {
    Ok(LoraConfig {
        r,
        alpha: 2.0 * r as f64,
        dropout,
        target_modules: TargetModules::Named("all-linear".into()),
        ..defaults()?.lora
    })
}

pub fn double_nf4() -> QuantizationConfig {
    QuantizationConfig {
        method: QuantMethod::Nf4,
        double_quant: true,
        block_size: 64,
    }
}

/// Attention of heads over `hidden` numbers, without a window.
pub fn attention_shape(hidden: usize, heads: usize, kv_heads: usize) -> AttentionShape {
    let head_dim = hidden / heads;
    AttentionShape {
        heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window: None,
    }
}

/// Packed documents of `length` tokens, the last with what is left of `tokens`.
pub fn documents(tokens: usize, length: usize) -> Spans {
    let mut spans = Spans::default();
    for start in (0..tokens).step_by(length) {
        let len = length.min(tokens - start);
        spans.push(Span {
            q_start: start,
            q_len: len,
            k_start: start,
            k_len: len,
        });
    }
    spans
}
