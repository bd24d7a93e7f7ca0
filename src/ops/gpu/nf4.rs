//! NF4 weights on a GPU and their dequantisation (Dettmers et al., 2023).
//!
//! Codes lie in 32-bit words of eight, in the order of bitsandbytes' bytes, which
//! loads faster than bytes do and exists on WebGPU too. Block maxima that are
//! quantised a second time stay quantised in memory.

use std::sync::Mutex;
use std::thread::{self, ThreadId};

use burn::tensor::{DType, Device, Int, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{
    UNITS, buffer, cover, elem, empty, integers, upload_floats, upload_integers, vector_size,
};
use crate::ops::nf4::{Absmax, CODE, Nf4, dynamic_map};
use crate::ops::nf4_map::NESTED_BLOCK;

/// Codes in a word.
pub const WORD: usize = 8;

/// A frozen `[out, in]` weight in NF4 on a device.
#[derive(Clone, Debug)]
pub struct GpuNf4 {
    /// Words of eight codes; element 2i is the high nibble of byte i.
    words: Tensor<1, Int>,
    absmax: GpuAbsmax,
    pub block_size: usize,
    pub shape: [usize; 2],
    /// On the device.
    pub bytes: usize,
}

#[derive(Clone, Debug)]
enum GpuAbsmax {
    Plain(Tensor<1>),
    Double {
        /// Four 8-bit codes a word.
        codes: Tensor<1, Int>,
        nested: Tensor<1>,
        offset: f32,
    },
}

/// What a kernel reads of a weight. A kernel takes all of them; those of the other kind
/// of maxima are not read.
pub struct Buffers {
    /// Words of eight codes.
    pub codes: CubeTensor,
    pub maxima: CubeTensor,
    /// Words of four codes.
    pub maxima_codes: CubeTensor,
    pub nested: CubeTensor,
    /// The 16 levels, then the 256 values of the second quantisation.
    pub tables: CubeTensor,
    pub offset: f32,
}

/// Four bytes a word, the first lowest; zeros after the last.
fn words(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks(4)
        .map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        })
        .collect()
}

impl GpuNf4 {
    /// Uploads a quantised weight, to stay.
    pub fn new(weight: Nf4, device: &Device) -> Self {
        device.memory_persistent_allocations(weight, |weight| Self::upload(weight, device))
    }

    /// The buffers as the kernels in CUDA C++ take them, which know blocks of 64.
    #[cfg(feature = "cuda")]
    pub fn cuda_buffers(&self) -> Option<super::cuda::Nf4Buffers> {
        use super::cuda::{Maxima, Nf4Buffers};
        if self.block_size != 64 {
            return None;
        }
        Some(Nf4Buffers {
            codes: integers(&self.words),
            maxima: match &self.absmax {
                GpuAbsmax::Plain(maxima) => Maxima::Plain(buffer(maxima)),
                GpuAbsmax::Double {
                    codes,
                    nested,
                    offset,
                } => Maxima::Double {
                    codes: integers(codes),
                    nested: buffer(nested),
                    map: with_tables(&self.words.device(), |t| buffer(&t.map)),
                    offset: *offset,
                },
            },
            shape: self.shape,
        })
    }

    /// The buffers as `#[cube]` kernels take them.
    pub fn buffers(&self) -> Buffers {
        let codes = integers(&self.words);
        let tables = with_tables(&self.words.device(), |t| buffer(&t.both));
        let (maxima, maxima_codes, nested, offset) = match &self.absmax {
            GpuAbsmax::Plain(maxima) => {
                let maxima = buffer(maxima);
                (maxima.clone(), codes.clone(), maxima, 0.0)
            }
            GpuAbsmax::Double {
                codes,
                nested,
                offset,
            } => {
                let nested = buffer(nested);
                (nested.clone(), integers(codes), nested, *offset)
            }
        };
        assert_eq!(NESTED_BLOCK, 256, "the kernels divide by it");
        Buffers {
            codes,
            maxima,
            maxima_codes,
            nested,
            tables,
            offset,
        }
    }

    /// Whether the maxima are quantised.
    pub fn is_double(&self) -> bool {
        matches!(self.absmax, GpuAbsmax::Double { .. })
    }

    fn upload(weight: Nf4, device: &Device) -> Self {
        let packed = words(&weight.packed);
        let mut bytes = 4 * packed.len();
        let absmax = match weight.absmax {
            Absmax::Plain(maxima) => {
                bytes += 4 * maxima.len();
                GpuAbsmax::Plain(upload_floats(device, &maxima))
            }
            Absmax::Double {
                codes,
                nested_absmax,
                offset,
            } => {
                let codes = words(&codes);
                bytes += 4 * (codes.len() + nested_absmax.len());
                GpuAbsmax::Double {
                    codes: upload_integers(device, &codes),
                    nested: upload_floats(device, &nested_absmax),
                    offset,
                }
            }
        };
        Self {
            words: upload_integers(device, &packed),
            absmax,
            block_size: weight.block_size,
            shape: weight.shape,
            bytes,
        }
    }
}

/// The maximum of a block, as of [`Buffers`].
#[cube]
pub fn maximum(
    block: usize,
    maxima: &[f32],
    maxima_codes: &[u32],
    nested: &[f32],
    tables: &[f32],
    offset: f32,
    #[comptime] double: bool,
) -> f32 {
    if comptime!(double) {
        let code = (maxima_codes[block / 4] >> ((block % 4) as u32 * 8u32)) & 255u32;
        tables[code as usize + 16] * nested[block / 256] + offset
    } else {
        maxima[block]
    }
}

/// One unit a word. `tables` holds the 16 levels, then the 256 values of the
/// second quantisation; `maxima` is f32, or words of four codes with `nested`.
#[cube(launch_unchecked)]
fn dequantize_kernel<F: Float, N: Size>(
    codes: &[u32],
    maxima: &[f32],
    maxima_codes: &[u32],
    nested: &[f32],
    tables: &[f32],
    out: &mut [Vector<F, N>],
    word_count: usize,
    elements: usize,
    block_size: usize,
    offset: f32,
    #[comptime] double: bool,
    #[comptime] units: usize,
    #[define(F)] _type: ElemType,
) {
    let mut levels = Shared::<[f32]>::new_slice(16usize);
    if UNIT_POS < 16 {
        levels[UNIT_POS as usize] = tables[UNIT_POS as usize];
    }
    sync_cube();
    let at = CUBE_POS * units + UNIT_POS as usize;
    if at < word_count {
        let block = at * 8 / block_size;
        let absmax = maximum(block, maxima, maxima_codes, nested, tables, offset, double);
        let word = codes[at];
        let size = N::value();
        let vectors = comptime!(8 / size);
        #[unroll]
        for v in 0..vectors {
            let mut values = Vector::<F, N>::new(F::new(0.0f32));
            #[unroll]
            for lane in 0..size {
                // The high nibble of each byte comes first.
                let i = comptime!(v * size + lane);
                let shift = comptime!((i / 2 * 8 + if i % 2 == 0 { 4 } else { 0 }) as u32);
                let level = levels[((word >> shift) & 15u32) as usize];
                values.insert(lane, F::cast_from(level * absmax));
            }
            let first = at * 8 + v * size;
            if first < elements {
                out[first / size] = values;
            }
        }
    }
}

/// The dense weight in `dtype`: level x maximum in f32, then rounded.
pub fn dequantize(weight: &GpuNf4, dtype: DType) -> CubeTensor {
    let read = weight.buffers();
    let out = empty(&read.codes, &weight.shape, dtype);
    let elements = weight.shape[0] * weight.shape[1];
    let word_count = elements.div_ceil(WORD);
    let n = vector_size(elements);
    let (cubes, dim) = cover(word_count);
    let kind = elem(&out);
    // SAFETY: a block of maxima for every `block_size` elements; writes are
    // checked against the number of elements.
    unsafe {
        dequantize_kernel::launch_unchecked(
            &out.client,
            cubes,
            dim,
            n,
            read.codes.into_buffer_arg(),
            read.maxima.into_buffer_arg(),
            read.maxima_codes.into_buffer_arg(),
            read.nested.into_buffer_arg(),
            read.tables.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            word_count,
            elements,
            weight.block_size,
            read.offset,
            weight.is_double(),
            UNITS,
            kind,
        );
    }
    out
}

/// What dequantisation reads on a device besides the weight.
struct Tables {
    thread: ThreadId,
    device: Device,
    /// The 16 levels, then the 256 values of the dynamic map.
    both: Tensor<1>,
    /// The map alone.
    #[cfg(feature = "cuda")]
    map: Tensor<1>,
}

/// Calls `f` with the tables of `device`, which each thread uploads once: a thread has a
/// stream of its own there, and work that is recorded cannot wait for another.
fn with_tables<R>(device: &Device, f: impl FnOnce(&Tables) -> R) -> R {
    static TABLES: Mutex<Vec<Tables>> = Mutex::new(Vec::new());
    let mut known = TABLES.lock().unwrap_or_else(|e| e.into_inner());
    let thread = thread::current().id();
    let at = known
        .iter()
        .position(|t| t.thread == thread && t.device == *device);
    let at = at.unwrap_or_else(|| {
        known.push(Tables {
            thread,
            device: device.clone(),
            both: upload_floats(device, &[&CODE[..], &dynamic_map()[..]].concat()),
            #[cfg(feature = "cuda")]
            map: upload_floats(device, dynamic_map()),
        });
        known.len() - 1
    });
    f(&known[at])
}
