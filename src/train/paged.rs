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
