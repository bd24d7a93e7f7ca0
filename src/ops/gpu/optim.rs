//! AdamW and the global norm, many tensors a launch. The norm stays on the device:
//! the update reads it there, so the host waits for neither.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::many::{RUN, at_once, buffers, firsts, run_of, sizes};
use super::reduce::cube_sum;
use super::tensors::{UNITS, cubes, empty};
use crate::ops::AdamW;

/// Partial sums a tensor.
const PARTS: usize = 64;

/// The factor on gradients; see [`crate::ops::Clip`].
#[cube]
pub fn clip_factor(squared_norm: &[f32], max_norm: f32) -> f32 {
    let mut clip = f32::new(1.0);
    if max_norm > 0.0 {
        clip = min(
            max_norm / (f32::sqrt(squared_norm[0]) + f32::new(1e-6)),
            f32::new(1.0),
        );
    }
    clip
}

/// [`PARTS`] cubes a tensor.
#[cube(launch_unchecked)]
fn squares_kernel(
    tensors: &Sequence<Box<[f32]>>,
    elements: &Sequence<u32>,
    parts: &mut [f32],
    first: usize,
    #[comptime] units: usize,
    #[comptime] cubes: usize,
) {
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let mut sum = f32::new(0.0);
    let owner = CUBE_POS / cubes;
    #[unroll]
    for t in 0..tensors.len() {
        if owner == t {
            let x = tensors.index(t);
            let end = elements[t] as usize;
            let mut i = CUBE_POS % cubes * units + UNIT_POS as usize;
            while i < end {
                sum += x[i] * x[i];
                i += comptime!(units * cubes);
            }
        }
    }
    let total = cube_sum(sum, &mut scratch, units);
    if UNIT_POS == 0 {
        parts[first + CUBE_POS] = total;
    }
}

#[cube(launch_unchecked)]
fn total_kernel(parts: &[f32], total: &mut [f32], count: usize, #[comptime] units: usize) {
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let mut sum = f32::new(0.0);
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += parts[i];
        i += units;
    }
    let all = cube_sum(sum, &mut scratch, units);
    if UNIT_POS == 0 {
        total[0] = all;
    }
}

/// torch's update; see [`crate::ops::AdamW`]. A cube has [`RUN`] elements.
#[cube(launch_unchecked)]
fn adamw_kernel(
    p: &mut Sequence<Box<[f32]>>,
    g: &Sequence<Box<[f32]>>,
    m: &mut Sequence<Box<[f32]>>,
    v: &mut Sequence<Box<[f32]>>,
    elements: &Sequence<u32>,
    firsts: &Sequence<u32>,
    squared_norm: &[f32],
    max_norm: f32,
    decay: f32,
    step_size: f32,
    inv_bias2: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] run: usize,
) {
    let clip = clip_factor(squared_norm, max_norm);
    let one = f32::new(1.0);
    let cube = CUBE_POS as u32;
    #[unroll]
    for t in 0..g.len() {
        if cube >= firsts[t] && cube < firsts[t + 1] {
            let (begin, end) = run_of(firsts[t], elements[t], run);
            let mut i = begin + UNIT_POS as usize;
            while i < end {
                let grad = g.index(t)[i] * clip;
                let first = m.index(t)[i] * beta1 + grad * (one - beta1);
                let second = v.index(t)[i] * beta2 + grad * grad * (one - beta2);
                let denominator = f32::sqrt(second) * inv_bias2 + eps;
                m.index_mut(t)[i] = first;
                v.index_mut(t)[i] = second;
                p.index_mut(t)[i] = p.index(t)[i] * decay - step_size * (first / denominator);
                i += units;
            }
        }
    }
}

/// The sum of squares of all f32 tensors, `[1]`. There is at least one.
pub fn sum_squares(tensors: &[CubeTensor]) -> CubeTensor {
    let count = PARTS * tensors.len();
    let parts = empty(&tensors[0], &[count], DType::F32);
    let total = empty(&tensors[0], &[1], DType::F32);
    let dim = CubeDim::new_1d(UNITS as u32);
    let most = at_once(&parts, 1, 2);
    for (i, some) in tensors.chunks(most).enumerate() {
        // SAFETY: every tensor has `PARTS` places of its own.
        unsafe {
            squares_kernel::launch_unchecked(
                &parts.client,
                CubeCount::Static((PARTS * some.len()) as u32, 1, 1),
                dim,
                buffers(some.iter()),
                sizes(some.iter()),
                parts.clone().into_buffer_arg(),
                i * most * PARTS,
                UNITS,
                PARTS,
            );
        }
    }
    // SAFETY: reads `count` parts, writes one number.
    unsafe {
        total_kernel::launch_unchecked(
            &total.client,
            CubeCount::Static(1, 1, 1),
            dim,
            parts.into_buffer_arg(),
            total.clone().into_buffer_arg(),
            count,
            UNITS,
        );
    }
    total
}

/// Updates `[p, m, v]` of each parameter in place; none may be shared. All are f32.
pub fn adamw(
    params: &[[CubeTensor; 3]],
    grads: &[CubeTensor],
    squared_norm: &CubeTensor,
    max_norm: f64,
    h: &AdamW,
) {
    let t = h.step as i32;
    let most = at_once(squared_norm, 4, 2);
    for (params, grads) in params.chunks(most).zip(grads.chunks(most)) {
        let counts = grads.iter().map(|g| g.meta.num_elements().div_ceil(RUN));
        let (firsts, count) = firsts(counts);
        let part = |which: usize| buffers(params.iter().map(move |p| &p[which]));
        // SAFETY: all four of a parameter have the same number of elements.
        unsafe {
            adamw_kernel::launch_unchecked(
                &squared_norm.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                part(0),
                buffers(grads.iter()),
                part(1),
                part(2),
                sizes(grads.iter()),
                firsts,
                squared_norm.clone().into_buffer_arg(),
                max_norm as f32,
                (1.0 - h.lr * h.weight_decay) as f32,
                (h.lr / (1.0 - h.beta1.powi(t))) as f32,
                (1.0 / (1.0 - h.beta2.powi(t)).sqrt()) as f32,
                h.beta1 as f32,
                h.beta2 as f32,
                h.eps as f32,
                UNITS,
                RUN,
            );
        }
    }
}
