//! The passes of one layer, with sizes in place of tensors.

use super::super::meter::Part;
use super::super::workload::Batch;
use super::super::{Dims, Place};
use super::{F32, Walk};
use crate::model::{MLP_ROWS, tile_rows};

/// Query rows of one task of the CPU's attention.
const BLOCK: u64 = 64;

impl Walk<'_> {
    /// `Layer::forward`: the caller holds x; afterwards also y and the tape, whose
    /// bytes are returned.
    pub(super) fn layer_forward(&mut self, layer: usize, batch: Batch) -> u64 {
        let before = self.meter.held(Part::Layer);
        let last = self.recipe.linears().len() - 1;
        self.attend(layer, batch);
        self.activate(layer, batch.tokens);
        self.linear_forward(layer, last, batch.tokens); // y
        let s = self.activation(batch.tokens, self.dims.f);
        self.meter.release(Part::Layer, s);
        let y = self.activation(batch.tokens, self.dims.d);
        self.meter.held(Part::Layer) - before - y
    }

    /// `Layer::output`: the caller holds x; afterwards y in its place, or beside it
    /// where it is `kept`.
    pub(super) fn layer_output(&mut self, layer: usize, batch: Batch, kept: bool) {
        let width = self.activation(batch.tokens, self.dims.d);
        let x = if kept { width } else { 0 };
        let without = self.meter.held(Part::Layer) - width + x;
        self.attend(layer, batch);
        // Of it there stay the operands, h and n2.
        let stays = self.operands(layer) + 2 * width;
        self.settle(without + stays);
        for rows in self.tiles(layer, batch.tokens, false) {
            let before = self.meter.held(Part::Layer);
            self.activate(layer, rows);
            let s = self.activation(rows, self.dims.f);
            self.settle(before + s);
            let last = self.recipe.linears().len() - 1;
            self.linear_forward(layer, last, rows);
            self.settle(before);
        }
        self.settle(without + width);
    }

    /// Lets go of all but `bytes`.
    fn settle(&mut self, bytes: u64) {
        let held = self.meter.held(Part::Layer);
        self.meter.release(Part::Layer, held - bytes);
    }

    /// `Mlp::tile`: the rows that the feed-forward part takes one after the other. Of
    /// those of equal size there are two at most: gradients are there from the first on,
    /// and a third is like the second.
    fn tiles(&self, layer: usize, rows: u64, back: bool) -> Vec<u64> {
        let recipe = self.recipe;
        let mut adapted = recipe.ranks[layer][self.dims.qkv + 1..].iter();
        if recipe.dora && adapted.any(|rank| *rank > 0) || back && recipe.full {
            return vec![rows];
        }
        let tile = tile_rows(rows as usize, MLP_ROWS).max(1) as u64;
        let before_last = rows.div_ceil(tile).saturating_sub(1);
        let mut tiles = vec![tile; before_last.min(2) as usize];
        tiles.extend(Some(rows - tile * before_last).filter(|last| *last > 0));
        tiles
    }

    /// `Layer::attend`: afterwards operands, n1, the tape of attention, h and n2.
    fn attend(&mut self, layer: usize, batch: Batch) {
        let rows = batch.tokens;
        let Dims {
            d,
            hq,
            hk,
            heads,
            qkv,
            ..
        } = self.dims;
        let hold = |walk: &mut Self, width: u64| {
            walk.meter.hold(Part::Layer, walk.activation(rows, width));
        };
        let operands = self.operands(layer);
        self.meter.hold(Part::Layer, operands);
        hold(self, d); // n1
        for i in 0..qkv {
            self.linear_forward(layer, i, rows);
        }
        if self.recipe.arch.qk_norm {
            hold(self, hq + hk); // q and k, normalised
        }
        hold(self, hq); // out
        self.meter.hold(Part::Layer, F32 * rows * heads); // lse
        // Of parts of one matrix, attention makes copies.
        let copies = match qkv {
            1 => self.activation(rows, hq + 2 * hk),
            _ => 0,
        };
        self.meter.hold(Part::Layer, copies);
        self.attention_buffers(batch, 1);
        self.meter.release(Part::Layer, copies);
        self.linear_forward(layer, qkv, rows); // h
        hold(self, d); // n2
    }

    /// `Mlp::activate`: gate and up, or fc, and what comes of the activation.
    fn activate(&mut self, layer: usize, rows: u64) {
        let last = self.recipe.linears().len() - 1;
        for i in self.dims.qkv + 1..last {
            self.linear_forward(layer, i, rows);
        }
        self.meter
            .hold(Part::Layer, self.activation(rows, self.dims.f)); // s
    }

    /// A layer's LoRA matrices in the type of activations, where that is another.
    pub(super) fn operands(&self, layer: usize) -> u64 {
        let bytes = self.recipe.precision.activation;
        if bytes == F32 {
            return 0;
        }
        let ranks = self.recipe.ranks[layer].iter().zip(self.recipe.linears());
        let numbers = ranks.map(|(rank, (out, inn))| *rank as u64 * (out + inn));
        bytes * numbers.sum::<u64>()
    }

    fn attention_buffers(&mut self, batch: Batch, buffers: u64) {
        if let Place::Cpu { threads, .. } = self.place {
            let scores = BLOCK.min(batch.longest) * batch.longest;
            let bytes = F32 * scores * buffers * threads as u64;
            self.meter.touch(Part::Attention, bytes);
        }
    }

    /// `Layer::backward`: the caller holds x, the tape and dy; afterwards dx alone.
    pub(super) fn layer_backward(&mut self, layer: usize, batch: Batch, tape: u64) {
        let width = self.activation(batch.tokens, self.dims.d);
        let after = self.meter.held(Part::Layer) - tape - width;
        let s = self.activation(batch.tokens, self.dims.f);
        self.meter.hold(Part::Layer, s);
        self.mlp_backward(layer, batch.tokens);
        self.meter.release(Part::Layer, width); // n2
        self.attend_backward(layer, batch);
        self.settle(after);
    }

    /// `Layer::backward_again`: the caller holds x and dy; afterwards dx alone.
    pub(super) fn layer_backward_again(&mut self, layer: usize, batch: Batch) {
        let width = self.activation(batch.tokens, self.dims.d);
        let after = self.meter.held(Part::Layer) - width;
        self.attend(layer, batch);
        let last = self.recipe.linears().len() - 1;
        let tiles = self.tiles(layer, batch.tokens, true);
        for rows in &tiles {
            let before = self.meter.held(Part::Layer);
            self.activate(layer, *rows);
            self.linear_tape(layer, last, *rows);
            self.mlp_backward(layer, *rows);
            if let [_] = tiles[..] {
                self.meter.release(Part::Layer, width); // n2
            } else {
                self.settle(before); // dn2 takes n2's place
            }
        }
        self.attend_backward(layer, batch);
        self.settle(after);
    }

    /// `Mlp::backward`: the caller holds gate and up (or fc), s and dy; afterwards dn2
    /// in their place.
    fn mlp_backward(&mut self, layer: usize, rows: u64) {
        let Dims { f, qkv, .. } = self.dims;
        let last = self.recipe.linears().len() - 1;
        let wide = self.activation(rows, f);
        // s goes before ds comes.
        self.linear_backward(layer, last, rows, true, |walk| {
            walk.meter.release(Part::Layer, wide);
        });
        // d_gate and d_up take the places of gate and up; dh takes one of its own.
        let new = if last - qkv == 2 { wide } else { 0 };
        self.meter.hold(Part::Layer, new);
        self.meter.release(Part::Layer, new + wide); // h, ds
        for i in qkv + 1..last {
            self.linear_backward(layer, i, rows, i == qkv + 1, |_| ()); // dn2
            self.meter.release(Part::Layer, wide); // d_gate, then d_up
        }
    }

    /// `Layer::attend_backward`: the caller holds what `attend` left but n2, and dn2
    /// and dy; afterwards dx, x and what is small.
    fn attend_backward(&mut self, layer: usize, batch: Batch) {
        let rows = batch.tokens;
        let Dims {
            d,
            hq,
            hk,
            heads,
            qkv,
            ..
        } = self.dims;
        let product = |walk: &mut Self, i: usize, new: bool| {
            walk.linear_backward(layer, i, rows, new, |_| ());
        };
        let hold = |walk: &mut Self, width: u64| {
            walk.meter.hold(Part::Layer, walk.activation(rows, width));
        };
        let release = |walk: &mut Self, width: u64| {
            walk.meter
                .release(Part::Layer, walk.activation(rows, width));
        };
        hold(self, d); // dh
        release(self, 3 * d); // h, dn2, dy
        product(self, qkv, true); // d_out
        hold(self, hq + 2 * hk); // dq, dk, dv
        self.attention_buffers(batch, 2);
        release(self, 3 * hq + 2 * hk); // q, k, v, out, d_out
        self.meter.release(Part::Layer, F32 * rows * heads); // lse
        if self.recipe.arch.qk_norm {
            hold(self, hq); // dq after the norm
            release(self, hq); // q
            release(self, hq + hk); // dq and dk before it, and k
            hold(self, hk);
        }
        if qkv == 1 {
            self.meter
                .touch(Part::Layer, self.activation(rows, hq + 2 * hk)); // all three in one
        }
        for i in 0..qkv {
            product(self, i, i == 0); // dn1
        }
        release(self, d + hq + 2 * hk); // n1, dq, dk, dv
        hold(self, d); // dx
        if self.recipe.full {
            self.gradients_of(self.recipe.vectors());
        }
    }
}
