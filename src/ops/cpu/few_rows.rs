//! Products of a few rows with a whole weight, as in generation, where the time is
//! that of reading the weight: it is read once, cut among the threads by rows. Rows
//! in NF4 become numbers in a buffer that stays in the first-level cache, never in
//! memory.

use rayon::prelude::*;

use super::weight_rows::Rows;

/// From so many rows on, the blocked product is faster.
const MOST_ROWS: usize = 16;
/// In shorter rows the sums over lanes cost more than the products.
const LEAST_COLUMNS: usize = 64;
/// Weights of a task at least; less is not worth another thread.
const GRAIN: usize = 1 << 15;
/// Rows of the weight that are multiplied together: enough sums under way to hide
/// the latency of each.
const TILE: usize = 4;
/// Sums of a dot product that run side by side, whatever the CPU's vectors: what
/// comes out depends neither on the CPU nor on the other rows, so that answers stay
/// the same in any batch.
const LANES: usize = 8;

/// Whether the product of so many rows is one for [`add_product`].
pub fn is_for(rows: usize, columns: usize) -> bool {
    (1..=MOST_ROWS).contains(&rows) && columns >= LEAST_COLUMNS
}

/// Adds `alpha x . W^T` to `y` of `[rows, out]`, with `x` of `[rows, columns]`.
pub fn add_product(y: &mut [f32], x: &[f32], columns: usize, weight: Rows<'_>, alpha: f32) {
    let rows = x.len() / columns;
    let out = y.len() / rows;
    // By weight rows, so that each task writes a place of its own.
    let mut products = vec![0.0; rows * out];
    let task = GRAIN.div_ceil(columns).next_multiple_of(TILE);
    let buffer = || vec![0.0; weight.buffer(TILE, columns)];
    let work = |buffer: &mut Vec<f32>, (number, products): (usize, &mut [f32])| {
        for (i, products) in products.chunks_mut(TILE * rows).enumerate() {
            let first = number * task + i * TILE;
            let w = weight.get(first, products.len() / rows, columns, buffer);
            tile(w, x, columns, products);
        }
    };
    match out <= task {
        true => work(&mut buffer(), (0, &mut products)),
        false => products
            .par_chunks_mut(task * rows)
            .enumerate()
            .for_each_init(buffer, work),
    }
    for (i, y) in y.chunks_exact_mut(out).enumerate() {
        for (y, products) in y.iter_mut().zip(products.chunks_exact(rows)) {
            *y += alpha * products[i];
        }
    }
}

/// The dot products of up to [`TILE`] rows of the weight with each row of `x`.
fn tile(w: &[f32], x: &[f32], columns: usize, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has both.
        return unsafe { tile_by_eights(w, x, columns, out) };
    }
    tile_by(
        w,
        x,
        columns,
        out,
        lanes::<TILE, 2>,
        lanes::<TILE, 1>,
        lanes::<1, 1>,
    );
}

/// # Safety
/// The CPU must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_by_eights(w: &[f32], x: &[f32], columns: usize, out: &mut [f32]) {
    // SAFETY: the features are there.
    unsafe {
        tile_by(
            w,
            x,
            columns,
            out,
            |w, x| eights::<TILE, 2>(w, x),
            |w, x| eights::<TILE, 1>(w, x),
            |w, x| eights::<1, 1>(w, x),
        );
    }
}

/// Of each pair of rows the sums of a dot product in [`LANES`] lanes.
type Sums<const W: usize, const X: usize> = [[[f32; LANES]; X]; W];

/// Cuts the products into blocks that `four_two`, `four_one` and `one_one` sum up.
#[inline(always)]
fn tile_by(
    w: &[f32],
    x: &[f32],
    columns: usize,
    out: &mut [f32],
    four_two: impl Fn([&[f32]; TILE], [&[f32]; 2]) -> Sums<TILE, 2>,
    four_one: impl Fn([&[f32]; TILE], [&[f32]; 1]) -> Sums<TILE, 1>,
    one_one: impl Fn([&[f32]; 1], [&[f32]; 1]) -> Sums<1, 1>,
) {
    let rows = x.len() / columns;
    let row = |x: usize| x * columns..(x + 1) * columns;
    if w.len() != TILE * columns {
        for (w, out) in w.chunks_exact(columns).zip(out.chunks_exact_mut(rows)) {
            for (x, out) in x.chunks_exact(columns).zip(out) {
                *out = total(&one_one([w], [x])[0][0], w, x);
            }
        }
        return;
    }
    let w: [&[f32]; TILE] = std::array::from_fn(|i| &w[row(i)]);
    for at in (0..rows - 1).step_by(2) {
        let x = [&x[row(at)], &x[row(at + 1)]];
        for (i, sums) in four_two(w, x).iter().enumerate() {
            out[i * rows + at] = total(&sums[0], w[i], x[0]);
            out[i * rows + at + 1] = total(&sums[1], w[i], x[1]);
        }
    }
    if rows % 2 == 1 {
        let x = &x[row(rows - 1)];
        for (i, sums) in four_one(w, [x]).iter().enumerate() {
            out[i * rows + rows - 1] = total(&sums[0], w[i], x);
        }
    }
}

/// The lanes added up in pairs, and what is left at the end of the rows.
#[inline(always)]
fn total(s: &[f32; LANES], w: &[f32], x: &[f32]) -> f32 {
    let sum = (s[0] + s[4] + (s[2] + s[6])) + (s[1] + s[5] + (s[3] + s[7]));
    let whole = w.len() / LANES * LANES;
    let rest = w[whole..].iter().zip(&x[whole..]);
    rest.fold(sum, |sum, (w, x)| w.mul_add(*x, sum))
}

/// The sums of [`eights`] in plain Rust.
fn lanes<const W: usize, const X: usize>(w: [&[f32]; W], x: [&[f32]; X]) -> Sums<W, X> {
    let mut sums = [[[0.0f32; LANES]; X]; W];
    for (w, sums) in w.iter().zip(&mut sums) {
        for (x, sums) in x.iter().zip(sums) {
            for (w, x) in w.chunks_exact(LANES).zip(x.chunks_exact(LANES)) {
                for ((sum, w), x) in sums.iter_mut().zip(w).zip(x) {
                    *sum = w.mul_add(*x, *sum);
                }
            }
        }
    }
    sums
}

/// # Safety
/// The CPU must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn eights<const W: usize, const X: usize>(w: [&[f32]; W], x: [&[f32]; X]) -> Sums<W, X> {
    use std::arch::x86_64::*;
    let columns = w[0].len();
    assert!(w.iter().chain(&x).all(|row| row.len() == columns));
    let mut sums = [[_mm256_setzero_ps(); X]; W];
    for k in (0..columns / LANES * LANES).step_by(LANES) {
        // SAFETY: eight numbers from `k` on lie in every row.
        let load = |row: &[f32]| unsafe { _mm256_loadu_ps(row.as_ptr().add(k)) };
        let x: [_; X] = std::array::from_fn(|j| load(x[j]));
        for i in 0..W {
            let w = load(w[i]);
            for j in 0..X {
                sums[i][j] = _mm256_fmadd_ps(w, x[j], sums[i][j]);
            }
        }
    }
    let mut out = [[[0.0; LANES]; X]; W];
    for i in 0..W {
        for j in 0..X {
            // SAFETY: eight numbers have room.
            unsafe { _mm256_storeu_ps(out[i][j].as_mut_ptr(), sums[i][j]) };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::nf4::quantize;
    use crate::ops::tests::by_definition;
    use crate::rng::Stream;

    fn random(n: usize, key: u64) -> Vec<f32> {
        let stream = Stream::new(23, &[key]);
        (0..n as u64).map(|i| stream.normal(i)).collect()
    }

    fn product(x: &[f32], columns: usize, out: usize, weight: Rows<'_>, alpha: f32) -> Vec<f32> {
        let rows = x.len() / columns;
        let mut y = random(rows * out, 3);
        add_product(&mut y, x, columns, weight, alpha);
        y
    }

    #[test]
    fn equals_sums_in_f64_for_any_shape() {
        for (rows, out, columns) in [
            (1, 1, 64),
            (1, 700, 97),
            (2, 5, 64),
            (3, 1031, 129),
            (8, 66, 768),
            (16, 403, 71),
        ] {
            let (x, w) = (random(rows * columns, 1), random(out * columns, 2));
            let got = product(&x, columns, out, Rows::Dense(&w), 0.5);
            let start = random(rows * out, 3);
            for (at, got) in got.iter().enumerate() {
                let (row, o) = (at / out, at % out);
                let pairs = x[row * columns..].iter().zip(&w[o * columns..]);
                let sum: f64 = pairs
                    .take(columns)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                let want = f64::from(start[at]) + 0.5 * sum;
                assert!(
                    (f64::from(*got) - want).abs() < 2e-5 * (columns as f64).sqrt(),
                    "{rows} {out} {columns}: {got} {want}"
                );
            }
            for block in [64, 256, 4096] {
                let quantised = quantize(&w, [out, columns], block, true);
                let dense = by_definition(&quantised);
                assert_eq!(
                    product(&x, columns, out, Rows::Nf4(&quantised), 1.0),
                    product(&x, columns, out, Rows::Dense(&dense), 1.0),
                );
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn vectors_give_the_bits_of_plain_rust() {
        if !std::arch::is_x86_feature_detected!("avx2")
            || !std::arch::is_x86_feature_detected!("fma")
        {
            return;
        }
        let (w, x) = (random(4 * 203, 6), random(2 * 203, 7));
        let w: [&[f32]; 4] = std::array::from_fn(|i| &w[i * 203..(i + 1) * 203]);
        let x = [&x[..203], &x[203..]];
        // SAFETY: the CPU has both.
        assert_eq!(unsafe { eights(w, x) }, lanes(w, x));
        assert_eq!(unsafe { eights(w, [x[1]]) }, lanes(w, [x[1]]));
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_among_others_on_any_threads() {
        let (rows, out, columns) = (7, 1500, 203);
        let (x, w) = (random(rows * columns, 4), random(out * columns, 5));
        let all = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            let mut y = vec![0.0; rows * out];
            pool.install(|| add_product(&mut y, &x, columns, Rows::Dense(&w), 1.0));
            y
        };
        let one = all(1);
        assert_eq!(one, all(2));
        assert_eq!(one, all(3));
        for row in 0..rows {
            let mut y = vec![0.0; out];
            let x = &x[row * columns..(row + 1) * columns];
            add_product(&mut y, x, columns, Rows::Dense(&w), 1.0);
            assert_eq!(y, one[row * out..(row + 1) * out]);
        }
    }
}
