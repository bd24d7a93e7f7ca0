//! What a product multiplies: lines of numbers, which are summed along.

use std::ops::Range;

use super::super::mat::Mat;
use super::super::weight_rows::Rows;

/// Rows of the left operand, or columns of the right one.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    /// A line is a row.
    Numbers(Mat<'a>),
    /// A weight of `[out, in]` in whatever form; a line is a row of it.
    Weight(Rows<'a>, [usize; 2]),
    /// The same; a line is a column of it.
    WeightColumns(Rows<'a>, [usize; 2]),
}

impl<'a> Operand<'a> {
    pub fn lines(&self) -> usize {
        match self {
            Self::Numbers(mat) => mat.rows,
            Self::Weight(_, [out, _]) => *out,
            Self::WeightColumns(_, [_, inn]) => *inn,
        }
    }

    /// Numbers of a line.
    pub fn length(&self) -> usize {
        match self {
            Self::Numbers(mat) => mat.cols,
            Self::Weight(_, [_, inn]) => *inn,
            Self::WeightColumns(_, [out, _]) => *out,
        }
    }

    /// Whether what lies together in memory is one number of each line.
    pub(super) fn across(&self) -> bool {
        match self {
            Self::Numbers(mat) => mat.col_stride != 1,
            Self::Weight(..) => false,
            Self::WeightColumns(..) => true,
        }
    }

    /// Numbers `part` of a line, or of a step where lines lie [`Operand::across`], if the
    /// operand is a weight that is held in bf16.
    pub(super) fn in_bf16(&self, row: usize, part: Range<usize>) -> Option<&'a [half::bf16]> {
        match *self {
            Self::Weight(Rows::Bf16(weight), [_, inn])
            | Self::WeightColumns(Rows::Bf16(weight), [_, inn]) => Some(&weight[row * inn..][part]),
            _ => None,
        }
    }

    /// Numbers `numbers` of a line; `buffer` has room for as many. Of operands that are
    /// not [`Operand::across`].
    pub(super) fn along<'b>(
        &self,
        line: usize,
        numbers: Range<usize>,
        buffer: &'b mut [f32],
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        match *self {
            Self::Numbers(mat) => &mat.row(line)[numbers],
            Self::Weight(rows, [_, inn]) | Self::WeightColumns(rows, [_, inn]) => {
                rows.part(line, inn, numbers, buffer)
            }
        }
    }

    /// Number `number` of each of the lines `lines`; `buffer` has room for as many.
    pub(super) fn step<'b>(
        &self,
        number: usize,
        lines: Range<usize>,
        buffer: &'b mut [f32],
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        match *self {
            Self::Numbers(mat) if mat.row_stride == 1 => {
                &mat.data[number * mat.col_stride..][lines]
            }
            Self::Numbers(mat) => {
                for (line, out) in lines.zip(buffer.iter_mut()) {
                    *out = mat.at(line, number);
                }
                buffer
            }
            Self::Weight(rows, [_, inn]) | Self::WeightColumns(rows, [_, inn]) => {
                rows.part(number, inn, lines, buffer)
            }
        }
    }
}
