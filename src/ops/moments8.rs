//! AdamW's two moments in 8 bits (Dettmers et al., 2022, arXiv:2110.02861): blocks of
//! 256 numbers share their largest magnitude, each number is an index into the
//! dynamic data type, signed for the first moment and unsigned for the second.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::nf4_map::{self, DynamicMap};
use super::{AdamW, Clip, Scalar, cpu};

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

/// [`Codes`] on a device. Word i holds the codes of the numbers i, i + w, i + 2w and
/// i + 3w, lowest first, for w words; the last block is filled up.
#[derive(Clone, Debug)]
pub struct Words {
    words: Tensor<1, Int>,
    absmax: Tensor<1>,
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
        if cpu::is_cpu(device) {
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

/// A data type on a device.
#[derive(Clone)]
struct Tables {
    values: Tensor<1>,
    nearest: Tensor<1, Int>,
}

impl Tables {
    /// Crosses the bus once a device, not with every update.
    fn on(map: &'static DynamicMap, device: &Device) -> Self {
        static ALL: Mutex<Vec<(&'static DynamicMap, Device, Tables)>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = all.iter();
        if let Some((.., tables)) = known.find(|(m, d, _)| std::ptr::eq(*m, map) && d == device) {
            return tables.clone();
        }
        let nearest: Vec<i32> = map.nearest.iter().map(|i| i32::from(*i)).collect();
        let nearest = TensorData::new(nearest, [map.nearest.len()]);
        let values = TensorData::from(map.values);
        let tables = Self {
            values: Tensor::from_data(values, (device, DType::F32)),
            nearest: Tensor::from_data(nearest, (device, DType::I32)),
        };
        all.push((map, device.clone(), tables.clone()));
        tables
    }
}

impl Words {
    fn upload(codes: &Codes, device: &Device) -> Self {
        let mut bytes = codes.codes.clone();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let w = bytes.len() / 4;
        let word = |i: usize| i32::from_le_bytes(std::array::from_fn(|k| bytes[i + k * w]));
        let words: Vec<i32> = (0..w).map(word).collect();
        let absmax = TensorData::new(codes.absmax.clone(), [codes.absmax.len()]);
        Self {
            words: Tensor::from_data(TensorData::new(words, [w]), (device, DType::I32)),
            absmax: Tensor::from_data(absmax, (device, DType::F32)),
        }
    }

    fn download(&self, elements: usize) -> Codes {
        let words: Vec<i32> = self.words.clone().into_data().iter::<i32>().collect();
        let planes = (0..4).flat_map(|k| words.iter().map(move |w| w.to_le_bytes()[k]));
        Codes {
            codes: planes.take(elements).collect(),
            absmax: self.absmax.clone().into_data().iter::<f32>().collect(),
        }
    }

    /// The numbers, the filling included.
    fn values(self, map: &'static DynamicMap) -> Tensor<1> {
        let device = self.words.device();
        let plane = |k: u8| {
            let shifted = self
                .words
                .clone()
                .bitwise_right_shift_scalar(8 * i32::from(k));
            shifted.bitwise_and_scalar(255)
        };
        let codes = Tensor::cat((0..4).map(plane).collect(), 0);
        let table = Tables::on(map, &device).values;
        let blocks = self.absmax.dims()[0];
        let unit = table.select(0, codes).reshape([blocks, BLOCK]);
        (unit * self.absmax.reshape([blocks, 1])).reshape([blocks * BLOCK])
    }

    /// Quantises whole blocks.
    fn quantize(x: Tensor<1>, map: &'static DynamicMap) -> Self {
        let (device, n) = (x.device(), x.dims()[0]);
        let blocks = x.reshape([n / BLOCK, BLOCK]);
        let absmax = blocks.clone().abs().max_dim(1);
        let zero = absmax.clone().equal_elem(0.0);
        // A block of zeros must not divide by zero; its codes are 0.
        let inverse = absmax.clone().mask_fill(zero.clone(), 1.0).recip();
        let point = (blocks * inverse).clamp(-1.0, 1.0).add_scalar(1.0);
        let point = point.mul_scalar(32_767.5).add_scalar(0.5).floor();
        let point: Tensor<1, Int> = point.clamp(0.0, 65_535.0).int().reshape([n]);
        let nearest = Tables::on(map, &device).nearest;
        let codes = nearest.select(0, point).reshape([n / BLOCK, BLOCK]);
        let codes = codes.mask_fill(zero.expand([n / BLOCK, BLOCK]), 0);
        let codes: Tensor<1, Int> = codes.reshape([n]);
        let plane = |k: usize| {
            let plane = codes.clone().narrow(0, k * (n / 4), n / 4);
            plane.bitwise_left_shift_scalar(8 * k as i32)
        };
        let words = plane(0).bitwise_or(plane(1));
        Self {
            words: words.bitwise_or(plane(2)).bitwise_or(plane(3)),
            absmax: absmax.reshape([n / BLOCK]),
        }
    }
}

/// The update in burn operations, for any device: the moments become numbers, take
/// part in [`AdamW`]'s update as f32, and are quantised again. Nothing waits for the
/// device.
pub fn update(
    param: Tensor<2>,
    grad: &Tensor<2>,
    moments: Moments8,
    h: &AdamW,
    clip: &Clip,
) -> (Tensor<2>, Moments8) {
    let device = param.device();
    let (m, v) = match moments {
        Moments8::Device { m, v, .. } => (m, v),
        Moments8::Host { m, v } => (Words::upload(&m, &device), Words::upload(&v, &device)),
    };
    let (shape, t) = (param.dims(), h.step as i32);
    let n = shape[0] * shape[1];
    let g = clipped(grad.clone().reshape([n]), clip);
    let m = m.values(nf4_map::signed()).narrow(0, 0, n);
    let v = v.values(nf4_map::unsigned()).narrow(0, 0, n);
    let m = m.mul_scalar(h.beta1) + g.clone().mul_scalar(1.0 - h.beta1);
    let v = v.mul_scalar(h.beta2) + g.square().mul_scalar(1.0 - h.beta2);
    let root = v.clone().sqrt().div_scalar((1.0 - h.beta2.powi(t)).sqrt());
    let step = (m.clone() / root.add_scalar(h.eps)).mul_scalar(h.lr / (1.0 - h.beta1.powi(t)));
    let param = param.mul_scalar(1.0 - h.lr * h.weight_decay) - step.reshape(shape);
    let filled = |x: Tensor<1>| match n.next_multiple_of(BLOCK) - n {
        0 => x,
        rest => Tensor::cat(vec![x, Tensor::zeros([rest], (&device, DType::F32))], 0),
    };
    let m = Words::quantize(filled(m), nf4_map::signed());
    let v = Words::quantize(filled(v), nf4_map::unsigned());
    let elements = n;
    (param, Moments8::Device { m, v, elements })
}

/// The gradient after clipping, with the factor computed where the norm lies.
fn clipped(grad: Tensor<1>, clip: &Clip) -> Tensor<1> {
    match &clip.squared_norm {
        Scalar::Device(parts) if clip.max_norm > 0.0 => {
            let norm = parts.clone().sum().sqrt().add_scalar(1e-6);
            grad * norm.recip().mul_scalar(clip.max_norm).clamp_max(1.0)
        }
        _ => grad.mul_scalar(clip.factor()),
    }
}
