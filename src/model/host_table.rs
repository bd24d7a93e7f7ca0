//! A frozen embedding in host memory beside a device that has its own: a step reads
//! as many rows of it as it has tokens, and its gigabyte is better used otherwise.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;

use crate::ops::{Indices, Precision};

#[derive(Clone)]
pub struct HostTable {
    values: Arc<Values>,
    shape: [usize; 2],
    device: Device,
}

/// In the type that the device computes in.
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl HostTable {
    /// `values` are the rows of `[rows, width]`; `device` is where they are wanted.
    pub fn new(values: Vec<f32>, shape: [usize; 2], device: &Device, precision: Precision) -> Self {
        let values = match precision {
            Precision::F32 => Values::F32(values),
            Precision::Bf16 => {
                Values::Bf16(values.par_iter().map(|v| bf16::from_f32(*v)).collect())
            }
        };
        Self {
            values: Arc::new(values),
            shape,
            device: device.clone(),
        }
    }

    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Row `ids[i]` as row i, on the device.
    pub fn rows(&self, ids: &Indices) -> Tensor<2> {
        let width = self.shape[1];
        match &*self.values {
            Values::F32(values) => self.upload(picked(values, width, ids), DType::F32),
            Values::Bf16(values) => self.upload(picked(values, width, ids), DType::BF16),
        }
    }

    /// All of it, on the device.
    pub fn whole(&self) -> Tensor<2> {
        match &*self.values {
            Values::F32(values) => self.upload(values.clone(), DType::F32),
            Values::Bf16(values) => self.upload(values.clone(), DType::BF16),
        }
    }

    fn upload<E: burn::tensor::Element>(&self, values: Vec<E>, dtype: DType) -> Tensor<2> {
        let rows = values.len() / self.shape[1];
        let data = TensorData::new(values, [rows * self.shape[1]]);
        // Of rank 1 first: the allocator pads the rows of matrices.
        let flat: Tensor<1> = Tensor::from_data(data, (&self.device, dtype));
        flat.reshape([rows, self.shape[1]])
    }
}

fn picked<E: Copy>(values: &[E], width: usize, ids: &[u32]) -> Vec<E> {
    let mut rows = Vec::with_capacity(ids.len() * width);
    for id in ids {
        rows.extend_from_slice(&values[*id as usize * width..][..width]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::HotOps;
    use crate::ops::cpu::CPU;
    use crate::rng::Stream;

    #[test]
    fn rows_are_those_of_a_table_on_the_device() {
        let (rows, width) = (19, 7);
        let random = Stream::new(5, &[]);
        let values: Vec<f32> = (0..rows * width).map(|i| random.normal(i as u64)).collect();
        let ids = Indices::from(vec![18, 0, 3, 3, 11]);
        let device = Device::flex();
        let data = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<f32>>();
        let table = HostTable::new(values.clone(), [rows, width], &device, Precision::F32);
        let dense: Tensor<2> = Tensor::from_data(TensorData::new(values, [rows, width]), &device);
        assert_eq!(data(table.rows(&ids)), data(CPU.gather_rows(&dense, &ids)));
        assert_eq!(data(table.whole()), data(dense));
    }
}
