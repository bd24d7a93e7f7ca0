//! AdamW over all parameters with clipping by the global norm.

use burn::tensor::Tensor;

use crate::config::types::TrainingConfig;
use crate::model::{Grads, Params};
use crate::ops::{AdamW, Clip, HotOps, Scalar};

/// First and second moments, in parameter order.
pub struct Optimizer {
    pub m: Vec<Tensor<2>>,
    pub v: Vec<Tensor<2>>,
    /// Updates made so far.
    pub steps: u64,
}

impl Optimizer {
    pub fn new(params: &Params) -> Self {
        let zeros = || params.values().iter().map(|p| p.zeros_like()).collect();
        Self {
            m: zeros(),
            v: zeros(),
            steps: 0,
        }
    }

    /// Clips the gradients to `max_grad_norm` (0 turns it off), updates every
    /// parameter and returns the squared norm before clipping, which need not have
    /// been computed yet.
    pub fn step(
        &mut self,
        ops: &dyn HotOps,
        params: &mut Params,
        grads: Grads,
        training: &TrainingConfig,
        lr: f64,
    ) -> Scalar {
        let present: Vec<&Tensor<2>> = grads.iter().flatten().collect();
        let clip = Clip {
            squared_norm: ops.sum_squares(&present),
            max_norm: training.max_grad_norm,
        };
        self.steps += 1;
        let decays = params.decays().to_vec();
        let (m, v) = (std::mem::take(&mut self.m), std::mem::take(&mut self.v));
        let mut values = Vec::with_capacity(decays.len());
        let moments = m.into_iter().zip(v);
        let with_grads = params.take().into_iter().zip(grads.iter());
        for (((p, g), (m, v)), decay) in with_grads.zip(moments).zip(decays) {
            let hyper = AdamW {
                lr,
                beta1: training.adam_beta1,
                beta2: training.adam_beta2,
                eps: training.adam_epsilon,
                weight_decay: if decay { training.weight_decay } else { 0.0 },
                step: self.steps,
            };
            // A parameter that nothing reached is left as it is, as torch does.
            let (p, m, v) = match g {
                Some(g) => ops.adamw(p, g, m, v, &hyper, &clip),
                None => (p, m, v),
            };
            values.push(p);
            self.m.push(m);
            self.v.push(v);
        }
        params.put(values);
        clip.squared_norm
    }
}
