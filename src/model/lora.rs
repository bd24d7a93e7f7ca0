//! The matrices of LoRA, what DoRA adds to them, and the dropout before them.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::params::ParamId;
use super::pass::Pass;
use crate::rng::Stream;

/// Names the dropout stream among the program's random streams.
const DROPOUT: u64 = 0xD509;

/// LoRA matrices of one linear (Hu et al., 2021): `y += scale x B A dropout(x)`.
#[derive(Clone, Debug)]
pub struct Lora {
    /// `[r, in]`.
    pub a: ParamId,
    /// `[out, r]`.
    pub b: ParamId,
    pub scale: f32,
    pub dropout: f32,
    /// Tells the dropout streams of different modules apart.
    pub stream: u64,
    pub dora: Option<Dora>,
    /// A and B as they began, where the base lost them to the adapter (PiSSA).
    pub start: Option<Arc<[Vec<f32>; 2]>>,
}

/// What DoRA adds to [`Lora`].
#[derive(Clone, Debug)]
pub struct Dora {
    /// The lengths m, `[1, out]`.
    pub magnitude: ParamId,
    /// |w|^2 of the base's rows, `[1, out]`.
    pub squares: Tensor<2>,
}

impl Lora {
    /// Whether this pass drops elements of the adapter's input.
    pub(super) fn drops(&self, pass: &Pass<'_>) -> bool {
        pass.dropout.is_some() && self.dropout > 0.0
    }

    pub(super) fn dropout(&self, pass: &Pass<'_>, x: &Tensor<2>) -> Tensor<2> {
        match pass.dropout {
            Some(key) if self.drops(pass) => {
                let path = [DROPOUT, key.step, key.micro, self.stream];
                let first = pass.first_row as u64 * x.dims()[1] as u64;
                let stream = Stream::new(key.seed, &path).from(first);
                pass.ops.dropout(x, self.dropout, stream)
            }
            _ => x.clone(),
        }
    }
}
