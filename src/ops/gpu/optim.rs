//! AdamW and the global norm. The norm stays on the device: the update reads it
//! there, so the host waits for neither.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::reduce::cube_sum;
use super::tensors::{UNITS, cover, empty};
use crate::ops::AdamW;

/// Partial sums a tensor.
const PARTS: usize = 64;

#[cube(launch_unchecked)]
fn squares_kernel(
    x: &[f32],
    parts: &mut [f32],
    first: usize,
    elements: usize,
    #[comptime] units: usize,
    #[comptime] cubes: usize,
) {
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let mut sum = f32::new(0.0);
    let mut i = CUBE_POS * units + UNIT_POS as usize;
    while i < elements {
        sum += x[i] * x[i];
        i += comptime!(units * cubes);
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

/// torch's update; see [`crate::ops::AdamW`].
#[cube(launch_unchecked)]
fn adamw_kernel(
    p: &mut [f32],
    g: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    squared_norm: &[f32],
    max_norm: f32,
    decay: f32,
    step_size: f32,
    inv_bias2: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    elements: usize,
) {
    let i = ABSOLUTE_POS;
    if i >= elements {
        terminate!();
    }
    let mut clip = f32::new(1.0);
    if max_norm > 0.0 {
        clip = min(
            max_norm / (f32::sqrt(squared_norm[0]) + f32::new(1e-6)),
            f32::new(1.0),
        );
    }
    let one = f32::new(1.0);
    let grad = g[i] * clip;
    let first = m[i] * beta1 + grad * (one - beta1);
    let second = v[i] * beta2 + grad * grad * (one - beta2);
    let denominator = f32::sqrt(second) * inv_bias2 + eps;
    m[i] = first;
    v[i] = second;
    p[i] = p[i] * decay - step_size * (first / denominator);
}

/// The sum of squares of all f32 tensors, `[1]`. There is at least one.
pub fn sum_squares(tensors: &[CubeTensor]) -> CubeTensor {
    let count = PARTS * tensors.len();
    let parts = empty(&tensors[0], &[count], DType::F32);
    let total = empty(&tensors[0], &[1], DType::F32);
    let dim = CubeDim::new_1d(UNITS as u32);
    for (i, x) in tensors.iter().enumerate() {
        // SAFETY: every tensor has `PARTS` places of its own.
        unsafe {
            squares_kernel::launch_unchecked(
                &x.client,
                CubeCount::Static(PARTS as u32, 1, 1),
                dim,
                x.clone().into_buffer_arg(),
                parts.clone().into_buffer_arg(),
                i * PARTS,
                x.meta.num_elements(),
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

/// Updates `p`, `m` and `v` in place; none may be shared. All are f32.
pub fn adamw(
    [p, m, v]: [&CubeTensor; 3],
    g: CubeTensor,
    squared_norm: CubeTensor,
    max_norm: f64,
    h: &AdamW,
) {
    let t = h.step as i32;
    let elements = p.meta.num_elements();
    let (cubes, dim) = cover(elements);
    // SAFETY: all four have the same number of elements.
    unsafe {
        adamw_kernel::launch_unchecked(
            &p.client,
            cubes,
            dim,
            p.clone().into_buffer_arg(),
            g.into_buffer_arg(),
            m.clone().into_buffer_arg(),
            v.clone().into_buffer_arg(),
            squared_norm.into_buffer_arg(),
            max_norm as f32,
            (1.0 - h.lr * h.weight_decay) as f32,
            (h.lr / (1.0 - h.beta1.powi(t))) as f32,
            (1.0 / (1.0 - h.beta2.powi(t)).sqrt()) as f32,
            h.beta1 as f32,
            h.beta2 as f32,
            h.eps as f32,
            elements,
        );
    }
}
