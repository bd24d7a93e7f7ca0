//! The largest number of many.

use crate::ops::vectorised::vectorised;

/// The index of the largest logit, the first of equals; `None` where none is finite.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    const LANES: usize = 16;
    let finite = |l: f32| if l.is_finite() { l } else { f32::NEG_INFINITY };
    let best = vectorised(
        #[inline(always)]
        || {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let chunks = logits.chunks_exact(LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (best, l) in lanes.iter_mut().zip(chunk) {
                    *best = best.max(finite(*l));
                }
            }
            let all = lanes.into_iter().chain(rest.iter().map(|l| finite(*l)));
            all.fold(f32::NEG_INFINITY, f32::max)
        },
    );
    let first = logits.iter().position(|l| *l == best);
    first.filter(|_| best.is_finite()).map(|i| i as u32)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorData};

    use super::*;
    use crate::ops::HotOps;
    use crate::ops::composed::first_largest;
    use crate::ops::cpu::CPU;
    use crate::rng::Stream;

    /// Few levels, so that equals occur, and numbers that are not finite.
    fn levels(at: u64, n: u64) -> Vec<f32> {
        let random = Stream::new(8, &[at]);
        let number = |i: u64| match random.bits(i) % 11 {
            0 => f32::NAN,
            1 => f32::INFINITY,
            2 => f32::NEG_INFINITY,
            level => level as f32 / 4.0 - 1.5,
        };
        (0..n).map(number).collect()
    }

    #[test]
    fn the_largest_is_the_first_of_equals() {
        assert_eq!(argmax(&[f32::NAN, 1.0, 1.0]), Some(1));
        for n in 0..70 {
            let logits = levels(n, n);
            assert_eq!(argmax(&logits), first_largest(&logits), "{logits:?}");
        }
    }

    #[test]
    fn each_row_has_its_own() {
        for (rows, vocab) in [(1, 1), (3, 5), (2, 1030)] {
            let all = levels(99, (rows * vocab) as u64);
            let want: Vec<_> = all.chunks(vocab).map(first_largest).collect();
            let data = TensorData::new(all, [rows, vocab]);
            for dtype in [DType::F32, DType::BF16] {
                let rows = Tensor::from_data(data.clone(), (&Device::flex(), dtype));
                assert_eq!(CPU.likeliest(&rows), want, "{dtype:?}");
            }
        }
    }
}
