//! An NF4 weight where a device needs it.

use std::sync::Arc;

use burn::tensor::Device;

#[cfg(feature = "gpu")]
use super::gpu::GpuNf4;
use super::nf4::Nf4;
use super::on_cpu::is_cpu;

/// A frozen `[out, in]` weight in NF4: host bytes for the CPU kernels, buffers of
/// words for a GPU.
#[derive(Clone, Debug)]
pub enum Nf4Tensor {
    Host(Arc<Nf4>),
    #[cfg(feature = "gpu")]
    Gpu(GpuNf4),
}

impl Nf4Tensor {
    /// Keeps host bytes on the CPU, uploads them elsewhere.
    pub fn new(weight: Nf4, device: &Device) -> Self {
        #[cfg(feature = "gpu")]
        if !is_cpu(device) {
            return Self::Gpu(GpuNf4::new(weight, device));
        }
        debug_assert!(is_cpu(device));
        Self::Host(Arc::new(weight))
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Host(w) => w.shape,
            #[cfg(feature = "gpu")]
            Self::Gpu(w) => w.shape,
        }
    }

    /// Bytes that stay in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Host(w) => w.bytes(),
            #[cfg(feature = "gpu")]
            Self::Gpu(w) => w.bytes,
        }
    }
}
