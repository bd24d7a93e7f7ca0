//! The largest numbers of each row of logits ([`Leading`]), found on the device.
//!
//! A row is dealt out to parts, each to a cube, and a part's numbers to groups. The
//! `count`-th largest of all groups' maxima is a bound that at least `count` numbers
//! reach, and seldom many more since neighbours lie in different groups. The second launch
//! lists what reaches it. Numbers are compared as whole numbers of the same order, in
//! which what is not finite is 0, below all.

use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::reduce::cube_sum;
use super::tensors::{UNITS, cubes, dims, elem, empty, integer_tensor, vector_size};
use crate::ops::leading::{Leading, MOST_LEADING, descending};

/// Cubes a row.
const PARTS: usize = 16;
/// Groups of a part; all parts' together are as many as a cube has units.
const GROUPS: usize = UNITS / PARTS;
/// Vectors side by side that stay in one part: a line of the cache in bf16.
const RUN: usize = 8;
/// Numbers that a part can list.
const ROOM: usize = 64;
/// Of a part: how many it has to list, its largest, the sum of its weights, and the list.
const LISTED: usize = 3 + 2 * ROOM;
const SIGN: u32 = 0x8000_0000;
/// The exponent of an f32: all of it is set in what is not finite.
const EXPONENT: u32 = 0x7F80_0000;

/// A whole number in the order of the finite `x`; 0 where it is not finite.
#[cube]
fn key(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let mut key = 0u32;
    if bits & EXPONENT != EXPONENT {
        if bits & SIGN == 0 || bits == SIGN {
            // Both zeros are one number.
            key = bits | SIGN;
        } else {
            key = !bits;
        }
    }
    key
}

/// The number of a key that is not 0.
#[cube]
fn number(key: u32) -> f32 {
    let mut bits = !key;
    if key & SIGN != 0 {
        bits = key ^ SIGN;
    }
    f32::reinterpret(bits)
}

/// [`number`] on the host.
fn host_number(key: u32) -> f32 {
    f32::from_bits(if key & SIGN != 0 { key ^ SIGN } else { !key })
}

/// The `turn`-th vector of a unit in its row.
#[cube]
fn place(turn: usize, unit: usize, part: usize, #[comptime] units: usize) -> usize {
    let run = turn * comptime!(units / RUN) + unit / comptime!(RUN);
    (run * comptime!(PARTS) + part) * comptime!(RUN) + unit % comptime!(RUN)
}

/// Of each part: the largest number of each of its groups as keys, and if wanted the sum
/// of exp((x - largest) / temperature) against the part's own largest.
#[cube(launch_unchecked)]
fn peaks_kernel<F: Float, N: Size>(
    logits: &[Vector<F, N>],
    peaks: &mut [u32],
    sums: &mut [f32],
    row: usize,
    all: usize,
    temperature: f32,
    #[comptime] summed: bool,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let cube = CUBE_POS;
    if cube >= all {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let part = cube % comptime!(PARTS);
    let from = cube / comptime!(PARTS) * row;
    let mut mine = 0u32;
    let mut turn = 0usize.runtime();
    let mut at = place(turn, unit, part, units);
    while at < row {
        let vector = Vector::<f32, N>::cast_from(logits[from + at]);
        #[unroll]
        for i in 0..N::value() {
            mine = max(mine, key(vector.extract(i)));
        }
        turn += 1;
        at = place(turn, unit, part, units);
    }
    let mut keys = Shared::<[u32]>::new_slice(units);
    keys[unit] = mine;
    sync_cube();
    if unit < comptime!(GROUPS) {
        let mut i = unit + comptime!(GROUPS);
        while i < units {
            mine = max(mine, keys[i]);
            i += comptime!(GROUPS);
        }
        // Nobody else reads this place before the next wait.
        keys[unit] = mine;
        peaks[cube * comptime!(GROUPS) + unit] = mine;
    }
    if comptime!(summed) {
        sync_cube();
        let mut peak = 0u32;
        for i in 0..comptime!(GROUPS) {
            peak = max(peak, keys[i]);
        }
        let mut sum = f32::new(0.0);
        if peak != 0 {
            let largest = number(peak);
            let mut turn = 0usize.runtime();
            let mut at = place(turn, unit, part, units);
            while at < row {
                let vector = Vector::<f32, N>::cast_from(logits[from + at]);
                #[unroll]
                for i in 0..N::value() {
                    let x = vector.extract(i);
                    if key(x) != 0 {
                        sum += f32::exp((x - largest) / temperature);
                    }
                }
                turn += 1;
                at = place(turn, unit, part, units);
            }
        }
        let mut scratch = Shared::<[f32]>::new_slice(units);
        let sum = cube_sum(sum, &mut scratch, units);
        if unit == 0 {
            sums[cube] = sum;
        }
    }
}

/// Lists of each part the numbers that reach the `count`-th largest of the row's peaks.
#[cube(launch_unchecked)]
fn list_kernel<F: Float, N: Size>(
    logits: &[Vector<F, N>],
    peaks: &[u32],
    sums: &[f32],
    out: &mut [u32],
    row: usize,
    all: usize,
    count: usize,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let cube = CUBE_POS;
    if cube >= all {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let part = cube % comptime!(PARTS);
    let from = cube / comptime!(PARTS) * row;
    let mut keys = Shared::<[u32]>::new_slice(units);
    let mut counts = Shared::<[u32]>::new_slice(units);
    let mine = peaks[cube / comptime!(PARTS) * units + unit];
    keys[unit] = mine;
    sync_cube();
    let mut rank = 0usize.runtime();
    for i in 0..units {
        let other = keys[i];
        if other > mine || (other == mine && i < unit) {
            rank += 1;
        }
    }
    if rank == count - 1 {
        // A row with fewer numbers lists them all.
        counts[0] = max(mine, 1u32);
    }
    sync_cube();
    let bound = counts[0];
    let mut largest = 0u32;
    for i in 0..comptime!(GROUPS) {
        largest = max(largest, keys[part * comptime!(GROUPS) + i]);
    }
    sync_cube();

    let mut found = 0u32;
    if largest >= bound {
        let mut turn = 0usize.runtime();
        let mut at = place(turn, unit, part, units);
        while at < row {
            let vector = Vector::<f32, N>::cast_from(logits[from + at]);
            #[unroll]
            for i in 0..N::value() {
                if key(vector.extract(i)) >= bound {
                    found += 1;
                }
            }
            turn += 1;
            at = place(turn, unit, part, units);
        }
    }
    // Where each unit's begin (Hillis and Steele, 1986).
    counts[unit] = found;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let step = comptime!(1usize << level);
        let mut before = 0u32;
        if unit >= step {
            before = counts[unit - step];
        }
        sync_cube();
        counts[unit] += before;
        sync_cube();
    }
    let base = cube * comptime!(LISTED);
    if found > 0 {
        let mut next = (counts[unit] - found) as usize;
        let mut turn = 0usize.runtime();
        let mut at = place(turn, unit, part, units);
        while at < row {
            let vector = Vector::<f32, N>::cast_from(logits[from + at]);
            #[unroll]
            for i in 0..N::value() {
                let its = key(vector.extract(i));
                if its >= bound {
                    if next < comptime!(ROOM) {
                        out[base + 3 + 2 * next] = its;
                        out[base + 4 + 2 * next] = (at * N::value() + i) as u32;
                    }
                    next += 1;
                }
            }
            turn += 1;
            at = place(turn, unit, part, units);
        }
    }
    if unit == 0 {
        out[base] = counts[units - 1];
        out[base + 1] = largest;
        out[base + 2] = u32::reinterpret(sums[cube]);
    }
}

/// As [`crate::ops::HotOps::leading`]. Waits for the device.
pub fn leading(logits: CubeTensor, count: usize, temperature: Option<f32>) -> Vec<Option<Leading>> {
    let [rows, vocab] = dims(&logits);
    let count = count.clamp(1, MOST_LEADING);
    let n = vector_size(vocab);
    let all = rows * PARTS;
    let peaks = empty(&logits, &[all * GROUPS], DType::U32);
    let sums = empty(&logits, &[all], DType::F32);
    let out = empty(&logits, &[all * LISTED], DType::U32);
    let kind = elem(&logits);
    let units = CubeDim::new_1d(UNITS as u32);
    // SAFETY: every unit stays within its row, and a part within its list.
    unsafe {
        peaks_kernel::launch_unchecked(
            &out.client,
            cubes(all),
            units,
            n,
            logits.clone().into_buffer_arg(),
            peaks.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            vocab / n,
            all,
            temperature.unwrap_or(1.0),
            temperature.is_some(),
            UNITS,
            kind,
        );
        list_kernel::launch_unchecked(
            &out.client,
            cubes(all),
            units,
            n,
            logits.into_buffer_arg(),
            peaks.into_buffer_arg(),
            sums.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vocab / n,
            all,
            count,
            UNITS,
            kind,
        );
    }
    let found: Tensor<1, Int> = integer_tensor(out);
    let found: Vec<u32> = found.into_data().iter::<u32>().collect();
    let rows = found.chunks(PARTS * LISTED);
    rows.map(|row| gathered(row, count, temperature)).collect()
}

/// What the parts of a row have listed; `None` where a list has no room.
fn gathered(parts: &[u32], count: usize, temperature: Option<f32>) -> Option<Leading> {
    let parts = || parts.chunks(LISTED);
    if parts().any(|part| part[0] as usize > ROOM) {
        return None;
    }
    let mut numbers: Vec<(u32, f32)> = Vec::new();
    for part in parts() {
        let list = &part[3..3 + 2 * part[0] as usize];
        let pairs = list.as_chunks::<2>().0.iter();
        numbers.extend(pairs.map(|[key, column]| (*column, host_number(*key))));
    }
    numbers.sort_unstable_by(descending);
    let largest = numbers.first().map_or(0.0, |n| n.1);
    let total = temperature.map(|temperature| {
        let sums = parts().filter(|part| part[1] != 0).map(|part| {
            let below = (host_number(part[1]) - largest) / temperature;
            f64::from(f32::from_bits(part[2])) * f64::from(below).exp()
        });
        sums.sum()
    });
    Some(Leading {
        all: numbers.len() < count,
        total,
        numbers,
    })
}
