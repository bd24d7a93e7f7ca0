//! Gradients of every weight of every family against finite differences of the
//! loss.

use crate::common;

use burn::tensor::{Device, Tensor};
use kiln::config::types::{LoraConfig, ModelInit, QuantMethod, TargetModules};
use kiln::model::{
    Adaptation, Decoder, DropoutKey, Grads, Keep, LoadOptions, Ragged, StepOptions, load,
};
use kiln::ops::Precision;
use kiln::rng::Stream;

const FAMILIES: [&str; 5] = [
    r#"{"model_type": "llama", "num_key_value_heads": 1, "attention_bias": true, "mlp_bias": true"#,
    r#"{"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 3"#,
    r#"{"model_type": "qwen2", "num_key_value_heads": 1, "tie_word_embeddings": true"#,
    r#"{"model_type": "qwen3", "num_key_value_heads": 1, "head_dim": 12, "use_sliding_window": true,
        "sliding_window": 2, "max_window_layers": 1, "tie_word_embeddings": true"#,
    r#"{"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 9,
        "pad_token_id": null"#,
];

/// The sizes that all share; GPT-2 has names of its own for most.
const SIZES: &str = r#", "vocab_size": 23, "hidden_size": 16, "intermediate_size": 20,
    "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}"#;

fn batch(random: Stream) -> Ragged {
    let mut batch = Ragged::default();
    for (sequence, tokens) in [9, 1, 5].into_iter().enumerate() {
        let id = |i: usize| (random.bits((sequence * 16 + i) as u64) % 23) as u32;
        let ids: Vec<u32> = (0..tokens).map(id).collect();
        let labels: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        batch.push_labelled(&ids, &labels);
    }
    batch
}

#[test]
fn every_weight_has_the_gradient_of_finite_differences() {
    let seed = std::env::var("KILN_TEST_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::from(now.unwrap().subsec_nanos())
    });
    println!("KILN_TEST_SEED={seed}");
    for family in FAMILIES {
        for keep in [Keep::Tapes, Keep::Inputs, Keep::InputsOnHost] {
            check(&format!("{family}{SIZES}"), seed, keep);
        }
    }
}

/// A model with random weights, all of which train.
fn random_model(config: &str, seed: u64) -> Decoder {
    adapted_model(config, seed, Adaptation::Full)
}

fn adapted_model(config: &str, seed: u64, adaptation: Adaptation<'_>) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    load(&LoadOptions {
        dir: dir.path(),
        init: ModelInit::Random,
        quantization: &common::quantization(QuantMethod::None),
        adaptation,
        seed,
        device: &Device::flex(),
        precision: Precision::F32,
    })
    .unwrap()
}

fn check(config: &str, seed: u64, keep: Keep) {
    let mut model = random_model(config, seed);
    let random = Stream::new(seed, &[5]);
    // Biases start at 0 and gains at 1, where too much cancels.
    let moved: Vec<Tensor<2>> = (model.params.take().into_iter().enumerate())
        .map(|(i, p)| p.clone() + noise(&p, Stream::new(seed, &[6, i as u64])) * 0.2)
        .collect();
    model.params.put(moved);
    let batch = batch(random);
    model.reserve_positions(9);
    let mut grads = Grads::new(&model.params);
    let options = StepOptions {
        scale: 1.0,
        keep,
        dropout: None,
    };
    model.loss_backward(&batch, options, &mut grads);
    let grads: Vec<Tensor<2>> = grads
        .iter()
        .zip(model.params.names())
        .map(|(g, name)| g.unwrap_or_else(|| panic!("{name}: no gradient")).clone())
        .collect();
    let names = model.params.names().to_vec();
    let values: Vec<Tensor<2>> = model.params.values().to_vec();
    for (i, (name, grad)) in names.iter().zip(&grads).enumerate() {
        // Along the gradient itself the slope is its length; a random part as well,
        // so that a wrong direction shows.
        let length = number(grad.clone().square().sum()).sqrt();
        assert!(length > 1e-3, "{name}: the gradient is {length}");
        let direction = grad.clone() / length + noise(grad, Stream::new(seed, &[7, i as u64]));
        let step = 2e-3 / number(direction.clone().square().sum()).sqrt();
        let mut loss_at = |distance: f64| {
            let mut moved = values.clone();
            moved[i] = moved[i].clone() + direction.clone() * distance;
            model.params.put(moved);
            model.loss(&batch, true).value()
        };
        let slope = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        let want = number((grad.clone() * direction.clone()).sum());
        let scale = length * number(direction.square().sum()).sqrt();
        assert!(
            (slope - want).abs() < 0.01 * scale + 0.01,
            "{config}\n{name}: slope {slope}, gradient {want}"
        );
    }
}

/// An adapter in the lower layer whose B is zero changes nothing that the upper one sees.
#[test]
fn adapters_of_upper_layers_alone_have_the_same_gradients() {
    let config = &format!("{}{SIZES}", FAMILIES[3]);
    let lora = LoraConfig {
        r: 3,
        dropout: 0.2,
        target_modules: TargetModules::Named("all-linear".into()),
        ..common::default_config().lora
    };
    let upper = LoraConfig {
        layers_to_transform: Some(vec![1]),
        ..lora.clone()
    };
    let batch = batch(Stream::new(2, &[]));
    let found = |lora: &LoraConfig, keep| {
        let mut model = adapted_model(config, 4, Adaptation::Lora(lora));
        let names = model.params.names().to_vec();
        let moved = model
            .params
            .take()
            .into_iter()
            .zip(&names)
            .map(|(p, name)| {
                let seed = name
                    .bytes()
                    .fold(7, |sum: u64, b| sum * 31 % 65_521 + u64::from(b));
                match name.contains("layers.1.") {
                    true => p.clone() + noise(&p, Stream::new(seed, &[])) * 0.2,
                    false => p,
                }
            });
        let moved = moved.collect();
        model.params.put(moved);
        model.reserve_positions(9);
        let mut grads = Grads::new(&model.params);
        let options = StepOptions {
            scale: 1.0,
            keep,
            dropout: Some(DropoutKey {
                seed: 6,
                step: 2,
                micro: 1,
            }),
        };
        let loss = model.loss_backward(&batch, options, &mut grads).value();
        let grads = grads.iter().map(|g| g.unwrap().clone().into_data());
        let named = names.into_iter().zip(grads);
        let upper = named.filter(|(name, _)| name.contains("layers.1."));
        (loss, upper.collect::<Vec<_>>())
    };
    for keep in [Keep::Tapes, Keep::Inputs, Keep::InputsOnHost] {
        let (want, got) = (found(&lora, keep), found(&upper, keep));
        assert_eq!((got.1.len(), got.0), (14, want.0), "{keep:?}");
        assert_eq!(got.1, want.1, "{keep:?}");
    }
}

fn noise(like: &Tensor<2>, stream: Stream) -> Tensor<2> {
    let [rows, columns] = like.dims();
    let values: Vec<f32> = (0..(rows * columns) as u64)
        .map(|i| stream.normal(i))
        .collect();
    let data = burn::tensor::TensorData::new(values, [rows, columns]);
    Tensor::from_data(data, &like.device())
}

fn number(x: Tensor<1>) -> f64 {
    x.into_data().iter::<f64>().next().unwrap()
}

/// PyTorch's `padding_idx`: lookups of the padding token train nothing, the head does.
#[test]
fn lookups_of_padding_train_no_row() {
    let embedding_grad = |family: &str, pad: &str| {
        let sizes = r#", "vocab_size": 23, "hidden_size": 16, "n_embd": 16, "n_head": 2,
            "intermediate_size": 20, "num_hidden_layers": 1, "n_layer": 1, "n_positions": 9,
            "num_attention_heads": 2, "initializer_range": 0.3"#;
        let config = format!(r#"{{"model_type": "{family}", "pad_token_id": {pad}{sizes}}}"#);
        let mut model = random_model(&config, 5);
        let mut batch = Ragged::default();
        batch.push_labelled(&[3, 7, 3, 9], &[3, 7, 3, 9]);
        model.reserve_positions(9);
        let mut grads = Grads::new(&model.params);
        let options = StepOptions {
            scale: 1.0,
            keep: Keep::Tapes,
            dropout: None,
        };
        model.loss_backward(&batch, options, &mut grads);
        let first = grads.iter().next().flatten().expect("of the embedding");
        let values: Vec<f32> = first.clone().into_data().iter::<f32>().collect();
        let row = |id: usize| values[id * 16..(id + 1) * 16].iter().any(|v| *v != 0.0);
        [row(3), row(7), row(9)]
    };
    // Nothing follows the last token.
    assert_eq!(embedding_grad("llama", "null"), [true, true, false]);
    assert_eq!(embedding_grad("llama", "3"), [false, true, false]);
    // GPT-2's embedding is the head's matrix, and has no padding.
    assert_eq!(embedding_grad("gpt2", "3"), [true, true, true]);
}
