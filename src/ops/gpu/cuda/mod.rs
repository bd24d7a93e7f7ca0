//! Kernels for Hopper's matrix units (compute capability 9.0), in CUDA C++: the
//! `#[cube]` language has no wgmma. They lie in src/ops/gpu/cuda, are compiled by
//! NVRTC at their first use, and are described in docs/kernels.md.
//!
//! A card must have shown that it runs them: each family is compared with the CPU on
//! random inputs, in a process of its own ([`process`]), once for a card, driver and
//! version of the kernels ([`verdict`]). A family that fails stays out. `KILN_CUDA_KERNELS=0`
//! keeps all of them out from the start.

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
}

/// Whether a family's kernels run on the device of `like`.
pub fn on(like: &CubeTensor, family: Family) -> bool {
    static KNOWN: Mutex<Vec<(CubeDevice, Vec<Family>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, passing)) = known.iter().find(|(device, _)| *device == like.device) {
        return passing.contains(&family);
    }
    let hopper = like.client.properties().identity.fingerprint == "ptx_sm90";
    let wanted = std::env::var("KILN_CUDA_KERNELS").as_deref() != Ok("0");
    let passing = match hopper && wanted {
        true => verdict::passing(like),
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
