//! AdamW whose moments stay in host memory (paged optimisers; Dettmers et al., 2023,
//! arXiv:2305.14314): a page of them at a time goes to the device, takes part in the
//! update and comes back. The numbers are those of plain AdamW.

use burn::tensor::{Tensor, TensorData};

use crate::ops::{AdamW, Clip, HotOps};

/// Both moments of a parameter, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pub m: Vec<f32>,
    pub v: Vec<f32>,
}

impl Moments {
    /// Zeros.
    pub fn new(elements: usize) -> Self {
        Self {
            m: vec![0.0; elements],
            v: vec![0.0; elements],
        }
    }

    /// One update of `p`, `page` numbers at a time, in whole rows. Waits for the
    /// device: the next update of these moments needs them back.
    pub fn step(
        &mut self,
        ops: &dyn HotOps,
        mut p: Tensor<2>,
        g: &Tensor<2>,
        hyper: &AdamW,
        clip: &Clip,
        page: usize,
    ) -> Tensor<2> {
        let [rows, width] = p.dims();
        let device = p.device();
        let step = (page / width.max(1)).max(1);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let at = first * width..(first + count) * width;
            let upload = |x: &[f32]| -> Tensor<2> {
                let data = TensorData::new(x[at.clone()].to_vec(), [count, width]);
                Tensor::from_data(data, &device)
            };
            let (m, v) = (upload(&self.m), upload(&self.v));
            let part = g.clone().narrow(0, first, count);
            let whole = count == rows;
            let before = match whole {
                true => p.clone(),
                false => p.clone().narrow(0, first, count),
            };
            let (after, m, v) = ops.adamw(before, &part, m, v, hyper, clip);
            p = match whole {
                true => after,
                false => p.slice_assign([first..first + count, 0..width], after),
            };
            for (host, moved) in [(&mut self.m, m), (&mut self.v, v)] {
                let moved = moved.into_data();
                for (host, new) in host[at.clone()].iter_mut().zip(moved.iter::<f32>()) {
                    *host = new;
                }
            }
        }
        p
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::ops::Scalar;
    use crate::ops::{Precision, for_device};
    use crate::rng::Stream;

    /// Page by page or at once: the same bits.
    #[test]
    fn pages_change_nothing() {
        compare(&Device::flex());
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn pages_change_nothing_on_a_gpu() {
        match crate::device::for_checks() {
            Some(device) => compare(&device),
            None => println!("left out: no GPU"),
        }
    }

    fn compare(device: &Device) {
        let ops = for_device(device, Precision::F32);
        let stream = Stream::new(17, &[]);
        let draw = |step: u64, shape: [usize; 2]| -> Tensor<2> {
            let n = (shape[0] * shape[1]) as u64;
            let data = (0..n).map(|i| stream.normal(step * 100_000 + i)).collect();
            Tensor::from_data(TensorData::new::<f32, _>(data, shape), device)
        };
        let bits = |x: &Tensor<2>| -> Vec<u32> {
            let data = x.clone().into_data();
            data.iter::<f32>().map(f32::to_bits).collect()
        };
        for (shape, page) in [
            ([1, 1], 1),
            ([7, 33], 33),
            ([7, 33], 100),
            ([5, 9], 4),
            ([64, 65], 1000),
            ([3, 5], 1 << 20),
        ] {
            let mut plain = draw(0, shape);
            let mut paged = plain.clone();
            let (mut m, mut v) = (plain.zeros_like(), plain.zeros_like());
            let mut moments = Moments::new(shape[0] * shape[1]);
            for step in 1..=4 {
                let g = draw(step, shape);
                let hyper = AdamW {
                    lr: 1e-2,
                    beta1: 0.9,
                    beta2: 0.99,
                    eps: 1e-8,
                    weight_decay: 0.1,
                    step,
                };
                let clip = Clip {
                    squared_norm: Scalar::Host(4.0),
                    max_norm: 1.0,
                };
                (plain, m, v) = ops.adamw(plain, &g, m, v, &hyper, &clip);
                paged = moments.step(ops, paged, &g, &hyper, &clip, page);
                assert_eq!(bits(&paged), bits(&plain), "{shape:?} by {page}");
            }
            let flat = |x: &Tensor<2>| x.clone().into_data().iter::<f32>().collect::<Vec<_>>();
            assert_eq!((moments.m, moments.v), (flat(&m), flat(&v)));
        }
    }
}
