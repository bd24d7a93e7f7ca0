//! Dropout from counters: the masks of [`crate::rng::Stream`], bit for bit, so
//! that a recomputed layer and the CPU drop the same elements. WebGPU has no
//! 64-bit integers; the mixer works on halves of 32 bits.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{cover, dims, elem, empty, vector_size};
use crate::rng::Stream;

/// A 64-bit number in two words.
#[derive(CubeType, Clone, Copy)]
struct Wide {
    low: u32,
    high: u32,
}

/// `a x b` modulo 2^64.
#[cube]
fn times(a: Wide, b_low: u32, b_high: u32) -> Wide {
    Wide {
        low: a.low * b_low,
        high: u32::mul_hi(a.low, b_low) + a.low * b_high + a.high * b_low,
    }
}

/// `z ^ (z >> shift)` for shifts below 32.
#[cube]
fn fold(z: Wide, #[comptime] shift: u32) -> Wide {
    let up = comptime!(32 - shift);
    Wide {
        low: z.low ^ ((z.low >> shift) | (z.high << up)),
        high: z.high ^ (z.high >> shift),
    }
}

/// The upper word of SplitMix64's output at `counter` (see [`crate::rng`]).
#[cube]
fn random_high(key_low: u32, key_high: u32, counter: u32) -> u32 {
    let step = times(
        Wide {
            low: counter,
            high: 0u32,
        },
        0x7F4A_7C15u32,
        0x9E37_79B9u32,
    );
    let low = key_low + step.low;
    let carry = select(low < key_low, 1u32, 0u32);
    let z = Wide {
        low,
        high: key_high + step.high + carry,
    };
    let z = times(fold(z, 30u32), 0x1CE4_E5B9u32, 0xBF58_476Du32);
    let z = times(fold(z, 27u32), 0x1331_11EBu32, 0x94D0_49BBu32);
    fold(z, 31u32).high
}

#[cube(launch_unchecked)]
fn dropout_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    key_low: u32,
    key_high: u32,
    p: f32,
    keep: f32,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    let values = x[i];
    let mut kept = Vector::<F, N>::new(F::new(0.0f32));
    #[unroll]
    for lane in 0..N::value() {
        let counter = (i * N::value() + lane) as u32;
        let bits = random_high(key_low, key_high, counter) >> 8u32;
        let uniform = f32::cast_from(bits) * f32::new(5.960_464_5e-8);
        let value = f32::cast_from(values.extract(lane)) * keep;
        kept.insert(
            lane,
            F::cast_from(select(uniform < p, f32::new(0.0), value)),
        );
    }
    out[i] = kept;
}

pub fn dropout(x: CubeTensor, p: f32, stream: Stream) -> CubeTensor {
    let elements = x.meta.num_elements();
    assert!(
        u32::try_from(elements).is_ok(),
        "the counter has 32 bits here"
    );
    let out = empty(&x, &dims(&x), x.dtype);
    let n = vector_size(elements);
    let (cubes, dim) = cover(elements / n);
    let (kind, key) = (elem(&x), stream.key());
    // SAFETY: both have the same number of elements.
    unsafe {
        dropout_kernel::launch_unchecked(
            &out.client,
            cubes,
            dim,
            n,
            x.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            elements / n,
            key as u32,
            (key >> 32) as u32,
            p,
            1.0 / (1.0 - p),
            kind,
        );
    }
    out
}
