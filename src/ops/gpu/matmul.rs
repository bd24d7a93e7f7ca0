//! Matrix products by cubek's kernels, which take transposed operands as strides.

use burn::tensor::{DType, Tensor};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level::Strategy;
use cubek::std::InputBinding;

use super::tensors::{buffer, dims, elem, empty};

/// `op(a) . op(b)` in `dtype`, summed in f32. Both operands have one type.
///
/// bf16 takes the fastest kernel that autotuning finds. f32 takes one without
/// tensor cores: those would round its operands to TF32, 10 bits of mantissa.
pub fn product(a: &Tensor<2>, ta: bool, b: &Tensor<2>, tb: bool, dtype: DType) -> CubeTensor {
    let (a, b) = (operand(a, ta), operand(b, tb));
    let (m, n) = (dims(&a)[0], dims(&b)[1]);
    let out = empty(&a, &[m, n], dtype);
    if a.dtype != DType::F32 {
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

fn operand(x: &Tensor<2>, transposed: bool) -> CubeTensor {
    let mut x = buffer(x);
    if transposed {
        x.meta.swap(0, 1);
    }
    x
}
