//! What a sentence encoder takes by its config, beside what the allocator counts.

use std::path::Path;

use kiln::embed::{EncoderSize, SentenceEncoder};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

use crate::allocator::{alone, live, most_since};

const HIDDEN: usize = 384;
const INNER: usize = 1536;
const LAYERS: usize = 2;
const POSITIONS: usize = 64;
/// That of the fixture's tokenizer.
const VOCAB: usize = 29;

/// An encoder with the fixture's tokenizer and the width of all-MiniLM.
fn write(dir: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert");
    std::fs::copy(fixture.join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let config = format!(
        r#"{{"model_type": "bert", "hidden_size": {HIDDEN}, "intermediate_size": {INNER},
        "num_hidden_layers": {LAYERS}, "num_attention_heads": 12, "hidden_act": "gelu",
        "max_position_embeddings": {POSITIONS}, "vocab_size": {VOCAB}}}"#
    );
    std::fs::write(dir.join("config.json"), config).unwrap();
    let mut shapes = vec![
        (
            "embeddings.word_embeddings.weight".to_string(),
            vec![VOCAB, HIDDEN],
        ),
        (
            "embeddings.position_embeddings.weight".to_string(),
            vec![POSITIONS, HIDDEN],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_string(),
            vec![2, HIDDEN],
        ),
    ];
    let mut linear = |name: String, out: usize, inn: usize| {
        shapes.push((format!("{name}.weight"), vec![out, inn]));
        shapes.push((format!("{name}.bias"), vec![out]));
    };
    for i in 0..LAYERS {
        let at = format!("encoder.layer.{i}");
        for part in [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
        ] {
            linear(format!("{at}.{part}"), HIDDEN, HIDDEN);
        }
        linear(format!("{at}.attention.output.dense"), HIDDEN, HIDDEN);
        linear(format!("{at}.intermediate.dense"), INNER, HIDDEN);
        linear(format!("{at}.output.dense"), HIDDEN, INNER);
    }
    let norms = (0..LAYERS).flat_map(|i| {
        ["attention.output", "output"].map(|part| format!("encoder.layer.{i}.{part}"))
    });
    for at in norms.chain(["embeddings".to_string()]) {
        for part in ["weight", "bias"] {
            shapes.push((format!("{at}.LayerNorm.{part}"), vec![HIDDEN]));
        }
    }
    let longest = shapes
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>());
    let bytes = vec![0_u8; 4 * longest.max().unwrap()];
    let views = shapes.into_iter().map(|(name, shape)| {
        let length = 4 * shape.iter().product::<usize>();
        (
            name,
            TensorView::new(Dtype::F32, shape, &bytes[..length]).unwrap(),
        )
    });
    serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}

#[test]
fn the_size_of_an_encoder_is_what_the_allocator_counts() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let size = EncoderSize::of(dir.path()).unwrap();
    assert_eq!(size.max_tokens, POSITIONS);
    // The tokenizer of an encoder is a matter of kilobytes here.
    let before = live();
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    let held = (live() - before) as f64;
    let weights = size.weights as f64;
    assert!((0.98..1.02).contains(&(held / weights)), "{held} {weights}");
    // Longer than what is read: 64 tokens each, in two batches.
    let text = "a ".repeat(2 * POSITIONS);
    for texts in [8, 100] {
        let before = live();
        most_since(before);
        encoder.embed(&vec![&text; texts]).unwrap();
        let most = most_since(before) as f64;
        let planned = size.working((texts * POSITIONS) as u64) as f64;
        // Above it come attention's scores and packed operands, which with AVX-512 are
        // some MiB however few the tokens: the larger the caches, the more.
        let least_room = f64::from(8 << 20);
        let room = (0.15 * planned).max(least_room);
        assert!(
            (0.9 * planned..planned + room).contains(&most),
            "{texts}: {most} {planned}"
        );
    }
}
