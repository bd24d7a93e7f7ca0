//! Rows of a weight in whatever form it is held.

use std::ops::Range;

use super::bf16::{round_all, widen};
use crate::ops::nf4::Nf4;
use crate::ops::vectorised::vectorised;

/// A weight of `[out, in]`, row-major.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    Dense(&'a [f32]),
    Bf16(&'a [half::bf16]),
    Nf4(&'a Nf4),
    /// Its numbers rounded to bf16.
    Nf4AsBf16(&'a Nf4),
}

impl<'a> Rows<'a> {
    /// Whether products take both operands as bf16; then rows are bf16 numbers.
    pub fn in_bf16(self) -> bool {
        matches!(self, Self::Bf16(_) | Self::Nf4AsBf16(_))
    }

    /// Before they are rounded to bf16, for who rounds them.
    pub fn unrounded(self) -> Self {
        match self {
            Self::Nf4AsBf16(weight) => Self::Nf4(weight),
            other => other,
        }
    }

    /// Numbers that [`Rows::get`] needs room for, to give `n` rows of `columns`.
    pub fn buffer(self, n: usize, columns: usize) -> usize {
        match self {
            Self::Dense(_) => 0,
            _ => n * columns,
        }
    }

    /// `n` rows from `first` on, each of `columns`, as f32.
    pub fn get<'b>(self, first: usize, n: usize, columns: usize, buffer: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        if let Self::Dense(weight) = self {
            return &weight[first * columns..(first + n) * columns];
        }
        let buffer = &mut buffer[..n * columns];
        for (i, row) in buffer.chunks_exact_mut(columns.max(1)).enumerate() {
            self.fill(first + i, columns, 0, row);
        }
        buffer
    }

    /// Numbers `part` of a row of `columns`, as f32; `buffer` has room for as many.
    pub fn part<'b>(
        self,
        row: usize,
        columns: usize,
        part: Range<usize>,
        buffer: &'b mut [f32],
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        if let Self::Dense(weight) = self {
            return &weight[row * columns..][part];
        }
        let buffer = &mut buffer[..part.len()];
        self.fill(row, columns, part.start, buffer);
        buffer
    }

    /// Writes the numbers of a row of `columns` from `from` on, as many as `out` takes.
    pub fn fill(self, row: usize, columns: usize, from: usize, out: &mut [f32]) {
        let start = row * columns + from;
        let at = start..start + out.len();
        match self {
            Self::Dense(weight) => out.copy_from_slice(&weight[at]),
            Self::Bf16(weight) => vectorised(
                #[inline(always)]
                || widen(&weight[at.clone()], out),
            ),
            Self::Nf4(weight) => weight.dequantize_part(row, from, out),
            Self::Nf4AsBf16(weight) => {
                weight.dequantize_part(row, from, out);
                round_all(out);
            }
        }
    }
}
