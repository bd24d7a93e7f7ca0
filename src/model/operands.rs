//! LoRA matrices as operands among activations: those of a layer are cast together,
//! once for a forward pass and the backward that follows it.

use burn::tensor::Tensor;

use super::linear::{Linear, Pass};
use super::params::ParamId;

/// The matrices of one layer.
#[derive(Default)]
pub struct Operands(Vec<(ParamId, Tensor<2>)>);

impl Operands {
    /// Of the adapter that computes in `pass`.
    pub fn of<'a>(pass: &Pass<'_>, linears: impl Iterator<Item = &'a Linear>) -> Self {
        let Some(adapter) = pass.adapter else {
            return Self::default();
        };
        let loras = linears.filter_map(|linear| linear.lora(adapter));
        let ids: Vec<ParamId> = loras.flat_map(|lora| [lora.a, lora.b]).collect();
        let values: Vec<_> = ids.iter().map(|id| pass.params.get(*id)).collect();
        let cast = pass.ops.operands(&values);
        Self(ids.into_iter().zip(cast).collect())
    }

    pub fn get(&self, id: ParamId) -> Option<&Tensor<2>> {
        let found = self.0.iter().find(|(known, _)| *known == id);
        found.map(|(_, operand)| operand)
    }
}
