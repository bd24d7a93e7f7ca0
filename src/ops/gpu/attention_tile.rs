//! What the attention kernels share: tiles in shared memory, in f32, each row
//! padded by a word so that units side by side read different banks.

use cubecl::prelude::*;

/// Copies `rows` rows of one head into a tile of `tile_rows` rows, zeros below.
/// `first` is the element where the head begins in the first row.
#[cube]
pub fn load_tile<F: Float>(
    x: &[F],
    tile: &mut Shared<[f32]>,
    first: usize,
    stride: usize,
    rows: usize,
    #[comptime] tile_rows: usize,
    #[comptime] dim: usize,
    #[comptime] units: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(tile_rows * dim) {
        let row = i / dim;
        let column = i % dim;
        let mut value = f32::new(0.0);
        if row < rows {
            value = f32::cast_from(x[first + row * stride + column]);
        }
        tile[row * comptime!(dim + 1) + column] = value;
        i += units;
    }
}

/// Adds the dot products of this unit's rows of `a` and columns of `b` to
/// `scores`: row y x unit_rows + i against column x + j x units_x.
#[cube]
pub fn add_scores(
    a: &Shared<[f32]>,
    b: &Shared<[f32]>,
    scores: &mut Array<f32>,
    #[comptime] dim: usize,
    #[comptime] unit_rows: usize,
    #[comptime] unit_cols: usize,
    #[comptime] units_x: usize,
) {
    let row = UNIT_POS_Y as usize * unit_rows;
    let column = UNIT_POS_X as usize;
    let stride = comptime!(dim + 1);
    for d in 0..dim {
        #[unroll]
        for i in 0..unit_rows {
            let left = a[(row + i) * stride + d];
            #[unroll]
            for j in 0..unit_cols {
                let right = b[(column + j * units_x) * stride + d];
                scores[i * unit_cols + j] += left * right;
            }
        }
    }
}

/// Adds `weights . b` for this unit's rows and its columns x + c x units_x of the
/// head: `weights` is a tile of scores, `b` a tile of `cols` row vectors.
#[cube]
pub fn add_products(
    weights: &Shared<[f32]>,
    b: &Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] cols: usize,
    #[comptime] dim: usize,
    #[comptime] unit_rows: usize,
    #[comptime] units_x: usize,
) {
    let row = UNIT_POS_Y as usize * unit_rows;
    let column = UNIT_POS_X as usize;
    let own = comptime!(dim.div_ceil(units_x));
    for j in 0..cols {
        #[unroll]
        for c in 0..own {
            let at = column + c * units_x;
            if at < dim {
                let right = b[j * comptime!(dim + 1) + at];
                #[unroll]
                for i in 0..unit_rows {
                    sums[i * own + c] += weights[(row + i) * comptime!(cols + 1) + j] * right;
                }
            }
        }
    }
}

/// Writes this unit's sums, times `factor` of their row, to rows below `rows`.
#[cube]
pub fn store_sums<F: Float>(
    sums: &Array<f32>,
    factors: &Array<f32>,
    out: &mut [F],
    first: usize,
    stride: usize,
    rows: usize,
    #[comptime] dim: usize,
    #[comptime] unit_rows: usize,
    #[comptime] units_x: usize,
) {
    let row = UNIT_POS_Y as usize * unit_rows;
    let column = UNIT_POS_X as usize;
    let own = comptime!(dim.div_ceil(units_x));
    #[unroll]
    for i in 0..unit_rows {
        if row + i < rows {
            #[unroll]
            for c in 0..own {
                let at = column + c * units_x;
                if at < dim {
                    out[first + (row + i) * stride + at] =
                        F::cast_from(sums[i * own + c] * factors[i]);
                }
            }
        }
    }
}

/// Sets all `len` elements.
#[cube]
pub fn fill(array: &mut Array<f32>, value: f32, #[comptime] len: usize) {
    #[unroll]
    for i in 0..len {
        array[i] = value;
    }
}
