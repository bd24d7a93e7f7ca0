//! Every kind of tile against the slow sum.

use super::super::bf16::round;
use super::super::mat::Mat;
use super::super::weight_rows::Rows;
use super::*;
use crate::ops::nf4::quantize;
use crate::rng::Stream;

/// Tiles without vector instructions, so that what drives them is tested on any CPU.
struct Plain<const NUMBERS: usize, const STEP: usize>;

impl<const NUMBERS: usize, const STEP: usize> Kernel for Plain<NUMBERS, STEP> {
    const HEIGHT: usize = 5;
    const WIDTH: usize = 24;
    const NUMBERS: usize = NUMBERS;
    const DEPTH: usize = 70;
    const STEP: usize = STEP;
    const LEFT_BY_LINES: bool = STEP > 1;

    unsafe fn interleave(
        lines: &[&[u32]],
        place: usize,
        group: usize,
        out: &mut [MaybeUninit<u32>],
    ) {
        for (word, out) in out.chunks_exact_mut(group).enumerate() {
            for line in 0..LINES.min(group - place) {
                let value = lines.get(line).map_or(0, |line| line[word]);
                out[place + line].write(value);
            }
        }
    }

    unsafe fn tile(left: &[u32], right: &[u32], target: Target) {
        for row in 0..Self::HEIGHT {
            for column in 0..Self::WIDTH {
                let mut sum = 0.0;
                for step in 0..left.len() / Self::HEIGHT {
                    let x = left[(step / STEP * Self::HEIGHT + row) * STEP + step % STEP];
                    let w = right[step * Self::WIDTH + column];
                    sum += match NUMBERS {
                        1 => f32::from_bits(x) * f32::from_bits(w),
                        _ => {
                            let half = |word: u32, shift| f32::from_bits(word >> shift << 16);
                            half(x, 0) * half(w, 0) + half(x, 16) * half(w, 16)
                        }
                    };
                }
                // SAFETY: the caller vouches for the tile.
                unsafe {
                    let at = target.dst.add(row * target.stride + column);
                    let before = if target.accumulate { *at } else { 0.0 };
                    *at = before + target.alpha * sum;
                }
            }
        }
    }
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let given = std::env::var("KILN_TEST_SEED").ok();
    let seed = given.and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(u64::from(now.unwrap().subsec_nanos()));
    println!("KILN_TEST_SEED={seed}");
    seed
}

fn numbers(count: usize, stream: Stream) -> Vec<f32> {
    (0..count as u64).map(|i| stream.normal(i)).collect()
}

/// The numbers of an operand, line by line.
fn lines(operand: Operand<'_>) -> Vec<Vec<f32>> {
    let mut buffer = vec![0.0; operand.lines().max(operand.length())];
    let steps: Vec<Vec<f32>> = (0..operand.length())
        .map(|i| match operand.across() {
            true => operand.step(i, 0..operand.lines(), &mut buffer)[..operand.lines()].to_vec(),
            false => Vec::new(),
        })
        .collect();
    (0..operand.lines())
        .map(|line| match operand.across() {
            true => steps.iter().map(|step| step[line]).collect(),
            false => operand
                .along(line, 0..operand.length(), &mut buffer)
                .to_vec(),
        })
        .collect()
}

/// `start + alpha x` the slow sum, and what f32 sums may be off by.
fn slow<K: Kernel>(x: &[f32], w: &[f32], start: f32, alpha: f32) -> (f64, f64) {
    let number = |x: f32| match K::NUMBERS {
        1 => f64::from(x),
        _ => f64::from(round(x)),
    };
    let products = x.iter().zip(w).map(|(x, w)| number(*x) * number(*w));
    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
    let start = f64::from(start);
    let alpha = f64::from(alpha);
    (
        start + alpha * sum,
        1e-6 * (start.abs() + alpha.abs() * size),
    )
}

/// A product into rows that are longer than it, with one thread and with all.
fn check<K: Kernel>(a: Operand<'_>, b: Operand<'_>, accumulate: bool, what: &str) {
    let (m, n) = (a.lines(), b.lines());
    let stride = n + 3;
    let before = numbers(m * stride, Stream::new(9, &[m as u64, n as u64]));
    let product = |threads| {
        let mut got = before.clone();
        let target = Target {
            dst: got.as_mut_ptr(),
            stride,
            accumulate,
            alpha: -0.5,
        };
        // SAFETY: `got` has all rows; callers have seen that the CPU has the kernel.
        unsafe { super::product::<K>(target, a, b, threads) };
        got
    };
    let got = product(Threads::One);
    assert!(got == product(Threads::All), "{what}: threads changed bits");
    let (x, w) = (lines(a), lines(b));
    for (i, (&got, &was)) in got.iter().zip(&before).enumerate() {
        let (row, column) = (i / stride, i % stride);
        if column >= n {
            assert_eq!(got, was, "{what}: written beside the product");
            continue;
        }
        let start = if accumulate { was } else { 0.0 };
        let (want, bound) = slow::<K>(&x[row], &w[column], start, -0.5);
        let off = (f64::from(got) - want).abs();
        assert!(off <= bound, "{what} at {row} {column}: {got} {want}");
    }
}

fn check_all<K: Kernel>(name: &str) {
    let seed = seed();
    let shapes = [
        (1, 1, 1),
        (6, 16, 8),
        (12, 32, 2),
        (7, 17, 9),
        (5, 33, 384),
        (13, 15, 385),
        (100, 70, 50),
        (25, 130, 1031),
        (200, 2100, 7),
        (3080, 20, 10),
    ];
    for (case, (m, n, k)) in shapes.into_iter().enumerate() {
        let stream = |of| Stream::new(seed, &[case as u64, of]);
        let (x, w) = (numbers(m * k, stream(0)), numbers(k * n, stream(1)));
        for turn in 0..8 {
            let [ta, tb, accumulate] = [1, 2, 4].map(|bit| turn & bit != 0);
            let a = match ta {
                true => Mat::row_major(&x, k, m).t(),
                false => Mat::row_major(&x, m, k),
            };
            let b = match tb {
                true => Mat::row_major(&w, n, k),
                false => Mat::row_major(&w, k, n).t(),
            };
            let what = format!("{name}, {m} {n} {k}, {ta} {tb}");
            check::<K>(Operand::Numbers(a), Operand::Numbers(b), accumulate, &what);
        }
    }
}

/// Weights in every form, as lines and as columns.
fn check_weights<K: Kernel>(name: &str) {
    let seed = seed();
    // NF4 rows that are no multiple of the block, and odd ones, have rules of their own.
    for (case, [out, inn]) in [[40, 128], [131, 70], [33, 65], [700, 40], [9, 2100]]
        .into_iter()
        .enumerate()
    {
        let stream = |of| Stream::new(seed, &[100 + case as u64, of]);
        let shape = [out, inn];
        let w = numbers(out * inn, stream(0));
        let narrow: Vec<half::bf16> = w.iter().map(|x| half::bf16::from_f32(*x)).collect();
        let nf4 = quantize(&w, shape, 64, true);
        let forms = [
            Rows::Dense(&w),
            Rows::Bf16(&narrow),
            Rows::Nf4(&nf4),
            Rows::Nf4AsBf16(&nf4),
        ];
        for (form, rows) in forms.into_iter().enumerate() {
            let what = format!("{name}, {shape:?} in form {form}");
            let x = numbers(14 * inn, stream(1));
            let x = Operand::Numbers(Mat::row_major(&x, 14, inn));
            check::<K>(x, Operand::Weight(rows, shape), false, &what);
            let x = numbers(14 * out, stream(2));
            let x = Operand::Numbers(Mat::row_major(&x, 14, out));
            let columns = Operand::WeightColumns(rows, shape);
            check::<K>(x, columns, true, &format!("{what}, columns"));
        }
    }
}

fn check_kernel<K: Kernel>(available: bool, name: &str) {
    if !available {
        println!("left out: no {name}");
        return;
    }
    check_all::<K>(name);
    check_weights::<K>(name);
}

#[test]
fn plain_tiles() {
    check_kernel::<Plain<1, 1>>(true, "plain");
    check_kernel::<Plain<2, 1>>(true, "plain pairs");
    check_kernel::<Plain<2, 7>>(true, "plain steps");
}

#[test]
fn avx2_tiles() {
    check_kernel::<Avx2>(avx2::available(), "AVX2");
}

#[test]
fn avx512_bf16_tiles() {
    check_kernel::<Avx512Bf16>(avx512::available(), "AVX512-BF16");
}

#[test]
fn amx_tiles() {
    check_kernel::<Amx>(amx::available(), "AMX");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (m, n, k) = (300, 400, 500);
    let (a, b) = (
        numbers(m * k, Stream::new(1, &[])),
        numbers(n * k, Stream::new(2, &[])),
    );
    fn with<K: Kernel>(threads: usize, a: Mat<'_>, b: Mat<'_>) -> Vec<f32> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut got = vec![0.0; a.rows * b.rows];
            let target = Target {
                dst: got.as_mut_ptr(),
                stride: b.rows,
                accumulate: false,
                alpha: 1.0,
            };
            let [a, b] = [a, b].map(Operand::Numbers);
            // SAFETY: `got` has all rows, and the CPU the kernel.
            unsafe { super::product::<K>(target, a, b, Threads::All) };
            got
        })
    }
    let (a, b) = (Mat::row_major(&a, m, k), Mat::row_major(&b, n, k));
    for threads in [2, 3, 7] {
        assert!(with::<Plain<2, 7>>(threads, a, b) == with::<Plain<2, 7>>(1, a, b));
        if avx2::available() {
            assert!(with::<Avx2>(threads, a, b) == with::<Avx2>(1, a, b));
        }
        if avx512::available() {
            assert!(with::<Avx512Bf16>(threads, a, b) == with::<Avx512Bf16>(1, a, b));
        }
        if amx::available() {
            assert!(with::<Amx>(threads, a, b) == with::<Amx>(1, a, b));
        }
    }
}
