//! Kernels for Hopper's matrix units (compute capability 9.0), in CUDA C++: the
//! `#[cube]` language has no wgmma. They lie in src/ops/gpu/cuda, are compiled by
//! NVRTC at their first use, and are described in docs/kernels.md.
//!
//! A device must have shown that it runs them: [`on`] compares each with the
//! portable kernels once a process, on random inputs, and where one fails all of
//! them stay out. `KILN_HOPPER=0` keeps them out from the start.

mod attention;
mod gemm;
mod kernel;
mod trial;

use std::sync::Mutex;

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;

pub use attention::{FlashPlan, flash_backward, flash_forward, starts};
pub use gemm::{Maxima, Nf4Buffers, Product, nf4_product, product};

/// Whether the kernels run on the device of `like`.
pub fn on(like: &CubeTensor) -> bool {
    static KNOWN: Mutex<Vec<(CubeDevice, bool)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, on)) = known.iter().find(|(device, _)| *device == like.device) {
        return *on;
    }
    let hopper = like.client.properties().identity.fingerprint == "ptx_sm90";
    let wanted = std::env::var("KILN_HOPPER").as_deref() != Ok("0");
    let on = hopper && wanted && passes(like);
    known.push((like.device.clone(), on));
    on
}

fn passes(like: &CubeTensor) -> bool {
    match trial::run(like) {
        Ok(()) => true,
        Err(why) => {
            eprintln!(
                "warning: the kernels for Hopper failed their check and stay out, training is slower: {why}"
            );
            false
        }
    }
}

/// Multiprocessors of the device.
fn multiprocessors(like: &CubeTensor) -> u32 {
    let hardware = &like.client.properties().hardware;
    hardware.num_streaming_multiprocessors.unwrap_or(1)
}
