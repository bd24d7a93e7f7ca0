//! A temporary working directory with a small model and small data, in which
//! tests start the built binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kiln::config::types::{ModelInit, QuantMethod};
use kiln::model::export::{ExportError, WeightType};
use kiln::model::{Adaptation, LoadOptions, load};
use kiln::rng::Stream;
use tempfile::TempDir;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

pub const VOCAB: usize = 64;
const SPECIAL: [&str; 3] = ["<s>", "</s>", "<unk>"];
const WORDS: [&str; 15] = [
    "Answer:", "What", "color", "is", "the", "?", "A)", "B)", "C)", "D)", "A", "B", "C", "D", "no",
];
const THINGS: [&str; 8] = ["sky", "grass", "snow", "coal", "sun", "sea", "rose", "plum"];
const COLORS: [&str; 8] = [
    "blue", "green", "white", "black", "yellow", "teal", "red", "purple",
];

/// What a process left: exit code and texts.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// `model/` (Llama, 2 layers, hidden 32, with weights and a tokenizer),
    /// `tokens.jsonl`, `mcq.csv`, `mcq_test.csv`, `saq.csv`, `saq_test.csv`.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Self { dir };
        sandbox.write("model/config.json", &config(VOCAB, 32, 2));
        sandbox.write(
            "model/tokenizer_config.json",
            r#"{"bos_token": "<s>", "eos_token": "</s>"}"#,
        );
        sandbox.write("model/chat_template.jinja", "{{ messages[0].content }}");
        tokenizer()
            .save(sandbox.path("model/tokenizer.json"), false)
            .unwrap();
        sandbox.write_weights("model");
        sandbox.write("tokens.jsonl", &token_rows(40, VOCAB as u64));
        for (stream, file, rows) in [(1, "mcq.csv", 24), (2, "mcq_test.csv", 7)] {
            sandbox.write(file, &mcq(stream, rows));
        }
        for (stream, file, rows) in [(3, "saq.csv", 24), (4, "saq_test.csv", 7)] {
            sandbox.write(file, &saq(stream, rows));
        }
        sandbox
    }

    /// Random weights for the config.json in `dir`.
    pub fn write_weights(&self, dir: &str) {
        let dir = self.path(dir);
        let model = load(&LoadOptions {
            dir: &dir,
            init: ModelInit::Random,
            quantization: &super::quantization(QuantMethod::None),
            adaptation: Adaptation::Full,
            seed: 11,
            device: &burn::tensor::Device::flex(),
            precision: kiln::ops::Precision::F32,
        })
        .unwrap();
        let made = dir.with_extension("made");
        model
            .write_checkpoint(&made, WeightType::F32, |_| Ok::<_, ExportError>(()))
            .unwrap();
        let weights = "model.safetensors";
        fs::rename(made.join(weights), dir.join(weights)).unwrap();
        fs::remove_dir_all(made).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// Copies a directory of files.
    pub fn copy(&self, from: &str, to: &str) {
        for (name, bytes) in self.tree(from) {
            let target = self.path(to).join(name);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, bytes).unwrap();
        }
    }

    /// Every file below `dir` by its relative path; empty where there is none.
    pub fn tree(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.path(dir), "", &mut files);
        files
    }

    /// The relative paths of every file below `dir`.
    pub fn files(&self, dir: &str) -> Vec<String> {
        self.tree(dir).into_keys().collect()
    }

    /// The run directories under outputs/, sorted.
    pub fn runs(&self) -> Vec<String> {
        let mut runs = Vec::new();
        for day in names(&self.path("outputs")) {
            if day != "adapters" {
                let runs_of_day = names(&self.path("outputs").join(&day));
                runs.extend(runs_of_day.iter().map(|run| format!("outputs/{day}/{run}")));
            }
        }
        runs
    }

    /// Starts the binary; arguments are separated by blanks.
    pub fn spawn(&self, args: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_run"))
            .args(args.split_whitespace())
            .current_dir(self.dir.path())
            // A user who set it must not see one either.
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs the binary to its end.
    pub fn run(&self, args: &str) -> Finished {
        let output = self.spawn(args).wait_with_output().unwrap();
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the binary, which must succeed; returns stdout.
    pub fn ok(&self, args: &str) -> String {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(0), "{args}\n{finished:?}");
        assert_eq!(finished.stderr, "", "{args}");
        finished.stdout
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), files);
        } else {
            files.insert(format!("{prefix}{name}"), fs::read(path).unwrap());
        }
    }
}

/// A Llama config.json.
pub fn config(vocab: usize, hidden: usize, layers: usize) -> String {
    serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true,
        "bos_token_id": 0,
        "eos_token_id": 1
    })
    .to_string()
}

/// One token a word; BOS before every text.
fn tokenizer() -> Tokenizer {
    let words = SPECIAL.iter().chain(&WORDS).chain(&THINGS).chain(&COLORS);
    let vocab = words.enumerate().map(|(i, w)| (w.to_string(), i as u32));
    let model = WordLevel::builder()
        .vocab(vocab.collect())
        .unk_token("<unk>".into())
        .build()
        .unwrap();
    let template = TemplateProcessing::builder()
        .try_single("<s> $A")
        .unwrap()
        .special_tokens(vec![("<s>", 0)])
        .build()
        .unwrap();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(WhitespaceSplit));
    tokenizer.with_post_processor(Some(template));
    tokenizer.add_special_tokens(&SPECIAL.map(|text| AddedToken::from(text, true)));
    tokenizer
}

/// Rows of random tokens below `vocab`, their first half masked.
pub fn token_rows(rows: u64, vocab: u64) -> String {
    let mut text = String::new();
    for row in 0..rows {
        let random = Stream::new(5, &[row]);
        let length = 4 + random.bits(0) % 16;
        let ids: Vec<u64> = (1..=length).map(|i| random.bits(i) % vocab).collect();
        let half = ids.len() / 2;
        let labels: Vec<i64> = (0..ids.len())
            .map(|i| if i < half { -100 } else { ids[i] as i64 })
            .collect();
        text += &format!(
            "{}\n",
            serde_json::json!({"input_ids": ids, "labels": labels})
        );
    }
    text
}

fn mcq(stream: u64, rows: u64) -> String {
    let mut text = "question,options,answer\n".to_string();
    for row in 0..rows {
        let random = Stream::new(stream, &[row]);
        let order = random.permutation(COLORS.len());
        let options: Vec<&str> = order[..4].iter().map(|&i| COLORS[i]).collect();
        let right = (random.bits(99) % 4) as usize;
        let (thing, letter) = (THINGS[order[right]], ["A", "B", "C", "D"][right]);
        let options = options.join(" | ");
        text += &format!("What color is the {thing} ?,{options},{letter}\n");
    }
    text
}

fn saq(stream: u64, rows: u64) -> String {
    let mut text = "question,answer\n".to_string();
    for row in 0..rows {
        let i = (Stream::new(stream, &[row]).bits(0) % 8) as usize;
        text += &format!("What color is the {} ?,{}\n", THINGS[i], COLORS[i]);
    }
    text
}

/// A CSV file's header and rows.
pub fn table(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let line = |record: &csv::StringRecord| record.iter().map(str::to_string).collect();
    let header = line(reader.headers().unwrap());
    let rows = reader.records().map(|r| line(&r.unwrap())).collect();
    (header, rows)
}
