//! Keys and values of earlier tokens, for generation.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use super::operands::Operands;
use super::replay::Replays;
use crate::ops::{HotOps, Indices, RopeTable};

/// One layer's keys and values: `[sequences x capacity, kv_heads x head_dim]`.
pub struct LayerCache {
    pub(super) keys: Tensor<2>,
    pub(super) values: Tensor<2>,
    /// Where the rows of the current batch go.
    pub(super) write_to: Arc<Indices>,
    /// The matrices of the adapter of that number as operands: the parameters do not
    /// change while a cache lives.
    operands: Option<(usize, Arc<Operands>)>,
}

impl LayerCache {
    /// Turns the queries and keys by their positions, where there is a `rope`, and writes
    /// keys and values to the cache; returns the queries.
    pub(super) fn append(
        &mut self,
        ops: &dyn HotOps,
        [q, k, v]: [Tensor<2>; 3],
        rope: Option<&RopeTable>,
        positions: &Indices,
    ) -> Tensor<2> {
        // Taking the tensors out leaves one owner, so the write is in place.
        let empty = Tensor::empty([1, 1], &k.device());
        let cache = [&mut self.keys, &mut self.values].map(|t| std::mem::replace(t, empty.clone()));
        let (q, [keys, values]) = match rope {
            Some(rope) => ops.turn_into_cache([q, k, v], cache, &self.write_to, rope, positions),
            None => {
                let [keys, values] = cache;
                let keys = ops.write_rows(keys, &self.write_to, &k);
                (q, [keys, ops.write_rows(values, &self.write_to, &v)])
            }
        };
        (self.keys, self.values) = (keys, values);
        q
    }

    /// The operands that the layer's adapter of that number needs, made once.
    pub(super) fn operands(
        &mut self,
        adapter: usize,
        make: impl FnOnce() -> Operands,
    ) -> Arc<Operands> {
        match &self.operands {
            Some((known, operands)) if *known == adapter => operands.clone(),
            _ => {
                let made = Arc::new(make());
                self.operands = Some((adapter, made.clone()));
                made
            }
        }
    }
}

/// The cache of all layers for `sequences` sequences of up to `capacity` tokens.
pub struct KvCache {
    pub(super) layers: Vec<LayerCache>,
    pub capacity: usize,
    /// Passes over it that the device can do again.
    pub(super) replays: Replays,
}

impl KvCache {
    pub fn new(
        layers: usize,
        sequences: usize,
        capacity: usize,
        width: usize,
        ops: &dyn HotOps,
        device: &Device,
    ) -> Self {
        let zeros = || ops.zeros([sequences * capacity, width], device);
        let layers = (0..layers)
            .map(|_| LayerCache {
                keys: zeros(),
                values: zeros(),
                write_to: Arc::default(),
                operands: None,
            })
            .collect();
        Self {
            layers,
            capacity,
            replays: Replays::default(),
        }
    }

    /// Whether its keys and values cannot be read any more: the device failed while it
    /// recorded or repeated a pass.
    pub fn is_lost(&self) -> bool {
        self.replays.lost
    }

    /// As a device that fails leaves it.
    #[cfg(test)]
    pub(crate) fn lose(&mut self) {
        for layer in &mut self.layers {
            for stored in [&mut layer.keys, &mut layer.values] {
                *stored = stored.full_like(f32::NAN);
            }
        }
        self.replays.lost = true;
    }

    /// An empty cache in the place of a lost one. Nothing is recorded over it.
    pub fn renew(&mut self, ops: &dyn HotOps, device: &Device) {
        // Recorded work keeps the memory of the old one.
        self.replays = Replays::none();
        for layer in &mut self.layers {
            for stored in [&mut layer.keys, &mut layer.values] {
                let shape = stored.dims();
                // The old one goes first: there may be no room for both.
                *stored = Tensor::empty([1, 1], device);
                *stored = ops.zeros(shape, device);
            }
        }
    }

    /// Makes the rows `to` those of `from`; no row is in both.
    pub fn copy_rows(&mut self, ops: &dyn HotOps, from: Vec<u32>, to: Vec<u32>) {
        let (from, to) = (Indices::from(from), Indices::from(to));
        for layer in &mut self.layers {
            for stored in [&mut layer.keys, &mut layer.values] {
                let rows = ops.gather_rows(stored, &from);
                let empty = Tensor::empty([1, 1], &rows.device());
                let whole = std::mem::replace(stored, empty);
                *stored = ops.write_rows(whole, &to, &rows);
            }
        }
    }

    /// Sets the cache rows that the next forward pass fills.
    pub fn write_to(&mut self, rows: Vec<u32>) {
        self.fill(Arc::new(Indices::from(rows)));
    }

    pub(super) fn fill(&mut self, rows: Arc<Indices>) {
        for layer in &mut self.layers {
            layer.write_to = rows.clone();
        }
    }
}
