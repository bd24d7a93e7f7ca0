//! Generation with a KV cache on a GPU gives the CPU's tokens.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kiln::config::types::{InferenceConfig, ModelInit, QuantMethod};
use kiln::generate::sampling::Sampler;
use kiln::generate::{Beams, GenerateOptions, Prompt, generate};
use kiln::model::hf_config::ArchConfig;
use kiln::model::peft::{Adapter, AdapterConfig};
use kiln::model::{Adaptation, LoadOptions, load};
use kiln::ops::Precision;
use kiln::rng::Stream;

use crate::common;

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny")
}

/// An adapter on all linears that changes the answers.
fn adapter(base: &Path, dir: &Path) {
    let text = std::fs::read_to_string(base.join("config.json")).unwrap();
    let arch = ArchConfig::from_json(&text, Path::new("config.json")).unwrap();
    let named = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    let config = AdapterConfig {
        base_model_name_or_path: None,
        r: 8,
        lora_alpha: 16.0,
        ranks: Default::default(),
        alphas: Default::default(),
        lora_dropout: 0.0,
        target_modules: named.map(str::to_string).to_vec(),
        use_rslora: false,
        use_dora: false,
        fan_in_fan_out: false,
        init_lora_weights: Default::default(),
    };
    let mut adapter = Adapter::initial(config, &arch, 3).unwrap();
    for (n, module) in adapter.modules.iter_mut().enumerate() {
        let stream = Stream::new(9, &[n as u64]);
        let values = module.b.iter_mut().zip(0..);
        values.for_each(|(v, i)| *v = stream.normal(i) * 0.05);
    }
    adapter.write(dir).unwrap();
}

fn continuations(device: &Device, num_beams: usize, adapted: Option<&Path>) -> Vec<Vec<u32>> {
    let mut model = load(&LoadOptions {
        dir: &base(),
        init: ModelInit::Pretrained,
        quantization: &common::quantization(QuantMethod::Nf4),
        adaptation: adapted.map_or(Adaptation::None, Adaptation::Adapter),
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
        max_new_tokens: 20,
        sampler: Sampler::new(&inference).unwrap(),
        beams: Beams::new(&inference),
        eos_ids: Vec::new(),
        seed: 1,
        adapter: adapted.is_some(),
        slots: 2,
    };
    // One ends before the other, so that the third prompt begins while another goes on.
    let stop = |tokens: &[u32]| tokens.len() == 11 && tokens[0].is_multiple_of(4);
    generate(&mut model, &prompts, &options, &stop).unwrap()
}

/// A device that has no graphs, or fails at them, launches each pass: the same tokens, but
/// slower. This one has them.
#[test]
fn decoding_passes_are_recorded() {
    let Some(device) = kiln::device::for_checks() else {
        println!("left out: no GPU");
        return;
    };
    assert!(kiln::ops::for_device(&device, Precision::F32).records(&device));
}

#[test]
fn continues_as_the_cpu_does() {
    let Some(device) = kiln::device::for_checks() else {
        println!("left out: no GPU");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let trained = dir.path().join("adapter");
    adapter(&base(), &trained);
    let (mut all, mut stopped) = (Vec::new(), false);
    for (num_beams, adapted) in [(1, None), (3, None), (1, Some(trained.as_path()))] {
        let want = continuations(&Device::flex(), num_beams, adapted);
        let lengths: Vec<_> = want.iter().map(Vec::len).collect();
        assert!(lengths.contains(&20), "{lengths:?}");
        stopped |= lengths[..2] == [11, 20] || lengths[..2] == [20, 11];
        let got = continuations(&device, num_beams, adapted);
        assert_eq!(got, want, "{num_beams} beams, {adapted:?}");
        all.push(want);
    }
    assert_ne!(all[0], all[2]);
    assert!(stopped, "no prompt began beside another: {all:?}");
}
