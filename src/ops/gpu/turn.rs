//! Queries turned, and turned keys and values written to the KV cache, in one launch.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{cover, dims, elem, vector_size};

/// One unit a run of `N` pairs of q or k, or `N` numbers of v. Pair (j, j + half) of a
/// head turns; widths count vectors, of which a row of q and k has half as many runs.
#[cube(launch_unchecked)]
fn turn_kernel<F: Float, N: Size>(
    q: &mut [Vector<F, N>],
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    keys: &mut [Vector<F, N>],
    values: &mut [Vector<F, N>],
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    positions: &[u32],
    rows: &[u32],
    half: usize,
    q_width: usize,
    k_width: usize,
    tokens: usize,
    #[define(F)] _type: ElemType,
) {
    // A token's runs: those of q, of k, then the vectors of v.
    let (q_runs, k_runs) = (q_width / 2, k_width / 2);
    let runs = q_runs + k_runs + k_width;
    let token = ABSOLUTE_POS / runs;
    if token >= tokens {
        terminate!();
    }
    let run = ABSOLUTE_POS % runs;
    let to = rows[token] as usize * k_width;
    if run >= q_runs + k_runs {
        let at = run - q_runs - k_runs;
        values[to + at] = v[token * k_width + at];
        terminate!();
    }
    let of_k = run >= q_runs;
    let within = select(of_k, run - min(run, q_runs), run);
    let j = within % half;
    let left = within / half * 2 * half + j;
    let angle = positions[token] as usize * half + j;
    let (c, s) = (cos[angle], sin[angle]);
    if of_k {
        let from = token * k_width + left;
        let a = Vector::<f32, N>::cast_from(k[from]);
        let b = Vector::<f32, N>::cast_from(k[from + half]);
        keys[to + left] = Vector::cast_from(a * c - b * s);
        keys[to + left + half] = Vector::cast_from(b * c + a * s);
    } else {
        let at = token * q_width + left;
        let a = Vector::<f32, N>::cast_from(q[at]);
        let b = Vector::<f32, N>::cast_from(q[at + half]);
        q[at] = Vector::cast_from(a * c - b * s);
        q[at + half] = Vector::cast_from(b * c + a * s);
    }
}

/// Where rows turn and go.
pub struct Places {
    /// Cosines and sines, `[positions, half]`.
    pub angles: [CubeTensor; 2],
    /// Half a head.
    pub half: usize,
    pub positions: CubeTensor,
    /// Of the cache, distinct.
    pub rows: CubeTensor,
}

/// Turns `q` in place and writes the new keys, turned, and values to the cache; `q` and
/// the cache, all of one type, must not be shared.
pub fn into_cache(
    q: CubeTensor,
    [k, v]: [CubeTensor; 2],
    [keys, values]: [CubeTensor; 2],
    places: Places,
) -> (CubeTensor, [CubeTensor; 2]) {
    let ([tokens, q_width], [_, k_width]) = (dims(&q), dims(&k));
    let n = vector_size(places.half);
    let (q_width, k_width) = (q_width / n, k_width / n);
    let (cubes, dim) = cover(tokens * (q_width / 2 + k_width / 2 + k_width));
    let [cos, sin] = places.angles;
    // SAFETY: each unit owns what it writes; positions lie inside the table and rows
    // inside the cache, which generation sizes for both.
    unsafe {
        turn_kernel::launch_unchecked(
            &q.client,
            cubes,
            dim,
            n,
            q.clone().into_buffer_arg(),
            k.into_buffer_arg(),
            v.into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            values.clone().into_buffer_arg(),
            cos.into_buffer_arg(),
            sin.into_buffer_arg(),
            places.positions.into_buffer_arg(),
            places.rows.into_buffer_arg(),
            places.half / n,
            q_width,
            k_width,
            tokens,
            elem(&q),
        );
    }
    (q, [keys, values])
}
