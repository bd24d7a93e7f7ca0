//! A run with sizes in place of tensors: every function here follows the one of
//! the same name in `model` or `train` and takes and lets go of memory where it
//! does. When one changes, so must the other; tests/counted/plan.rs compares the two.

mod layer;
mod linear;
mod load;

use super::meter::{Memory, Meter, Part, Phase};
use super::workload::{Batch, Similarity, Test, Workload};
use super::{CONTEXT_BYTES, Dims, Place, Recipe};
use crate::ops::{chunk_rows, gpu_logit_rows};

/// Bytes of the f32 numbers of adapters, moments, log-sums and logits.
const F32: u64 = 4;

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
            self.meter.hold(Part::Norms, F32 * recipe.lengths());
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
            if workload.keeps_best {
                self.meter.touch(Part::InTransit, F32 * trainable);
            }
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
        let lowest = self.recipe.lowest_trained();
        let mut kept = Vec::with_capacity(layers);
        let away = self.recipe.offloads && matches!(self.place, Place::Gpu);
        self.meter.hold(Part::Layer, width); // x
        for layer in 0..lowest {
            self.layer_output(layer, batch, false);
        }
        for layer in lowest..layers {
            let tape = match self.recipe.checkpointing {
                true => {
                    self.layer_output(layer, batch, !away);
                    0
                }
                false => self.layer_forward(layer, batch),
            };
            if !away {
                self.meter.turn(Part::Layer, Part::Kept, width + tape);
            }
            kept.push(tape);
        }
        self.head_backward(batch); // x becomes dx
        for layer in (lowest..layers).rev() {
            let tape = kept.pop().unwrap_or_default();
            match away {
                true => self.meter.hold(Part::Layer, width),
                false => self.meter.turn(Part::Kept, Part::Layer, width + tape),
            }
            match self.recipe.checkpointing {
                true => self.layer_backward_again(layer, batch),
                false => self.layer_backward(layer, batch, tape),
            }
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

    /// Gradients that the first micro-batch makes and later ones add to.
    fn gradients_of(&mut self, n: u64) {
        let all = F32 * self.recipe.trainable();
        let missing = all - self.meter.held(Part::Gradients);
        self.meter.hold(Part::Gradients, missing.min(F32 * n));
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
        self.product_buffers(rows, (vocab, self.dims.d), true, false);
        if back {
            self.product_buffers(rows, (vocab, self.dims.d), false, false);
        }
        self.meter.release(Part::Logits, bytes);
    }

    /// `Decoder::hidden`: a forward pass that keeps nothing, then the hidden states
    /// at some rows. Afterwards only those are held.
    fn hidden(&mut self, batch: Batch, rows: u64) -> u64 {
        let x = self.activation(batch.tokens, self.dims.d);
        self.meter.hold(Part::Layer, x);
        for layer in 0..self.recipe.arch.num_layers {
            self.layer_output(layer, batch, false);
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
        let mut cache = 2 * layers * self.activation(cached, self.dims.hk);
        if cached > 0 {
            // It keeps the operands of all layers; the pass counts those of one.
            let others = 1..self.recipe.arch.num_layers;
            cache += others.map(|layer| self.operands(layer)).sum::<u64>();
            // And DoRA's norms.
            cache += F32 * self.recipe.lengths();
        }
        self.meter.hold(Part::KvCache, cache);
        let hidden = self.hidden(batch, batch.sequences);
        let logits = F32 * batch.sequences * self.dims.vocab;
        self.meter.touch(Part::Logits, logits + self.on_cpu(logits));
        self.meter.release(Part::Layer, hidden);
        self.meter.release(Part::KvCache, cache);
    }
}
