//! CUDA C++ kernels launched on cubecl's own stream.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::server::{KernelArguments, MetadataBindingInfo};
use cubecl_server::kernel::BufferIOAttr;

use super::dynamic;
use super::kernel::Kernel;

impl Kernel {
    /// Launches over `grid`. The kernel has the buffers that it reads first, then those
    /// that it writes, or reads and writes; `words` follow by value.
    pub fn launch(
        &self,
        grid: [u32; 3],
        reads: &[&CubeTensor],
        writes: &[&CubeTensor],
        words: Vec<u64>,
    ) {
        let mut arguments = KernelArguments::new();
        // cubecl gives up what a launch that fails was to write: weights must not be among
        // it.
        for (buffers, io) in [
            (reads, BufferIOAttr::ReadOnly),
            (writes, BufferIOAttr::ReadWrite),
        ] {
            for buffer in buffers {
                arguments = arguments.with_buffer_io(buffer.handle.clone().binding(), io);
            }
        }
        let count = words.len();
        // Nothing dynamic: the words travel in the kernel's parameters.
        let arguments = arguments.with_info(MetadataBindingInfo::new(words, count));
        let [x, y, z] = grid;
        let count = CubeCount::Static(x, y, z);
        let kernel = dynamic::form(self, writes[0]);
        let client = &writes[0].client;
        client.launch(Box::new(kernel), count, arguments);
    }
}
