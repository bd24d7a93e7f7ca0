//! Adapters that begin with a part of the weight they stand beside: PiSSA (Meng et
//! al., 2024, arXiv:2404.02948) and LoftQ (Li et al., 2023, arXiv:2310.08659), by the
//! arithmetic of PEFT 0.21.

use rayon::prelude::*;

use super::hf_config::Linear;
use super::init::module_seed;
use super::peft::LoraTensors;
use crate::config::types::{LoraConfig, LoraInit, QuantizationConfig};
use crate::ops::cpu::svd::{Svd, Triplets, triplets};
use crate::ops::nf4::{self, Nf4};

/// Takes adapters out of dense weights.
#[derive(Clone, Debug)]
pub(super) struct Start {
    init: LoraInit,
    r: usize,
    /// LoftQ's rounds.
    rounds: usize,
    quantization: QuantizationConfig,
    seed: u64,
}

impl Start {
    /// `None` where a new adapter begins as its base, or an old one is read.
    pub fn new(lora: &LoraConfig, quantization: &QuantizationConfig, seed: u64) -> Option<Self> {
        let init = lora.init_lora_weights;
        (init.decomposes() && lora.init_from.is_none()).then_some(Self {
            init,
            r: lora.r,
            rounds: lora.loftq_iter,
            quantization: quantization.clone(),
            seed,
        })
    }

    /// Sets A and B from the dense `[out, in]` weight of their module, `scale` being what
    /// B A is multiplied by. What the base keeps is afterwards in `weight` (PiSSA) or is
    /// returned quantised (LoftQ, which takes the scale as 1).
    pub fn take(&self, weight: &mut [f32], lora: &mut LoraTensors, scale: f32) -> Option<Nf4> {
        let how = match self.init {
            LoraInit::PissaSteps(steps) => Svd::Steps(steps),
            _ => Svd::Exact,
        };
        if self.init != LoraInit::Loftq {
            self.decompose(weight, lora, how, scale);
            lora.add_to(weight, -scale);
            return None;
        }
        let shape = [lora.out_features, lora.in_features];
        let q = &self.quantization;
        let mut rest = weight.to_vec();
        let mut rounds = self.rounds;
        loop {
            let base = nf4::quantize(&rest, shape, q.block_size, q.double_quant);
            base.dequantize_into(&mut rest);
            let pairs = rest.par_iter_mut().zip(&*weight);
            pairs.for_each(|(base, dense)| *base = dense - *base);
            self.decompose(&rest, lora, how, 1.0);
            rounds -= 1;
            if rounds == 0 {
                return Some(base);
            }
            rest.copy_from_slice(weight);
            lora.add_to(&mut rest, -1.0);
        }
    }

    /// The base that LoftQ leaves of the dense weight of a linear.
    pub fn base(&self, weight: &mut [f32], linear: &Linear) -> Nf4 {
        let mut lora = LoraTensors {
            module: linear.module.clone(),
            a: Vec::new(),
            b: vec![0.0; linear.out_features * self.r],
            magnitude: None,
            r: self.r,
            in_features: linear.in_features,
            out_features: linear.out_features,
        };
        let base = self.take(weight, &mut lora, 1.0);
        base.expect("only LoftQ quantises another base")
    }

    /// `scale B A` becomes the sum of the largest triplets of `weight`; A and B share
    /// the values by their square roots.
    fn decompose(&self, weight: &[f32], lora: &mut LoraTensors, how: Svd, scale: f32) {
        let shape = [lora.out_features, lora.in_features];
        let seed = module_seed(&lora.module, self.seed);
        let Triplets {
            left,
            values,
            right,
        } = triplets(weight, shape, lora.r, how, seed);
        // Near the end of f32 a base without its part could be infinite: it stays whole,
        // beside an adapter of zeros.
        let sound = |value: f32| value.max(value / scale) < f32::MAX / 4.0;
        if !values.iter().copied().all(sound) {
            lora.a = vec![0.0; lora.r * lora.in_features];
            lora.b.fill(0.0);
            return;
        }
        let roots: Vec<f32> = values.iter().map(|v| (v / scale).sqrt()).collect();
        let rows = right.chunks_exact(lora.in_features).zip(&roots);
        lora.a = rows
            .flat_map(|(row, root)| row.iter().map(move |v| root * v))
            .collect();
        for (o, row) in lora.b.chunks_exact_mut(lora.r).enumerate() {
            for (i, (v, root)) in row.iter_mut().zip(&roots).enumerate() {
                *v = left[i * lora.out_features + o] * root;
            }
        }
    }
}

impl LoraTensors {
    /// Adds `scale x B A` to a weight of `[out, in]`, row by row on all threads.
    pub(super) fn add_to(&self, weight: &mut [f32], scale: f32) {
        let (r, width) = (self.r, self.in_features);
        let rows = weight.par_chunks_mut(width).zip(self.b.par_chunks(r));
        rows.for_each_init(
            || vec![0f32; width],
            |delta, (row, b)| {
                delta.fill(0.0);
                for (factor, a) in b.iter().zip(self.a.chunks_exact(width)) {
                    for (sum, a) in delta.iter_mut().zip(a) {
                        *sum += factor * a;
                    }
                }
                for (w, d) in row.iter_mut().zip(delta) {
                    *w += scale * *d;
                }
            },
        );
    }

    /// A trained adapter that began as `start`, as one on the base before that was
    /// taken out: `B A - B0 A0 = [B, -B0] [A; A0]`, of twice the rank.
    pub(super) fn relative_to(mut self, start: &[Vec<f32>; 2]) -> Self {
        let [a, b] = start;
        self.a.extend_from_slice(a);
        let rows = self.b.chunks_exact(self.r).zip(b.chunks_exact(self.r));
        self.b = rows
            .flat_map(|(now, then)| now.iter().copied().chain(then.iter().map(|v| -v)))
            .collect();
        self.r *= 2;
        self
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
