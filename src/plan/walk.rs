//! A run with sizes in place of tensors: every function here follows the one of
//! the same name in `model` or `train` and takes and lets go of memory where it
//! does. When one changes, so must the other; tests/counted/plan.rs compares the two.

mod load;

use super::meter::{Memory, Meter, Part, Phase};
use super::workload::{Batch, Similarity, Test, Workload};
use super::{CONTEXT_BYTES, Dims, Place, Recipe};
use crate::ops::cpu::{block_rows, frozen_scratch};
use crate::ops::{chunk_rows, gpu_logit_rows};

/// Bytes of the f32 numbers of adapters, moments, log-sums and logits.
const F32: u64 = 4;
/// Query rows of one task of the CPU's attention.
const BLOCK: u64 = 64;

impl Recipe {
    /// The most memory that a run takes.
    pub fn memory(&self, workload: &Workload, place: Place) -> Memory {
        let mut walk = Walk {
            recipe: self,
            dims: self.dims(),
            place,
            meter: Meter::new(),
            dropout: false,
        };
        walk.run(workload);
        walk.meter.finish()
    }
}

struct Walk<'a> {
    recipe: &'a Recipe,
    dims: Dims,
    place: Place,
    meter: Meter,
    /// Whether the pass at hand drops adapter inputs.
    dropout: bool,
}

/// Bytes of the rows of a weight that the CPU makes f32 at once.
fn block(out: u64, inn: u64) -> u64 {
    F32 * inn * out.min(block_rows(inn as usize) as u64)
}

/// What a layer's forward leaves, besides its input and its output.
struct Tape {
    bytes: u64,
    /// With what came of the activation.
    activated: bool,
}

impl Walk<'_> {
    fn run(&mut self, workload: &Workload) {
        let recipe = self.recipe;
        match self.place {
            Place::Cpu { program_bytes, .. } => self.meter.hold(Part::Program, program_bytes),
            Place::Gpu => self.meter.hold(Part::Context, CONTEXT_BYTES),
        }
        self.meter.begin(Phase::Loading);
        let trainable = recipe.trainable();
        if !recipe.full {
            // A new adapter is made before weights are read.
            self.meter.hold(Part::Trained, F32 * trainable);
        }
        self.load(recipe.nf4, recipe.full, recipe.decomposes);
        if recipe.keeps_start {
            self.meter.hold(Part::Start, self.on_cpu(F32 * trainable));
        }
        if recipe.dora {
            // The squared lengths of the base's rows.
            let lengths = recipe
                .ranks
                .iter()
                .flat_map(|ranks| ranks.iter().zip(recipe.linears()));
            let lengths = lengths.map(|(rank, (out, _))| recipe.lengths(*rank, out));
            self.meter.hold(Part::Norms, F32 * lengths.sum::<u64>());
            // They are taken from one dense weight after the other.
            let adapted = |(i, _): &(usize, _)| recipe.ranks.iter().any(|ranks| ranks[*i] > 0);
            let linears = recipe.linears().into_iter().enumerate();
            let widest = linears.filter(adapted).map(|(_, (out, inn))| out * inn);
            let widest = widest.max().unwrap_or_default();
            let dense = self.whole(widest);
            self.meter.touch(Part::Dequantised, dense + F32 * widest);
        }

        self.meter.begin(Phase::Step);
        let (moments, page) = recipe.moments(matches!(self.place, Place::Cpu { .. }));
        self.meter.hold(Part::Moments, moments);
        let longest = workload.validation.map_or(0, |batch| batch.longest);
        self.reserve_positions(workload.train.longest.max(longest));
        self.dropout = recipe.dropout;
        self.loss_backward(workload.train);
        if workload.accumulates {
            // The gradients of the first wait for those of the second.
            self.loss_backward(workload.train);
        }
        self.meter.touch(Part::InTransit, page);
        let gradients = self.meter.held(Part::Gradients);
        self.meter.release(Part::Gradients, gradients);
        self.dropout = false;

        if let Some(batch) = workload.validation {
            self.meter.begin(Phase::Validation);
            self.loss(batch);
        }
        if let Some(sampled) = workload.sampled {
            self.test(sampled);
            self.compare(workload.similarity);
        }
        if workload.checkpoints {
            self.meter.begin(Phase::Checkpoint);
            // Values and moments are copied out before they are written.
            self.meter.touch(Part::InTransit, F32 * trainable + moments);
        }
        self.meter.release(Part::Moments, moments);

        if let Some(test) = workload.test {
            self.meter.begin(Phase::Test);
            if recipe.second_base {
                self.load(recipe.nf4, false, false);
            }
            self.test(test);
            self.compare(workload.similarity);
        }
    }

    /// The encoder is read for the first answers and stays.
    fn compare(&mut self, similarity: Option<Similarity>) {
        let Some(Similarity { weights, working }) = similarity else {
            return;
        };
        let missing = self.on_cpu(weights) - self.meter.held(Part::Encoder);
        self.meter.hold(Part::Encoder, missing);
        self.meter.touch(Part::Encoder, self.on_cpu(working));
    }

    /// On a GPU the host's memory is not counted.
    fn on_cpu(&self, bytes: u64) -> u64 {
        match self.place {
            Place::Cpu { .. } => bytes,
            Place::Gpu => 0,
        }
    }

    fn reserve_positions(&mut self, positions: u64) {
        if self.recipe.arch.rope().is_none() {
            return;
        }
        let columns = self.recipe.arch.head_dim as u64 / 2;
        let table = 2 * F32 * columns * positions.next_power_of_two();
        let table = self.on_cpu(table);
        let held = self.meter.held(Part::RotaryTable);
        if table > held {
            self.meter.hold(Part::RotaryTable, table);
            self.meter.release(Part::RotaryTable, held);
        }
    }

    fn activation(&self, rows: u64, width: u64) -> u64 {
        self.recipe.precision.activation * rows * width
    }

    /// `Decoder::loss_backward`.
    fn loss_backward(&mut self, batch: Batch) {
        let rows = batch.tokens;
        let width = self.activation(rows, self.dims.d);
        let layers = self.recipe.arch.num_layers;
        let mut kept = Vec::with_capacity(layers);
        let away = self.recipe.offloads && matches!(self.place, Place::Gpu);
        self.meter.hold(Part::Layer, width); // x
        for layer in 0..layers {
            let tape = self.layer_forward(layer, batch);
            let keep = match self.recipe.checkpointing {
                true => {
                    self.meter.release(Part::Layer, tape.bytes);
                    width
                }
                false => width + tape.bytes,
            };
            match away {
                true => self.meter.release(Part::Layer, keep),
                false => self.meter.turn(Part::Layer, Part::Kept, keep),
            }
            kept.push(keep);
        }
        self.head_backward(batch); // x becomes dx
        for layer in (0..layers).rev() {
            let keep = kept.pop().unwrap_or_default();
            match away {
                true => self.meter.hold(Part::Layer, keep),
                false => self.meter.turn(Part::Kept, Part::Layer, keep),
            }
            let tape = match self.recipe.checkpointing {
                true => self.layer_tape(layer, batch),
                false => Tape {
                    bytes: keep - width,
                    activated: false,
                },
            };
            self.layer_backward(layer, batch, tape);
        }
        self.meter.release(Part::Layer, width); // dx
        if self.recipe.full {
            self.gradients_of(self.embedding());
            self.gradients_of(self.recipe.positions());
        }
    }

    fn embedding(&self) -> u64 {
        self.dims.vocab * self.dims.d
    }

    /// `Layer::forward`: the caller holds x; afterwards also y and the tape.
    fn layer_forward(&mut self, layer: usize, batch: Batch) -> Tape {
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
    fn layer_tape(&mut self, layer: usize, batch: Batch) -> Tape {
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

    /// A whole weight of `n` numbers as DoRA's norms need it, beside what is held.
    fn whole(&self, n: u64) -> u64 {
        let dense = self.recipe.precision.dense;
        match (self.place, self.recipe.nf4) {
            (Place::Gpu, Some(_)) => dense * n,
            (Place::Cpu { .. }, None) if dense == F32 => 0,
            (Place::Cpu { .. }, _) => F32 * n,
            (Place::Gpu, None) => 0,
        }
    }

    /// What stands for the weight of linear `i` while a product needs it: the dense
    /// weight on a GPU, a block of its rows on the CPU.
    fn with_dense(&mut self, i: usize, inside: impl FnOnce(&mut Self)) {
        let (out, inn) = self.recipe.linears()[i];
        let dense = self.recipe.precision.dense;
        let trained = if self.recipe.full {
            dense * out * inn
        } else {
            0
        };
        let bytes = match (self.place, self.recipe.nf4) {
            (Place::Gpu, Some(_)) => dense * out * inn,
            (Place::Gpu, None) => 0,
            (Place::Cpu { .. }, None) if dense == F32 => 0,
            // What trains has its operand made for the product.
            (Place::Cpu { .. }, None) => block(out, inn) + trained,
            (Place::Cpu { .. }, Some(_)) => block(out, inn),
        };
        self.meter.hold(Part::Dequantised, bytes);
        inside(self);
        self.meter.release(Part::Dequantised, bytes);
    }

    /// What the CPU's product of `rows` rows with a weight of `[out, in]`, transposed
    /// or not, holds besides: packed operands, and the left one rounded to bf16 where
    /// it multiplies in that.
    fn product_buffers(&mut self, rows: u64, shape: (u64, u64), transposed: bool) {
        let Place::Cpu { threads, .. } = self.place else {
            return;
        };
        let in_bf16 = self.recipe.precision.dense != F32;
        let shape = [shape.0 as usize, shape.1 as usize];
        let bytes = frozen_scratch(rows as usize, shape, transposed, in_bf16, threads);
        self.meter.touch(Part::Packed, bytes as u64);
    }

    /// `Linear::forward`: afterwards y is held, and u where there is an adapter.
    fn linear_forward(&mut self, layer: usize, i: usize, rows: u64) {
        let (out, inn) = self.recipe.linears()[i];
        let y = self.activation(rows, out);
        self.with_dense(i, |walk| {
            walk.meter.hold(Part::Layer, y);
            walk.product_buffers(rows, (out, inn), true);
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
    fn linear_tape(&mut self, layer: usize, i: usize, rows: u64) {
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
    fn dropped(&self, rows: u64, width: u64) -> u64 {
        match self.dropout {
            true => self.activation(rows, width),
            false => 0,
        }
    }

    /// `Linear::backward`: afterwards dx is held, if it is `new`; `used` runs between
    /// its halves.
    fn linear_backward(
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
            self.gradients_of(rank * (out + inn) + self.recipe.lengths(rank as usize, out));
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
            walk.product_buffers(rows, (out, inn), false);
        });
        // The product with A, and its dropout.
        self.meter.touch(Part::Layer, 2 * dropped);
        self.meter.release(Part::Layer, back);
    }

    /// Gradients that the first micro-batch makes and later ones add to.
    fn gradients_of(&mut self, n: u64) {
        let all = F32 * self.recipe.trainable();
        let missing = all - self.meter.held(Part::Gradients);
        self.meter.hold(Part::Gradients, missing.min(F32 * n));
    }

    /// `Layer::backward`: the caller holds x, the tape and dy; afterwards dx alone.
    fn layer_backward(&mut self, layer: usize, batch: Batch, tape: Tape) {
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

    /// `Decoder::head_backward`: x of all rows becomes dx of all rows.
    fn head_backward(&mut self, batch: Batch) {
        let d = self.dims.d;
        let rows = self.activation(batch.supervised, d);
        let x = self.activation(batch.tokens, d);
        self.meter.hold(Part::Layer, 2 * rows); // x at the rows, hidden
        if self.recipe.full {
            self.gradients_of(self.embedding());
        }
        self.meter.hold(Part::Layer, rows); // d_hidden
        self.logits_chunk(batch.supervised, true);
        self.meter.hold(Part::Layer, rows + x); // d_rows, dx
        self.meter.release(Part::Layer, 4 * rows + x);
        if self.recipe.full {
            self.gradients_of(self.recipe.final_norm());
        }
    }

    /// `back` if the gradient to the hidden states is asked for.
    fn logits_chunk(&mut self, rows: u64, back: bool) {
        let vocab = self.dims.vocab;
        // A GPU keeps a chunk and its gradient, the CPU turns one into the other.
        let (most, number) = match self.place {
            Place::Cpu { .. } => (chunk_rows(vocab as usize), F32),
            Place::Gpu => {
                let most = gpu_logit_rows(vocab as usize);
                (most, F32 + self.recipe.precision.activation)
            }
        };
        let rows = rows.min(most as u64);
        let bytes = number * rows * vocab;
        self.meter.hold(Part::Logits, bytes);
        let head = match self.recipe.precision.dense {
            F32 => 0,
            _ => self.on_cpu(block(vocab, self.dims.d)),
        };
        self.meter.hold(Part::Dequantised, head);
        self.product_buffers(rows, (vocab, self.dims.d), true);
        if back {
            self.product_buffers(rows, (vocab, self.dims.d), false);
        }
        self.meter.release(Part::Dequantised, head);
        self.meter.release(Part::Logits, bytes);
    }

    /// `Decoder::hidden`: a forward pass that keeps nothing, then the hidden states
    /// at some rows. Afterwards only those are held.
    fn hidden(&mut self, batch: Batch, rows: u64) -> u64 {
        let x = self.activation(batch.tokens, self.dims.d);
        self.meter.hold(Part::Layer, x);
        for layer in 0..self.recipe.arch.num_layers {
            let tape = self.layer_forward(layer, batch);
            self.meter.release(Part::Layer, x + tape.bytes);
        }
        let hidden = self.activation(rows, self.dims.d);
        self.meter.hold(Part::Layer, 2 * hidden);
        self.meter.release(Part::Layer, x + hidden);
        hidden
    }

    /// `Decoder::loss`.
    fn loss(&mut self, batch: Batch) {
        let hidden = self.hidden(batch, batch.supervised);
        self.logits_chunk(batch.supervised, false);
        self.meter.release(Part::Layer, hidden);
    }

    /// The test's largest pass; the logits of its rows come to the host in a second
    /// copy.
    fn test(&mut self, test: Test) {
        let (batch, cached) = match test {
            Test::Ranked(batch) => (batch, 0),
            Test::Generated { prompts, capacity } => {
                self.reserve_positions(capacity);
                (prompts, prompts.sequences * capacity)
            }
        };
        self.reserve_positions(batch.longest);
        let layers = self.recipe.arch.num_layers as u64;
        let cache = 2 * layers * self.activation(cached, self.dims.hk);
        self.meter.hold(Part::KvCache, cache);
        let hidden = self.hidden(batch, batch.sequences);
        let logits = F32 * batch.sequences * self.dims.vocab;
        self.meter.touch(Part::Logits, logits + self.on_cpu(logits));
        self.meter.release(Part::Layer, hidden);
        self.meter.release(Part::KvCache, cache);
    }
}
