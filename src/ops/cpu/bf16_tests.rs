//! Products of bf16 operands against sums in f64 over the rounded numbers.

use burn::tensor::{DType, Device, Tensor};

use super::{CPU, CPU_BF16, tensor2};
use crate::ops::cpu::frozen::block_rows;
use crate::ops::tests::by_definition;
use crate::ops::{CrossEntropyGrad, HotOps, Indices, Nf4Tensor, nf4};
use crate::rng::Stream;

fn random(shape: [usize; 2], key: u64) -> Vec<f32> {
    let stream = Stream::new(41, &[key]);
    (0..shape[0] * shape[1])
        .map(|i| stream.normal(i as u64))
        .collect()
}

fn rounded(values: &[f32]) -> Vec<f32> {
    let round = |x: &f32| half::bf16::from_f32(*x).to_f32();
    values.iter().map(round).collect()
}

fn data(tensor: &Tensor<2>) -> Vec<f32> {
    tensor.clone().into_data().iter::<f32>().collect()
}

/// `start + x W^T` or `start + x W`, each number with what it may be off by.
fn slow(
    start: Option<&[f32]>,
    x: &[f32],
    w: &[f32],
    [out, inn]: [usize; 2],
    transposed: bool,
) -> Vec<(f64, f64)> {
    let [from, to] = if transposed { [inn, out] } else { [out, inn] };
    let rows = x.len() / from;
    let mut sums = Vec::with_capacity(rows * to);
    for i in 0..rows {
        for j in 0..to {
            let begin = f64::from(start.map_or(0.0, |start| start[i * to + j]));
            let (mut sum, mut size) = (begin, begin.abs());
            for l in 0..from {
                let weight = if transposed {
                    w[j * inn + l]
                } else {
                    w[l * inn + j]
                };
                let product = f64::from(x[i * from + l]) * f64::from(weight);
                sum += product;
                size += product.abs();
            }
            sums.push((sum, 1e-6 * size));
        }
    }
    sums
}

fn assert_close(got: &Tensor<2>, want: &[(f64, f64)], what: &str) {
    let got = data(got);
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, (want, off))) in got.iter().zip(want).enumerate() {
        let gap = (f64::from(*got) - want).abs();
        assert!(gap <= *off, "{what}, {i}: {got} against {want}");
    }
}

#[test]
fn products_take_rounded_operands() {
    // The last has more rows than a block.
    let wide = 40_000;
    for (rows, shape, block) in [
        (1, [1, 1], 64),
        (1, [70, 131], 64),
        (3, [33, 256], 64),
        (17, [40, 65], 256),
        (50, [131, 70], 64),
        (4, [45, 72], 1024),
        (50, [45, 72], 1024),
        (18, [block_rows(wide) + 5, wide], 64),
    ] {
        let [out, inn] = shape;
        let w = random(shape, 1);
        let dense = CPU_BF16.frozen(w.clone(), shape, &Device::flex());
        assert_eq!(dense.dtype(), DType::BF16);
        let quantised = nf4::quantize(&w, shape, block, true);
        let unpacked = by_definition(&quantised);
        let quantised = Nf4Tensor::new(quantised, &Device::flex());
        let (w, unpacked) = (rounded(&w), rounded(&unpacked));
        for transposed in [true, false] {
            let [from, to] = if transposed { [inn, out] } else { [out, inn] };
            let (x, start) = (random([rows, from], 2), random([rows, to], 3));
            let tensor = tensor2(x.clone(), [rows, from]);
            let sum = || tensor2(start.clone(), [rows, to]);
            let x = rounded(&x);
            let what = format!("{rows} rows, {shape:?}, transposed: {transposed}");
            let want = slow(None, &x, &w, shape, transposed);
            let got = CPU_BF16.gemm(&tensor, false, &dense, transposed, 1.0);
            assert_close(&got, &want, &what);
            let want = slow(Some(&start), &x, &w, shape, transposed);
            let got = CPU_BF16.gemm_add(sum(), &tensor, false, &dense, transposed, 1.0);
            assert_close(&got, &want, &what);
            let want = slow(None, &x, &unpacked, shape, transposed);
            let got = CPU_BF16.nf4_gemm(None, &tensor, &quantised, transposed);
            assert_close(&got, &want, &what);
            let want = slow(Some(&start), &x, &unpacked, shape, transposed);
            let got = CPU_BF16.nf4_gemm(Some(sum()), &tensor, &quantised, transposed);
            assert_close(&got, &want, &what);
        }
    }
}

#[test]
fn a_trained_matrix_is_an_operand_in_bf16() {
    let w = random([5, 9], 4);
    let operand = CPU_BF16.matrix_operand(&tensor2(w.clone(), [5, 9]));
    assert_eq!(operand.dtype(), DType::BF16);
    assert_eq!(data(&operand), rounded(&w));
    let same = CPU.matrix_operand(&tensor2(w.clone(), [5, 9]));
    assert_eq!(data(&same), w);
}

#[test]
fn rows_of_a_bf16_table_are_its_numbers() {
    let w = random([7, 5], 5);
    let table = CPU_BF16.frozen(w.clone(), [7, 5], &Device::flex());
    let got = CPU_BF16.gather_rows(&table, &Indices::from(vec![6, 0, 6]));
    assert_eq!(got.dtype(), DType::F32);
    let w = rounded(&w);
    assert_eq!(data(&got), [&w[30..], &w[..5], &w[30..]].concat());
}

/// The head in bf16 gives what the same rounded numbers give in f32.
#[test]
fn cross_entropy_with_a_bf16_head() {
    for (rows, width, vocab) in [(1, 3, 2), (37, 16, 101), (1100, 8, 5000)] {
        let (h, w) = (random([rows, width], 6), random([vocab, width], 7));
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7 % vocab as u32).collect();
        let targets = Indices::from(targets);
        let head = CPU_BF16.frozen(w.clone(), [vocab, width], &Device::flex());
        let hidden = tensor2(h.clone(), [rows, width]);
        let grad = || CrossEntropyGrad::HiddenAndHead {
            scale: 0.25,
            head_grad: None,
        };
        let got = CPU_BF16.cross_entropy(&hidden, &head, &targets, grad());
        let hidden = tensor2(rounded(&h), [rows, width]);
        let head = tensor2(rounded(&w), [vocab, width]);
        let want = CPU.cross_entropy(&hidden, &head, &targets, grad());
        let (loss, want_loss) = (got.loss_sum.value(), want.loss_sum.value());
        assert!((loss / want_loss - 1.0).abs() < 1e-5, "{loss} {want_loss}");
        for (got, want) in [(got.d_hidden, want.d_hidden), (got.d_head, want.d_head)] {
            // Slopes of the logits are rounded too, to 8 bits.
            let (got, want) = (data(&got.unwrap()), data(&want.unwrap()));
            let size = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() <= 0.01 * size, "{got} {want}");
            }
        }
    }
}
