//! PiSSA and LoftQ against PEFT's (tests/python/pissa.py), where singular vectors'
//! signs are free: what counts is B A and what the base keeps.

use std::path::Path;

use burn::tensor::Device;
use safetensors::SafeTensors;

use super::super::export::{ExportError, WeightType};
use super::super::peft::{Adapter, PeftError};
use super::super::rewrite::Base;
use super::super::{Adaptation, Decoder, LoadError, LoadOptions, Ragged, load};
use super::*;
use crate::config::types::{ModelInit, QuantMethod, TargetModules};
use crate::ops::Precision;

const SHAPES: [(&str, [usize; 2]); 2] = [("wide", [24, 40]), ("tall", [70, 33])];

/// The formula of tests/python/pissa.py.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let number = |i: u64| {
        let h = (i + seed * 1_000_003).wrapping_mul(2_654_435_761) & 0xFFFF_FFFF;
        let h = ((h ^ (h >> 15)) * 2_246_822_519) & 0xFFFF_FFFF;
        (((h ^ (h >> 13)) >> 8) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (0..n as u64).map(number).collect()
}

fn fixture() -> Vec<u8> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/pissa.safetensors"
    );
    std::fs::read(file).unwrap()
}

fn lora(init: LoraInit) -> LoraConfig {
    LoraConfig {
        r: 4,
        alpha: 10.0,
        dropout: 0.0,
        target_modules: TargetModules::Named("all-linear".into()),
        exclude_modules: Vec::new(),
        layers_to_transform: None,
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        use_rslora: false,
        use_dora: false,
        init_lora_weights: init,
        loftq_iter: 1,
        init_from: None,
    }
}

fn quantization(method: QuantMethod) -> QuantizationConfig {
    QuantizationConfig {
        method,
        double_quant: false,
        block_size: 64,
    }
}

fn empty(shape: [usize; 2], r: usize) -> LoraTensors {
    LoraTensors {
        module: "layer".into(),
        a: vec![0.0; r * shape[1]],
        b: vec![0.0; shape[0] * r],
        magnitude: None,
        r,
        in_features: shape[1],
        out_features: shape[0],
    }
}

/// B A.
fn product(lora: &LoraTensors) -> Vec<f32> {
    let mut sum = vec![0.0; lora.out_features * lora.in_features];
    lora.add_to(&mut sum, 1.0);
    sum
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

#[test]
fn a_weight_at_the_end_of_f32_stays_whole() {
    let shape = [24, 40];
    let dense = vec![3e38f32; shape[0] * shape[1]];
    for init in [LoraInit::Pissa, LoraInit::PissaSteps(4)] {
        let start = Start::new(&lora(init), &quantization(QuantMethod::None), 7).unwrap();
        let (mut rest, mut found) = (dense.clone(), empty(shape, 4));
        assert!(start.take(&mut rest, &mut found, 2.5).is_none());
        assert!(rest == dense && found.a.len() == 4 * shape[1]);
        assert!(found.a.iter().chain(&found.b).all(|v| *v == 0.0));
    }
    let double = QuantizationConfig {
        double_quant: true,
        ..quantization(QuantMethod::Nf4)
    };
    let start = Start::new(&lora(LoraInit::Loftq), &double, 7).unwrap();
    let (mut rest, mut found) = (dense.clone(), empty(shape, 4));
    assert!(start.take(&mut rest, &mut found, 1.0).is_some());
    assert!(found.a.iter().chain(&found.b).all(|v| v.is_finite()));
}

#[test]
fn what_peft_begins_with() {
    let bytes = fixture();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let golden = |name: String| -> Vec<f32> {
        let data = file.tensor(&name).unwrap().data().to_vec();
        let words = data.chunks_exact(4);
        words
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    for (seed, (name, shape)) in SHAPES.into_iter().enumerate() {
        let dense = numbers(seed as u64, shape[0] * shape[1]);
        for case in ["plain", "rslora", "turned"] {
            let config = LoraConfig {
                use_rslora: case == "rslora",
                ..lora(LoraInit::Pissa)
            };
            let start = Start::new(&config, &quantization(QuantMethod::None), 7).unwrap();
            let (mut rest, mut found) = (dense.clone(), empty(shape, 4));
            let scale = if config.use_rslora { 5.0 } else { 2.5 };
            assert!(start.take(&mut rest, &mut found, scale).is_none());
            let off =
                largest_difference(&product(&found), &golden(format!("{name}.{case}.product")));
            assert!(off < 5e-6, "{name} {case}: B A {off}");
            let off = largest_difference(&rest, &golden(format!("{name}.{case}.rest")));
            assert!(off < 5e-6, "{name} {case}: the base {off}");
            // A and B share the values evenly, as PEFT's do.
            let square = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>();
            let column: Vec<f32> = found.b.iter().step_by(4).copied().collect();
            let (a, b) = (square(&found.a[..shape[1]]), square(&column));
            assert!((a / b - 1.0).abs() < 1e-4, "{a} {b}");
        }
        for rounds in [1, 3] {
            let config = LoraConfig {
                loftq_iter: rounds,
                ..lora(LoraInit::Loftq)
            };
            let start = Start::new(&config, &quantization(QuantMethod::Nf4), 7).unwrap();
            let (mut weight, mut found) = (dense.clone(), empty(shape, 4));
            let base = start.take(&mut weight, &mut found, 1.0).unwrap();
            assert_eq!(weight, dense);
            let mut values = vec![0.0; dense.len()];
            base.dequantize_into(&mut values);
            let off = largest_difference(&values, &golden(format!("{name}.loftq{rounds}.rest")));
            // Codes are equal; scales follow what the rounds before left.
            assert!(off < 1e-5, "{name}, {rounds} rounds: the base {off}");
            let wanted = golden(format!("{name}.loftq{rounds}.product"));
            let off = largest_difference(&product(&found), &wanted);
            // What quantising loses is nearly as large in every direction.
            assert!(off < 5e-5, "{name}, {rounds} rounds: B A {off}");
        }
    }
}

#[test]
fn steps_come_near_the_exact_start_and_nothing_is_lost() {
    let shape = [70, 33];
    let dense = numbers(1, shape[0] * shape[1]);
    let take = |init| {
        let start = Start::new(&lora(init), &quantization(QuantMethod::None), 7).unwrap();
        let (mut rest, mut found) = (dense.clone(), empty(shape, 4));
        start.take(&mut rest, &mut found, 2.5);
        let mut whole = rest.clone();
        found.add_to(&mut whole, 2.5);
        assert!(largest_difference(&whole, &dense) < 1e-6);
        rest.iter().map(|v| v * v).sum::<f32>()
    };
    let (exact, many, few) = (
        take(LoraInit::Pissa),
        take(LoraInit::PissaSteps(30)),
        take(LoraInit::PissaSteps(0)),
    );
    assert!(
        many < exact * 1.001 && few > exact * 1.02,
        "{exact} {many} {few}"
    );
}

#[test]
fn an_adapter_relative_to_its_start_is_what_changed() {
    let shape = [6, 9];
    let (mut then, mut now) = (empty(shape, 2), empty(shape, 2));
    (then.a, then.b) = (numbers(3, 18), numbers(4, 12));
    (now.a, now.b) = (numbers(5, 18), numbers(6, 12));
    let mut change = product(&now);
    then.add_to(&mut change, -1.0);
    let plain = now.relative_to(&[then.a, then.b]);
    assert_eq!((plain.r, plain.a.len(), plain.b.len()), (4, 36, 24));
    assert!(largest_difference(&product(&plain), &change) < 1e-6);
}

const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 31, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "initializer_range": 0.2}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 31, "n_embd": 16, "n_layer": 2,
    "n_head": 2, "n_positions": 16, "initializer_range": 0.2}"#;

fn open(dir: &Path, adaptation: Adaptation<'_>, method: QuantMethod) -> Result<Decoder, LoadError> {
    let mut model = load(&LoadOptions {
        dir,
        init: ModelInit::Random,
        quantization: &quantization(method),
        adaptation,
        seed: 1,
        device: &Device::flex(),
        precision: Precision::F32,
    })?;
    model.reserve_positions(8);
    Ok(model)
}

fn logits(model: &Decoder, adapter: bool) -> Vec<f32> {
    let mut batch = Ragged::default();
    batch.push(&[3, 1, 4, 1, 5]);
    model.logits(&batch, &batch.last_rows(), adapter, None)
}

#[test]
fn a_model_begins_as_its_base_and_its_adapter_is_saved_on_that() {
    for text in [LLAMA, GPT2] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let base = logits(
            &open(dir.path(), Adaptation::None, QuantMethod::None).unwrap(),
            true,
        );
        for init in [LoraInit::Pissa, LoraInit::PissaSteps(4)] {
            let config = lora(init);
            let adaptation = Adaptation::Lora(&config);
            let mut model = open(dir.path(), adaptation, QuantMethod::None).unwrap();
            assert!(largest_difference(&logits(&model, true), &base) < 1e-4);
            assert!(largest_difference(&logits(&model, false), &base) > 1e-2);
            // As after training: every matrix is another.
            let values = model.params.take().into_iter().enumerate();
            let values = values.map(|(i, value)| value * (1.0 + 0.1 * (i % 3) as f32));
            model.params.put(values.collect());
            let trained = logits(&model, true);
            assert!(largest_difference(&trained, &base) > 1e-2);
            let adapter = model.adapter(dir.path()).unwrap();
            assert_eq!((adapter.config.r, adapter.config.lora_alpha), (8, 20.0));
            let saved = dir.path().join(init.word());
            adapter.write(&saved).unwrap();
            assert_eq!(
                Adapter::read(&saved, &model.arch).unwrap().modules,
                adapter.modules
            );
            let plain = open(dir.path(), Adaptation::Adapter(&saved), QuantMethod::None).unwrap();
            assert!(largest_difference(&logits(&plain, true), &trained) < 1e-4);
            assert_eq!(logits(&plain, false), base);
        }
    }
}

#[test]
fn loftq_comes_nearer_to_the_dense_model_than_nf4() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), LLAMA).unwrap();
    // Of many tokens, since a single one may come out farther by chance.
    let logits = |model: &Decoder, adapter: bool| {
        let mut batch = Ragged::default();
        for first in 0..12 {
            let ids: Vec<u32> = (0..8).map(|i| (5 * first + i * (first + 2)) % 31).collect();
            batch.push(&ids);
        }
        let rows: Vec<u32> = (0..batch.len() as u32).collect();
        model.logits(&batch, &rows.into(), adapter, None)
    };
    let dense = logits(
        &open(dir.path(), Adaptation::None, QuantMethod::None).unwrap(),
        true,
    );
    let nf4 = logits(
        &open(dir.path(), Adaptation::None, QuantMethod::Nf4).unwrap(),
        true,
    );
    let distance = |a: &[f32]| {
        let squares = a.iter().zip(&dense).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f32>().sqrt()
    };
    let config = LoraConfig {
        alpha: 4.0,
        ..lora(LoraInit::Loftq)
    };
    let model = open(dir.path(), Adaptation::Lora(&config), QuantMethod::Nf4).unwrap();
    assert_eq!(logits(&model, false), nf4);
    let [near, far] = [&logits(&model, true), &nf4].map(|a| distance(a));
    assert!(near < 0.9 * far, "{near} {far}");
    let adapter = model.adapter(dir.path()).unwrap();
    assert_eq!(adapter.config.r, 4);
}

#[test]
fn the_base_of_later_rounds_is_written_and_goes_with_the_adapter() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("llama", LLAMA), ("gpt2", GPT2)] {
        let (dense, base, saved) = (
            dir.path().join(name),
            dir.path().join(format!("{name}-base")),
            dir.path().join(format!("{name}-adapter")),
        );
        std::fs::create_dir_all(&dense).unwrap();
        std::fs::create_dir_all(&base).unwrap();
        std::fs::write(dense.join("config.json"), text).unwrap();
        let nothing = |_: &Path| Ok::<_, ExportError>(());
        let model = open(&dense, Adaptation::Full, QuantMethod::None).unwrap();
        model
            .write_checkpoint(&dense, WeightType::F32, nothing)
            .unwrap();
        let config = LoraConfig {
            alpha: 4.0,
            loftq_iter: 3,
            ..lora(LoraInit::Loftq)
        };
        assert!(config.changes_base());
        let read = |dir: &Path, adaptation| {
            let mut model = load(&LoadOptions {
                dir,
                init: ModelInit::Pretrained,
                quantization: &quantization(QuantMethod::Nf4),
                adaptation,
                seed: 9,
                device: &Device::flex(),
                precision: Precision::F32,
            })
            .unwrap();
            model.reserve_positions(8);
            model
        };
        let began = read(&dense, Adaptation::Lora(&config));
        began.adapter(&base).unwrap().write(&saved).unwrap();
        let (q, most) = (quantization(QuantMethod::Nf4), 1 << 40);
        let opened = Base::open(&dense).unwrap();
        opened.write_loftq(&base, &q, &config, 9, most).unwrap();
        let again = read(&base, Adaptation::Adapter(&saved));
        assert_eq!(logits(&again, true), logits(&began, true), "{name}");
        let plain = read(&dense, Adaptation::None);
        assert_ne!(logits(&again, false), logits(&plain, false), "{name}");
    }
}

#[test]
fn a_rank_above_a_side_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), LLAMA).unwrap();
    let config = LoraConfig {
        r: 17,
        ..lora(LoraInit::Pissa)
    };
    let Err(error) = open(dir.path(), Adaptation::Lora(&config), QuantMethod::None) else {
        panic!("a rank of 17 in a side of 16");
    };
    assert!(
        matches!(
            error,
            LoadError::Peft(PeftError::Rank {
                r: 17,
                side: 16,
                ..
            })
        ),
        "{error}"
    );
}
