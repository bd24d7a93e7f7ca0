//! Products of a few rows with a weight in NF4, as in decoding: each code is read once
//! and used for all rows, and the weight is nowhere dense. Any CubeCL runtime.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::nf4::{Buffers, GpuNf4, WORD};
use super::tensors::{cubes, dims, elem, empty, vector_size};

/// Rows that are few: beyond them arithmetic takes longer than to read the weight.
const FEW: usize = 16;
/// Units of a cube, which share the contraction of its outputs.
const FEW_UNITS: usize = 128;

/// Whether [`few_rows`] is meant for so many.
pub fn is_few(rows: usize) -> bool {
    (1..=FEW).contains(&rows)
}

/// A cube has `outputs` rows of the weight, a unit every `units`-th word of them.
/// `most` is at least `rows`; rows beyond are computed as the last one.
#[cube(launch_unchecked)]
fn few_rows_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    codes: &[u32],
    maxima: &[f32],
    maxima_codes: &[u32],
    nested: &[f32],
    tables: &[f32],
    y: &mut [F],
    rows: usize,
    columns: usize,
    words: usize,
    block_words: usize,
    offset: f32,
    #[comptime] double: bool,
    #[comptime] added: bool,
    #[comptime] most: usize,
    #[comptime] outputs: usize,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let first = CUBE_POS * outputs;
    if first >= columns {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut levels = Shared::<[f32]>::new_slice(16usize);
    if unit < 16 {
        levels[unit] = tables[unit];
    }
    sync_cube();
    let size = N::value();
    let vectors = comptime!(8 / size);
    let mut sums = Array::<f32>::new(comptime!(most * outputs));
    #[unroll]
    for s in 0..comptime!(most * outputs) {
        sums[s] = f32::new(0.0);
    }
    let mut values = Array::<f32>::new(comptime!(outputs * 8));
    let mut at = unit;
    while at < words {
        #[unroll]
        for o in 0..outputs {
            let word_at = (first + o) * words + at;
            let block = word_at / block_words;
            let absmax = if comptime!(double) {
                let code = (maxima_codes[block / 4] >> ((block % 4) as u32 * 8u32)) & 255u32;
                tables[code as usize + 16] * nested[block / 256] + offset
            } else {
                maxima[block]
            };
            let word = codes[word_at];
            #[unroll]
            for i in 0..8usize {
                // The high nibble of each byte comes first.
                let shift = comptime!((i / 2 * 8 + if i % 2 == 0 { 4 } else { 0 }) as u32);
                let level = levels[((word >> shift) & 15u32) as usize];
                // Rounded as the dense weight is.
                values[o * 8 + i] = f32::cast_from(F::cast_from(level * absmax));
            }
        }
        #[unroll]
        for m in 0..most {
            let row = min(m, rows - 1);
            #[unroll]
            for v in 0..vectors {
                let numbers = Vector::<f32, N>::cast_from(x[(row * words + at) * vectors + v]);
                #[unroll]
                for lane in 0..size {
                    let number = numbers.extract(lane);
                    #[unroll]
                    for o in 0..outputs {
                        sums[m * outputs + o] += number * values[o * 8 + v * size + lane];
                    }
                }
            }
        }
        at += units;
    }
    // All sums at once down one tree, in a fixed order.
    let count = comptime!(most * outputs);
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(most * outputs * units));
    #[unroll]
    for s in 0..count {
        scratch[s * units + unit] = sums[s];
    }
    sync_cube();
    #[unroll]
    for level in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (level + 1));
        if unit < half {
            #[unroll]
            for s in 0..count {
                let other = scratch[s * units + unit + half];
                scratch[s * units + unit] += other;
            }
        }
        sync_cube();
    }
    if unit < count {
        let row = unit / outputs;
        if row < rows {
            let to = row * columns + first + unit % outputs;
            let mut sum = scratch[unit * units];
            if comptime!(added) {
                sum += f32::cast_from(y[to]);
            }
            y[to] = F::cast_from(sum);
        }
    }
}

/// `x . W^T (+ sum)`, or `sum` back where the rows are not few or the shape does not
/// suit. `sum` is written in place; it must not be shared.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn few_rows(
    x: &CubeTensor,
    weight: &GpuNf4,
    sum: Option<CubeTensor>,
) -> Result<CubeTensor, Option<CubeTensor>> {
    let ([rows, _], [columns, width]) = (dims(x), weight.shape);
    let most = rows.next_power_of_two();
    // Shared memory for the sums of all units: 16 KiB at most.
    let outputs = if most <= FEW / 2 { 4 } else { 2 };
    let suits = width.is_multiple_of(WORD) && columns.is_multiple_of(outputs);
    let blocks = weight.block_size.is_multiple_of(WORD);
    if !is_few(rows) || !suits || !blocks {
        return Err(sum);
    }
    let added = sum.is_some();
    let y = sum.unwrap_or_else(|| empty(x, &[rows, columns], x.dtype));
    let Buffers {
        codes,
        maxima,
        maxima_codes,
        nested,
        tables,
        offset,
        double,
    } = weight.buffers();
    let kind = elem(&y);
    // SAFETY: `outputs` divides the columns, words the width; a block of maxima for
    // every `block_size` elements; rows are clamped when read, checked when written.
    unsafe {
        few_rows_kernel::launch_unchecked(
            &y.client,
            cubes(columns / outputs),
            CubeDim::new_1d(FEW_UNITS as u32),
            vector_size(WORD),
            x.clone().into_buffer_arg(),
            codes.into_buffer_arg(),
            maxima.into_buffer_arg(),
            maxima_codes.into_buffer_arg(),
            nested.into_buffer_arg(),
            tables.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            rows,
            columns,
            width / WORD,
            weight.block_size / WORD,
            offset,
            double,
            added,
            most,
            outputs,
            FEW_UNITS,
            kind,
        );
    }
    Ok(y)
}
