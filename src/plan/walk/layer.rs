//! The passes of one layer, with sizes in place of tensors.

use super::super::meter::Part;
use super::super::workload::Batch;
use super::super::{Dims, Place};
use super::{F32, Walk};

/// Query rows of one task of the CPU's attention.
const BLOCK: u64 = 64;

/// What a layer's forward leaves, besides its input and its output.
pub(super) struct Tape {
    pub(super) bytes: u64,
    /// With what came of the activation.
    pub(super) activated: bool,
}

impl Walk<'_> {
    /// `Layer::forward`: the caller holds x; afterwards also y and the tape.
    pub(super) fn layer_forward(&mut self, layer: usize, batch: Batch) -> Tape {
        let before = self.meter.held(Part::Layer);
        let last = self.recipe.linears().len() - 1;
        self.activate(layer, batch);
        self.linear_forward(layer, last, batch.tokens); // y
        let s = self.activation(batch.tokens, self.dims.f);
        self.meter.release(Part::Layer, s);
        let y = self.activation(batch.tokens, self.dims.d);
        Tape {
            bytes: self.meter.held(Part::Layer) - before - y,
            activated: false,
        }
    }

    /// `Layer::tape`: the caller holds x; afterwards also the tape.
    pub(super) fn layer_tape(&mut self, layer: usize, batch: Batch) -> Tape {
        let before = self.meter.held(Part::Layer);
        let last = self.recipe.linears().len() - 1;
        self.activate(layer, batch);
        self.linear_tape(layer, last, batch.tokens);
        Tape {
            bytes: self.meter.held(Part::Layer) - before,
            activated: true,
        }
    }

    /// A layer's forward up to the activation of its feed-forward part.
    fn activate(&mut self, layer: usize, batch: Batch) {
        let rows = batch.tokens;
        let Dims {
            d,
            f,
            hq,
            hk,
            heads,
            qkv,
            ..
        } = self.dims;
        let last = self.recipe.linears().len() - 1;
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
        for i in qkv + 1..last {
            self.linear_forward(layer, i, rows); // gate and up, or fc
        }
        hold(self, f); // s
    }

    /// A layer's LoRA matrices in the type of activations, where that is another.
    fn operands(&self, layer: usize) -> u64 {
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
    pub(super) fn layer_backward(&mut self, layer: usize, batch: Batch, tape: Tape) {
        let rows = batch.tokens;
        let Dims {
            d,
            f,
            hq,
            hk,
            heads,
            qkv,
            ..
        } = self.dims;
        let last = self.recipe.linears().len() - 1;
        let inner = (last - qkv - 1) as u64;
        let before = self.meter.held(Part::Layer);
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
        if !tape.activated {
            hold(self, f); // s
        }
        // Which goes before ds comes.
        self.linear_backward(layer, last, rows, true, |walk| release(walk, f));
        // d_gate and d_up take the places of gate and up; dh takes one of its own.
        let new = if inner == 1 { f } else { 0 };
        hold(self, new);
        release(self, new + f); // h, ds
        for i in qkv + 1..last {
            product(self, i, i == qkv + 1); // dn2
            release(self, f); // d_gate, then d_up
        }
        release(self, d); // n2
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
        // Afterwards there is dx in place of x, dy and the tape.
        let after = before - tape.bytes - self.activation(rows, d);
        let held = self.meter.held(Part::Layer);
        self.meter.release(Part::Layer, held - after);
        if self.recipe.full {
            self.gradients_of(self.recipe.vectors());
        }
    }
}
