//! CPU kernels on the storage of burn's flex tensors: all cores through rayon,
//! vector instructions chosen at run time through pulp, matrix products by the
//! gemm crate. Results do not depend on the number of threads: work is cut by
//! fixed sizes, and every reduction has a fixed order.

mod attention;
mod elementwise;
mod few_rows;
mod gemm;
mod host;
mod loss;
mod norm;
mod optim;

use burn::tensor::Tensor;
pub use elementwise::vectorised;
use host::{Host, into_host_mut};
pub use host::{is_cpu, tensor2};

use super::{
    AdamW, AttentionShape, Clip, CrossEntropy, CrossEntropyGrad, HotOps, Indices, Moments8,
    Nf4Tensor, RopeTable, Scalar, Spans, moments8, through_dense,
};
use crate::rng::Stream;

/// The CPU implementation of [`HotOps`].
pub struct Cpu;

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
    fn gemm(&self, a: &Tensor<2>, ta: bool, b: &Tensor<2>, tb: bool, alpha: f32) -> Tensor<2> {
        let (a, b) = (Host::new(a), Host::new(b));
        let (a, b) = (a.mat(ta), b.mat(tb));
        let mut c = vec![0.0; a.rows * b.cols];
        gemm::gemm(&mut c, b.cols, a, b, alpha, false, gemm::Threads::All);
        tensor2(c, [a.rows, b.cols])
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
        let (a, b) = (Host::new(a), Host::new(b));
        let (a, b) = (a.mat(ta), b.mat(tb));
        let mut c = into_host_mut(c);
        assert_eq!(c.shape(), [a.rows, b.cols]);
        gemm::gemm(c.slice_mut(), b.cols, a, b, alpha, true, gemm::Threads::All);
        c.into_tensor()
    }

    fn nf4_dequantize(&self, weight: &Nf4Tensor) -> Tensor<2> {
        match weight {
            Nf4Tensor::Host(weight) => {
                let mut out = vec![0.0; weight.shape[0] * weight.shape[1]];
                weight.dequantize_as_cpu_kernel(&mut out);
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
        let rows = x.dims()[0];
        #[allow(irrefutable_let_patterns)] // with a GPU there are two
        if let Nf4Tensor::Host(weight) = weight
            && transposed
            && (1..=few_rows::MOST_ROWS).contains(&rows)
        {
            let shape = [rows, weight.shape[0]];
            let sum = sum.unwrap_or_else(|| tensor2(vec![0.0; rows * shape[1]], shape));
            let mut y = into_host_mut(sum);
            few_rows::add_nf4_product(y.slice_mut(), Host::new(x).slice(), rows, weight);
            return y.into_tensor();
        }
        through_dense(self, sum, x, weight, transposed)
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
        elementwise::add_bias(x.slice_mut(), bias.slice());
        x.into_tensor()
    }

    fn column_sums(&self, x: &Tensor<2>) -> Tensor<2> {
        let x = Host::new(x);
        let width = x.shape()[1];
        tensor2(norm::column_sums(x.slice(), width), [1, width])
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
        gate: &Tensor<2>,
        up: &Tensor<2>,
        dy: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>) {
        let (g, u, dy) = (Host::new(gate), Host::new(up), Host::new(dy));
        let (dg, du) = elementwise::swiglu_backward(g.slice(), u.slice(), dy.slice());
        (tensor2(dg, g.shape()), tensor2(du, g.shape()))
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
        let table = Host::new(table);
        let width = table.shape()[1];
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
        let Moments8::Host { mut m, mut v } = moments else {
            return moments8::update(param, grad, moments, hyper, clip);
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
