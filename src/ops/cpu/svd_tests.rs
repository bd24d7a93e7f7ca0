//! Triplets of weights whose decomposition is known, and of every odd kind.

use super::*;

fn random(n: usize, key: u64) -> Vec<f32> {
    let stream = Stream::new(41, &[key]);
    (0..n as u64).map(|i| stream.normal(i)).collect()
}

/// A weight with these singular values and random vectors.
fn with_values(shape: [usize; 2], values: &[f32], key: u64) -> Vec<f32> {
    let [rows, columns] = shape;
    let side = |width: usize, key| {
        let mut x = random(values.len() * width, key);
        orthonormalise(&[], &mut x, width);
        assert_eq!(x.len(), values.len() * width);
        x
    };
    let (left, right) = (side(rows, 2 * key), side(columns, 2 * key + 1));
    let mut weight = vec![0.0f32; rows * columns];
    for (i, value) in values.iter().enumerate() {
        for (row, l) in weight.chunks_exact_mut(columns).zip(&left[i * rows..]) {
            let right = &right[i * columns..];
            row.iter_mut()
                .zip(right)
                .for_each(|(w, r)| *w += value * l * r);
        }
    }
    weight
}

/// The sum of the triplets, `[rows, columns]`.
fn summed(found: &Triplets, shape: [usize; 2]) -> Vec<f32> {
    let [rows, columns] = shape;
    let mut sum = vec![0.0f32; rows * columns];
    for (i, value) in found.values.iter().enumerate() {
        for (row, l) in sum.chunks_exact_mut(columns).zip(&found.left[i * rows..]) {
            let right = &found.right[i * columns..];
            row.iter_mut()
                .zip(right)
                .for_each(|(w, r)| *w += value * l * r);
        }
    }
    sum
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn known_triplets_are_found() {
    for shape in [[40, 300], [300, 40], [57, 57], [700, 220]] {
        let n = shape[0].min(shape[1]);
        // A slow decline, as weights have it, with a step after the sixth.
        let value = |i: usize| {
            if i < 6 {
                10.0 - i as f32
            } else {
                3.0 * 0.99f32.powi(i as i32)
            }
        };
        let values: Vec<f32> = (0..n).map(value).collect();
        let weight = with_values(shape, &values, n as u64);
        let found = triplets(&weight, shape, 6, Svd::Exact, 1);
        for (got, want) in found.values.iter().zip(&values) {
            assert!((got - want).abs() < 1e-4, "{shape:?}: {got} {want}");
        }
        let mut best = with_values(shape, &values[..6], n as u64);
        // The same vectors: `random` begins with those of the first values.
        let first = summed(&triplets(&best, shape, 6, Svd::Exact, 2), shape);
        assert!(distance(&first, &best) < 1e-3);
        let rest: f64 = values[6..].iter().map(|v| f64::from(*v).powi(2)).sum();
        best = summed(&found, shape);
        // By Eckart and Young no sum of six comes nearer than the other values say.
        assert!(distance(&best, &weight) < rest.sqrt() * (1.0 + 1e-5) + 1e-4);
        let steps = triplets(&weight, shape, 6, Svd::Steps(16), 3);
        assert!(distance(&summed(&steps, shape), &best) < 0.05, "{shape:?}");
    }
}

#[test]
fn all_triplets_make_the_weight() {
    for shape in [[1, 1], [1, 9], [9, 1], [12, 7], [7, 12], [30, 30]] {
        let n = shape[0].min(shape[1]);
        let weight = random(shape[0] * shape[1], 77);
        for how in [Svd::Exact, Svd::Steps(4)] {
            let found = triplets(&weight, shape, n, how, 5);
            assert!(found.values.windows(2).all(|w| w[0] >= w[1] - 1e-5));
            let off = distance(&summed(&found, shape), &weight);
            assert!(off < 1e-4, "{shape:?} {how:?}: {off}");
        }
    }
}

#[test]
fn weights_of_low_rank_and_equal_values_have_triplets_too() {
    let zero = triplets(&[0.0; 60], [6, 10], 3, Svd::Exact, 1);
    assert!(
        zero.values
            .iter()
            .chain(&zero.left)
            .chain(&zero.right)
            .all(|v| v.is_finite())
    );
    assert_eq!(zero.values, [0.0; 3]);
    let steps = triplets(&[0.0; 60], [6, 10], 3, Svd::Steps(2), 1);
    assert_eq!(steps.values, [0.0; 3]);
    let shape = [200, 190];
    let two = with_values(shape, &[3.0, 2.0], 9);
    for how in [Svd::Exact, Svd::Steps(3)] {
        let found = triplets(&two, shape, 5, how, 1);
        assert!(distance(&summed(&found, shape), &two) < 1e-4, "{how:?}");
        assert!(found.values[2..].iter().all(|v| v.abs() < 1e-4), "{how:?}");
    }
    let equal = with_values(shape, &[2.0; 190], 10);
    let found = triplets(&equal, shape, 4, Svd::Exact, 1);
    assert!(found.values.iter().all(|v| (v - 2.0).abs() < 1e-4));
}

#[test]
fn huge_weights_have_the_triplets_of_small_ones() {
    let shape = [40, 24];
    let small = random(shape[0] * shape[1], 13);
    // The squares of these are beyond f32.
    let huge: Vec<f32> = small.iter().map(|w| w * 2f32.powi(110)).collect();
    for how in [Svd::Exact, Svd::Steps(4)] {
        let (small, huge) = (
            triplets(&small, shape, 5, how, 1),
            triplets(&huge, shape, 5, how, 1),
        );
        for (got, want) in huge.values.iter().zip(&small.values) {
            let got = got * 2f32.powi(-110);
            assert!((got / want - 1.0).abs() < 1e-4, "{how:?}: {got} {want}");
        }
        assert!(huge.left.iter().chain(&huge.right).all(|v| v.is_finite()));
    }
    // With a largest value beyond f32, and weights that are none.
    for number in [3e38, -f32::MAX, f32::INFINITY, f32::NAN] {
        let weight = vec![number; shape[0] * shape[1]];
        for how in [Svd::Exact, Svd::Steps(4)] {
            let found = triplets(&weight, shape, 5, how, 1);
            assert_eq!(found.values.len(), 5, "{number} {how:?}");
            assert_eq!(found.left.len(), 5 * shape[0], "{number} {how:?}");
            assert_eq!(found.right.len(), 5 * shape[1], "{number} {how:?}");
            let beyond = number.is_finite() && found.values[0] != f32::INFINITY;
            assert!(!beyond, "{number} {how:?}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let shape = [170, 260];
    let weight = random(shape[0] * shape[1], 5);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| triplets(&weight, shape, 9, Svd::Exact, 4))
    };
    assert_eq!(on(1), on(2));
    assert_eq!(on(1), on(3));
}
