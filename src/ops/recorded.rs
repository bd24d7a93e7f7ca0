//! Work that a device was given once and does again when told to (CUDA graphs): nothing
//! is launched piece by piece any more.

use burn::tensor::Tensor;

/// What a device can do again. It reads and writes the memory that it was recorded with,
/// which whoever holds this keeps: what the pass was given, what it returned, weights.
pub trait Recorded: Send {
    /// Gives the work to the device again.
    ///
    /// # Errors
    /// What the device said.
    fn run(&self) -> Result<(), String>;
}

/// A pass that was run and perhaps recorded.
pub struct Recording {
    /// What the pass gave.
    pub first: Tensor<2>,
    /// The work, and where its result comes to lie at each run; `None` where it was not
    /// recorded.
    pub again: Option<(Box<dyn Recorded>, Tensor<2>)>,
    /// What went wrong where recording failed halfway: what the pass writes in place
    /// cannot be read any more.
    pub spoilt: Option<String>,
}

impl Recording {
    /// A pass that was only run.
    pub fn of_one(first: Tensor<2>) -> Self {
        Self {
            first,
            again: None,
            spoilt: None,
        }
    }
}
