//! The bridge between burn tensors on the flex backend and plain slices.

use std::ops::Range;

use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{Flex, FlexTensor, Layout};

use super::bf16;
use super::mat::Mat;
use super::weight_rows::Rows;

/// A shared, contiguous view of a float tensor on the CPU.
pub struct Host(FlexTensor);

impl Host {
    /// No copy unless the tensor is a transposed or strided view; rows of a larger
    /// one are used where they lie.
    pub fn new<const D: usize>(tensor: &Tensor<D>) -> Self {
        let flex = tensor
            .clone()
            .try_into_primitive::<Flex>()
            .unwrap_or_else(|e| panic!("a CPU op was given a tensor of another device: {e:?}"));
        match flex.layout().is_contiguous() {
            true => Self(flex),
            false => Self(flex.to_contiguous()),
        }
    }

    pub fn slice(&self) -> &[f32] {
        &self.0.storage()[self.range()]
    }

    /// Where in the storage the numbers are.
    fn range(&self) -> Range<usize> {
        let layout = self.0.layout();
        let start = layout.start_offset();
        start..start + layout.num_elements()
    }

    /// `[rows, columns]` of a rank-2 tensor.
    pub fn shape(&self) -> [usize; 2] {
        let shape = self.0.layout().shape();
        [shape[0], shape[1]]
    }

    /// The tensor as a matrix operand, transposed if asked.
    pub fn mat(&self, transposed: bool) -> Mat<'_> {
        let [rows, cols] = self.shape();
        let mat = Mat::row_major(self.slice(), rows, cols);
        if transposed { mat.t() } else { mat }
    }
}

/// Whether a tensor is held in bf16.
pub fn is_bf16<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::BF16
}

/// A shared, contiguous view of a bf16 matrix on the CPU.
pub struct HostBf16(Host);

impl HostBf16 {
    pub fn new(tensor: &Tensor<2>) -> Self {
        Self(Host::new(tensor))
    }

    pub fn slice(&self) -> &[half::bf16] {
        &self.0.0.storage()[self.0.range()]
    }

    pub fn shape(&self) -> [usize; 2] {
        self.0.shape()
    }

    pub fn rows(&self) -> Rows<'_> {
        Rows::Bf16(self.slice())
    }
}

/// The tensor in f32: itself, or its numbers widened.
pub fn in_f32(tensor: &Tensor<2>) -> Tensor<2> {
    if !is_bf16(tensor) {
        return tensor.clone();
    }
    let host = HostBf16::new(tensor);
    let mut out = vec![0.0; host.slice().len()];
    bf16::widen(host.slice(), &mut out);
    tensor2(out, host.shape())
}

/// An owned float tensor to be changed in place.
pub struct HostMut(FlexTensor);

/// Takes a tensor for writing: in place where nobody else holds it, else on a copy.
pub fn into_host_mut(tensor: Tensor<2>) -> HostMut {
    let flex = tensor
        .try_into_primitive::<Flex>()
        .unwrap_or_else(|e| panic!("a CPU op was given a tensor of another device: {e:?}"));
    // `to_contiguous` shares the storage where it is contiguous already; dropping
    // `flex` first makes the result its only owner.
    let contiguous = flex.to_contiguous();
    drop(flex);
    HostMut(contiguous)
}

impl HostMut {
    pub fn slice_mut(&mut self) -> &mut [f32] {
        let start = self.0.layout().start_offset();
        let len = self.0.layout().num_elements();
        &mut self.0.storage_mut::<f32>()[start..start + len]
    }

    pub fn shape(&self) -> [usize; 2] {
        let shape = self.0.layout().shape();
        [shape[0], shape[1]]
    }

    pub fn into_tensor(self) -> Tensor<2> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

/// A tensor that takes over `data`.
pub fn tensor2(data: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    debug_assert_eq!(data.len(), shape[0] * shape[1]);
    flex2(Bytes::from_elems(data), shape, DType::F32)
}

/// A bf16 tensor that takes over `data`.
pub fn bf16_tensor2(data: Vec<half::bf16>, shape: [usize; 2]) -> Tensor<2> {
    debug_assert_eq!(data.len(), shape[0] * shape[1]);
    flex2(Bytes::from_elems(data), shape, DType::BF16)
}

fn flex2(data: Bytes, shape: [usize; 2], kind: DType) -> Tensor<2> {
    let layout = Layout::contiguous(Shape::new(shape));
    Tensor::from_primitive::<Flex>(FlexTensor::new(data, layout, kind))
}
