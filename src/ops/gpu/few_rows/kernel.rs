//! The kernel: each of a weight's numbers is read once and used for all rows, and one
//! in NF4 is nowhere dense.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::ops::gpu::nf4::maximum;

/// What a launch is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Weights in NF4, else dense.
    pub nf4: bool,
    /// Whether NF4's maxima are quantised.
    pub double: bool,
    /// Whether there are products of low rank.
    pub low: bool,
    pub bias: bool,
    pub last: Last,
    /// Rows that are computed; at least those that there are.
    pub most: usize,
    /// Rows of a weight that a cube has.
    pub outputs: usize,
    /// Units of a cube, which share the contraction of its outputs.
    pub units: usize,
}

/// What comes of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Last {
    Nothing,
    /// Something is added.
    Add,
    /// The first output's SiLU times the second; both have the same cube.
    SwiGlu,
}

impl Form {
    /// A unit's sums.
    fn count(&self) -> usize {
        self.most * self.outputs
    }

    fn adds(&self) -> bool {
        self.last == Last::Add
    }

    fn gates(&self) -> bool {
        self.last == Last::SwiGlu
    }
}

/// Adds to a unit's sums, of all rows with all outputs, the products of the `at`-th
/// eight numbers. Rows beyond the last are computed as that.
#[cube]
fn add_products<F: Float, N: Size>(
    x: &[Vector<F, N>],
    values: &Array<f32>,
    sums: &mut Array<f32>,
    rows: usize,
    words: usize,
    at: usize,
    #[comptime] form: Form,
) {
    let size = N::value();
    let vectors = comptime!(8 / size);
    #[unroll]
    for m in 0..form.most {
        let row = min(m, rows - 1);
        #[unroll]
        for v in 0..vectors {
            let numbers = Vector::<f32, N>::cast_from(x[(row * words + at) * vectors + v]);
            #[unroll]
            for lane in 0..size {
                let number = numbers.extract(lane);
                #[unroll]
                for o in 0..form.outputs {
                    sums[m * form.outputs + o] += number * values[o * 8 + v * size + lane];
                }
            }
        }
    }
}

/// The totals of all units' sums, for `unit < count` that of the `unit`-th, in a fixed
/// order: a unit adds up a run of them, then one unit those of a sum. `scratch` has a
/// word of padding a run, so that units side by side read different banks.
#[cube]
fn total(
    sums: &Array<f32>,
    scratch: &mut Shared<[f32]>,
    runs: &mut Shared<[f32]>,
    #[comptime] form: Form,
) -> f32 {
    let (count, units) = comptime!((form.count(), form.units));
    let each = comptime!(units / count);
    let unit = UNIT_POS as usize;
    #[unroll]
    for s in 0..count {
        let at = s * units + unit;
        scratch[at + at / count] = sums[s];
    }
    sync_cube();
    let mut run = f32::new(0.0);
    #[unroll]
    for i in 0..count {
        run += scratch[unit * comptime!(count + 1) + i];
    }
    runs[unit] = run;
    sync_cube();
    let first = min(unit, comptime!(count - 1)) * each;
    let mut sum = f32::new(0.0);
    #[unroll]
    for i in 0..each {
        sum += runs[first + i];
    }
    sum
}

/// NF4's 16 levels, with which the tables begin.
#[cube]
fn load_levels(tables: &[f32], levels: &mut Shared<[f32]>) {
    let unit = UNIT_POS as usize;
    if unit < 16 {
        levels[unit] = tables[unit];
    }
}

/// The `at`-th eight numbers of a dense member's rows `first` and on.
#[cube]
fn dense_values<F: Float, N: Size>(
    dense: &Sequence<Box<[Vector<F, N>]>>,
    values: &mut Array<f32>,
    member: u32,
    first: usize,
    words: usize,
    at: usize,
    #[comptime] form: Form,
) {
    let size = N::value();
    let vectors = comptime!(8 / size);
    #[unroll]
    for t in 0..dense.len() {
        if member == t as u32 {
            #[unroll]
            for o in 0..form.outputs {
                #[unroll]
                for v in 0..vectors {
                    let from = ((first + o) * words + at) * vectors + v;
                    let numbers = Vector::<f32, N>::cast_from(dense.index(t)[from]);
                    #[unroll]
                    for lane in 0..size {
                        values[o * 8 + v * size + lane] = numbers.extract(lane);
                    }
                }
            }
        }
    }
}

/// [`dense_values`] of a member in NF4, in blocks of `block_words` eights.
#[cube]
fn nf4_values<F: Float>(
    codes: &Sequence<Box<[u32]>>,
    maxima: &Sequence<Box<[f32]>>,
    maxima_codes: &Sequence<Box<[u32]>>,
    nested: &Sequence<Box<[f32]>>,
    offsets: &Sequence<f32>,
    tables: &[f32],
    levels: &Shared<[f32]>,
    values: &mut Array<f32>,
    member: u32,
    first: usize,
    words: usize,
    block_words: usize,
    at: usize,
    #[comptime] form: Form,
) {
    let mut read = Array::<u32>::new(form.outputs);
    let mut largest = Array::<f32>::new(form.outputs);
    #[unroll]
    for t in 0..codes.len() {
        if member == t as u32 {
            #[unroll]
            for o in 0..form.outputs {
                let word_at = (first + o) * words + at;
                read[o] = codes.index(t)[word_at];
                largest[o] = maximum(
                    word_at / block_words,
                    maxima.index(t),
                    maxima_codes.index(t),
                    nested.index(t),
                    tables,
                    offsets[t],
                    form.double,
                );
            }
        }
    }
    #[unroll]
    for o in 0..form.outputs {
        #[unroll]
        for i in 0..8usize {
            // The high nibble of each byte comes first.
            let shift = comptime!((i / 2 * 8 + if i % 2 == 0 { 4 } else { 0 }) as u32);
            let level = levels[((read[o] >> shift) & 15u32) as usize];
            // Rounded as the dense weight is.
            values[o * 8 + i] = f32::cast_from(F::cast_from(level * largest[o]));
        }
    }
}

/// What a unit adds to its total: the product of low rank and the bias.
#[cube]
fn beside<F: Float, B: Float>(
    left: &Sequence<Box<[F]>>,
    right: &Sequence<Box<[F]>>,
    ranks: &Sequence<u32>,
    bias: &Sequence<Box<[B]>>,
    member: u32,
    row: usize,
    column: usize,
    #[comptime] form: Form,
) -> f32 {
    let mut sum = f32::new(0.0);
    if comptime!(form.low) {
        #[unroll]
        for t in 0..left.len() {
            if member == t as u32 {
                let rank = ranks[t] as usize;
                for i in 0..rank {
                    let l = f32::cast_from(left.index(t)[row * rank + i]);
                    sum += l * f32::cast_from(right.index(t)[column * rank + i]);
                }
            }
        }
    }
    if comptime!(form.bias) {
        #[unroll]
        for t in 0..bias.len() {
            if member == t as u32 {
                sum += f32::cast_from(bias.index(t)[column]);
            }
        }
    }
    sum
}

/// Cubes are numbered through the outputs, from `firsts` on; one has `form.outputs` of
/// an output's columns, a unit every `units`-th eight of their numbers. With SwiGLU there
/// is one output, and a cube has the same columns of both members, one after the other.
#[cube(launch_unchecked)]
pub fn products_kernel<F: Float, B: Float, N: Size>(
    x: &[Vector<F, N>],
    dense: &Sequence<Box<[Vector<F, N>]>>,
    codes: &Sequence<Box<[u32]>>,
    maxima: &Sequence<Box<[f32]>>,
    maxima_codes: &Sequence<Box<[u32]>>,
    nested: &Sequence<Box<[f32]>>,
    tables: &Sequence<Box<[f32]>>,
    left: &Sequence<Box<[F]>>,
    right: &Sequence<Box<[F]>>,
    bias: &Sequence<Box<[B]>>,
    added: &Sequence<Box<[F]>>,
    y: &mut Sequence<Box<[F]>>,
    columns: &Sequence<u32>,
    ranks: &Sequence<u32>,
    factors: &Sequence<f32>,
    offsets: &Sequence<f32>,
    firsts: &Sequence<u32>,
    rows: usize,
    words: usize,
    block_words: usize,
    #[comptime] form: Form,
    #[define(F, B)] _types: [ElemType; 2],
) {
    let cube = CUBE_POS as u32;
    let unit = UNIT_POS as usize;
    let (count, outputs) = comptime!((form.count(), form.outputs));
    if cube >= firsts[y.len()] {
        terminate!();
    }
    // All members share one body: only reading and writing differ.
    let mut output = 0u32;
    let mut begin = 0u32;
    let mut factor = factors[0usize];
    if comptime!(y.len() > 1) {
        #[unroll]
        for t in 1..y.len() {
            if cube >= firsts[t] {
                output = t as u32;
                begin = firsts[t];
                factor = factors[t];
            }
        }
    }
    let first = (cube - begin) as usize * outputs;
    let (row, column) = (unit / outputs, first + unit % outputs);
    let mine = unit < count && row < rows;

    let mut levels = Shared::<[f32]>::new_slice(16usize);
    let mut scratch = Shared::<[f32]>::new_slice(comptime!((count + 1) * form.units));
    let mut runs = Shared::<[f32]>::new_slice(form.units);
    if comptime!(form.nf4) {
        load_levels(tables.index(0usize), &mut levels);
    }
    let mut values = Array::<f32>::new(comptime!(outputs * 8));
    let mut sums = Array::<f32>::new(count);
    let mut value = f32::new(0.0);
    for pass in 0..comptime!(if form.gates() { 2u32 } else { 1u32 }) {
        let member = output + pass;
        #[unroll]
        for s in 0..count {
            sums[s] = f32::new(0.0);
        }
        // The levels are there, and the totals before have been read.
        sync_cube();
        let mut at = unit;
        while at < words {
            if comptime!(form.nf4) {
                nf4_values::<F>(
                    codes,
                    maxima,
                    maxima_codes,
                    nested,
                    offsets,
                    tables.index(0usize),
                    &levels,
                    &mut values,
                    member,
                    first,
                    words,
                    block_words,
                    at,
                    form,
                );
            } else {
                dense_values::<F, N>(dense, &mut values, member, first, words, at, form);
            }
            add_products(x, &values, &mut sums, rows, words, at, form);
            at += comptime!(form.units);
        }
        let mut sum = total(&sums, &mut scratch, &mut runs, form) * factor;
        if mine {
            sum += beside(left, right, ranks, bias, member, row, column, form);
        }
        if pass > 0 {
            value = value / (f32::new(1.0) + f32::exp(-value)) * sum;
        } else {
            value = sum;
        }
    }
    if mine {
        #[unroll]
        for t in 0..y.len() {
            if output == t as u32 {
                let to = row * columns[t] as usize + column;
                if comptime!(form.adds()) {
                    value += f32::cast_from(added.index(0usize)[to]);
                }
                y.index_mut(t)[to] = F::cast_from(value);
            }
        }
    }
}
