//! Every GPU kernel against the CPU's, on whatever GPU this build has: software
//! Vulkan with the feature `wgpu`, a card with the feature `cuda`.

use burn::tensor::{DType, Device};

use kiln::device::for_checks;
use kiln::ops::{Precision, check};

fn agree(device: &Device, precision: Precision) {
    let seed = std::env::var("KILN_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64)
    });
    println!("KILN_TEST_SEED={seed}");
    let checks = check::run(device, precision, seed);
    assert!(checks.len() > 100, "only {} checks ran", checks.len());
    let failed: Vec<String> = checks
        .iter()
        .filter(|c| !c.passed())
        .map(|c| format!("{} {}: {:.2e} > {:.2e}", c.op, c.case, c.error, c.bound))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn f32_agrees_with_the_cpu() {
    let Some(device) = for_checks() else { return };
    agree(&device, Precision::F32);
}

#[test]
fn bf16_agrees_with_the_cpu() {
    let Some(device) = for_checks() else { return };
    if !device.supports_dtype(DType::BF16) {
        println!("left out: this device has no bf16");
        return;
    }
    agree(&device, Precision::Bf16);
}
