//! Reading, and every kind of file that must be refused.

use std::fs;

use half::{bf16, f16};
use serde_json::json;

use super::super::hf_config::ArchConfig;
use super::*;

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 5, "hidden_size": 4,
    "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}"#;

fn arch() -> ArchConfig {
    ArchConfig::from_json(CONFIG, Path::new("config.json")).unwrap()
}

/// A safetensors file from a header and raw bytes.
fn file(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn single(bytes: &[u8]) -> (tempfile::TempDir, Result<Checkpoint, CheckpointError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(SINGLE), bytes).unwrap();
    let opened = Checkpoint::open(dir.path());
    (dir, opened)
}

fn problem(bytes: &[u8]) -> String {
    single(bytes).1.unwrap_err().to_string()
}

/// Every parameter of the small architecture in f32, counting upwards.
fn whole() -> (Value, Vec<u8>) {
    let mut header = json!({});
    let mut data = Vec::new();
    for parameter in arch().parameters() {
        let start = data.len();
        for i in 0..parameter.numel() {
            data.extend((i as f32).to_le_bytes());
        }
        header[parameter.name] = json!({"dtype": "F32", "shape": parameter.shape,
            "data_offsets": [start, data.len()]});
    }
    (header, data)
}

#[test]
fn three_types_are_read_into_f32() {
    let header = json!({
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [8, 12]},
        "c": {"dtype": "F16", "shape": [2], "data_offsets": [12, 16]},
        "d": {"dtype": "I32", "shape": [1], "data_offsets": [16, 20]},
    });
    let mut data = Vec::new();
    data.extend(1.5f32.to_le_bytes());
    data.extend((-2.0f32).to_le_bytes());
    for v in [0.5, -3.0] {
        data.extend(bf16::from_f32(v).to_le_bytes());
    }
    for v in [0.25, 65504.0] {
        data.extend(f16::from_f32(v).to_le_bytes());
    }
    data.extend(7i32.to_le_bytes());
    let (_dir, checkpoint) = single(&file(&header, &data));
    let checkpoint = checkpoint.unwrap();
    assert_eq!(checkpoint.tensor_f32("a", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(checkpoint.tensor_f32("b", &[1, 2]).unwrap(), [0.5, -3.0]);
    assert_eq!(checkpoint.tensor_f32("c", &[2]).unwrap(), [0.25, 65504.0]);
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(checkpoint.total_bytes(), 20);
    let text = checkpoint.tensor_f32("d", &[1]).unwrap_err().to_string();
    assert!(text.contains("`d` is stored as I32"), "{text}");
    let text = checkpoint.tensor_f32("b", &[2]).unwrap_err().to_string();
    assert!(
        text.contains("shape [1, 2]") && text.contains("[2]"),
        "{text}"
    );
    let text = checkpoint.tensor_f32("x", &[2]).unwrap_err().to_string();
    assert!(text.contains("`x` is missing"), "{text}");
}

#[test]
fn a_large_tensor_is_read_in_windows() {
    let n = WINDOW + TASK + 3;
    let header = json!({"w": {"dtype": "BF16", "shape": [n], "data_offsets": [0, 2 * n]}});
    let data: Vec<u8> = (0..n)
        .flat_map(|i| bf16::from_f32((i % 251) as f32).to_le_bytes())
        .collect();
    let (_dir, checkpoint) = single(&file(&header, &data));
    let checkpoint = checkpoint.unwrap();
    for _ in 0..2 {
        let values = checkpoint.tensor_f32("w", &[n]).unwrap();
        assert!(
            values
                .iter()
                .enumerate()
                .all(|(i, v)| *v == (i % 251) as f32)
        );
    }
}

#[test]
fn a_tensor_is_renamed_unless_the_name_is_taken() {
    let header = json!({
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    });
    let data: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let (_dir, checkpoint) = single(&file(&header, &data));
    let mut checkpoint = checkpoint.unwrap();
    for (stored, name) in [("a", "b"), ("x", "y"), ("a", "c")] {
        checkpoint.rename(stored, name);
    }
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(checkpoint.tensor_f32("c", &[1]).unwrap(), [1.0]);
    assert_eq!(checkpoint.tensor_f32("b", &[1]).unwrap(), [2.0]);
}

#[test]
fn the_architecture_is_checked_without_reading() {
    let (header, data) = whole();
    let (_dir, checkpoint) = single(&file(&header, &data));
    let checkpoint = checkpoint.unwrap();
    checkpoint.check(&arch()).unwrap();
    let mut other = arch();
    other.num_layers = 2;
    let text = checkpoint.check(&other).unwrap_err().to_string();
    assert!(
        text.contains("`model.layers.1.self_attn.q_proj.weight` is missing and 8 more"),
        "{text}"
    );
    let mut other = arch();
    other.vocab_size = 6;
    let text = checkpoint.check(&other).unwrap_err().to_string();
    assert!(
        text.contains("embed_tokens") && text.contains("[5, 4]"),
        "{text}"
    );
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let header = json!({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}});
    let data: Vec<u8> = [1.0, f32::NAN, 2.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let (_dir, checkpoint) = single(&file(&header, &data));
    let text = checkpoint
        .unwrap()
        .tensor_f32("w", &[3])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("`w` holds NaN or infinity (element 1)"),
        "{text}"
    );
}

#[test]
fn damaged_files_are_refused() {
    let (header, data) = whole();
    let good = file(&header, &data);
    for cut in [0, 4, 8, 60, good.len() - 1] {
        let text = problem(&good[..cut]);
        assert!(
            text.contains("model.safetensors: not a whole"),
            "{cut}: {text}"
        );
    }
    let mut claim = good.clone();
    claim[..8].copy_from_slice(&(10u64 << 30).to_le_bytes());
    assert!(problem(&claim).contains("100 MB"));
    claim[..8].copy_from_slice(&(good.len() as u64).to_le_bytes());
    assert!(problem(&claim).contains("longer than the file"));
    let pair = |a: [usize; 2], b: [usize; 2]| {
        json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": a},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": b}})
    };
    assert!(single(&file(&pair([0, 8], [8, 16]), &[0; 16])).1.is_ok());
    assert!(problem(&file(&pair([0, 8], [4, 12]), &[0; 12])).contains("overlap"));
    assert!(problem(&file(&pair([0, 8], [12, 20]), &[0; 20])).contains("gap"));
    assert!(problem(&file(&pair([0, 8], [8, 16]), &[0; 12])).contains("cut"));
    assert!(problem(&file(&pair([0, 8], [8, 20]), &[0; 20])).contains("disagree"));
    let huge = json!({"a": {"dtype": "F32", "shape": [1u64 << 62, 4], "data_offsets": [0, 8]}});
    assert!(problem(&file(&huge, &[0; 8])).contains("overflows"));
    let text = problem(&file(&json!({"a": 3}), &[]));
    assert!(text.contains("header cannot be read"), "{text}");
}

/// Any bytes in a header give a checkpoint or an error: no panic, and no more
/// memory than the file has data.
#[test]
fn mutated_headers_are_read_or_refused() {
    let (header, data) = whole();
    let good = file(&header, &data);
    let head = good.len() - data.len();
    let seed = std::env::var("KILN_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("KILN_TEST_SEED={seed}");
    let pieces: [&[u8]; 12] = [
        b"0",
        b"9",
        b"99999999999999999999",
        b"18446744073709551615",
        b"-1",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"F64\"",
        b"\\u0000",
        b"\xff\xfe",
    ];
    let (mut read, mut refused) = (0, 0);
    for round in 0..1500u64 {
        let stream = crate::rng::Stream::new(seed, &[round]);
        let mut bytes = good.clone();
        for i in 0..1 + round % 4 {
            let draw = |n: u64, below: usize| stream.bits(8 * i + n) as usize % below;
            let at = draw(0, head);
            match draw(1, 4) {
                0 => bytes[at] = draw(2, 256) as u8,
                1 => bytes[at] ^= 1 << draw(2, 8),
                2 => drop(bytes.splice(
                    at..(at + draw(2, 9)).min(head),
                    pieces[draw(3, 12)].iter().copied(),
                )),
                _ => bytes.truncate(draw(2, good.len())),
            }
            if bytes.len() < head {
                break;
            }
        }
        let (_dir, opened) = single(&bytes);
        let Ok(checkpoint) = opened else {
            refused += 1;
            continue;
        };
        // A header that still reads may describe other tensors: all of them are read.
        let names: Vec<String> = checkpoint.names().map(str::to_string).collect();
        for name in names {
            let shape = checkpoint.shape(&name).unwrap().to_vec();
            if let Ok(values) = checkpoint.tensor_f32(&name, &shape) {
                assert!(2 * values.len() <= bytes.len(), "{name}: {shape:?}");
            }
        }
        let _ = checkpoint.check(&arch());
        read += 1;
    }
    assert!(refused > 500 && read > 10, "{refused} refused, {read} read");
}

#[test]
fn a_header_may_not_ask_for_more_than_the_file_has() {
    let one = |dtype: &str, shape: &Value, offsets: [u64; 2], data: usize| {
        let header = json!({"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}});
        single(&file(&header, &vec![0; data])).1
    };
    for (shape, offsets, part) in [
        (json!([10_000_000_000u64]), [0, 40_000_000_000], "cut"),
        (json!([u64::MAX]), [0, 8], "overflows"),
        (json!([1u64 << 32, 1u64 << 32]), [0, 8], "overflows"),
        (json!([2]), [0, u64::MAX], "disagree"),
        (json!([2]), [8, 0], "gap"),
        (json!([3]), [0, 8], "disagree"),
        (json!([-1]), [0, 8], "header cannot be read"),
        (json!("two"), [0, 8], "header cannot be read"),
    ] {
        let text = one("F32", &shape, offsets, 8).unwrap_err().to_string();
        assert!(
            text.contains("not a whole") && text.contains(part),
            "{shape} {offsets:?}: {text}"
        );
    }
    let text = one("F99", &json!([2]), [0, 8], 8).unwrap_err().to_string();
    assert!(text.contains("header cannot be read"), "{text}");
    let twice = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (twice.len() as u64).to_le_bytes().to_vec();
    bytes.extend(twice);
    bytes.extend([0; 4]);
    // A name that stands twice is one tensor or an error, never two that overlap.
    if let Ok(checkpoint) = single(&bytes).1 {
        assert_eq!(checkpoint.tensor_f32("w", &[1]).unwrap(), [0.0]);
    }
    for integers in ["I64", "U8", "BOOL", "F64", "F8_E4M3"] {
        let width = match integers {
            "I64" | "F64" => 8,
            _ => 1,
        };
        let checkpoint = one(integers, &json!([8 / width]), [0, 8], 8).unwrap();
        let text = checkpoint
            .tensor_f32("w", &[8 / width])
            .unwrap_err()
            .to_string();
        assert!(text.contains(&format!("stored as {integers}")), "{text}");
    }
}

#[test]
fn shards_are_joined_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let shard = |name: &str| json!({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}});
    fs::write(dir.path().join("1.safetensors"), file(&shard("a"), &[0; 4])).unwrap();
    fs::write(dir.path().join("2.safetensors"), file(&shard("b"), &[0; 4])).unwrap();
    let open = |map: Value| {
        let index = json!({"metadata": {"total_size": 8}, "weight_map": map});
        fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        Checkpoint::open(dir.path())
    };
    let both = open(json!({"a": "1.safetensors", "b": "2.safetensors"})).unwrap();
    assert_eq!(both.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(both.tensor_f32("b", &[1]).unwrap(), [0.0]);
    for (map, part) in [
        (json!({"a": "2.safetensors"}), "holds `a`, but it does not"),
        (json!({"a": "3.safetensors"}), "not in the directory"),
        (json!({"a": "../1.safetensors"}), "not a plain file name"),
        (json!({"a": "/1.safetensors"}), "not a plain file name"),
        (json!({"a": ".."}), "not a plain file name"),
        (json!({"a": 1}), "not a file name"),
        (json!([]), "weight_map"),
    ] {
        let text = open(map).unwrap_err().to_string();
        assert!(text.contains(INDEX) && text.contains(part), "{text}");
    }
    fs::write(dir.path().join(INDEX), "{").unwrap();
    assert!(Checkpoint::open(dir.path()).is_err());
}

#[test]
fn a_directory_without_weights_says_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(open().contains(SINGLE) && open().contains(INDEX));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(open().contains("convert it to safetensors"));
    let text = Checkpoint::open(&dir.path().join("absent"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("no such directory"), "{text}");
}

#[test]
fn a_head_that_is_not_the_embedding_is_not_tied() {
    let dir = tempfile::tempdir().unwrap();
    let tied = CONFIG.replacen('{', r#"{"tie_word_embeddings": true, "#, 1);
    fs::write(dir.path().join("config.json"), tied).unwrap();
    let (header, data) = whole();
    let is_tied = |header: &Value, data: &[u8]| {
        fs::write(dir.path().join(SINGLE), file(header, data)).unwrap();
        ArchConfig::from_dir(dir.path())
            .unwrap()
            .tie_word_embeddings
    };
    // Both count upwards.
    assert!(is_tied(&header, &data));
    // The same numbers in another type.
    let mut half = header.clone();
    let mut longer = data.clone();
    for i in 0..20 {
        longer.extend(bf16::from_f32(i as f32).to_le_bytes());
    }
    half["lm_head.weight"] = json!({"dtype": "BF16", "shape": [5, 4],
        "data_offsets": [data.len(), longer.len()]});
    // Where the head lay before there must be something.
    half["unused"] = header["lm_head.weight"].clone();
    assert!(is_tied(&half, &longer));
    let end = header["lm_head.weight"]["data_offsets"][1]
        .as_u64()
        .unwrap() as usize;
    let mut other = data.clone();
    other[end - 4..end].copy_from_slice(&0.5f32.to_le_bytes());
    assert!(!is_tied(&header, &other));
    let arch = ArchConfig::from_dir(dir.path()).unwrap();
    let opened = Checkpoint::open_for(dir.path(), &arch).unwrap();
    assert_eq!(
        opened.tensor_f32("lm_head.weight", &[5, 4]).unwrap()[19],
        0.5
    );
    // The same from a checkpoint without the wrapper's name.
    let bare = header.to_string().replace("model.", "");
    assert!(!is_tied(&serde_json::from_str(&bare).unwrap(), &other));
    // None stored, or only the embedding's numbers under the head's name.
    let mut alone = header.clone();
    alone["unused"] = alone["lm_head.weight"].take();
    alone.as_object_mut().unwrap().remove("lm_head.weight");
    assert!(is_tied(&alone, &other));
    fs::remove_file(dir.path().join(SINGLE)).unwrap();
    assert!(
        ArchConfig::from_dir(dir.path())
            .unwrap()
            .tie_word_embeddings
    );
}

#[test]
fn reference_checkpoints_open() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/tiny");
    if !tiny.is_dir() {
        println!("skipped: no reference folder");
        return;
    }
    let load = |name: &str| {
        let dir = tiny.join(name);
        let arch = ArchConfig::from_dir(&dir).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        checkpoint.check(&arch).unwrap();
        let read = |p: super::super::hf_config::Parameter| {
            checkpoint.tensor_f32(&p.name, &p.shape).unwrap()
        };
        arch.parameters().into_iter().map(read).collect::<Vec<_>>()
    };
    assert_eq!(load("llama_untied"), load("llama_untied_sharded"));
    assert_eq!(load("llama3_tied"), load("llama3_tied_v4cfg"));
    let (f32s, bf16s) = (load("llama_untied"), load("llama_untied_bf16"));
    for (full, half) in f32s.iter().flatten().zip(bf16s.iter().flatten()) {
        assert_eq!(bf16::from_f32(*full).to_f32(), *half);
    }
}
