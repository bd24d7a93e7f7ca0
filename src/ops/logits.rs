//! Logits as numbers of the host.

use burn::tensor::{DType, TensorData};
use half::bf16;

use super::vectorised::vectorised;

/// All numbers: a vocabulary's for each sequence and token, so not one by one through
/// burn's iterator over any type.
pub fn numbers(data: TensorData) -> Vec<f32> {
    if data.dtype() == DType::F32 {
        return data
            .try_into_vec()
            .unwrap_or_else(|e| panic!("f32 numbers: {e:?}"));
    }
    if let Ok(halves) = data.as_slice::<bf16>() {
        let mut numbers = vec![0.0; halves.len()];
        vectorised(
            #[inline(always)]
            || {
                for (number, half) in numbers.iter_mut().zip(halves) {
                    // The upper half of an f32.
                    *number = f32::from_bits(u32::from(half.to_bits()) << 16);
                }
            },
        );
        return numbers;
    }
    data.iter::<f32>().collect()
}
