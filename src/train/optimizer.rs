//! AdamW over all parameters with clipping by the global norm. Its moments are f32
//! beside the parameters, 8 bits wide, or in host memory.

use burn::tensor::Tensor;

use super::paged;
use crate::config::types::{Optimizer as Kind, TrainingConfig};
use crate::model::{Grads, Params};
use crate::ops::cpu::is_cpu;
use crate::ops::moments::{PAGE, Storage};
use crate::ops::{AdamW, Clip, HotOps, Moments8, Scalar};

/// The first and the second moment of one parameter.
#[derive(Clone, Debug)]
pub enum Moments {
    /// f32, where the parameter is.
    Plain { m: Tensor<2>, v: Tensor<2> },
    /// 8 bits, where the parameter is.
    Blockwise(Moments8),
    /// f32 on the host, while the parameter is on a device with memory of its own.
    Paged(paged::Moments),
}

/// The moments of all parameters, in their order.
pub struct Optimizer {
    pub kind: Kind,
    pub moments: Vec<Moments>,
    /// Updates made so far.
    pub steps: u64,
}

impl Moments {
    /// Zeros for a parameter.
    fn new(kind: Kind, p: &Tensor<2>) -> Self {
        let [rows, width] = p.dims();
        match Storage::of(kind, rows * width, is_cpu(&p.device())) {
            Storage::Plain => Self::Plain {
                m: p.zeros_like(),
                v: p.zeros_like(),
            },
            Storage::Blockwise => Self::Blockwise(Moments8::new(rows * width, &p.device())),
            Storage::Paged => Self::Paged(paged::Moments::new(rows * width)),
        }
    }

    fn step(
        self,
        ops: &dyn HotOps,
        p: Tensor<2>,
        g: &Tensor<2>,
        hyper: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Self) {
        match self {
            Self::Plain { m, v } => {
                let (p, m, v) = ops.adamw(p, g, m, v, hyper, clip);
                (p, Self::Plain { m, v })
            }
            Self::Blockwise(moments) => {
                let (p, moments) = ops.adamw_8bit(p, g, moments, hyper, clip);
                (p, Self::Blockwise(moments))
            }
            Self::Paged(mut moments) => {
                let p = moments.step(ops, p, g, hyper, clip, PAGE);
                (p, Self::Paged(moments))
            }
        }
    }
}

impl Optimizer {
    pub fn new(params: &Params, kind: Kind) -> Self {
        let values = params.values().iter();
        Self {
            kind,
            moments: values.map(|p| Moments::new(kind, p)).collect(),
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
        let mut values = Vec::with_capacity(decays.len());
        let mut moments = Vec::with_capacity(decays.len());
        let with_grads = params.take().into_iter().zip(grads.iter());
        let before = std::mem::take(&mut self.moments);
        for (((p, g), state), decay) in with_grads.zip(before).zip(decays) {
            let hyper = AdamW {
                lr,
                beta1: training.adam_beta1,
                beta2: training.adam_beta2,
                eps: training.adam_epsilon,
                weight_decay: if decay { training.weight_decay } else { 0.0 },
                step: self.steps,
            };
            // A parameter that nothing reached is left as it is, as torch does.
            let (p, state) = match g {
                Some(g) => state.step(ops, p, g, &hyper, &clip),
                None => (p, state),
            };
            values.push(p);
            moments.push(state);
        }
        params.put(values);
        self.moments = moments;
        clip.squared_norm
    }
}
