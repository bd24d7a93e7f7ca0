//! The likeliest token of each row of logits: what greedy decoding wants of them, so
//! that a vocabulary of numbers a sequence need not go to the host.

use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{UNITS, cubes, dims, elem, empty, integer_tensor, vector_size};

/// Vectors of a row that a unit looks at.
const EACH: usize = 8;
/// No column.
const NONE: u32 = u32::MAX;
/// The exponent of an f32: all of it is set in what is not finite.
const EXPONENT: u32 = 0x7F80_0000;

/// Of a part of a row: the largest finite number as bits, and its column.
#[cube(launch_unchecked)]
fn likeliest_kernel<F: Float, N: Size>(
    logits: &[Vector<F, N>],
    out: &mut [u32],
    row: usize,
    parts: usize,
    all: usize,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let part = CUBE_POS;
    if part >= all {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let from = part / parts * row;
    let begin = part % parts * comptime!(units * EACH);
    let end = min(begin + comptime!(units * EACH), row);
    let mut largest = f32::new(f32::MIN);
    let mut column = comptime!(NONE).runtime();
    let mut at = begin + unit;
    while at < end {
        let vector = Vector::<f32, N>::cast_from(logits[from + at]);
        #[unroll]
        for i in 0..N::value() {
            let x = vector.extract(i);
            // By its bits: comparisons with NaN are not alike everywhere.
            let finite = u32::reinterpret(x) & EXPONENT != EXPONENT;
            if finite && (x > largest || column == NONE) {
                largest = x;
                column = (at * N::value() + i) as u32;
            }
        }
        at += units;
    }

    let mut numbers = Shared::<[f32]>::new_slice(units);
    let mut columns = Shared::<[u32]>::new_slice(units);
    numbers[unit] = largest;
    columns[unit] = column;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if unit < half {
            let (other, its) = (numbers[unit + half], columns[unit + half]);
            let mine = numbers[unit];
            if other > mine || (other == mine && its < columns[unit]) {
                numbers[unit] = other;
                columns[unit] = its;
            }
        }
        sync_cube();
        half /= 2;
    }
    if unit == 0 {
        out[part * 2] = u32::reinterpret(numbers[0]);
        out[part * 2 + 1] = columns[0];
    }
}

/// As [`crate::ops::HotOps::likeliest`]. Waits for the device.
pub fn likeliest(logits: CubeTensor) -> Vec<Option<u32>> {
    let [rows, vocab] = dims(&logits);
    let n = vector_size(vocab);
    let row = vocab / n;
    let parts = row.div_ceil(UNITS * EACH);
    let out = empty(&logits, &[2 * rows * parts], DType::U32);
    let kind = elem(&logits);
    // SAFETY: every unit stays within its row.
    unsafe {
        likeliest_kernel::launch_unchecked(
            &out.client,
            cubes(rows * parts),
            CubeDim::new_1d(UNITS as u32),
            n,
            logits.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            row,
            parts,
            rows * parts,
            UNITS,
            kind,
        );
    }
    let found: Tensor<1, burn::tensor::Int> = integer_tensor(out);
    let found: Vec<u32> = found.into_data().iter::<u32>().collect();
    found.chunks(2 * parts).map(best).collect()
}

/// The column of the largest number of all parts of a row, in order.
fn best(parts: &[u32]) -> Option<u32> {
    let mut best: Option<(f32, u32)> = None;
    for [bits, column] in parts.as_chunks::<2>().0 {
        let number = f32::from_bits(*bits);
        if *column != NONE && best.is_none_or(|(largest, _)| number > largest) {
            best = Some((number, *column));
        }
    }
    best.map(|(_, column)| column)
}
