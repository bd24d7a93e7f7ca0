//! Products of a few rows with a transposed weight, as in decoding: each of the weight's
//! numbers is read once and used for all rows, and one in NF4 is nowhere dense. Any
//! CubeCL runtime.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::nf4::{GpuNf4, WORD, maximum};
use super::tensors::{cubes, dims, elem, empty, vector_size};

/// Rows that are few: beyond them arithmetic takes longer than to read the weight.
const FEW: usize = 16;
/// Units of a cube, which share the contraction of its outputs.
const FEW_UNITS: usize = 128;

/// Whether these products are meant for so many rows.
pub fn is_few(rows: usize) -> bool {
    (1..=FEW).contains(&rows)
}

/// Adds to a unit's sums, of `most` rows with `outputs` rows of the weight each, the
/// products of the `at`-th eight numbers. Rows beyond the last are computed as that.
#[cube]
fn add_products<F: Float, N: Size>(
    x: &[Vector<F, N>],
    values: &Array<f32>,
    sums: &mut Array<f32>,
    rows: usize,
    words: usize,
    at: usize,
    #[comptime] most: usize,
    #[comptime] outputs: usize,
) {
    let size = N::value();
    let vectors = comptime!(8 / size);
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
}

/// The totals of all units' sums, for `unit < count` that of the `unit`-th: all at once
/// down one tree, in a fixed order.
#[cube]
fn total(sums: &Array<f32>, #[comptime] count: usize, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    let mut scratch = Shared::<[f32]>::new_slice(comptime!(count * units));
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
    scratch[min(unit, comptime!(count - 1)) * units]
}

/// A cube has `outputs` rows of the weight, a unit every `units`-th eight of their
/// numbers. `most` is at least `rows`.
#[cube(launch_unchecked)]
fn dense_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    y: &mut [F],
    rows: usize,
    columns: usize,
    words: usize,
    factor: f32,
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
    let size = N::value();
    let vectors = comptime!(8 / size);
    let count = comptime!(most * outputs);
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for s in 0..count {
        sums[s] = f32::new(0.0);
    }
    let mut values = Array::<f32>::new(comptime!(outputs * 8));
    let mut at = unit;
    while at < words {
        #[unroll]
        for o in 0..outputs {
            #[unroll]
            for v in 0..vectors {
                let from = ((first + o) * words + at) * vectors + v;
                let numbers = Vector::<f32, N>::cast_from(weight[from]);
                #[unroll]
                for lane in 0..size {
                    values[o * 8 + v * size + lane] = numbers.extract(lane);
                }
            }
        }
        add_products(x, &values, &mut sums, rows, words, at, most, outputs);
        at += units;
    }
    let mut sum = total(&sums, count, units) * factor;
    let row = unit / outputs;
    if unit < count && row < rows {
        let to = row * columns + first + unit % outputs;
        if comptime!(added) {
            sum += f32::cast_from(y[to]);
        }
        y[to] = F::cast_from(sum);
    }
}

/// As [`dense_kernel`], with a product of low rank: `left [rows, rank]` and
/// `right [columns, rank]`, of rank 0 for none.
#[cube(launch_unchecked)]
fn nf4_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    codes: &[u32],
    maxima: &[f32],
    maxima_codes: &[u32],
    nested: &[f32],
    tables: &[f32],
    left: &[F],
    right: &[F],
    y: &mut [F],
    rows: usize,
    columns: usize,
    words: usize,
    block_words: usize,
    offset: f32,
    rank: usize,
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
    let count = comptime!(most * outputs);
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for s in 0..count {
        sums[s] = f32::new(0.0);
    }
    let mut values = Array::<f32>::new(comptime!(outputs * 8));
    let mut at = unit;
    while at < words {
        #[unroll]
        for o in 0..outputs {
            let word_at = (first + o) * words + at;
            let block = word_at / block_words;
            let absmax = maximum(block, maxima, maxima_codes, nested, tables, offset, double);
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
        add_products(x, &values, &mut sums, rows, words, at, most, outputs);
        at += units;
    }
    let mut sum = total(&sums, count, units);
    let row = unit / outputs;
    if unit < count && row < rows {
        let column = first + unit % outputs;
        let to = row * columns + column;
        for i in 0..rank {
            sum += f32::cast_from(left[row * rank + i]) * f32::cast_from(right[column * rank + i]);
        }
        if comptime!(added) {
            sum += f32::cast_from(y[to]);
        }
        y[to] = F::cast_from(sum);
    }
}

/// How a product of few rows is cut.
struct Cut {
    /// Rows that are computed.
    most: usize,
    /// Rows of the weight a cube.
    outputs: usize,
}

impl Cut {
    /// `None` where the rows are not few or the weight `[columns, width]` does not suit.
    fn of(rows: usize, [columns, width]: [usize; 2]) -> Option<Self> {
        let most = rows.next_power_of_two();
        // Shared memory for the sums of all units: 16 KiB at most.
        let outputs = if most <= FEW / 2 { 4 } else { 2 };
        let suits = width > 0 && width.is_multiple_of(WORD) && columns.is_multiple_of(outputs);
        (is_few(rows) && suits).then_some(Self { most, outputs })
    }
}

/// `factor x . weight^T (+ sum)` in the operands' type, or `sum` back where the rows are
/// not few or the shape does not suit. `sum` is written in place; it must not be shared.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn dense(
    x: &CubeTensor,
    weight: &CubeTensor,
    factor: f32,
    sum: Option<CubeTensor>,
) -> Result<CubeTensor, Option<CubeTensor>> {
    let ([rows, _], [columns, width]) = (dims(x), dims(weight));
    let Some(cut) = Cut::of(rows, [columns, width]) else {
        return Err(sum);
    };
    let added = sum.is_some();
    let y = sum.unwrap_or_else(|| empty(x, &[rows, columns], x.dtype));
    let kind = elem(&y);
    // SAFETY: `outputs` divides the columns, words the width; rows are clamped when
    // read, checked when written.
    unsafe {
        dense_kernel::launch_unchecked(
            &y.client,
            cubes(columns / cut.outputs),
            CubeDim::new_1d(FEW_UNITS as u32),
            vector_size(WORD),
            x.clone().into_buffer_arg(),
            weight.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            rows,
            columns,
            width / WORD,
            factor,
            added,
            cut.most,
            cut.outputs,
            FEW_UNITS,
            kind,
        );
    }
    Ok(y)
}

/// As [`dense`] with a weight in NF4, and with `low` plus `left . right^T`, of
/// `[rows, rank]` and `[columns, rank]`.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn nf4(
    x: &CubeTensor,
    weight: &GpuNf4,
    low: Option<[&CubeTensor; 2]>,
    sum: Option<CubeTensor>,
) -> Result<CubeTensor, Option<CubeTensor>> {
    let ([rows, _], [columns, width]) = (dims(x), weight.shape);
    let cut = Cut::of(rows, weight.shape);
    let Some(cut) = cut.filter(|_| weight.block_size.is_multiple_of(WORD)) else {
        return Err(sum);
    };
    let added = sum.is_some();
    let y = sum.unwrap_or_else(|| empty(x, &[rows, columns], x.dtype));
    let read = weight.buffers();
    let rank = low.map_or(0, |[left, _]| dims(left)[1]);
    // A kernel takes all its buffers; of rank 0 these are not read.
    let [left, right] = low.unwrap_or([x, x]);
    let kind = elem(&y);
    // SAFETY: as in `dense`; a block of maxima for every `block_size` elements.
    unsafe {
        nf4_kernel::launch_unchecked(
            &y.client,
            cubes(columns / cut.outputs),
            CubeDim::new_1d(FEW_UNITS as u32),
            vector_size(WORD),
            x.clone().into_buffer_arg(),
            read.codes.into_buffer_arg(),
            read.maxima.into_buffer_arg(),
            read.maxima_codes.into_buffer_arg(),
            read.nested.into_buffer_arg(),
            read.tables.into_buffer_arg(),
            left.clone().into_buffer_arg(),
            right.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            rows,
            columns,
            width / WORD,
            weight.block_size / WORD,
            read.offset,
            rank,
            read.double,
            added,
            cut.most,
            cut.outputs,
            FEW_UNITS,
            kind,
        );
    }
    Ok(y)
}
