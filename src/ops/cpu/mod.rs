//! CPU kernels on the storage of burn's flex tensors: all cores through rayon,
//! vector instructions chosen at run time through pulp, matrix products by tiles of
//! our own or the gemm crate. Results do not depend on the number of threads: work is cut by
//! fixed sizes, and every reduction has a fixed order.

mod argmax;
mod attention;
mod bf16;
#[cfg(test)]
mod bf16_tests;
mod columns;
mod eigen;
mod elementwise;
mod few_rows;
mod frozen;
mod gemm;
mod host;
mod loss;
mod mat;
mod norm;
mod optim;
pub mod svd;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod weight_rows;

pub use argmax::argmax;
use burn::tensor::{Device, Tensor};
pub use frozen::{frozen_scratch, multiplies_bf16};
pub use gemm::product_scratch;
pub use host::tensor2;
use host::{Host, HostBf16, bf16_tensor2, in_f32, into_host_mut, is_bf16};
use weight_rows::Rows;

use super::leading::Leading;
use super::{
    AdamW, AttentionShape, Clip, CrossEntropy, CrossEntropyGrad, HotOps, Indices, Moments8,
    Nf4Tensor, RopeTable, Scalar, Spans,
};
use crate::rng::Stream;

/// `c (+)= alpha a . b`. Unless it accumulates, `c` holds zeros.
fn add_product(
    c: &mut [f32],
    a: &Host,
    ta: bool,
    b: &Host,
    tb: bool,
    alpha: f32,
    accumulate: bool,
) {
    let [rows, columns] = a.shape();
    if !ta && tb && few_rows::is_for(rows, columns) {
        assert_eq!(columns, b.shape()[1], "inner dimensions differ");
        return few_rows::add_product(c, a.slice(), columns, Rows::Dense(b.slice()), alpha);
    }
    let (a, b) = (a.mat(ta), b.mat(tb));
    gemm::gemm(c, b.cols, a, b, alpha, accumulate, mat::Threads::All);
}

/// The CPU implementation of [`HotOps`].
pub struct Cpu {
    /// Frozen matrices are held in bf16, and products with them take both operands
    /// as bf16. Everything else, activations and sums among it, is f32.
    bf16: bool,
}

/// All in f32.
pub static CPU: Cpu = Cpu { bf16: false };
/// With bf16 products.
pub static CPU_BF16: Cpu = Cpu { bf16: true };

/// `sum + x . W^T` if `transposed`, else `sum + x . W`.
fn frozen_product(
    sum: Option<Tensor<2>>,
    x: &Tensor<2>,
    weight: Rows<'_>,
    [out, inn]: [usize; 2],
    transposed: bool,
) -> Tensor<2> {
    let x = Host::new(x);
    let shape = [x.shape()[0], if transposed { out } else { inn }];
    let accumulate = sum.is_some();
    let sum = sum.unwrap_or_else(|| tensor2(vec![0.0; shape[0] * shape[1]], shape));
    let mut y = into_host_mut(sum);
    assert_eq!(y.shape(), shape);
    let y_slice = y.slice_mut();
    frozen::product(
        y_slice,
        x.slice(),
        weight,
        [out, inn],
        transposed,
        accumulate,
    );
    y.into_tensor()
}

/// What encoders need and decoders do not.
impl Cpu {
    /// Attention in both directions: every query sees all keys of its span (Vaswani et
    /// al., 2017). Shapes are those of [`HotOps::attention`]; the window does not apply.
    pub fn attention_both_ways(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> Tensor<2> {
        let (q, k, v) = (Host::new(q), Host::new(k), Host::new(v));
        let (out, _) = attention::forward(q.slice(), k.slice(), v.slice(), spans, shape, false);
        tensor2(out, q.shape())
    }

    /// The numbers of a tensor, row after row.
    pub fn values(&self, x: &Tensor<2>) -> Vec<f32> {
        Host::new(x).slice().to_vec()
    }

    /// GELU by the error function (Hendrycks and Gimpel, 2016).
    pub fn gelu_erf(&self, x: &Tensor<2>) -> Tensor<2> {
        let x = Host::new(x);
        tensor2(elementwise::gelu_erf(x.slice()), x.shape())
    }
}

impl HotOps for Cpu {
    fn matrix_operand(&self, parameter: &Tensor<2>) -> Tensor<2> {
        match self.bf16 {
            true => {
                let host = Host::new(parameter);
                bf16_tensor2(bf16::narrow(host.slice()), host.shape())
            }
            false => parameter.clone(),
        }
    }

    fn frozen(&self, values: Vec<f32>, shape: [usize; 2], _: &Device) -> Tensor<2> {
        match self.bf16 {
            true => bf16_tensor2(bf16::narrow(&values), shape),
            false => tensor2(values, shape),
        }
    }

    fn gemm(&self, a: &Tensor<2>, ta: bool, b: &Tensor<2>, tb: bool, alpha: f32) -> Tensor<2> {
        if is_bf16(b) && !is_bf16(a) && !ta && alpha == 1.0 {
            let b = HostBf16::new(b);
            return frozen_product(None, a, b.rows(), b.shape(), tb);
        }
        let (a, b) = (Host::new(&in_f32(a)), Host::new(&in_f32(b)));
        let shape = [a.mat(ta).rows, b.mat(tb).cols];
        let mut c = vec![0.0; shape[0] * shape[1]];
        add_product(&mut c, &a, ta, &b, tb, alpha, false);
        tensor2(c, shape)
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
        if is_bf16(b) && !is_bf16(a) && !ta && alpha == 1.0 {
            let b = HostBf16::new(b);
            return frozen_product(Some(c), a, b.rows(), b.shape(), tb);
        }
        let (a, b) = (Host::new(&in_f32(a)), Host::new(&in_f32(b)));
        let mut c = into_host_mut(c);
        assert_eq!(c.shape(), [a.mat(ta).rows, b.mat(tb).cols]);
        add_product(c.slice_mut(), &a, ta, &b, tb, alpha, true);
        c.into_tensor()
    }

    fn nf4_dequantize(&self, weight: &Nf4Tensor) -> Tensor<2> {
        match weight {
            Nf4Tensor::Host(weight) => {
                let mut out = vec![0.0; weight.shape[0] * weight.shape[1]];
                weight.dequantize_into(&mut out);
                tensor2(out, weight.shape)
            }
            #[cfg(feature = "gpu")]
            Nf4Tensor::Gpu(_) => panic!("a CPU op was given an NF4 weight on a GPU"),
        }
    }

    fn nf4_gemm(
        &self,
        sum: Option<Tensor<2>>,
        x: &Tensor<2>,
        weight: &Nf4Tensor,
        transposed: bool,
    ) -> Tensor<2> {
        match weight {
            Nf4Tensor::Host(weight) => {
                let rows = match self.bf16 {
                    true => Rows::Nf4AsBf16(weight),
                    false => Rows::Nf4(weight),
                };
                frozen_product(sum, x, rows, weight.shape, transposed)
            }
            #[cfg(feature = "gpu")]
            Nf4Tensor::Gpu(_) => panic!("a CPU op was given an NF4 weight on a GPU"),
        }
    }

    fn rms_norm(&self, x: &Tensor<2>, gain: &Tensor<2>, eps: f32) -> Tensor<2> {
        let (x, g) = (Host::new(x), Host::new(gain));
        tensor2(norm::forward(x.slice(), g.slice(), eps), x.shape())
    }

    fn rms_norm_backward(
        &self,
        x: &Tensor<2>,
        gain: &Tensor<2>,
        dy: &Tensor<2>,
        eps: f32,
        want_gain: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let (x, g, dy) = (Host::new(x), Host::new(gain), Host::new(dy));
        let dx = norm::backward_x(x.slice(), g.slice(), dy.slice(), eps);
        let dg = want_gain.then(|| {
            let width = g.slice().len();
            tensor2(
                norm::backward_gain(x.slice(), dy.slice(), width, eps),
                [1, width],
            )
        });
        (tensor2(dx, x.shape()), dg)
    }

    fn layer_norm(&self, x: &Tensor<2>, gain: &Tensor<2>, bias: &Tensor<2>, eps: f32) -> Tensor<2> {
        let (x, g, b) = (Host::new(x), Host::new(gain), Host::new(bias));
        let out = norm::layer_norm(x.slice(), g.slice(), b.slice(), eps);
        tensor2(out, x.shape())
    }

    fn layer_norm_backward(
        &self,
        x: &Tensor<2>,
        gain: &Tensor<2>,
        dy: &Tensor<2>,
        eps: f32,
        want_gain: bool,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let (x, g, dy) = (Host::new(x), Host::new(gain), Host::new(dy));
        let dx = norm::layer_norm_backward_x(x.slice(), g.slice(), dy.slice(), eps);
        let dg = want_gain.then(|| {
            let width = g.slice().len();
            let dg = norm::layer_norm_backward_gain(x.slice(), dy.slice(), width, eps);
            tensor2(dg, [1, width])
        });
        (tensor2(dx, x.shape()), dg)
    }

    fn gelu(&self, x: &Tensor<2>) -> Tensor<2> {
        let x = Host::new(x);
        tensor2(elementwise::gelu(x.slice()), x.shape())
    }

    fn gelu_backward(&self, x: &Tensor<2>, dy: &Tensor<2>) -> Tensor<2> {
        let (x, dy) = (Host::new(x), Host::new(dy));
        tensor2(elementwise::gelu_backward(x.slice(), dy.slice()), x.shape())
    }

    fn add_bias(&self, x: Tensor<2>, bias: &Tensor<2>) -> Tensor<2> {
        let bias = Host::new(bias);
        let mut x = into_host_mut(x);
        columns::add_bias(x.slice_mut(), bias.slice());
        x.into_tensor()
    }

    fn column_sums(&self, x: &Tensor<2>) -> Tensor<2> {
        let x = Host::new(x);
        let width = x.shape()[1];
        tensor2(norm::column_sums(x.slice(), width), [1, width])
    }

    fn likeliest(&self, logits: &Tensor<2>) -> Vec<Option<u32>> {
        let [_, vocab] = logits.dims();
        let logits = Host::new(&in_f32(logits));
        logits.slice().chunks(vocab.max(1)).map(argmax).collect()
    }

    fn leading(
        &self,
        logits: &Tensor<2>,
        count: usize,
        temperature: Option<f32>,
    ) -> Vec<Option<Leading>> {
        let [_, vocab] = logits.dims();
        let logits = Host::new(&in_f32(logits));
        let rows = logits.slice().chunks(vocab.max(1));
        rows.map(|row| Some(Leading::of(row, count, temperature)))
            .collect()
    }

    fn row_squares(&self, w: &Tensor<2>) -> Tensor<2> {
        let w = in_f32(w);
        let [rows, width] = w.dims();
        let w = Host::new(&w);
        tensor2(columns::row_squares(w.slice(), width), [1, rows])
    }

    fn dora_output(
        &self,
        y: Tensor<2>,
        factors: &Tensor<2>,
        adapted: &Tensor<2>,
        plain: &Tensor<2>,
    ) -> Tensor<2> {
        let mut y = into_host_mut(y);
        let [factors, adapted, plain] = [factors, adapted, plain].map(Host::new);
        columns::dora_output(
            y.slice_mut(),
            factors.slice(),
            adapted.slice(),
            plain.slice(),
        );
        y.into_tensor()
    }

    fn dora_backward(
        &self,
        dy: &Tensor<2>,
        factors: &Tensor<2>,
        adapted: &Tensor<2>,
    ) -> [Tensor<2>; 3] {
        let shape = dy.dims();
        let [dy, factors, adapted] = [dy, factors, adapted].map(Host::new);
        let [slopes, d_adapted, d_plain] =
            columns::dora_backward(dy.slice(), factors.slice(), adapted.slice());
        [
            tensor2(slopes, [1, shape[1]]),
            tensor2(d_adapted, shape),
            tensor2(d_plain, shape),
        ]
    }

    fn rope(
        &self,
        x: Tensor<2>,
        table: &RopeTable,
        positions: &Indices,
        inverse: bool,
    ) -> Tensor<2> {
        let mut x = into_host_mut(x);
        let width = x.shape()[1];
        elementwise::rope(x.slice_mut(), width, table, positions, inverse);
        x.into_tensor()
    }

    fn swiglu(&self, gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2> {
        let (g, u) = (Host::new(gate), Host::new(up));
        tensor2(elementwise::swiglu(g.slice(), u.slice()), g.shape())
    }

    fn swiglu_backward(
        &self,
        gate: Tensor<2>,
        up: Tensor<2>,
        dy: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let (mut g, mut u) = (into_host_mut(gate), into_host_mut(up));
        elementwise::swiglu_backward(g.slice_mut(), u.slice_mut(), Host::new(dy).slice());
        (g.into_tensor(), u.into_tensor())
    }

    fn attention(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        spans: &Spans,
        shape: AttentionShape,
    ) -> (Tensor<2>, Tensor<2>) {
        let (q, k, v) = (Host::new(q), Host::new(k), Host::new(v));
        let (out, lse) = attention::forward(q.slice(), k.slice(), v.slice(), spans, shape, true);
        let rows = q.shape()[0];
        (tensor2(out, q.shape()), tensor2(lse, [rows, shape.heads]))
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
        let (q, k, v) = (Host::new(q), Host::new(k), Host::new(v));
        let (out, lse, dout) = (Host::new(out), Host::new(lse), Host::new(dout));
        let saved = attention::Saved {
            q: q.slice(),
            k: k.slice(),
            v: v.slice(),
            out: out.slice(),
            lse: lse.slice(),
        };
        let (dq, dk, dv) = attention::backward(saved, dout.slice(), spans, shape);
        (
            tensor2(dq, q.shape()),
            tensor2(dk, k.shape()),
            tensor2(dv, v.shape()),
        )
    }

    fn dropout(&self, x: &Tensor<2>, p: f32, stream: Stream) -> Tensor<2> {
        let x = Host::new(x);
        tensor2(elementwise::dropout(x.slice(), p, stream), x.shape())
    }

    fn add(&self, a: Tensor<2>, b: &Tensor<2>) -> Tensor<2> {
        let b = Host::new(b);
        let mut a = into_host_mut(a);
        elementwise::add(a.slice_mut(), b.slice());
        a.into_tensor()
    }

    fn gather_rows(&self, table: &Tensor<2>, ids: &Indices) -> Tensor<2> {
        let [_, width] = table.dims();
        if is_bf16(table) {
            let table = HostBf16::new(table);
            let mut rows = vec![0.0; ids.len() * width];
            for (out, &id) in rows.chunks_exact_mut(width).zip(ids.iter()) {
                table.rows().fill(id as usize, out.len(), 0, out);
            }
            return tensor2(rows, [ids.len(), width]);
        }
        let table = Host::new(table);
        tensor2(
            elementwise::gather_rows(table.slice(), width, ids),
            [ids.len(), width],
        )
    }

    fn scatter_add_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2> {
        let src = Host::new(src);
        let mut dst = into_host_mut(dst);
        let width = dst.shape()[1];
        let rows = src.slice().chunks_exact(width);
        for (row, &id) in rows.zip(ids.iter()) {
            let at = id as usize * width;
            for (d, s) in dst.slice_mut()[at..at + width].iter_mut().zip(row) {
                *d += s;
            }
        }
        dst.into_tensor()
    }

    fn write_rows(&self, dst: Tensor<2>, ids: &Indices, src: &Tensor<2>) -> Tensor<2> {
        let src = Host::new(src);
        let mut dst = into_host_mut(dst);
        let width = dst.shape()[1];
        for (row, &id) in src.slice().chunks_exact(width).zip(ids.iter()) {
            let at = id as usize * width;
            dst.slice_mut()[at..at + width].copy_from_slice(row);
        }
        dst.into_tensor()
    }

    fn cross_entropy(
        &self,
        hidden: &Tensor<2>,
        head: &Tensor<2>,
        targets: &Indices,
        grad: CrossEntropyGrad,
    ) -> CrossEntropy {
        loss::cross_entropy(hidden, head, targets, grad)
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
        let grad = Host::new(grad);
        let (mut p, mut m, mut v) = (into_host_mut(param), into_host_mut(m), into_host_mut(v));
        optim::adamw(
            p.slice_mut(),
            grad.slice(),
            m.slice_mut(),
            v.slice_mut(),
            hyper,
            clip.factor(),
        );
        (p.into_tensor(), m.into_tensor(), v.into_tensor())
    }

    fn adamw_8bit(
        &self,
        param: Tensor<2>,
        grad: &Tensor<2>,
        moments: Moments8,
        hyper: &AdamW,
        clip: &Clip,
    ) -> (Tensor<2>, Moments8) {
        let (mut m, mut v) = match moments {
            Moments8::Host { m, v } => (m, v),
            elsewhere => elsewhere.codes(),
        };
        let (grad, mut p) = (Host::new(grad), into_host_mut(param));
        let (p_slice, factor) = (p.slice_mut(), clip.factor());
        optim::adamw_8bit(p_slice, grad.slice(), &mut m, &mut v, hyper, factor);
        (p.into_tensor(), Moments8::Host { m, v })
    }

    fn sum_squares(&self, tensors: &[&Tensor<2>]) -> Scalar {
        let squares = |x: &&Tensor<2>| optim::sum_squares(Host::new(x).slice());
        Scalar::Host(tensors.iter().map(squares).sum())
    }
}
