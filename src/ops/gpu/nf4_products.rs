//! Products with a weight in NF4 that is nowhere dense: of a few rows, or by the
//! kernels in CUDA C++.

use burn::tensor::Tensor;

#[cfg(feature = "cuda")]
use super::cuda;
use super::few_rows::{self, Member, Then};
#[cfg(feature = "cuda")]
use super::tensors::writable;
use super::tensors::{buffer, only, tensor};
use crate::ops::Nf4Tensor;

/// The product with a weight in NF4, and with that of `low`; `sum` back where no kernel
/// takes it.
#[allow(clippy::result_large_err)] // the sum goes back as it came
pub fn product(
    sum: Option<Tensor<2>>,
    x: &Tensor<2>,
    weight: &Nf4Tensor,
    low: Option<[&Tensor<2>; 2]>,
    transposed: bool,
) -> Result<Tensor<2>, Option<Tensor<2>>> {
    if let Some(y) = by_few_rows(sum.as_ref(), x, weight, low, transposed) {
        return Ok(y);
    }
    #[cfg(feature = "cuda")]
    let sum = match by_cuda(sum, x, weight, low, transposed) {
        Ok(y) => return Ok(y),
        Err(sum) => sum,
    };
    Err(sum)
}

/// Of a few rows with a transposed weight.
fn by_few_rows(
    sum: Option<&Tensor<2>>,
    x: &Tensor<2>,
    weight: &Nf4Tensor,
    low: Option<[&Tensor<2>; 2]>,
    transposed: bool,
) -> Option<Tensor<2>> {
    let Nf4Tensor::Gpu(weight) = weight else {
        return None;
    };
    let (x, member) = (buffer(x), Member::nf4(weight));
    if !transposed || !few_rows::takes(&x, std::slice::from_ref(&member)) {
        return None;
    }
    let low = low.map(|both| both.map(buffer));
    let sum = sum.map(buffer);
    let then = sum.as_ref().map_or(Then::Nothing, Then::Add);
    let y = few_rows::products(&x, &[Member { low, ..member }], &then)?;
    Some(tensor(only(y)))
}

/// By the kernels of [`cuda`]; `sum` back where the card or they do not take it.
#[cfg(feature = "cuda")]
#[allow(clippy::result_large_err)] // the sum goes back as it came
fn by_cuda(
    sum: Option<Tensor<2>>,
    x: &Tensor<2>,
    weight: &Nf4Tensor,
    low: Option<[&Tensor<2>; 2]>,
    transposed: bool,
) -> Result<Tensor<2>, Option<Tensor<2>>> {
    let rows = buffer(x);
    let Some(units) = cuda::units(&rows, cuda::Family::Nf4Products) else {
        return Err(sum);
    };
    let buffers = match weight {
        Nf4Tensor::Gpu(weight) => weight.cuda_buffers(),
        Nf4Tensor::Host(_) => None,
    };
    let Some(buffers) = buffers else {
        return Err(sum);
    };
    let low = low.map(|both| both.map(buffer));
    let low = low.as_ref().map(|[left, right]| [left, right]);
    match cuda::nf4_product(units, &rows, &buffers, low, sum.map(writable), transposed) {
        Ok(y) => Ok(tensor(y)),
        Err(sum) => Err(sum.map(tensor)),
    }
}
