//! The largest singular values of a weight and their vectors: exactly, by block
//! Krylov subspaces with restarts (Golub and Underwood, 1977), or by a few steps of
//! randomised subspace iteration (Halko et al., 2011, arXiv:0909.4061, algorithm
//! 4.4), as `torch.svd_lowrank`. The weight is only multiplied with thin blocks, so
//! that a large one costs a few dozen passes where a whole decomposition would cost
//! hours. Results do not depend on the number of threads.

use super::eigen::eigen;
use super::gemm::{gemm, product_scratch};
use super::mat::{Mat, Threads};
use crate::rng::Stream;

/// The start of the iteration among the program's random streams.
const START: u64 = u64::from_be_bytes(*b"svdstart");
/// Vectors beyond the wanted ones in a block: they speed convergence up.
const SPARE: usize = 8;
/// A subspace has room for so many vectors, or for two blocks.
const ROOM: usize = 160;
/// Triplets are exact when `|W v - s u|` is below this share of the largest value,
/// a few roundings of f32.
const TOLERANCE: f64 = 4e-6;
/// A weight with a larger number is made smaller first: products of such numbers leave
/// f32.
const LARGE: f32 = 1e12;
/// Restarts after which nearly equal values are left as they are: any of their
/// vectors serve as well.
const RESTARTS: usize = 60;

/// The `k` largest singular values, descending, and their vectors in rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Triplets {
    /// `[k, rows]`.
    pub left: Vec<f32>,
    /// Infinite where a weight near the end of f32 has one beyond it.
    pub values: Vec<f32>,
    /// `[k, columns]`.
    pub right: Vec<f32>,
}

/// How triplets are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Svd {
    /// To the precision of f32.
    Exact,
    /// By so many steps of subspace iteration.
    Steps(usize),
}

/// The largest `k` triplets of a row-major weight of `[rows, columns]`; `seed`
/// chooses the random start.
///
/// # Panics
/// If `k` is larger than the smaller side, or the weight has another size.
pub fn triplets(weight: &[f32], shape: [usize; 2], k: usize, how: Svd, seed: u64) -> Triplets {
    let [rows, columns] = shape;
    assert_eq!(weight.len(), rows * columns, "elements of the weight");
    assert!(k <= rows.min(columns), "triplets of the weight");
    let power = power_above(weight);
    if power > 0 {
        let (down, up) = (2f32.powi(-power), 2f32.powi(power));
        let smaller: Vec<f32> = weight.iter().map(|w| w * down).collect();
        let mut found = triplets(&smaller, shape, k, how, seed);
        found.values.iter_mut().for_each(|value| *value *= up);
        return found;
    }
    let weight = Weight {
        mat: Mat::row_major(weight, rows, columns),
        wide: rows <= columns,
        short: rows.min(columns),
        long: rows.max(columns),
    };
    let (short, values, long) = match how {
        Svd::Exact => weight.exact(k, seed),
        Svd::Steps(steps) => weight.approximate(k, steps, seed),
    };
    let (left, right) = if weight.wide {
        (short, long)
    } else {
        (long, short)
    };
    Triplets {
        left,
        values,
        right,
    }
}

/// The power of two below the largest number of a weight, where that is more than
/// [`LARGE`]; else 0. Dividing by it rounds nothing that counts.
fn power_above(weight: &[f32]) -> i32 {
    let largest = weight.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    match largest > LARGE && largest.is_finite() {
        // Of a larger power the inverse would not be normal.
        true => (largest.log2() as i32).min(126),
        false => 0,
    }
}

/// Bytes that [`triplets`] takes at most beside the weight and what it returns, for a
/// weight whose numbers are no larger than a model's are.
pub fn bytes(shape: [usize; 2], k: usize) -> usize {
    let (short, long) = (shape[0].min(shape[1]), shape[0].max(shape[1]));
    let block = (k + SPARE).min(short);
    let room = ROOM.max(2 * block).min(short);
    // A subspace and its images and the newest block of both; besides, the small
    // matrix with its eigenvectors, or what a product packs.
    let packed = product_scratch(block, short, long);
    4 * (room + block) * (short + long) + packed.max(8 * 3 * room * room)
}

/// Vectors of the shorter side, values, vectors of the longer side.
type Found = (Vec<f32>, Vec<f32>, Vec<f32>);

struct Weight<'a> {
    mat: Mat<'a>,
    /// Whether rows are the shorter side.
    wide: bool,
    short: usize,
    long: usize,
}

impl Weight<'_> {
    /// Vectors of the shorter side, in rows, to those of the longer.
    fn across(&self, x: &[f32]) -> Vec<f32> {
        let mat = if self.wide { self.mat } else { self.mat.t() };
        product(x, self.short, mat)
    }

    /// And back, by the transposed weight.
    fn back(&self, y: &[f32]) -> Vec<f32> {
        let mat = if self.wide { self.mat.t() } else { self.mat };
        product(y, self.long, mat)
    }

    fn start(&self, n: usize, seed: u64) -> Vec<f32> {
        let random = Stream::new(seed, &[START]);
        (0..(n * self.short) as u64)
            .map(|i| random.normal(i))
            .collect()
    }

    fn exact(&self, k: usize, seed: u64) -> Found {
        let block = (k + SPARE).min(self.short);
        let room = ROOM.max(2 * block).min(self.short);
        let mut basis = self.start(block, seed);
        orthonormalise(&[], &mut basis, self.short);
        let mut images = self.across(&basis);
        for restart in 0.. {
            basis.reserve_exact(room * self.short - basis.len());
            images.reserve_exact(room * self.long - images.len());
            // The subspace of W W^T: each block is orthogonal to those before.
            let mut newest = images.clone();
            while basis.len() < room * self.short {
                let mut next = self.back(&newest);
                orthonormalise(&basis, &mut next, self.short);
                next.truncate(room * self.short - basis.len());
                if next.is_empty() {
                    break;
                }
                newest = self.across(&next);
                basis.extend_from_slice(&next);
                images.extend_from_slice(&newest);
            }
            let (mut short, values, mut long) = self.ritz(&basis, &images, block);
            // Of a weight that is not finite no vectors are left.
            if values.len() < k {
                return self.filled((short, values, long), k);
            }
            // Once more from the best vectors sharpens the small values.
            let last = restart >= RESTARTS;
            if restart > 0 && (last || self.converged(&short, &values, &long, k)) {
                short.truncate(k * self.short);
                long.truncate(k * self.long);
                return (short, values[..k].to_vec(), long);
            }
            orthonormalise(&[], &mut short, self.short);
            images = self.across(&short);
            basis = short;
        }
        unreachable!("the loop ends after the last restart")
    }

    /// The best `n` triplets within a subspace: `basis` is orthonormal, `images` what
    /// the weight makes of it.
    fn ritz(&self, basis: &[f32], images: &[f32], n: usize) -> Found {
        let size = basis.len() / self.short;
        let n = n.min(size);
        if n == 0 {
            return Found::default();
        }
        let mut gram = vec![0.0f64; size * size];
        for i in 0..size {
            for j in 0..=i {
                let row = |i: usize| &images[i * self.long..(i + 1) * self.long];
                let dot = dot(row(i), row(j));
                gram[i * size + j] = dot;
                gram[j * size + i] = dot;
            }
        }
        let (squares, vectors) = eigen(gram, size);
        // eigen gives ascending values.
        let order = (0..size).rev().take(n);
        let mut mix = Vec::with_capacity(n * size);
        let mut values = Vec::with_capacity(n);
        for i in order {
            values.push(squares[i].max(0.0).sqrt() as f32);
            mix.extend(vectors[i * size..(i + 1) * size].iter().map(|v| *v as f32));
        }
        let short = product(&mix, size, Mat::row_major(basis, size, self.short));
        let mut long = product(&mix, size, Mat::row_major(images, size, self.long));
        for (row, value) in long.chunks_exact_mut(self.long).zip(&mut values) {
            let length = dot(row, row).sqrt();
            *value = length as f32;
            let inverse = if length > 0.0 { 1.0 / length } else { 0.0 };
            row.iter_mut()
                .for_each(|v| *v = (f64::from(*v) * inverse) as f32);
        }
        (short, values, long)
    }

    fn converged(&self, short: &[f32], values: &[f32], long: &[f32], k: usize) -> bool {
        let seen = self.back(&long[..k * self.long]);
        let most = TOLERANCE * f64::from(values.first().copied().unwrap_or(0.0));
        let pairs = seen
            .chunks_exact(self.short)
            .zip(short.chunks_exact(self.short));
        pairs.zip(values).all(|((seen, vector), value)| {
            let off = seen.iter().zip(vector);
            let off = off.map(|(a, b)| f64::from(a - value * b).powi(2));
            off.sum::<f64>().sqrt() <= most
        })
    }

    fn approximate(&self, k: usize, steps: usize, seed: u64) -> Found {
        let mut long = self.across(&self.start(k, seed));
        orthonormalise(&[], &mut long, self.long);
        for _ in 0..steps {
            let mut short = self.back(&long);
            orthonormalise(&[], &mut short, self.short);
            long = self.across(&short);
            orthonormalise(&[], &mut long, self.long);
        }
        // The subspace lies on the longer side here.
        let turned = Weight {
            mat: self.mat,
            wide: !self.wide,
            short: self.long,
            long: self.short,
        };
        let images = self.back(&long);
        let (long, values, short) = turned.ritz(&long, &images, k);
        self.filled((short, values, long), k)
    }

    /// `k` triplets: of a weight of lower rank the rest is zero.
    fn filled(&self, (mut short, mut values, mut long): Found, k: usize) -> Found {
        values.resize(k, 0.0);
        long.resize(k * self.long, 0.0);
        short.resize(k * self.short, 0.0);
        (short, values, long)
    }
}

/// `x . mat` with `x` in rows of `width`.
fn product(x: &[f32], width: usize, mat: Mat<'_>) -> Vec<f32> {
    let rows = x.len() / width;
    let mut out = vec![0.0; rows * mat.cols];
    let x = Mat::row_major(x, rows, width);
    gemm(&mut out, mat.cols, x, mat, 1.0, false, Threads::All);
    out
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Makes the rows of `x` orthogonal to those of `basis` and to one another, of length
/// one. Rows that were hardly more than sums of others are left out.
fn orthonormalise(basis: &[f32], x: &mut Vec<f32>, width: usize) {
    let lengths: Vec<f64> = x
        .chunks_exact(width)
        .map(|row| dot(row, row).sqrt())
        .collect();
    // Twice is enough (Kahan).
    for _ in 0..2 {
        if !basis.is_empty() {
            let basis = Mat::row_major(basis, basis.len() / width, width);
            let along = product(x, width, basis.t());
            let rows = x.len() / width;
            let along = Mat::row_major(&along, rows, basis.rows);
            gemm(x, width, along, basis, -1.0, true, Threads::All);
        }
    }
    let mut kept: Vec<f32> = Vec::with_capacity(x.len());
    for (row, length) in x.chunks_exact_mut(width).zip(lengths) {
        for _ in 0..2 {
            for other in kept.chunks_exact(width) {
                let along = dot(row, other) as f32;
                row.iter_mut().zip(other).for_each(|(v, o)| *v -= along * o);
            }
        }
        let left = dot(row, row).sqrt();
        if left > 1e-5 * length {
            kept.extend(row.iter().map(|v| (f64::from(*v) / left) as f32));
        }
    }
    *x = kept;
}

#[cfg(test)]
#[path = "svd_tests.rs"]
mod tests;
