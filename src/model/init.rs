//! A random start for a whole model, tensor by tensor, by the rules of
//! transformers' `_init_weights`: linear and embedding weights normal with
//! standard deviation `initializer_range`, biases zero, norm weights one, the
//! padding token's embedding zero.

use rayon::prelude::*;

use super::hf_config::{ArchConfig, Naming, Parameter};
use crate::rng::Stream;

/// Elements that one task draws.
const TASK: usize = 1 << 15;
const MODEL_STREAM: u64 = u64::from_be_bytes(*b"initmodl");
const LORA_STREAM: u64 = u64::from_be_bytes(*b"initlora");

/// The first values of `parameter`, row-major. They depend on the seed and the
/// parameter's name and shape alone, not on the order of the calls.
pub fn initial(parameter: &Parameter, arch: &ArchConfig, seed: u64) -> Vec<f32> {
    let n = parameter.numel();
    if parameter.name.ends_with(".bias") {
        return vec![0.0; n];
    }
    if parameter.shape.len() == 1 {
        return vec![1.0; n];
    }
    let stream = Stream::new(seed, &[MODEL_STREAM, name_key(&parameter.name)]);
    let mut std = arch.initializer_range as f32;
    // GPT-2 starts what is added to the residual smaller, the deeper the model.
    if arch.naming == Naming::Gpt2 && parameter.name.ends_with("c_proj.weight") {
        std /= (2.0 * arch.num_layers as f32).sqrt();
    }
    let mut values = vec![0.0; n];
    fill(&mut values, |i| stream.normal(i) * std);
    if let Some(pad) = arch.pad_token_id
        && *parameter == arch.embedding()
    {
        let width = parameter.shape[1];
        let row = values.chunks_exact_mut(width).nth(pad as usize);
        row.into_iter().for_each(|row| row.fill(0.0));
    }
    values
}

/// The start of LoRA's A of `[r, in_features]` for `module`: PEFT's
/// `kaiming_uniform_(a=sqrt(5))`, which is uniform within 1 / sqrt(in), or its
/// `gaussian`, normal with standard deviation 1 / r.
pub fn initial_lora_a(
    module: &str,
    r: usize,
    in_features: usize,
    gaussian: bool,
    seed: u64,
) -> Vec<f32> {
    let stream = Stream::new(seed, &[LORA_STREAM, name_key(module)]);
    let mut values = vec![0.0; r * in_features];
    if gaussian {
        fill(&mut values, |i| stream.normal(i) / r as f32);
        return values;
    }
    let bound = 1.0 / (in_features as f32).sqrt();
    fill(&mut values, |i| (2.0 * stream.uniform(i) - 1.0) * bound);
    values
}

/// A seed of the module's own, for the start of its decomposition.
pub(super) fn module_seed(module: &str, seed: u64) -> u64 {
    Stream::new(seed, &[LORA_STREAM, name_key(module)]).bits(0)
}

fn fill(values: &mut [f32], value: impl Fn(u64) -> f32 + Sync) {
    values
        .par_chunks_mut(TASK)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (i, v) in chunk.iter_mut().enumerate() {
                *v = value((task * TASK + i) as u64);
            }
        });
}

/// FNV-1a (Fowler, Noll and Vo) of a name: the same on every machine, unlike
/// the standard library's hash.
fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn arch() -> ArchConfig {
        let text = r#"{"model_type": "llama", "vocab_size": 1000, "hidden_size": 64,
            "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
            "initializer_range": 0.05, "pad_token_id": 3, "mlp_bias": true}"#;
        ArchConfig::from_json(text, Path::new("config.json")).unwrap()
    }

    fn parameter(name: &str) -> Parameter {
        let all = arch().parameters();
        all.into_iter().find(|p| p.name == name).unwrap()
    }

    #[test]
    fn weights_are_normal_norms_one_biases_zero() {
        let embedding = initial(&parameter("model.embed_tokens.weight"), &arch(), 1);
        assert!(embedding[3 * 64..4 * 64].iter().all(|v| *v == 0.0));
        let weight = initial(&parameter("lm_head.weight"), &arch(), 1);
        let n = weight.len() as f64;
        let mean = weight.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let var = weight.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
        assert!(
            mean.abs() < 1e-3 && (var.sqrt() - 0.05).abs() < 1e-3,
            "{mean} {var}"
        );
        let norm = initial(&parameter("model.norm.weight"), &arch(), 1);
        assert_eq!(norm, vec![1.0; 64]);
        let bias = initial(&parameter("model.layers.1.mlp.up_proj.bias"), &arch(), 1);
        assert_eq!(bias, vec![0.0; 160]);
    }

    #[test]
    fn the_start_depends_on_seed_and_name() {
        let q = |layer: usize, seed| {
            let name = format!("model.layers.{layer}.self_attn.q_proj.weight");
            initial(&parameter(&name), &arch(), seed)
        };
        assert_eq!(q(0, 7), q(0, 7));
        assert_ne!(q(0, 7), q(0, 8));
        assert_ne!(q(0, 7), q(1, 7));
    }

    #[test]
    fn lora_a_is_uniform_within_its_bound() {
        let a = initial_lora_a("model.layers.0.mlp.up_proj", 16, 400, false, 5);
        assert_eq!(a.len(), 16 * 400);
        let bound = 0.05f32;
        assert!(a.iter().all(|v| v.abs() <= bound));
        let var = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / a.len() as f64;
        assert!((var - 0.05f64.powi(2) / 3.0).abs() < 4e-5, "{var}");
        let other = initial_lora_a("model.layers.1.mlp.up_proj", 16, 400, false, 5);
        assert_ne!(a, other);
    }

    #[test]
    fn lora_a_is_normal_where_gaussian_is_asked_for() {
        let a = initial_lora_a("model.layers.0.mlp.up_proj", 16, 4000, true, 5);
        let n = a.len() as f64;
        let mean = a.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let var = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 1e-3, "{mean}");
        assert!((var.sqrt() * 16.0 - 1.0).abs() < 0.02, "{var}");
    }
}
