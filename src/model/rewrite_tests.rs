//! Checkpoints written anew.

use std::fs;

use tempfile::TempDir;

use super::super::export::{WeightType, write_model};
use super::super::init::initial;
use super::super::peft::AdapterConfig;
use super::*;
use crate::ops::tests::by_definition;
use crate::rng::Stream;

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 24,
    "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 2,
    "torch_dtype": "float32", "some_key_of_another_program": [1, 2]}"#;

fn arch() -> ArchConfig {
    ArchConfig::from_json(CONFIG, Path::new("config.json")).unwrap()
}

fn dense() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), &arch(), WeightType::F32, |p| {
        Ok::<_, ExportError>(initial(p, &arch(), 5).into())
    })
    .unwrap();
    fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    dir
}

/// An adapter on two modules whose matrices are both not zero.
fn adapter(use_rslora: bool) -> Adapter {
    let config = AdapterConfig {
        base_model_name_or_path: None,
        r: 4,
        lora_alpha: 6.0,
        ranks: Default::default(),
        alphas: Default::default(),
        lora_dropout: 0.0,
        target_modules: vec!["q_proj".into(), "down_proj".into()],
        use_rslora,
        use_dora: false,
        fan_in_fan_out: false,
        init_lora_weights: Default::default(),
    };
    let mut adapter = Adapter::initial(config, &arch(), 3).unwrap();
    for (n, module) in adapter.modules.iter_mut().enumerate() {
        let stream = Stream::new(8, &[n as u64]);
        let values = module.b.iter_mut().enumerate();
        values.for_each(|(i, v)| *v = stream.normal(i as u64));
    }
    adapter
}

#[test]
fn a_merged_dora_has_rows_of_the_trained_lengths() {
    let dir = dense();
    let base = Base::open(dir.path()).unwrap();
    let mut adapter = adapter(false);
    adapter.config.use_dora = true;
    for module in &mut adapter.modules {
        module.magnitude = Some((0..module.out_features).map(|i| 1.0 + i as f32).collect());
    }
    let merged = Merged {
        base: &base,
        adapter,
        quantization: None,
    };
    let out = tempfile::tempdir().unwrap();
    merged.write(out.path(), None, 1 << 40).unwrap();
    for parameter in arch().parameters() {
        let module = parameter.name.trim_end_matches(".weight");
        let Some(lora) = merged.lora(module) else {
            continue;
        };
        let sum = wanted(&read(dir.path(), &parameter), Some(lora), 1.5);
        let values = read(out.path(), &parameter);
        let rows = values.chunks_exact(lora.in_features);
        for (i, (row, sum)) in rows.zip(sum.chunks_exact(lora.in_features)).enumerate() {
            let norm = |row: &[f32]| row.iter().map(|v| v * v).sum::<f32>().sqrt();
            let length = 1.0 + i as f32;
            assert!((norm(row) / length - 1.0).abs() < 1e-5, "{module}");
            let along = row.iter().zip(sum).map(|(a, b)| a * b).sum::<f32>();
            assert!(along / norm(row) / norm(sum) > 1.0 - 1e-5, "{module}");
        }
    }
}

fn read(dir: &Path, parameter: &Parameter) -> Vec<f32> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    checkpoint
        .tensor_f32(&parameter.name, &parameter.shape)
        .unwrap()
}

/// What the merge should give, an element at a time in f64.
fn wanted(base: &[f32], lora: Option<&LoraTensors>, scale: f64) -> Vec<f32> {
    let Some(lora) = lora else {
        return base.to_vec();
    };
    let element = |i: usize| {
        let (row, column) = (i / lora.in_features, i % lora.in_features);
        let product: f64 = (0..lora.r)
            .map(|k| {
                let (b, a) = (
                    lora.b[row * lora.r + k],
                    lora.a[k * lora.in_features + column],
                );
                f64::from(b) * f64::from(a)
            })
            .sum();
        (f64::from(base[i]) + scale * product) as f32
    };
    (0..base.len()).map(element).collect()
}

#[test]
fn a_merge_adds_the_scaled_product() {
    let dir = dense();
    let base = Base::open(dir.path()).unwrap();
    // Rows are of 24 and 44 numbers: blocks lie across their ends.
    let [nf4, of_256] = [64, 256].map(|block_size| QuantizationConfig {
        method: QuantMethod::Nf4,
        double_quant: true,
        block_size,
    });
    for (use_rslora, scale) in [(false, 1.5), (true, 3.0)] {
        for quantization in [None, Some(&nf4), Some(&of_256)] {
            let merged = Merged {
                base: &base,
                adapter: adapter(use_rslora),
                quantization,
            };
            let out = tempfile::tempdir().unwrap();
            merged.write(out.path(), None, 1 << 40).unwrap();
            for parameter in arch().parameters() {
                let mut values = read(dir.path(), &parameter);
                if let (Some(q), Some(shape)) =
                    (quantization, base.linear(&parameter).map(shape_of))
                {
                    let weight = nf4::quantize(&values, shape, q.block_size, q.double_quant);
                    values = by_definition(&weight);
                }
                let wanted = wanted(
                    &values,
                    merged.lora(parameter.name.trim_end_matches(".weight")),
                    scale,
                );
                for (got, wanted) in read(out.path(), &parameter).iter().zip(&wanted) {
                    let near = 2e-6 * wanted.abs().max(1.0);
                    assert!(
                        (got - wanted).abs() < near,
                        "{}: {got} {wanted}",
                        parameter.name
                    );
                }
            }
        }
    }
}

#[test]
fn a_merge_onto_nf4_is_that_onto_the_quantised_checkpoint() {
    let dir = dense();
    let base = Base::open(dir.path()).unwrap();
    let nf4 = QuantizationConfig {
        method: QuantMethod::Nf4,
        double_quant: true,
        block_size: 64,
    };
    let [quantised, a, b] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    base.write_quantised(quantised.path(), &nf4, StoredType::F32, 1 << 40)
        .unwrap();
    let again = Base::open(quantised.path()).unwrap();
    for (base, dir) in [(&base, &a), (&again, &b)] {
        let merged = Merged {
            base,
            adapter: adapter(false),
            quantization: Some(&nf4),
        };
        merged.write(dir.path(), None, 1 << 40).unwrap();
    }
    for file in ["model.safetensors", "config.json"] {
        let bytes = |dir: &TempDir| fs::read(dir.path().join(file)).unwrap();
        assert!(bytes(&a) == bytes(&b), "{file}");
    }
    let refused = again.write_quantised(a.path(), &nf4, StoredType::F32, 1 << 40);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("quantised to NF4 already"), "{text}");
}

#[test]
fn types_and_config_follow_the_request() {
    let dir = dense();
    let base = Base::open(dir.path()).unwrap();
    assert_eq!(base.stored_type().unwrap(), StoredType::F32);
    let mut merged = Merged {
        base: &base,
        adapter: adapter(false),
        quantization: None,
    };
    let whole = tempfile::tempdir().unwrap();
    merged.write(whole.path(), None, 1 << 40).unwrap();
    for (stored, dtype, name) in [
        (StoredType::Bf16, Dtype::BF16, "bfloat16"),
        (StoredType::F16, Dtype::F16, "float16"),
    ] {
        let out = tempfile::tempdir().unwrap();
        merged.write(out.path(), Some(stored), 1 << 40).unwrap();
        let checkpoint = Checkpoint::open(out.path()).unwrap();
        for parameter in arch().parameters() {
            assert_eq!(checkpoint.dtype(&parameter.name), Some(dtype));
            let exact = read(whole.path(), &parameter);
            let file = Path::new("x");
            let bytes = encode(&exact, stored, file, "x").unwrap();
            assert_eq!(checkpoint.bytes(&parameter.name), Some(&bytes[..]));
        }
        let text = fs::read_to_string(out.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["torch_dtype"], name);
        assert_eq!(config["some_key_of_another_program"][1], 2);
        assert!(config.get("dtype").is_none() && config.get("quantization_config").is_none());
    }
    merged.adapter.modules[0].b[0] = 3e38;
    let out = tempfile::tempdir().unwrap();
    let refused = merged.write(out.path(), Some(StoredType::F16), 1 << 40);
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("q_proj.weight") && text.contains("set export.dtype=f32"),
        "{text}"
    );
}

#[test]
fn shards_hold_the_same_tensors() {
    let dir = dense();
    let base = Base::open(dir.path()).unwrap();
    let nf4 = QuantizationConfig {
        method: QuantMethod::Nf4,
        double_quant: true,
        block_size: 64,
    };
    let [one, many] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let whole = base
        .write_quantised(one.path(), &nf4, StoredType::F32, 1 << 40)
        .unwrap();
    let parts = base
        .write_quantised(many.path(), &nf4, StoredType::F32, 4000)
        .unwrap();
    assert_eq!((whole.files, whole.bytes), (1, parts.bytes));
    assert!(parts.files > 3, "{parts:?}");
    let [one, parted] = [&one, &many].map(|dir| Checkpoint::open(dir.path()).unwrap());
    assert_eq!(
        one.names().collect::<Vec<_>>(),
        parted.names().collect::<Vec<_>>()
    );
    for name in one.names() {
        assert_eq!(one.bytes(name), parted.bytes(name), "{name}");
        assert_eq!(one.shape(name), parted.shape(name), "{name}");
    }
    for n in 1..=parts.files {
        let name = format!("model-{n:05}-of-{:05}.safetensors", parts.files);
        assert!(many.path().join(&name).is_file(), "{name}");
    }
    let index = fs::read_to_string(many.path().join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], parts.bytes);
}

#[test]
fn damaged_weights_stop_a_rewrite() {
    let dir = dense();
    let file = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    let base = Base::open(dir.path()).unwrap();
    let nf4 = QuantizationConfig {
        method: QuantMethod::Nf4,
        double_quant: true,
        block_size: 64,
    };
    let out = tempfile::tempdir().unwrap();
    let refused = base.write_quantised(out.path(), &nf4, StoredType::F32, 1 << 40);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("`model.norm.weight` holds NaN"), "{text}");
    let none = QuantizationConfig {
        method: QuantMethod::None,
        ..nf4
    };
    let refused = base.write_quantised(out.path(), &none, StoredType::F32, 1 << 40);
    assert!(matches!(refused, Err(RewriteError::NoMethod)));
}
