//! Beams and samples against transformers' (tests/python/generation.py), and answers
//! that depend on neither the batch nor the order in which slots come free.

use crate::common;

use std::path::Path;

use burn::tensor::Device;
use kiln::config::types::{EarlyStopping, InferenceConfig, ModelInit, QuantMethod};
use kiln::generate::sampling::Sampler;
use kiln::generate::{Beams, GenerateOptions, Prompt, generate, stream};
use kiln::model::{Adaptation, Decoder, LoadOptions, load};
use kiln::rng::Stream;
use serde_json::Value;

fn reference() -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/fixtures/generation.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn tiny() -> Decoder {
    load(&LoadOptions {
        dir: &Path::new(env!("CARGO_MANIFEST_DIR")).join("data/models/tiny"),
        init: ModelInit::Pretrained,
        quantization: &common::quantization(QuantMethod::None),
        adaptation: Adaptation::None,
        seed: 42,
        device: &Device::flex(),
        precision: kiln::ops::Precision::F32,
    })
    .unwrap()
}

fn numbers(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_u64().unwrap() as u32).collect()
}

fn options(inference: &InferenceConfig) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens: inference.max_new_tokens,
        sampler: Sampler::new(inference).unwrap(),
        beams: Beams::new(inference),
        eos_ids: Vec::new(),
        seed: 9,
        adapter: false,
        slots: 1,
    }
}

fn prompts<'a>(ids: &'a [Vec<u32>]) -> Vec<Prompt<'a>> {
    let prompt = |(i, ids): (usize, &'a Vec<u32>)| Prompt {
        ids,
        key: [i as u64, 0],
    };
    ids.iter().enumerate().map(prompt).collect()
}

#[test]
fn beams_are_those_of_transformers() {
    let reference = reference();
    let mut model = tiny();
    let cases = reference["beams"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let inference = InferenceConfig {
            max_new_tokens: number("max_new_tokens") as usize,
            num_beams: number("num_beams") as usize,
            length_penalty: number("length_penalty"),
            repetition_penalty: number("repetition_penalty"),
            early_stopping: serde_json::from_value(case["early_stopping"].clone()).unwrap(),
            ..common::default_config().inference
        };
        let options = GenerateOptions {
            eos_ids: numbers(&case["eos_ids"]),
            ..options(&inference)
        };
        let ids = [numbers(&case["prompt"])];
        let got = generate(&mut model, &prompts(&ids), &options, &|_| false).unwrap();
        assert_eq!(got[0], numbers(&case["tokens"]), "{case}");
    }
}

/// Draws from one table of logits against the probabilities that transformers'
/// processors leave, by Pearson's chi-square.
#[test]
fn draws_follow_the_distributions_of_transformers() {
    let reference = reference();
    let floats = |value: &Value| -> Vec<f64> {
        let list = value.as_array().unwrap().iter();
        list.map(|v| v.as_f64().unwrap()).collect()
    };
    let table: Vec<f32> = floats(&reference["logits"])
        .iter()
        .map(|l| *l as f32)
        .collect();
    let seen = numbers(&reference["seen"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = std::env::var("KILN_TEST_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(now.unwrap().as_nanos() as u64);
    println!("KILN_TEST_SEED={seed}");
    const DRAWS: u64 = 100_000;
    for (i, case) in reference["draws"].as_array().unwrap().iter().enumerate() {
        let sampler = Sampler::new(&InferenceConfig {
            do_sample: true,
            temperature: case["temperature"].as_f64().unwrap(),
            top_k: case["top_k"].as_u64().map(|k| k as usize),
            top_p: case["top_p"].as_f64().unwrap(),
            min_p: case["min_p"].as_f64(),
            repetition_penalty: case["repetition_penalty"].as_f64().unwrap(),
            ..common::default_config().inference
        })
        .unwrap();
        let stream = Stream::new(seed, &[i as u64]);
        let mut counts = vec![0u64; table.len()];
        for draw in 0..DRAWS {
            let token = sampler.next_token(&table, &seen, stream, draw).unwrap();
            counts[token as usize] += 1;
        }
        // Tokens expected under five times share one bin, as the test asks.
        let (mut chi, mut bins, mut rare) = (0.0, 0.0, (0.0, 0.0));
        for (count, p) in counts.iter().zip(floats(&case["probabilities"])) {
            let (count, want) = (*count as f64, p * DRAWS as f64);
            assert!(
                p > 0.0 || count == 0.0,
                "{case}: a token that cannot be drawn"
            );
            if want >= 5.0 {
                chi += (count - want).powi(2) / want;
                bins += 1.0;
            } else {
                rare = (rare.0 + count, rare.1 + want);
            }
        }
        if rare.1 > 1.0 {
            chi += (rare.0 - rare.1).powi(2) / rare.1;
            bins += 1.0;
        }
        // Wilson and Hilferty's normal approximation: 4.5 sigma, once in 300,000 runs.
        let free: f64 = bins - 1.0;
        let z = ((chi / free).cbrt() - (1.0 - 2.0 / (9.0 * free))) / (2.0 / (9.0 * free)).sqrt();
        println!("setting {i}: {bins} bins, chi-square {chi:.1}, {z:+.2} sigma");
        assert!(z < 4.5, "{case}: chi-square {chi} over {bins} bins");
    }
}

fn unequal() -> Vec<Vec<u32>> {
    let random = Stream::new(31, &[]);
    let prompt = |i: u64| {
        let length = 1 + random.bits(i * 100) % 23;
        let ids = (1..=length).map(|t| 3 + (random.bits(i * 100 + t) % 1000) as u32);
        ids.collect()
    };
    (0..9).map(prompt).collect()
}

#[test]
fn answers_do_not_depend_on_the_number_of_slots() {
    let mut model = tiny();
    let ids = unequal();
    let defaults = common::default_config().inference;
    let base = InferenceConfig {
        max_new_tokens: 12,
        ..defaults
    };
    let sampling = InferenceConfig {
        do_sample: true,
        temperature: 1.2,
        min_p: Some(0.01),
        repetition_penalty: 1.1,
        ..base.clone()
    };
    let beams = InferenceConfig {
        num_beams: 3,
        early_stopping: EarlyStopping::True,
        ..base.clone()
    };
    for inference in [base, sampling, beams] {
        // Answers end at different times: at these tokens, at a stop, at the limit.
        let end = GenerateOptions {
            eos_ids: vec![16, 201, 704],
            ..options(&inference)
        };
        let stop = |tokens: &[u32]| tokens.last().is_some_and(|t| t % 13 == 5);
        let one = generate(&mut model, &prompts(&ids), &end, &stop).unwrap();
        let lengths: std::collections::HashSet<usize> = one.iter().map(Vec::len).collect();
        assert!(lengths.len() > 2, "{lengths:?}");
        for slots in [2, 3, 5, 64] {
            let options = GenerateOptions {
                slots,
                ..end.clone()
            };
            let mut grown = vec![Vec::new(); ids.len()];
            let mut done = vec![0; ids.len()];
            let got = stream(
                &mut model,
                &prompts(&ids),
                &options,
                &stop,
                &mut |progress| {
                    let grown = &mut grown[progress.prompt];
                    assert!(progress.tokens.starts_with(grown));
                    assert_eq!(done[progress.prompt], 0);
                    *grown = progress.tokens.to_vec();
                    done[progress.prompt] += usize::from(progress.done);
                },
            )
            .unwrap();
            assert_eq!(got, one, "{slots} slots");
            assert_eq!(grown, one);
            assert!(done.iter().all(|n| *n == 1));
        }
    }
}

/// With as many beams as there are continuations the search is exhaustive: it finds
/// the likeliest answer of two tokens.
#[test]
fn many_beams_find_the_likeliest_answer() {
    let mut model = tiny();
    let prompt = vec![20, 300, 41];
    model.reserve_positions(8);
    let vocab = model.arch.vocab_size;
    let log_p = |model: &Decoder, ids: &[u32]| -> Vec<f64> {
        let mut batch = kiln::model::Ragged::default();
        batch.push(ids);
        let rows = batch.last_rows();
        let logits = model.logits(&batch, &rows, false, None);
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        logits.iter().map(|l| f64::from(*l) - sum.ln()).collect()
    };
    let first = log_p(&model, &prompt);
    let mut order: Vec<usize> = (0..vocab).collect();
    order.sort_by(|a, b| first[*b].total_cmp(&first[*a]));
    // The second token adds at most 0, so no answer that begins with a less likely
    // token than these can be the best.
    let mut best = (f64::NEG_INFINITY, vec![]);
    for &token in &order {
        if first[token] <= best.0 {
            break;
        }
        let ids = [&prompt[..], &[token as u32]].concat();
        for (next, p) in log_p(&model, &ids).into_iter().enumerate() {
            if first[token] + p > best.0 {
                best = (first[token] + p, vec![token as u32, next as u32]);
            }
        }
    }
    let inference = InferenceConfig {
        num_beams: 64,
        max_new_tokens: 2,
        ..common::default_config().inference
    };
    let ids = [prompt];
    let got = generate(&mut model, &prompts(&ids), &options(&inference), &|_| false).unwrap();
    assert_eq!(got[0], best.1);
}

#[test]
fn more_tokens_than_there_is_room_for_are_an_error() {
    let mut model = tiny();
    let ids = [vec![1, 2, 3]];
    let options = GenerateOptions {
        max_new_tokens: 1 << 33,
        ..options(&common::default_config().inference)
    };
    let error = generate(&mut model, &prompts(&ids), &options, &|_| false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("lower inference.max_new_tokens"), "{text}");
    // Where memory does not say so, rows must be counted by 32 bits.
    let most = GenerateOptions {
        max_new_tokens: usize::MAX,
        slots: usize::MAX,
        ..options
    };
    assert!(generate(&mut model, &prompts(&ids), &most, &|_| false).is_err());
}
