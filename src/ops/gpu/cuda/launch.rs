//! CUDA C++ kernels launched on cubecl's own stream.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::server::{KernelArguments, MetadataBindingInfo};

use super::dynamic;
use super::kernel::Kernel;

impl Kernel {
    /// Launches over `grid`; `words` follow the buffers by value.
    pub fn launch(&self, grid: [u32; 3], buffers: &[&CubeTensor], words: Vec<u64>) {
        let buffers_of = buffers.iter().map(|b| b.handle.clone().binding());
        let count = words.len();
        let arguments = KernelArguments::new()
            .with_buffers(buffers_of.collect())
            // Nothing dynamic: the words travel in the kernel's parameters.
            .with_info(MetadataBindingInfo::new(words, count));
        let [x, y, z] = grid;
        let count = CubeCount::Static(x, y, z);
        let kernel = dynamic::form(self, buffers[0]);
        buffers[0].client.launch(Box::new(kernel), count, arguments);
    }
}
