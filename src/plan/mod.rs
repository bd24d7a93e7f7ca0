//! What a training run needs, worked out without running it: bytes by component,
//! operations, steps. Pure functions of the model's shape, the config and the
//! sizes of the batches; nothing here reads files or asks the machine.
//!
//! [`memory`](Recipe::memory) walks through a run as `experiment::train` and
//! `model` do it, and counts each tensor where they make it and where they let it
//! go; the largest sum on the way is the plan. docs/memory.md explains the
//! components and compares them with measured runs.

mod fit;
mod meter;
mod oom;
mod walk;
mod work;
mod workload;

use crate::config::types::{Config, Method, Optimizer, QuantMethod};
use crate::model::hf_config::ArchConfig;
use crate::model::peft::{Adapter, PeftError, resolve_targets};
use crate::ops::moments::{PAGE, Storage};

pub use fit::{Change, fit};
pub use meter::{Memory, Part, Phase};
pub use oom::{Asked, out_of_memory};
pub use work::{Work, layer_product};
pub use workload::{Batch, Lengths, Test, Workload};

/// What the CUDA driver takes for a context before the first tensor. An allowance:
/// it has not been measured on a card yet.
pub const CONTEXT_BYTES: u64 = 512 << 20;

/// Where a run computes, as far as memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Cpu {
        /// What the process holds before the model is loaded.
        program_bytes: u64,
        threads: usize,
    },
    Gpu,
}

/// Bytes of a number, by what it is for. Adapters, their gradients and moments
/// are f32 everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Activations and their gradients.
    pub activation: u64,
    /// Frozen weights that are not quantised, and dequantised ones.
    pub dense: u64,
}

impl Precision {
    /// f32, in which the CPU computes.
    pub const F32: Precision = Precision {
        activation: 4,
        dense: 4,
    };
    /// bf16, in which a GPU that has it computes.
    pub const BF16: Precision = Precision {
        activation: 2,
        dense: 2,
    };
}

/// How NF4 weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nf4Layout {
    pub block_size: usize,
    pub double_quant: bool,
}

impl Nf4Layout {
    /// Bytes of the 4-bit codes and of the scales of `n` weights.
    pub fn bytes(&self, n: u64) -> (u64, u64) {
        const NESTED_BLOCK: u64 = 256;
        let blocks = n.div_ceil(self.block_size as u64);
        let scales = match self.double_quant {
            // A code a block, a scale for every 256 of them, their mean.
            true => blocks + 4 * blocks.div_ceil(NESTED_BLOCK) + 4,
            false => 4 * blocks,
        };
        (n.div_ceil(2), scales)
    }
}

/// Everything about a run but its batches that memory and work depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub arch: ArchConfig,
    /// Every weight trains (`method: full`).
    pub full: bool,
    /// Of the linear layers; `None` where they are dense.
    pub nf4: Option<Nf4Layout>,
    /// Rank of the adapter at q, k, v, o, gate, up and down of each layer; 0 is none.
    pub ranks: Vec<[usize; 7]>,
    pub dropout: bool,
    pub optimizer: Optimizer,
    pub checkpointing: bool,
    pub precision: Precision,
    /// The untouched base is loaded beside the tuned model and scored
    /// (`method: full` on a checkpoint with a test set).
    pub second_base: bool,
}

impl Recipe {
    /// The recipe of a config for a model of this shape.
    ///
    /// # Errors
    /// `lora.target_modules` names no layer, or `lora.init_from` does not fit.
    pub fn new(arch: &ArchConfig, config: &Config) -> Result<Recipe, PeftError> {
        let full = config.method == Method::Full;
        let lora = &config.lora;
        let linears = arch.linears();
        let mut ranks = vec![[0; 7]; arch.num_layers];
        let mut set = |module: &str, rank: usize| {
            if let Some(at) = linears.iter().position(|l| l.module == module) {
                ranks[at / 7][at % 7] = rank;
            }
        };
        match &lora.init_from {
            _ if full => {}
            Some(dir) => {
                for module in Adapter::read(dir, arch)?.modules {
                    set(&module.module, module.r);
                }
            }
            None => {
                for linear in resolve_targets(&lora.target_modules, arch)? {
                    set(&linear.module, lora.r);
                }
            }
        }
        let quantised = !full && config.quantization.method == QuantMethod::Nf4;
        Ok(Recipe {
            arch: arch.clone(),
            full,
            nf4: quantised.then_some(Nf4Layout {
                block_size: config.quantization.block_size,
                double_quant: config.quantization.double_quant,
            }),
            ranks,
            dropout: !full && lora.dropout > 0.0,
            optimizer: config.training.optimizer,
            checkpointing: config.training.gradient_checkpointing,
            precision: Precision::F32,
            second_base: full && config.model.init == crate::config::types::ModelInit::Pretrained,
        })
    }

    /// `[out, in]` of q, k, v, o, gate, up and down.
    pub fn linears(&self) -> [(u64, u64); 7] {
        let Dims { d, f, hq, hk, .. } = self.dims();
        [(hq, d), (hk, d), (hk, d), (d, hq), (f, d), (f, d), (d, f)]
    }

    /// Numbers that train.
    pub fn trainable(&self) -> u64 {
        if self.full {
            return self.arch.num_parameters() as u64;
        }
        let shapes = self.linears();
        let of_layer = |ranks: &[usize; 7]| -> u64 {
            let pairs = ranks.iter().zip(shapes);
            pairs.map(|(r, (out, inn))| *r as u64 * (out + inn)).sum()
        };
        self.ranks.iter().map(of_layer).sum()
    }

    /// Numbers of each tensor that trains; without the small ones of a model that
    /// trains whole.
    fn trained_tensors(&self) -> Vec<u64> {
        let Dims { d, vocab, .. } = self.dims();
        let shapes = self.linears();
        if self.full {
            let head = u64::from(!self.arch.tie_word_embeddings);
            let ends = (0..1 + head).map(|_| vocab * d);
            let layers = (0..self.arch.num_layers).flat_map(|_| shapes.map(|(o, i)| o * i));
            return ends.chain(layers).collect();
        }
        let pairs = self.ranks.iter().flat_map(|ranks| ranks.iter().zip(shapes));
        pairs
            .flat_map(|(r, (out, inn))| [*r as u64 * out, *r as u64 * inn])
            .filter(|n| *n > 0)
            .collect()
    }

    /// Bytes of the optimiser's moments: held on the device, and on the way to it
    /// during an update.
    fn moments(&self, on_cpu: bool) -> (u64, u64) {
        let storage = |n: u64| Storage::of(self.optimizer, n as usize, on_cpu);
        let tensors = self.trained_tensors();
        let large: u64 = tensors.iter().map(|n| storage(*n).bytes(*n)).sum();
        let small = self.trainable() - tensors.iter().sum::<u64>();
        let paged = tensors.iter().filter(|n| storage(**n) == Storage::Paged);
        let page = paged.map(|n| 2 * 4 * n.min(&(PAGE as u64))).max();
        (large + Storage::Plain.bytes(small), page.unwrap_or(0))
    }

    /// Numbers in the model, the adapter's included.
    pub fn parameters(&self) -> u64 {
        let base = self.arch.num_parameters() as u64;
        if self.full {
            base
        } else {
            base + self.trainable()
        }
    }

    fn dims(&self) -> Dims {
        let arch = &self.arch;
        Dims {
            d: arch.hidden_size as u64,
            f: arch.intermediate_size as u64,
            hq: (arch.num_heads * arch.head_dim) as u64,
            hk: (arch.num_kv_heads * arch.head_dim) as u64,
            heads: arch.num_heads as u64,
            vocab: arch.vocab_size as u64,
        }
    }
}

/// Widths of the model.
#[derive(Clone, Copy)]
struct Dims {
    /// Hidden.
    d: u64,
    /// Of the feed-forward layer.
    f: u64,
    /// Of all query heads together, and of all key heads.
    hq: u64,
    hk: u64,
    heads: u64,
    vocab: u64,
}

#[cfg(test)]
mod tests;
