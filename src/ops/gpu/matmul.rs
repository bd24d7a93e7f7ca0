//! Matrix products: of few rows by a kernel for them, else those in CUDA C++ where the
//! device has shown that it runs them, else cubek's, which take transposed operands as
//! strides.

use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::std::InputBinding;

#[cfg(feature = "cuda")]
use super::cuda;
use super::elementwise::{add, scale};
use super::few_rows;
use super::tensors::{buffer, dims, elem, empty, only};

/// A product `factor x op(a) . op(b)`, summed in f32. Both operands have one type.
pub struct Product<'a> {
    pub a: &'a Tensor<2>,
    pub ta: bool,
    pub b: &'a Tensor<2>,
    pub tb: bool,
    pub factor: f32,
}

impl Product<'_> {
    /// In `dtype`, added to `sum` where there is one; it must not be shared.
    pub fn compute(&self, sum: Option<CubeTensor>, dtype: DType) -> CubeTensor {
        let (mut a, b) = (buffer(self.a), buffer(self.b));
        let mut ta = self.ta;
        if ta && self.tb {
            // No step of a model multiplies so: a copy spares kernels for it.
            a = into_contiguous(operand(a, true));
            ta = false;
        }
        if !ta && self.tb && a.dtype == dtype {
            let member = few_rows::Member::dense(&b, self.factor);
            let then = sum
                .as_ref()
                .map_or(few_rows::Then::Nothing, few_rows::Then::Add);
            if let Some(out) = few_rows::products(&a, &[member], &then) {
                return only(out);
            }
        }
        #[cfg(feature = "cuda")]
        let sum = match cuda::units(&a, cuda::Family::Products) {
            Some(units) => {
                let product = cuda::Product {
                    a: &a,
                    ta,
                    b: &b,
                    tb: self.tb,
                    scale: self.factor,
                    sum,
                    dtype,
                };
                match cuda::product(units, product) {
                    Ok(out) => return out,
                    Err(sum) => sum,
                }
            }
            None => sum,
        };
        let mut out = portable(operand(a, ta), operand(b, self.tb), dtype);
        if self.factor != 1.0 {
            out = scale(out, self.factor);
        }
        match sum {
            Some(sum) => add(sum, out),
            None => out,
        }
    }
}

/// bf16 takes the fastest kernel that autotuning finds, where that can be done. f32 takes one
/// without tensor cores: those would round its operands to TF32, 10 bits of mantissa.
fn portable(a: CubeTensor, b: CubeTensor, dtype: DType) -> CubeTensor {
    let (m, n) = (dims(&a)[0], dims(&b)[1]);
    let out = empty(&a, &[m, n], dtype);
    if a.dtype != DType::F32 && can_tune() {
        return matmul(a, b, Some(out), MatmulStrategy::default(), dtype)
            .unwrap_or_else(|e| panic!("no kernel multiplies these matrices: {e:?}"));
    }
    let kinds = MatmulGlobalElems {
        lhs: elem(&a),
        rhs: elem(&b),
        out: elem(&out),
    };
    let client = a.client.clone();
    let (a_kind, b_kind) = (elem(&a), elem(&b));
    launch_ref(
        &Strategy::SimpleUnit(Default::default()).into(),
        &client,
        InputBinding::new(a.binding(), a_kind),
        InputBinding::new(b.binding(), b_kind),
        out.clone().binding(),
        &mut MatmulElems::from_globals(&kinds),
    )
    .unwrap_or_else(|e| panic!("no kernel multiplies these matrices: {e:?}"));
    out
}

#[cfg(feature = "cuda")]
fn can_tune() -> bool {
    cuda::times_kernels()
}

#[cfg(not(feature = "cuda"))]
fn can_tune() -> bool {
    true
}

fn operand(mut x: CubeTensor, transposed: bool) -> CubeTensor {
    if transposed {
        x.meta.swap(0, 1);
    }
    x
}
