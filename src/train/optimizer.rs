//! AdamW over all parameters with clipping by the global norm. Its moments are f32
//! beside the parameters, 8 bits wide, or in host memory.

use burn::tensor::Tensor;

use super::paged;
use crate::config::types::{Optimizer as Kind, TrainingConfig};
use crate::model::{Grads, Params};
use crate::ops::is_cpu;
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
    fn new(kind: Kind, p: &Tensor<2>, is_table: bool) -> Self {
        let [rows, width] = p.dims();
        match Storage::of(kind, rows * width, is_table, is_cpu(&p.device())) {
            Storage::Plain => Self::Plain {
                m: p.zeros_like(),
                v: p.zeros_like(),
            },
            Storage::Blockwise => Self::Blockwise(Moments8::new(rows * width, &p.device())),
            Storage::Paged => Self::Paged(paged::Moments::new(rows * width)),
        }
    }
}

impl Optimizer {
    pub fn new(params: &Params, kind: Kind) -> Self {
        let values = params.values().iter().zip(params.tables());
        let moments = values.map(|(p, is_table)| Moments::new(kind, p, *is_table));
        Self {
            kind,
            moments: moments.collect(),
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
        let mut updated = Vec::with_capacity(decays.len());
        let mut groups = [false, true].map(|decay| Group {
            hyper: AdamW {
                lr,
                beta1: training.adam_beta1,
                beta2: training.adam_beta2,
                eps: training.adam_epsilon,
                weight_decay: if decay { training.weight_decay } else { 0.0 },
                step: self.steps,
            },
            plain: Members::default(),
            blockwise: Members::default(),
        });
        let with_grads = params.take().into_iter().zip(grads.iter());
        let before = std::mem::take(&mut self.moments);
        for (i, (((p, g), state), decay)) in with_grads.zip(before).zip(decays).enumerate() {
            let group = &mut groups[usize::from(decay)];
            match (g, state) {
                // A parameter that nothing reached is left as it is, as torch does.
                (None, state) => updated.push((i, p, state)),
                (Some(g), Moments::Plain { m, v }) => group.plain.add(i, [p, m, v], g),
                (Some(g), Moments::Blockwise(state)) => group.blockwise.add(i, (p, state), g),
                (Some(g), Moments::Paged(mut state)) => {
                    let p = state.step(ops, p, g, &group.hyper, &clip, PAGE);
                    updated.push((i, p, Moments::Paged(state)));
                }
            }
        }
        for group in groups {
            updated.extend(group.step(ops, &clip));
        }
        updated.sort_by_key(|(i, ..)| *i);
        let updated = updated.into_iter().map(|(_, p, state)| (p, state));
        let (values, moments) = updated.unzip();
        params.put(values);
        self.moments = moments;
        clip.squared_norm
    }
}

/// Parameters that are updated with the same numbers, many at once.
struct Group<'a> {
    hyper: AdamW,
    plain: Members<'a, [Tensor<2>; 3]>,
    blockwise: Members<'a, (Tensor<2>, Moments8)>,
}

/// Parameters with their moments, in the order of `ids`.
struct Members<'a, T> {
    ids: Vec<usize>,
    states: Vec<T>,
    grads: Vec<&'a Tensor<2>>,
}

impl<T> Default for Members<'_, T> {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            states: Vec::new(),
            grads: Vec::new(),
        }
    }
}

impl<'a, T> Members<'a, T> {
    fn add(&mut self, id: usize, state: T, grad: &'a Tensor<2>) {
        self.ids.push(id);
        self.states.push(state);
        self.grads.push(grad);
    }
}

impl Group<'_> {
    fn step(self, ops: &dyn HotOps, clip: &Clip) -> Vec<(usize, Tensor<2>, Moments)> {
        let Self {
            hyper,
            plain,
            blockwise,
        } = self;
        let new = ops.adamw_all(plain.states, &plain.grads, &hyper, clip);
        let new = new
            .into_iter()
            .map(|[p, m, v]| (p, Moments::Plain { m, v }));
        let new_8bit = ops.adamw_8bit_all(blockwise.states, &blockwise.grads, &hyper, clip);
        let new_8bit = new_8bit
            .into_iter()
            .map(|(p, state)| (p, Moments::Blockwise(state)));
        let ids = plain.ids.into_iter().chain(blockwise.ids);
        let all = ids.zip(new.chain(new_8bit));
        all.map(|(i, (p, state))| (i, p, state)).collect()
    }
}
