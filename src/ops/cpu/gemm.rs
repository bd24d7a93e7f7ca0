//! Matrix products on strided views, with accumulation into the destination: by the
//! tiles of [`super::tiles`] on CPUs with AVX2 alone, else by the gemm crate (the one
//! burn's flex backend uses).

use super::mat::{Mat, Threads};
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, Operand, Target};

/// The gemm crate packs so many rows of the right operand, and no more than a share of
/// the third-level cache, for which this stands.
const PANEL_ROWS: usize = 512;
const PANEL_BYTES: usize = 32 << 20;

/// Bytes that a product of `[rows, inner]` with `[inner, columns]` takes for packed
/// operands.
pub fn product_scratch(rows: usize, inner: usize, columns: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if tiles::is_for(rows, columns, false) {
        return tiles::scratch_bytes(rows, inner, columns, false, 0);
    }
    let _ = rows;
    (4 * inner.min(PANEL_ROWS) * columns).min(PANEL_BYTES)
}

/// Below this many multiply-adds, waking other threads costs more than it gives.
const PARALLEL_FROM: usize = 1 << 19;

/// `dst (+)= alpha x a . b`, where rows of `dst` start `dst_stride` apart.
pub fn gemm(
    dst: &mut [f32],
    dst_stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    alpha: f32,
    accumulate: bool,
    threads: Threads,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner dimensions differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * dst_stride + n <= dst.len());
    // SAFETY: the asserts above and in `Mat` keep every access inside its slice.
    unsafe {
        gemm_raw(
            dst.as_mut_ptr(),
            dst_stride,
            a,
            b,
            alpha,
            accumulate,
            threads,
        )
    }
}

/// As [`gemm`], into memory that other threads write elsewhere.
///
/// # Safety
/// `dst` must be valid for writes of `a.rows` rows of `b.cols` elements,
/// `dst_stride` apart, which no other thread touches meanwhile.
pub unsafe fn gemm_raw(
    dst: *mut f32,
    dst_stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    alpha: f32,
    accumulate: bool,
    threads: Threads,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let threads = match m * n * k < PARALLEL_FROM {
        true => Threads::One,
        false => threads,
    };
    #[cfg(target_arch = "x86_64")]
    if k > 0 && tiles::is_for(m, n, false) {
        let [a, b] = [a, b.t()].map(Operand::Numbers);
        let target = Target {
            dst,
            stride: dst_stride,
            accumulate,
            alpha,
        };
        // SAFETY: the caller vouches for `dst`.
        return unsafe { tiles::gemm(target, a, b, threads) };
    }
    let parallelism = match threads {
        Threads::All => gemm::Parallelism::Rayon(0),
        Threads::One => gemm::Parallelism::None,
    };
    // SAFETY: the caller vouches for `dst`; the operands lie inside their slices.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
