//! Keys and values of earlier tokens, for generation.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::ops::{HotOps, Indices};

/// One layer's keys and values: `[sequences x capacity, kv_heads x head_dim]`.
pub struct LayerCache {
    keys: Tensor<2>,
    values: Tensor<2>,
    /// Where the rows of the current batch go.
    write_to: Arc<Indices>,
}

impl LayerCache {
    /// Writes the new rows and gives the whole cache to attend to.
    pub fn append(
        &mut self,
        ops: &dyn HotOps,
        k: &Tensor<2>,
        v: &Tensor<2>,
    ) -> (&Tensor<2>, &Tensor<2>) {
        // Taking the tensor out leaves one owner, so the write is in place.
        let empty = Tensor::empty([1, 1], &k.device());
        let keys = std::mem::replace(&mut self.keys, empty.clone());
        self.keys = ops.write_rows(keys, &self.write_to, k);
        let values = std::mem::replace(&mut self.values, empty);
        self.values = ops.write_rows(values, &self.write_to, v);
        (&self.keys, &self.values)
    }
}

/// The cache of all layers for `sequences` sequences of up to `capacity` tokens.
pub struct KvCache {
    pub(super) layers: Vec<LayerCache>,
    pub capacity: usize,
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
            })
            .collect();
        Self { layers, capacity }
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
        let rows = Arc::new(Indices::from(rows));
        for layer in &mut self.layers {
            layer.write_to = rows.clone();
        }
    }
}
