//! The bridge between burn tensors and the buffers that kernels work on.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Units of a cube that works on one row or on a run of elements.
pub const UNITS: usize = 256;
/// Most cubes along one axis: the limit of WebGPU.
const MAX_CUBES: usize = 65_535;

/// The row-major tensor behind a burn tensor; a copy only where it is a strided view.
pub fn buffer<const D: usize>(tensor: &Tensor<D>) -> CubeTensor {
    owned(tensor.clone())
}

/// As [`buffer`], of a tensor that is given away: in place writes need no other owner.
pub fn owned<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    into_contiguous(view(tensor))
}

/// The tensor as it lies, transposed or strided.
pub fn view<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    tensor
        .try_into_primitive::<CubeBackend>()
        .unwrap_or_else(|e| panic!("a GPU op was given a tensor of another device: {e:?}"))
}

/// The buffer of whole numbers behind a burn tensor.
pub fn integers(tensor: &Tensor<1, Int>) -> CubeTensor {
    let tensor = tensor.clone().try_into_primitive::<CubeBackend>();
    tensor.unwrap_or_else(|e| panic!("a GPU op was given a tensor of another device: {e:?}"))
}

/// A buffer that may be written in place: a copy where somebody else holds it.
pub fn writable<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
    sole(owned(tensor))
}

/// As [`writable`], of whole numbers.
pub fn writable_integers(tensor: Tensor<1, Int>) -> CubeTensor {
    let tensor = tensor.try_into_primitive::<CubeBackend>();
    sole(tensor.unwrap_or_else(|e| panic!("a GPU op was given a tensor of another device: {e:?}")))
}

fn sole(tensor: CubeTensor) -> CubeTensor {
    if tensor.handle.can_mut() {
        return tensor;
    }
    let shape = tensor.meta.shape().clone();
    let flat = |handle, shape| {
        let (client, device) = (tensor.client.clone(), tensor.device.clone());
        CubeTensor::new_contiguous(client, device, shape, handle, tensor.dtype)
    };
    // As one row: CUDA's allocator would pad the rows of a matrix.
    let row = flat(tensor.handle.clone(), Shape::from([shape.num_elements()]));
    flat(row.copy().handle, shape)
}

pub fn tensor<const D: usize>(buffer: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(buffer)
}

/// Whole numbers.
pub fn integer_tensor(buffer: CubeTensor) -> Tensor<1, Int> {
    Tensor::from_primitive::<CubeBackend>(buffer)
}

/// A new row-major buffer beside `like`, its contents undefined.
pub fn empty(like: &CubeTensor, shape: &[usize], dtype: DType) -> CubeTensor {
    let shape = Shape::from(shape.to_vec());
    let handle = like.client.empty(shape.num_elements() * dtype.size());
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, shape, handle, dtype)
}

/// Whole numbers on `device`.
pub fn upload_integers(device: &burn::tensor::Device, values: &[u32]) -> Tensor<1, Int> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (device, DType::U32))
}

/// f32 numbers on `device`.
pub fn upload_floats(device: &burn::tensor::Device, values: &[f32]) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (device, DType::F32))
}

pub fn elem(tensor: &CubeTensor) -> ElemType {
    dtype_to_storage_type(tensor.dtype)
}

/// Rows and columns of a rank-2 tensor.
pub fn dims(tensor: &CubeTensor) -> [usize; 2] {
    let shape = tensor.meta.shape();
    [shape[0], shape[1]]
}

/// The widest vectors that divide `width` elements.
pub fn vector_size(width: usize) -> usize {
    let divides = |n: &usize| width.is_multiple_of(*n);
    [4, 2, 1].into_iter().find(divides).unwrap_or(1)
}

/// `n` cubes; kernels find theirs by `CUBE_POS` and stop where it is beyond `n`.
pub fn cubes(n: usize) -> CubeCount {
    let y = n.div_ceil(MAX_CUBES).max(1);
    CubeCount::Static(n.div_ceil(y) as u32, y as u32, 1)
}

/// Cubes of [`UNITS`] units for `n` units of work, found by `ABSOLUTE_POS`.
pub fn cover(n: usize) -> (CubeCount, CubeDim) {
    (cubes(n.div_ceil(UNITS)), CubeDim::new_1d(UNITS as u32))
}

/// The one thing that was asked for.
pub fn only<T>(mut all: Vec<T>) -> T {
    all.remove(0)
}
