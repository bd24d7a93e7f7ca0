//! The GPU that checks of the kernels run on.

use burn::tensor::Device;

/// Software Vulkan in a build with the feature `wgpu`, else the first NVIDIA GPU,
/// if there is one.
pub fn for_checks() -> Option<Device> {
    #[cfg(feature = "wgpu")]
    return Some(Device::wgpu(burn::tensor::DeviceKind::Cpu));
    #[cfg(all(feature = "cuda", not(feature = "wgpu")))]
    return {
        super::runtime::configure();
        let found = Device::enumerate(burn::tensor::DeviceType::Cuda);
        found.into_vec().into_iter().next()
    };
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    None
}
