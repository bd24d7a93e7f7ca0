//! The table of rotary position embeddings.

use std::sync::{Arc, OnceLock};

use burn::tensor::Tensor;

/// Cosines and sines of rotary position embeddings (Su et al., 2021) in the
/// rotate-half layout of Hugging Face: `[positions, head_dim / 2]`, row-major.
#[derive(Clone, Debug)]
pub struct RopeTable {
    pub cos: Arc<[f32]>,
    pub sin: Arc<[f32]>,
    pub head_dim: usize,
    /// Both on a device with memory of its own, from the first use on.
    device: Arc<OnceLock<[Tensor<1>; 2]>>,
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
            device: Arc::default(),
        }
    }

    /// Number of positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len() / (self.head_dim / 2)
    }

    /// The device's cosines and sines, made by `upload` unless there are some.
    pub fn on_device(&self, upload: impl Fn(&[f32]) -> Tensor<1>) -> &[Tensor<1>; 2] {
        self.device
            .get_or_init(|| [upload(&self.cos), upload(&self.sin)])
    }
}
