//! Rows picked and put: embeddings, supervised rows, the KV cache.

use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::tensors::{cover, dims, elem, empty, vector_size};

#[cube(launch_unchecked)]
fn gather_kernel<F: Float, N: Size>(
    table: &[Vector<F, N>],
    ids: &[u32],
    out: &mut [Vector<F, N>],
    row: usize,
    vectors: usize,
    #[define(F)] _type: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    out[i] = table[ids[i / row] as usize * row + i % row];
}

#[cube(launch_unchecked)]
fn write_kernel<D: Float, S: Float, N: Size>(
    dst: &mut [Vector<D, N>],
    ids: &[u32],
    src: &[Vector<S, N>],
    row: usize,
    vectors: usize,
    #[define(D, S)] _types: [ElemType; 2],
) {
    let i = ABSOLUTE_POS;
    if i >= vectors {
        terminate!();
    }
    dst[ids[i / row] as usize * row + i % row] = Vector::cast_from(src[i]);
}

/// One unit a column adds the rows in order, so that rows that meet add up alike
/// in every run.
#[cube(launch_unchecked)]
fn scatter_add_kernel<D: Float, S: Float>(
    dst: &mut [D],
    ids: &[u32],
    src: &[S],
    rows: usize,
    width: usize,
    #[define(D, S)] _types: [ElemType; 2],
) {
    let column = ABSOLUTE_POS;
    if column >= width {
        terminate!();
    }
    for i in 0..rows {
        let at = ids[i] as usize * width + column;
        let sum = f32::cast_from(dst[at]) + f32::cast_from(src[i * width + column]);
        dst[at] = D::cast_from(sum);
    }
}

pub fn gather(table: CubeTensor, ids: CubeTensor, rows: usize) -> CubeTensor {
    let [_, width] = dims(&table);
    let out = empty(&table, &[rows, width], table.dtype);
    let n = vector_size(width);
    let vectors = rows * width / n;
    let (cubes, dim) = cover(vectors);
    let kind = elem(&table);
    // SAFETY: ids are rows of the table, which tokenised data was checked for.
    unsafe {
        gather_kernel::launch_unchecked(
            &out.client,
            cubes,
            dim,
            n,
            table.into_buffer_arg(),
            ids.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width / n,
            vectors,
            kind,
        );
    }
    out
}

/// Overwrites rows `ids` of `dst`, which must not be shared; ids are distinct.
pub fn write(dst: CubeTensor, ids: CubeTensor, src: CubeTensor) -> CubeTensor {
    let [rows, width] = dims(&src);
    let n = vector_size(width);
    let vectors = rows * width / n;
    let (cubes, dim) = cover(vectors);
    let types = [elem(&dst), elem(&src)];
    // SAFETY: as in `gather`.
    unsafe {
        write_kernel::launch_unchecked(
            &dst.client,
            cubes,
            dim,
            n,
            dst.clone().into_buffer_arg(),
            ids.into_buffer_arg(),
            src.into_buffer_arg(),
            width / n,
            vectors,
            types,
        );
    }
    dst
}

/// Adds row i of `src` to row `ids[i]` of `dst`, which must not be shared.
pub fn scatter_add(dst: CubeTensor, ids: CubeTensor, src: CubeTensor) -> CubeTensor {
    let [rows, width] = dims(&src);
    let (cubes, dim) = cover(width);
    let types = [elem(&dst), elem(&src)];
    // SAFETY: as in `gather`.
    unsafe {
        scatter_add_kernel::launch_unchecked(
            &dst.client,
            cubes,
            dim,
            dst.clone().into_buffer_arg(),
            ids.into_buffer_arg(),
            src.into_buffer_arg(),
            rows,
            width,
            types,
        );
    }
    dst
}
