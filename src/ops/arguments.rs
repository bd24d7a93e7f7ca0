//! What operations take and give besides tensors.

use burn::tensor::Tensor;

use super::scalar::Scalar;

/// Heads and scaling of grouped-query attention (Ainslie et al., 2023).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Multiplies the scores, 1/sqrt(head_dim) for Llama.
    pub scale: f32,
    /// A query sees so many of the newest keys, itself included (Beltagy et al.,
    /// 2020); `None` sees all.
    pub window: Option<usize>,
}

/// Hyperparameters of one AdamW update (Loshchilov and Hutter, 2019), as
/// `torch.optim.AdamW` applies them: decay first, then the bias-corrected step.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Counts from 1.
    pub step: u64,
}

/// Clipping by the global norm of all gradients: they are multiplied by
/// `max / (norm + 1e-6)` where that is below 1, as
/// `torch.nn.utils.clip_grad_norm_` does.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Squared norm of all gradients.
    pub squared_norm: Scalar,
    /// 0 turns clipping off.
    pub max_norm: f64,
}

impl Clip {
    /// The factor on the gradients; waits for the device.
    pub fn factor(&self) -> f64 {
        if self.max_norm > 0.0 {
            (self.max_norm / (self.squared_norm.value().sqrt() + 1e-6)).min(1.0)
        } else {
            1.0
        }
    }
}

/// What [`HotOps::cross_entropy`](super::HotOps::cross_entropy) returns.
pub struct CrossEntropy {
    /// Sum over the rows of -log p(target), in nats.
    pub loss_sum: Scalar,
    /// `[rows, hidden]`, already multiplied by the gradient scale; with gradients only.
    pub d_hidden: Option<Tensor<2>>,
    /// `[vocab, hidden]`, only where the head itself trains.
    pub d_head: Option<Tensor<2>>,
}

/// Which gradients [`HotOps::cross_entropy`](super::HotOps::cross_entropy) computes.
pub enum CrossEntropyGrad {
    None,
    /// d(scale x loss_sum)/d hidden.
    Hidden {
        scale: f32,
    },
    /// And into the head's gradient, added to what is given.
    HiddenAndHead {
        scale: f32,
        head_grad: Option<Tensor<2>>,
    },
}

/// The buffers of a step that its memory is laid out for, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of a layer's input, the one that there are most of.
    pub input: usize,
    /// Of the widest activation.
    pub widest: usize,
    /// Logits of a token.
    pub vocab: usize,
}
