//! Weights of bitsandbytes in and out, and every kind that must be refused.

use std::collections::BTreeMap;
use std::fs;

use safetensors::Dtype;
use serde_json::json;
use tempfile::TempDir;

use super::read::MAX_STATE_BYTES;
use super::write::python_float;
use super::*;
use crate::model::export::{ExportError, WeightType, write_model};
use crate::model::init::initial;
use crate::model::rewrite::{Base, StoredType};
use crate::ops::nf4::{Absmax, quantize};
use crate::rng::Stream;

/// Rows of `gate_proj` are no whole blocks and `down_proj` ends in half of one.
const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 24,
    "intermediate_size": 44, "num_hidden_layers": 1, "num_attention_heads": 2}"#;
const WEIGHT: &str = "model.layers.0.mlp.down_proj.weight";
const SHAPE: [usize; 2] = [24, 44];

fn arch() -> ArchConfig {
    ArchConfig::from_json(CONFIG, Path::new("config.json")).unwrap()
}

fn settings(block_size: usize, double_quant: bool) -> QuantizationConfig {
    QuantizationConfig {
        method: QuantMethod::Nf4,
        double_quant,
        block_size,
    }
}

/// A dense checkpoint in `dense/` and its quantised form in `nf4/`.
fn made(block_size: usize, double: bool, weight_type: WeightType) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let [dense, nf4] = ["dense", "nf4"].map(|name| dir.path().join(name));
    fs::create_dir(&dense).unwrap();
    fs::create_dir(&nf4).unwrap();
    write_model(&dense, &arch(), weight_type, |p| {
        Ok::<_, ExportError>(initial(p, &arch(), 5).into())
    })
    .unwrap();
    let base = Base::open(&dense).unwrap();
    let q = settings(block_size, double);
    let written = base.write_quantised(&nf4, &q, StoredType::F32, 1 << 40);
    assert_eq!(written.unwrap().files, 1);
    dir
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(file: &Path) -> Tensors {
    let bytes = fs::read(file).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let all = file.iter().map(|(name, view)| {
        let parts = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        (name.to_string(), parts)
    });
    all.collect()
}

fn write(file: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data);
        (name, view.unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn what_is_written_reads_back_bit_for_bit() {
    for (block_size, double) in [(64, true), (64, false), (256, true), (4096, false)] {
        for weight_type in [WeightType::F32, WeightType::Bf16] {
            let dir = made(block_size, double, weight_type);
            let dense = Checkpoint::open(&dir.path().join("dense")).unwrap();
            let (checkpoint, found) = open(&dir.path().join("nf4"), &arch()).unwrap();
            let found = found.unwrap();
            assert_eq!((found.block_size, found.double_quant), (block_size, double));
            for linear in arch().linears() {
                let name = format!("{}.weight", linear.module);
                let shape = [linear.out_features, linear.in_features];
                let wanted = quantize(
                    &dense.tensor_f32(&name, &shape).unwrap(),
                    shape,
                    block_size,
                    double,
                );
                assert_eq!(read(&checkpoint, &name, shape).unwrap(), wanted, "{name}");
                let dtype = match weight_type {
                    WeightType::F32 => Dtype::F32,
                    WeightType::Bf16 => Dtype::BF16,
                };
                assert_eq!(dense_type(&checkpoint, &name).unwrap(), dtype);
            }
            for name in [
                "model.embed_tokens.weight",
                "lm_head.weight",
                "model.norm.weight",
            ] {
                assert_eq!(checkpoint.bytes(name), dense.bytes(name), "{name}");
                assert_eq!(checkpoint.dtype(name), dense.dtype(name));
            }
        }
    }
}

#[test]
fn the_reference_checkpoint_is_made_again_byte_for_byte() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference");
    let (dense, wanted) = (
        shared.join("tiny/llama_untied"),
        shared.join("runs/qlora/base_4bit"),
    );
    if !dense.is_dir() || !wanted.is_dir() {
        println!("skipped: no reference folder");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let base = Base::open(&dense).unwrap();
    let q = settings(64, true);
    base.write_quantised(dir.path(), &q, StoredType::F32, 1 << 40)
        .unwrap();
    let (made, wanted) = (dir.path(), wanted.as_path());
    let weights = "model.safetensors";
    assert_eq!(tensors(&made.join(weights)), tensors(&wanted.join(weights)));
    assert!(fs::read(made.join(weights)).unwrap() == fs::read(wanted.join(weights)).unwrap());
    let config = |dir: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(config(made), config(wanted));
    let arch = ArchConfig::from_dir(wanted).unwrap();
    let (checkpoint, _) = open(wanted, &arch).unwrap();
    for linear in arch.linears() {
        let name = format!("{}.weight", linear.module);
        let shape = [linear.out_features, linear.in_features];
        let values = base_values(&dense, &name, shape);
        assert_eq!(
            read(&checkpoint, &name, shape).unwrap(),
            quantize(&values, shape, 64, true)
        );
    }
}

fn base_values(dir: &Path, name: &str, shape: [usize; 2]) -> Vec<f32> {
    Checkpoint::open(dir)
        .unwrap()
        .tensor_f32(name, &shape)
        .unwrap()
}

/// The error of a checkpoint whose tensors `edit` has changed.
fn refusal(edit: impl Fn(&mut Tensors)) -> String {
    let dir = made(64, true, WeightType::F32);
    let nf4 = dir.path().join("nf4");
    let mut all = tensors(&nf4.join("model.safetensors"));
    edit(&mut all);
    write(&nf4.join("model.safetensors"), &all);
    let opened = open(&nf4, &arch()).and_then(|(checkpoint, _)| read(&checkpoint, WEIGHT, SHAPE));
    opened.expect_err("the checkpoint was accepted").to_string()
}

fn part(name: &str) -> String {
    format!("{WEIGHT}.{name}")
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    for (name, tensor, wanted) in [
        ("absmax", None, "is missing"),
        ("quant_map", None, "is missing"),
        ("nested_absmax", None, "is missing"),
        ("nested_quant_map", None, "is missing"),
        (
            "absmax",
            Some((Dtype::U8, vec![3], vec![0; 3])),
            "instead of U8 of [17]",
        ),
        (
            "absmax",
            Some((Dtype::F32, vec![17], vec![0; 68])),
            "is F32 of [17]",
        ),
        (
            "nested_absmax",
            Some((Dtype::F32, vec![2], vec![0; 8])),
            "of [1]",
        ),
        (
            "nested_absmax",
            Some((Dtype::F32, vec![1], bytes_of(&[f32::NAN]))),
            "NaN or infinity",
        ),
        (
            "quant_map",
            Some((Dtype::F32, vec![16], vec![0; 64])),
            "other levels",
        ),
        (
            "quant_map",
            Some((Dtype::F32, vec![16], bytes_of(&[f32::INFINITY; 16]))),
            "NaN or infinity",
        ),
        (
            "nested_quant_map",
            Some((Dtype::F32, vec![255], vec![0; 1020])),
            "of [256]",
        ),
    ] {
        let text = refusal(|all| {
            all.remove(&part(name));
            if let Some(tensor) = &tensor {
                all.insert(part(name), tensor.clone());
            }
        });
        assert!(
            text.contains(&part(name)) && text.contains(wanted),
            "{text}"
        );
        assert!(
            text.contains("nf4") && text.contains("run quantize"),
            "{text}"
        );
    }
    let text = refusal(|all| {
        all.insert(WEIGHT.into(), (Dtype::U8, vec![5, 1], vec![0; 5]));
    });
    assert!(text.contains("has 5 bytes; [24, 44] takes 528"), "{text}");
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let state = |edit: Value| {
        refusal(|all| {
            let (_, shape, bytes) = all.get_mut(&part(STATE)).unwrap();
            let mut state: Value = serde_json::from_slice(bytes).unwrap();
            for (key, value) in edit.as_object().unwrap() {
                state[key] = value.clone();
            }
            *bytes = state.to_string().into_bytes();
            *shape = vec![bytes.len()];
        })
    };
    for (edit, wanted) in [
        (json!({"blocksize": 0}), "`blocksize` that is none of"),
        (json!({"blocksize": 63}), "`blocksize` that is none of"),
        (json!({"blocksize": -64}), "`blocksize` that is none of"),
        (json!({"blocksize": 128}), "instead of U8 of [9]"),
        (json!({"shape": [44, 24]}), "says shape [44, 24]"),
        (
            json!({"shape": [u64::MAX, u64::MAX]}),
            "config.json asks for [24, 44]",
        ),
        (json!({"shape": "wide"}), "`shape` that is no list"),
        (json!({"shape": null}), "has no `shape`"),
        (json!({"dtype": "int8"}), "says dtype `int8`"),
        (json!({"dtype": 4}), "`dtype` that is a number"),
        (json!({"quant_type": "fp4"}), "only nf4"),
        (json!({"nested_blocksize": 0}), "`nested_blocksize`"),
        (
            json!({"nested_blocksize": 1u64 << 40}),
            "`nested_blocksize`",
        ),
        (json!({"nested_blocksize": 2}), "instead of F32 of [9]"),
        (json!({"nested_dtype": "float64"}), "`nested_dtype`"),
        (json!({"nested_offset": 1e300}), "`nested_offset`"),
        (json!({"nested_offset": "zero"}), "`nested_offset`"),
    ] {
        let text = state(edit);
        assert!(text.contains(WEIGHT) && text.contains(wanted), "{text}");
    }
    for (bytes, wanted) in [
        (b"".to_vec(), "is not a JSON object"),
        (b"[1]".to_vec(), "is not a JSON object"),
        (b"{\"quant_type\"".to_vec(), "is not a JSON object"),
        (vec![b'['; 60_000], "is not a JSON object"),
        (vec![b' '; MAX_STATE_BYTES + 1], "too many for a state"),
    ] {
        let text = refusal(|all| {
            all.insert(part(STATE), (Dtype::U8, vec![bytes.len()], bytes.clone()));
        });
        assert!(text.contains(wanted), "{text}");
    }
    let text = refusal(|all| {
        let state = all.remove(&part(STATE)).unwrap();
        all.insert(part("quant_state.bitsandbytes__fp4"), state);
    });
    assert!(text.contains("fp4"), "{text}");
    let text = refusal(|all| drop(all.remove(&part(STATE))));
    assert!(text.contains("stored as U8"), "{text}");
}

#[test]
fn mutated_checkpoints_are_read_or_refused() {
    let dir = made(64, true, WeightType::F32);
    let nf4 = dir.path().join("nf4");
    let file = nf4.join("model.safetensors");
    let good = fs::read(&file).unwrap();
    let interesting = good.len().min(12_000);
    let state = good
        .windows(12)
        .position(|w| w == b"{\"quant_type")
        .unwrap();
    let seed = std::env::var("KILN_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("KILN_TEST_SEED={seed}");
    let mut refused = 0;
    for round in 0..600u64 {
        let stream = Stream::new(seed, &[round]);
        let mut bytes = good.clone();
        for i in 0..1 + round % 3 {
            // Half of the edits hit the header, half a state.
            let at = match stream.bits(3 * i) % 2 {
                0 => stream.bits(3 * i + 1) as usize % interesting,
                _ => state + stream.bits(3 * i + 1) as usize % 160,
            };
            bytes[at] = b"0159\"{}[],:-e.x "[stream.bits(3 * i + 2) as usize % 16];
        }
        fs::write(&file, &bytes).unwrap();
        let opened = open(&nf4, &arch());
        let read = opened.and_then(|(checkpoint, _)| {
            for linear in arch().linears() {
                let shape = [linear.out_features, linear.in_features];
                held(&checkpoint, &format!("{}.weight", linear.module), shape)?;
            }
            Ok(())
        });
        refused += usize::from(read.is_err());
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn other_quantisations_are_named() {
    let dir = made(64, true, WeightType::F32);
    let dense = dir.path().join("dense");
    let text = fs::read_to_string(dense.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let error = |quantization: Value| {
        let mut config = config.clone();
        config["quantization_config"] = quantization;
        fs::write(dense.join("config.json"), config.to_string()).unwrap();
        open(&dense, &arch()).unwrap_err().to_string()
    };
    for (quantization, part) in [
        (
            json!({"quant_method": "gptq", "bits": 4}),
            "quantised with gptq",
        ),
        (json!({"quant_method": "awq"}), "quantised with awq"),
        (json!({"quant_method": "fp8"}), "quantised with fp8"),
        (json!({"bits": 4}), "an unnamed method"),
        (json!({"load_in_8bit": true}), "8-bit LLM.int8"),
        (
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            "8-bit LLM.int8",
        ),
        (json!({"load_in_4bit": true}), "4-bit fp4"),
        (
            json!({"load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}),
            "4-bit fp4",
        ),
        (
            json!({"quant_method": "bitsandbytes"}),
            "neither in 4 nor in 8 bits",
        ),
        (
            json!({"load_in_4bit": "yes"}),
            "`quantization_config.load_in_4bit` is a string",
        ),
        (json!("nf4"), "`quantization_config` is a string"),
        (
            json!({"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}),
            "promises NF4 weights",
        ),
    ] {
        let text = error(quantization);
        assert!(
            text.contains("config.json") && text.contains(part),
            "{text}"
        );
    }
    let nf4 = dir.path().join("nf4");
    fs::write(nf4.join("config.json"), &text).unwrap();
    let text = open(&nf4, &arch()).unwrap_err().to_string();
    assert!(text.contains("has no quantization_config"), "{text}");
}

#[test]
fn a_base_that_is_quantised_decides_for_itself() {
    let dir = made(256, false, WeightType::F32);
    let nf4 = dir.path().join("nf4");
    let mut q = settings(64, true);
    settle(&nf4, Method::Lora, &mut q).unwrap().unwrap();
    assert_eq!(q, settings(256, false));
    let text = settle(&nf4, Method::Full, &mut q).unwrap_err().to_string();
    assert!(text.contains("method=full"), "{text}");
    q.method = QuantMethod::None;
    let text = settle(&nf4, Method::Lora, &mut q).unwrap_err().to_string();
    assert!(text.contains("leave quantization=nf4"), "{text}");
    assert!(
        settle(&dir.path().join("dense"), Method::Full, &mut q)
            .unwrap()
            .is_none()
    );
}

#[test]
fn modules_left_dense_stay_dense_and_other_maps_and_storage_are_read() {
    let dir = made(64, true, WeightType::F32);
    let (nf4, dense) = (dir.path().join("nf4"), dir.path().join("dense"));
    let file = nf4.join("model.safetensors");
    let mut all = tensors(&file);
    let wanted = open(&nf4, &arch())
        .and_then(|(c, _)| read(&c, WEIGHT, SHAPE))
        .unwrap();
    // llm_int8_skip_modules: the weight stands there as it was.
    let skipped = "model.layers.0.mlp.up_proj.weight";
    all.retain(|name, _| !name.starts_with(skipped));
    all.insert(
        skipped.into(),
        tensors(&dense.join("model.safetensors"))[skipped].clone(),
    );
    // bnb_4bit_quant_storage=bfloat16: the same bytes, two at a time.
    let (dtype, shape, bytes) = all.get_mut(WEIGHT).unwrap();
    (*dtype, *shape) = (Dtype::BF16, vec![bytes.len() / 2, 1]);
    // Another 8-bit type of the scales.
    let (_, _, map) = all.get_mut(&part("nested_quant_map")).unwrap();
    map[..4].copy_from_slice(&(-0.5f32).to_le_bytes());
    write(&file, &all);
    let (checkpoint, _) = open(&nf4, &arch()).unwrap();
    assert!(held(&checkpoint, skipped, [44, 24]).unwrap().is_none());
    assert_eq!(
        tensor_f32(&checkpoint, skipped, &[44, 24]).unwrap(),
        base_values(&dense, skipped, [44, 24])
    );
    let weight = read(&checkpoint, WEIGHT, SHAPE).unwrap();
    assert_eq!(weight.packed, wanted.packed);
    let Absmax::Plain(maxima) = &weight.absmax else {
        panic!("{:?}", weight.absmax);
    };
    let Absmax::Double { codes, .. } = &wanted.absmax else {
        panic!("{:?}", wanted.absmax);
    };
    for (block, (maximum, code)) in maxima.iter().zip(codes).enumerate() {
        // Only the lowest value of the map was changed.
        if *code != 0 {
            assert_eq!(*maximum, wanted.absmax.get(block));
        }
    }
}

#[test]
fn a_quantised_head_is_dequantised() {
    let dir = made(64, true, WeightType::F32);
    let nf4 = dir.path().join("nf4");
    let file = nf4.join("model.safetensors");
    let mut all = tensors(&file);
    let values = initial(&arch().parameters()[0], &arch(), 9);
    let head = quantize(&values, [11, 24], 64, true);
    let names = stored([11, 24], Dtype::F32, 64, true);
    for (name, bytes) in names.iter().zip(stored_bytes(&head, Dtype::F32)) {
        let shape = if name.bound {
            vec![bytes.len()]
        } else {
            name.shape.clone()
        };
        let tensor = (name.dtype, shape, bytes.to_vec());
        all.insert(format!("lm_head.weight{}", name.suffix), tensor);
    }
    write(&file, &all);
    let (checkpoint, _) = open(&nf4, &arch()).unwrap();
    let mut wanted = vec![0.0; 11 * 24];
    head.dequantize_into(&mut wanted);
    assert_eq!(
        tensor_f32(&checkpoint, "lm_head.weight", &[11, 24]).unwrap(),
        wanted
    );
}

#[test]
fn numbers_are_written_as_python_does() {
    for (x, text) in [
        (0.301_068_305_969_238_3, "0.3010683059692383"),
        (1e-4, "0.0001"),
        (1.5e-5, "1.5e-05"),
        (1e-5, "1e-05"),
        (-2.5e-7, "-2.5e-07"),
        (2.0, "2.0"),
        (1e16, "1e+16"),
        (123456.0, "123456.0"),
        (0.0, "0.0"),
    ] {
        assert_eq!(python_float(x), text);
    }
}
