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
mod walk;
mod work;
mod workload;

use crate::config::types::{Config, Method, ModelInit, Optimizer, QuantMethod};
use crate::model::hf_config::ArchConfig;
use crate::model::lora_modules::lora_modules;
use crate::model::peft::{Adapter, PeftError};
use crate::ops::moments::{PAGE, Storage};

pub use fit::{Change, fit};
pub use meter::{Memory, Part, Phase};
pub use work::{Work, layer_product};
pub use workload::{Batch, Lengths, Similarity, Test, Workload};

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
    /// f32 activations and bf16 frozen weights: the CPU with `training.bf16`.
    pub const CPU_BF16: Precision = Precision {
        activation: 4,
        dense: 2,
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
    /// Rank of the adapter at each linear of each layer; 0 is none.
    pub ranks: Vec<Vec<usize>>,
    /// The adapter trains the lengths of rows as well.
    pub dora: bool,
    pub dropout: bool,
    pub optimizer: Optimizer,
    pub checkpointing: bool,
    /// What is kept between forward and backward lies in host memory.
    pub offloads: bool,
    pub precision: Precision,
    /// Weights are read from a checkpoint, not drawn.
    pub pretrained: bool,
    /// A new adapter begins with a part of the weights (PiSSA, LoftQ).
    pub decomposes: bool,
    /// The adapter's beginning is kept, to convert it by when it is saved (PiSSA).
    pub keeps_start: bool,
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
        let each = linears.len() / arch.num_layers;
        let mut ranks = vec![vec![0; each]; arch.num_layers];
        let mut dora = !full && lora.use_dora;
        let mut set = |module: &str, rank: usize| {
            if let Some(at) = linears.iter().position(|l| l.module == module) {
                ranks[at / each][at % each] = rank;
            }
        };
        match &lora.init_from {
            _ if full => {}
            Some(dir) => {
                let adapter = Adapter::read(dir, arch)?;
                dora = adapter.config.use_dora;
                for module in adapter.modules {
                    set(&module.module, module.r);
                }
            }
            None => {
                for module in lora_modules(lora, arch)? {
                    set(&module.linear.module, module.r);
                }
            }
        }
        let new = !full && lora.init_from.is_none();
        let pretrained = config.model.init == ModelInit::Pretrained;
        let quantised = !full && config.quantization.method == QuantMethod::Nf4;
        Ok(Recipe {
            arch: arch.clone(),
            full,
            nf4: quantised.then_some(Nf4Layout {
                block_size: config.quantization.block_size,
                double_quant: config.quantization.double_quant,
            }),
            ranks,
            dora,
            dropout: !full && lora.dropout > 0.0,
            optimizer: config.training.optimizer,
            checkpointing: config.training.gradient_checkpointing,
            offloads: config.training.activation_offloading,
            precision: Precision::F32,
            pretrained,
            decomposes: new && lora.init_lora_weights.decomposes(),
            keeps_start: new && lora.init_lora_weights.is_pissa(),
            second_base: match full {
                true => pretrained,
                false => lora.changes_base(),
            },
        })
    }

    /// `[out, in]` of a layer's linears, in the order of
    /// [`ArchConfig::layer_linears`].
    pub fn linears(&self) -> Vec<(u64, u64)> {
        let linears = self.arch.layer_linears(0).into_iter();
        linears
            .map(|l| (l.out_features as u64, l.in_features as u64))
            .collect()
    }

    /// Numbers that train.
    pub fn trainable(&self) -> u64 {
        if self.full {
            return self.arch.num_parameters() as u64;
        }
        let shapes = self.linears();
        let of_layer = |ranks: &Vec<usize>| -> u64 {
            let pairs = ranks.iter().zip(&shapes);
            pairs
                .map(|(r, (out, inn))| *r as u64 * (out + inn) + self.lengths_of(*r, *out))
                .sum()
        };
        self.ranks.iter().map(of_layer).sum()
    }

    /// The first layer that trains: `Decoder::lowest_trained`.
    fn lowest_trained(&self) -> usize {
        let mut layers = self.ranks.iter();
        let adapted = layers.position(|ranks| ranks.iter().any(|rank| *rank > 0));
        adapted.filter(|_| !self.full).unwrap_or(0)
    }

    /// DoRA's lengths at a linear of so many rows.
    fn lengths_of(&self, rank: usize, out: u64) -> u64 {
        match self.dora && rank > 0 {
            true => out,
            false => 0,
        }
    }

    /// DoRA's lengths at all linears.
    fn lengths(&self) -> u64 {
        let linears = self.linears();
        let all = self
            .ranks
            .iter()
            .flat_map(|ranks| ranks.iter().zip(&linears));
        all.map(|(rank, (out, _))| self.lengths_of(*rank, *out))
            .sum()
    }

    /// Numbers of each tensor that trains, and whether it is the table of an embedding.
    fn trained_tensors(&self) -> Vec<(u64, bool)> {
        if self.full {
            let tables = [Some(self.arch.embedding()), self.arch.position_embedding()];
            let is_table = |name: &str| tables.iter().flatten().any(|table| table.name == name);
            let parameters = self.arch.parameters();
            let all = parameters.iter();
            return all.map(|p| (p.numel() as u64, is_table(&p.name))).collect();
        }
        let shapes = self.linears();
        let pairs = self
            .ranks
            .iter()
            .flat_map(|ranks| ranks.iter().zip(&shapes));
        pairs
            .flat_map(|(r, (out, inn))| {
                let rank = *r as u64;
                [rank * out, rank * inn, self.lengths_of(*r, *out)]
            })
            .filter(|n| *n > 0)
            .map(|n| (n, false))
            .collect()
    }

    /// Bytes of the optimiser's moments: held on the device, and on the way to it
    /// during an update.
    fn moments(&self, on_cpu: bool) -> (u64, u64) {
        let storage =
            |(n, table): (u64, bool)| Storage::of(self.optimizer, n as usize, table, on_cpu);
        let tensors = self.trained_tensors();
        let held = tensors.iter().map(|t| storage(*t).bytes(t.0)).sum();
        let paged = tensors.iter().filter(|t| storage(**t) == Storage::Paged);
        let page = paged.map(|(n, _)| 2 * 4 * n.min(&(PAGE as u64))).max();
        (held, page.unwrap_or(0))
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
            qkv: arch.qkv_linears(),
        }
    }

    /// Weights of a layer that are kept in f32: norms and biases.
    fn vectors(&self) -> u64 {
        let arch = &self.arch;
        let prefix = format!("{}.", arch.layer_prefix(0));
        let all = arch.parameters().into_iter();
        all.filter(|p| p.shape.len() == 1 && p.name.starts_with(&prefix))
            .map(|p| p.numel() as u64)
            .sum()
    }

    /// Weights of the norm before the output projection.
    fn final_norm(&self) -> u64 {
        let all = self.arch.parameters().into_iter();
        all.filter(|p| p.name.starts_with(self.arch.final_norm()))
            .map(|p| p.numel() as u64)
            .sum()
    }

    /// Numbers of the table of learned positions.
    fn positions(&self) -> u64 {
        let table = self.arch.position_embedding();
        table.map_or(0, |p| p.numel() as u64)
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
    /// Linears that make q, k and v; the one after them closes attention.
    qkv: usize,
}

#[cfg(test)]
mod tests;
