//! Causal grouped-query attention in tiles: at most a tile of scores of one head
//! exists per cube, never S x S (Dao et al., 2022; Dao, 2023). The backward makes
//! the scores again from the log-sum-exp, and every sum has one owner, so results
//! repeat bit for bit.

use burn::tensor::{DType, Device};
use burn_cubecl::tensor::CubeTensor;

use super::attention_backward;
use super::attention_forward;
use super::attention_plan::Plan;
#[cfg(feature = "cuda")]
use super::cuda;
use super::tensors::{dims, empty};
#[cfg(feature = "cuda")]
use super::tensors::{integers, upload_integers};
use crate::ops::{AttentionShape, Spans};

/// Output in the shape and type of `q`, and the log-sum-exp `[tokens, heads]` in f32.
pub fn forward(
    [q, k, v]: [CubeTensor; 3],
    device: &Device,
    spans: &Spans,
    shape: AttentionShape,
) -> (CubeTensor, CubeTensor) {
    #[cfg(feature = "cuda")]
    if let Some(plan) = flash_plan(&q, device, spans, shape) {
        let (out, mut lse) = cuda::flash_forward(&plan, [&q, &k, &v]);
        lse.meta.swap(0, 1);
        return (out, lse);
    }
    let plan = Plan::new(&q, device, spans, shape);
    let [rows, width] = dims(&q);
    let out = empty(&q, &[rows, width], q.dtype);
    let lse = empty(&q, &[rows, shape.heads], DType::F32);
    attention_forward::launch(&plan, [q, k, v], &out, &lse);
    (out, lse)
}

/// Gradients to q, k and v, of what [`forward`] gave.
pub fn backward(
    [q, k, v]: [CubeTensor; 3],
    [out, lse, dout]: [CubeTensor; 3],
    device: &Device,
    spans: &Spans,
    shape: AttentionShape,
) -> [CubeTensor; 3] {
    #[cfg(feature = "cuda")]
    if let Some(plan) = flash_plan(&q, device, spans, shape) {
        let mut lse = lse;
        lse.meta.swap(0, 1);
        let delta = attention_backward::delta_by_head(out, dout.clone(), shape);
        return cuda::flash_backward(&plan, [&q, &k, &v], &dout, &lse, &delta);
    }
    let plan = Plan::new(&q, device, spans, shape);
    let ([rows, q_width], [key_rows, k_width]) = (dims(&q), dims(&k));
    let delta = attention_backward::delta_by_row(out, dout.clone(), shape);
    let dq = empty(&q, &[rows, q_width], q.dtype);
    let dk = empty(&k, &[key_rows, k_width], k.dtype);
    let dv = empty(&v, &[key_rows, k_width], v.dtype);
    let saved = attention_backward::Saved {
        q,
        k,
        v,
        dout,
        lse,
        delta,
    };
    attention_backward::launch_queries(&plan, &saved, &dq);
    attention_backward::launch_keys(&plan, &saved, &dk, &dv);
    [dq, dk, dv]
}

/// The way over NVIDIA's matrix units, where it is open.
#[cfg(feature = "cuda")]
fn flash_plan(
    q: &CubeTensor,
    device: &Device,
    spans: &Spans,
    shape: AttentionShape,
) -> Option<cuda::FlashPlan> {
    if !cuda::FlashPlan::takes(q, shape) || !cuda::on(q, cuda::Family::Attention) {
        return None;
    }
    let starts = spans.starts_on_device(|spans| {
        cuda::starts(spans).map(|starts| upload_integers(device, &starts))
    })?;
    Some(cuda::FlashPlan {
        shape,
        starts: integers(starts),
    })
}
