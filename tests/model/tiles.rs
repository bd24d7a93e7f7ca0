//! The feed-forward part taken a few rows at a time: loss and gradients are those of
//! all rows at once, dropout included.

use crate::common;

use burn::tensor::{Device, Tensor, TensorData};
use kiln::config::types::{LoraConfig, Method, ModelInit, QuantMethod, TargetModules};
use kiln::model::{
    Adaptation, Decoder, DropoutKey, Grads, Keep, LoadOptions, Ragged, StepOptions, load, tile_rows,
};
use kiln::ops::Precision;
use kiln::rng::Stream;

const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 97, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 97, "n_embd": 64, "n_layer": 2,
    "n_head": 2, "n_positions": 70, "pad_token_id": null}"#;
const LENGTHS: [usize; 4] = [70, 1, 33, 46];
/// Of all rows.
const ROWS: usize = 150;

fn batch(random: Stream) -> Ragged {
    let mut batch = Ragged::default();
    for (sequence, tokens) in LENGTHS.into_iter().enumerate() {
        let id = |i: usize| (random.bits((sequence * 100 + i) as u64) % 97) as u32;
        let ids: Vec<u32> = (0..tokens).map(id).collect();
        let labels: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        batch.push_labelled(&ids, &labels);
    }
    batch
}

/// With parameters off their start, where half of LoRA's gradients are zero.
fn model(text: &str, adaptation: Adaptation<'_>, quantization: QuantMethod) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    let mut model = load(&LoadOptions {
        dir: dir.path(),
        init: ModelInit::Random,
        quantization: &common::quantization(quantization),
        adaptation,
        seed: 3,
        device: &Device::flex(),
        precision: Precision::F32,
    })
    .unwrap();
    model.reserve_positions(70);
    let moved = |(i, p): (usize, Tensor<2>)| {
        let noise = Stream::new(8, &[i as u64]);
        let [rows, columns] = p.dims();
        let values: Vec<f32> = (0..(rows * columns) as u64)
            .map(|at| 0.1 * noise.normal(at))
            .collect();
        p.clone() + Tensor::from_data(TensorData::new(values, [rows, columns]), &p.device())
    };
    let params = model.params.take().into_iter().enumerate();
    let params = params.map(moved).collect();
    model.params.put(params);
    model
}

fn backward(model: &Decoder, batch: &Ragged, keep: Keep) -> (f64, Vec<Vec<f32>>) {
    let mut grads = Grads::new(&model.params);
    let options = StepOptions {
        scale: 0.01,
        keep,
        dropout: Some(DropoutKey {
            seed: 6,
            step: 2,
            micro: 1,
        }),
    };
    let loss = model.loss_backward(batch, options, &mut grads).value();
    let values = |g: &Tensor<2>| g.clone().into_data().iter::<f32>().collect();
    let grads = grads.iter().map(|g| values(g.unwrap())).collect();
    (loss, grads)
}

#[test]
fn a_few_rows_at_a_time_give_what_all_rows_give() {
    let lora = |dora| LoraConfig {
        dropout: 0.2,
        use_dora: dora,
        target_modules: TargetModules::Named("all-linear".into()),
        ..common::default_config().lora
    };
    let (plain, dora) = (lora(false), lora(true));
    let cases = [
        (LLAMA, Method::Lora, &plain, QuantMethod::Nf4),
        (GPT2, Method::Lora, &plain, QuantMethod::None),
        (LLAMA, Method::Lora, &dora, QuantMethod::None),
        (LLAMA, Method::Full, &plain, QuantMethod::None),
    ];
    let batch = batch(Stream::new(11, &[]));
    for (case, (text, method, lora, quantization)) in cases.into_iter().enumerate() {
        let adaptation = match method {
            Method::Lora => Adaptation::Lora(lora),
            Method::Full => Adaptation::Full,
        };
        let mut model = model(text, adaptation, quantization);
        model.mlp_rows = ROWS;
        let (loss, want) = backward(&model, &batch, Keep::Tapes);
        let evaluated = model.loss(&batch, true).value();
        for mlp_rows in [ROWS - 1, 64, 7] {
            model.mlp_rows = mlp_rows;
            let (got_loss, got) = backward(&model, &batch, Keep::Inputs);
            assert!(
                (got_loss - loss).abs() < 1e-5 * loss,
                "case {case}, {mlp_rows} rows: {got_loss} for {loss}"
            );
            let again = model.loss(&batch, true).value();
            assert!((again - evaluated).abs() < 1e-5 * evaluated);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                assert!(largest > 0.0);
                let off = got.iter().zip(want).map(|(a, b)| (a - b).abs());
                let off = off.fold(0.0, f32::max);
                assert!(
                    off <= 2e-5 * largest,
                    "case {case}, {mlp_rows} rows, {}: {off} of {largest}",
                    model.params.names()[i]
                );
            }
        }
    }
}

#[test]
fn tiles_are_alike_and_cover_all_rows() {
    for rows in [1, 63, 64, 2048, 2049, 2500, 4096, 10_000] {
        let tile = tile_rows(rows, 2048);
        let count = rows.div_ceil(tile);
        assert!(
            tile <= 2048 && count == rows.div_ceil(2048),
            "{rows}: {tile}"
        );
    }
    assert_eq!(tile_rows(4100, 2048), 1408);
    assert_eq!(tile_rows(100, 24), 24);
}
