//! Packing against the rule, number by number: random and adversarial numbers, in
//! every stored type, by the vector code and without it.

use half::{bf16, f16};

use super::super::stored::{Bf16, F16, F32, Stored};
use super::*;
use crate::rng::Stream;

type Packed = Result<(Vec<u8>, Vec<f32>), usize>;

/// What bitsandbytes does, one number at a time.
fn by_rule(x: &[f32], block_size: usize) -> Packed {
    let (mut levels, mut maxima) = (Vec::new(), Vec::new());
    for (number, block) in x.chunks(block_size).enumerate() {
        if block.iter().any(|v| !v.is_finite()) {
            return Err(number);
        }
        let most = block.iter().fold(0f32, |most, v| most.max(v.abs()));
        let whole = block.len() == block_size;
        maxima.push(if whole { most } else { most.max(1e-38) });
        for v in block {
            let v = match whole {
                true => v * (1.0 / most.max(1e-38)),
                false => v / most.max(1e-38),
            };
            let above = (0..15).filter(|i| v > (CODE[*i] + CODE[i + 1]) / 2.0);
            levels.push(above.count() as u8);
        }
    }
    levels.resize(x.len().next_multiple_of(2), 7);
    let pairs = levels.chunks_exact(2);
    Ok((pairs.map(|pair| pair[0] * 16 + pair[1]).collect(), maxima))
}

fn check<S: Stored>(bytes: &[u8], case: &str) {
    let values: Vec<f32> = bytes.chunks_exact(S::BYTES).map(S::value).collect();
    for block_size in [32, 64, 256, 4096] {
        let want = by_rule(&values, block_size);
        let empty = || {
            (
                vec![0u8; values.len().div_ceil(2)],
                vec![0f32; values.len().div_ceil(block_size)],
            )
        };
        let (mut packed, mut maxima) = empty();
        let got = pack::<S>(bytes, &mut packed, &mut maxima, block_size);
        let same = |got: Packed, way: &str| match (&got, &want) {
            (Ok((codes, maxima)), Ok((wanted, most))) => {
                let wrong = codes.iter().zip(wanted).position(|(a, b)| a != b);
                assert_eq!(wrong, None, "{case}, {way}, blocks of {block_size}: byte");
                let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(maxima), bits(most), "{case}, {way}, {block_size}");
            }
            _ => assert_eq!(got, want, "{case}, {way}, blocks of {block_size}"),
        };
        same(got.map(|()| (packed, maxima)), "pack");
        // Whole blocks alone, without vectors.
        let whole = values.len() / block_size;
        let (mut packed, mut maxima) = empty();
        let (codes, most) = (&mut packed[..whole * block_size / 2], &mut maxima[..whole]);
        let blocks = &bytes[..whole * block_size * S::BYTES];
        let got = portable::<S>(blocks, codes, most, block_size);
        if whole * block_size == values.len() {
            same(got.map(|()| (packed, maxima)), "portable");
        }
    }
}

fn check_all(values: &[f32], case: &str) {
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    check::<F32>(&f32s, case);
    let halves = values.iter().map(|v| f16::from_f32(*v));
    check::<F16>(&halves.flat_map(f16::to_le_bytes).collect::<Vec<_>>(), case);
    let halves = values.iter().map(|v| bf16::from_f32(*v));
    check::<Bf16>(
        &halves.flat_map(bf16::to_le_bytes).collect::<Vec<_>>(),
        case,
    );
}

#[test]
fn random_weights_of_any_length_are_packed_by_the_rule() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let random = Stream::new(seed, &[]);
    for n in [0u64, 1, 2, 31, 32, 33, 64, 65, 127, 4096, 5001, 3 * 4096] {
        for scale in [1.0, 0.02, 1e-37, 1e-42, 1e4] {
            let x: Vec<f32> = (0..n).map(|i| random.normal(i + n) * scale).collect();
            check_all(&x, &format!("seed {seed}, {n} x {scale}"));
        }
    }
}

/// Each midpoint times a maximum, and the eight floats around it: where a rounding
/// of the product or a comparison the wrong way would show.
#[test]
fn ties_and_their_neighbours_are_packed_by_the_rule() {
    let random = Stream::new(17, &[]);
    for round in 0..50u64 {
        let most = match round {
            0 => 1.0,
            1 => f32::MIN_POSITIVE,
            2 => f32::MAX,
            3 => 1e-38,
            4 => 1e-40,
            _ => random.uniform(round) * 10f32.powi((round % 11) as i32 - 5),
        };
        let mut x = Vec::new();
        for bound in BOUNDS {
            let exact = (bound * most).to_bits();
            x.extend((0..9).map(|i| f32::from_bits((exact + i).saturating_sub(4))));
        }
        // One maximum in each block of 32, zeros of both signs, the rest full.
        let mut blocks = Vec::new();
        for piece in x.chunks(28) {
            blocks.extend([most, 0.0, -0.0]);
            blocks.extend_from_slice(piece);
            blocks.resize(blocks.len().next_multiple_of(32), -most);
        }
        blocks.resize(4096, most);
        check_all(&blocks, &format!("round {round}, maximum {most:e}"));
    }
}

#[test]
fn every_pattern_of_sixteen_bits_is_packed_by_the_rule() {
    // Beside one maximum after the other, shuffled so that blocks mix magnitudes.
    let order = |i: u32| (i.wrapping_mul(40_503) % 65_536) as u16;
    let patterns = || (0..65_536u32).map(order);
    let finite = patterns().filter(|p| bf16::from_bits(*p).is_finite());
    check::<Bf16>(
        &finite.flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
        "bf16",
    );
    let finite = patterns().filter(|p| f16::from_bits(*p).is_finite());
    check::<F16>(
        &finite.flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
        "f16",
    );
    for lost in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        for at in [0, 31, 4095, 4096, 8200] {
            let mut x = vec![0.25f32; 8201];
            x[at] = lost;
            check_all(&x, &format!("{lost} at {at}"));
        }
    }
}
