//! All eigenvalues and vectors of a small symmetric matrix in f64: Householder
//! reflections to three diagonals, then rotations with implicit shifts (Golub and
//! Van Loan, Matrix Computations, 4th edition, sections 8.3.1 and 8.3.3).

/// Ascending eigenvalues of the symmetric `[n, n]` matrix `a`, and its orthonormal
/// eigenvectors in rows, in the same order.
pub fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(a.len(), n * n, "elements of the matrix");
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    for k in 0..n.saturating_sub(2) {
        reflect(&mut a, &mut vectors, n, k);
    }
    let mut diagonal: Vec<f64> = (0..n).map(|i| a[i * n + i]).collect();
    let mut beside: Vec<f64> = (1..n).map(|i| a[i * n + i - 1]).collect();
    rotate_away(&mut diagonal, &mut beside, &mut vectors, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| diagonal[*i].total_cmp(&diagonal[*j]));
    let values = order.iter().map(|i| diagonal[*i]).collect();
    let mut sorted = Vec::with_capacity(n * n);
    for i in order {
        sorted.extend_from_slice(&vectors[i * n..(i + 1) * n]);
    }
    (values, sorted)
}

/// Zeroes column `k` below the first subdiagonal.
fn reflect(a: &mut [f64], vectors: &mut [f64], n: usize, k: usize) {
    let m = n - k - 1;
    let mut v: Vec<f64> = (k + 1..n).map(|i| a[i * n + k]).collect();
    let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    if v[1..].iter().all(|x| *x == 0.0) || length == 0.0 {
        return;
    }
    let head = if v[0] > 0.0 { -length } else { length };
    v[0] -= head;
    let beta = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
    // A - v w^T - w v^T with w = p - (beta / 2) (p . v) v and p = beta A v.
    let row = |i: usize| (k + 1 + i) * n + k + 1..(k + 2 + i) * n;
    let mut w: Vec<f64> = (0..m)
        .map(|i| beta * a[row(i)].iter().zip(&v).map(|(x, v)| x * v).sum::<f64>())
        .collect();
    let half = beta / 2.0 * w.iter().zip(&v).map(|(w, v)| w * v).sum::<f64>();
    w.iter_mut().zip(&v).for_each(|(w, v)| *w -= half * v);
    for i in 0..m {
        let (vi, wi) = (v[i], w[i]);
        let values = a[row(i)].iter_mut().zip(v.iter().zip(&w));
        values.for_each(|(x, (v, w))| *x -= vi * w + wi * v);
    }
    for i in k + 1..n {
        let value = if i == k + 1 { head } else { 0.0 };
        a[i * n + k] = value;
        a[k * n + i] = value;
    }
    // Vectors stand in rows: the reflection mixes them.
    let mut along = vec![0.0; n];
    for (i, v) in v.iter().enumerate() {
        let row = &vectors[(k + 1 + i) * n..(k + 2 + i) * n];
        along.iter_mut().zip(row).for_each(|(s, x)| *s += v * x);
    }
    for (i, v) in v.iter().enumerate() {
        let row = &mut vectors[(k + 1 + i) * n..(k + 2 + i) * n];
        row.iter_mut()
            .zip(&along)
            .for_each(|(x, s)| *x -= beta * v * s);
    }
}

/// Turns a matrix of a diagonal and one beside it into a diagonal one.
fn rotate_away(diagonal: &mut [f64], beside: &mut [f64], vectors: &mut [f64], n: usize) {
    let mut high = n.saturating_sub(1);
    // Two or three rounds a value are usual; the bound is for what is not finite.
    let mut rounds = 60 * n;
    while high > 0 && rounds > 0 {
        rounds -= 1;
        let small = |i: usize| {
            let size = diagonal[i].abs() + diagonal[i + 1].abs();
            beside[i].abs() <= f64::EPSILON * size
        };
        if small(high - 1) {
            beside[high - 1] = 0.0;
            high -= 1;
            continue;
        }
        let low = (0..high - 1).rev().find(|i| small(*i)).map_or(0, |i| i + 1);
        // The eigenvalue of the last two rows that is nearer to the last.
        let off = beside[high - 1];
        let middle = (diagonal[high - 1] - diagonal[high]) / 2.0;
        let root = middle.hypot(off).copysign(middle);
        let shift = diagonal[high] - off * off / (middle + root);
        let (mut x, mut z) = (diagonal[low] - shift, beside[low]);
        for k in low..high {
            let length = x.hypot(z);
            let (c, s) = if length > 0.0 {
                (x / length, z / length)
            } else {
                (1.0, 0.0)
            };
            if k > low {
                beside[k - 1] = length;
            }
            let (p, q, r) = (diagonal[k], beside[k], diagonal[k + 1]);
            diagonal[k] = c * c * p + 2.0 * c * s * q + s * s * r;
            diagonal[k + 1] = s * s * p - 2.0 * c * s * q + c * c * r;
            beside[k] = c * s * (r - p) + (c * c - s * s) * q;
            x = beside[k];
            if k + 1 < high {
                z = s * beside[k + 1];
                beside[k + 1] *= c;
            }
            let (above, below) = vectors.split_at_mut((k + 1) * n);
            let pair = above[k * n..].iter_mut().zip(&mut below[..n]);
            pair.for_each(|(a, b)| (*a, *b) = (c * *a + s * *b, c * *b - s * *a));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn check(a: &[f64], n: usize, case: &str) {
        let (values, vectors) = eigen(a.to_vec(), n);
        assert!(values.windows(2).all(|w| w[0] <= w[1]), "{case}");
        let size = a.iter().fold(1e-300f64, |m, x| m.max(x.abs())) * n as f64;
        for i in 0..n {
            let v = &vectors[i * n..(i + 1) * n];
            for row in 0..n {
                let seen: f64 = a[row * n..(row + 1) * n]
                    .iter()
                    .zip(v)
                    .map(|(a, v)| a * v)
                    .sum();
                let off = (seen - values[i] * v[row]).abs();
                assert!(off < 1e-13 * size, "{case}: {off}");
            }
            for j in 0..n {
                let other = &vectors[j * n..(j + 1) * n];
                let dot: f64 = v.iter().zip(other).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{case}");
            }
        }
    }

    #[test]
    fn vectors_are_orthonormal_and_the_matrix_stretches_them() {
        let random = Stream::new(31, &[]);
        for n in [1usize, 2, 3, 10, 61] {
            let number =
                |i: usize, j: usize| f64::from(random.normal((i.min(j) * n + i.max(j)) as u64));
            let full: Vec<f64> = (0..n * n).map(|at| number(at / n, at % n)).collect();
            check(&full, n, "random");
            let graded: Vec<f64> = (0..n * n)
                .map(|at| full[at] * 10f64.powi(-((at / n + at % n) as i32) / 2))
                .collect();
            check(&graded, n, "graded");
            let ones = vec![1.0; n * n];
            check(&ones, n, "of rank one");
            check(&vec![0.0; n * n], n, "zero");
            let mut diagonal = vec![0.0; n * n];
            (0..n).for_each(|i| diagonal[i * n + i] = ((i * 7) % 5) as f64);
            check(&diagonal, n, "diagonal with equal values");
        }
    }
}
