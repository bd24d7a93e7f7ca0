//! Attention of one new query a sequence over the keys of a cache, as in decoding: the
//! queries of a key/value head go together, and long sequences are cut into parts that
//! are joined by their log-sum-exps (Flash-Decoding, 2023).

use burn::tensor::{DType, Device};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::attention_plan::window;
use super::many::buffers;
use super::tensors::{cubes, dims, elem, empty, integers, upload_integers};
use crate::ops::{AttentionShape, Span, Spans};

/// Below every score; infinities are not portable.
const LOW: f32 = -1.0e30;
/// Units of a cube, and the keys that it takes at a time.
const UNITS: usize = 128;
/// Most queries of a cube, and partial results of one when units are reduced: together
/// they are its units.
const MOST: usize = 8;
const RUNS: usize = UNITS / MOST;
/// Numbers of a head that a unit takes at a time.
const WIDE: usize = 4;
/// Sequences of so many keys are not cut: joining the parts would take longer.
const UNCUT: usize = 4 * UNITS;
/// Cubes of a multiprocessor: registers and shared memory would do for eight.
const BESIDE: usize = 6;
/// Words of a sequence in the table, as of [`Spans::singles`].
const ENTRY: usize = 3;

/// What a launch is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    dim: usize,
    /// Queries of a cube.
    group: usize,
    /// Whether sequences are cut.
    cut: bool,
}

impl Form {
    /// Vectors of a head.
    fn lanes(&self) -> usize {
        self.dim / WIDE
    }

    /// Values that a cube takes at a time.
    fn side_by_side(&self) -> usize {
        UNITS / self.lanes()
    }
}

/// Reduces what all units have for each query, `values[g x UNITS + unit]`: afterwards
/// `runs[g x RUNS ..]` have what is left to be reduced.
#[cube]
fn runs_of(
    values: &Shared<[f32]>,
    runs: &mut Shared<[f32]>,
    #[comptime] group: usize,
    #[comptime] largest: bool,
) {
    let unit = UNIT_POS as usize;
    sync_cube();
    if unit < comptime!(group * RUNS) {
        let mut all = values[unit * MOST];
        #[unroll]
        for i in 1..MOST {
            let value = values[unit * MOST + i];
            if comptime!(largest) {
                all = max(all, value);
            } else {
                all += value;
            }
        }
        runs[unit] = all;
    }
    sync_cube();
}

/// A cube has the queries `head..head + group` of a sequence and a part of its keys.
#[cube(launch_unchecked)]
fn single_kernel<F: Float, N: Size>(
    q: &[Vector<F, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    out: &mut Sequence<Box<[Vector<F, N>]>>,
    sums_out: &mut Sequence<Box<[Vector<f32, N>]>>,
    ends_out: &mut Sequence<Box<[f32]>>,
    entries: &[u32],
    heads: usize,
    kv_heads: usize,
    scale: f32,
    window: usize,
    #[comptime] form: Form,
    #[define(F)] _type: ElemType,
) {
    let (group, lanes) = comptime!((form.group, form.lanes()));
    let side_by_side = comptime!(form.side_by_side());
    let unit = UNIT_POS as usize;
    let sequence = CUBE_POS_X as usize;
    let entry = sequence * comptime!(ENTRY);
    let row = entries[entry] as usize;
    let all = entries[entry + 2] as usize;
    let seen = min(window, all);
    let first_key = entries[entry + 1] as usize + all - seen;
    // By this sequence's own length, however long others are.
    let chunk = seen.div_ceil(CUBE_COUNT_Z as usize);
    let chunk = (chunk + comptime!(UNITS - 1)) / UNITS * UNITS;
    let begin = CUBE_POS_Z as usize * chunk;
    let end = min(begin + chunk, seen);
    let head = CUBE_POS_Y as usize * group;
    let kv_head = head / (heads / kv_heads);

    let mut queries = Shared::<[Vector<f32, N>]>::new_slice(comptime!(group * lanes));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(group * UNITS));
    let mut runs = Shared::<[f32]>::new_slice(comptime!(group * RUNS));
    let mut parts = Shared::<[Vector<f32, N>]>::new_slice(UNITS);
    let mut i = unit;
    while i < comptime!(group * lanes) {
        let query = Vector::<f32, N>::cast_from(q[(row * heads + head) * lanes + i]);
        queries[i] = query * Vector::<f32, N>::new(scale);
        i += UNITS;
    }

    let zero = Vector::<f32, N>::new(0.0f32);
    let mut largest = Array::<f32>::new(group);
    let mut total = Array::<f32>::new(group);
    let mut sums = Array::<Vector<f32, N>>::new(group);
    let mut scores = Array::<f32>::new(group);
    #[unroll]
    for g in 0..group {
        largest[g] = f32::new(LOW);
        total[g] = f32::new(0.0);
        sums[g] = zero;
    }
    let (lane, place) = (unit % lanes, unit / lanes);
    sync_cube();

    let mut at = begin;
    while at < end {
        let here = min(end - at, UNITS);
        // A unit has a key.
        #[unroll]
        for g in 0..group {
            scores[g] = f32::new(0.0);
        }
        if unit < here {
            let from = ((first_key + at + unit) * kv_heads + kv_head) * lanes;
            for d in 0..lanes {
                let key = Vector::<f32, N>::cast_from(k[from + d]);
                #[unroll]
                for g in 0..group {
                    let products = key * queries[g * lanes + d];
                    #[unroll]
                    for l in 0..WIDE {
                        scores[g] += products.extract(l);
                    }
                }
            }
        }
        #[unroll]
        for g in 0..group {
            scores[g] = select(unit < here, scores[g], f32::new(LOW));
            weights[g * UNITS + unit] = scores[g];
        }
        runs_of(&weights, &mut runs, group, true);
        #[unroll]
        for g in 0..group {
            let mut best = largest[g];
            #[unroll]
            for i in 0..RUNS {
                best = max(best, runs[g * RUNS + i]);
            }
            let correction = f32::exp(largest[g] - best);
            largest[g] = best;
            let p = f32::exp(scores[g] - best);
            let p = select(unit < here, p, f32::new(0.0));
            total[g] = total[g] * correction + p;
            sums[g] *= Vector::<f32, N>::new(correction);
            weights[g * UNITS + unit] = p;
        }
        sync_cube();
        // A unit has some numbers of every `side_by_side`-th value.
        if place < side_by_side {
            let mut j = place;
            while j < here {
                let from = ((first_key + at + j) * kv_heads + kv_head) * lanes;
                let value = Vector::<f32, N>::cast_from(v[from + lane]);
                #[unroll]
                for g in 0..group {
                    sums[g] += value * Vector::<f32, N>::new(weights[g * UNITS + j]);
                }
                j += side_by_side;
            }
        }
        sync_cube();
        at += UNITS;
    }

    #[unroll]
    for g in 0..group {
        weights[g * UNITS + unit] = total[g];
    }
    runs_of(&weights, &mut runs, group, false);
    #[unroll]
    for g in 0..group {
        let mut sum = f32::new(0.0);
        #[unroll]
        for i in 0..RUNS {
            sum += runs[g * RUNS + i];
        }
        parts[unit] = sums[g];
        sync_cube();
        if unit < lanes {
            let mut value = zero;
            #[unroll]
            for p in 0..side_by_side {
                value += parts[p * lanes + unit];
            }
            if comptime!(form.cut) {
                let to = (sequence * heads + head + g) * CUBE_COUNT_Z as usize;
                let to = to + CUBE_POS_Z as usize;
                sums_out.index_mut(0usize)[to * lanes + unit] = value;
                if unit == 0 {
                    ends_out.index_mut(0usize)[to * 2] = largest[g];
                    ends_out.index_mut(0usize)[to * 2 + 1] = sum;
                }
            } else {
                let value = value * Vector::<f32, N>::new(f32::recip(sum));
                out.index_mut(0usize)[(row * heads + head + g) * lanes + unit] =
                    Vector::cast_from(value);
            }
        }
        sync_cube();
    }
}

/// A unit joins some numbers of a query's parts.
#[cube(launch_unchecked)]
fn join_kernel<F: Float, N: Size>(
    sums: &[Vector<f32, N>],
    ends: &[f32],
    out: &mut [Vector<F, N>],
    entries: &[u32],
    heads: usize,
    lanes: usize,
    parts: usize,
    all: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= all {
        terminate!();
    }
    let (query, lane) = (i / lanes, i % lanes);
    let first = query * parts;
    let mut best = f32::new(LOW);
    for p in 0..parts {
        best = max(best, ends[(first + p) * 2]);
    }
    let mut value = Vector::<f32, N>::new(0.0f32);
    let mut total = f32::new(0.0);
    for p in 0..parts {
        let weight = f32::exp(ends[(first + p) * 2] - best);
        total += ends[(first + p) * 2 + 1] * weight;
        value += sums[(first + p) * lanes + lane] * Vector::<f32, N>::new(weight);
    }
    let row = entries[query / heads * comptime!(ENTRY)] as usize;
    let to = (row * heads + query % heads) * lanes + lane;
    out[to] = Vector::cast_from(value * Vector::<f32, N>::new(f32::recip(total)));
}

/// Whether [`forward`] makes this: one query a sequence, heads that the units divide.
pub fn takes(spans: &Spans, shape: AttentionShape) -> bool {
    let dim = shape.head_dim;
    let heads = dim.is_multiple_of(WIDE) && (1..=UNITS).contains(&(dim / WIDE));
    heads && !spans.is_empty() && spans.iter().all(|span| span.q_len == 1)
}

/// The output in the shape and type of `q`.
pub fn forward(
    [q, k, v]: [CubeTensor; 3],
    device: &Device,
    spans: &Spans,
    shape: AttentionShape,
) -> CubeTensor {
    let entries = integers(spans.singles_on_device(|words| upload_integers(device, words)));
    let out = empty(&q, &dims(&q), q.dtype);
    let shared = shape.heads / shape.kv_heads;
    let group = (1..=MOST.min(shared))
        .rev()
        .find(|g| shared.is_multiple_of(*g));
    let group = group.unwrap_or(1);
    let keys = |span: &Span| span.k_len.min(window(shape));
    let longest = spans.iter().map(keys).max().unwrap_or(1);
    let longest = longest.max(spans.room().min(window(shape)));
    let cubes_uncut = spans.len() * shape.heads / group;
    let parts = cut(&q, cubes_uncut, longest);
    let form = Form {
        dim: shape.head_dim,
        group,
        cut: parts > 1,
    };
    let queries = spans.len() * shape.heads;
    let (mut sums, mut ends, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    match form.cut {
        true => {
            sums.push(empty(&q, &[queries * parts, form.dim], DType::F32));
            ends.push(empty(&q, &[queries * parts, 2], DType::F32));
        }
        false => whole.push(out.clone()),
    }
    let kind = elem(&q);
    // SAFETY: a sequence's keys lie inside the cache and its query inside `q`; units
    // beyond a part's keys and beyond a head read nothing.
    unsafe {
        single_kernel::launch_unchecked(
            &out.client,
            CubeCount::Static(
                spans.len() as u32,
                (shape.heads / group) as u32,
                parts as u32,
            ),
            CubeDim::new_1d(UNITS as u32),
            WIDE,
            q.into_buffer_arg(),
            k.into_buffer_arg(),
            v.into_buffer_arg(),
            buffers(whole.iter()),
            buffers(sums.iter()),
            buffers(ends.iter()),
            entries.clone().into_buffer_arg(),
            shape.heads,
            shape.kv_heads,
            shape.scale,
            window(shape),
            form,
            kind,
        );
    }
    let (Some(sums), Some(ends)) = (sums.pop(), ends.pop()) else {
        return out;
    };
    let (lanes, all) = (form.lanes(), queries * form.lanes());
    // SAFETY: one unit a vector of the output, of as many parts as were written.
    unsafe {
        join_kernel::launch_unchecked(
            &out.client,
            cubes(all.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            WIDE,
            sums.into_buffer_arg(),
            ends.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            entries.into_buffer_arg(),
            shape.heads,
            lanes,
            parts,
            all,
            kind,
        );
    }
    out
}

/// Parts of a sequence, such that every multiprocessor has several cubes where sequences
/// are long: the loops wait for what they load.
fn cut(like: &CubeTensor, cubes: usize, longest: usize) -> usize {
    if longest <= UNCUT {
        return 1;
    }
    let hardware = &like.client.properties().hardware;
    let processors = hardware.num_streaming_multiprocessors.unwrap_or(64) as usize;
    let wanted = (BESIDE * processors).div_ceil(cubes);
    wanted.min(longest.div_ceil(UNITS))
}
