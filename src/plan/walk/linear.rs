//! The passes of one linear, with sizes in place of tensors.

use super::super::Place;
use super::super::meter::Part;
use super::{F32, Walk};
use crate::ops::cpu::{frozen_scratch, product_scratch};

impl Walk<'_> {
    /// A whole weight of `n` numbers as DoRA's norms need it, beside what is held.
    pub(super) fn whole(&self, n: u64) -> u64 {
        let dense = self.recipe.precision.dense;
        match (self.place, self.recipe.nf4) {
            (Place::Gpu, Some(_)) => dense * n,
            (Place::Cpu { .. }, None) if dense == F32 => 0,
            (Place::Cpu { .. }, _) => F32 * n,
            (Place::Gpu, None) => 0,
        }
    }

    /// What stands for the weight of linear `i` while a product needs it: on a GPU the
    /// dense weight; on the CPU, of one that trains, its form in bf16.
    pub(super) fn with_dense(&mut self, i: usize, inside: impl FnOnce(&mut Self)) {
        let (out, inn) = self.recipe.linears()[i];
        let dense = self.recipe.precision.dense;
        let needed = match self.place {
            Place::Gpu => self.recipe.nf4.is_some(),
            Place::Cpu { .. } => self.recipe.full && dense != F32,
        };
        let bytes = if needed { dense * out * inn } else { 0 };
        self.meter.hold(Part::Dequantised, bytes);
        inside(self);
        self.meter.release(Part::Dequantised, bytes);
    }

    /// What the CPU's product of `rows` rows with a weight of `[out, in]`, transposed
    /// or not, holds besides; `nf4` if the weight is.
    pub(super) fn product_buffers(
        &mut self,
        rows: u64,
        shape: (u64, u64),
        transposed: bool,
        nf4: bool,
    ) {
        let Place::Cpu { threads, .. } = self.place else {
            return;
        };
        let in_bf16 = self.recipe.precision.dense != F32;
        let (rows, shape) = (rows as usize, [shape.0 as usize, shape.1 as usize]);
        let bytes = match nf4 || in_bf16 {
            true => frozen_scratch(rows, shape, transposed, in_bf16, threads),
            false => {
                let [from, to] = [usize::from(transposed), usize::from(!transposed)];
                product_scratch(rows, shape[from], shape[to])
            }
        };
        self.meter.touch(Part::Packed, bytes as u64);
    }

    /// `Linear::forward`: afterwards y is held, and u where there is an adapter.
    pub(super) fn linear_forward(&mut self, layer: usize, i: usize, rows: u64) {
        let (out, inn) = self.recipe.linears()[i];
        let y = self.activation(rows, out);
        self.with_dense(i, |walk| {
            walk.meter.hold(Part::Layer, y);
            walk.product_buffers(rows, (out, inn), true, walk.recipe.nf4.is_some());
        });
        let rank = self.recipe.ranks[layer][i] as u64;
        if rank > 0 {
            let dropped = self.dropped(rows, inn);
            self.meter.hold(Part::Layer, dropped);
            self.meter.hold(Part::Layer, self.activation(rows, rank));
            if self.recipe.dora {
                // The adapted output is kept; the base's of the dropped input and
                // LoRA's go, with the dense weight that the norms need.
                self.meter.hold(Part::Layer, y);
                let plain = if self.dropout { y } else { 0 };
                self.meter.hold(Part::Layer, plain);
                let whole = self.whole(out * inn);
                self.meter.hold(Part::Dequantised, whole);
                self.meter.touch(Part::Layer, y);
                self.meter.release(Part::Dequantised, whole);
                self.meter.touch(Part::Layer, 2 * y);
                self.meter.release(Part::Layer, plain);
            }
            self.meter.release(Part::Layer, dropped);
        }
    }

    /// `Linear::tape`: afterwards u is held, where there is an adapter.
    pub(super) fn linear_tape(&mut self, layer: usize, i: usize, rows: u64) {
        let (out, inn) = self.recipe.linears()[i];
        let rank = self.recipe.ranks[layer][i] as u64;
        if self.recipe.dora && rank > 0 {
            self.linear_forward(layer, i, rows);
            let y = self.activation(rows, out);
            self.meter.release(Part::Layer, y);
        } else if rank > 0 {
            let dropped = self.dropped(rows, inn);
            self.meter.hold(Part::Layer, dropped);
            self.meter.hold(Part::Layer, self.activation(rows, rank));
            self.meter.release(Part::Layer, dropped);
        }
    }

    /// The adapter's input with dropout; without it, no copy is made.
    pub(super) fn dropped(&self, rows: u64, width: u64) -> u64 {
        match self.dropout {
            true => self.activation(rows, width),
            false => 0,
        }
    }

    /// `Linear::backward`: afterwards dx is held, if it is `new`; `used` runs between
    /// its halves.
    pub(super) fn linear_backward(
        &mut self,
        layer: usize,
        i: usize,
        rows: u64,
        new: bool,
        used: impl FnOnce(&mut Self),
    ) {
        let (out, inn) = self.recipe.linears()[i];
        let rank = self.recipe.ranks[layer][i] as u64;
        if self.recipe.full {
            self.gradients_of(out * inn);
        }
        let (mut back, mut dropped) = (0, 0);
        if rank > 0 {
            self.gradients_of(rank * (out + inn) + self.recipe.lengths_of(rank as usize, out));
            let through = match self.recipe.dora {
                // What reaches LoRA's output and the base's.
                true => 2 * self.activation(rows, out),
                false => 0,
            };
            back = self.activation(rows, rank) + through; // du
            dropped = self.dropped(rows, inn);
            self.meter.hold(Part::Layer, back);
            self.meter.touch(Part::Layer, dropped);
        }
        used(self);
        let dx = if new { self.activation(rows, inn) } else { 0 };
        self.with_dense(i, |walk| {
            walk.meter.hold(Part::Layer, dx);
            walk.product_buffers(rows, (out, inn), false, walk.recipe.nf4.is_some());
        });
        // The product with A, and its dropout.
        self.meter.touch(Part::Layer, 2 * dropped);
        self.meter.release(Part::Layer, back);
    }
}
