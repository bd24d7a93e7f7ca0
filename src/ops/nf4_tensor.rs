//! An NF4 weight where a device needs it.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::cpu;
use super::nf4::{Absmax, CODE, Nf4, dynamic_map};
use super::nf4_map::NESTED_BLOCK;

/// A frozen `[out, in]` weight in NF4: host bytes for the CPU kernels, tensors
/// for other devices.
#[derive(Clone, Debug)]
pub enum Nf4Tensor {
    Host(Arc<Nf4>),
    Device(DeviceNf4),
}

/// The parts of an NF4 weight as device tensors.
#[derive(Clone, Debug)]
pub struct DeviceNf4 {
    /// Two 4-bit codes a byte, first element in the high nibble.
    packed: Tensor<1, Int>,
    /// One scale a block: as f32, or as 8-bit codes with a second level of scales.
    absmax: DeviceAbsmax,
    block_size: usize,
    shape: [usize; 2],
    bytes: usize,
}

#[derive(Clone, Debug)]
enum DeviceAbsmax {
    Plain(Tensor<1>),
    Double {
        codes: Tensor<1, Int>,
        nested: Tensor<1>,
        offset: f32,
    },
}

impl Nf4Tensor {
    /// Keeps host bytes on the CPU, uploads them elsewhere.
    pub fn new(weight: Nf4, device: &Device) -> Self {
        if cpu::is_cpu(device) {
            return Self::Host(Arc::new(weight));
        }
        let bytes = |data: Vec<u8>| {
            let n = data.len();
            Tensor::<1, Int>::from_data(TensorData::new(data, [n]), (device, DType::U8))
        };
        let floats = |data: Vec<f32>| {
            let n = data.len();
            Tensor::<1>::from_data(TensorData::new(data, [n]), device)
        };
        let size = weight.bytes();
        Self::Device(DeviceNf4 {
            packed: bytes(weight.packed),
            absmax: match weight.absmax {
                Absmax::Plain(scales) => DeviceAbsmax::Plain(floats(scales)),
                Absmax::Double {
                    codes,
                    nested_absmax,
                    offset,
                } => DeviceAbsmax::Double {
                    codes: bytes(codes),
                    nested: floats(nested_absmax),
                    offset,
                },
            },
            block_size: weight.block_size,
            shape: weight.shape,
            bytes: size,
        })
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Host(w) => w.shape,
            Self::Device(w) => w.shape,
        }
    }

    /// Bytes that stay in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Host(w) => w.bytes(),
            Self::Device(w) => w.bytes,
        }
    }

    /// The dense weight on the CPU.
    pub fn dequantize_host(&self) -> Tensor<2> {
        match self {
            Self::Host(w) => {
                let mut out = vec![0.0; w.shape[0] * w.shape[1]];
                w.dequantize_as_cpu_kernel(&mut out);
                cpu::tensor2(out, w.shape)
            }
            Self::Device(w) => w.dequantize(),
        }
    }
}

impl DeviceNf4 {
    /// The dense weight by plain tensor operations.
    pub fn dequantize(&self) -> Tensor<2> {
        let device = self.packed.device();
        let [out, inn] = self.shape;
        let table = |values: &[f32]| {
            Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), &device)
        };
        let repeat = |t: Tensor<1>, times: usize, len: usize| {
            let n = t.dims()[0];
            t.reshape([n, 1])
                .repeat_dim(1, times)
                .reshape([n * times])
                .narrow(0, 0, len)
        };
        let n = out * inn;
        let blocks = n.div_ceil(self.block_size);
        let scales = match &self.absmax {
            DeviceAbsmax::Plain(scales) => scales.clone(),
            DeviceAbsmax::Double {
                codes,
                nested,
                offset,
            } => {
                let value = table(dynamic_map()).select(0, codes.clone().cast(DType::I32));
                value * repeat(nested.clone(), NESTED_BLOCK, blocks) + *offset
            }
        };
        let bytes = self.packed.clone().cast(DType::I32);
        let (high, low) = (bytes.clone() / 16, bytes.remainder_scalar(16));
        let pairs = high.dims()[0];
        let codes = Tensor::cat(vec![high.reshape([pairs, 1]), low.reshape([pairs, 1])], 1);
        let codes: Tensor<1, Int> = codes.reshape([2 * pairs]).narrow(0, 0, n);
        let values = table(&CODE).select(0, codes);
        (values * repeat(scales, self.block_size, n)).reshape([out, inn])
    }
}
