//! The backward kernels: one over blocks of queries for dq, one over blocks of
//! keys for dk and dv, which goes through the query heads that share a key head
//! in order. Scores are made again: p = exp(score - log-sum-exp).

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::attention_plan::{KEY_BLOCK, Plan, QUERY_BLOCK, Tiling, window};
use super::attention_tile::{add_products, add_scores, fill, load_tile, store_sums};
use super::tensors::{cover, dims, elem, empty};
use crate::ops::AttentionShape;

/// `delta = sum(out x dout)` of every row and head (Dao et al., 2022, eq. 4), as
/// `[rows, heads]` or, `by_head`, as `[heads, rows]`.
#[cube(launch_unchecked)]
fn delta_kernel<F: Float>(
    out: &[F],
    dout: &[F],
    delta: &mut [f32],
    count: usize,
    heads: usize,
    #[comptime] by_head: bool,
    #[comptime] dim: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let mut sum = f32::new(0.0);
    for d in 0..dim {
        sum += f32::cast_from(out[i * dim + d]) * f32::cast_from(dout[i * dim + d]);
    }
    let at = if comptime!(by_head) {
        i % heads * (count / heads) + i / heads
    } else {
        i
    };
    delta[at] = sum;
}

#[cube(launch_unchecked)]
fn query_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    dout: &[F],
    lse: &[f32],
    delta: &[f32],
    dq: &mut [F],
    blocks: &[u32],
    heads: usize,
    kv_heads: usize,
    scale: f32,
    window: usize,
    #[comptime] dim: usize,
    #[comptime] t: Tiling,
    #[define(F)] _type: ElemType,
) {
    let (units_x, units_y) = comptime!((t.units_x(), t.units_y()));
    let (unit_rows, unit_cols) = comptime!((t.unit_rows, t.unit_cols));
    let units = comptime!(units_x * units_y);
    let own = comptime!(dim.div_ceil(units_x));
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(t.rows * (dim + 1)));
    let mut do_tile = Shared::<[f32]>::new_slice(comptime!(t.rows * (dim + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(t.cols * (dim + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(t.cols * (dim + 1)));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(t.rows * (t.cols + 1)));

    let entry = CUBE_POS_X as usize * comptime!(QUERY_BLOCK);
    let first_row = blocks[entry] as usize;
    let rows = blocks[entry + 1] as usize;
    let first_key = blocks[entry + 2] as usize;
    let visible = blocks[entry + 3] as usize;
    let head = CUBE_POS_Y as usize;
    let kv_head = head / (heads / kv_heads);
    let (q_stride, k_stride) = (heads * dim, kv_heads * dim);
    let q_at = first_row * q_stride + head * dim;
    let k_at = first_key * k_stride + kv_head * dim;
    let (x, row) = (UNIT_POS_X as usize, UNIT_POS_Y as usize * unit_rows);

    load_tile::<F>(q, &mut q_tile, q_at, q_stride, rows, t.rows, dim, units);
    load_tile::<F>(dout, &mut do_tile, q_at, q_stride, rows, t.rows, dim, units);
    let mut sums = Array::<f32>::new(comptime!(unit_rows * own));
    fill(&mut sums, f32::new(0.0), comptime!(unit_rows * own));
    let mut row_lse = Array::<f32>::new(unit_rows);
    let mut row_delta = Array::<f32>::new(unit_rows);
    let mut ones = Array::<f32>::new(unit_rows);
    fill(&mut ones, f32::new(1.0), unit_rows);
    fill(&mut row_lse, f32::new(0.0), unit_rows);
    fill(&mut row_delta, f32::new(0.0), unit_rows);
    #[unroll]
    for i in 0..unit_rows {
        if row + i < rows {
            row_lse[i] = lse[(first_row + row + i) * heads + head];
            row_delta[i] = delta[(first_row + row + i) * heads + head];
        }
    }
    let mut scores = Array::<f32>::new(comptime!(unit_rows * unit_cols));
    let mut slopes = Array::<f32>::new(comptime!(unit_rows * unit_cols));

    let keys = visible + rows - 1;
    let mut from = visible - min(window, visible);
    while from < keys {
        let here = min(keys - from, t.cols);
        let at = k_at + from * k_stride;
        load_tile::<F>(k, &mut k_tile, at, k_stride, here, t.cols, dim, units);
        load_tile::<F>(v, &mut v_tile, at, k_stride, here, t.cols, dim, units);
        sync_cube();
        fill(&mut scores, f32::new(0.0), comptime!(unit_rows * unit_cols));
        fill(&mut slopes, f32::new(0.0), comptime!(unit_rows * unit_cols));
        add_scores(
            &q_tile,
            &k_tile,
            &mut scores,
            dim,
            unit_rows,
            unit_cols,
            units_x,
        );
        add_scores(
            &do_tile,
            &v_tile,
            &mut slopes,
            dim,
            unit_rows,
            unit_cols,
            units_x,
        );
        #[unroll]
        for i in 0..unit_rows {
            #[unroll]
            for j in 0..unit_cols {
                let column = x + j * units_x;
                let end = visible + row + i;
                let seen = from + column < end && from + column + window >= end && row + i < rows;
                let score = select(seen, scores[i * unit_cols + j] * scale, row_lse[i]);
                let p = f32::exp(score - row_lse[i]);
                let ds = p * (slopes[i * unit_cols + j] - row_delta[i]) * scale;
                weights[(row + i) * comptime!(t.cols + 1) + column] =
                    select(seen, ds, f32::new(0.0));
            }
        }
        sync_cube();
        add_products(
            &weights, &k_tile, &mut sums, t.cols, dim, unit_rows, units_x,
        );
        sync_cube();
        from += t.cols;
    }
    store_sums::<F>(
        &sums, &ones, dq, q_at, q_stride, rows, dim, unit_rows, units_x,
    );
}

/// Rows are keys here, columns are queries.
#[cube(launch_unchecked)]
fn key_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    dout: &[F],
    lse: &[f32],
    delta: &[f32],
    dk: &mut [F],
    dv: &mut [F],
    blocks: &[u32],
    heads: usize,
    kv_heads: usize,
    scale: f32,
    window: usize,
    #[comptime] dim: usize,
    #[comptime] t: Tiling,
    #[define(F)] _type: ElemType,
) {
    let (units_x, units_y) = comptime!((t.units_x(), t.units_y()));
    let (unit_rows, unit_cols) = comptime!((t.unit_rows, t.unit_cols));
    let units = comptime!(units_x * units_y);
    let own = comptime!(dim.div_ceil(units_x));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(t.rows * (dim + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(t.rows * (dim + 1)));
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(t.cols * (dim + 1)));
    let mut do_tile = Shared::<[f32]>::new_slice(comptime!(t.cols * (dim + 1)));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(t.rows * (t.cols + 1)));
    let mut d_scores = Shared::<[f32]>::new_slice(comptime!(t.rows * (t.cols + 1)));
    let mut col_lse = Shared::<[f32]>::new_slice(comptime!(t.cols));
    let mut col_delta = Shared::<[f32]>::new_slice(comptime!(t.cols));

    let entry = CUBE_POS_X as usize * comptime!(KEY_BLOCK);
    let first_key = blocks[entry] as usize;
    let rows = blocks[entry + 1] as usize;
    let place = blocks[entry + 2] as usize;
    let first_query = blocks[entry + 3] as usize;
    let queries = blocks[entry + 4] as usize;
    let before = blocks[entry + 5] as usize;
    let kv_head = CUBE_POS_Y as usize;
    let group = heads / kv_heads;
    let (q_stride, k_stride) = (heads * dim, kv_heads * dim);
    let k_at = first_key * k_stride + kv_head * dim;
    let (x, row) = (UNIT_POS_X as usize, UNIT_POS_Y as usize * unit_rows);

    load_tile::<F>(k, &mut k_tile, k_at, k_stride, rows, t.rows, dim, units);
    load_tile::<F>(v, &mut v_tile, k_at, k_stride, rows, t.rows, dim, units);
    let mut dk_sums = Array::<f32>::new(comptime!(unit_rows * own));
    let mut dv_sums = Array::<f32>::new(comptime!(unit_rows * own));
    fill(&mut dk_sums, f32::new(0.0), comptime!(unit_rows * own));
    fill(&mut dv_sums, f32::new(0.0), comptime!(unit_rows * own));
    let mut ones = Array::<f32>::new(unit_rows);
    fill(&mut ones, f32::new(1.0), unit_rows);
    let mut scores = Array::<f32>::new(comptime!(unit_rows * unit_cols));
    let mut slopes = Array::<f32>::new(comptime!(unit_rows * unit_cols));

    // Query i sees key j of the span where j <= before + i < j + window.
    let start = select(place > before, place - min(before, place), 0usize);
    let past = place + rows - 1 + window;
    let queries = min(queries, past - min(before, past));
    for member in 0..group {
        let head = kv_head * group + member;
        let mut from = start;
        while from < queries {
            let here = min(queries - from, t.cols);
            let at = (first_query + from) * q_stride + head * dim;
            load_tile::<F>(q, &mut q_tile, at, q_stride, here, t.cols, dim, units);
            load_tile::<F>(dout, &mut do_tile, at, q_stride, here, t.cols, dim, units);
            let mut c = UNIT_POS as usize;
            while c < t.cols {
                let mut known = f32::new(0.0);
                let mut slope = f32::new(0.0);
                if c < here {
                    let at = (first_query + from + c) * heads + head;
                    known = lse[at];
                    slope = delta[at];
                }
                col_lse[c] = known;
                col_delta[c] = slope;
                c += units;
            }
            sync_cube();
            fill(&mut scores, f32::new(0.0), comptime!(unit_rows * unit_cols));
            fill(&mut slopes, f32::new(0.0), comptime!(unit_rows * unit_cols));
            add_scores(
                &k_tile,
                &q_tile,
                &mut scores,
                dim,
                unit_rows,
                unit_cols,
                units_x,
            );
            add_scores(
                &v_tile,
                &do_tile,
                &mut slopes,
                dim,
                unit_rows,
                unit_cols,
                units_x,
            );
            #[unroll]
            for i in 0..unit_rows {
                #[unroll]
                for j in 0..unit_cols {
                    let column = x + j * units_x;
                    let seen = place + row + i <= before + from + column
                        && before + from + column < place + row + i + window
                        && column < here
                        && row + i < rows;
                    let known = col_lse[column];
                    let score = select(seen, scores[i * unit_cols + j] * scale, known);
                    let p = f32::exp(score - known);
                    let p = select(seen, p, f32::new(0.0));
                    let ds = p * (slopes[i * unit_cols + j] - col_delta[column]) * scale;
                    let at = (row + i) * comptime!(t.cols + 1) + column;
                    weights[at] = p;
                    d_scores[at] = ds;
                }
            }
            sync_cube();
            add_products(
                &weights,
                &do_tile,
                &mut dv_sums,
                t.cols,
                dim,
                unit_rows,
                units_x,
            );
            add_products(
                &d_scores,
                &q_tile,
                &mut dk_sums,
                t.cols,
                dim,
                unit_rows,
                units_x,
            );
            sync_cube();
            from += t.cols;
        }
    }
    store_sums::<F>(
        &dk_sums, &ones, dk, k_at, k_stride, rows, dim, unit_rows, units_x,
    );
    store_sums::<F>(
        &dv_sums, &ones, dv, k_at, k_stride, rows, dim, unit_rows, units_x,
    );
}

/// What the backward reads.
pub struct Saved {
    pub q: CubeTensor,
    pub k: CubeTensor,
    pub v: CubeTensor,
    pub dout: CubeTensor,
    pub lse: CubeTensor,
    pub delta: CubeTensor,
}

/// As `[rows, heads]`.
pub fn delta_by_row(out: CubeTensor, dout: CubeTensor, shape: AttentionShape) -> CubeTensor {
    delta(out, dout, shape, false)
}

/// As `[heads, rows]`.
#[cfg(feature = "cuda")]
pub fn delta_by_head(out: CubeTensor, dout: CubeTensor, shape: AttentionShape) -> CubeTensor {
    delta(out, dout, shape, true)
}

fn delta(out: CubeTensor, dout: CubeTensor, shape: AttentionShape, by_head: bool) -> CubeTensor {
    let [rows, _] = dims(&out);
    let (count, kind) = (rows * shape.heads, elem(&out));
    let sizes = if by_head {
        [shape.heads, rows]
    } else {
        [rows, shape.heads]
    };
    let delta = empty(&out, &sizes, DType::F32);
    let (cubes, dim) = cover(count);
    // SAFETY: `out` and `dout` have `head_dim` elements for each of `delta`.
    unsafe {
        delta_kernel::launch_unchecked(
            &delta.client,
            cubes,
            dim,
            out.into_buffer_arg(),
            dout.into_buffer_arg(),
            delta.clone().into_buffer_arg(),
            count,
            shape.heads,
            by_head,
            shape.head_dim,
            kind,
        );
    }
    delta
}

pub fn launch_queries(plan: &Plan, saved: &Saved, dq: &CubeTensor) {
    let (t, s) = (plan.tiling, plan.shape);
    let blocks = plan.query_blocks.meta.num_elements() / QUERY_BLOCK;
    // SAFETY: blocks lie inside the tensors' rows, and the kernel stays in its block.
    unsafe {
        query_kernel::launch_unchecked(
            &dq.client,
            CubeCount::Static(blocks as u32, s.heads as u32, 1),
            CubeDim::new_2d(t.units_x() as u32, t.units_y() as u32),
            saved.q.clone().into_buffer_arg(),
            saved.k.clone().into_buffer_arg(),
            saved.v.clone().into_buffer_arg(),
            saved.dout.clone().into_buffer_arg(),
            saved.lse.clone().into_buffer_arg(),
            saved.delta.clone().into_buffer_arg(),
            dq.clone().into_buffer_arg(),
            plan.query_blocks.clone().into_buffer_arg(),
            s.heads,
            s.kv_heads,
            s.scale,
            window(plan.shape),
            s.head_dim,
            t,
            elem(&saved.q),
        );
    }
}

pub fn launch_keys(plan: &Plan, saved: &Saved, dk: &CubeTensor, dv: &CubeTensor) {
    let (t, s) = (plan.tiling, plan.shape);
    let blocks = plan.key_blocks.meta.num_elements() / KEY_BLOCK;
    // SAFETY: as in `launch_queries`.
    unsafe {
        key_kernel::launch_unchecked(
            &dk.client,
            CubeCount::Static(blocks as u32, s.kv_heads as u32, 1),
            CubeDim::new_2d(t.units_x() as u32, t.units_y() as u32),
            saved.q.clone().into_buffer_arg(),
            saved.k.clone().into_buffer_arg(),
            saved.v.clone().into_buffer_arg(),
            saved.dout.clone().into_buffer_arg(),
            saved.lse.clone().into_buffer_arg(),
            saved.delta.clone().into_buffer_arg(),
            dk.clone().into_buffer_arg(),
            dv.clone().into_buffer_arg(),
            plan.key_blocks.clone().into_buffer_arg(),
            s.heads,
            s.kv_heads,
            s.scale,
            window(plan.shape),
            s.head_dim,
            t,
            elem(&saved.q),
        );
    }
}
