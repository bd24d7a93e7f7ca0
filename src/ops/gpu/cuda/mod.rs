//! Kernels in CUDA C++ for matrix units that the `#[cube]` language does not reach:
//! Hopper's wgmma for products, the mma of cards since Ampere for attention. The `.cu`
//! files beside this one are compiled by NVRTC at their first use, and are described in
//! docs/kernels.md.
//!
//! A card must have shown that it runs them: each family is compared with the CPU on
//! random inputs, in a process of its own ([`process`]), once for a card, driver and
//! version of the kernels ([`verdict`]). A family that fails stays out.
//! `KILN_CUDA_KERNELS=0` keeps all of them out from the start.

mod attention;
mod dynamic;
mod gemm;
mod kernel;
mod process;
mod trial;
mod verdict;

use std::sync::Mutex;

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;

pub use attention::{FlashPlan, flash_backward, flash_forward, starts};
pub use gemm::{Maxima, Nf4Buffers, Product, nf4_product, product};
pub use process::answer;

/// Kernels that stand or fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Products with a weight in NF4.
    Nf4Products,
    /// Products of bf16 matrices.
    Products,
    Attention,
}

impl Family {
    pub const ALL: [Self; 3] = [Self::Nf4Products, Self::Products, Self::Attention];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4Products => "nf4_products",
            Self::Products => "products",
            Self::Attention => "attention",
        }
    }

    /// Whether cards of this compute capability have the instructions; 89 is 8.9.
    fn is_for(self, capability: u32) -> bool {
        match self {
            Self::Nf4Products | Self::Products => capability == HOPPER,
            Self::Attention => capability >= AMPERE,
        }
    }
}

/// Compute capabilities: the first with mma of bf16 and copies without waiting, and the
/// only one with wgmma.
const AMPERE: u32 = 80;
const HOPPER: u32 = 90;

/// As of [`Family::is_for`]; `None` where the device is no NVIDIA card.
fn capability(like: &CubeTensor) -> Option<u32> {
    let identity = &like.client.properties().identity;
    identity.fingerprint.strip_prefix("ptx_sm")?.parse().ok()
}

/// Whether a family's kernels run on the device of `like`.
pub fn on(like: &CubeTensor, family: Family) -> bool {
    static KNOWN: Mutex<Vec<(CubeDevice, Vec<Family>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, passing)) = known.iter().find(|(device, _)| *device == like.device) {
        return passing.contains(&family);
    }
    let mut families = Family::ALL.to_vec();
    families.retain(|family| capability(like).is_some_and(|c| family.is_for(c)));
    let wanted = std::env::var("KILN_CUDA_KERNELS").as_deref() != Ok("0");
    let passing = match wanted && !families.is_empty() {
        true => verdict::passing(like, &families),
        false => Vec::new(),
    };
    let on = passing.contains(&family);
    known.push((like.device.clone(), passing));
    on
}

/// Multiprocessors of the device.
fn multiprocessors(like: &CubeTensor) -> u32 {
    let hardware = &like.client.properties().hardware;
    hardware.num_streaming_multiprocessors.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_and_newer_cards_than_hopper_have_attention_alone() {
        let all = |capability| Family::ALL.map(|family| family.is_for(capability));
        assert_eq!(all(75), [false, false, false]);
        for capability in [80, 86, 89, 100, 120] {
            assert_eq!(all(capability), [false, false, true]);
        }
        assert_eq!(all(90), [true, true, true]);
    }
}
