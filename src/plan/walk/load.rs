//! Loading, with sizes in place of tensors.

use super::super::meter::Part;
use super::super::{Dims, Nf4Layout, Place};
use super::{F32, Walk};
use crate::ops::cpu::svd;
use crate::ops::nf4::TASK;

impl Walk<'_> {
    /// `model::load`: a tensor at a time is read, then quantised or kept. What trains
    /// is f32; the rest that is not quantised is as the precision says.
    pub(super) fn load(&mut self, nf4: Option<Nf4Layout>, trains: bool, decomposes: bool) {
        let Dims { d, vocab, .. } = self.dims;
        let positions = self.recipe.positions();
        let turned = self
            .recipe
            .arch
            .layer_linears(0)
            .iter()
            .any(|l| l.transposed);
        // Beside a GPU a frozen embedding that is not the head as well stays outside.
        let here = trains
            || self.recipe.arch.tie_word_embeddings
            || matches!(self.place, Place::Cpu { .. });
        if here {
            self.load_dense(Part::Embedding, vocab * d, trains);
        }
        self.load_dense(Part::Embedding, positions, trains);
        for layer in 0..self.recipe.arch.num_layers {
            for (i, (out, inn)) in self.recipe.linears().into_iter().enumerate() {
                let n = out * inn;
                let rank = self.recipe.ranks[layer][i];
                let taken = decomposes && rank > 0;
                // A matrix that is stored the other way round is turned in a copy.
                let copy = if turned { self.on_cpu(F32 * n) } else { 0 };
                let Some(layout) = nf4 else {
                    self.meter.hold(Part::InTransit, copy);
                    self.load_dense(Part::DenseLinears, n, trains);
                    self.meter.release(Part::InTransit, copy);
                    if taken {
                        self.decompose(out, inn, rank, false);
                    }
                    continue;
                };
                // From a file it is quantised as it is read, else from f32.
                let read = match self.recipe.pretrained && !turned && !taken {
                    true => self.read_buffers(n),
                    false => self.on_cpu(F32 * n),
                };
                self.meter.hold(Part::InTransit, read);
                self.meter.touch(Part::InTransit, copy);
                if taken {
                    self.decompose(out, inn, rank, !self.recipe.keeps_start);
                }
                let maxima = self.on_cpu(F32 * n.div_ceil(layout.block_size as u64));
                let (codes, scales) = layout.bytes(n);
                self.meter.hold(Part::InTransit, maxima);
                self.meter.hold(Part::Nf4Codes, codes);
                self.meter.hold(Part::Nf4Scales, scales);
                self.meter.release(Part::InTransit, read + maxima);
            }
            self.load_vectors(self.recipe.vectors(), trains);
        }
        self.load_vectors(self.recipe.final_norm(), trains);
        if !self.recipe.arch.tie_word_embeddings {
            self.load_dense(Part::Head, vocab * d, trains);
        }
    }

    /// `Start::take`: while the whole weight is there, its largest triplets are found.
    fn decompose(&mut self, out: u64, inn: u64, rank: usize, rest: bool) {
        let found = svd::bytes([out as usize, inn as usize], rank) as u64;
        // LoftQ decomposes what is left in a second copy.
        let rest = if rest { F32 * out * inn } else { 0 };
        self.meter.touch(Part::InTransit, self.on_cpu(found + rest));
    }

    /// The numbers that are read become the tensor; on the CPU those of another type
    /// are read beside it.
    fn load_dense(&mut self, part: Part, n: u64, trains: bool) {
        let dense = self.recipe.precision.dense;
        // In pieces from a file, else or for another type whole.
        let read = match (self.recipe.pretrained, dense == F32 || trains) {
            (false, true) => 0,
            (true, true) => self.read_buffers(n),
            (_, false) => self.on_cpu(F32 * n),
        };
        self.meter.hold(Part::InTransit, read);
        match trains {
            true => self.meter.hold(Part::Trained, F32 * n),
            false => self.meter.hold(part, dense * n),
        }
        self.meter.release(Part::InTransit, read);
    }

    /// Pieces of the file, one a thread, as wide as any type that is read.
    fn read_buffers(&self, n: u64) -> u64 {
        match self.place {
            Place::Cpu { threads, .. } => F32 * n.min((TASK * threads) as u64),
            Place::Gpu => 0,
        }
    }

    /// Norms and biases, which stay f32.
    fn load_vectors(&mut self, n: u64, trains: bool) {
        let part = if trains { Part::Trained } else { Part::Norms };
        self.meter.hold(part, F32 * n);
    }
}
