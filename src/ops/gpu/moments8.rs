//! AdamW whose moments are 8 bits wide between two updates (Dettmers et al., 2022,
//! arXiv:2110.02861), in one kernel for many tensors: a cube takes a block of 256
//! numbers from its codes to new codes, so that f32 moments exist in registers alone.
//! The rounding of each operation is the CPU's, which is bitsandbytes'.

use std::sync::Mutex;

use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::many::{at_once, buffers, firsts, sizes};
use super::optim::clip_factor;
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

/// A cube has a block.
#[cube(launch_unchecked)]
fn adamw_8bit_kernel(
    p: &mut Sequence<Box<[f32]>>,
    g: &Sequence<Box<[f32]>>,
    m: &mut Sequence<Box<[u32]>>,
    m_max: &mut Sequence<Box<[f32]>>,
    v: &mut Sequence<Box<[u32]>>,
    v_max: &mut Sequence<Box<[f32]>>,
    elements: &Sequence<u32>,
    firsts: &Sequence<u32>,
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
    #[comptime] units: usize,
) {
    let mut scratch = Shared::<[f32]>::new_slice(units);
    let clip = clip_factor(squared_norm, max_norm);
    let cube = CUBE_POS as u32;
    #[unroll]
    for t in 0..g.len() {
        if cube >= firsts[t] && cube < firsts[t + 1] {
            let block = (cube - firsts[t]) as usize;
            let at = block * units + UNIT_POS as usize;
            let (m_word, v_word) = (m.index(t)[at], v.index(t)[at]);
            let (m_scale, v_scale) = (m_max.index(t)[block], v_max.index(t)[block]);
            let mut first = Array::<f32>::new(4usize);
            let mut second = Array::<f32>::new(4usize);
            #[unroll]
            for i in 0..4usize {
                let element = at * 4 + i;
                first[i] = f32::new(0.0);
                second[i] = f32::new(0.0);
                if element < elements[t] as usize {
                    let shift = comptime!(8 * i as u32);
                    let m_code = ((m_word >> shift) & 255u32) as usize;
                    let v_code = ((v_word >> shift) & 255u32) as usize;
                    let grad = g.index(t)[element] * clip;
                    let before = f32::reinterpret(tables[m_code]) * m_scale;
                    first[i] = fma(grad, rest1, before * beta1);
                    let before = f32::reinterpret(tables[v_code + 256]) * v_scale;
                    second[i] = fma(rest2 * grad, grad, before * beta2);
                    let denominator = f32::sqrt(second[i]) / bias2 + eps;
                    let value = p.index(t)[element] * decay + step * first[i] / denominator;
                    p.index_mut(t)[element] = value;
                }
            }
            let lookup = comptime!(LOOKUP + LOOKUP_WORDS);
            let (m_word, m_scale) = quantize(&first, tables, &mut scratch, LOOKUP, units);
            let (v_word, v_scale) = quantize(&second, tables, &mut scratch, lookup, units);
            m.index_mut(t)[at] = m_word;
            v.index_mut(t)[at] = v_word;
            if UNIT_POS == 0 {
                m_max.index_mut(t)[block] = m_scale;
                v_max.index_mut(t)[block] = v_scale;
            }
        }
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

/// A parameter, which may not be shared, and its two moments.
pub struct Trained {
    pub p: CubeTensor,
    pub m: Buffers,
    pub v: Buffers,
}

/// Updates parameters and moments in place.
pub fn adamw_8bit(
    params: &[Trained],
    grads: &[CubeTensor],
    squared_norm: &CubeTensor,
    max_norm: f64,
    h: &AdamW,
    device: &Device,
) {
    let t = h.step as i32;
    let units = BLOCK / WORD;
    let tables = integers(&tables(device));
    let most = at_once(squared_norm, 6, 3);
    for (params, grads) in params.chunks(most).zip(grads.chunks(most)) {
        let counts = params.iter().map(|x| x.p.meta.num_elements());
        let (firsts, blocks) = firsts(counts.map(|n| n.div_ceil(BLOCK)));
        // SAFETY: moments have a word for every unit of every block, filled up in the
        // last; numbers beyond a parameter's elements are not touched.
        unsafe {
            adamw_8bit_kernel::launch_unchecked(
                &squared_norm.client,
                cubes(blocks),
                CubeDim::new_1d(units as u32),
                buffers(params.iter().map(|x| &x.p)),
                buffers(grads.iter()),
                buffers(params.iter().map(|x| &x.m.words)),
                buffers(params.iter().map(|x| &x.m.absmax)),
                buffers(params.iter().map(|x| &x.v.words)),
                buffers(params.iter().map(|x| &x.v.absmax)),
                sizes(params.iter().map(|x| &x.p)),
                firsts,
                tables.clone().into_buffer_arg(),
                squared_norm.clone().into_buffer_arg(),
                max_norm as f32,
                (1.0 - h.lr * h.weight_decay) as f32,
                (-h.lr / (1.0 - h.beta1.powi(t))) as f32,
                (1.0 - h.beta2.powi(t)).sqrt() as f32,
                h.beta1 as f32,
                h.beta2 as f32,
                (1.0 - h.beta1) as f32,
                (1.0 - h.beta2) as f32,
                h.eps as f32,
                units,
            );
        }
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
