//! The hot operations of training and inference behind one trait.
//!
//! Activations are ragged: the real tokens of a batch stand one after another
//! as rows of a `[tokens, features]` tensor, sequences are [`Span`]s of rows, and
//! padding does not exist. Every operation comes with its own backward; nothing
//! here uses a tape.
//!
//! Two implementations: [`cpu`] works on the storage of burn's flex tensors with
//! all cores; `gpu` launches `#[cube]` kernels on burn's CubeCL tensors (CUDA, and
//! software Vulkan for tests). Tests compare both with a third one, written in
//! plain burn tensor operations.

mod arguments;
#[cfg(feature = "gpu")]
pub mod check;
#[cfg(test)]
mod composed;
pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
mod indices;
pub mod leading;
mod linears;
pub mod logits;
pub mod moments;
pub mod moments8;
#[cfg(test)]
mod moments8_tests;
pub mod nf4;
mod nf4_code;
mod nf4_map;
mod nf4_pack;
mod nf4_tensor;
mod nf4_unpack;
mod offload;
mod on_cpu;
mod plain;
mod recorded;
mod rope_table;
mod scalar;
pub mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod vectorised;
pub(crate) mod warning;

use burn::tensor::{Device, Int, Tensor};

pub use arguments::{AdamW, AttentionShape, Clip, CrossEntropy, CrossEntropyGrad, Room};
pub use indices::{Indices, Span, Spans};
pub use linears::{Low, Matrix, Part, Then};
pub use moments8::Moments8;
pub use nf4_tensor::Nf4Tensor;
pub use offload::Offloaded;
pub use on_cpu::is_cpu;
pub use recorded::{Recorded, Recording};
pub use rope_table::RopeTable;
pub use scalar::Scalar;

use crate::rng::Stream;
use leading::Leading;
use offload::Stays;

/// The type that frozen weights are held in, and on a GPU activations too; sums
/// inside an operation are f32 either way. On the CPU activations stay f32 and are
/// rounded where they meet a frozen weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    Bf16,
}

impl Precision {
    /// As in messages.
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The hot operations; shapes are `[rows, columns]`. Activations, their gradients
/// and frozen weights have the compute type of the implementation ([`Precision`]);
/// parameters, their gradients and moments, gains and log-sum-exps are f32.
pub trait HotOps: Send + Sync {
    /// Readies the device's memory for what a step holds at once.
    fn make_room(&self, _room: Room, _device: &Device) {}

    /// Starts the way of `x` to host memory. On the CPU it is there.
    fn offload(&self, x: &Tensor<2>) -> Box<dyn Offloaded> {
        Box::new(Stays(x.clone()))
    }

    /// Whether [`HotOps::record`] may give something that can be run again.
    fn records(&self, _device: &Device) -> bool {
        false
    }

    /// Runs `pass`, and where the device can, records it too, to be run again without its
    /// launches. A pass must do the same at every call, and read and write nothing on the
    /// host.
    fn record(&self, pass: &mut dyn FnMut() -> Tensor<2>, _device: &Device) -> Recording {
        Recording::of_one(pass())
    }

    /// Overwrites numbers on the device where they lie.
    fn overwrite(&self, _to: &Tensor<1, Int>, _values: &[u32]) {
        unreachable!("only what was recorded reads numbers again");
    }

    /// As [`HotOps::write_rows`], where they lie, whoever else holds `to`.
    fn overwrite_rows(&self, _to: &Tensor<2>, _ids: &Indices, _rows: &Tensor<2>) {
        unreachable!("only what was recorded reads numbers again");
    }

    /// A parameter as an operand among activations: in the compute type.
    fn operand(&self, parameter: &Tensor<2>) -> Tensor<2> {
        parameter.clone()
    }

    /// [`HotOps::operand`] of many parameters.
    fn operands(&self, parameters: &[&Tensor<2>]) -> Vec<Tensor<2>> {
        parameters.iter().map(|p| self.operand(p)).collect()
    }

    /// A trained matrix as an operand of a product with activations.
    fn matrix_operand(&self, parameter: &Tensor<2>) -> Tensor<2> {
        self.operand(parameter)
    }

    /// Zeros on `device`, in the compute type.
    fn zeros(&self, shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::zeros(shape, device)
    }

    /// Frozen numbers on `device`, in the compute type.
    fn frozen(&self, values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(burn::tensor::TensorData::new(values, shape), device)
    }

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

    /// A parameter's gradient in f32: `sum + alpha x op(a) . op(b)`.
    fn gradient(
        &self,
        sum: Option<Tensor<2>>,
        a: &Tensor<2>,
        ta: bool,
        b: &Tensor<2>,
        tb: bool,
        alpha: f32,
    ) -> Tensor<2> {
        match sum {
            Some(sum) => self.gemm_add(sum, a, ta, b, tb, alpha),
            None => self.gemm(a, ta, b, tb, alpha),
        }
    }

    /// The dense `[out, in]` weight of an NF4 tensor.
    fn nf4_dequantize(&self, weight: &Nf4Tensor) -> Tensor<2>;

    /// `sum + x . W^T` if `transposed`, else `sum + x . W`, for `W` in NF4. By
    /// default one dense weight exists at a time.
    fn nf4_gemm(
        &self,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        weight: &Nf4Tensor,
        transposed: bool,
    ) -> Tensor<2> {
        through_dense(self, sum, x, weight, transposed)
    }

    /// [`HotOps::nf4_gemm`] and a product of low rank: `+ left . right^T` if
    /// `transposed`, else `+ left . right`. By default the one after the other.
    fn nf4_gemm_low(
        &self,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        weight: &Nf4Tensor,
        low: [&Tensor<2>; 2],
        transposed: bool,
    ) -> Tensor<2> {
        low_apart(self, sum, x, weight, low, transposed)
    }

    /// Linear layers of one input, and what `then` makes of their outputs. By default
    /// product by product.
    fn linears(&self, x: &Tensor<2>, parts: &[Part<'_>], then: &Then<'_>) -> Vec<Tensor<2>> {
        linears::one_by_one(self, x, parts, then)
    }

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

    /// `(x - mean(x)) / std(x) x gain + bias` by rows (Ba et al., 2016); `gain` and
    /// `bias` are `[1, d]`.
    fn layer_norm(&self, x: &Tensor<2>, gain: &Tensor<2>, bias: &Tensor<2>, eps: f32) -> Tensor<2> {
        plain::layer_norm(x, gain, bias, eps)
    }

    /// Gradients of [`HotOps::layer_norm`] to `x` and, if `want_gain`, to the gain;
    /// the bias's is [`HotOps::column_sums`] of `dy`.
    fn layer_norm_backward(
        &self,
        x: &Tensor<2>,
        gain: &Tensor<2>,
        dy: &Tensor<2>,
        eps: f32,
        want_gain: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        plain::layer_norm_backward(x, gain, dy, eps, want_gain)
    }

    /// GELU in its tanh approximation (Hendrycks and Gimpel, 2016).
    fn gelu(&self, x: &Tensor<2>) -> Tensor<2> {
        plain::gelu(x)
    }

    /// Gradient of [`HotOps::gelu`].
    fn gelu_backward(&self, x: &Tensor<2>, dy: &Tensor<2>) -> Tensor<2> {
        plain::gelu_backward(x, dy)
    }

    /// `x + bias` in every row; `bias` is `[1, d]`. Writes into `x` where it is not
    /// shared.
    fn add_bias(&self, x: Tensor<2>, bias: &Tensor<2>) -> Tensor<2> {
        plain::add_bias(x, bias)
    }

    /// Sums over the rows, `[1, d]` in f32: the gradient of a bias.
    fn column_sums(&self, x: &Tensor<2>) -> Tensor<2> {
        plain::column_sums(x)
    }

    /// |w|^2 of each row of `w`, `[1, rows]` in f32.
    fn row_squares(&self, w: &Tensor<2>) -> Tensor<2> {
        plain::row_squares(w)
    }

    /// `y + factors x adapted - plain`, with a factor a column, `[1, d]` in f32: DoRA's
    /// output of the base's (Liu et al., 2024). Takes the place of `y` where nobody else
    /// holds it.
    fn dora_output(
        &self,
        y: Tensor<2>,
        factors: &Tensor<2>,
        adapted: &Tensor<2>,
        plain: &Tensor<2>,
    ) -> Tensor<2> {
        plain::dora_output(y, factors, adapted, plain)
    }

    /// Gradients of [`HotOps::dora_output`] to the factors, to `adapted`, and to `plain`
    /// through both.
    fn dora_backward(
        &self,
        dy: &Tensor<2>,
        factors: &Tensor<2>,
        adapted: &Tensor<2>,
    ) -> [Tensor<2>; 3] {
        plain::dora_backward(dy, factors, adapted)
    }

    /// Rotates each head of `[tokens, heads x head_dim]` by its row's position;
    /// `inverse` rotates back, which is the backward.
    fn rope(
        &self,
        x: Tensor<2>,
        table: &RopeTable,
        positions: &Indices,
        inverse: bool,
    ) -> Tensor<2>;

    /// `silu(gate) x up` (Shazeer, 2020).
    fn swiglu(&self, gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2>;

    /// Gradients of [`HotOps::swiglu`] to gate and up, which take their places where
    /// nobody else holds them.
    fn swiglu_backward(
        &self,
        gate: Tensor<2>,
        up: Tensor<2>,
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
        spans: &Spans,
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>);

    /// The output of [`HotOps::attention`] alone.
    fn attend(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> Tensor<2> {
        self.attention(q, k, v, spans, shape).0
    }

    /// Whether attention is faster over a prompt's own rows than over the cache that
    /// they are written to.
    fn likes_prompts_apart(&self) -> bool {
        false
    }

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
        spans: &Spans,
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>);

    /// Zeroes each element with probability `p` and scales the rest by 1/(1-p);
    /// element i drops iff `stream.uniform(i) < p`, so the same call on a gradient
    /// is the backward.
    fn dropout(&self, x: &Tensor<2>, p: f32, stream: Stream) -> Tensor<2>;

    /// `a + b` of one shape; writes into `a` where it is not shared.
    fn add(&self, a: Tensor<2>, b: &Tensor<2>) -> Tensor<2>;

    /// Rows `ids` of `table`.
    fn gather_rows(&self, table: &Tensor<2>, ids: &Indices) -> Tensor<2>;

    /// Adds row i of `src` to row `ids[i]` of `dst`.
    fn scatter_add_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2>;

    /// Overwrites row `ids[i]` of `dst` with row i of `src` (the KV cache).
    fn write_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2>;

    /// [`HotOps::rope`] of `q` and `k`, and the turned keys and the values into rows
    /// `ids` of `cache`. Returns q and the cache.
    fn turn_into_cache(
        &self,
        [q, k, v]: [Tensor<2>; 3],
        cache: [Tensor<2>; 2],
        ids: &Indices,
        table: &RopeTable,
        positions: &Indices,
    ) -> (Tensor<2>, [Tensor<2>; 2]) {
        let (q, k) = (
            self.rope(q, table, positions, false),
            self.rope(k, table, positions, false),
        );
        let [keys, values] = cache;
        let keys = self.write_rows(keys, ids, &k);
        (q, [keys, self.write_rows(values, ids, &v)])
    }

    /// The column of the largest finite number of each row, the first of equals; `None`
    /// where a row has none.
    fn likeliest(&self, logits: &Tensor<2>) -> Vec<Option<u32>>;

    /// At least the `count` (up to [`MOST_LEADING`](leading::MOST_LEADING)) largest finite
    /// numbers of each row and all that equal one of them; the sum of their weights where a
    /// temperature is given. `None` where a device finds more than it has room for, as of
    /// many equals.
    fn leading(
        &self,
        logits: &Tensor<2>,
        count: usize,
        temperature: Option<f32>,
    ) -> Vec<Option<Leading>>;

    /// Linear head and cross-entropy by chunks of rows, so that all logits never
    /// exist at once. `hidden` is `[rows, hidden]`, `head` `[vocab, hidden]`.
    fn cross_entropy(
        &self,
        hidden: &Tensor<2>,
        head: &Tensor<2>,
        targets: &Indices,
        grad: CrossEntropyGrad,
    ) -> CrossEntropy;

    /// One AdamW update with the clipped gradient; returns the parameter and its
    /// two moments.
    fn adamw(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        m: Tensor<2>,
        v: Tensor<2>,
        hyper: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>);

    /// [`HotOps::adamw`] of many parameters, each `[parameter, m, v]`.
    fn adamw_all(
        &self,
        params: Vec<[Tensor<2>; 3]>,
        grads: &[&Tensor<2>],
        hyper: &AdamW,
        clip: &Clip,
    ) -> Vec<[Tensor<2>; 3]> {
        let each = params.into_iter().zip(grads).map(|([p, m, v], g)| {
            let (p, m, v) = self.adamw(p, g, m, v, hyper, clip);
            [p, m, v]
        });
        each.collect()
    }

    /// [`HotOps::adamw`] with moments of 8 bits: they become f32 for the update and
    /// are quantised again.
    fn adamw_8bit(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        moments: Moments8,
        hyper: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Moments8);

    /// [`HotOps::adamw_8bit`] of many parameters.
    fn adamw_8bit_all(
        &self,
        params: Vec<(Tensor<2>, Moments8)>,
        grads: &[&Tensor<2>],
        hyper: &AdamW,
        clip: &Clip,
    ) -> Vec<(Tensor<2>, Moments8)> {
        let each = params
            .into_iter()
            .zip(grads)
            .map(|((p, moments), g)| self.adamw_8bit(p, g, moments, hyper, clip));
        each.collect()
    }

    /// Sum of squares of all elements of all tensors.
    fn sum_squares(&self, tensors: &[&Tensor<2>]) -> Scalar;
}

/// [`HotOps::nf4_gemm_low`] as two products.
fn low_apart<O: HotOps + ?Sized>(
    ops: &O,
    sum: Option<Tensor<2>>,
    x: &Tensor<2>,
    weight: &Nf4Tensor,
    [left, right]: [&Tensor<2>; 2],
    transposed: bool,
) -> Tensor<2> {
    let sum = ops.nf4_gemm(sum, x, weight, transposed);
    ops.gemm_add(sum, left, false, right, transposed, 1.0)
}

/// [`HotOps::nf4_gemm`] by way of the dense weight.
fn through_dense<O: HotOps + ?Sized>(
    ops: &O,
    sum: Option<Tensor<2>>,
    x: &Tensor<2>,
    weight: &Nf4Tensor,
    transposed: bool,
) -> Tensor<2> {
    let dense = ops.nf4_dequantize(weight);
    match sum {
        Some(sum) => ops.gemm_add(sum, x, false, &dense, transposed, 1.0),
        None => ops.gemm(x, false, &dense, transposed, 1.0),
    }
}

/// The implementation for a device: the CPU kernels on burn's flex backend, the
/// `#[cube]` kernels on a GPU.
///
/// # Panics
/// If the device is neither, which [`crate::device::choose`] never gives.
pub fn for_device(device: &Device, precision: Precision) -> &'static dyn HotOps {
    if is_cpu(device) {
        return match precision {
            Precision::F32 => &cpu::CPU,
            Precision::Bf16 => &cpu::CPU_BF16,
        };
    }
    #[cfg(feature = "gpu")]
    return gpu::with_precision(precision);
    #[cfg(not(feature = "gpu"))]
    panic!("no operations for {device:?} at {precision:?}: built without a GPU backend");
}

/// Call first of all in `main`. Where this process was started to try kernels for a
/// card, does that; the exit code to end with. Else the program may be started again
/// for such a trial later on; one that never calls this tries kernels in its own
/// process, which a kernel that faults or hangs takes with it.
pub fn trial_process() -> Option<std::process::ExitCode> {
    #[cfg(feature = "cuda")]
    return gpu::trial_process();
    #[cfg(not(feature = "cuda"))]
    None
}

/// Rows of logits that the chunked cross-entropy holds at once on a GPU, 512 at most:
/// as many as fit into 110 MiB in f32, which is 224 for a vocabulary of 128k. Fewer
/// would read the head too often; more would be the largest buffer of a step, and
/// cubecl makes its pages that large.
pub(crate) fn gpu_logit_rows(vocab: usize) -> usize {
    let rows = (110 << 20) / (4 * vocab.max(1));
    (rows / 32 * 32).clamp(32, 512)
}

/// Rows of logits that the chunked cross-entropy holds at once, so that a chunk stays
/// near 32 MiB: each reads and packs the whole head anew.
pub(crate) fn chunk_rows(vocab: usize) -> usize {
    ((8 << 20) / vocab.max(1)).clamp(16, 1024)
}
