//! Logits, hidden states, losses and greedy tokens against transformers', on the
//! checkpoints of the reference folder. Each test says so and passes where the
//! folder is absent.

use crate::common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln::config::types::{InferenceConfig, ModelInit, QuantMethod};
use kiln::data::tokenizer::Tokenizer;
use kiln::generate::sampling::Sampler;
use kiln::generate::{GenerateOptions, Prompt, generate};
use kiln::model::{Adaptation, Decoder, LoadError, LoadOptions, Ragged, Weight, load};
use kiln::ops::Indices;
use safetensors::SafeTensors;

/// The checkpoints and where the reference of each stands: the shards hold the
/// same numbers as the single file.
const MODELS: [(&str, &str); 8] = [
    ("llama_untied", "llama_untied"),
    ("llama_untied_sharded", "llama_untied"),
    ("llama3_tied", "llama3_tied"),
    ("llama3_tied_v4cfg", "llama3_tied_v4cfg"),
    ("mistral_sw", "mistral_sw"),
    ("qwen2_bias", "qwen2_bias"),
    ("qwen3_qknorm", "qwen3_qknorm"),
    ("gpt2", "gpt2"),
];

fn open(dir: &Path) -> Result<Decoder, LoadError> {
    load(&LoadOptions {
        dir,
        init: ModelInit::Pretrained,
        quantization: &common::quantization(QuantMethod::None),
        adaptation: Adaptation::None,
        seed: 42,
        device: &burn::tensor::Device::flex(),
        precision: kiln::ops::Precision::F32,
    })
}

/// What transformers gave, by the names of `reference.safetensors`.
struct Reference {
    floats: HashMap<String, Vec<f32>>,
    ints: HashMap<String, Vec<i64>>,
    /// Of `input_ids`: sequences, tokens each.
    shape: [usize; 2],
}

impl Reference {
    fn read(dir: &Path) -> Self {
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (mut floats, mut ints) = (HashMap::new(), HashMap::new());
        for (name, view) in file.tensors() {
            let data = view.data();
            match view.dtype() {
                safetensors::Dtype::F32 => {
                    let numbers = data
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                    floats.insert(name, numbers.collect());
                }
                safetensors::Dtype::I64 => {
                    let numbers = data
                        .chunks_exact(8)
                        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                    ints.insert(name, numbers.collect());
                }
                other => panic!("{name} is {other:?}"),
            }
        }
        let shape = file.tensor("input_ids").unwrap().shape().try_into();
        Self {
            floats,
            ints,
            shape: shape.unwrap(),
        }
    }

    /// The rows of `name`, one a token.
    fn rows(&self, name: &str, sequence: usize) -> Vec<&[f32]> {
        let [sequences, tokens] = self.shape;
        let values = &self.floats[name];
        let width = values.len() / (sequences * tokens);
        let rows: Vec<&[f32]> = values.chunks_exact(width).collect();
        rows[sequence * tokens..(sequence + 1) * tokens].to_vec()
    }

    fn sequence(&self, name: &str, sequence: usize) -> Vec<i64> {
        let tokens = self.shape[1];
        self.ints[name][sequence * tokens..(sequence + 1) * tokens].to_vec()
    }

    fn ids(&self, sequence: usize) -> Vec<u32> {
        self.sequence("input_ids", sequence)
            .iter()
            .map(|id| u32::try_from(*id).unwrap())
            .collect()
    }

    /// Prompt and continuation.
    fn greedy(&self) -> Vec<u32> {
        self.ints["generate"].iter().map(|i| *i as u32).collect()
    }
}

/// Each checkpoint with its reference, or nothing with a printed reason.
fn cases() -> Vec<(&'static str, PathBuf, Reference)> {
    let Some(tiny) = common::shared("reference/tiny") else {
        return Vec::new();
    };
    MODELS
        .into_iter()
        .map(|(name, with)| (name, tiny.join(name), Reference::read(&tiny.join(with))))
        .collect()
}

fn batch(sequences: &[&[u32]]) -> Ragged {
    let mut batch = Ragged::default();
    for ids in sequences {
        batch.push(ids);
    }
    batch
}

fn all_rows(batch: &Ragged) -> Indices {
    (0..batch.len() as u32).collect::<Vec<_>>().into()
}

/// Fails where the numbers differ by more than `most`; returns by how much they do.
fn compare(what: &str, got: &[f32], want: &[&[f32]], most: f32) -> f32 {
    let want: Vec<f32> = want.concat();
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got
        .iter()
        .zip(&want)
        .map(|(got, want)| (got - want).abs())
        .fold(0.0, f32::max);
    assert!(worst <= most, "{what}: differs by {worst}");
    worst
}

/// Logits of every token of `sequences`, computed as one batch.
fn logits(model: &mut Decoder, sequences: &[&[u32]]) -> Vec<f32> {
    let batch = batch(sequences);
    model.reserve_positions(batch.len());
    model.logits(&batch, &all_rows(&batch), true, None)
}

#[test]
fn logits_equal_transformers() {
    for (name, dir, reference) in cases() {
        let mut model = open(&dir).unwrap();
        let (first, second) = (reference.ids(0), reference.ids(1));
        let got = logits(&mut model, &[&first, &second]);
        let want = [reference.rows("logits", 0), reference.rows("logits", 1)].concat();
        let worst = compare(name, &got, &want, 1e-4);
        println!("{name}: largest difference of a logit {worst:.1e}");
    }
}

/// Padding on either side changes nothing for the tokens that are no padding, so a
/// batch of the real tokens alone must give their logits.
#[test]
fn logits_equal_those_of_padded_batches() {
    for (name, dir, reference) in cases() {
        let mut model = open(&dir).unwrap();
        for side in ["right", "left"] {
            let mut sequences = Vec::new();
            let mut want = Vec::new();
            for sequence in 0..reference.shape[0] {
                let mask = reference.sequence(&format!("mask_{side}"), sequence);
                let rows = reference.rows(&format!("logits_{side}"), sequence);
                let ids = reference.ids(sequence);
                let real = |t: &usize| mask[*t] == 1;
                sequences.push((0..ids.len()).filter(real).map(|t| ids[t]).collect());
                want.extend((0..ids.len()).filter(real).map(|t| rows[t]));
            }
            let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
            assert_ne!(lengths[0], lengths[1], "{name}: {side} has no padding");
            let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
            let got = logits(&mut model, &sequences);
            compare(&format!("{name}, padded {side}"), &got, &want, 1e-4);
        }
    }
}

/// `hidden.N` follows the final norm; the earlier ones do not, so the norm is
/// applied to them here and the model is cut after as many layers.
#[test]
fn hidden_states_equal_transformers_after_each_layer() {
    for (name, dir, reference) in cases() {
        let mut model = open(&dir).unwrap();
        let norm: Vec<Vec<f32>> = model
            .norm
            .weights()
            .map(|weight| match weight {
                Weight::Dense(weight) => weight.clone().into_data().iter::<f32>().collect(),
                _ => panic!("{name}: the norm of a frozen model is dense"),
            })
            .collect();
        let ids = reference.ids(0);
        let batch = batch(&[&ids]);
        model.reserve_positions(ids.len());
        for layers in (0..=model.arch.num_layers).rev() {
            let last = layers == model.arch.num_layers;
            model.layers.truncate(layers);
            let got = model.hidden(&batch, &all_rows(&batch), true, None);
            let got: Vec<f32> = got.into_data().iter::<f32>().collect();
            let rows = reference.rows(&format!("hidden.{layers}"), 0);
            let normed: Vec<Vec<f32>> = rows
                .iter()
                .map(|row| match last {
                    true => row.to_vec(),
                    false => normed_row(row, &norm, model.arch.norm_eps),
                })
                .collect();
            let want: Vec<&[f32]> = normed.iter().map(Vec::as_slice).collect();
            compare(&format!("{name}, layer {layers}"), &got, &want, 2e-5);
        }
    }
}

/// By the gain alone the RMSNorm, with a bias the LayerNorm.
fn normed_row(row: &[f32], weights: &[Vec<f32>], eps: f64) -> Vec<f32> {
    let wide = row.iter().map(|v| f64::from(*v));
    let n = row.len() as f64;
    let mean = match weights.len() {
        1 => 0.0,
        _ => wide.clone().sum::<f64>() / n,
    };
    let square: f64 = wide.clone().map(|v| (v - mean).powi(2)).sum();
    let scale = 1.0 / (square / n + eps).sqrt();
    let bias = |i: usize| weights.get(1).map_or(0.0, |bias| f64::from(bias[i]));
    wide.zip(&weights[0])
        .enumerate()
        .map(|(i, (v, g))| ((v - mean) * scale * f64::from(*g) + bias(i)) as f32)
        .collect()
}

#[test]
fn the_loss_equals_transformers() {
    for (name, dir, reference) in cases() {
        let mut model = open(&dir).unwrap();
        let mut batch = Ragged::default();
        for sequence in 0..reference.shape[0] {
            let labels = reference.sequence("labels", sequence);
            batch.push_labelled(&reference.ids(sequence), &labels);
        }
        model.reserve_positions(batch.len());
        let got = model.loss(&batch, true).value() / batch.rows.len() as f64;
        let want = f64::from(reference.floats["loss"][0]);
        assert!((got / want - 1.0).abs() < 1e-6, "{name}: {got}, not {want}");
    }
}

#[test]
fn bf16_weights_equal_transformers_in_f32() {
    let Some(dir) = common::shared("reference/tiny/llama_untied_bf16") else {
        return;
    };
    let reference = Reference::read(&dir);
    let mut model = open(&dir).unwrap();
    let name = "logits_bf16w_f32compute";
    let want = [reference.rows(name, 0), reference.rows(name, 1)].concat();
    let (first, second) = (reference.ids(0), reference.ids(1));
    let got = logits(&mut model, &[&first, &second]);
    compare(name, &got, &want, 1e-4);
}

fn greedy(max_new_tokens: usize, eos_ids: Vec<u32>) -> GenerateOptions {
    let inference = InferenceConfig {
        do_sample: false,
        ..common::default_config().inference
    };
    GenerateOptions {
        max_new_tokens,
        sampler: Sampler::new(&inference).unwrap(),
        beams: None,
        eos_ids,
        seed: 42,
        adapter: true,
        slots: 2,
    }
}

fn generated(model: &mut Decoder, prompts: &[&[u32]], options: &GenerateOptions) -> Vec<Vec<u32>> {
    let prompts: Vec<Prompt<'_>> = prompts
        .iter()
        .enumerate()
        .map(|(i, ids)| Prompt {
            ids,
            key: [i as u64, 0],
        })
        .collect();
    generate(model, &prompts, options, &|_| false).unwrap()
}

/// The likeliest tokens with the whole sequence computed anew for each.
fn without_cache(model: &mut Decoder, prompt: &[u32], tokens: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    model.reserve_positions(prompt.len() + tokens);
    for _ in 0..tokens {
        let batch = batch(&[&ids]);
        let logits = model.logits(&batch, &batch.last_rows(), true, None);
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        ids.push(best.unwrap() as u32);
    }
    ids.split_off(prompt.len())
}

#[test]
fn greedy_tokens_equal_transformers_with_and_without_the_cache() {
    for (name, dir, reference) in cases() {
        let mut model = open(&dir).unwrap();
        let whole = reference.greedy();
        let prompt = &reference.ids(0)[..10];
        let want = whole.strip_prefix(prompt).unwrap();
        assert_eq!(want.len(), 16);
        let with = generated(&mut model, &[prompt], &greedy(16, Vec::new()));
        assert_eq!(with[0], want, "{name}, with the cache");
        let without = without_cache(&mut model, prompt, 16);
        assert_eq!(without, want, "{name}, without the cache");
        // The token that ends a sequence is not given out.
        let end = want.iter().position(|id| *id == want[9]).unwrap();
        let short = generated(&mut model, &[prompt], &greedy(16, vec![want[9]]));
        assert_eq!(short[0], want[..end], "{name}, to its end token");
    }
}

#[test]
fn a_batch_of_unequal_prompts_equals_one_by_one() {
    for (name, dir, reference) in cases() {
        let mut model = open(&dir).unwrap();
        let (first, second) = (reference.ids(0), reference.ids(1));
        let prompts = [
            &first[..10],
            &second[..1],
            &second[..23],
            &first[5..8],
            &second[7..],
        ];
        let endless = greedy(12, Vec::new());
        let alone: Vec<Vec<u32>> = prompts
            .iter()
            .map(|p| generated(&mut model, &[p], &endless).remove(0))
            .collect();
        assert_eq!(generated(&mut model, &prompts, &endless), alone, "{name}");
        assert!(alone.iter().any(|tokens| tokens != &alone[0]), "{name}");

        // Sequences that end leave the batch; the others go on as before.
        let ends = vec![alone[0][2], alone[2][6]];
        let until = |tokens: &Vec<u32>| {
            let end = tokens.iter().position(|id| ends.contains(id));
            tokens[..end.unwrap_or(tokens.len())].to_vec()
        };
        let want: Vec<Vec<u32>> = alone.iter().map(until).collect();
        let got = generated(&mut model, &prompts, &greedy(12, ends.clone()));
        assert_eq!(got, want, "{name}, with end tokens");
    }
}

/// `tests/fixtures/story_llama_greedy.json`; made by
/// `tests/python/story_llama_greedy.py`.
struct Story {
    dir: PathBuf,
    prompt: String,
    prompt_ids: Vec<u32>,
    /// The last one ends the sequence.
    new_ids: Vec<u32>,
    text: String,
}

fn story() -> Option<Story> {
    let dir = common::shared("data/story-llama")?;
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/story_llama_greedy.json")).unwrap();
    let ids = |key: &str| -> Vec<u32> {
        let list = json[key].as_array().unwrap();
        list.iter().map(|i| i.as_u64().unwrap() as u32).collect()
    };
    let text = |key: &str| json[key].as_str().unwrap().to_owned();
    Some(Story {
        dir,
        prompt: text("prompt"),
        prompt_ids: ids("prompt_ids"),
        new_ids: ids("new_ids"),
        text: text("text"),
    })
}

#[test]
fn a_trained_model_continues_a_story_as_transformers_does() {
    let Some(story) = story() else {
        return;
    };
    let (end, tokens) = story.new_ids.split_last().unwrap();
    assert!(tokens.len() >= 60);
    let mut model = open(&story.dir).unwrap();
    let tokenizer = Tokenizer::load(&story.dir).unwrap();
    let prompt = tokenizer.encode(&story.prompt, true).unwrap();
    assert_eq!(prompt, story.prompt_ids);
    assert_eq!(tokenizer.eos_ids(), [*end]);
    let options = greedy(256, tokenizer.eos_ids().to_vec());
    let got = generated(&mut model, &[&prompt], &options).remove(0);
    assert_eq!(got, tokens);
    assert_eq!(tokenizer.decode(&got).unwrap().trim(), story.text);
    // Its end token is the next one, not the limit of 256.
    assert_eq!(
        without_cache(&mut model, &[prompt, got].concat(), 1),
        [*end]
    );
}

#[test]
fn the_binary_continues_the_story_too() {
    let Some(story) = story() else {
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let questions = work.path().join("questions.csv");
    std::fs::write(&questions, format!("question,answer\n{},x\n", story.prompt)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_run"))
        .current_dir(work.path())
        .args(["eval", "task=saq", "quantization=none"])
        .args([
            "prompt.template='{question}'",
            "data.test_path=questions.csv",
        ])
        .args(["inference.max_new_tokens=256", "hydra.run.dir=out"])
        .arg(format!("model.path={}", story.dir.display()))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let mut rows = csv::Reader::from_path(work.path().join("out/predictions.csv")).unwrap();
    let row = rows.records().next().unwrap().unwrap();
    assert_eq!(
        (&row[1], &row[2]),
        (story.prompt.as_str(), story.text.as_str())
    );
}
