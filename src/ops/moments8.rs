//! AdamW's two moments in 8 bits (Dettmers et al., 2022, arXiv:2110.02861): blocks of
//! 256 numbers share their largest magnitude, each number is an index into the
//! dynamic data type, signed for the first moment and unsigned for the second.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::on_cpu::is_cpu;

/// Numbers that share one maximum.
pub const BLOCK: usize = 256;

/// Tensors with fewer numbers keep their moments in f32, as in bitsandbytes.
pub const LEAST: usize = 4096;

/// One moment: an index for each number, a maximum for each block.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes {
    pub codes: Vec<u8>,
    pub absmax: Vec<f32>,
}

/// Both moments of a parameter: host bytes for the CPU kernel, words on a device with
/// memory of its own.
#[derive(Clone, Debug)]
pub enum Moments8 {
    Host { m: Codes, v: Codes },
    Device { m: Words, v: Words, elements: usize },
}

/// [`Codes`] on a device: four codes a word, the first lowest; the last block is filled
/// up with zeros.
#[derive(Clone, Debug)]
pub struct Words {
    pub(super) words: Tensor<1, Int>,
    pub(super) absmax: Tensor<1>,
}

impl Moments8 {
    /// Zeros for a parameter of `elements` numbers on `device`.
    pub fn new(elements: usize, device: &Device) -> Self {
        let zeros = Codes {
            codes: vec![0; elements],
            absmax: vec![0.0; elements.div_ceil(BLOCK)],
        };
        Self::from_codes(zeros.clone(), zeros, device)
    }

    /// The moments with these codes, e.g. from a checkpoint.
    pub fn from_codes(m: Codes, v: Codes, device: &Device) -> Self {
        if is_cpu(device) {
            Self::Host { m, v }
        } else {
            Self::on_device(&m, &v, device)
        }
    }

    /// The moments as words, wherever the device is.
    pub(crate) fn on_device(m: &Codes, v: &Codes, device: &Device) -> Self {
        Self::Device {
            elements: m.codes.len(),
            m: Words::upload(m, device),
            v: Words::upload(v, device),
        }
    }

    /// Both moments on the host.
    pub fn codes(&self) -> (Codes, Codes) {
        match self {
            Self::Host { m, v } => (m.clone(), v.clone()),
            Self::Device { m, v, elements } => (m.download(*elements), v.download(*elements)),
        }
    }
}

impl Words {
    fn upload(codes: &Codes, device: &Device) -> Self {
        let mut bytes = codes.codes.clone();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let words = bytes.as_chunks::<4>().0.iter();
        let words: Vec<u32> = words.map(|codes| u32::from_le_bytes(*codes)).collect();
        let (w, blocks) = (words.len(), codes.absmax.len());
        let absmax = TensorData::new(codes.absmax.clone(), [blocks]);
        Self {
            words: Tensor::from_data(TensorData::new(words, [w]), (device, DType::U32)),
            absmax: Tensor::from_data(absmax, (device, DType::F32)),
        }
    }

    fn download(&self, elements: usize) -> Codes {
        let words = self.words.clone().into_data();
        Codes {
            codes: words
                .iter::<u32>()
                .flat_map(u32::to_le_bytes)
                .take(elements)
                .collect(),
            absmax: self.absmax.clone().into_data().iter::<f32>().collect(),
        }
    }
}
