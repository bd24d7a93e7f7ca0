//! Operands in the order in which tiles read them: panel by panel, and in a panel word
//! by word, of each word all lines.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::super::bf16::{bits, round};
use super::super::elementwise::vectorised;
use super::{Kernel, LINES, Operand};

/// Words of a task of [`pack_across`].
const TASK_WORDS: usize = 16;

/// Numbers and words on their way.
#[derive(Default)]
pub(super) struct Buffer {
    numbers: Vec<f32>,
    words: Vec<u32>,
}

/// Packs up to `group` lines as a panel.
///
/// # Safety
/// The CPU must have the kernel's instructions.
pub(super) unsafe fn pack_panel<K: Kernel>(
    operand: Operand<'_>,
    lines: Range<usize>,
    numbers: Range<usize>,
    group: usize,
    out: &mut [MaybeUninit<u32>],
    buffer: &mut Buffer,
) {
    let count = numbers.len();
    let words = count.div_ceil(K::NUMBERS);
    buffer.numbers.resize(LINES * count, 0.0);
    buffer.words.resize(LINES * words, 0);
    let missing: &[u32] = &[];
    for start in (0..group).step_by(LINES) {
        let of_panel = LINES.min(group - start);
        let mut read = [missing; LINES];
        let mut rest = &mut buffer.words[..];
        let mut room = &mut buffer.numbers[..];
        let here =
            (lines.start + start).min(lines.end)..(lines.start + start + of_panel).min(lines.end);
        for (line, read) in here.clone().zip(&mut read) {
            let (own, others) = room.split_at_mut(count);
            room = others;
            let line = operand.along(line, numbers.clone(), own);
            *read = match K::NUMBERS {
                1 => as_words(line),
                _ => {
                    let (own, others) = rest.split_at_mut(words);
                    rest = others;
                    pair_up(line, own);
                    own
                }
            };
        }
        // SAFETY: the CPU has the instructions.
        unsafe { K::interleave(&read[..here.len()], start, group, out) };
    }
}

/// Packs lines that lie across, all panels at once: a word of every line, then the next.
pub(super) fn pack_across<K: Kernel>(
    operand: Operand<'_>,
    lines: Range<usize>,
    numbers: Range<usize>,
    group: usize,
    out: &mut [MaybeUninit<u32>],
    all: bool,
) {
    let words = numbers.len().div_ceil(K::NUMBERS);
    let out = Panels {
        out: out.as_mut_ptr().cast(),
        group,
        words,
        panels: out.len() / (group * words).max(1),
    };
    let task = |buffer: &mut Buffer, task: usize| {
        buffer.numbers.resize(2 * lines.len(), 0.0);
        let (low, high) = buffer.numbers.split_at_mut(lines.len());
        buffer.words.resize(out.panels * group, 0);
        let pairs = &mut buffer.words[..];
        pairs[lines.len()..].fill(0);
        for word in task * TASK_WORDS..words.min((task + 1) * TASK_WORDS) {
            let number = numbers.start + word * K::NUMBERS;
            let first = operand.step(number, lines.clone(), low);
            match K::NUMBERS {
                1 => pairs[..lines.len()].copy_from_slice(as_words(first)),
                _ => {
                    let second = match number + 1 < numbers.end {
                        true => operand.step(number + 1, lines.clone(), high),
                        false => &[],
                    };
                    pair_across(first, second, pairs);
                }
            }
            // SAFETY: no other task has this word.
            unsafe { out.write(word, pairs) }
        }
    };
    let tasks = words.div_ceil(TASK_WORDS);
    match all {
        true => (0..tasks)
            .into_par_iter()
            .for_each_init(Buffer::default, task),
        false => {
            let mut buffer = Buffer::default();
            (0..tasks).for_each(|i| task(&mut buffer, i));
        }
    }
}

/// Panels that are written word by word.
#[derive(Clone, Copy)]
struct Panels {
    out: *mut u32,
    group: usize,
    words: usize,
    panels: usize,
}

// SAFETY: no two tasks share a word.
unsafe impl Send for Panels {}
// SAFETY: as above.
unsafe impl Sync for Panels {}

impl Panels {
    /// # Safety
    /// No other thread writes this word of the panels.
    unsafe fn write(&self, word: usize, lines: &[u32]) {
        for (panel, lines) in lines.chunks_exact(self.group).enumerate() {
            let at = (panel * self.words + word) * self.group;
            // SAFETY: the panel has the word; the caller vouches for it.
            unsafe { std::ptr::copy_nonoverlapping(lines.as_ptr(), self.out.add(at), self.group) };
        }
    }
}

/// The bits of f32 numbers.
fn as_words(numbers: &[f32]) -> &[u32] {
    // SAFETY: both have 4 bytes, and any bits are a word.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

/// Numbers that follow each other, rounded, the first in the lower half.
fn pair_up(numbers: &[f32], words: &mut [u32]) {
    // SAFETY: a word is two halves.
    let halves = unsafe {
        std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u16>(), 2 * words.len())
    };
    let (halves, odd) = halves.split_at_mut(numbers.len());
    odd.fill(0);
    vectorised(
        #[inline(always)]
        || {
            for (half, x) in halves.iter_mut().zip(numbers) {
                *half = bits(round(*x));
            }
        },
    );
}

/// Numbers of two steps, rounded; those of `high` are zero where there is no second.
fn pair_across(low: &[f32], high: &[f32], words: &mut [u32]) {
    vectorised(
        #[inline(always)]
        || {
            for (word, low) in words.iter_mut().zip(low) {
                *word = u32::from(bits(round(*low)));
            }
            for (word, high) in words.iter_mut().zip(high) {
                *word |= round(*high).to_bits();
            }
        },
    );
}
