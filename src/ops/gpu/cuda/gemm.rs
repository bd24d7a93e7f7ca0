//! Matrix products: bf16 operands, f32 sums, bf16 or f32 results.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use super::kernel::{File, Kernel};
use super::{Units, multiprocessors};
use crate::ops::gpu::tensors::{dims, empty};

/// Threads of a block: one warpgroup produces, two consume.
const THREADS: u32 = 384;
/// Rows and columns of a tile of the NF4 products.
const NF4_ROWS: usize = 256;
const NF4_COLUMNS: usize = 128;
/// Steps that are in shared memory at once.
const STAGES: usize = 4;
/// Planes that a split contraction is summed from at most, and the depth of a plane at
/// least.
const MAX_SPLITS: usize = 8;
const SPLIT_DEPTH: usize = 512;
/// The largest rank of a product that the NF4 products take with theirs.
const MAX_RANK: usize = 128;

impl Units {
    /// How much of the contraction a block takes at once. Cards without wgmma have less
    /// shared memory, by which it is bounded.
    fn step(self) -> usize {
        match self {
            Self::Wgmma => 64,
            Self::Mma => 32,
        }
    }

    fn defines(self) -> [(&'static str, u32); 2] {
        let wgmma = u32::from(self == Self::Wgmma);
        [("KILN_WGMMA", wgmma), ("KILN_BK", self.step() as u32)]
    }

    /// Bytes of shared memory for tiles of `rows` by `columns`: both operands in bf16
    /// and two barriers a stage.
    fn shared(self, rows: usize, columns: usize) -> u32 {
        (STAGES * ((rows + columns) * self.step() * 2 + 16)) as u32
    }
}

/// `scale x op(a) . op(b) (+ sum)`.
pub struct Product<'a> {
    pub a: &'a CubeTensor,
    pub ta: bool,
    pub b: &'a CubeTensor,
    pub tb: bool,
    pub scale: f32,
    /// Written in place; it must not be shared.
    pub sum: Option<CubeTensor>,
    pub dtype: DType,
}

/// The product, or `sum` back where no kernel takes it. All are row-major. Widths that
/// are no multiples of 8, as of LoRA's operands of rank 4, take longer.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn product(units: Units, p: Product<'_>) -> Result<CubeTensor, Option<CubeTensor>> {
    let cards = multiprocessors(p.a) as usize;
    product_on(units, p, cards)
}

/// As [`product`], by as many blocks as a card with `cards` multiprocessors has.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn product_on(
    units: Units,
    p: Product<'_>,
    cards: usize,
) -> Result<CubeTensor, Option<CubeTensor>> {
    let ([a0, a1], [b0, b1]) = (dims(p.a), dims(p.b));
    let (m, k) = if p.ta { (a1, a0) } else { (a0, a1) };
    let n = if p.tb { b0 } else { b1 };
    let aligned = [a1, b1, n].iter().all(|w| w.is_multiple_of(8));
    // Both transposed never happens in training.
    let taken = m > 0 && k > 0 && n > 0 && !(p.ta && p.tb);
    let bf16 = p.a.dtype == DType::BF16 && p.b.dtype == DType::BF16;
    if !taken || !bf16 {
        return Err(p.sum);
    }
    let accumulate = p.sum.is_some();
    let out = p.sum.unwrap_or_else(|| empty(p.a, &[m, n], p.dtype));
    // Large tiles where there are enough of them to fill the card. Those of odd widths
    // are bound by memory: they would gain nothing.
    let tiles = |bm: usize, bn: usize| m.div_ceil(bm) * n.div_ceil(bn);
    let (bm, bn) = match () {
        () if aligned && n > 64 && tiles(256, 128) >= cards => (256, 128),
        () if n > 64 && tiles(128, 128) >= cards / 2 => (128, 128),
        () => (128, 64),
    };
    let blocks = tiles(bm, bn);
    let splits = (cards / blocks).min(k / SPLIT_DEPTH).clamp(1, MAX_SPLITS);
    let mut defines = units.defines().to_vec();
    let f32 = splits > 1 || out.dtype == DType::F32;
    defines.extend([
        ("KILN_BM", bm as u32),
        ("KILN_BN", bn as u32),
        ("KILN_A_MN", u32::from(p.ta)),
        ("KILN_B_MN", u32::from(!p.tb)),
        ("KILN_OUT_F32", u32::from(f32)),
        ("KILN_ALIGNED", u32::from(aligned)),
    ]);
    let kernel = Kernel {
        file: File::Bf16Gemm,
        entry: "bf16_gemm",
        defines,
        threads: THREADS,
        shared: units.shared(bm, bn),
    };
    let words = |accumulate: bool, scale: f32| {
        let sizes = [m, n, k, a1, b1, n].map(|v| v as u64);
        let mut words = sizes.to_vec();
        words.extend([u64::from(accumulate), u64::from(scale.to_bits())]);
        words
    };
    let x = blocks.min(cards / splits).max(1) as u32;
    if splits == 1 {
        kernel.launch([x, 1, 1], &[p.a, p.b], &[&out], words(accumulate, p.scale));
        return Ok(out);
    }
    let planes = empty(p.a, &[splits * m, n], DType::F32);
    let grid = [x, splits as u32, 1];
    kernel.launch(grid, &[p.a, p.b], &[&planes], words(false, 1.0));
    let reduce = Kernel {
        file: File::Bf16GemmReduce,
        entry: "bf16_gemm_reduce",
        defines: vec![("KILN_OUT_F32", u32::from(out.dtype == DType::F32))],
        threads: 256,
        shared: 0,
    };
    let sizes = [m, n, n, splits].map(|v| v as u64);
    let mut words = sizes.to_vec();
    words.extend([u64::from(accumulate), u64::from(p.scale.to_bits())]);
    let blocks = (m * n).div_ceil(256).min(4 * cards).max(1) as u32;
    reduce.launch([blocks, 1, 1], &[&planes], &[&out], words);
    Ok(out)
}

/// The buffers of an NF4 weight in blocks of 64.
#[derive(Clone)]
pub struct Nf4Buffers {
    pub codes: CubeTensor,
    pub maxima: Maxima,
    pub shape: [usize; 2],
}

#[derive(Clone)]
pub enum Maxima {
    Plain(CubeTensor),
    Double {
        codes: CubeTensor,
        nested: CubeTensor,
        map: CubeTensor,
        offset: f32,
    },
}

/// Both operands of a product of low rank, row-major: `[rows, r]`, and `[out, r]` of a
/// transposed product or `[r, in]`.
pub type LowRank<'a> = [&'a CubeTensor; 2];

/// Whether the NF4 products take such operands in steps of their own.
fn takes_low_rank(low: LowRank<'_>) -> bool {
    let [_, rank] = dims(low[0]);
    let bf16 = low.iter().all(|part| part.dtype == DType::BF16);
    bf16 && rank > 0 && rank.is_multiple_of(8) && rank <= MAX_RANK
}

/// `x . W^T (+ sum)` if `transposed`, else `x . W (+ sum)`, dequantised tile by
/// tile, and with `low` a product more; `sum` is written in place. Gives `sum` back
/// where no kernel takes the shape.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn nf4_product(
    units: Units,
    x: &CubeTensor,
    weight: &Nf4Buffers,
    low: Option<LowRank<'_>>,
    sum: Option<CubeTensor>,
    transposed: bool,
) -> Result<CubeTensor, Option<CubeTensor>> {
    let cards = multiprocessors(x) as usize;
    nf4_product_on(units, x, weight, low, sum, transposed, cards)
}

/// As [`nf4_product`], by as many blocks as a card with `cards` multiprocessors has.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn nf4_product_on(
    units: Units,
    x: &CubeTensor,
    weight: &Nf4Buffers,
    low: Option<LowRank<'_>>,
    sum: Option<CubeTensor>,
    transposed: bool,
    cards: usize,
) -> Result<CubeTensor, Option<CubeTensor>> {
    let ([rows, _], [n, k]) = (dims(x), weight.shape);
    let taken = n.is_multiple_of(64) && k.is_multiple_of(64) && rows > 0;
    if !taken || x.dtype != DType::BF16 || !low.is_none_or(takes_low_rank) {
        return Err(sum);
    }
    let rank = low.map_or(0, |[left, _]| dims(left)[1]);
    let columns = if transposed { n } else { k };
    let accumulate = sum.is_some();
    let out = sum.unwrap_or_else(|| empty(x, &[rows, columns], DType::BF16));
    let (file, entry) = if transposed {
        (File::Nf4Gemm, "nf4_gemm")
    } else {
        (File::Nf4GemmDx, "nf4_gemm_dx")
    };
    let mut buffers = vec![x, &weight.codes];
    let (double, offset) = match &weight.maxima {
        Maxima::Plain(maxima) => {
            buffers.push(maxima);
            (0, 0.0f32)
        }
        Maxima::Double {
            codes,
            nested,
            map,
            offset,
        } => {
            buffers.extend([codes, nested, map]);
            (1, *offset)
        }
    };
    buffers.extend(low.into_iter().flatten());
    let mut defines = units.defines().to_vec();
    let low = rank.div_ceil(16) as u32;
    defines.extend([("KILN_DOUBLE_QUANT", double), ("KILN_LOW", low)]);
    let kernel = Kernel {
        file,
        entry,
        defines,
        threads: THREADS,
        shared: units.shared(NF4_ROWS, NF4_COLUMNS),
    };
    let blocks = rows.div_ceil(NF4_ROWS) * columns.div_ceil(NF4_COLUMNS);
    let grid = [blocks.min(cards) as u32, 1, 1];
    let sizes = [rows, n, k].map(|v| v as u64);
    let mut words = sizes.to_vec();
    let offset = u64::from(offset.to_bits());
    words.extend([u64::from(accumulate), offset, rank as u64]);
    kernel.launch(grid, &buffers, &[&out], words);
    Ok(out)
}
