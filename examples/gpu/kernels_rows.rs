//! The operations that are bound by memory: rows in, rows out.

use kiln::ops::{Indices, RopeTable};
use kiln::rng::Stream;

use super::kernels::{Bench, SETS};

impl Bench<'_> {
    pub fn rows(&mut self) {
        let (ops, a) = (self.ops, self.args);
        let (t, hidden, wide, layers) = (a.tokens, a.hidden, a.wide, a.layers);
        let (x, dy) = (self.sets(t, hidden), self.sets(t, hidden));
        let gain = self.random_f32(1, hidden);
        let shape = format!("{t}x{hidden}");
        let n = t * hidden;
        let cost = self.cost(2 * n, 0.0, 2 * layers + 1);
        self.timer.time("rms_norm", shape.clone(), cost, |i| {
            drop(ops.rms_norm(&x[i % SETS], &gain, 1e-5));
        });
        let cost = self.cost(3 * n, 0.0, 2 * layers + 1);
        self.timer
            .time("rms_norm_backward", shape.clone(), cost, |i| {
                drop(ops.rms_norm_backward(&x[i % SETS], &gain, &dy[i % SETS], 1e-5, false));
            });
        let cost = self.cost(2 * n, 0.0, 0);
        self.timer.time("dropout", shape.clone(), cost, |i| {
            drop(ops.dropout(&x[i % SETS], 0.05, Stream::new(i as u64, &[])));
        });
        let mut sums: Vec<_> = x.iter().map(|x| Some(x.clone().mul_scalar(0.5))).collect();
        let cost = self.cost(3 * n, 0.0, 4 * layers);
        self.timer.time("add", shape, cost, |i| {
            let sum = sums[i % SETS].take();
            sums[i % SETS] = sum.map(|sum| ops.add(sum, &dy[i % SETS]));
        });

        let dim = hidden / a.heads;
        let inv_freq: Vec<f32> = (0..dim / 2)
            .map(|i| 500_000f32.powf(-2.0 * i as f32 / dim as f32))
            .collect();
        let table = RopeTable::new(&inv_freq, t.div_ceil(2));
        let positions: Indices = (0..t)
            .map(|i| (i % t.div_ceil(2)) as u32)
            .collect::<Vec<_>>()
            .into();
        for width in [hidden, self.kv()] {
            let mut heads: Vec<_> = self.sets(t, width).into_iter().map(Some).collect();
            let cost = self.cost(2 * t * width, 0.0, 2 * layers);
            self.timer.time("rope", format!("{t}x{width}"), cost, |i| {
                let x = heads[i % SETS].take();
                heads[i % SETS] = x.map(|x| ops.rope(x, &table, &positions, i / SETS % 2 == 1));
            });
        }
        let vocabulary = self.random(a.vocabulary, hidden);
        let random = Stream::new(5, &[]);
        let ids: Indices = (0..t as u64)
            .map(|i| (random.bits(i) % a.vocabulary as u64) as u32)
            .collect::<Vec<_>>()
            .into();
        let cost = self.cost(2 * n, 0.0, 1);
        self.timer
            .time("gather_rows", format!("{t}x{hidden}"), cost, |_| {
                drop(ops.gather_rows(&vocabulary, &ids));
            });
        drop((x, dy, sums, vocabulary));

        let (gate, up, dy) = (self.sets(t, wide), self.sets(t, wide), self.sets(t, wide));
        let shape = format!("{t}x{wide}");
        let cost = self.cost(3 * t * wide, 0.0, 2 * layers);
        self.timer.time("swiglu", shape.clone(), cost, |i| {
            drop(ops.swiglu(&gate[i % SETS], &up[i % SETS]));
        });
        let cost = self.cost(5 * t * wide, 0.0, layers);
        let mut gate: Vec<_> = gate.into_iter().map(Some).collect();
        let mut up: Vec<_> = up.into_iter().map(Some).collect();
        self.timer.time("swiglu_backward", shape, cost, |i| {
            let i = i % SETS;
            // In place, so each set is taken out and put back.
            if let (Some(g), Some(u)) = (gate[i].take(), up[i].take()) {
                let (g, u) = ops.swiglu_backward(g, u, &dy[i]);
                (gate[i], up[i]) = (Some(g), Some(u));
            }
        });
    }
}
