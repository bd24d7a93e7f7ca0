//! Whether this process may use AMX's products of bf16 numbers.

use std::sync::OnceLock;

/// Whether the CPU has AMX's tiles with bf16, and the kernel lets this process use them.
pub fn amx_bf16() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_instructions() && permitted())
}

/// `std` cannot be asked for AMX yet; the bits are those of Intel's Software Developer's
/// Manual, volume 2, `CPUID`.
fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const LEAF: u32 = 7;
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    __cpuid(0).eax >= LEAF && __cpuid_count(LEAF, 0).edx & (BF16 | TILES) == BF16 | TILES
}

/// Linux keeps tile registers only for a process that has asked for them
/// (Documentation/arch/x86/xstate.rst of the kernel).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but the permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
