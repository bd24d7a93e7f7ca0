//! Kernels in CUDA C++ for matrix units that the `#[cube]` language does not reach: the
//! mma of cards since Ampere, and for products Hopper's wgmma. The `.cu` files beside
//! this one are compiled by NVRTC at their first use, and are described in
//! docs/kernels.md.
//!
//! A card must have shown that it runs them: each family is compared with the CPU on
//! random inputs, in a process of its own ([`process`]), once for a card, driver and
//! version of the kernels ([`verdict`]). A family that fails stays out, and where there
//! is another for the same work, that one is tried. `KILN_CUDA_KERNELS=0` keeps all of
//! them out from the start, `mma` those with wgmma.

mod attention;
mod dynamic;
mod few_rows;
mod gemm;
mod kernel;
mod launch;
mod process;
mod trial;
mod verdict;

use std::sync::{Mutex, OnceLock};

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;

use crate::device::{Cuda, Driver, Version};

pub use attention::{FlashPlan, flash_backward, flash_forward, starts};
pub use few_rows::{FewRows, Finish, few_rows};
pub use gemm::{Maxima, Nf4Buffers, Product, nf4_product, product};
pub use process::answer;

/// The matrix units that a product's kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Hopper's, which read shared memory by themselves.
    Wgmma,
    /// Those of every card since Ampere.
    Mma,
}

/// Kernels that stand or fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Products with a weight in NF4.
    Nf4Products(Units),
    /// Products of bf16 matrices.
    Products(Units),
    /// Products of a few rows with weights in NF4.
    FewRows,
    Attention,
}

impl Family {
    pub const ALL: [Self; 6] = [
        Self::Nf4Products(Units::Wgmma),
        Self::Products(Units::Wgmma),
        Self::Nf4Products(Units::Mma),
        Self::Products(Units::Mma),
        Self::FewRows,
        Self::Attention,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nf4Products(Units::Wgmma) => "nf4_products",
            Self::Products(Units::Wgmma) => "products",
            Self::Nf4Products(Units::Mma) => "nf4_products_mma",
            Self::Products(Units::Mma) => "products_mma",
            Self::FewRows => "few_rows",
            Self::Attention => "attention",
        }
    }

    /// Whether cards of this compute capability have the instructions; 89 is 8.9.
    fn is_for(self, capability: u32) -> bool {
        match self {
            Self::Nf4Products(Units::Wgmma) | Self::Products(Units::Wgmma) => capability == HOPPER,
            _ => capability >= AMPERE,
        }
    }

    /// The family that does the same work where this one cannot.
    pub fn instead(self) -> Option<Self> {
        match self {
            Self::Nf4Products(Units::Wgmma) => Some(Self::Nf4Products(Units::Mma)),
            Self::Products(Units::Wgmma) => Some(Self::Products(Units::Mma)),
            _ => None,
        }
    }

    /// One for each work that such a card can do, the best.
    fn best(capability: u32, wgmma: bool) -> Vec<Self> {
        let allowed = |family: &Self| wgmma || family.instead().is_none();
        let mut families = Self::ALL.to_vec();
        families.retain(|family| family.is_for(capability) && allowed(family));
        let instead: Vec<_> = families.iter().filter_map(|f| f.instead()).collect();
        families.retain(|family| !instead.contains(family));
        families
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
    let asked = std::env::var("KILN_CUDA_KERNELS");
    let families = match (capability(like), asked.as_deref()) {
        (None, _) | (_, Ok("0")) => Vec::new(),
        (Some(capability), asked) => Family::best(capability, asked != Ok("mma")),
    };
    let passing = match families.is_empty() {
        true => Vec::new(),
        false => verdict::passing(like, &families),
    };
    let on = passing.contains(&family);
    known.push((like.device.clone(), passing));
    on
}

/// The units that products of a kind (`Family::Products`, say) use on the device of
/// `like`.
pub fn units(like: &CubeTensor, kind: fn(Units) -> Family) -> Option<Units> {
    let mut both = [Units::Wgmma, Units::Mma].into_iter();
    both.find(|units| on(like, kind(*units)))
}

/// Whether the driver has the function by which cubecl takes a kernel's time, and so autotunes:
/// `cuEventElapsedTime_v2`, new in CUDA 12.8. Where it is missing, its first use ends the program.
pub fn times_kernels() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| match Cuda::probe().driver {
        Driver::Ready { cuda, .. } => cuda >= Version::new(12, 8),
        Driver::Missing | Driver::Broken { .. } => true,
    })
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
    fn each_card_has_the_best_family_for_each_work() {
        use Family::*;
        use Units::*;
        assert!(Family::best(75, true).is_empty());
        let mma = [Nf4Products(Mma), Products(Mma), FewRows, Attention];
        for capability in [80, 86, 89, 100, 120] {
            assert_eq!(Family::best(capability, true), mma);
        }
        let wgmma = [Nf4Products(Wgmma), Products(Wgmma), FewRows, Attention];
        assert_eq!(Family::best(90, true), wgmma);
        assert_eq!(Family::best(90, false), mma);
    }
}
