//! The optimiser's operations.

use burn::tensor::Tensor;

use super::super::cpu::CPU;
use super::super::moments8::{BLOCK, Codes};
use super::super::{AdamW, Clip, HotOps, Moments8};
use super::Checker;

impl Checker {
    /// More parameters than go into one launch, all updated at once.
    pub(super) fn optimiser(&mut self) {
        let small = (0..70).map(|i| [1 + i % 3, 5 + 7 * i]);
        let shapes: Vec<_> = [[1, 1], [1, 17], [16, 2500]]
            .into_iter()
            .chain(small)
            .collect();
        let grads: Vec<_> = shapes.iter().map(|&s| self.parameters(s)).collect();
        let (cpu, gpu): (Vec<_>, Vec<_>) = grads.iter().map(|(c, g)| (c, g)).unzip();
        let want = CPU.sum_squares(&cpu);
        let got = self.gpu.sum_squares(&gpu);
        let case = format!("{} tensors", shapes.len());
        self.record_scalar("sum_squares", &case, got.value(), want.value(), 1e-5);
        let clips = [&want, &got].map(|squared_norm| Clip {
            squared_norm: squared_norm.clone(),
            max_norm: 1.0,
        });
        let hyper = AdamW {
            lr: 3e-3,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 3,
        };
        self.plain_moments(&shapes, &grads, &hyper, &clips);
        self.eight_bit_moments(&shapes, &grads, &hyper, &clips);
    }

    fn plain_moments(
        &mut self,
        shapes: &[[usize; 2]],
        grads: &[(Tensor<2>, Tensor<2>)],
        hyper: &AdamW,
        [clip, gpu_clip]: &[Clip; 2],
    ) {
        let mut wanted = Vec::new();
        let mut states = Vec::new();
        for (shape, (g, _)) in shapes.iter().zip(grads) {
            let (p, gp) = self.parameters(*shape);
            let (m, gm) = self.parameters(*shape);
            let (v, gv) = self.parameters(*shape);
            let (v, gv) = (v.clone() * v, gv.clone() * gv);
            wanted.push(CPU.adamw(p, g, m, v, hyper, clip));
            states.push([gp, gm, gv]);
        }
        let gpu: Vec<_> = grads.iter().map(|(_, g)| g).collect();
        let new = self.gpu.adamw_all(states, &gpu, hyper, gpu_clip);
        for ((shape, [p, m, v]), want) in shapes.iter().zip(new).zip(wanted) {
            let case = format!("{shape:?}");
            self.record_within("adamw", &case, &p, &want.0, 1e-5);
            self.record_within("adamw first moment", &case, &m, &want.1, 1e-5);
            self.record_within("adamw second moment", &case, &v, &want.2, 1e-5);
        }
    }

    /// Codes may differ where a number lies on the edge of two.
    fn eight_bit_moments(
        &mut self,
        shapes: &[[usize; 2]],
        grads: &[(Tensor<2>, Tensor<2>)],
        hyper: &AdamW,
        [clip, gpu_clip]: &[Clip; 2],
    ) {
        let mut wanted = Vec::new();
        let mut states = Vec::new();
        for (shape, (g, _)) in shapes.iter().zip(grads) {
            let n = shape[0] * shape[1];
            let mut codes = || Codes {
                codes: self.indices(n, 256).iter().map(|i| *i as u8).collect(),
                absmax: vec![0.5; n.div_ceil(BLOCK)],
            };
            let (m, v) = (codes(), codes());
            let (p, gp) = self.parameters(*shape);
            let state = Moments8::from_codes(m.clone(), v.clone(), &p.device());
            wanted.push(CPU.adamw_8bit(p, g, state, hyper, clip));
            states.push((gp, Moments8::from_codes(m, v, &self.device)));
        }
        let gpu: Vec<_> = grads.iter().map(|(_, g)| g).collect();
        let new = self.gpu.adamw_8bit_all(states, &gpu, hyper, gpu_clip);
        for ((shape, (got, got_state)), (want, want_state)) in shapes.iter().zip(new).zip(wanted) {
            let case = format!("{shape:?}");
            self.record_within("adamw_8bit", &case, &got, &want, 1e-5);
            let ((wm, wv), (gm, gv)) = (want_state.codes(), got_state.codes());
            for (want, got) in [(wm, gm), (wv, gv)] {
                let pairs = want.codes.iter().zip(&got.codes);
                let equal = pairs.filter(|(a, b)| a == b).count() as f64;
                let n = want.codes.len() as f64;
                self.record_scalar("adamw_8bit codes", &case, equal, n, 0.01);
                for (want, got) in want.absmax.iter().zip(&got.absmax) {
                    let (got, want) = (f64::from(*got), f64::from(*want));
                    self.record_scalar("adamw_8bit maxima", &case, got, want, 1e-5);
                }
            }
        }
    }
}
