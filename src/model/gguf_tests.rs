//! The GGUF file, read back by hand.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::super::export::{WeightType, write_model};
use super::super::gguf_metadata::kind;
use super::super::init::initial;
use super::super::peft::{Adapter, AdapterConfig};
use super::super::rewrite::Base;
use super::*;
use crate::rng::Stream;

/// A cursor over the bytes of a file.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, n: usize) -> &'b [u8] {
        let (now, rest) = self.0.split_at(n);
        self.0 = rest;
        now
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn string(&mut self) -> String {
        let n = self.u64();
        String::from_utf8(self.take(n).to_vec()).unwrap()
    }

    fn value(&mut self, kind: u32) -> String {
        match kind {
            kind::U32 | kind::I32 => self.u32().to_string(),
            kind::F32 => f32::from_bits(self.u32()).to_string(),
            kind::BOOL => (self.take(1)[0] == 1).to_string(),
            kind::STRING => self.string(),
            kind::ARRAY => {
                let (of, n) = (self.u32(), self.u64());
                let all: Vec<String> = (0..n).map(|_| self.value(of)).collect();
                all.join("|")
            }
            other => panic!("kind {other}"),
        }
    }
}

struct Read {
    meta: BTreeMap<String, String>,
    /// Sizes as ggml counts them (fastest first), type, bytes.
    tensors: BTreeMap<String, (Vec<usize>, u32, Vec<u8>)>,
}

fn read(file: &Path) -> Read {
    let all = fs::read(file).unwrap();
    let mut bytes = Bytes(&all);
    assert_eq!(bytes.take(4), b"GGUF");
    assert_eq!(bytes.u32(), 3);
    let (tensors, pairs) = (bytes.u64(), bytes.u64());
    let pair = |bytes: &mut Bytes<'_>| {
        let (key, kind) = (bytes.string(), bytes.u32());
        (key, bytes.value(kind))
    };
    let meta: BTreeMap<_, _> = (0..pairs).map(|_| pair(&mut bytes)).collect();
    assert_eq!(meta.len(), pairs);
    let infos: Vec<_> = (0..tensors)
        .map(|_| {
            let name = bytes.string();
            let sizes: Vec<usize> = (0..bytes.u32()).map(|_| bytes.u64()).collect();
            (name, sizes, bytes.u32(), bytes.u64())
        })
        .collect();
    let start = padded(all.len() - bytes.0.len());
    let mut end = start;
    let tensors = infos.into_iter().map(|(name, sizes, kind, offset)| {
        let n: usize = sizes.iter().product();
        let length = match kind {
            0 => 4 * n,
            1 => 2 * n,
            8 => n / 32 * 34,
            other => panic!("type {other}"),
        };
        assert_eq!((start + offset, offset % ALIGNMENT), (end, 0), "{name}");
        end = padded(end + length);
        (
            name,
            (
                sizes,
                kind,
                all[start + offset..start + offset + length].to_vec(),
            ),
        )
    });
    let tensors = tensors.collect();
    assert_eq!(end, all.len());
    Read { meta, tensors }
}

fn config() -> String {
    json!({"model_type": "llama", "vocab_size": 12, "hidden_size": 32, "intermediate_size": 40,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "bos_token_id": 0, "eos_token_id": 1, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}})
    .to_string()
}

fn byte_level() -> Value {
    json!({
        "added_tokens": [{"id": 0, "content": "<s>", "special": true},
            {"id": 1, "content": "</s>", "special": true},
            {"id": 2, "content": "<tool>", "special": false}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
            "special_tokens": {"<s>": {"ids": [0]}}},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 3, "b": 4, "ab": 5},
            "merges": [["a", "b"]]},
    })
}

fn model(tokenizer: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let arch = ArchConfig::from_json(&config(), Path::new("config.json")).unwrap();
    write_model(dir.path(), &arch, WeightType::F32, |p| {
        Ok::<_, ExportError>(initial(p, &arch, 5).into())
    })
    .unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

fn merged(base: &Base) -> Merged<'_> {
    let config = AdapterConfig {
        base_model_name_or_path: None,
        r: 2,
        lora_alpha: 2.0,
        ranks: Default::default(),
        alphas: Default::default(),
        lora_dropout: 0.0,
        target_modules: vec!["q_proj".into()],
        use_rslora: false,
        use_dora: false,
        fan_in_fan_out: false,
        init_lora_weights: Default::default(),
    };
    let mut adapter = Adapter::initial(config, &base.arch, 3).unwrap();
    adapter.modules[0].b.fill(0.25);
    Merged {
        base,
        adapter,
        quantization: None,
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn tensors_metadata_and_vocabulary_are_there() {
    let dir = model(&byte_level());
    let base = Base::open(dir.path()).unwrap();
    let merged = merged(&base);
    let dense = tempfile::tempdir().unwrap();
    merged.write(dense.path(), None, 1 << 40).unwrap();
    let dense = super::super::checkpoint::Checkpoint::open(dense.path()).unwrap();
    let file = dir.path().join("model.gguf");
    write(&merged, &file, GgufType::F32).unwrap();
    let read = read(&file);
    for (key, value) in [
        ("general.architecture", "llama"),
        ("general.file_type", "0"),
        ("llama.block_count", "1"),
        ("llama.attention.head_count_kv", "2"),
        ("llama.attention.key_length", "8"),
        ("llama.rope.freq_base", "500000"),
        ("llama.vocab_size", "12"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "gpt-2"),
        ("tokenizer.ggml.merges", "a b"),
        (
            "tokenizer.ggml.tokens",
            "<s>|</s>|<tool>|a|b|ab|[PAD6]|[PAD7]|[PAD8]|[PAD9]|[PAD10]|[PAD11]",
        ),
        ("tokenizer.ggml.token_type", "3|3|4|1|1|1|5|5|5|5|5|5"),
        ("tokenizer.ggml.bos_token_id", "0"),
        ("tokenizer.ggml.eos_token_id", "1"),
        ("tokenizer.ggml.add_bos_token", "true"),
    ] {
        assert_eq!(read.meta.get(key).map(String::as_str), Some(value), "{key}");
    }
    let (sizes, _, bytes) = &read.tensors["token_embd.weight"];
    assert_eq!(*sizes, [32, 12]);
    assert_eq!(
        floats(bytes),
        dense
            .tensor_f32("model.embed_tokens.weight", &[12, 32])
            .unwrap()
    );
    // Row i of a head's first half, then row i of its second half.
    let q = dense
        .tensor_f32("model.layers.0.self_attn.q_proj.weight", &[32, 32])
        .unwrap();
    let (_, _, bytes) = &read.tensors["blk.0.attn_q.weight"];
    let rows: Vec<&[f32]> = q.chunks(32).collect();
    let order = [0, 4, 1, 5, 2, 6, 3, 7];
    let wanted = (0..4)
        .flat_map(|head| order.map(|i| rows[8 * head + i]))
        .flatten();
    assert!(floats(bytes).iter().eq(wanted));
    let (sizes, kind, bytes) = &read.tensors["rope_freqs.weight"];
    assert_eq!((sizes.as_slice(), *kind), (&[4][..], 0));
    let factors = floats(bytes);
    assert_eq!((factors[0], factors[3]), (1.0, 8.0), "{factors:?}");
    assert_eq!(read.tensors.len(), 1 + base.arch.parameters().len());
}

#[test]
fn types_follow_the_shape() {
    let dir = model(&byte_level());
    let base = Base::open(dir.path()).unwrap();
    let file = dir.path().join("model.gguf");
    write(&merged(&base), &file, GgufType::Q8_0).unwrap();
    let read = read(&file);
    let kind = |name: &str| read.tensors[name].1;
    assert_eq!(kind("blk.0.attn_norm.weight"), 0);
    assert_eq!(kind("blk.0.ffn_up.weight"), 8);
    // Rows of 40 are no whole blocks.
    assert_eq!(kind("blk.0.ffn_down.weight"), 1);
    let stream = Stream::new(4, &[]);
    let block: Vec<f32> = (0..32).map(|i| stream.normal(i)).collect();
    let mut bytes = [0u8; Q8_BYTES];
    assert!(quantize_block(&block, &mut bytes));
    let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    for (v, level) in block.iter().zip(&bytes[2..]) {
        assert!((v - scale * f32::from(*level as i8)).abs() < 0.51 * scale);
    }
    assert!(
        bytes[2..]
            .iter()
            .any(|level| (*level as i8).unsigned_abs() == 127)
    );
    assert!(quantize_block(&[0.0; 32], &mut bytes));
    assert_eq!(bytes, [0; Q8_BYTES]);
    assert!(!quantize_block(&[1e9; 32], &mut bytes));
}

#[test]
fn a_number_that_is_too_large_is_the_first_and_stands_in_the_file_asked_for() {
    let mut values = vec![1.0f32; 64 * Q8_BLOCK];
    values[3 * Q8_BLOCK + 5] = -9e6;
    for later in values[3 * Q8_BLOCK + 6..].iter_mut().step_by(7) {
        *later = 1e9;
    }
    values[3 * Q8_BLOCK + 6..4 * Q8_BLOCK].fill(8e6);
    let staged = Path::new("out/.m.gguf.tmp-12-3");
    for stored in [GgufType::Q8_0, GgufType::F16] {
        let error = pack(&values, stored, staged, "w").unwrap_err().to_string();
        assert!(
            error.starts_with("out/m.gguf: tensor `w` holds -9000000, and ")
                && error.contains("set export.dtype=f32"),
            "{error}"
        );
    }
    assert!(pack(&values, GgufType::F32, staged, "w").is_ok());
}

#[test]
fn merges_become_scores() {
    let mut tokenizer = json!({
        "added_tokens": [{"id": 0, "content": "<s>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
            "vocab": {"<s>": 0, "<unk>": 1, "a": 258, "b": 259, "ab": 260, "▁": 261, "▁ab": 262},
            "merges": ["a b", "▁ ab"]},
    });
    for byte in 0..256 {
        tokenizer["model"]["vocab"][format!("<0x{byte:02X}>")] = json!(byte + 2);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "{{ x }}").unwrap();
    let mut arch = ArchConfig::from_json(&config(), Path::new("config.json")).unwrap();
    arch.vocab_size = 263;
    let vocab = Vocabulary::read(dir.path(), &arch).unwrap();
    let vocab::Kind::SentencePiece {
        scores,
        space_prefix,
    } = &vocab.kind
    else {
        panic!("not SentencePiece");
    };
    assert!(*space_prefix && !vocab.add_bos);
    assert_eq!(scores[258..], [0.0, 0.0, 0.0, 0.0, -1.0]);
    assert_eq!(vocab.types[..3], [3, 2, 6]);
    assert_eq!(vocab.chat_template.as_deref(), Some("{{ x }}"));
    tokenizer["model"]["vocab"]
        .as_object_mut()
        .unwrap()
        .remove("<0x0A>");
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let text = Vocabulary::read(dir.path(), &arch)
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("byte tokens"), "{text}");
}

#[test]
fn tokenizers_without_a_counterpart_are_refused() {
    let dir = model(&byte_level());
    let base = Base::open(dir.path()).unwrap();
    let refusal = |key: &str, value: Value| {
        let mut tokenizer = byte_level();
        *tokenizer.pointer_mut(key).unwrap() = value;
        fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let file = dir.path().join("model.gguf");
        write(&merged(&base), &file, GgufType::F16)
            .unwrap_err()
            .to_string()
    };
    for (key, value, part) in [
        ("/model/type", json!("Unigram"), "is Unigram, not BPE"),
        ("/model/vocab", json!({"far": 99}), "`far` has no row"),
        ("/model/vocab", json!([]), "no vocabulary"),
        ("/model/merges", json!([["a"]]), "no pair"),
        ("/model/merges", json!(null), "no merges"),
        (
            "/pre_tokenizer",
            json!({"type": "Whitespace"}),
            "cuts text by \"Whitespace\"",
        ),
        ("/pre_tokenizer", json!(null), "neither byte-level"),
        (
            "/pre_tokenizer/add_prefix_space",
            json!(true),
            "a space before a text",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "x"}},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}),
            "no name in llama.cpp",
        ),
    ] {
        let text = refusal(key, value);
        assert!(
            text.contains("tokenizer.json") && text.contains(part),
            "{text}"
        );
    }
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let text = write(&merged(&base), &dir.path().join("m"), GgufType::F16).unwrap_err();
    assert!(text.to_string().contains("no such file"), "{text}");
}

#[test]
fn known_ways_of_cutting_text_have_names() {
    let name = |pre: Value| {
        let mut json = byte_level();
        json["pre_tokenizer"] = pre;
        let reader = vocab::Reader {
            file: "tokenizer.json".into(),
            json,
        };
        reader.split().unwrap()
    };
    let split = |pattern: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})
    };
    let tail = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let head = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
    assert_eq!(
        name(split(&format!(r"{head}\p{{N}}{{1,3}}{tail}"))),
        Some("llama-bpe")
    );
    assert_eq!(name(split(&format!(r"{head}\p{{N}}{tail}"))), Some("qwen2"));
    let digits = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]});
    assert_eq!(name(digits), Some("smollm"));
}
