//! The operations of a linear layer: dequantisation, the base's products, LoRA's.

use kiln::ops::Nf4Tensor;
use kiln::ops::nf4::quantize;
use kiln::rng::Stream;
use rayon::prelude::*;

use super::kernels::{Bench, SETS};
use super::timing::Cost;

fn name(out: usize, input: usize) -> String {
    format!("{input}->{out}")
}

impl Bench<'_> {
    pub fn nf4(&mut self) {
        for (out, input, count) in self.linears() {
            let n = out * input;
            let random = Stream::new(n as u64, &[]);
            let value = |i: usize| random.uniform(i as u64) - 0.5;
            let values: Vec<f32> = (0..n).into_par_iter().map(value).collect();
            let weight = Nf4Tensor::new(quantize(&values, [out, input], 64, true), self.device());
            let ops = self.ops;
            let shape = name(out, input);
            // A part of the product on cards without a kernel that does both.
            let dense = Cost {
                bytes: weight.bytes() as f64 + self.width * n as f64,
                flops: 0.0,
                calls: 0,
            };
            self.timer
                .time("nf4_dequantize", shape.clone(), dense, |_| {
                    drop(ops.nf4_dequantize(&weight));
                });
            let t = self.args.tokens;
            let (x, dy) = (self.sets(t, input), self.sets(t, out));
            let flops = 2.0 * (t * out) as f64 * input as f64;
            let mut cost = self.cost(t * (input + out), flops, count * self.args.layers);
            cost.bytes += weight.bytes() as f64;
            self.timer.time("nf4_gemm x.W^T", shape.clone(), cost, |i| {
                drop(ops.nf4_gemm(None, &x[i % SETS], &weight, true));
            });
            self.timer.time("nf4_gemm dy.W", shape, cost, |i| {
                drop(ops.nf4_gemm(None, &dy[i % SETS], &weight, false));
            });
        }
    }

    /// The same products of a dense weight, which a step with NF4 does not make.
    pub fn products(&mut self) {
        let (ops, t) = (self.ops, self.args.tokens);
        for (out, input, _) in self.linears() {
            let (x, w, dy) = (
                self.sets(t, input),
                self.random(out, input),
                self.sets(t, out),
            );
            let flops = 2.0 * (t * out) as f64 * input as f64;
            let numbers = t * input + out * input + t * out;
            let cost = self.cost(numbers, flops, 0);
            let shape = name(out, input);
            self.timer.time("gemm x.W^T", shape.clone(), cost, |i| {
                drop(ops.gemm(&x[i % SETS], false, &w, true, 1.0));
            });
            self.timer.time("gemm dy.W", shape, cost, |i| {
                drop(ops.gemm(&dy[i % SETS], false, &w, false, 1.0));
            });
        }
    }

    pub fn lora(&mut self) {
        let (ops, t, r) = (self.ops, self.args.tokens, self.args.rank);
        for (out, input, count) in self.linears() {
            let calls = count * self.args.layers;
            let (x, dy) = (self.sets(t, input), self.sets(t, out));
            let (a, b) = (self.random_f32(r, input), self.random_f32(out, r));
            let cast = Cost {
                bytes: (4.0 + self.width) * (r * input) as f64,
                flops: 0.0,
                calls: 2 * calls,
            };
            let shape = name(out, input);
            self.timer.time("operand A", shape.clone(), cast, |_| {
                drop(ops.operand(&a));
            });
            let (a, b) = (ops.operand(&a), ops.operand(&b));
            let u = self.random(t, r);
            let flops = |width: usize| 2.0 * (t * r) as f64 * width as f64;
            let down = self.cost(t * input + r * input + t * r, flops(input), calls);
            let up = self.cost(t * out + out * r + t * r, flops(out), calls);
            let add = |cost: Cost, width: usize| Cost {
                bytes: cost.bytes + self.width * (t * width) as f64,
                ..cost
            };
            // Gradients are f32.
            let gradient = |cost: Cost, width: usize| Cost {
                bytes: cost.bytes + (4.0 - self.width) * (r * width) as f64,
                ..cost
            };
            let (up_add, down_add) = (add(up, out), add(down, input));
            let (up_grad, down_grad) = (gradient(up, out), gradient(down, input));
            let timer = &mut self.timer;
            timer.time("lora u=x.A^T", shape.clone(), down, |i| {
                drop(ops.gemm(&x[i % SETS], false, &a, true, 1.0));
            });
            let mut y = dy.clone().into_iter().map(Some).collect::<Vec<_>>();
            // Copies of their own, to be written in place.
            for y in y.iter_mut().flatten() {
                *y = y.clone().mul_scalar(0.5);
            }
            timer.time("lora y+=u.B^T", shape.clone(), up_add, |i| {
                let sum = y[i % SETS].take();
                y[i % SETS] = sum.map(|sum| ops.gemm_add(sum, &u, false, &b, true, 0.01));
            });
            timer.time("lora dB=dy^T.u", shape.clone(), up_grad, |i| {
                drop(ops.gradient(None, &dy[i % SETS], true, &u, false, 2.0));
            });
            timer.time("lora du=dy.B", shape.clone(), up, |i| {
                drop(ops.gemm(&dy[i % SETS], false, &b, false, 2.0));
            });
            timer.time("lora dA=du^T.x", shape.clone(), down_grad, |i| {
                drop(ops.gradient(None, &u, true, &x[i % SETS], false, 1.0));
            });
            let mut dx: Vec<_> = x.iter().map(|x| Some(x.clone().mul_scalar(0.5))).collect();
            timer.time("lora dx+=du.A", shape, down_add, |i| {
                let sum = dx[i % SETS].take();
                dx[i % SETS] = sum.map(|sum| ops.gemm_add(sum, &u, false, &a, false, 0.01));
            });
        }
    }
}
