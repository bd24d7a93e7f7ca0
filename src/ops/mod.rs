//! The hot operations of training and inference behind one trait.
//!
//! Activations are ragged: the real tokens of a batch stand one after another
//! as rows of a `[tokens, features]` tensor, sequences are [`Span`]s of rows, and
//! padding does not exist. Every operation comes with its own backward; nothing
//! here uses a tape.
//!
//! Two implementations: [`cpu`] works on the storage of burn's flex tensors with
//! all cores; [`composed`] is written in plain burn tensor operations, runs on
//! every burn device, and is the obvious reference the CPU kernels are tested
//! against.

pub mod composed;
pub mod cpu;
pub mod nf4;
mod nf4_map;
mod nf4_tensor;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

pub use nf4_tensor::Nf4Tensor;

use crate::rng::Stream;

/// One sequence of a ragged batch: `q_len` query rows starting at row `q_start`
/// attend causally to `k_len` key rows starting at `k_start`; the last query is
/// aligned with the last key. In training both ranges are the same rows; with a
/// KV cache the keys live in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub q_start: usize,
    pub q_len: usize,
    pub k_start: usize,
    pub k_len: usize,
}

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
}

/// Cosines and sines of rotary position embeddings (Su et al., 2021) in the
/// rotate-half layout of Hugging Face: `[positions, head_dim / 2]`, row-major.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub cos: Arc<[f32]>,
    pub sin: Arc<[f32]>,
    pub head_dim: usize,
}

impl RopeTable {
    /// Angles `position x inv_freq` in f32, as transformers computes them.
    pub fn new(inv_freq: &[f32], positions: usize) -> Self {
        let angles = (0..positions).flat_map(|p| inv_freq.iter().map(move |f| p as f32 * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.cos(), a.sin())).unzip();
        Self {
            cos: cos.into(),
            sin: sin.into(),
            head_dim: inv_freq.len() * 2,
        }
    }

    /// Number of positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len() / (self.head_dim / 2)
    }
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
    /// Multiplies the gradient first: the factor of global norm clipping.
    pub grad_scale: f64,
}

/// What [`HotOps::cross_entropy`] returns.
pub struct CrossEntropy {
    /// Sum over the rows of -log p(target), in nats.
    pub loss_sum: f64,
    /// `[rows, hidden]`, already multiplied by the gradient scale; with gradients only.
    pub d_hidden: Option<Tensor<2>>,
    /// `[vocab, hidden]`, only where the head itself trains.
    pub d_head: Option<Tensor<2>>,
}

/// Which gradients [`HotOps::cross_entropy`] computes.
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

/// The hot operations. All float tensors are f32 on the device the
/// implementation was chosen for; shapes are `[rows, columns]`.
pub trait HotOps: Send + Sync {
    /// `alpha x op(a) . op(b)`, where `op` transposes if its flag is set.
    fn gemm(&self, a: &Tensor<2>, ta: bool, b: &Tensor<2>, tb: bool, alpha: f32) -> Tensor<2>;

    /// `c + alpha x op(a) . op(b)`; writes into `c` where it is not shared.
    fn gemm_add(
        &self,
        c: Tensor<2>,
        a: &Tensor<2>,
        ta: bool,
        b: &Tensor<2>,
        tb: bool,
        alpha: f32,
    ) -> Tensor<2>;

    /// The dense `[out, in]` weight of an NF4 tensor.
    fn nf4_dequantize(&self, weight: &Nf4Tensor) -> Tensor<2>;

    /// `x / rms(x) x gain` by rows; `gain` is `[1, d]` (Zhang and Sennrich, 2019).
    fn rms_norm(&self, x: &Tensor<2>, gain: &Tensor<2>, eps: f32) -> Tensor<2>;

    /// Gradients of [`HotOps::rms_norm`] to `x` and, if `want_gain`, to the gain.
    fn rms_norm_backward(
        &self,
        x: &Tensor<2>,
        gain: &Tensor<2>,
        dy: &Tensor<2>,
        eps: f32,
        want_gain: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>);

    /// Rotates each head of `[tokens, heads x head_dim]` by its row's position;
    /// `inverse` rotates back, which is the backward.
    fn rope(&self, x: Tensor<2>, table: &RopeTable, positions: &[u32], inverse: bool) -> Tensor<2>;

    /// `silu(gate) x up` (Shazeer, 2020).
    fn swiglu(&self, gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2>;

    /// Gradients of [`HotOps::swiglu`] to gate and up.
    fn swiglu_backward(
        &self,
        gate: &Tensor<2>,
        up: &Tensor<2>,
        dy: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>);

    /// Causal grouped-query attention. `q` is `[tokens, heads x head_dim]`, `k` and
    /// `v` are `[key rows, kv_heads x head_dim]`. Returns the output in the shape of
    /// `q` and the log-sum-exp of the scaled scores, `[tokens, heads]`.
    fn attention(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &[Span],
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>);

    /// Gradients of [`HotOps::attention`] to q, k and v, recomputing the scores
    /// from the log-sum-exp block by block (Dao et al., 2022).
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        out: &Tensor<2>,
        lse: &Tensor<2>,
        dout: &Tensor<2>,
        spans: &[Span],
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>);

    /// Zeroes each element with probability `p` and scales the rest by 1/(1-p);
    /// element i drops iff `stream.uniform(i) < p`, so the same call on a gradient
    /// is the backward.
    fn dropout(&self, x: &Tensor<2>, p: f32, stream: Stream) -> Tensor<2>;

    /// `a + b` of one shape; writes into `a` where it is not shared.
    fn add(&self, a: Tensor<2>, b: &Tensor<2>) -> Tensor<2>;

    /// Rows `ids` of `table`.
    fn gather_rows(&self, table: &Tensor<2>, ids: &[u32]) -> Tensor<2>;

    /// Adds row i of `src` to row `ids[i]` of `dst`.
    fn scatter_add_rows(&self, dst: Tensor<2>, ids: &[u32], src: &Tensor<2>) -> Tensor<2>;

    /// Overwrites row `ids[i]` of `dst` with row i of `src` (the KV cache).
    fn write_rows(&self, dst: Tensor<2>, ids: &[u32], src: &Tensor<2>) -> Tensor<2>;

    /// Linear head and cross-entropy by chunks of rows, so that all logits never
    /// exist at once. `hidden` is `[rows, hidden]`, `head` `[vocab, hidden]`.
    fn cross_entropy(
        &self,
        hidden: &Tensor<2>,
        head: &Tensor<2>,
        targets: &[u32],
        grad: CrossEntropyGrad,
    ) -> CrossEntropy;

    /// One AdamW update; returns the parameter and its two moments.
    fn adamw(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        m: Tensor<2>,
        v: Tensor<2>,
        hyper: &AdamW,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>);

    /// Sum of squares of all elements, accumulated in f64.
    fn sum_squares(&self, x: &Tensor<2>) -> f64;
}

/// The implementation for a device: the CPU kernels on burn's flex backend,
/// composed burn operations elsewhere.
pub fn for_device(device: &Device) -> &'static dyn HotOps {
    if cpu::is_cpu(device) {
        &cpu::Cpu
    } else {
        &composed::Composed
    }
}

/// Rows of logits that the chunked cross-entropy holds at once, so that a chunk
/// stays near 16 MiB.
pub(crate) fn chunk_rows(vocab: usize) -> usize {
    ((4 << 20) / vocab.max(1)).clamp(16, 1024)
}
