//! A number that an operation computed and that may still lie on the device:
//! reading it waits for the device, so it is read once a step, not once a call.

use burn::tensor::Tensor;

/// A sum such as a loss or a squared norm.
#[derive(Clone, Debug)]
pub enum Scalar {
    Host(f64),
    /// The sum of all elements.
    Device(Tensor<1>),
}

impl Scalar {
    /// The value; waits for the device where it lies there.
    pub fn value(&self) -> f64 {
        match self {
            Self::Host(value) => *value,
            Self::Device(parts) => parts.clone().into_data().iter::<f64>().sum(),
        }
    }
}
