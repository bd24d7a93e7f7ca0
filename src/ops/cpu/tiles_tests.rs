//! The tiles against the slow sum.

use super::*;
use crate::rng::Stream;

fn numbers(count: usize, stream: Stream) -> Vec<f32> {
    (0..count as u64).map(|i| stream.normal(i)).collect()
}

fn slow(a: Mat<'_>, b: Mat<'_>, row: usize, col: usize) -> f64 {
    (0..a.cols)
        .map(|p| f64::from(a.at(row, p)) * f64::from(b.at(p, col)))
        .sum()
}

#[test]
fn products_of_any_shape_are_those_of_the_slow_sum() {
    if !has_avx2() {
        println!("left out: no AVX2");
        return;
    }
    let seed = std::process::id().into();
    println!("seed {seed}");
    let shapes = [
        (1, 1, 1),
        (6, 16, 8),
        (7, 17, 9),
        (5, 33, 384),
        (13, 15, 385),
        (100, 70, 50),
        (97, 130, 800),
        (200, 2100, 7),
        (3080, 20, 10),
    ];
    for (case, (m, n, k)) in shapes.into_iter().enumerate() {
        let stream = |of| Stream::new(seed, &[case as u64, of]);
        let (a, b) = (numbers(m * k, stream(0)), numbers(k * n, stream(1)));
        // A row of the destination is longer than the product's.
        let stride = n + 3;
        let before = numbers(m * stride, stream(2));
        for turn in 0..8 {
            let [ta, tb, accumulate] = [1, 2, 4].map(|bit| turn & bit != 0);
            let a = match ta {
                true => Mat::row_major(&a, k, m).t(),
                false => Mat::row_major(&a, m, k),
            };
            let b = match tb {
                true => Mat::row_major(&b, n, k).t(),
                false => Mat::row_major(&b, k, n),
            };
            let product = |threads| {
                let mut got = before.clone();
                let dst = got.as_mut_ptr();
                // SAFETY: `got` has all rows.
                unsafe { gemm(dst, stride, a, b, -0.5, accumulate, threads) };
                got
            };
            let got = product(Threads::One);
            assert!(got == product(Threads::All), "threads changed bits");
            for (i, (&got, &was)) in got.iter().zip(&before).enumerate() {
                let (row, col) = (i / stride, i % stride);
                if col >= n {
                    assert_eq!(got, was, "written beside the product");
                    continue;
                }
                let start = if accumulate { f64::from(was) } else { 0.0 };
                let want = start - 0.5 * slow(a, b, row, col);
                let off = (f64::from(got) - want).abs();
                let bound = 2e-6 * (k as f64).sqrt() * (1.0 + want.abs());
                assert!(
                    off <= bound,
                    "{m} {n} {k} {turn} at {row} {col}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    if !has_avx2() {
        println!("left out: no AVX2");
        return;
    }
    let (m, n, k) = (300, 400, 500);
    let (a, b) = (
        numbers(m * k, Stream::new(1, &[])),
        numbers(n * k, Stream::new(2, &[])),
    );
    let products = [1, 2, 3, 7].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut got = vec![0.0; m * n];
            let (a, b) = (Mat::row_major(&a, m, k), Mat::row_major(&b, n, k).t());
            // SAFETY: `got` has all rows.
            unsafe { gemm(got.as_mut_ptr(), n, a, b, 1.0, false, Threads::All) };
            got
        })
    });
    assert!(products.iter().all(|product| *product == products[0]));
}
