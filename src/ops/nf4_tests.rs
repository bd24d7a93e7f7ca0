//! NF4 against bitsandbytes' own bytes and against a slow, obvious version.

use std::path::Path;

use half::bf16;
use safetensors::{Dtype, SafeTensors};

use super::*;
use crate::ops::tests::by_definition;
use crate::rng::Stream;

/// Tensors of a safetensors file by name, as bytes or f32.
struct Golden<'a>(SafeTensors<'a>);

impl Golden<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.tensor(name).is_ok()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.tensor(name).unwrap().data().to_vec()
    }

    fn shape(&self, name: &str) -> [usize; 2] {
        match *self.0.tensor(name).unwrap().shape() {
            [rows, columns] => [rows, columns],
            ref other => panic!("{name} has shape {other:?}"),
        }
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensor = self.0.tensor(name).unwrap();
        match tensor.dtype() {
            Dtype::F32 => tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Dtype::BF16 => tensor
                .data()
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            other => panic!("{name} is {other:?}"),
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// The maximum of every block.
fn maxima_of(weight: &Nf4) -> Vec<f32> {
    let blocks = weight.numel().div_ceil(weight.block_size);
    (0..blocks).map(|block| weight.absmax.get(block)).collect()
}

fn fixture() -> Vec<u8> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/nf4.safetensors"
    );
    std::fs::read(file).unwrap()
}

/// A file of the reference folder beside the checkout, where there is one.
fn reference(path: &str) -> Option<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/reference")
        .join(path);
    match std::fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(_) => {
            println!("skipped: no {path} in the reference folder");
            None
        }
    }
}

#[test]
fn tables_equal_those_of_bitsandbytes() {
    let file = fixture();
    let golden = Golden(SafeTensors::deserialize(&file).unwrap());
    assert_eq!(bits(&CODE), bits(&golden.f32("code")));
    assert_eq!(bits(dynamic_map()), bits(&golden.f32("dynamic_map")));
}

#[test]
fn mean_and_eight_bit_codes_equal_those_of_bitsandbytes() {
    let file = fixture();
    let golden = Golden(SafeTensors::deserialize(&file).unwrap());
    let mean = nf4_map::torch_mean(&golden.f32("mean.x"));
    assert_eq!(bits(&[mean]), bits(&golden.f32("mean.mean")));
    let (codes, absmax) = nf4_map::quantize(&golden.f32("eight.x"));
    assert_eq!(codes, golden.bytes("eight.codes"));
    assert_eq!(bits(&absmax), bits(&golden.f32("eight.absmax")));
}

#[test]
fn fixture_of_bitsandbytes_bit_for_bit() {
    let file = fixture();
    let golden = Golden(SafeTensors::deserialize(&file).unwrap());
    let mut cases = 0;
    for name in golden.0.names() {
        let Some(case) = name.strip_suffix(".packed") else {
            continue;
        };
        let parts: Vec<&str> = case.split('.').collect();
        let [tensor, block_size, mode] = parts[..] else {
            panic!("{case}");
        };
        let input = format!("{tensor}.x");
        let weight = quantize(
            &golden.f32(&input),
            golden.shape(&input),
            block_size.parse().unwrap(),
            mode == "double",
        );
        assert_eq!(weight.packed, golden.bytes(name), "{case}");
        match &weight.absmax {
            Absmax::Plain(maxima) => {
                let wanted = golden.f32(&format!("{case}.absmax"));
                assert_eq!(bits(maxima), bits(&wanted), "{case}");
            }
            Absmax::Double {
                codes,
                nested_absmax,
                offset,
            } => {
                let nested = golden.f32(&format!("{case}.nested_absmax"));
                assert_eq!(
                    bits(&[*offset]),
                    bits(&golden.f32(&format!("{case}.offset"))),
                    "{case}"
                );
                assert_eq!(bits(nested_absmax), bits(&nested), "{case}");
                assert_eq!(codes, &golden.bytes(&format!("{case}.codes")), "{case}");
            }
        }
        let dequantized = format!("{case}.dequantized");
        if golden.has(&dequantized) {
            let mut out = vec![f32::NAN; weight.numel()];
            weight.dequantize_into(&mut out);
            assert_eq!(bits(&out), bits(&golden.f32(&dequantized)), "{case}");
        }
        cases += 1;
    }
    assert!(cases >= 20, "{cases} cases");
}

#[test]
fn golden_folder_bit_for_bit() {
    let Some(file) = reference("nf4/nf4_ref.safetensors") else {
        return;
    };
    let golden = Golden(SafeTensors::deserialize(&file).unwrap());
    let mut cases = 0;
    for name in golden.0.names() {
        let Some(case) = name.strip_suffix(".packed") else {
            continue;
        };
        let double = case.contains(".dq.");
        let block_size = if case.contains(".bs64.") { 64 } else { 256 };
        let input = format!("{case}.x");
        let weight = quantize(
            &golden.f32(&input),
            golden.shape(&input),
            block_size,
            double,
        );
        assert_eq!(weight.packed, golden.bytes(name), "{case}");
        if let Absmax::Double {
            codes,
            nested_absmax,
            offset,
        } = &weight.absmax
        {
            let f32 = |part: &str| golden.f32(&format!("{case}.{part}"));
            assert_eq!(bits(&[*offset]), bits(&f32("offset")), "{case}");
            assert_eq!(bits(nested_absmax), bits(&f32("nested_absmax")), "{case}");
            assert_eq!(codes, &golden.bytes(&format!("{case}.absmax_q")), "{case}");
            assert_eq!(
                bits(&maxima_of(&weight)),
                bits(&f32("absmax_dequant")),
                "{case}"
            );
        } else {
            let wanted = golden.f32(&format!("{case}.absmax_f32"));
            assert_eq!(bits(&maxima_of(&weight)), bits(&wanted), "{case}");
        }
        let mut out = vec![f32::NAN; weight.numel()];
        weight.dequantize_into(&mut out);
        if case.ends_with(".bf16") {
            // bitsandbytes casts the f32 product to the input's type.
            out.iter_mut()
                .for_each(|v| *v = bf16::from_f32(*v).to_f32());
        }
        assert_eq!(
            bits(&out),
            bits(&golden.f32(&format!("{case}.dequant"))),
            "{case}"
        );
        cases += 1;
    }
    assert!(cases >= 30, "{cases} cases");
}

#[test]
fn a_real_four_bit_checkpoint_byte_for_byte() {
    let dense = reference("tiny/llama_untied/model.safetensors");
    let packed = reference("runs/qlora/base_4bit/model.safetensors");
    let (Some(dense), Some(packed)) = (dense, packed) else {
        return;
    };
    let dense = Golden(SafeTensors::deserialize(&dense).unwrap());
    let golden = Golden(SafeTensors::deserialize(&packed).unwrap());
    let mut weights = 0;
    for name in golden.0.names() {
        let Some(weight) = name.strip_suffix(".absmax") else {
            continue;
        };
        let ours = quantize(&dense.f32(weight), dense.shape(weight), 64, true);
        assert_eq!(ours.packed, golden.bytes(weight), "{weight}");
        let Absmax::Double {
            codes,
            nested_absmax,
            offset,
        } = &ours.absmax
        else {
            panic!("double quantisation was asked for");
        };
        assert_eq!(codes, &golden.bytes(name), "{weight}");
        let nested = golden.f32(&format!("{weight}.nested_absmax"));
        assert_eq!(bits(nested_absmax), bits(&nested), "{weight}");
        let map = golden.f32(&format!("{weight}.nested_quant_map"));
        assert_eq!(bits(dynamic_map()), bits(&map), "{weight}");
        let state = golden.bytes(&format!("{weight}.quant_state.bitsandbytes__nf4"));
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(
            state["nested_offset"].as_f64(),
            Some(f64::from(*offset)),
            "{weight}"
        );
        weights += 1;
    }
    assert_eq!(weights, 21);
}

/// NF4 by its definition: the nearest of the 16 levels, one element at a time.
fn obvious(x: &[f32], block_size: usize) -> (Vec<u8>, Vec<f32>) {
    let mut levels = Vec::new();
    let mut maxima = Vec::new();
    for block in x.chunks(block_size) {
        let absmax = block.iter().map(|v| v.abs()).fold(0.0, f32::max);
        maxima.push(absmax);
        for v in block {
            let scaled = f64::from(*v) / f64::from(absmax);
            let distance = |i: &usize| (f64::from(CODE[*i]) - scaled).abs();
            let nearest = (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            levels.push(nearest.unwrap() as u8);
        }
    }
    (levels, maxima)
}

#[test]
fn equals_the_obvious_version_on_random_weights() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for (case, (shape, block_size)) in [
        ([7, 33], 32),
        ([64, 96], 64),
        ([3, 4099], 128),
        ([257, 513], 64),
        ([1, 200_001], 4096),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = Stream::new(seed, &[case as u64]);
        let n = shape[0] * shape[1];
        let x: Vec<f32> = (0..n as u64).map(|i| stream.normal(i) * 0.02).collect();
        let weight = quantize(&x, shape, block_size, false);
        let (levels, maxima) = obvious(&x, block_size);
        assert_eq!(bits(&maxima_of(&weight)), bits(&maxima), "seed {seed}");
        let mut out = vec![f32::NAN; n];
        weight.dequantize_into(&mut out);
        for i in 0..n {
            let byte = weight.packed[i / 2];
            let level = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
            let absmax = maxima[i / block_size];
            if level != levels[i] {
                // Only where the value lies on a midpoint to within f32's rounding.
                let scaled = f64::from(x[i]) / f64::from(absmax);
                let bound = f64::from(nf4_pack::BOUNDS[level.min(levels[i]) as usize]);
                assert!((scaled - bound).abs() < 2e-7, "seed {seed}, element {i}");
            }
            assert_eq!(
                out[i],
                CODE[level as usize] * absmax,
                "seed {seed}, element {i}"
            );
        }
    }
}

#[test]
fn any_rows_equal_those_of_the_whole() {
    for (shape, block_size, double) in [
        ([9, 33], 32, true),
        ([5, 64], 64, false),
        ([40, 4097], 256, true),
        ([6, 1], 32, false),
    ] {
        let stream = Stream::new(11, &[shape[1] as u64]);
        let n = shape[0] * shape[1];
        let x: Vec<f32> = (0..n as u64).map(|i| stream.normal(i)).collect();
        let weight = quantize(&x, shape, block_size, double);
        let mut whole = vec![0.0; n];
        weight.dequantize_into(&mut whole);
        for start in 0..=shape[0] {
            for end in start..=shape[0] {
                let mut rows = vec![f32::NAN; (end - start) * shape[1]];
                weight.dequantize_rows(start..end, &mut rows);
                assert_eq!(rows, whole[start * shape[1]..end * shape[1]]);
            }
        }
    }
}

/// Blocks run over the ends of rows: element `i` has maximum `i / block_size`, whatever
/// the width.
#[test]
fn any_part_of_a_row_is_dequantised_by_the_definition() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    for (case, (shape, block_size)) in [
        ([5, 91], 64),
        ([9, 72], 64),
        ([7, 160], 64),
        ([23, 91], 256),
        ([19, 72], 1024),
        ([40, 384], 256),
        ([130, 70], 4096),
        ([3, 5000], 4096),
        ([6, 1], 32),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = Stream::new(seed, &[case as u64]);
        let n = shape[0] * shape[1];
        let x: Vec<f32> = (0..n as u64).map(|i| stream.normal(i)).collect();
        for double in [false, true] {
            let weight = quantize(&x, shape, block_size, double);
            let want = by_definition(&weight);
            let mut whole = vec![f32::NAN; n];
            weight.dequantize_into(&mut whole);
            assert_eq!(bits(&whole), bits(&want), "seed {seed}, {shape:?}");
            for row in 0..shape[0] {
                let at = stream.bits((n + row) as u64) as usize % shape[1];
                for (from, to) in [(0, shape[1]), (at, shape[1]), (0, at), (at / 2, at)] {
                    let mut part = vec![f32::NAN; to - from];
                    weight.dequantize_part(row, from, &mut part);
                    let want = &want[row * shape[1]..][from..to];
                    assert_eq!(bits(&part), bits(want), "seed {seed}, {shape:?}, {row}");
                }
            }
        }
    }
}

#[test]
fn sizes_are_counted() {
    let x = vec![1.0; 256 * 256];
    let plain = quantize(&x, [256, 256], 64, false);
    assert_eq!(plain.bytes(), 32768 + 4 * 1024);
    let double = quantize(&x, [256, 256], 64, true);
    assert_eq!(double.bytes(), 32768 + 1024 + 4 * 4 + 4);
    let empty = quantize(&[], [0, 64], 64, true);
    assert_eq!(empty.bytes(), 0);
}

#[test]
fn a_weight_that_arrives_in_pieces_is_quantised_the_same() {
    let stream = Stream::new(12, &[]);
    for shape in [[3, 5], [300, 700], [513, 512]] {
        let n = shape[0] * shape[1];
        let halves: Vec<bf16> = (0..n)
            .map(|i| bf16::from_f32(stream.normal(i as u64)))
            .collect();
        let x: Vec<f32> = halves.iter().map(|v| v.to_f32()).collect();
        let read = |range: std::ops::Range<usize>, out: &mut Vec<u8>| {
            out.clear();
            out.extend(halves[range].iter().flat_map(|v| v.to_le_bytes()));
            Ok(())
        };
        for (block_size, double) in [(64, true), (4096, false)] {
            let made = quantize_from::<stored::Bf16, ()>(shape, block_size, double, read, |_| ());
            assert_eq!(made, Ok(quantize(&x, shape, block_size, double)));
        }
    }
    let fails = |range: std::ops::Range<usize>, _: &mut Vec<u8>| Err(range.start);
    let stopped = quantize_from::<stored::F16, usize>([300, 700], 64, true, fails, |at| at);
    assert!(stopped.is_err());
}

#[test]
fn a_value_that_is_not_finite_is_found() {
    for (at, lost) in [(0, f32::NAN), (70_001, f32::INFINITY), (199_999, -f32::NAN)] {
        let mut x = vec![0.5f32; 200_000];
        x[7] = f32::MAX;
        x[at] = lost;
        let read = |range: std::ops::Range<usize>, out: &mut Vec<u8>| {
            out.clear();
            out.extend(x[range].iter().flat_map(|v| v.to_le_bytes()));
            Ok(())
        };
        let made = quantize_from::<stored::F32, usize>([1, 200_000], 64, true, read, |at| at);
        assert_eq!(made, Err(at));
    }
}
