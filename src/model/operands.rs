//! LoRA matrices as operands among activations: those of a layer are cast together,
//! once for a forward pass and the backward that follows it.

use burn::tensor::Tensor;

use super::params::{ParamId, Params};
use crate::ops::HotOps;

/// The matrices of one layer.
#[derive(Default)]
pub struct Operands(Vec<(ParamId, Tensor<2>)>);

impl Operands {
    /// The matrices `ids`.
    pub fn new(ops: &dyn HotOps, params: &Params, ids: Vec<ParamId>) -> Self {
        let values: Vec<_> = ids.iter().map(|id| params.get(*id)).collect();
        let cast = ops.operands(&values);
        Self(ids.into_iter().zip(cast).collect())
    }

    pub fn get(&self, id: ParamId) -> Option<&Tensor<2>> {
        let found = self.0.iter().find(|(known, _)| *known == id);
        found.map(|(_, operand)| operand)
    }
}
