//! The forward kernel: online softmax over tiles of keys.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::attention_plan::{Plan, QUERY_BLOCK, Tiling, window};
use super::attention_tile::{add_products, add_scores, fill, load_tile, store_sums};
use super::tensors::elem;

/// Below every score; infinities are not portable.
const LOW: f32 = -1.0e30;

#[cube(launch_unchecked)]
fn forward_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    out: &mut [F],
    lse: &mut [f32],
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
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(t.cols * (dim + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(t.cols * (dim + 1)));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(t.rows * (t.cols + 1)));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(t.rows * units_x));

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
    let mut sums = Array::<f32>::new(comptime!(unit_rows * own));
    let mut largest = Array::<f32>::new(unit_rows);
    let mut total = Array::<f32>::new(unit_rows);
    fill(&mut sums, f32::new(0.0), comptime!(unit_rows * own));
    fill(&mut largest, f32::new(LOW), unit_rows);
    fill(&mut total, f32::new(0.0), unit_rows);
    let mut scores = Array::<f32>::new(comptime!(unit_rows * unit_cols));

    let keys = visible + rows - 1;
    // The first row's oldest key; the other rows' are newer.
    let mut from = visible - min(window, visible);
    while from < keys {
        let here = min(keys - from, t.cols);
        let at = k_at + from * k_stride;
        load_tile::<F>(k, &mut k_tile, at, k_stride, here, t.cols, dim, units);
        load_tile::<F>(v, &mut v_tile, at, k_stride, here, t.cols, dim, units);
        sync_cube();
        fill(&mut scores, f32::new(0.0), comptime!(unit_rows * unit_cols));
        add_scores(
            &q_tile,
            &k_tile,
            &mut scores,
            dim,
            unit_rows,
            unit_cols,
            units_x,
        );
        #[unroll]
        for i in 0..unit_rows {
            let mut best = f32::new(LOW);
            #[unroll]
            for j in 0..unit_cols {
                let key = from + x + j * units_x;
                let end = visible + row + i;
                let seen = key < end && key + window >= end;
                let score = scores[i * unit_cols + j] * scale;
                let score = select(seen, score, f32::new(LOW));
                scores[i * unit_cols + j] = score;
                best = max(best, score);
            }
            partial[(row + i) * units_x + x] = best;
        }
        sync_cube();
        #[unroll]
        for i in 0..unit_rows {
            let mut best = largest[i];
            #[unroll]
            for u in 0..units_x {
                best = max(best, partial[(row + i) * units_x + u]);
            }
            let correction = f32::exp(largest[i] - best);
            largest[i] = best;
            total[i] *= correction;
            #[unroll]
            for c in 0..own {
                sums[i * own + c] *= correction;
            }
            #[unroll]
            for j in 0..unit_cols {
                let column = x + j * units_x;
                let end = visible + row + i;
                let seen = from + column < end && from + column + window >= end;
                let p = f32::exp(scores[i * unit_cols + j] - best);
                let p = select(seen, p, f32::new(0.0));
                total[i] += p;
                weights[(row + i) * comptime!(t.cols + 1) + column] = p;
            }
        }
        sync_cube();
        add_products(
            &weights, &v_tile, &mut sums, t.cols, dim, unit_rows, units_x,
        );
        sync_cube();
        from += t.cols;
    }

    #[unroll]
    for i in 0..unit_rows {
        partial[(row + i) * units_x + x] = total[i];
    }
    sync_cube();
    #[unroll]
    for i in 0..unit_rows {
        let mut sum = f32::new(0.0);
        #[unroll]
        for u in 0..units_x {
            sum += partial[(row + i) * units_x + u];
        }
        total[i] = f32::recip(sum);
        if x == 0 && row + i < rows {
            lse[(first_row + row + i) * heads + head] = largest[i] + f32::ln(sum);
        }
    }
    store_sums::<F>(
        &sums, &total, out, q_at, q_stride, rows, dim, unit_rows, units_x,
    );
}

pub fn launch(plan: &Plan, [q, k, v]: [CubeTensor; 3], out: &CubeTensor, lse: &CubeTensor) {
    let (t, s) = (plan.tiling, plan.shape);
    let blocks = plan.query_blocks.meta.num_elements() / QUERY_BLOCK;
    let kind = elem(&q);
    // SAFETY: blocks lie inside the tensors' rows, and the kernel stays in its block.
    unsafe {
        forward_kernel::launch_unchecked(
            &out.client,
            CubeCount::Static(blocks as u32, s.heads as u32, 1),
            CubeDim::new_2d(t.units_x() as u32, t.units_y() as u32),
            q.into_buffer_arg(),
            k.into_buffer_arg(),
            v.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            lse.clone().into_buffer_arg(),
            plan.query_blocks.clone().into_buffer_arg(),
            s.heads,
            s.kv_heads,
            s.scale,
            window(plan.shape),
            s.head_dim,
            t,
            kind,
        );
    }
}
