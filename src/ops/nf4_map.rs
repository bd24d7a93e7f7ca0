//! The dynamic 8-bit data types (Dettmers, 2015, arXiv:1511.04561) as bitsandbytes
//! 0.50 builds and uses them on the CPU. Double quantisation stores the block
//! maxima of NF4 in the signed one (Dettmers et al., 2023, arXiv:2305.14314), 8-bit
//! optimisers their moments in both (Dettmers et al., 2022, arXiv:2110.02861).

use std::sync::OnceLock;

use rayon::prelude::*;

/// Values that share one maximum when block maxima are quantised.
pub const NESTED_BLOCK: usize = 256;

/// 256 values between -1 (or 0) and 1, and how a number finds its own.
pub struct DynamicMap {
    /// Ascending.
    pub values: [f32; 256],
    /// For each of 65536 evenly spaced points from -1 to 1 the index of the nearest
    /// value, the lower one where two are equally near.
    pub nearest: Box<[u8; 65536]>,
}

/// The signed data type; zero stands at index 127.
pub fn signed() -> &'static DynamicMap {
    static MAP: OnceLock<DynamicMap> = OnceLock::new();
    MAP.get_or_init(|| DynamicMap::new(true))
}

/// The data type of numbers that are never negative; zero stands at index 0.
pub fn unsigned() -> &'static DynamicMap {
    static MAP: OnceLock<DynamicMap> = OnceLock::new();
    MAP.get_or_init(|| DynamicMap::new(false))
}

/// The values of [`signed`].
pub fn dynamic_map() -> &'static [f32; 256] {
    &signed().values
}

impl DynamicMap {
    /// Seven decades, 1e-6 to 1, hold 1, 2, 4, .. 64 values of each sign, or twice as
    /// many where there is one sign: the midpoints of a linear grid from a tenth of
    /// the decade to all of it. Zero and one complete them.
    fn new(signed: bool) -> Self {
        let mut values = [0.0f32; 256];
        values[255] = 1.0;
        let mut used = 0;
        for decade in 0..7 {
            let items = if signed { 1 } else { 2 } << decade;
            let scale = 10f64.powi(decade - 6) as f32;
            for i in 0..items {
                let middle = (grid(i, items) + grid(i + 1, items)) / 2.0;
                values[used] = scale * middle;
                used += 1;
                if signed {
                    values[used] = -scale * middle;
                    used += 1;
                }
            }
        }
        values.sort_by(f32::total_cmp);
        let mut nearest = Box::new([0u8; 65536]);
        let mut index = 0;
        for (point, entry) in nearest.iter_mut().enumerate() {
            // In f32, which decides one tie of the unsigned type.
            let x = point as f32 / 32767.5 - 1.0;
            let distance = |i: usize| (values[i] - x).abs();
            while index < 255 && distance(index + 1) < distance(index) {
                index += 1;
            }
            *entry = index as u8;
        }
        Self { values, nearest }
    }

    /// The index of a number between -1 and 1. bitsandbytes looks it up on the grid
    /// of 65536 points, so that all closer to zero than 1.5e-5 share an index.
    #[inline(always)]
    pub fn index(&self, x: f32) -> u8 {
        // (x + 1) * 32767.5 + 0.5 with one rounding at the end.
        let shifted = f64::from(x.clamp(-1.0, 1.0) + 1.0);
        let point = (shifted * 32767.5 + 0.5) as f32;
        self.nearest[(point as usize).min(65535)]
    }

    /// Quantises one block into `codes` and returns its largest magnitude.
    #[inline(always)]
    pub fn quantize_block(&self, block: &[f32], codes: &mut [u8]) -> f32 {
        let absmax = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        if absmax == 0.0 {
            codes.fill(0);
            return absmax;
        }
        let inverse = 1.0 / absmax;
        for (code, v) in codes.iter_mut().zip(block) {
            *code = self.index(v * inverse);
        }
        absmax
    }
}

/// Point `i` of `intervals` equal steps from 0.1 to 1, in f32 by torch's rule
/// for `linspace`: the upper half counts down from the end.
fn grid(i: usize, intervals: usize) -> f32 {
    let step = (1.0f32 - 0.1) / intervals as f32;
    if i < intervals.div_ceil(2) {
        (f64::from(step) * i as f64 + f64::from(0.1f32)) as f32
    } else {
        (1.0 - f64::from(step) * (intervals - i) as f64) as f32
    }
}

/// Quantises `x` in blocks of [`NESTED_BLOCK`], the last one possibly shorter.
/// Returns an index into [`dynamic_map`] for each value and the largest
/// magnitude of each block.
pub fn quantize(x: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut codes = vec![0; x.len()];
    let blocks = x.par_chunks(NESTED_BLOCK);
    let blocks = blocks.zip(codes.par_chunks_mut(NESTED_BLOCK));
    let maxima = blocks.map(|(block, codes)| signed().quantize_block(block, codes));
    let maxima = maxima.collect();
    (codes, maxima)
}

/// The mean of `x` with the order of additions of torch's CPU `mean` on one
/// thread (8 lanes, 4 rows, cascaded partial sums): the offset of double
/// quantisation is equal to bitsandbytes' in its last bit. torch itself splits
/// tensors of 32768 elements and more by its number of threads.
///
/// `x` must not be empty.
pub fn torch_mean(x: &[f32]) -> f32 {
    const LANES: usize = 8;
    let sum = if x.len() < LANES {
        row_sum::<1>(x)[0]
    } else {
        let whole = x.len() / LANES * LANES;
        let lanes = row_sum::<LANES>(&x[..whole]);
        let tail = x[whole..].iter().fold(0.0f32, |s, v| s + v);
        lanes.iter().fold(tail, |s, v| s + v)
    };
    sum / x.len() as f32
}

/// Sums vectors of `L` lanes: four interleaved rows, then what is left.
fn row_sum<const L: usize>(x: &[f32]) -> [f32; L] {
    const ROWS: usize = 4;
    let whole = x.len() / (ROWS * L) * (ROWS * L);
    let mut rows = cascade::<L, ROWS>(&x[..whole]);
    for vector in x[whole..].chunks_exact(L) {
        add(&mut rows[0], vector);
    }
    let [mut sum, rest @ ..] = rows;
    for row in &rest {
        add(&mut sum, row);
    }
    sum
}

/// Sums `[n, R, L]` over n in four levels, each level taking over from the one
/// below after 2^power additions, which keeps rounding errors small.
fn cascade<const L: usize, const R: usize>(x: &[f32]) -> [[f32; L]; R] {
    const LEVELS: usize = 4;
    let n = x.len() / (R * L);
    let log2 = n.max(1).next_power_of_two().trailing_zeros() as usize;
    let power = (log2 / LEVELS).max(4);
    let mask = (1usize << power) - 1;
    let mut levels = [[[0.0f32; L]; R]; LEVELS];
    for (i, vectors) in x.chunks_exact(R * L).enumerate() {
        for (row, vector) in levels[0].iter_mut().zip(vectors.chunks_exact(L)) {
            add(row, vector);
        }
        let done = i + 1;
        if done & mask != 0 {
            continue;
        }
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut levels[level - 1], [[0.0; L]; R]);
            for (row, part) in levels[level].iter_mut().zip(&below) {
                add(row, part);
            }
            if done & (mask << (level * power)) != 0 {
                break;
            }
        }
    }
    let [mut sum, rest @ ..] = levels;
    for level in &rest {
        for (row, part) in sum.iter_mut().zip(level) {
            add(row, part);
        }
    }
    sum
}

fn add(sum: &mut [f32], x: &[f32]) {
    for (s, v) in sum.iter_mut().zip(x) {
        *s += v;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_symmetric_but_for_its_ends() {
        let map = dynamic_map();
        assert!(map.windows(2).all(|w| w[0] < w[1]));
        assert_eq!((map[127], map[255]), (0.0, 1.0));
        for i in 0..127 {
            assert_eq!(map[i], -map[254 - i]);
        }
        assert!((map[128] - 5.5e-7).abs() < 1e-12);
        assert_eq!(map[254], 0.992_968_74);
    }

    #[test]
    fn quantisation_is_near_and_marks_zero_blocks() {
        let stream = crate::rng::Stream::new(5, &[]);
        let x: Vec<f32> = (0..700).map(|i| stream.normal(i) * 0.1).collect();
        let (codes, maxima) = quantize(&x);
        assert_eq!((codes.len(), maxima.len()), (700, 3));
        for (i, v) in x.iter().enumerate() {
            let absmax = maxima[i / NESTED_BLOCK];
            let back = dynamic_map()[codes[i] as usize] * absmax;
            assert!((back - v).abs() <= 0.0075 * absmax, "{v} {back}");
        }
        assert_eq!(quantize(&[0.0; 3]), (vec![0; 3], vec![0.0]));
        let (codes, _) = quantize(&[1.0, -1.0, 0.0]);
        // -1 has no value of its own; zero is rounded to the next grid point.
        assert_eq!(codes, [255, 0, 131]);
    }

    #[test]
    fn the_mean_is_a_mean() {
        let stream = crate::rng::Stream::new(6, &[]);
        for n in [1, 2, 3, 7, 8, 9, 31, 32, 33, 1000, 4097, 100_000] {
            let x: Vec<f32> = (0..n).map(|i| stream.uniform(i)).collect();
            let exact = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let mean = f64::from(torch_mean(&x));
            assert!(
                (mean - exact).abs() < 2e-7 * exact.max(1e-3),
                "{n} {mean} {exact}"
            );
        }
    }
}
