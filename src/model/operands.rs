//! LoRA matrices as operands among activations: those of a layer are cast together,
//! once for a forward pass and the backward that follows it, or for a KV cache with
//! DoRA's norms.

use burn::tensor::Tensor;

use super::params::{ParamId, Params};
use crate::ops::HotOps;

/// What the linears of one layer need of an adapter.
#[derive(Default)]
pub struct Operands {
    matrices: Vec<(ParamId, Tensor<2>)>,
    /// DoRA's 1 / |V|, by the parameter of its lengths.
    inverse_norms: Vec<(ParamId, Tensor<2>)>,
}

impl Operands {
    /// The matrices `ids`.
    pub fn new(ops: &dyn HotOps, params: &Params, ids: Vec<ParamId>) -> Self {
        let values: Vec<_> = ids.iter().map(|id| params.get(*id)).collect();
        let cast = ops.operands(&values);
        Self {
            matrices: ids.into_iter().zip(cast).collect(),
            inverse_norms: Vec::new(),
        }
    }

    /// For passes between which no parameter changes: what each would make of whole
    /// weights anew.
    pub fn lasting(self, inverse_norms: Vec<(ParamId, Tensor<2>)>) -> Self {
        Self {
            inverse_norms,
            ..self
        }
    }

    pub fn get(&self, id: ParamId) -> Option<&Tensor<2>> {
        find(&self.matrices, id)
    }

    /// Of the DoRA with these lengths.
    pub fn inverse_norms(&self, lengths: ParamId) -> Option<&Tensor<2>> {
        find(&self.inverse_norms, lengths)
    }
}

fn find(all: &[(ParamId, Tensor<2>)], id: ParamId) -> Option<&Tensor<2>> {
    let found = all.iter().find(|(known, _)| *known == id);
    found.map(|(_, operand)| operand)
}
