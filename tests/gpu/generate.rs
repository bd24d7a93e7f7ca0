//! Generation with a KV cache on a GPU gives the CPU's tokens.

use std::path::Path;

use burn::tensor::Device;
use kiln::config::types::{InferenceConfig, ModelInit, QuantMethod};
use kiln::generate::sampling::Sampler;
use kiln::generate::{Beams, GenerateOptions, Prompt, generate};
use kiln::model::{Adaptation, LoadOptions, load};
use kiln::ops::Precision;

use crate::common;

fn continuations(device: &Device, num_beams: usize) -> Vec<Vec<u32>> {
    let mut model = load(&LoadOptions {
        dir: &Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny"),
        init: ModelInit::Pretrained,
        quantization: &common::quantization(QuantMethod::Nf4),
        adaptation: Adaptation::None,
        seed: 42,
        device,
        precision: Precision::F32,
    })
    .unwrap();
    let prompts: [&[u32]; 3] = [&[5, 20, 31, 7], &[90], &[12, 12, 60, 41, 8, 200, 33]];
    let prompts: Vec<Prompt<'_>> = prompts
        .iter()
        .enumerate()
        .map(|(i, ids)| Prompt {
            ids,
            key: [i as u64, 0],
        })
        .collect();
    let inference = InferenceConfig {
        num_beams,
        ..common::default_config().inference
    };
    let options = GenerateOptions {
        max_new_tokens: 12,
        sampler: Sampler::new(&inference).unwrap(),
        beams: Beams::new(&inference),
        eos_ids: Vec::new(),
        seed: 1,
        adapter: false,
        slots: 2,
    };
    generate(&mut model, &prompts, &options, &|_| false).unwrap()
}

#[test]
fn continues_as_the_cpu_does() {
    let Some(device) = kiln::device::for_checks() else {
        println!("left out: no GPU");
        return;
    };
    for num_beams in [1, 3] {
        let want = continuations(&Device::flex(), num_beams);
        assert!(want.iter().all(|tokens| tokens.len() == 12));
        assert_eq!(continuations(&device, num_beams), want, "{num_beams} beams");
    }
}
