//! Operands in the order in which tiles read them: panel by panel, and in a panel word
//! by word, of each word all lines.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::super::bf16::{bits, round};
use super::{Kernel, LINES, Operand, words};
use crate::ops::vectorised::vectorised;

/// Words of a task of [`pack_across`].
const TASK_WORDS: usize = 16;

/// How a panel lies in memory.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Its lines.
    pub group: usize,
    /// Words of a line that lie together; without, all lines of a word do.
    step: Option<usize>,
}

impl Form {
    pub fn left<K: Kernel>() -> Self {
        Self {
            group: K::HEIGHT,
            step: K::LEFT_BY_LINES.then_some(K::STEP),
        }
    }

    pub fn right<K: Kernel>() -> Self {
        Self {
            group: K::WIDTH,
            step: None,
        }
    }
}

/// Numbers and words on their way.
#[derive(Default)]
pub(super) struct Buffer {
    numbers: Vec<f32>,
    words: Vec<u32>,
}

/// Packs lines as a panel, at most as many as it has.
///
/// # Safety
/// The CPU must have the kernel's instructions.
pub(super) unsafe fn pack_panel<K: Kernel>(
    operand: Operand<'_>,
    lines: Range<usize>,
    numbers: Range<usize>,
    form: Form,
    out: &mut [MaybeUninit<u32>],
    buffer: &mut Buffer,
) {
    let count = numbers.len();
    let words = words::<K>(count);
    let group = form.group;
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
            if K::NUMBERS == 1 {
                *read = as_words(operand.along(line, numbers.clone(), own));
                continue;
            }
            let (pairs, others) = rest.split_at_mut(words);
            rest = others;
            match operand.in_bf16(line, numbers.clone()) {
                Some(line) => pair_up(line, pairs, |x| x.to_bits()),
                None => pair_up(operand.along(line, numbers.clone(), own), pairs, rounded),
            }
            *read = pairs;
        }
        let read = &read[..here.len()];
        match form.step {
            Some(step) => by_lines(read, start..start + of_panel, group, step, out),
            // SAFETY: the CPU has the instructions.
            None => unsafe { K::interleave(read, start, group, out) },
        }
    }
}

/// Packs lines that lie across, all panels at once: a word of every line, then the next.
pub(super) fn pack_across<K: Kernel>(
    operand: Operand<'_>,
    lines: Range<usize>,
    numbers: Range<usize>,
    form: Form,
    out: &mut [MaybeUninit<u32>],
    all: bool,
) {
    let words = words::<K>(numbers.len());
    let group = form.group;
    let out = Panels {
        out: out.as_mut_ptr().cast(),
        form,
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
            let numbers = number..numbers.end.min(number + K::NUMBERS);
            step::<K>(
                operand,
                numbers,
                lines.clone(),
                [&mut *low, &mut *high],
                pairs,
            );
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
    form: Form,
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
        let group = self.form.group;
        for (panel, lines) in lines.chunks_exact(group).enumerate() {
            let panel = panel * self.words * group;
            let Some(step) = self.form.step else {
                // SAFETY: the panel has the word; the caller vouches for it.
                unsafe {
                    let at = self.out.add(panel + word * group);
                    std::ptr::copy_nonoverlapping(lines.as_ptr(), at, group)
                };
                continue;
            };
            for (line, value) in lines.iter().enumerate() {
                let at = panel + (word / step * group + line) * step + word % step;
                // SAFETY: as above.
                unsafe { *self.out.add(at) = *value };
            }
        }
    }
}

/// Writes the lines `places` of a panel step by step, zero for lines that are not there.
fn by_lines(
    lines: &[&[u32]],
    places: Range<usize>,
    group: usize,
    step: usize,
    out: &mut [MaybeUninit<u32>],
) {
    for (place, i) in places.zip(0..) {
        let steps = out.chunks_exact_mut(group * step);
        for (at, out) in steps.enumerate() {
            let out = &mut out[place * step..][..step];
            match lines.get(i) {
                Some(line) => {
                    out.write_copy_of_slice(&line[at * step..][..step]);
                }
                None => out.fill(MaybeUninit::new(0)),
            }
        }
    }
}

/// The bits of f32 numbers.
fn as_words(numbers: &[f32]) -> &[u32] {
    // SAFETY: both have 4 bytes, and any bits are a word.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

/// A word of every line; its numbers are of one step, of two, or not there.
fn step<K: Kernel>(
    operand: Operand<'_>,
    numbers: Range<usize>,
    lines: Range<usize>,
    [low, high]: [&mut [f32]; 2],
    words: &mut [u32],
) {
    let first = numbers.start;
    match (numbers.len(), K::NUMBERS) {
        (0, _) => words.fill(0),
        (_, 1) => {
            let numbers = as_words(operand.step(first, lines, low));
            words[..numbers.len()].copy_from_slice(numbers);
        }
        (1, _) => pair_across(operand.step(first, lines, low), None, words, rounded),
        _ => {
            let held = |number| operand.in_bf16(number, lines.clone());
            if let (Some(low), Some(high)) = (held(first), held(first + 1)) {
                return pair_across(low, Some(high), words, half::bf16::to_bits);
            }
            let low = operand.step(first, lines.clone(), low);
            let high = operand.step(first + 1, lines, high);
            pair_across(low, Some(high), words, rounded)
        }
    }
}

/// Rounded to bf16.
#[inline(always)]
fn rounded(x: f32) -> u16 {
    bits(round(x))
}

/// Numbers that follow each other, as bf16, the first in the lower half.
fn pair_up<T: Copy>(numbers: &[T], words: &mut [u32], narrow: impl Fn(T) -> u16) {
    // SAFETY: a word is two halves.
    let halves = unsafe {
        std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u16>(), 2 * words.len())
    };
    let (halves, missing) = halves.split_at_mut(numbers.len());
    missing.fill(0);
    vectorised(
        #[inline(always)]
        || {
            for (half, x) in halves.iter_mut().zip(numbers) {
                *half = narrow(*x);
            }
        },
    );
}

/// Numbers of two steps, as bf16; the upper half is zero where there is no second.
fn pair_across<T: Copy>(
    low: &[T],
    high: Option<&[T]>,
    words: &mut [u32],
    narrow: impl Fn(T) -> u16,
) {
    vectorised(
        #[inline(always)]
        || match high {
            Some(high) => {
                for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
                    *word = u32::from(narrow(*low)) | u32::from(narrow(*high)) << 16;
                }
            }
            None => {
                for (word, low) in words.iter_mut().zip(low) {
                    *word = u32::from(narrow(*low));
                }
            }
        },
    );
}
