//! Sizes that are known from elsewhere, and what must hold of every plan.

use std::path::Path;

use super::*;
use crate::config::types::TargetModules;
use crate::ops::nf4;

/// The shape of Llama 3 8B.
const LLAMA3_8B: &str = r#"{"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "tie_word_embeddings": false}"#;

fn arch(json: &str) -> ArchConfig {
    ArchConfig::from_json(json, Path::new("config.json")).unwrap()
}

fn small() -> ArchConfig {
    arch(
        r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 160,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "tie_word_embeddings": true}"#,
    )
}

fn config() -> Config {
    let empty = crate::compose::Node {
        value: crate::compose::Value::Map(crate::compose::Map::new()),
        origin: crate::compose::Origin::BuiltIn,
    };
    crate::config::from_tree(&empty).unwrap()
}

fn workload(sequences: u64, longest: u64) -> Workload {
    let batch = Batch {
        tokens: sequences * longest,
        supervised: sequences * longest,
        longest,
        sequences,
    };
    Workload {
        train: batch,
        accumulates: true,
        steps: 1,
        tokens: batch.tokens,
        supervised: batch.supervised,
        squares: sequences * longest * longest,
        ..Workload::default()
    }
}

fn part(memory: &Memory, wanted: Part) -> u64 {
    let found = memory.parts.iter().find(|(part, _)| *part == wanted);
    found.map_or(0, |(_, bytes)| *bytes)
}

const CPU: Place = Place::Cpu {
    program_bytes: 1000,
    threads: 2,
};

#[test]
fn an_8b_model_has_its_known_sizes() {
    let mut config = config();
    config.lora.target_modules = TargetModules::Named("all-linear".into());
    let recipe = Recipe::new(&arch(LLAMA3_8B), &config).unwrap();
    // As the model's page and PEFT print them (r=16 on all linears).
    assert_eq!(recipe.parameters() - recipe.trainable(), 8_030_261_248);
    assert_eq!(recipe.trainable(), 41_943_040);
    let memory = recipe.memory(&workload(2, 2048), Place::Gpu);
    let linears: u64 = 6_979_321_856;
    assert_eq!(part(&memory, Part::Nf4Codes), linears / 2);
    // 0.127 bit a weight (QLoRA, section 3), in bytes.
    let scales = part(&memory, Part::Nf4Scales) as f64;
    assert!(
        (scales * 8.0 / linears as f64 - 0.127).abs() < 5e-4,
        "{scales}"
    );
    assert_eq!(part(&memory, Part::Head), 4 * 128_256 * 4096);
    assert_eq!(part(&memory, Part::Moments), 8 * 41_943_040);
    assert_eq!(part(&memory, Part::Context), CONTEXT_BYTES);
    assert_eq!(
        memory.parts.iter().map(|(_, b)| b).sum::<u64>(),
        memory.total
    );
    // 6 N a token is the rule for a forward and a whole backward; without weight
    // gradients it is 4 N, and 6 N with layers computed again.
    let dense = 2.0 * (linears + 128_256 * 4096) as f64;
    let mut at_once = recipe.clone();
    at_once.checkpointing = false;
    let per_token = at_once.work(&workload(1, 1)).per_token;
    assert!(
        (per_token / (2.0 * dense) - 1.0).abs() < 0.02,
        "{per_token}"
    );
}

/// By the bounds of the config; the time is that of any other plan.
#[test]
fn the_largest_step_of_a_large_model_fits_64_bits() {
    let mut recipe = Recipe::new(&arch(LLAMA3_8B), &config()).unwrap();
    let mut largest = workload(16_384, 1_048_576);
    let prompts = Batch {
        sequences: 4_096 * 256,
        tokens: 4_096 * 1_048_576,
        ..largest.train
    };
    largest.test = Some(Test::Generated {
        prompts,
        capacity: 2 * 1_048_576,
    });
    let half = workload(8_192, 1_048_576);
    for checkpointing in [true, false] {
        recipe.checkpointing = checkpointing;
        for place in [CPU, Place::Gpu] {
            let bytes = |workload| recipe.memory(workload, place).total;
            assert!(bytes(&largest) > bytes(&half));
        }
    }
}

#[test]
fn a_sentence_encoder_stays_once_it_is_read() {
    let recipe = Recipe::new(&arch(LLAMA3_8B), &config()).unwrap();
    let mut workload = workload(1, 64);
    let total = |workload: &Workload, place| recipe.memory(workload, place).total;
    workload.similarity = Some(Similarity {
        weights: 1 << 40,
        working: 1 << 39,
    });
    // Without questions nothing is compared.
    assert!(total(&workload, CPU) < 1 << 39);
    let asked = Test::Generated {
        prompts: workload.train,
        capacity: 80,
    };
    workload.validation = Some(workload.train);
    workload.sampled = Some(asked);
    let sampled = recipe.memory(&workload, CPU);
    assert_eq!(sampled.phase, Phase::Validation);
    assert_eq!(part(&sampled, Part::Encoder), (1 << 40) + (1 << 39));
    // Not read twice for the closing test.
    workload.test = Some(asked);
    let both = recipe.memory(&workload, CPU);
    assert_eq!(part(&both, Part::Encoder), (1 << 40) + (1 << 39));
    workload.sampled = None;
    assert_eq!(recipe.memory(&workload, CPU).phase, Phase::Test);
    // It computes on the host.
    assert!(total(&workload, Place::Gpu) < 1 << 39);
}

#[test]
fn quantised_weights_have_the_bytes_that_the_quantiser_makes() {
    for (rows, columns) in [(64, 64), (100, 36), (3, 5), (96, 256)] {
        let values = vec![0.5f32; rows * columns];
        for double_quant in [false, true] {
            for block_size in [64, 256] {
                let layout = Nf4Layout {
                    block_size,
                    double_quant,
                };
                let (codes, scales) = layout.bytes((rows * columns) as u64);
                let made = nf4::quantize(&values, [rows, columns], block_size, double_quant);
                assert_eq!(
                    (codes + scales) as usize,
                    made.bytes(),
                    "{rows}x{columns} {layout:?}"
                );
            }
        }
    }
}

#[test]
fn inputs_in_host_memory_are_not_on_the_gpu() {
    let mut config = config();
    let long = workload(1, 32_768);
    let plan = |config: &Config, place| {
        let mut recipe = Recipe::new(&arch(LLAMA3_8B), config).unwrap();
        recipe.precision = Precision::BF16;
        recipe.memory(&long, place)
    };
    let kept = plan(&config, Place::Gpu);
    let on_cpu = plan(&config, CPU);
    config.training.activation_offloading = true;
    let away = plan(&config, Place::Gpu);
    let input = 2 * 32_768 * 4096;
    // At the fullest moment, in the last layer's backward, its own is there anyway.
    assert_eq!(part(&kept, Part::Kept), 31 * input);
    assert_eq!(part(&away, Part::Kept), 0);
    assert_eq!(kept.total - away.total, 31 * input);
    assert_eq!(plan(&config, CPU), on_cpu);
}

#[test]
fn what_saves_memory_does_so_in_the_plan() {
    let base = config();
    let total = |change: &dyn Fn(&mut Config), work: &Workload| {
        let mut config = base.clone();
        config.training.gradient_checkpointing = false;
        config.quantization.method = QuantMethod::None;
        change(&mut config);
        let recipe = Recipe::new(&small(), &config).unwrap();
        recipe.memory(work, CPU).total
    };
    let (long, short) = (workload(4, 128), workload(4, 64));
    let plain = total(&|_| {}, &long);
    assert!(total(&|_| {}, &short) < plain);
    assert!(total(&|c| c.lora.r = 4, &long) < plain);
    // Where one layer is the fullest moment, not the head over all tapes.
    let recompute = |c: &mut Config| {
        c.training.gradient_checkpointing = true;
        c.lora.target_modules = TargetModules::Named("all-linear".into());
    };
    let recomputed = total(&recompute, &long);
    assert!(recomputed < plain);
    let undropped = |c: &mut Config| {
        recompute(c);
        c.lora.dropout = 0.0;
    };
    assert!(total(&undropped, &long) < recomputed);
    assert!(total(&|c| c.method = Method::Full, &long) > plain);
    // Fewer tokens: the weights decide.
    let one = workload(1, 2);
    assert!(total(&|c| c.quantization.method = QuantMethod::Nf4, &one) < total(&|_| {}, &one));
}

#[test]
fn later_stages_count_as_well() {
    let recipe = Recipe::new(&small(), &config()).unwrap();
    let mut work = workload(1, 8);
    let batch = Batch {
        tokens: 4000,
        supervised: 4000,
        longest: 100,
        sequences: 40,
    };
    work.validation = Some(batch);
    let validated = recipe.memory(&work, CPU);
    assert_eq!(validated.phase, Phase::Validation);
    work.test = Some(Test::Generated {
        prompts: batch,
        capacity: 500,
    });
    work.checkpoints = true;
    let tested = recipe.memory(&work, CPU);
    assert_eq!(tested.phase, Phase::Test);
    // Keys and values of 3 layers, 40 x 500 tokens, 2 heads of 16.
    assert_eq!(part(&tested, Part::KvCache), 2 * 3 * 40 * 500 * 32 * 4);
    let stages: Vec<Phase> = tested.phases.iter().map(|(phase, _)| *phase).collect();
    let all = [
        Phase::Loading,
        Phase::Step,
        Phase::Validation,
        Phase::Checkpoint,
        Phase::Test,
    ];
    assert_eq!(stages, all);
    assert_eq!(part(&tested, Part::Moments), 0);
    let most = tested.phases.iter().map(|(_, bytes)| *bytes).max();
    assert_eq!(most, Some(tested.total));
}

#[test]
fn a_product_for_timing_is_of_the_models_shape_and_bounded() {
    let recipe = Recipe::new(&small(), &config()).unwrap();
    assert_eq!(
        layer_product(&recipe, &workload(4, 100), 1 << 29),
        (400, 160, 64)
    );
    let recipe = Recipe::new(&arch(LLAMA3_8B), &config()).unwrap();
    let (rows, out, inn) = layer_product(&recipe, &workload(2, 2048), 1 << 29);
    assert_eq!((out, inn), (14336, 4096));
    assert!(rows >= 1 && rows * out * inn <= 1 << 29, "{rows}");
}
