//! Numbers rounded to bf16.

use rayon::prelude::*;

use super::elementwise::by_rows;
use crate::ops::vectorised::vectorised;

/// `x` rounded to bf16, half to even, as the f32 of that value.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    // A NaN must not round up to an infinity.
    if x.is_nan() {
        return x;
    }
    f32::from_bits((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF_0000)
}

/// Rounds every number in place.
pub fn round_all(values: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for x in values {
                *x = round(*x);
            }
        },
    );
}

/// The bf16 that a rounded number is, in its upper half.
#[inline(always)]
pub fn bits(x: f32) -> u16 {
    (x.to_bits() >> 16) as u16
}

/// `values` as bf16, half to even.
pub fn narrow(values: &[f32]) -> Vec<half::bf16> {
    let mut out = vec![half::bf16::ZERO; values.len()];
    out.par_chunks_mut(1 << 14)
        .zip(values.par_chunks(1 << 14))
        .for_each(|(out, values)| {
            vectorised(
                #[inline(always)]
                || {
                    for (out, x) in out.iter_mut().zip(values) {
                        *out = half::bf16::from_bits(bits(round(*x)));
                    }
                },
            )
        });
    out
}

/// `values` as f32.
#[inline(always)]
pub fn widen(values: &[half::bf16], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(values) {
        *out = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
}

/// A rounded copy.
pub fn rounded(values: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    by_rows(&mut out, 1, |first, part| {
        part.copy_from_slice(&values[first..first + part.len()]);
        round_all(part);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        let stream = Stream::new(5, &[]);
        let drawn = (0..20_000).map(|i| f32::from_bits((stream.uniform(i) * 4e9) as u32));
        let special = [
            0.0,
            -0.0,
            1.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-42,
            f32::from_bits(0x3F80_8000),
            f32::from_bits(0x3F81_8000),
            f32::from_bits(0x3F80_7FFF),
            f32::from_bits(0x3F80_8001),
        ];
        let values: Vec<f32> = drawn.filter(|x| !x.is_nan()).chain(special).collect();
        let narrowed = narrow(&values);
        let mut back = vec![0.0; values.len()];
        widen(&narrowed, &mut back);
        for ((x, narrow), back) in values.iter().zip(narrowed).zip(back) {
            assert_eq!(narrow, half::bf16::from_f32(*x), "{x:e}");
            assert_eq!(back.to_bits(), round(*x).to_bits());
        }
        assert!(round(f32::NAN).is_nan());
    }
}
