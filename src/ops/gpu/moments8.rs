//! AdamW whose moments are 8 bits wide between two updates (Dettmers et al., 2022,
//! arXiv:2110.02861), in one kernel: a cube takes a block of 256 numbers from its
//! codes to new codes, so that f32 moments exist in registers alone. The rounding of
//! each operation is the CPU's, which is bitsandbytes'.

use std::sync::Mutex;

use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::reduce::cube_max;
use super::tensors::{
    cubes, integer_tensor, integers, tensor, upload_integers, writable, writable_integers,
};
use crate::ops::moments8::{BLOCK, Words};
use crate::ops::{AdamW, nf4_map};

/// Numbers of a unit: the codes of one word.
const WORD: usize = 4;
/// Where the look-up table of a data type begins, after the 256 values of each.
const LOOKUP: usize = 512;
/// Words of one look-up table.
const LOOKUP_WORDS: usize = 65_536 / WORD;

/// The index of the value that is nearest to `x`, which is between -1 and 1; see
/// [`nf4_map::DynamicMap::index`].
#[cube]
fn nearest(x: f32, tables: &[u32], #[comptime] lookup: usize) -> u32 {
    let one = f32::new(1.0);
    let shifted = clamp(x, -one, one) + one;
    let point = u32::cast_from(fma(shifted, f32::new(32_767.5), f32::new(0.5)));
    let point = min(point, 65_535u32);
    let word = tables[lookup + point as usize / 4];
    (word >> (point % 4u32 * 8u32)) & 255u32
}

/// Quantises a unit's four numbers beside those of the others; the word of its codes
/// and the block's largest magnitude.
#[cube]
fn quantize(
    values: &Array<f32>,
    tables: &[u32],
    scratch: &mut Shared<[f32]>,
    #[comptime] lookup: usize,
    #[comptime] units: usize,
) -> (u32, f32) {
    let mut largest = f32::new(0.0);
    #[unroll]
    for i in 0..4usize {
        largest = max(largest, f32::abs(values[i]));
    }
    let absmax = cube_max(largest, scratch, units);
    let mut word = 0u32;
    // The codes of a block of zeros are 0.
    if absmax > 0.0 {
        let inverse = f32::new(1.0) / absmax;
        #[unroll]
        for i in 0..4usize {
            let code = nearest(values[i] * inverse, tables, lookup);
            word |= code << comptime!(8 * i as u32);
        }
    }
    (word, absmax)
}

#[cube(launch_unchecked)]
fn adamw_8bit_kernel(
    p: &mut [f32],
    g: &[f32],
    m: &mut [u32],
    m_max: &mut [f32],
    v: &mut [u32],
    v_max: &mut [f32],
    tables: &[u32],
    squared_norm: &[f32],
    max_norm: f32,
    decay: f32,
    step: f32,
    bias2: f32,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    eps: f32,
    blocks: usize,
    elements: usize,
    #[comptime] units: usize,
) {
    let block = CUBE_POS;
    if block >= blocks {
        terminate!();
    }
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let mut clip = f32::new(1.0);
    if max_norm > 0.0 {
        clip = min(
            max_norm / (f32::sqrt(squared_norm[0]) + f32::new(1e-6)),
            f32::new(1.0),
        );
    }
    let at = block * units + UNIT_POS as usize;
    let (m_word, v_word) = (m[at], v[at]);
    let (m_scale, v_scale) = (m_max[block], v_max[block]);
    let mut first = Array::<f32>::new(4usize);
    let mut second = Array::<f32>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        let element = at * 4 + i;
        first[i] = f32::new(0.0);
        second[i] = f32::new(0.0);
        if element < elements {
            let shift = comptime!(8 * i as u32);
            let m_code = ((m_word >> shift) & 255u32) as usize;
            let v_code = ((v_word >> shift) & 255u32) as usize;
            let grad = g[element] * clip;
            let before = f32::reinterpret(tables[m_code]) * m_scale;
            first[i] = fma(grad, rest1, before * beta1);
            let before = f32::reinterpret(tables[v_code + 256]) * v_scale;
            second[i] = fma(rest2 * grad, grad, before * beta2);
            let denominator = f32::sqrt(second[i]) / bias2 + eps;
            p[element] = p[element] * decay + step * first[i] / denominator;
        }
    }
    let lookup = comptime!(LOOKUP + LOOKUP_WORDS);
    let (m_word, m_scale) = quantize(&first, tables, &mut scratch, LOOKUP, units);
    let (v_word, v_scale) = quantize(&second, tables, &mut scratch, lookup, units);
    m[at] = m_word;
    v[at] = v_word;
    if UNIT_POS == 0 {
        m_max[block] = m_scale;
        v_max[block] = v_scale;
    }
}

/// A moment as the kernel takes it, written in place.
pub struct Buffers {
    words: CubeTensor,
    absmax: CubeTensor,
}

impl Buffers {
    /// Copies what somebody else holds.
    pub fn of(words: Words) -> Self {
        Self {
            words: writable_integers(words.words),
            absmax: writable(words.absmax),
        }
    }

    pub fn words(self) -> Words {
        Words {
            words: integer_tensor(self.words),
            absmax: tensor(self.absmax),
        }
    }
}

/// Updates `p`, which may not be shared, and both moments in place.
pub fn adamw_8bit(
    p: &CubeTensor,
    g: CubeTensor,
    [m, v]: [&Buffers; 2],
    squared_norm: CubeTensor,
    max_norm: f64,
    h: &AdamW,
    device: &Device,
) {
    let t = h.step as i32;
    let elements = p.meta.num_elements();
    let blocks = elements.div_ceil(BLOCK);
    let units = BLOCK / WORD;
    let tables = integers(&tables(device));
    // SAFETY: moments have a word for every unit of every block, filled up in the
    // last; numbers beyond `elements` are not touched.
    unsafe {
        adamw_8bit_kernel::launch_unchecked(
            &p.client,
            cubes(blocks),
            CubeDim::new_1d(units as u32),
            p.clone().into_buffer_arg(),
            g.into_buffer_arg(),
            m.words.clone().into_buffer_arg(),
            m.absmax.clone().into_buffer_arg(),
            v.words.clone().into_buffer_arg(),
            v.absmax.clone().into_buffer_arg(),
            tables.into_buffer_arg(),
            squared_norm.into_buffer_arg(),
            max_norm as f32,
            (1.0 - h.lr * h.weight_decay) as f32,
            (-h.lr / (1.0 - h.beta1.powi(t))) as f32,
            (1.0 - h.beta2.powi(t)).sqrt() as f32,
            h.beta1 as f32,
            h.beta2 as f32,
            (1.0 - h.beta1) as f32,
            (1.0 - h.beta2) as f32,
            h.eps as f32,
            blocks,
            elements,
            units,
        );
    }
}

/// The values of the signed and the unsigned data type, as bits, then for each what
/// is nearest to each point, four codes a word. Crosses the bus once a device.
fn tables(device: &Device) -> Tensor<1, Int> {
    static ALL: Mutex<Vec<(Device, Tensor<1, Int>)>> = Mutex::new(Vec::new());
    let mut all = ALL.lock().unwrap_or_else(|e| e.into_inner());
    if let Some((_, known)) = all.iter().find(|(d, _)| d == device) {
        return known.clone();
    }
    let maps = [nf4_map::signed(), nf4_map::unsigned()];
    let values = maps.iter().flat_map(|map| map.values.map(f32::to_bits));
    let lookup = maps
        .iter()
        .flat_map(|map| map.nearest.as_chunks::<WORD>().0);
    let words: Vec<u32> = values
        .chain(lookup.map(|codes| u32::from_le_bytes(*codes)))
        .collect();
    let uploaded = upload_integers(device, &words);
    all.push((device.clone(), uploaded.clone()));
    uploaded
}
