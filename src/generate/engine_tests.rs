//! The engine where a device loses the cache, and with what it keeps between passes.

use std::path::Path;

use burn::tensor::Device;

use super::super::sampling::Sampler;
use super::*;
use crate::config::types::{InferenceConfig, ModelInit, QuantMethod, QuantizationConfig};
use crate::generate::Beams;
use crate::model::hf_config::ArchConfig;
use crate::model::peft::{Adapter, AdapterConfig};
use crate::model::{Adaptation, LoadOptions, load};
use crate::ops::Precision;
use crate::ops::cpu::argmax;
use crate::rng::Stream;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/models/tiny");

fn tiny(adaptation: Adaptation<'_>) -> Decoder {
    load(&LoadOptions {
        dir: Path::new(BASE),
        init: ModelInit::Pretrained,
        quantization: &QuantizationConfig {
            method: QuantMethod::None,
            double_quant: false,
            block_size: 64,
        },
        adaptation,
        seed: 1,
        device: &Device::flex(),
        precision: Precision::F32,
    })
    .unwrap()
}

fn options(do_sample: bool, num_beams: usize) -> GenerateOptions {
    let config: InferenceConfig = serde_json::from_value(serde_json::json!({
        "max_new_tokens": 9, "do_sample": do_sample, "temperature": 1.0, "top_p": 1.0, "top_k": null, "min_p": null,
        "num_beams": num_beams, "length_penalty": 1.0, "early_stopping": false, "stream": false,
        "repetition_penalty": 1.0, "batch_size": 1, "use_stop_tokens": false, "stop": [], "clean": [],
        "validation": {"enabled": false, "max_retries": 0}
    }))
    .unwrap();
    GenerateOptions {
        max_new_tokens: config.max_new_tokens,
        sampler: Sampler::new(&config).unwrap(),
        beams: Beams::new(&config),
        eos_ids: Vec::new(),
        seed: 5,
        adapter: false,
        slots: 2,
    }
}

#[test]
fn answers_go_on_after_a_cache_is_lost() {
    let mut model = tiny(Adaptation::None);
    let prompts: [&[u32]; 3] = [&[5, 20, 31, 7], &[90], &[12, 60, 41, 8, 200]];
    let prompts = prompts.map(|ids| Prompt {
        ids,
        key: [ids[0].into(), 0],
    });
    for (do_sample, num_beams) in [(false, 1), (true, 1), (false, 3)] {
        let options = options(do_sample, num_beams);
        let want = generate(&mut model, &prompts, &options, &|_| false).unwrap();
        assert!(want.iter().all(|tokens| tokens.len() == 9), "{want:?}");
        for lost_after in [0, 1, 4, 9, 12] {
            let cx = Context {
                options: &options,
                stop: &|_| false,
            };
            let mut engine = Engine::new(&mut model, &prompts, &cx, 14).unwrap();
            let mut steps = 0;
            while engine.step(&model, &cx, &mut |_| {}).unwrap() {
                if steps == lost_after {
                    engine.cache.lose();
                }
                steps += 1;
            }
            assert!(steps > lost_after);
            assert_eq!(engine.outputs, want, "lost after {lost_after}");
            assert!(!engine.cache.is_lost());
        }
    }
}

/// DoRA's norms are made once for a cache.
#[test]
fn cached_passes_of_dora_are_whole_passes() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(Path::new(BASE).join("config.json")).unwrap();
    let arch = ArchConfig::from_json(&text, Path::new("config.json")).unwrap();
    let config = AdapterConfig {
        base_model_name_or_path: None,
        r: 4,
        lora_alpha: 8.0,
        ranks: Default::default(),
        alphas: Default::default(),
        lora_dropout: 0.0,
        target_modules: ["q_proj", "v_proj", "down_proj"].map(String::from).to_vec(),
        use_rslora: false,
        use_dora: true,
        fan_in_fan_out: false,
        init_lora_weights: Default::default(),
    };
    let mut adapter = Adapter::initial(config, &arch, 3).unwrap();
    for (n, module) in adapter.modules.iter_mut().enumerate() {
        let stream = Stream::new(4, &[n as u64]);
        let b = module.b.iter_mut().zip(0..);
        b.for_each(|(v, i)| *v = stream.normal(i) * 0.2);
        let lengths = (0..module.out_features as u64).map(|i| 0.5 + stream.uniform(1 << 20 | i));
        module.magnitude = Some(lengths.collect());
    }
    adapter.write(&dir.path().join("adapter")).unwrap();
    let mut model = tiny(Adaptation::Adapter(&dir.path().join("adapter")));
    let ids = [5, 20, 31, 7];
    let prompt = [Prompt {
        ids: &ids,
        key: [0, 0],
    }];
    let options = options(false, 1);
    let base = generate(&mut model, &prompt, &options, &|_| false).unwrap();
    let options = GenerateOptions {
        adapter: true,
        ..options
    };
    let tokens = &generate(&mut model, &prompt, &options, &|_| false).unwrap()[0];
    assert_ne!(*tokens, base[0]);
    for n in 0..tokens.len() {
        let mut batch = Ragged::default();
        batch.push(&[&ids, &tokens[..n]].concat());
        let logits = model.logits(&batch, &batch.last_rows(), true, None);
        assert_eq!(argmax(&logits), Some(tokens[n]), "token {n}");
    }
}
