//! Products of a few rows with a whole weight, as in generation: the weight is
//! read once, row by row, and a row becomes numbers in a buffer that stays
//! in the first-level cache, never in memory.

use rayon::prelude::*;

use super::elementwise::vectorised;
use super::frozen::Rows;

/// From so many rows on, the blocked product is faster.
pub const MOST_ROWS: usize = 16;
/// Weight rows of a task.
const TASK: usize = 32;

/// Adds `x . W^T` for `rows` rows of `x` to `y` of `[rows, out]`.
pub fn add_product(y: &mut [f32], x: &[f32], rows: usize, weight: &impl Rows) {
    let [out, columns] = weight.shape();
    // By weight rows, so that each task writes a place of its own.
    let mut products = vec![0.0; rows * out];
    products
        .par_chunks_mut(TASK * rows)
        .enumerate()
        .for_each_init(
            || vec![0.0; columns],
            |row, (task, products)| {
                for (i, products) in products.chunks_exact_mut(rows).enumerate() {
                    weight.fill(task * TASK + i, row);
                    vectorised(
                        #[inline(always)]
                        || dots(row, x, products),
                    );
                }
            },
        );
    for (i, y) in y.chunks_exact_mut(out).enumerate() {
        for (y, products) in y.iter_mut().zip(products.chunks_exact(rows)) {
            *y += products[i];
        }
    }
}

/// The dot products of `w` with each row of `x`. What a row gives does not depend
/// on the other rows: answers stay the same in any batch.
#[inline(always)]
fn dots(w: &[f32], x: &[f32], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x.chunks_exact(w.len())) {
        *out = dot(w, x);
    }
}

/// In four times eight lanes, enough to hide the latency of the additions.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0f32; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = ca.remainder().iter().zip(cb.remainder());
    let tail: f32 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in ca.zip(cb) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = a.mul_add(*b, *lane);
        }
    }
    lanes.iter().sum::<f32>() + tail
}
