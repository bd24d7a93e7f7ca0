//! Kernels with a number a column or a row: biases, and DoRA's factors and lengths.

use rayon::prelude::*;

use super::elementwise::by_rows;
use super::norm::{column_sums, dot};
use crate::ops::vectorised::vectorised;

/// Rows of a weight that a task squares.
const ROWS: usize = 64;

pub fn add_bias(x: &mut [f32], bias: &[f32]) {
    by_rows(x, bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += b;
            }
        }
    });
}

/// |w|^2 of rows of `width` numbers.
pub fn row_squares(w: &[f32], width: usize) -> Vec<f32> {
    let mut squares = vec![0.0; w.len() / width];
    squares
        .par_chunks_mut(ROWS)
        .zip(w.par_chunks(ROWS * width))
        .for_each(|(squares, rows)| {
            vectorised(
                #[inline(always)]
                || {
                    for (s, row) in squares.iter_mut().zip(rows.chunks_exact(width)) {
                        *s = dot(row, row);
                    }
                },
            );
        });
    squares
}

/// `y += factors x adapted - plain`.
pub fn dora_output(y: &mut [f32], factors: &[f32], adapted: &[f32], plain: &[f32]) {
    let width = factors.len();
    by_rows(y, width, |first, rows| {
        vectorised(
            #[inline(always)]
            || {
                let at = first * width;
                let others = adapted[at..].chunks_exact(width);
                let others = others.zip(plain[at..].chunks_exact(width));
                for (row, (adapted, plain)) in rows.chunks_exact_mut(width).zip(others) {
                    let each = row.iter_mut().zip(factors).zip(adapted.iter().zip(plain));
                    for ((y, f), (a, p)) in each {
                        *y = *y + f * a - p;
                    }
                }
            },
        );
    });
}

/// Gradients to the factors, to `adapted` and to `plain`.
pub fn dora_backward(dy: &[f32], factors: &[f32], adapted: &[f32]) -> [Vec<f32>; 3] {
    let width = factors.len();
    let mut products = vec![0.0; dy.len()];
    by_rows(&mut products, 1, |at, out| {
        for ((o, d), a) in out.iter_mut().zip(&dy[at..]).zip(&adapted[at..]) {
            *o = d * a;
        }
    });
    let slopes = column_sums(&products, width);
    // The products' memory is that of the next result.
    let mut d_adapted = products;
    by_rows(&mut d_adapted, width, |first, out| {
        let rows = dy[first * width..].chunks_exact(width);
        for (out, dy) in out.chunks_exact_mut(width).zip(rows) {
            for ((o, d), f) in out.iter_mut().zip(dy).zip(factors) {
                *o = d * f;
            }
        }
    });
    let mut d_plain = vec![0.0; dy.len()];
    by_rows(&mut d_plain, 1, |at, out| {
        for ((o, a), d) in out.iter_mut().zip(&d_adapted[at..]).zip(&dy[at..]) {
            *o = a - d;
        }
    });
    [slopes, d_adapted, d_plain]
}
