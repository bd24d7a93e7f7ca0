//! Tensors that wait in host memory while the device works on others.

use burn::tensor::Tensor;

/// A tensor on its way to host memory, or there.
pub trait Offloaded: Send {
    /// Waits until it has arrived, which frees the device's memory.
    fn arrive(&mut self);

    /// The tensor, on its device again.
    fn back(self: Box<Self>) -> Tensor<2>;
}

/// A tensor of a device whose memory is the host's: it stays where it is.
pub struct Stays(pub Tensor<2>);

impl Offloaded for Stays {
    fn arrive(&mut self) {}

    fn back(self: Box<Self>) -> Tensor<2> {
        self.0
    }
}
