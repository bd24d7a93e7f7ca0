//! The way of a tensor to host memory and back. Both are enqueued behind the work
//! that the device was given before; only [`Offloaded::arrive`] waits.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::future::{DynFut, block_on};
use cubecl::server::ServerError;

use super::tensors::{buffer, tensor};
use crate::ops::offload::Offloaded;

/// A tensor that left the device.
pub struct Away {
    device: CubeDevice,
    shape: Shape,
    dtype: DType,
    /// `None` only while it changes.
    state: Option<State>,
}

enum State {
    /// The read holds the device's memory until it is done.
    Leaving(DynFut<Result<Vec<Bytes>, ServerError>>),
    There(Bytes),
}

impl Away {
    /// Starts the way of `x`.
    pub fn new(x: &Tensor<2>) -> Self {
        let x = buffer(x);
        let client = lasting(&x.client, &x.device);
        Self {
            shape: x.meta.shape().clone(),
            dtype: x.dtype,
            state: Some(State::Leaving(Box::pin(
                client.read_async(vec![x.handle.clone()]),
            ))),
            device: x.device,
        }
    }
}

impl State {
    fn bytes(self) -> Bytes {
        match self {
            Self::There(bytes) => bytes,
            Self::Leaving(read) => {
                let read = block_on(read).unwrap_or_else(|e| panic!("reading a tensor: {e:?}"));
                let only = read.into_iter().next();
                only.expect("one buffer was asked for")
            }
        }
    }
}

impl Offloaded for Away {
    fn arrive(&mut self) {
        self.state = self.state.take().map(|state| State::There(state.bytes()));
    }

    fn back(self: Box<Self>) -> Tensor<2> {
        let Self {
            device,
            shape,
            dtype,
            state,
        } = *self;
        let client = device.client();
        let bytes = state.expect("it is back once").bytes();
        let handle = client.create(bytes);
        tensor(CubeTensor::new_contiguous(
            client, device, shape, handle, dtype,
        ))
    }
}

/// The device's client for as long as the program runs: a read borrows it until it is
/// awaited. There is one a device.
fn lasting(client: &Client, device: &CubeDevice) -> &'static Client {
    static CLIENTS: Mutex<Vec<(CubeDevice, &'static Client)>> = Mutex::new(Vec::new());
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, found)) = clients.iter().find(|(of, _)| of == device) {
        return found;
    }
    let new: &'static Client = Box::leak(Box::new(client.clone()));
    clients.push((device.clone(), new));
    new
}
