//! Launches over many tensors at once: small ones would each take longer to launch
//! than to compute.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{UNITS, cubes, elem, empty};

/// Tensors of one launch, where the device takes so many buffers.
const MANY: usize = 32;
/// Elements of a tensor that a cube works on.
pub const RUN: usize = 4 * UNITS;

/// Tensors of one launch that takes `each` buffers a tensor and some `others`.
pub fn at_once(like: &CubeTensor, each: usize, others: usize) -> usize {
    let bindings = like.client.properties().hardware.max_bindings as usize;
    (bindings.saturating_sub(others) / each).clamp(1, MANY)
}

/// Cubes are numbered through the tensors of a launch: where those of each begin, and
/// their number.
pub fn firsts(counts: impl Iterator<Item = usize>) -> (SequenceArg<u32>, usize) {
    let mut firsts = SequenceArg::new();
    let mut next = 0;
    for count in counts {
        firsts.push(next as u32);
        next += count;
    }
    firsts.push(next as u32);
    (firsts, next)
}

/// The number of elements of each.
pub fn sizes<'a>(tensors: impl Iterator<Item = &'a CubeTensor>) -> SequenceArg<u32> {
    tensors.map(|x| x.meta.num_elements() as u32).collect()
}

pub fn buffers<'a, E: CubePrimitive>(
    tensors: impl Iterator<Item = &'a CubeTensor>,
) -> SequenceArg<Box<[E]>> {
    tensors.map(|x| x.clone().into_buffer_arg()).collect()
}

/// The elements that this cube has of its tensor, whose cubes begin at `first`: from,
/// and up to.
#[cube]
pub fn run_of(first: u32, elements: u32, #[comptime] run: usize) -> (usize, usize) {
    let begin = (CUBE_POS as u32 - first) as usize * run;
    (begin, min(begin + run, elements as usize))
}

#[cube(launch_unchecked)]
fn cast_kernel<A: Float, B: Float>(
    from: &Sequence<Box<[A]>>,
    to: &mut Sequence<Box<[B]>>,
    elements: &Sequence<u32>,
    firsts: &Sequence<u32>,
    #[comptime] units: usize,
    #[comptime] run: usize,
    #[define(A, B)] _types: [ElemType; 2],
) {
    let cube = CUBE_POS as u32;
    #[unroll]
    for t in 0..from.len() {
        if cube >= firsts[t] && cube < firsts[t + 1] {
            let (begin, end) = run_of(firsts[t], elements[t], run);
            let mut i = begin + UNIT_POS as usize;
            while i < end {
                to.index_mut(t)[i] = B::cast_from(from.index(t)[i]);
                i += units;
            }
        }
    }
}

/// All tensors, of one type, in another. Rows of the results are not padded.
pub fn cast(tensors: &[CubeTensor], dtype: DType) -> Vec<CubeTensor> {
    let Some(like) = tensors.first() else {
        return Vec::new();
    };
    let of_shape = |x: &CubeTensor| empty(x, x.meta.shape().as_slice(), dtype);
    let results: Vec<CubeTensor> = tensors.iter().map(of_shape).collect();
    let most = at_once(like, 2, 0);
    for (from, to) in tensors.chunks(most).zip(results.chunks(most)) {
        let counts = from.iter().map(|x| x.meta.num_elements().div_ceil(RUN));
        let (firsts, count) = firsts(counts);
        // SAFETY: a result has as many elements as its source.
        unsafe {
            cast_kernel::launch_unchecked(
                &like.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                buffers(from.iter()),
                buffers(to.iter()),
                sizes(from.iter()),
                firsts,
                UNITS,
                RUN,
                [elem(like), elem(&to[0])],
            );
        }
    }
    results
}
