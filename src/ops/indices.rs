//! Lists of numbers that operations index by. A device with memory of its own
//! gets its copy at the first use, and all later operations share it: a batch's
//! positions cross the bus once, not once a layer.

use std::ops::Deref;
use std::sync::OnceLock;

use burn::tensor::{Int, Tensor};

/// Row numbers, positions or token ids.
#[derive(Clone, Debug, Default)]
pub struct Indices {
    host: Vec<u32>,
    device: OnceLock<Tensor<1, Int>>,
}

impl Indices {
    pub fn push(&mut self, index: u32) {
        self.device = OnceLock::new();
        self.host.push(index);
    }

    pub fn extend(&mut self, indices: impl IntoIterator<Item = u32>) {
        self.device = OnceLock::new();
        self.host.extend(indices);
    }

    /// The device's copy, if it has one.
    pub fn copy(&self) -> Option<&Tensor<1, Int>> {
        self.device.get()
    }

    /// The device's copy, made by `upload` unless there is one.
    pub fn on_device(&self, upload: impl FnOnce(&[u32]) -> Tensor<1, Int>) -> &Tensor<1, Int> {
        self.device.get_or_init(|| upload(&self.host))
    }
}

impl From<Vec<u32>> for Indices {
    fn from(host: Vec<u32>) -> Self {
        Self {
            host,
            device: OnceLock::new(),
        }
    }
}

impl Deref for Indices {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.host
    }
}

/// One sequence of a ragged batch: `q_len` query rows starting at row `q_start`
/// attend causally to `k_len` key rows starting at `k_start`; the last query is
/// aligned with the last key. In training both ranges are the same rows; with a
/// KV cache the keys live in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub q_start: usize,
    pub q_len: usize,
    pub k_start: usize,
    pub k_len: usize,
}

/// All sequences of a batch.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    host: Vec<Span>,
    /// Blocks of query rows and of key rows, as attention kernels cut them.
    device: OnceLock<[Tensor<1, Int>; 2]>,
    /// What attention of one query a sequence reads, as of [`Spans::singles`].
    singles: OnceLock<Tensor<1, Int>>,
    /// Keys that kernels are cut for where the sequences are shorter: what is recorded
    /// serves longer ones later.
    room: usize,
    /// The first row of each row's sequence; `None` where the spans have no such form.
    #[cfg(feature = "cuda")]
    starts: OnceLock<Option<Tensor<1, Int>>>,
}

impl Spans {
    pub fn push(&mut self, span: Span) {
        let mut host = std::mem::take(&mut self.host);
        host.push(span);
        *self = host.into();
    }

    /// The device's tables, made by `upload` unless there are some.
    pub fn on_device(
        &self,
        upload: impl FnOnce(&[Span]) -> [Tensor<1, Int>; 2],
    ) -> &[Tensor<1, Int>; 2] {
        self.device.get_or_init(|| upload(&self.host))
    }

    /// The same, with kernels cut for sequences of at least `room` keys.
    pub fn with_room(mut self, room: usize) -> Self {
        self.room = room;
        self
    }

    /// See [`Spans::with_room`].
    pub fn room(&self) -> usize {
        self.room
    }

    /// For each sequence of one query: its row, the row of the first key, keys.
    pub fn singles(&self) -> Vec<u32> {
        let entry = |s: &Span| [s.q_start, s.k_start, s.k_len].map(|word| word as u32);
        self.iter().flat_map(entry).collect()
    }

    /// The device's copy of [`Spans::singles`], if it has one.
    pub fn singles_copy(&self) -> Option<&Tensor<1, Int>> {
        self.singles.get()
    }

    /// The device's table of single queries, made by `upload` unless there is one.
    pub fn singles_on_device(
        &self,
        upload: impl FnOnce(&[u32]) -> Tensor<1, Int>,
    ) -> &Tensor<1, Int> {
        self.singles.get_or_init(|| upload(&self.singles()))
    }

    /// The first row of each row's sequence on the device, by `upload` at first.
    #[cfg(feature = "cuda")]
    pub fn starts_on_device(
        &self,
        upload: impl FnOnce(&[Span]) -> Option<Tensor<1, Int>>,
    ) -> Option<&Tensor<1, Int>> {
        self.starts.get_or_init(|| upload(&self.host)).as_ref()
    }
}

impl From<Vec<Span>> for Spans {
    fn from(host: Vec<Span>) -> Self {
        Self {
            host,
            ..Self::default()
        }
    }
}

impl Deref for Spans {
    type Target = [Span];

    fn deref(&self) -> &[Span] {
        &self.host
    }
}
