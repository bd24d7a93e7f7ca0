//! The largest numbers of a row of logits: what sampling and beam search mostly want of
//! them, so that a vocabulary of numbers a sequence need not go to the host.

/// Most that can be asked for; a device may refuse to find more.
pub const MOST_LEADING: usize = 192;

/// The largest finite numbers of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Leading {
    /// Columns and their numbers, the largest first, of equals the smaller column.
    pub numbers: Vec<(u32, f32)>,
    /// Whether no other number of the row is finite. Else all others are smaller than the
    /// last of `numbers`.
    pub all: bool,
    /// The sum of exp((x - largest) / temperature) over all finite numbers x of the row, if
    /// it was asked for.
    pub total: Option<f64>,
}

/// Ordered as [`Leading::numbers`].
pub fn descending(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

impl Leading {
    /// Of numbers on the host: at least the `count` largest, and what equals the least of
    /// them.
    pub fn of(row: &[f32], count: usize, temperature: Option<f32>) -> Self {
        let finite = row.iter().enumerate().filter(|(_, x)| x.is_finite());
        let mut numbers: Vec<(u32, f32)> = finite.map(|(i, x)| (i as u32, *x)).collect();
        let largest = numbers.iter().map(|n| n.1).fold(f32::MIN, f32::max);
        let total = temperature.map(|temperature| {
            let weights = numbers.iter().map(|n| (n.1 - largest) / temperature);
            weights.map(|w| f64::from(w).exp()).sum()
        });
        let all = numbers.len() <= count;
        if !all {
            let at = count.saturating_sub(1);
            let (_, &mut (_, least), _) = numbers.select_nth_unstable_by(at, descending);
            numbers.retain(|n| n.1 >= least);
        }
        numbers.sort_unstable_by(descending);
        Self {
            numbers,
            all,
            total,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorData};

    use crate::ops::HotOps;
    use crate::ops::composed::Composed;
    use crate::ops::cpu::CPU;
    use crate::rng::Stream;

    #[test]
    fn the_largest_of_each_row_are_those_of_sorting() {
        for case in 0..200_u64 {
            let random = Stream::new(17, &[case]);
            let pick = |at: u64, n: u64| random.bits(at) % n;
            let (rows, vocab) = (1 + pick(0, 3), 1 + pick(1, 400));
            // Levels that are exact in bf16.
            let number = |i: u64| match random.bits(100 + i) % 90 {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                level => level as f32 / 4.0 - 12.0,
            };
            let all: Vec<f32> = (0..rows * vocab).map(number).collect();
            let data = TensorData::new(all, [rows as usize, vocab as usize]);
            let count = 1 + pick(2, 60) as usize;
            let temperature = [None, Some(1.0), Some(0.6)][pick(3, 3) as usize];
            for dtype in [DType::F32, DType::BF16] {
                let logits = Tensor::from_data(data.clone(), (&Device::flex(), dtype));
                let got = CPU.leading(&logits, count, temperature);
                let want = Composed.leading(&logits, count, temperature);
                assert_eq!(got.len(), want.len());
                for (got, want) in got.into_iter().flatten().zip(want.into_iter().flatten()) {
                    assert_eq!((&got.numbers, got.all), (&want.numbers, want.all));
                    assert_eq!(got.total.is_some(), temperature.is_some());
                    if let (Some(got), Some(want)) = (got.total, want.total) {
                        assert!((got - want).abs() <= 1e-6 * want, "{got} {want}");
                    }
                }
            }
        }
    }
}
