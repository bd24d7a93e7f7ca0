//! When a decoding pass is recorded, and when what was recorded takes its place.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::decoder::Decoder;
use super::kv_cache::KvCache;
use super::ragged::Ragged;
use super::replay::{BEFORE, Kind, MOST, Replay, Replays};
use crate::ops::{Indices, Spans};

impl Decoder {
    /// The logits of a pass over one new token a sequence, by recorded work if there is
    /// some or it is time to record it; `None` where the pass has to be launched, or the
    /// cache is lost.
    pub(super) fn replayed(
        &self,
        batch: &Ragged,
        adapter: bool,
        cache: &mut KvCache,
    ) -> Option<Tensor<2>> {
        let single = batch.spans.iter().all(|span| span.q_len == 1);
        if cache.replays.off || !single || batch.is_empty() {
            return None;
        }
        let kind = (batch.len(), self.adapter_number(adapter));
        let count = match cache.replays.newest {
            Some((newest, count)) if newest == kind => count + 1,
            _ => 1,
        };
        cache.replays.newest = Some((kind, count));
        let known = cache.replays.kept.iter().position(|r| r.kind == kind);
        if let Some(at) = known {
            let replay = cache.replays.kept.remove(at);
            let x = self.embedded(batch, adapter);
            let to = cache.layers[0].write_to.clone();
            if let Err(problem) = replay.run(self.ops(), &x, batch, &to) {
                cache.replays.fail("repeat", &problem);
                return None;
            }
            let logits = replay.logits.clone();
            cache.replays.kept.push(replay);
            return Some(logits);
        }
        if count <= BEFORE || !self.ops().records(&self.device) {
            return None;
        }
        self.record(kind, batch, adapter, cache)
    }

    /// Runs the pass and records it; `None` where the cache is lost by that.
    fn record(
        &self,
        kind: Kind,
        batch: &Ragged,
        adapter: bool,
        cache: &mut KvCache,
    ) -> Option<Tensor<2>> {
        let ops = self.ops();
        if cache.replays.kept.len() == MOST {
            cache.replays.kept.remove(0);
        }
        // Copies of its own, since the batch's go with the batch.
        let spans = batch.spans.to_vec();
        let mut batch_again = Ragged::default();
        batch_again.ids = batch.ids.to_vec().into();
        batch_again.positions = batch.positions.to_vec().into();
        batch_again.spans = Spans::from(spans).with_room(cache.capacity);
        batch_again.rows = batch_again.last_rows();
        let write_to = Arc::new(Indices::from(cache.layers[0].write_to.to_vec()));
        cache.fill(write_to.clone());
        let places = Indices::from((0..batch.len() as u32).collect::<Vec<_>>());
        let embedded = self.embedded(batch, adapter);
        let x = ops.zeros(embedded.dims(), &self.device);
        let x = ops.write_rows(x, &places, &embedded);
        let mut pass = || {
            let (batch, cache) = (&batch_again, Some(&mut *cache));
            let hidden = self.hidden_of(x.clone(), batch, &batch.rows, adapter, cache);
            self.head_product(&hidden, adapter)
        };
        let recording = ops.record(&mut pass, &self.device);
        if let Some(problem) = recording.spoilt {
            cache.replays.fail("record", &problem);
            return None;
        }
        // Where attention has another kernel, it does not read the spans' copy.
        let again = recording
            .again
            .filter(|_| batch_again.spans.singles_copy().is_some());
        match again {
            Some((work, logits)) => cache.replays.kept.push(Replay {
                kind,
                x,
                places,
                batch: batch_again,
                write_to,
                work,
                logits,
            }),
            None => cache.replays = Replays::none(),
        }
        Some(recording.first)
    }
}
