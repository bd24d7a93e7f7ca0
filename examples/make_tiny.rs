//! Writes everything the tiny base model is made from: the tasks' CSV files,
//! the pretraining corpus, and a model directory without weights. All of it
//! follows from the seed.
//!
//! ```text
//! cargo run --release --example make_tiny -- --out target/tiny
//! cargo run --release -- train experiment=pretrain_tiny hydra.run.dir=target/tiny/run
//! cargo run --release -- train experiment=pretrain_tiny_cues hydra.run.dir=target/tiny/cues
//! ```
//!
//! The first command writes `data/{train,test}_dataset_{mcq,saq}.csv`,
//! `target/tiny/{corpus,cues}.jsonl` (ready tokens, in curriculum order) and
//! `target/tiny/model/` (config.json and the tokenizer); the others pretrain,
//! on one corpus after the other.
//! `--data DIR` puts the CSV files elsewhere, `--seed N` draws other documents
//! and questions (the held-out facts stay the same).

#[path = "make_tiny/document.rs"]
mod document;
#[path = "make_tiny/questions.rs"]
mod questions;
#[path = "make_tiny/tokenizer.rs"]
mod tokenizer;
#[path = "make_tiny/world.rs"]
mod world;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use document::{Document, Kind, Slot};
use questions::Question;
use serde_json::json;
use tokenizers::Tokenizer;
use world::{Draw, Half};

#[derive(Parser)]
#[command(about = "Writes the tiny model's tasks, pretraining corpus and model directory")]
struct Args {
    /// Where the corpus and the model directory go.
    #[arg(long)]
    out: PathBuf,
    /// Where the CSV files go.
    #[arg(long, default_value = "data")]
    data: PathBuf,
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

/// Documents a pretraining step; the curriculum changes between steps, and
/// `training.batch_size` of the pretraining experiment is the same number.
const BATCH: usize = 24;
/// Share of documents where the loss counts every token, not only answers.
const SUPERVISE_ALL: f32 = 0.1;
/// Questions a file.
const TRAIN_MCQ: usize = 5000;
const TRAIN_SAQ: usize = 4000;
const TEST_QUESTIONS: usize = 300;

/// Added to the seed for the second corpus.
const CUES_SEED: u64 = 35;

/// Random streams of a seed.
const DOCUMENTS: u64 = 1;
const MCQ_TRAIN: u64 = 2;
const MCQ_TEST: u64 = 3;
const SAQ_TRAIN: u64 = 4;
const SAQ_TEST: u64 = 5;

const fn slot(kind: Kind, facts: &'static [usize], length: usize, echo: f32, gap: usize) -> Slot {
    Slot {
        kind,
        facts,
        length,
        echo,
        connected: 0.7,
        gap,
        lots: 0.0,
    }
}

/// With labels drawn by lot behind cues that mean nothing.
const fn lots(slot: Slot) -> Slot {
    Slot { lots: 0.25, ..slot }
}

/// Steps and the slots they rotate through. Each stage leans on the one before:
/// pairs teach to match a name, echoes in sentences to bind value and name,
/// lists to bind label and value, gaps to look further back, and the last
/// stages join them.
const CURRICULUM: [(usize, &[Slot]); 6] = [
    (
        600,
        &[Slot {
            connected: 0.0,
            ..slot(Kind::Pairs, &[3], 31, 0.0, 0)
        }],
    ),
    (
        1500,
        &[
            slot(Kind::Pairs, &[3, 4], 64, 0.0, 6),
            slot(Kind::LabelPairs, &[2, 3, 4], 64, 0.0, 6),
            slot(Kind::Facts, &[2, 3], 64, 1.0, 4),
            slot(Kind::List, &[2, 3], 64, 1.0, 4),
            slot(Kind::PairsAndList, &[2, 3], 48, 0.0, 0),
        ],
    ),
    (
        900,
        &[
            slot(Kind::Facts, &[3], 80, 0.5, 8),
            slot(Kind::List, &[3], 80, 0.5, 8),
            slot(Kind::FactsAndList, &[2], 80, 1.0, 6),
            slot(Kind::PairsAndList, &[3, 4], 64, 0.0, 0),
            slot(Kind::FactsAndList, &[2], 80, 0.7, 10),
        ],
    ),
    (
        1500,
        &[
            slot(Kind::Facts, &[3, 4], 96, 0.3, 16),
            slot(Kind::List, &[3, 4], 96, 0.3, 16),
            slot(Kind::FactsAndList, &[2, 3], 96, 0.6, 16),
            slot(Kind::FactsAndList, &[2, 3], 96, 0.3, 24),
            slot(Kind::Blocks, &[2, 3], 80, 0.0, 0),
        ],
    ),
    (
        1200,
        &[
            slot(Kind::Facts, &[3, 4], 96, 0.2, 16),
            slot(Kind::List, &[3, 4], 96, 0.2, 16),
            slot(Kind::FactsAndList, &[3, 4], 112, 0.3, 24),
            slot(Kind::Blocks, &[2, 3], 96, 0.0, 0),
            slot(Kind::Blocks, &[3, 4], 112, 0.0, 0),
        ],
    ),
    (
        1200,
        &[
            slot(Kind::Facts, &[4], 96, 0.1, 8),
            slot(Kind::List, &[4], 96, 0.1, 8),
            slot(Kind::FactsAndList, &[4], 112, 0.2, 16),
            slot(Kind::Blocks, &[3, 4], 112, 0.0, 0),
            slot(Kind::Blocks, &[4], 112, 0.0, 0),
        ],
    ),
];

/// The second corpus: the last stage again, with labels drawn by lot behind
/// cues that mean nothing.
const CUES: [(usize, &[Slot]); 1] = [(
    700,
    &[
        slot(Kind::Facts, &[4], 96, 0.1, 8),
        slot(Kind::List, &[4], 96, 0.1, 8),
        lots(slot(Kind::FactsAndList, &[4], 112, 0.2, 16)),
        lots(slot(Kind::Blocks, &[3, 4], 112, 0.0, 0)),
        lots(slot(Kind::Blocks, &[4], 112, 0.0, 0)),
    ],
)];

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.out.join("model");
    for dir in [&args.data, &model] {
        fs::create_dir_all(dir).with_context(|| format!("{}: cannot make it", dir.display()))?;
    }

    let mut texts = Vec::new();
    for (split, half, mcq, saq) in [
        (
            "train",
            Half::Train,
            (MCQ_TRAIN, TRAIN_MCQ),
            (SAQ_TRAIN, TRAIN_SAQ),
        ),
        (
            "test",
            Half::Test,
            (MCQ_TEST, TEST_QUESTIONS),
            (SAQ_TEST, TEST_QUESTIONS),
        ),
    ] {
        let draw_all = |(stream, count): (u64, usize)| {
            let mut draw = Draw::new(args.seed, &[stream]);
            let questions = (0..count).map(|_| Question::draw(&mut draw, half));
            questions.collect::<Vec<_>>()
        };
        let (mcq, saq) = (draw_all(mcq), draw_all(saq));
        write_mcq(&args.data.join(format!("{split}_dataset_mcq.csv")), &mcq)?;
        write_saq(&args.data.join(format!("{split}_dataset_saq.csv")), &saq)?;
        if half == Half::Train {
            texts.extend(mcq.iter().map(mcq_text));
        }
    }

    let documents = draw_documents(args.seed, &CURRICULUM);
    texts.extend(documents.iter().map(Document::text));
    let tokenizer = tokenizer::train(&texts)?;
    tokenizer
        .save(model.join("tokenizer.json"), false)
        .map_err(|e| anyhow::anyhow!("{}: {e}", model.display()))?;
    write_json(&model.join("tokenizer_config.json"), &tokenizer::config())?;
    let vocabulary = tokenizer.get_vocab_size(true);
    write_json(&model.join("config.json"), &model_config(vocabulary))?;

    let tokens = write_corpus(&args.out.join("corpus.jsonl"), &documents, &tokenizer)?;
    println!(
        "{} documents, {tokens} tokens, vocabulary {vocabulary}",
        documents.len()
    );
    let cues = draw_documents(args.seed + CUES_SEED, &CUES);
    let tokens = write_corpus(&args.out.join("cues.jsonl"), &cues, &tokenizer)?;
    println!("{} documents, {tokens} tokens on cues", cues.len());
    Ok(())
}

/// The documents of all steps in order.
fn draw_documents(seed: u64, curriculum: &[(usize, &[Slot])]) -> Vec<Document> {
    let mut draw = Draw::new(seed, &[DOCUMENTS]);
    let mut documents = Vec::new();
    let mut step = 0;
    for &(steps, slots) in curriculum {
        for _ in 0..steps {
            let slot = &slots[step % slots.len()];
            step += 1;
            documents.extend((0..BATCH).map(|_| Document::draw(&mut draw, slot, SUPERVISE_ALL)));
        }
    }
    documents
}

/// A multiple-choice example as the trainer will see it.
fn mcq_text(question: &Question) -> String {
    let mut text = question.text.clone();
    for (letter, option) in ["A", "B", "C", "D"].iter().zip(&question.options) {
        text.push_str(&format!("\n{letter}) {option}"));
    }
    format!("{text}\nAnswer: {}", question.letter())
}

fn write_mcq(path: &Path, questions: &[Question]) -> Result<()> {
    let mut csv = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
    csv.write_record(["id", "question", "options", "answer"])?;
    for (i, q) in questions.iter().enumerate() {
        let options = q.options.join(" | ");
        csv.write_record([&format!("mcq-{i}"), &q.text, &options, q.letter()])?;
    }
    Ok(csv.flush()?)
}

fn write_saq(path: &Path, questions: &[Question]) -> Result<()> {
    let mut csv = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
    csv.write_record(["id", "question", "answer"])?;
    for (i, q) in questions.iter().enumerate() {
        csv.write_record([&format!("saq-{i}"), &q.text, q.answer])?;
    }
    Ok(csv.flush()?)
}

/// One document a line as `input_ids` and `labels`; returns the token count.
fn write_corpus(path: &Path, documents: &[Document], tokenizer: &Tokenizer) -> Result<usize> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut file = BufWriter::new(file);
    let mut known: HashMap<&str, u32> = HashMap::new();
    let mut total = 0;
    for document in documents {
        let mut ids = vec![tokenizer::BOS_ID];
        let mut labels = vec![-100_i64];
        for piece in &document.pieces {
            let id = match known.get(piece.text.as_str()) {
                Some(&id) => id,
                None => {
                    let id = tokenizer::one_token(tokenizer, &piece.text)?;
                    known.insert(&piece.text, id);
                    id
                }
            };
            ids.push(id);
            labels.push(if piece.supervised {
                i64::from(id)
            } else {
                -100
            });
        }
        ids.push(tokenizer::EOS_ID);
        labels.push(i64::from(tokenizer::EOS_ID));
        total += ids.len();
        serde_json::to_writer(&mut file, &json!({"input_ids": ids, "labels": labels}))?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(total)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// A Llama of 1.1M parameters in the layout of `LlamaForCausalLM`.
fn model_config(vocabulary: usize) -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "initializer_range": 0.05,
        "bos_token_id": tokenizer::BOS_ID,
        "eos_token_id": tokenizer::EOS_ID,
        "pad_token_id": tokenizer::PAD_ID,
        "torch_dtype": "bfloat16"
    })
}
