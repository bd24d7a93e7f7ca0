//! Paged moments on the CPU.

use burn::tensor::Device;

use crate::common::paged::pages_change_nothing;

#[test]
fn paged_adamw_is_adamw() {
    pages_change_nothing(&Device::flex());
}
