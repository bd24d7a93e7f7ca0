//! How an optimiser keeps its two moments of a parameter.

use super::moments8::{BLOCK, LEAST};
use crate::config::types::Optimizer as Kind;

/// Numbers of each paged moment that are on the device at once, 32 MiB in f32.
pub const PAGE: usize = 8 << 20;

/// Where and how wide both moments of a parameter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// f32, where the parameter is.
    Plain,
    /// 8 bits, where the parameter is.
    Blockwise,
    /// f32, on the host.
    Paged,
}

impl Storage {
    /// That of a parameter of so many numbers, which may be the table of an embedding.
    pub fn of(kind: Kind, elements: usize, is_table: bool, on_cpu: bool) -> Self {
        match kind {
            // bitsandbytes' rule: small tensors do not pay. Most rows of a table get no gradient
            // at a step, which 8 bits keep badly: transformers' Trainer has them in 32.
            Kind::Adamw8bit if elements >= LEAST && !is_table => Self::Blockwise,
            // All of the CPU's memory is the host's.
            Kind::PagedAdamw if !on_cpu => Self::Paged,
            _ => Self::Plain,
        }
    }

    /// Bytes that both moments of a parameter hold on its device.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Self::Plain => 8 * elements,
            Self::Blockwise => 2 * (elements + 4 * elements.div_ceil(BLOCK as u64)),
            Self::Paged => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_small_tensors_keep_32_bits() {
        let of = |elements, is_table| Storage::of(Kind::Adamw8bit, elements, is_table, true);
        assert_eq!(of(LEAST, false), Storage::Blockwise);
        assert_eq!(of(LEAST - 1, false), Storage::Plain);
        assert_eq!(of(1 << 20, true), Storage::Plain);
        let paged = |on_cpu| Storage::of(Kind::PagedAdamw, 1 << 20, true, on_cpu);
        assert_eq!(
            (paged(true), paged(false)),
            (Storage::Plain, Storage::Paged)
        );
    }
}
