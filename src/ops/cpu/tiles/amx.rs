//! Tiles for AMX's `tdpbf16ps`, which adds 32 products of bf16 numbers to each of 16 x 16
//! sums: 32 rows of 32 sums, in four of the CPU's eight tile registers (Intel, Software
//! Developer's Manual, volume 1, chapter 18).

use std::arch::asm;
use std::mem::MaybeUninit;

use super::{Kernel, Target, avx512};
use crate::device::amx_bf16;

const HEIGHT: usize = 32;
const WIDTH: usize = 32;
/// Words of a row of a tile register, and its rows.
const STEP: usize = 16;
/// 64 KiB of the right operand, which stay in the second-level cache while tiles go down
/// the rows; less depth would read and write the sums more often.
const DEPTH: usize = 512;

pub fn available() -> bool {
    // What is not a product of tiles is AVX-512's.
    avx512::available() && amx_bf16()
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each register.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight registers whole.
static SHAPES: Shapes = Shapes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: {
        let mut bytes = [0; 16];
        let mut i = 0;
        while i < 8 {
            bytes[i] = 4 * STEP as u16;
            i += 1;
        }
        bytes
    },
    rows: {
        let mut rows = [0; 16];
        let mut i = 0;
        while i < 8 {
            rows[i] = STEP as u8;
            i += 1;
        }
        rows
    },
};

pub struct Amx;

impl Kernel for Amx {
    const HEIGHT: usize = HEIGHT;
    const WIDTH: usize = WIDTH;
    const NUMBERS: usize = 2;
    const DEPTH: usize = DEPTH;
    const STEP: usize = STEP;
    const LEFT_BY_LINES: bool = true;

    unsafe fn interleave(
        lines: &[&[u32]],
        place: usize,
        group: usize,
        out: &mut [MaybeUninit<u32>],
    ) {
        // SAFETY: who has AMX here has AVX-512.
        unsafe { avx512::Avx512Bf16::interleave(lines, place, group, out) }
    }

    unsafe fn task(tiles: impl FnOnce()) {
        // SAFETY: the CPU has the instructions; nothing else uses these registers.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, preserves_flags, readonly))
        };
        tiles();
        // SAFETY: as above. Without state, a switch of threads has nothing to save.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn tile(left: &[u32], right: &[u32], target: Target) {
        let steps = right.len() / (STEP * WIDTH);
        assert!(steps > 0 && left.len() == right.len());
        if target.alpha == 1.0 {
            // SAFETY: the caller vouches for the tile; the panels have as many steps.
            return unsafe { multiply(left, right, steps, target) };
        }
        let mut sums = [0.0f32; HEIGHT * WIDTH];
        let own = Target {
            dst: sums.as_mut_ptr(),
            stride: WIDTH,
            accumulate: false,
            alpha: 1.0,
        };
        // SAFETY: `sums` has room for a tile; the panels have as many steps.
        unsafe { multiply(left, right, steps, own) };
        for (r, sums) in sums.as_chunks::<WIDTH>().0.iter().enumerate() {
            // SAFETY: the caller vouches for the tile.
            let out =
                unsafe { std::slice::from_raw_parts_mut(target.dst.add(r * target.stride), WIDTH) };
            for (out, sum) in out.iter_mut().zip(sums) {
                let before = if target.accumulate { *out } else { 0.0 };
                *out = before + target.alpha * sum;
            }
        }
    }
}

/// A tile's sums, added to what is there or not; without alpha.
///
/// # Safety
/// As for [`Kernel::tile`]; the panels must hold `steps` steps, at least one.
unsafe fn multiply(left: &[u32], right: &[u32], steps: usize, target: Target) {
    let lower = target.dst.wrapping_add(STEP * target.stride);
    // SAFETY: reads the panels from their start on, step by step, and the tile, which it
    // writes; the registers were shaped at the task's start.
    unsafe {
        asm!(
            "test {add:e}, {add:e}",
            "jz 2f",
            "tileloadd tmm0, [{upper} + {stride}]",
            "tileloadd tmm1, [{upper} + {stride} + 64]",
            "tileloadd tmm2, [{lower} + {stride}]",
            "tileloadd tmm3, [{lower} + {stride} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            // Two steps on; beyond a panel's end it is a hint for what is not read.
            ".irp line, 0,64,128,192,256,320,384,448,512,576,640,704,768,832,896,960,\
                1024,1088,1152,1216,1280,1344,1408,1472,1536,1600,1664,1728,1792,1856,1920,1984",
            "prefetcht0 [{right} + 4096 + \\line]",
            "prefetcht0 [{left} + 4096 + \\line]",
            ".endr",
            "tileloadd tmm4, [{left} + {left_row}]",
            "tileloadd tmm6, [{right} + {right_row}]",
            "tileloadd tmm7, [{right} + {right_row} + 64]",
            "tileloadd tmm5, [{left} + {left_row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 2048",
            "add {right}, 2048",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{upper} + {stride}], tmm0",
            "tilestored [{upper} + {stride} + 64], tmm1",
            "tilestored [{lower} + {stride}], tmm2",
            "tilestored [{lower} + {stride} + 64], tmm3",
            add = in(reg) u32::from(target.accumulate),
            upper = in(reg) target.dst,
            lower = in(reg) lower,
            stride = in(reg) 4 * target.stride,
            left = inout(reg) left.as_ptr() => _,
            left_row = in(reg) 4 * STEP,
            right = inout(reg) right.as_ptr() => _,
            right_row = in(reg) 4 * WIDTH,
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
