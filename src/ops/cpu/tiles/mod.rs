//! Matrix products for x86 CPUs: tiles of sums that with their operands fill the vector
//! registers, over packed panels (Goto and van de Geijn, 2008, "Anatomy of
//! High-Performance Matrix Multiplication").
//!
//! Each sum is added up in the order of the inner dimension, in pieces of a panel's
//! depth, whatever the threads.

mod amx;
mod avx2;
mod avx512;
mod operand;
mod pack;

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use amx::Amx;
use avx2::Avx2;
use avx512::Avx512Bf16;
pub use operand::Operand;
use pack::{Buffer, Form, pack_across, pack_panel};

use super::mat::Threads;

/// Rows of a task, about.
const TASK_ROWS: usize = 96;
/// Columns packed at once, a multiple of every tile's.
const COLUMNS: usize = 2048;
/// Rows packed at once, a multiple of every tile's.
const ROWS: usize = 3072;
/// Panels of the right operand in a task, at least.
const LEAST_PANELS: usize = 4;
/// With fewer rows, packing the right operand would take most of the time.
const LEAST_ROWS: usize = 6;
const LEAST_COLUMNS: usize = 8;
/// Lines of a panel that are interleaved at once.
const LINES: usize = 16;
/// Sums of the largest tile.
const MOST_SUMS: usize = 1024;

/// A kind of tile. Operands come to it as words of 32 bits: a number, or a pair of
/// bf16 numbers that follow each other along the sum.
trait Kernel {
    const HEIGHT: usize;
    const WIDTH: usize;
    /// Of a word.
    const NUMBERS: usize;
    /// Words of a panel along the sum, a multiple of `STEP`.
    const DEPTH: usize;
    /// Words that a tile takes at once. Panels hold a whole number of them; words that
    /// are not there are zero.
    const STEP: usize = 1;
    /// Whether a panel of the left operand holds of each step all words of a line, then
    /// those of the next; otherwise, as panels of the right one, all lines of a word.
    const LEFT_BY_LINES: bool = false;

    /// Writes the lines `place..` of a panel of `group` lines, at most [`LINES`], word by
    /// word: word `w` of line `l` to `out[w * group + place + l]`, zero for lines that
    /// are not there. `group` is a tile's height or width.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions.
    unsafe fn interleave(
        lines: &[&[u32]],
        place: usize,
        group: usize,
        out: &mut [MaybeUninit<u32>],
    );

    /// Runs a task, which makes tiles on this thread.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions.
    unsafe fn task(tiles: impl FnOnce()) {
        tiles()
    }

    /// `target (+)= alpha x` the product of a panel of rows with one of columns.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; the target must be valid for a
    /// whole tile. Inside of [`Kernel::task`].
    unsafe fn tile(left: &[u32], right: &[u32], target: Target);
}

/// Where `alpha x` sums are written, or added: a row for each line of the left operand,
/// `stride` apart, with an element for each of the right one. Tasks write rows and
/// columns of their own.
#[derive(Clone, Copy)]
pub struct Target {
    pub dst: *mut f32,
    pub stride: usize,
    pub accumulate: bool,
    pub alpha: f32,
}

// SAFETY: no two tasks share a sum.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Whether products of this shape are made here: those in f32 by CPUs without AVX-512,
/// since the gemm crate has wider tiles.
pub fn is_for(rows: usize, columns: usize, in_bf16: bool) -> bool {
    let kernel = match in_bf16 && multiplies_bf16() {
        true => true,
        false => avx2::available() && !is_x86_feature_detected!("avx512f"),
    };
    kernel && rows >= LEAST_ROWS && columns >= LEAST_COLUMNS
}

/// Whether the CPU multiplies pairs of bf16 numbers.
pub fn multiplies_bf16() -> bool {
    avx512::available()
}

/// Bytes of the packed operands of such a product, and of what is on its way to them.
pub fn scratch_bytes(
    rows: usize,
    inner: usize,
    columns: usize,
    in_bf16: bool,
    threads: usize,
) -> usize {
    match in_bf16 {
        true if amx::available() => scratch::<Amx>(rows, inner, columns, threads),
        true if multiplies_bf16() => scratch::<Avx512Bf16>(rows, inner, columns, threads),
        _ => scratch::<Avx2>(rows, inner, columns, threads),
    }
}

/// Words that so many numbers take in a panel.
fn words<K: Kernel>(numbers: usize) -> usize {
    numbers.div_ceil(K::NUMBERS).next_multiple_of(K::STEP)
}

fn scratch<K: Kernel>(rows: usize, inner: usize, columns: usize, threads: usize) -> usize {
    let depth = words::<K>(inner).min(K::DEPTH);
    let rows = rows.min(ROWS).next_multiple_of(K::HEIGHT);
    let columns = columns.min(COLUMNS).next_multiple_of(K::WIDTH);
    4 * depth * (rows + columns + threads * LINES * K::NUMBERS)
}

/// The products of the lines of `a` with those of `b`.
///
/// # Panics
/// The CPU lacks AVX2 or FMA, or the lines differ in length.
///
/// # Safety
/// The target must be valid for writes, and no other thread may touch it meanwhile.
pub unsafe fn gemm(target: Target, a: Operand<'_>, b: Operand<'_>, threads: Threads) {
    assert!(avx2::available());
    // SAFETY: the CPU has the instructions, the rest is the caller's.
    unsafe { product::<Avx2>(target, a, b, threads) }
}

/// As [`gemm`], of the operands' numbers rounded to bf16.
///
/// # Panics
/// [`multiplies_bf16`] does not hold, or the lines differ in length.
///
/// # Safety
/// As of [`gemm`].
pub unsafe fn gemm_bf16(target: Target, a: Operand<'_>, b: Operand<'_>) {
    assert!(multiplies_bf16());
    // SAFETY: the CPU has the instructions, the rest is the caller's.
    unsafe {
        match amx::available() {
            true => product::<Amx>(target, a, b, Threads::All),
            false => product::<Avx512Bf16>(target, a, b, Threads::All),
        }
    }
}

/// # Safety
/// As of [`gemm`]; the CPU must have the kernel's instructions.
unsafe fn product<K: Kernel>(target: Target, a: Operand<'_>, b: Operand<'_>, threads: Threads) {
    let all = threads == Threads::All && rayon::current_num_threads() > 1;
    let (m, n, k) = (a.lines(), b.lines(), a.length());
    assert_eq!(k, b.length(), "inner dimensions differ");
    let words = words::<K>(k);
    let depth = words.min(K::DEPTH);
    let mut right = room(depth * n.min(COLUMNS).next_multiple_of(K::WIDTH));
    let mut left = room(depth * m.min(ROWS).next_multiple_of(K::HEIGHT));
    let (right, left) = (room_for_words(&mut right), room_for_words(&mut left));
    for column in (0..n).step_by(COLUMNS) {
        let columns = column..n.min(column + COLUMNS);
        for from in (0..words).step_by(K::DEPTH) {
            let depth = K::DEPTH.min(words - from);
            let numbers = from * K::NUMBERS..k.min((from + depth) * K::NUMBERS);
            for row in (0..m).step_by(ROWS) {
                let rows = row..m.min(row + ROWS);
                let right = &mut right[..depth * columns.len().next_multiple_of(K::WIDTH)];
                let left = &mut left[..depth * rows.len().next_multiple_of(K::HEIGHT)];
                let mut pack_left = || {
                    // SAFETY: the CPU has the instructions.
                    unsafe {
                        pack::<K>(
                            a,
                            rows.clone(),
                            numbers.clone(),
                            Form::left::<K>(),
                            left,
                            all,
                        )
                    }
                };
                let mut pack_right = || {
                    // SAFETY: the CPU has the instructions.
                    unsafe {
                        pack::<K>(
                            b,
                            columns.clone(),
                            numbers.clone(),
                            Form::right::<K>(),
                            right,
                            all,
                        )
                    }
                };
                match (row, all) {
                    (0, true) => drop(rayon::join(pack_left, pack_right)),
                    (0, false) => {
                        pack_left();
                        pack_right();
                    }
                    _ => pack_left(),
                }
                let block = Block {
                    // SAFETY: all panels were packed, which writes every word, those of
                    // the right operand with the first rows.
                    left: unsafe { left.assume_init_ref() },
                    // SAFETY: as above.
                    right: unsafe { right.assume_init_ref() },
                    depth,
                    rows: rows.len(),
                    columns: columns.len(),
                    target: Target {
                        // SAFETY: a place in what the caller vouches for.
                        dst: unsafe { target.dst.add(row * target.stride + column) },
                        accumulate: target.accumulate || from > 0,
                        ..target
                    },
                };
                // SAFETY: the CPU has the instructions, the target is the caller's.
                unsafe { block.multiply::<K>(all) }
            }
        }
    }
}

/// A line of the cache. Vectors that lie across two of them take twice as long to read.
#[repr(align(64))]
struct CacheLine {
    _words: [u32; LINE_WORDS],
}

const LINE_WORDS: usize = 16;

fn room(words: usize) -> Box<[MaybeUninit<CacheLine>]> {
    Box::new_uninit_slice(words.div_ceil(LINE_WORDS))
}

fn room_for_words(lines: &mut [MaybeUninit<CacheLine>]) -> &mut [MaybeUninit<u32>] {
    // SAFETY: a line is so many words, and none has to be initialised.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), LINE_WORDS * lines.len()) }
}

/// Packs lines `lines` of an operand as panels.
///
/// # Safety
/// The CPU must have the kernel's instructions.
unsafe fn pack<K: Kernel>(
    operand: Operand<'_>,
    lines: Range<usize>,
    numbers: Range<usize>,
    form: Form,
    out: &mut [MaybeUninit<u32>],
    all: bool,
) {
    if operand.across() {
        return pack_across::<K>(operand, lines, numbers, form, out, all);
    }
    let panel = form.group * words::<K>(numbers.len());
    let one = |buffer: &mut Buffer, (i, out): (usize, &mut [MaybeUninit<u32>])| {
        let first = lines.start + i * form.group;
        let lines = first..lines.end.min(first + form.group);
        // SAFETY: the CPU has the instructions.
        unsafe { pack_panel::<K>(operand, lines, numbers.clone(), form, out, buffer) }
    };
    match all {
        true => out
            .par_chunks_exact_mut(panel)
            .with_min_len(LEAST_PANELS)
            .enumerate()
            .for_each_init(Buffer::default, one),
        false => {
            let mut buffer = Buffer::default();
            let panels = out.chunks_exact_mut(panel).enumerate();
            panels.for_each(|panel| one(&mut buffer, panel));
        }
    }
}

/// Packed operands and where their product goes.
struct Block<'a> {
    /// By panels of a tile's height.
    left: &'a [u32],
    /// By panels of a tile's width.
    right: &'a [u32],
    depth: usize,
    rows: usize,
    columns: usize,
    target: Target,
}

impl Block<'_> {
    /// All tiles, cut into tasks by panels.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; the target must be valid for the
    /// block.
    unsafe fn multiply<K: Kernel>(&self, all: bool) {
        let threads = match all {
            true => rayon::current_num_threads(),
            false => 1,
        };
        let panels = [
            self.rows.div_ceil(K::HEIGHT),
            self.columns.div_ceil(K::WIDTH),
        ];
        // Equal tasks, as many for each thread; few rows are cut by columns as well.
        let down = self.rows.div_ceil(TASK_ROWS).next_multiple_of(threads);
        let down = down.min(panels[0]);
        let across = match all {
            true => (4 * threads).div_ceil(down),
            false => 1,
        };
        let across = across.min(panels[1].div_ceil(LEAST_PANELS));
        let part = |i: usize, of: usize, panels: usize| i * panels / of..(i + 1) * panels / of;
        let task = |i: usize| {
            let rows = part(i % down, down, panels[0]);
            let columns = part(i / down, across, panels[1]);
            // SAFETY: the caller's.
            unsafe { K::task(|| self.tiles::<K>(rows, columns)) }
        };
        match all {
            true => (0..down * across).into_par_iter().for_each(task),
            false => (0..down * across).for_each(task),
        }
    }

    /// # Safety
    /// As for [`Block::multiply`]; no other task has these tiles.
    unsafe fn tiles<K: Kernel>(&self, down: Range<usize>, across: Range<usize>) {
        let stride = self.target.stride;
        for panel in across {
            let right = &self.right[panel * K::WIDTH * self.depth..][..K::WIDTH * self.depth];
            let column = panel * K::WIDTH;
            let width = K::WIDTH.min(self.columns - column);
            for row in down.clone().map(|panel| panel * K::HEIGHT) {
                let left = &self.left[row * self.depth..][..K::HEIGHT * self.depth];
                let height = K::HEIGHT.min(self.rows - row);
                // SAFETY: a place in the target.
                let dst = unsafe { self.target.dst.add(row * stride + column) };
                let target = Target { dst, ..self.target };
                if (height, width) == (K::HEIGHT, K::WIDTH) {
                    // SAFETY: the whole tile lies in the target.
                    unsafe { K::tile(left, right, target) };
                    continue;
                }
                let mut sums = [0.0f32; MOST_SUMS];
                let whole = Target {
                    dst: sums.as_mut_ptr(),
                    stride: K::WIDTH,
                    accumulate: false,
                    ..self.target
                };
                // SAFETY: `sums` has room for a tile.
                unsafe { K::tile(left, right, whole) };
                for (r, sums) in sums.chunks_exact(K::WIDTH).enumerate().take(height) {
                    // SAFETY: the row and its columns are the target's, and this task's.
                    let out = unsafe { std::slice::from_raw_parts_mut(dst.add(r * stride), width) };
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = match self.target.accumulate {
                            true => *out + sum,
                            false => *sum,
                        };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
