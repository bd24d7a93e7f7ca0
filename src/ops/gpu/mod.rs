//! The hot operations as `#[cube]` kernels on burn's CubeCL tensors: CUDA, and
//! any other CubeCL runtime, of which the tests use software Vulkan.
//!
//! Nothing that training does here waits for the device: sums come back as [`Scalar`]s
//! that lie there.

mod attention;
mod attention_backward;
mod attention_forward;
mod attention_plan;
mod attention_single;
mod attention_tile;
mod columns;
#[cfg(feature = "cuda")]
mod cuda;
mod dropout;
mod elementwise;
mod few_rows;
mod leading;
mod likeliest;
mod linears;
mod loss;
mod many;
mod matmul;
mod moments8;
mod nf4;
mod nf4_products;
mod norm;
mod offload;
mod optim;
mod recorded;
mod reduce;
mod rows;
mod tensors;
mod turn;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_cubecl::tensor::CubeTensor;

#[cfg(feature = "cuda")]
pub use cuda::answer as trial_process;
use matmul::Product;
pub use nf4::GpuNf4;
use offload::Away;
use tensors::{
    buffer, empty, integers, only, tensor, upload_floats, upload_integers, view, writable,
};

use super::leading::Leading;
use super::{
    AdamW, AttentionShape, Clip, CrossEntropy, CrossEntropyGrad, HotOps, Indices, Moments8,
    Nf4Tensor, Offloaded, Part, Precision, Recording, Room, RopeTable, Scalar, Spans, Then,
    gpu_logit_rows,
};
use super::{linears::one_by_one, low_apart, through_dense};
use crate::rng::Stream;

/// The GPU implementation of [`HotOps`].
pub struct Gpu {
    compute: DType,
}

/// The implementation that computes in `precision`.
pub fn with_precision(precision: Precision) -> &'static Gpu {
    match precision {
        Precision::F32 => &Gpu {
            compute: DType::F32,
        },
        Precision::Bf16 => &Gpu {
            compute: DType::BF16,
        },
    }
}

fn product<'a>(a: &'a Tensor<2>, ta: bool, b: &'a Tensor<2>, tb: bool, factor: f32) -> Product<'a> {
    Product {
        a,
        ta,
        b,
        tb,
        factor,
    }
}

fn ids_on_device(ids: &Indices, device: &Device) -> CubeTensor {
    integers(ids.on_device(|ids| upload_integers(device, ids)))
}

/// The squared norm, where kernels read it.
fn norm_on_device(clip: &Clip, device: &Device) -> CubeTensor {
    match &clip.squared_norm {
        Scalar::Device(norm) => buffer(norm),
        Scalar::Host(norm) => buffer(&upload_floats(device, &[*norm as f32])),
    }
}

impl HotOps for Gpu {
    fn operand(&self, parameter: &Tensor<2>) -> Tensor<2> {
        only(self.operands(&[parameter]))
    }

    fn operands(&self, parameters: &[&Tensor<2>]) -> Vec<Tensor<2>> {
        let same = parameters.iter().all(|p| p.dtype() == self.compute);
        if same {
            return parameters.iter().map(|p| (*p).clone()).collect();
        }
        let buffers: Vec<_> = parameters.iter().map(|p| buffer(p)).collect();
        let cast = many::cast(&buffers, self.compute);
        cast.into_iter().map(tensor).collect()
    }

    fn make_room(&self, room: Room, device: &Device) {
        // cubecl's pages are as large as the largest buffer so far. Once they are of
        // their final size, what lies on smaller ones can move and give those back.
        // Inputs fill a page of theirs without a rest.
        let logits = 4 * gpu_logit_rows(room.vocab) * room.vocab;
        let numbers = room.widest.max(logits / self.compute.size());
        let numbers = numbers.next_multiple_of(room.input.max(1));
        let like = buffer(&Tensor::<1>::zeros([1], device));
        drop(empty(&like, &[numbers], self.compute));
        // Where it fails, the smaller pages stay.
        let _ = like.client.memory_cleanup();
    }

    fn records(&self, device: &Device) -> bool {
        recorded::works(self, device)
    }

    fn record(&self, pass: &mut dyn FnMut() -> Tensor<2>, device: &Device) -> Recording {
        recorded::record(pass, device)
    }

    fn overwrite(&self, to: &Tensor<1, Int>, values: &[u32]) {
        recorded::overwrite(to, values);
    }

    fn overwrite_rows(&self, to: &Tensor<2>, ids: &Indices, rows: &Tensor<2>) {
        let ids = ids_on_device(ids, &to.device());
        rows::write(buffer(to), ids, buffer(rows));
    }

    fn offload(&self, x: &Tensor<2>) -> Box<dyn Offloaded> {
        Box::new(Away::new(x))
    }

    fn zeros(&self, [rows, columns]: [usize; 2], device: &Device) -> Tensor<2> {
        // Of rank 1 first: the allocator pads the rows of matrices.
        Tensor::<1>::zeros([rows * columns], (device, self.compute)).reshape([rows, columns])
    }

    fn frozen(&self, values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
        let flat = [values.len()];
        let data = match self.compute {
            DType::BF16 => TensorData::new(half_values(&values), flat),
            _ => TensorData::new(values, flat),
        };
        // Weights stay: out of the pools that activations come and go in. Of rank 1
        // first, as in `zeros`.
        device
            .memory_persistent_allocations(data, |data| {
                Tensor::<1>::from_data(data, (device, self.compute))
            })
            .reshape(shape)
    }

    fn gemm(&self, a: &Tensor<2>, ta: bool, b: &Tensor<2>, tb: bool, alpha: f32) -> Tensor<2> {
        tensor(product(a, ta, b, tb, alpha).compute(None, a.dtype()))
    }

    fn gemm_add(
        &self,
        c: Tensor<2>,
        a: &Tensor<2>,
        ta: bool,
        b: &Tensor<2>,
        tb: bool,
        alpha: f32,
    ) -> Tensor<2> {
        tensor(product(a, ta, b, tb, alpha).compute(Some(writable(c)), a.dtype()))
    }

    fn gradient(
        &self,
        sum: Option<Tensor<2>>,
        a: &Tensor<2>,
        ta: bool,
        b: &Tensor<2>,
        tb: bool,
        alpha: f32,
    ) -> Tensor<2> {
        tensor(product(a, ta, b, tb, alpha).compute(sum.map(writable), DType::F32))
    }

    fn nf4_gemm(
        &self,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        weight: &Nf4Tensor,
        transposed: bool,
    ) -> Tensor<2> {
        match nf4_products::product(sum, x, weight, None, transposed) {
            Ok(y) => y,
            Err(sum) => through_dense(self, sum, x, weight, transposed),
        }
    }

    fn nf4_gemm_low(
        &self,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        weight: &Nf4Tensor,
        low: [&Tensor<2>; 2],
        transposed: bool,
    ) -> Tensor<2> {
        match nf4_products::product(sum, x, weight, Some(low), transposed) {
            Ok(y) => y,
            Err(sum) => low_apart(self, sum, x, weight, low, transposed),
        }
    }

    fn linears(&self, x: &Tensor<2>, parts: &[Part<'_>], then: &Then<'_>) -> Vec<Tensor<2>> {
        let together = linears::of_few_rows(self, x, parts, then);
        together.unwrap_or_else(|| one_by_one(self, x, parts, then))
    }

    fn nf4_dequantize(&self, weight: &Nf4Tensor) -> Tensor<2> {
        match weight {
            Nf4Tensor::Gpu(weight) => tensor(nf4::dequantize(weight, self.compute)),
            Nf4Tensor::Host(_) => panic!("a GPU op was given an NF4 weight on the host"),
        }
    }

    fn rms_norm(&self, x: &Tensor<2>, gain: &Tensor<2>, eps: f32) -> Tensor<2> {
        tensor(norm::forward(buffer(x), buffer(gain), eps))
    }

    fn rms_norm_backward(
        &self,
        x: &Tensor<2>,
        gain: &Tensor<2>,
        dy: &Tensor<2>,
        eps: f32,
        want_gain: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let (dx, dg) = norm::backward(buffer(x), buffer(gain), buffer(dy), eps, want_gain);
        (tensor(dx), dg.map(tensor))
    }

    fn gelu(&self, x: &Tensor<2>) -> Tensor<2> {
        tensor(elementwise::gelu(buffer(x), None))
    }

    fn gelu_backward(&self, x: &Tensor<2>, dy: &Tensor<2>) -> Tensor<2> {
        tensor(elementwise::gelu(buffer(x), Some(buffer(dy))))
    }

    fn add_bias(&self, x: Tensor<2>, bias: &Tensor<2>) -> Tensor<2> {
        tensor(columns::add_bias(writable(x), buffer(bias)))
    }

    fn column_sums(&self, x: &Tensor<2>) -> Tensor<2> {
        tensor(columns::sums(&buffer(x), None, None))
    }

    fn dora_output(
        &self,
        y: Tensor<2>,
        factors: &Tensor<2>,
        adapted: &Tensor<2>,
        plain: &Tensor<2>,
    ) -> Tensor<2> {
        let [factors, adapted, plain] = [factors, adapted, plain].map(buffer);
        tensor(columns::dora_output(writable(y), factors, adapted, plain))
    }

    fn dora_backward(
        &self,
        dy: &Tensor<2>,
        factors: &Tensor<2>,
        adapted: &Tensor<2>,
    ) -> [Tensor<2>; 3] {
        let [dy, factors, adapted] = [dy, factors, adapted].map(buffer);
        columns::dora_backward(dy, factors, adapted).map(tensor)
    }

    fn rope(
        &self,
        x: Tensor<2>,
        table: &RopeTable,
        positions: &Indices,
        inverse: bool,
    ) -> Tensor<2> {
        let device = x.device();
        let [cos, sin] = table.on_device(|values| upload_floats(&device, values));
        let positions = ids_on_device(positions, &device);
        tensor(elementwise::rope(
            writable(x),
            buffer(cos),
            buffer(sin),
            positions,
            table.head_dim,
            inverse,
        ))
    }

    fn swiglu(&self, gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2> {
        tensor(elementwise::swiglu(buffer(gate), buffer(up)))
    }

    fn swiglu_backward(
        &self,
        gate: Tensor<2>,
        up: Tensor<2>,
        dy: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let (gate, up) = (writable(gate), writable(up));
        let (d_gate, d_up) = elementwise::swiglu_backward(gate, up, buffer(dy));
        (tensor(d_gate), tensor(d_up))
    }

    fn attention(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>) {
        let operands = [buffer(q), buffer(k), buffer(v)];
        let (out, lse) = attention::forward(operands, &q.device(), spans, shape);
        (tensor(out), tensor(lse))
    }

    fn attend(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> Tensor<2> {
        let operands = [buffer(q), buffer(k), buffer(v)];
        let device = q.device();
        match attention_single::takes(spans, shape) {
            true => tensor(attention_single::forward(operands, &device, spans, shape)),
            false => tensor(attention::forward(operands, &device, spans, shape).0),
        }
    }

    fn likes_prompts_apart(&self) -> bool {
        true
    }

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
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let operands = [buffer(q), buffer(k), buffer(v)];
        let results = [buffer(out), view(lse.clone()), buffer(dout)];
        let device = q.device();
        let [dq, dk, dv] = attention::backward(operands, results, &device, spans, shape);
        (tensor(dq), tensor(dk), tensor(dv))
    }

    fn dropout(&self, x: &Tensor<2>, p: f32, stream: Stream) -> Tensor<2> {
        tensor(dropout::dropout(buffer(x), p, stream))
    }

    fn add(&self, a: Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        tensor(elementwise::add(writable(a), buffer(b)))
    }

    fn gather_rows(&self, table: &Tensor<2>, ids: &Indices) -> Tensor<2> {
        let on_device = ids_on_device(ids, &table.device());
        tensor(rows::gather(buffer(table), on_device, ids.len()))
    }

    fn likeliest(&self, logits: &Tensor<2>) -> Vec<Option<u32>> {
        likeliest::likeliest(buffer(logits))
    }

    fn leading(
        &self,
        logits: &Tensor<2>,
        count: usize,
        temperature: Option<f32>,
    ) -> Vec<Option<Leading>> {
        leading::leading(buffer(logits), count, temperature)
    }

    fn scatter_add_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2> {
        let ids = ids_on_device(ids, &dst.device());
        tensor(rows::scatter_add(writable(dst), ids, buffer(src)))
    }

    fn write_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2> {
        let ids = ids_on_device(ids, &dst.device());
        tensor(rows::write(writable(dst), ids, buffer(src)))
    }

    fn turn_into_cache(
        &self,
        [q, k, v]: [Tensor<2>; 3],
        [keys, values]: [Tensor<2>; 2],
        ids: &Indices,
        table: &RopeTable,
        positions: &Indices,
    ) -> (Tensor<2>, [Tensor<2>; 2]) {
        let device = q.device();
        let angles = table.on_device(|values| upload_floats(&device, values));
        let places = turn::Places {
            angles: angles.each_ref().map(buffer),
            half: table.head_dim / 2,
            positions: ids_on_device(positions, &device),
            rows: ids_on_device(ids, &device),
        };
        let cache = [writable(keys), writable(values)];
        let new = [buffer(&k), buffer(&v)];
        let (q, cache) = turn::into_cache(writable(q), new, cache, places);
        (tensor(q), cache.map(tensor))
    }

    fn cross_entropy(
        &self,
        hidden: &Tensor<2>,
        head: &Tensor<2>,
        targets: &Indices,
        grad: CrossEntropyGrad,
    ) -> CrossEntropy {
        let rows = targets.len();
        let (scale, mut d_head, want_head) = match grad {
            CrossEntropyGrad::None => (None, None, false),
            CrossEntropyGrad::Hidden { scale } => (Some(scale), None, false),
            CrossEntropyGrad::HiddenAndHead { scale, head_grad } => (Some(scale), head_grad, true),
        };
        let on_device = ids_on_device(targets, &hidden.device());
        let losses = empty(&on_device, &[rows], DType::F32);
        let mut d_hidden = Vec::new();
        let most = gpu_logit_rows(head.dims()[0]);
        for first in (0..rows).step_by(most) {
            let x = hidden.clone().narrow(0, first, most.min(rows - first));
            let logits = product(&x, false, head, true, 1.0).compute(None, DType::F32);
            let (ids, losses) = (on_device.clone(), losses.clone());
            let gradient = loss::chunk(logits, ids, losses, first, scale, self.compute);
            let Some(d_logits) = gradient.map(tensor::<2>) else {
                continue;
            };
            d_hidden.push(self.gemm(&d_logits, false, head, false, 1.0));
            if want_head {
                d_head = Some(self.gradient(d_head, &d_logits, true, &x, false, 1.0));
            }
        }
        CrossEntropy {
            loss_sum: Scalar::Device(tensor(losses)),
            d_hidden: scale.map(|_| {
                if d_hidden.len() == 1 {
                    d_hidden.remove(0)
                } else {
                    Tensor::cat(d_hidden, 0)
                }
            }),
            d_head,
        }
    }

    fn adamw(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        m: Tensor<2>,
        v: Tensor<2>,
        hyper: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let updated = self.adamw_all(vec![[param, m, v]], &[grad], hyper, clip);
        let [p, m, v] = only(updated);
        (p, m, v)
    }

    fn adamw_all(
        &self,
        params: Vec<[Tensor<2>; 3]>,
        grads: &[&Tensor<2>],
        hyper: &AdamW,
        clip: &Clip,
    ) -> Vec<[Tensor<2>; 3]> {
        let Some(first) = grads.first() else {
            return params;
        };
        let norm = norm_on_device(clip, &first.device());
        let params: Vec<_> = params.into_iter().map(|all| all.map(writable)).collect();
        let grads: Vec<_> = grads.iter().map(|g| buffer(g)).collect();
        optim::adamw(&params, &grads, &norm, clip.max_norm, hyper);
        params.into_iter().map(|all| all.map(tensor)).collect()
    }

    fn adamw_8bit(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        moments: Moments8,
        hyper: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Moments8) {
        only(self.adamw_8bit_all(vec![(param, moments)], &[grad], hyper, clip))
    }

    fn adamw_8bit_all(
        &self,
        params: Vec<(Tensor<2>, Moments8)>,
        grads: &[&Tensor<2>],
        hyper: &AdamW,
        clip: &Clip,
    ) -> Vec<(Tensor<2>, Moments8)> {
        let Some(first) = grads.first() else {
            return params;
        };
        let device = first.device();
        let norm = norm_on_device(clip, &device);
        let trained = |(p, moments)| {
            let Moments8::Device { m, v, .. } = moments else {
                panic!("a GPU op was given moments on the host");
            };
            let [m, v] = [m, v].map(moments8::Buffers::of);
            moments8::Trained {
                p: writable(p),
                m,
                v,
            }
        };
        let params: Vec<_> = params.into_iter().map(trained).collect();
        let grads: Vec<_> = grads.iter().map(|g| buffer(g)).collect();
        moments8::adamw_8bit(&params, &grads, &norm, clip.max_norm, hyper, &device);
        let updated = params.into_iter().map(|all| {
            let elements = all.p.meta.num_elements();
            let [m, v] = [all.m, all.v].map(moments8::Buffers::words);
            (tensor(all.p), Moments8::Device { m, v, elements })
        });
        updated.collect()
    }

    fn sum_squares(&self, tensors: &[&Tensor<2>]) -> Scalar {
        if tensors.is_empty() {
            return Scalar::Host(0.0);
        }
        let buffers: Vec<CubeTensor> = tensors.iter().map(|t| buffer(t)).collect();
        Scalar::Device(tensor(optim::sum_squares(&buffers)))
    }
}

fn half_values(values: &[f32]) -> Vec<half::bf16> {
    use rayon::prelude::*;
    values
        .par_iter()
        .map(|&v| half::bf16::from_f32(v))
        .collect()
}
