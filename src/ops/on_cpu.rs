//! Which device is the CPU.

use burn::tensor::Device;

/// Whether `device` is burn's flex backend, the CPU.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}
