//! AdamW page by page or at once: the same bits, on any device.

use burn::tensor::{Device, Tensor, TensorData};
use kiln::ops::{AdamW, Clip, Precision, Scalar, for_device};
use kiln::rng::Stream;
use kiln::train::paged::Moments;

pub fn pages_change_nothing(device: &Device) {
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
