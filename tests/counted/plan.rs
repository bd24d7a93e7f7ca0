//! The plan beside what a run really takes: every byte that the allocator gives
//! out while a small model trains, counted.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use kiln::config::Config;
use kiln::config::types::{LoraInit, Method, ModelInit, Optimizer, QuantMethod, TargetModules};
use kiln::model::export::{ExportError, WeightType};
use kiln::model::hf_config::ArchConfig;
use kiln::model::{
    Adaptation, DropoutKey, Grads, Keep, LoadOptions, Ragged, StepOptions, Weight, load,
};
use kiln::ops::HotOps;
use kiln::ops::cpu::CPU;
use kiln::ops::nf4::TASK;
use kiln::plan::{Batch, Memory, Part, Phase, Place, Precision, Recipe, Workload};
use kiln::rng::Stream;
use kiln::train::Optimizer as Training;

use crate::allocator::{alone, live, most_since};
use crate::common;

const MODEL: &str = r#"{"model_type": "llama", "vocab_size": 2048, "hidden_size": 192,
    "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "tie_word_embeddings": false}"#;
/// Norms of the heads, biases and a window.
const QWEN3: &str = r#"{"model_type": "qwen3", "vocab_size": 2048, "hidden_size": 192,
    "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6, "head_dim": 64,
    "num_key_value_heads": 2, "attention_bias": true, "use_sliding_window": true,
    "sliding_window": 30, "max_window_layers": 1}"#;
const GPT2: &str = r#"{"model_type": "gpt2", "vocab_size": 2048, "n_embd": 192, "n_layer": 4,
    "n_head": 6, "n_positions": 128, "tie_word_embeddings": false}"#;
const SEQUENCES: usize = 6;
/// More tokens than the feed-forward part takes at once.
const MANY: usize = 24;
const TOKENS: usize = 100;

/// Sequences of which the second half is supervised.
fn batch(sequences: usize) -> Ragged {
    let random = Stream::new(3, &[]);
    let mut batch = Ragged::default();
    for row in 0..sequences {
        let id = |i: usize| (random.bits((row * TOKENS + i) as u64) % 2048) as u32;
        let ids: Vec<u32> = (0..TOKENS).map(id).collect();
        let labels: Vec<i64> = (0..TOKENS)
            .map(|i| {
                if i < TOKENS / 2 {
                    -100
                } else {
                    i64::from(ids[i])
                }
            })
            .collect();
        batch.push_labelled(&ids, &labels);
    }
    batch
}

/// A random checkpoint of that shape, in f32.
fn write_model(dir: &Path, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), text).unwrap();
    let model = load(&LoadOptions {
        dir,
        init: ModelInit::Random,
        quantization: &common::default_config().quantization,
        adaptation: Adaptation::Full,
        seed: 5,
        device: &Device::flex(),
        precision: kiln::ops::Precision::F32,
    })
    .unwrap();
    let nothing = |_: &Path| Ok::<_, ExportError>(());
    model
        .write_checkpoint(dir, WeightType::F32, nothing)
        .unwrap();
}

/// What loading and two micro-batches of training took at most, and validation.
fn counted(dir: &Path, config: &Config, sequences: usize) -> [u64; 3] {
    let device = Device::flex();
    let before = live();
    most_since(before);
    let adaptation = match config.method {
        Method::Lora => Adaptation::Lora(&config.lora),
        Method::Full => Adaptation::Full,
    };
    let mut model = load(&LoadOptions {
        dir,
        init: config.model.init,
        quantization: &config.quantization,
        adaptation,
        seed: 5,
        device: &device,
        precision: match config.training.bf16 {
            Some(true) => kiln::ops::Precision::Bf16,
            _ => kiln::ops::Precision::F32,
        },
    })
    .unwrap();
    let loading = most_since(before);
    check_weights(&model, dir, config);
    let batch = batch(sequences);
    model.reserve_positions(TOKENS);
    let mut optimizer = Training::new(&model.params, config.training.optimizer);
    let mut grads = Grads::new(&model.params);
    for micro in 0..2 {
        let options = StepOptions {
            scale: 0.01,
            keep: Keep::of(&config.training),
            dropout: Some(DropoutKey {
                seed: 1,
                step: 0,
                micro,
            }),
        };
        model.loss_backward(&batch, options, &mut grads);
    }
    let ops = model.ops();
    optimizer.step(ops, &mut model.params, grads, &config.training, 1e-4);
    let step = most_since(before);
    model.loss(&batch, true);
    [loading, step, most_since(before)]
}

/// The bytes of the weights, part by part, to the byte.
fn check_weights(model: &kiln::model::Decoder, dir: &Path, config: &Config) {
    let memory = planned(dir, config, SEQUENCES);
    let part = |wanted| {
        let found = memory.parts.iter().find(|(part, _)| *part == wanted);
        found.map_or(0, |(_, bytes)| *bytes as usize)
    };
    let frozen = |weights: &[&Weight]| weights.iter().map(|w| w.frozen_bytes()).sum::<usize>();
    let layers = &model.layers;
    let linears: Vec<&Weight> = layers
        .iter()
        .flat_map(|layer| layer.linears().map(|linear| &linear.weight))
        .collect();
    let in_linears = part(Part::Nf4Codes) + part(Part::Nf4Scales) + part(Part::DenseLinears);
    assert_eq!(frozen(&linears), in_linears);
    let tables: Vec<&Weight> = [&model.embedding]
        .into_iter()
        .chain(&model.positions)
        .collect();
    assert_eq!(frozen(&tables), part(Part::Embedding));
    assert_eq!(frozen(&[model.head.as_ref().unwrap()]), part(Part::Head));
    let norms = layers.iter().flat_map(|layer| layer.norms());
    let norms = norms.chain([&model.norm]).flat_map(|norm| norm.weights());
    let biases = layers.iter().flat_map(|layer| layer.linears());
    let biases = biases.filter_map(|linear| linear.bias.as_ref());
    let vectors: Vec<&Weight> = norms.chain(biases).collect();
    let adapted = layers.iter().flat_map(|layer| layer.linears());
    let lengths = adapted.filter_map(|l| Some(l.lora(0)?.dora.as_ref()?.squares.dims()[1]));
    let lengths = 4 * lengths.sum::<usize>();
    assert_eq!(frozen(&vectors) + lengths, part(Part::Norms));
    let trained = 4 * model.params.count();
    assert_eq!(trained, part(Part::Trained));
    assert_eq!(trained, part(Part::Gradients));
    if config.training.optimizer == Optimizer::Adamw {
        assert_eq!(2 * trained, part(Part::Moments));
    } else {
        // A byte a number, and a scale for 256 of them; embeddings and small tensors stay as
        // they are.
        let kinds = model.params.values().iter().zip(model.params.tables());
        let tables = kinds.filter(|(_, is_table)| **is_table);
        let tables = 4 * tables
            .map(|(p, _)| p.dims().iter().product::<usize>())
            .sum::<usize>();
        let rest = trained - tables;
        let most = match config.method {
            Method::Lora => 2 * rest,
            Method::Full => rest / 5 * 3,
        };
        let moments = part(Part::Moments) - 2 * tables;
        assert!((rest / 2..=most).contains(&moments), "{moments} of {rest}");
    }
}

fn planned(dir: &Path, config: &Config, sequences: usize) -> Memory {
    let arch = ArchConfig::from_dir(dir).unwrap();
    let batch = Batch {
        tokens: (sequences * TOKENS) as u64,
        supervised: (sequences * TOKENS / 2) as u64,
        longest: TOKENS as u64,
        sequences: sequences as u64,
    };
    let workload = Workload {
        train: batch,
        accumulates: true,
        validation: Some(batch),
        steps: 1,
        tokens: batch.tokens,
        supervised: batch.supervised,
        ..Workload::default()
    };
    let place = Place::Cpu {
        program_bytes: 0,
        threads: rayon::current_num_threads(),
    };
    let mut recipe = Recipe::new(&arch, config).unwrap();
    if config.training.bf16 == Some(true) {
        recipe.precision = Precision::CPU_BF16;
    }
    recipe.memory(&workload, place)
}

type Case<'a> = (&'a str, &'a dyn Fn(&mut Config));

#[test]
fn the_plan_is_what_the_allocator_counts() {
    let _alone = alone();
    // The gemm crate keeps a buffer from its first product of few rows on.
    let ones = |rows| Tensor::<2>::ones([rows, 512], &Device::flex());
    CPU.gemm(&ones(2), false, &ones(512), false, 1.0);
    let parent = tempfile::tempdir().unwrap();
    let dir = &parent.path().join("model");
    write_model(dir, MODEL);
    let all = |config: &mut Config| {
        config.lora.target_modules = TargetModules::Named("all-linear".into());
    };
    let read = |config: &mut Config| {
        all(config);
        config.model.init = ModelInit::Pretrained;
    };
    let cases: [Case; 20] = [
        ("QLoRA", &|_| {}),
        ("QLoRA from a checkpoint", &read),
        ("LoRA from a checkpoint", &|c| {
            read(c);
            c.quantization.method = QuantMethod::None;
        }),
        ("QLoRA, all linears", &all),
        ("QLoRA, all linears, many tokens", &all),
        ("full, many tokens", &|c| {
            c.method = Method::Full;
            c.quantization.method = QuantMethod::None;
        }),
        ("QLoRA, tapes kept", &|c| {
            all(c);
            c.training.gradient_checkpointing = false;
        }),
        ("QLoRA, upper layers", &|c| {
            all(c);
            c.lora.layers_to_transform = Some(vec![2, 3]);
        }),
        (
            "QLoRA, upper layers, ranks of their own, tapes kept",
            &|c| {
                all(c);
                c.lora.layers_to_transform = Some(vec![1, 3]);
                c.lora.exclude_modules = vec!["up_proj".into()];
                c.lora.rank_pattern = vec![("q_proj".into(), 3), ("down_proj".into(), 40)];
                c.training.gradient_checkpointing = false;
            },
        ),
        ("LoRA without dropout", &|c| {
            c.quantization.method = QuantMethod::None;
            c.lora.dropout = 0.0;
        }),
        ("PiSSA", &|c| {
            read(c);
            c.lora.init_lora_weights = LoraInit::Pissa;
        }),
        ("LoftQ", &|c| {
            all(c);
            c.lora.alpha = c.lora.r as f64;
            c.lora.init_lora_weights = LoraInit::Loftq;
        }),
        ("DoRA", &|c| {
            c.lora.use_dora = true;
        }),
        ("full", &|c| {
            c.method = Method::Full;
            c.quantization.method = QuantMethod::None;
        }),
        ("QLoRA, 8-bit moments", &|c| {
            all(c);
            c.training.optimizer = Optimizer::Adamw8bit;
        }),
        ("full, 8-bit moments", &|c| {
            c.method = Method::Full;
            c.quantization.method = QuantMethod::None;
            c.training.optimizer = Optimizer::Adamw8bit;
        }),
        ("QLoRA, all linears, bf16", &|c| {
            all(c);
            c.training.bf16 = Some(true);
        }),
        ("LoRA, bf16", &|c| {
            c.quantization.method = QuantMethod::None;
            c.training.bf16 = Some(true);
        }),
        ("full, bf16", &|c| {
            c.method = Method::Full;
            c.quantization.method = QuantMethod::None;
            c.training.bf16 = Some(true);
        }),
        ("full, tapes kept", &|c| {
            c.method = Method::Full;
            c.quantization.method = QuantMethod::None;
            c.training.gradient_checkpointing = false;
        }),
    ];
    let default = || {
        let mut config = common::default_config();
        config.model.init = ModelInit::Random;
        config
    };
    let mut config = default();
    // Once for what is made on first use: threads, tables, buffers of products.
    counted(dir, &config, SEQUENCES);
    let families: [(&str, &str); 3] = [("llama", MODEL), ("qwen3", QWEN3), ("gpt2", GPT2)];
    let all_cases = families
        .iter()
        .flat_map(|family| cases.iter().map(move |case| (family, case)));
    // Families differ in what a layer keeps, not in how a run goes.
    let once = [
        "QLoRA, all linears",
        "QLoRA, all linears, many tokens",
        "QLoRA from a checkpoint",
        "full, tapes kept",
    ];
    let all_cases =
        all_cases.filter(|((family, _), (name, _))| *family == "llama" || once.contains(name));
    for ((family, text), (name, change)) in all_cases {
        write_model(dir, text);
        let name = format!("{family}, {name}");
        config = default();
        change(&mut config);
        if *family == "gpt2"
            && config.lora.target_modules == common::default_config().lora.target_modules
        {
            config.lora.target_modules = TargetModules::List(vec!["c_attn".into()]);
        }
        let sequences = match name.contains("many tokens") {
            true => MANY,
            false => SEQUENCES,
        };
        let memory = planned(dir, &config, sequences);
        let counted = counted(dir, &config, sequences);
        let phases = [Phase::Loading, Phase::Step, Phase::Validation];
        for ((phase, plan), (wanted, counted)) in
            memory.phases.iter().zip(phases.iter().zip(counted))
        {
            assert_eq!(phase, wanted);
            let off = *plan as f64 / counted as f64 - 1.0;
            println!(
                "{name}, {}: planned {plan}, counted {counted}, {:+.2} %",
                phase.label(),
                100.0 * off
            );
            // Threads that find nothing to read have no buffer; the plan gives all one.
            let idle = match (phase, config.model.init) {
                (Phase::Loading, ModelInit::Pretrained) => {
                    4 * TASK * (rayon::current_num_threads() - 1)
                }
                _ => 0,
            };
            assert!(
                // A panel too many is better than one too few.
                (-0.03..0.04 + idle as f64 / counted as f64).contains(&off),
                "{name}, {}: planned {plan}, counted {counted}",
                phase.label()
            );
        }
    }
}
