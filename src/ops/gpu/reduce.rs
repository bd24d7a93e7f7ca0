//! Reductions over the units of a cube, in a fixed order: a tree through shared
//! memory, which needs nothing of the device's planes.

use cubecl::prelude::*;

/// The sum of `value` over all units, given to each. `units` is a power of two.
#[cube]
pub fn cube_sum(value: f32, scratch: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    scratch[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (level + 1));
        if unit < half {
            let other = scratch[unit + half];
            scratch[unit] += other;
        }
        sync_cube();
    }
    let sum = scratch[0];
    // The next reduction overwrites what slower units may still have to read.
    sync_cube();
    sum
}

/// The largest `value` of all units, given to each.
#[cube]
pub fn cube_max(value: f32, scratch: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    scratch[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (level + 1));
        if unit < half {
            scratch[unit] = max(scratch[unit], scratch[unit + half]);
        }
        sync_cube();
    }
    let largest = scratch[0];
    sync_cube();
    largest
}

/// The sum of a vector's elements.
#[cube]
pub fn vector_sum<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = vector.extract(0usize);
    #[unroll]
    for i in 1..N::value() {
        sum += vector.extract(i);
    }
    sum
}
