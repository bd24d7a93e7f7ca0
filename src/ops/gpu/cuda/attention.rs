//! Flash attention on the matrix units (Dao, 2023), for packed documents: row i
//! attends to the rows from the first of its document to itself.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use super::kernel::{File, Kernel};
use crate::ops::gpu::tensors::{dims, empty};
use crate::ops::{AttentionShape, Span};

/// Rows of a block's tile.
const TILE: usize = 64;
const THREADS: u32 = 128;

/// The first row of each row's document, if the spans are packed documents whose
/// keys are their own rows, one after another; no KV cache.
pub fn starts(spans: &[Span]) -> Option<Vec<u32>> {
    let mut starts = Vec::new();
    for span in spans {
        let own = span.q_start == span.k_start && span.q_len == span.k_len;
        if !own || span.q_start != starts.len() {
            return None;
        }
        starts.resize(starts.len() + span.q_len, span.q_start as u32);
    }
    Some(starts)
}

/// What a launch needs besides its tensors.
pub struct FlashPlan {
    pub shape: AttentionShape,
    /// As of [`starts`].
    pub starts: CubeTensor,
}

impl FlashPlan {
    /// Whether the kernels take these heads.
    pub fn takes(q: &CubeTensor, shape: AttentionShape) -> bool {
        q.dtype == DType::BF16 && (shape.head_dim == 64 || shape.head_dim == 128)
    }

    /// `tiles` are held in shared memory at once, and `besides` bytes.
    fn kernel(&self, file: File, entry: &'static str, tiles: usize, besides: usize) -> Kernel {
        Kernel {
            file,
            entry,
            defines: vec![("KILN_D", self.shape.head_dim as u32)],
            threads: THREADS,
            shared: (tiles * TILE * self.shape.head_dim * 2 + besides) as u32,
        }
    }

    fn words(&self, rows: usize) -> Vec<u64> {
        let AttentionShape {
            heads,
            kv_heads,
            head_dim,
            scale,
            window,
        } = self.shape;
        let (q, k) = (heads * head_dim, kv_heads * head_dim);
        // The kernels' window of 0 is none.
        let window = window.unwrap_or(0);
        let sizes = [
            rows, heads, kv_heads, q, head_dim, 0, k, head_dim, 0, q, head_dim, 0, window,
        ];
        let mut words = sizes.map(|v| v as u64).to_vec();
        words.extend([u64::from(scale.to_bits()), 0]);
        words
    }

    fn grid(&self, rows: usize, heads: usize) -> [u32; 3] {
        [rows.div_ceil(TILE) as u32, heads as u32, 1]
    }
}

/// The output, and the log-sum-exp as `[heads, rows]`.
pub fn flash_forward(plan: &FlashPlan, [q, k, v]: [&CubeTensor; 3]) -> (CubeTensor, CubeTensor) {
    let [rows, width] = dims(q);
    let out = empty(q, &[rows, width], DType::BF16);
    let lse = empty(q, &[plan.shape.heads, rows], DType::F32);
    let kernel = plan.kernel(File::Flash, "flash_attention", 5, 0);
    let grid = plan.grid(rows, plan.shape.heads);
    let reads = [q, k, v, &plan.starts];
    kernel.launch(grid, &reads, &[&out, &lse], plan.words(rows));
    (out, lse)
}

/// Gradients to q, k and v; `lse` and `delta` are `[heads, rows]`.
pub fn flash_backward(
    plan: &FlashPlan,
    [q, k, v]: [&CubeTensor; 3],
    dout: &CubeTensor,
    lse: &CubeTensor,
    delta: &CubeTensor,
) -> [CubeTensor; 3] {
    let ([rows, q_width], [_, k_width]) = (dims(q), dims(k));
    let dq = empty(q, &[rows, q_width], DType::BF16);
    let dk = empty(k, &[rows, k_width], DType::BF16);
    let dv = empty(v, &[rows, k_width], DType::BF16);
    let operands = [q, k, v, &plan.starts, dout, lse, delta];
    let (queries, keys) = (
        plan.grid(rows, plan.shape.heads),
        plan.grid(rows, plan.shape.kv_heads),
    );
    let words = plan.words(rows);
    plan.kernel(File::FlashBackward, "flash_attention_dq", 6, 0)
        .launch(queries, &operands, &[&dq], words.clone());
    plan.kernel(File::FlashBackward, "flash_attention_dkv", 6, 2 * 12 * TILE)
        .launch(keys, &operands, &[&dk, &dv], words);
    [dq, dk, dv]
}
