//! The weight of a layer, dense or in 4 bits, frozen or trained, on the device or not.

use burn::tensor::Tensor;

use super::host_table::HostTable;
use super::params::ParamId;
use super::pass::Pass;
use crate::ops::{Indices, Nf4Tensor};

/// A matrix `[out, in]` (or a gain `[1, n]`) wherever it lives.
#[derive(Clone)]
pub enum Weight {
    Dense(Tensor<2>),
    Nf4(Nf4Tensor),
    Param(ParamId),
    /// An embedding that is not on the device.
    Host(HostTable),
}

impl Weight {
    /// The dense values as an operand among activations; dequantised for this use
    /// only.
    pub fn dense(&self, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Dense(w) => w.clone(),
            Self::Nf4(w) => pass.ops.nf4_dequantize(w),
            Self::Param(id) => pass.ops.matrix_operand(pass.params.get(*id)),
            Self::Host(table) => table.whole(),
        }
    }

    /// The dense values in the type they are stored in, for operations that read
    /// either: gains and rows of an embedding.
    pub fn stored(&self, pass: &Pass<'_>) -> Tensor<2> {
        match self {
            Self::Param(id) => pass.params.get(*id).clone(),
            other => other.dense(pass),
        }
    }

    /// Rows of an embedding as activations.
    pub fn rows(&self, pass: &Pass<'_>, ids: &Indices) -> Tensor<2> {
        let rows = match self {
            Self::Host(table) => table.rows(ids),
            other => pass.ops.gather_rows(&other.stored(pass), ids),
        };
        pass.ops.operand(&rows)
    }

    /// `sum + x W^T` if `transposed`, else `sum + x W`; and with LoRA's operands `low`
    /// their product, `left right^T` or `left right`.
    pub(super) fn product_low(
        &self,
        pass: &Pass<'_>,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        low: [&Tensor<2>; 2],
        transposed: bool,
    ) -> Tensor<2> {
        let ops = pass.ops;
        if let Self::Nf4(w) = self {
            return ops.nf4_gemm_low(sum, x, w, low, transposed);
        }
        let y = self.product(pass, sum, x, transposed);
        ops.gemm_add(y, low[0], false, low[1], transposed, 1.0)
    }

    /// `sum + x W^T` if `transposed`, else `sum + x W`.
    pub(super) fn product(
        &self,
        pass: &Pass<'_>,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        transposed: bool,
    ) -> Tensor<2> {
        let ops = pass.ops;
        match (self, sum) {
            (Self::Nf4(w), sum) => ops.nf4_gemm(sum, x, w, transposed),
            (_, Some(sum)) => ops.gemm_add(sum, x, false, &self.dense(pass), transposed, 1.0),
            (_, None) => ops.gemm(x, false, &self.dense(pass), transposed, 1.0),
        }
    }

    pub fn param(&self) -> Option<ParamId> {
        match self {
            Self::Param(id) => Some(*id),
            _ => None,
        }
    }

    /// Bytes of frozen weight that stay in the device's memory.
    pub fn frozen_bytes(&self) -> usize {
        match self {
            Self::Dense(w) => w.dtype().size() * w.dims().iter().product::<usize>(),
            Self::Nf4(w) => w.bytes(),
            Self::Param(_) | Self::Host(_) => 0,
        }
    }
}
