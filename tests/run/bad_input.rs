//! What goes wrong is told in a sentence that names the thing and the way out,
//! with exit code 1, and nothing half-written is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::sandbox::{Sandbox, VOCAB, config, token_rows};

const SAQ: &str = "train task=saq model.path=model data.path=saq.csv data.test_path=saq_test.csv \
                   training.max_steps=4 inference.max_new_tokens=2";
const TOKENS: &str = "train task=tokens model.path=model data.path=tokens.jsonl \
                      training.max_steps=4";

/// Runs a command that must fail; checks the message and that no file came or went.
fn refused(sandbox: &Sandbox, args: &str, parts: &[&str]) {
    let before = sandbox.tree("");
    fails(sandbox, args, 1, parts);
    let after = sandbox.tree("");
    let names: Vec<&String> = after.keys().collect();
    assert!(before == after, "{args}: files changed: {names:?}");
    assert!(sandbox.runs().is_empty(), "{args}: a run directory is left");
}

fn fails(sandbox: &Sandbox, args: &str, code: i32, parts: &[&str]) {
    let finished = sandbox.run(args);
    let text = &finished.stderr;
    assert_eq!(finished.code, Some(code), "{args}\n{text}");
    assert!(text.starts_with("error: "), "{args}\n{text}");
    for part in parts {
        assert!(text.contains(part), "{args}: {part:?} is not in\n{text}");
    }
    for part in [
        "panic",
        "internal error",
        "backtrace",
        "unwrap",
        ".rs:",
        ".tmp-",
    ] {
        assert!(!text.contains(part), "{args}: {part:?} is in\n{text}");
    }
    assert!(text.lines().count() <= 7, "{args}\n{text}");
}

#[test]
fn values_that_only_the_run_can_judge_name_their_place() {
    let sandbox = Sandbox::new();
    sandbox.write("mine/lora/odd.yaml", "target_modules: [nope]\n");
    for (change, parts) in [
        (
            "lora.target_modules=[nope]",
            &["`nope` matches no module"][..],
        ),
        ("prompt.template='{question'", &["no partner"]),
        ("training.fp16=true", &["no device computes in fp16"]),
        ("task.name=../evil", &["cannot name a directory"]),
        ("lora.init_from=/nope", &["/nope/adapter_config.json"]),
        ("model.path=/nope", &["/nope"]),
        ("data.path=gone.csv", &["gone.csv: no such file"]),
    ] {
        let place = format!("error: command line: {change}: ");
        let parts: Vec<&str> = parts.iter().copied().chain([place.as_str()]).collect();
        refused(&sandbox, &format!("{SAQ} {change}"), &parts);
    }
    refused(
        &sandbox,
        &format!("{TOKENS} --config-dir mine lora=odd"),
        &["error: mine/lora/odd.yaml:1: lora.target_modules: `nope`"],
    );
    fails(
        &sandbox,
        &format!("{SAQ} --config-dir saq.csv"),
        1,
        &["saq.csv is a file", "--config-name"],
    );
}

#[test]
fn validation_needs_a_second_example() {
    let sandbox = Sandbox::new();
    sandbox.write("one.csv", "question,answer\nWhat is snow ?,white\n");
    for key in [
        "training.early_stopping_patience=2",
        "training.load_best_model_at_end=true",
    ] {
        let args = format!("{SAQ} data.path=one.csv {key}");
        refused(
            &sandbox,
            &args,
            &["one.csv has one example", key.split('=').next().unwrap()],
        );
    }
}

#[test]
fn what_stands_where_the_adapter_goes_is_found_before_training() {
    let sandbox = Sandbox::new();
    sandbox.write("outputs/adapters/adapter_file", "");
    sandbox.write("outputs/adapters/adapter_full/notes.txt", "");
    for (name, what) in [
        ("file", "a file of that name"),
        ("full", "other than an adapter"),
    ] {
        let args = format!("{TOKENS} task.name={name} hydra.run.dir=run");
        refused(&sandbox, &args, &[what, "task.name=NAME"]);
    }
}

#[test]
fn data_files() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.csv", "");
    sandbox.write("header.csv", "question,answer\n");
    sandbox.write("ragged.csv", "question,answer\na,b\na,b,c\n");
    let alien = format!("{{\"input_ids\": [1, {VOCAB}], \"labels\": [1, 2]}}\n");
    sandbox.write("alien.jsonl", &(token_rows(4, 9) + &alien));
    let label = format!("{{\"input_ids\": [1, 2], \"labels\": [1, {VOCAB}]}}\n");
    sandbox.write("label.jsonl", &label);
    for (change, parts) in [
        (
            "data.path=gone.csv",
            &["gone.csv: no such file", "data.path"][..],
        ),
        (
            "data.test_path=gone.csv",
            &["gone.csv: no such file", "data.test_path"],
        ),
        (
            "data.path=model",
            &["model: is a directory", "name one data file"],
        ),
        (
            "data.columns.answer=reply",
            &[
                "saq.csv:1: no column 'reply'",
                "question, answer",
                "data.columns.answer=COLUMN",
            ],
        ),
        (
            "data.path=empty.csv",
            &["empty.csv: the file is empty", "add at least one example"],
        ),
        (
            "data.path=header.csv",
            &["header.csv", "no rows", "add at least one example"],
        ),
        (
            "data.path=ragged.csv",
            &["ragged.csv:3: 3 fields", "quote a field"],
        ),
        (
            "task=mcq data.path=saq.csv",
            &["saq.csv:1: no column 'options'"],
        ),
    ] {
        refused(&sandbox, &format!("{SAQ} {change}"), parts);
    }
    for file in ["alien.jsonl", "label.jsonl"] {
        let outside = format!("{file}: token id {VOCAB} is outside the model's vocabulary");
        refused(
            &sandbox,
            &format!("{TOKENS} data.path={file}"),
            &[&outside, "of 64", "model.path=DIR"],
        );
    }
}

#[test]
fn the_length_that_is_proposed_fits() {
    let sandbox = Sandbox::new();
    let short = format!("{TOKENS} training.max_seq_length=2");
    let text = sandbox.run(&short).stderr;
    refused(
        &sandbox,
        &short,
        &["tokens.jsonl:1: training.max_seq_length=2 leaves no supervised"],
    );
    let at = text.find("set training.max_seq_length=").unwrap();
    let proposed = text[at + 4..].trim();
    sandbox.ok(&format!("{TOKENS} {proposed}"));
}

#[test]
fn overrides_and_options() {
    let sandbox = Sandbox::new();
    for (change, parts) in [
        (
            "training.lerning_rate=1",
            &[
                "command line: training.lerning_rate=1",
                "did you mean 'training.learning_rate'",
            ][..],
        ),
        (
            "model=tinny",
            &[
                "the group 'model' has no option 'tinny'",
                "did you mean 'tiny'",
                "gpt2, llama3_8b",
            ],
        ),
        (
            "training.scheduler=cosin",
            &["has no option `cosin`", "cosine, linear, constant"],
        ),
        (
            "training.batch_size=two",
            &["`training.batch_size` must be a whole number", "two"],
        ),
        (
            "training.batch_size=1000000000000",
            &["`training.batch_size` must be", "at most 16384"],
        ),
        (
            "training.epochs=1e18",
            &["`training.epochs` must be", "at most 10000"],
        ),
        (
            "adapter=gone",
            &[
                "command line: adapter=gone",
                "not by `run train`",
                "lora.init_from=gone",
            ],
        ),
        (
            "output=gone",
            &["command line: output=gone", "hydra.run.dir=DIR"],
        ),
        (
            "method=full quantization=none lora.init_from=gone",
            &["command line: lora.init_from=gone", "lora.init_from=null"],
        ),
        (
            "method=full",
            &["command line: method=full", "quantization=none"],
        ),
        (
            "lora.target_modules=[c_attn]",
            &["`c_attn` matches no module", "q_proj", "all-linear"],
        ),
        (
            "task.name=../../up",
            &["task.name", "cannot name a directory"],
        ),
        (
            "training.resume=gone",
            &["training.resume=gone: no such run", "training.resume=auto"],
        ),
        (
            "training.resume=model",
            &["training.resume=model: holds no run", "`run train`"],
        ),
    ] {
        refused(&sandbox, &format!("{TOKENS} {change}"), parts);
    }
    #[cfg(not(feature = "cuda"))]
    refused(
        &sandbox,
        &format!("{TOKENS} device=cuda"),
        &[
            "device=cuda: this program was built without CUDA",
            "--features cuda",
            "device=cpu",
        ],
    );
    fails(&sandbox, "train --no-such-flag", 2, &["--no-such-flag"]);
    fails(&sandbox, "trian", 2, &["trian", "train"]);
}

#[test]
fn model_directories() {
    let sandbox = Sandbox::new();
    sandbox.copy("model", "bare");
    fs::remove_file(sandbox.path("bare/model.safetensors")).unwrap();
    sandbox.copy("model", "cut");
    let whole = sandbox.bytes("cut/model.safetensors");
    fs::write(
        sandbox.path("cut/model.safetensors"),
        &whole[..whole.len() - 7],
    )
    .unwrap();
    sandbox.copy("model", "mixed");
    sandbox.write("mixed/config.json", &config(VOCAB, 64, 2));
    sandbox.copy("model", "mute");
    fs::remove_file(sandbox.path("mute/tokenizer.json")).unwrap();
    for (model, parts) in [
        (
            "gone",
            &["gone/config.json", "A Hugging Face model directory holds"][..],
        ),
        (
            "bare",
            &[
                "bare: no model weights found; looked for model.safetensors",
                "model.path=DIR",
            ],
        ),
        (
            "cut",
            &[
                "cut/model.safetensors: not a whole safetensors file",
                "partly downloaded",
            ],
        ),
        (
            "mixed",
            &["mixed/model.safetensors: tensor `model.embed_tokens.weight` has shape"],
        ),
        ("mute", &["add tokenizer.json", "data.format=tokens"]),
    ] {
        refused(&sandbox, &format!("{SAQ} model.path={model}"), parts);
    }
}

#[test]
fn adapters_that_do_not_fit() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!("{TOKENS} hydra.run.dir=run"));
    for (name, hidden, layers) in [("wide", 64, 2), ("shallow", 32, 1)] {
        sandbox.copy("model", name);
        sandbox.write(
            &format!("{name}/config.json"),
            &config(VOCAB, hidden, layers),
        );
        sandbox.write_weights(name);
    }
    sandbox.copy("run/adapter", "cut");
    let whole = sandbox.bytes("cut/adapter_model.safetensors");
    fs::write(
        sandbox.path("cut/adapter_model.safetensors"),
        &whole[..whole.len() / 2],
    )
    .unwrap();
    let shape = [
        "run/adapter/adapter_model.safetensors: the adapter does not fit the base model",
        "`model.layers.0.self_attn.q_proj` has lora_A of shape [16, 32]",
        "the base asks for [16, 64]",
    ];
    let ask = "task=saq data.test_path=saq_test.csv";
    for args in [
        format!("infer {ask} model.path=wide adapter=run/adapter"),
        format!("eval {ask} model.path=wide adapter=run/adapter"),
        format!("{TOKENS} model.path=wide lora.init_from=run/adapter"),
    ] {
        refused(&sandbox, &args, &shape);
    }
    for (args, parts) in [
        (
            format!("eval {ask} model.path=shallow adapter=run/adapter"),
            &[
                "does not fit",
                "the base has no module `model.layers.1.",
                "in 1 layers",
            ][..],
        ),
        (
            format!("infer {ask} model.path=model adapter=cut"),
            &["cut/adapter_model.safetensors: not a whole safetensors file"],
        ),
        (
            format!("infer {ask} model.path=model adapter=model"),
            &[
                "model/adapter_config.json: cannot read the adapter",
                "A PEFT adapter directory",
            ],
        ),
        (
            format!("infer {ask} model.path=model"),
            &[
                "outputs/adapters/adapter_saq does not exist",
                "run train task=saq",
                "adapter=DIR",
            ],
        ),
    ] {
        refused(&sandbox, &args, parts);
    }
}

/// A model whose tokenizer knows words that it has no embedding for.
#[test]
fn questions_with_tokens_outside_the_vocabulary() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!("{TOKENS} hydra.run.dir=run"));
    sandbox.copy("model", "small");
    sandbox.write("small/config.json", &config(24, 32, 2));
    sandbox.write_weights("small");
    // Ids up to 23 only: special tokens, words, the first things.
    sandbox.write(
        "low.csv",
        "question,answer\nWhat is the sky ?,A\nWhat is the sea ?,B\n",
    );
    let train = SAQ.replace(
        "model.path=model data.path=saq.csv",
        "model.path=small data.path=low.csv",
    );
    let parts = [
        "saq_test.csv:",
        "is outside the model's vocabulary of 24",
        "tokenizer.json belongs to another model",
    ];
    refused(&sandbox, &train, &parts);
    for command in ["eval", "infer"] {
        let args = format!(
            "{command} task=saq data.test_path=saq_test.csv model.path=small adapter=run/adapter"
        );
        refused(&sandbox, &args, &parts);
    }
}

#[test]
fn an_output_place_that_is_taken() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "mine");
    for (args, parts) in [
        (
            format!("{SAQ} hydra.run.dir=file"),
            &[
                "file: cannot create the directory",
                "is a file",
                "hydra.run.dir=DIR",
            ][..],
        ),
        (
            format!("{SAQ} hydra.run.dir=file/deep/run"),
            &["file is a file, not a directory", "hydra.run.dir=DIR"],
        ),
    ] {
        refused(&sandbox, &args, parts);
    }
    sandbox.ok(&format!("{TOKENS} hydra.run.dir=run"));
    let infer = "infer task=saq model.path=model adapter=run/adapter data.test_path=saq_test.csv";
    refused(
        &sandbox,
        &format!("{infer} output=model"),
        &["output=model: is a directory; name a file"],
    );
    refused(
        &sandbox,
        &format!("{infer} output=file/answers.csv"),
        &["file is a file, not a directory"],
    );
    refused(
        &sandbox,
        &format!("{TOKENS} hydra.run.dir=run"),
        &["run: holds a finished run", "choose another hydra.run.dir"],
    );
    // Where nothing can be published, an hour of training would be in vain.
    fs::remove_dir_all(sandbox.path("outputs")).unwrap();
    sandbox.write("outputs", "");
    refused(
        &sandbox,
        &format!("{TOKENS} hydra.run.dir=other"),
        &["outputs/adapters/adapter_tokens: the adapter could not be published there"],
    );
    refused(&sandbox, TOKENS, &["outputs is a file, not a directory"]);
}

/// A small file system in memory over a directory; unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with a printed reason, where mounting is not permitted.
    fn new(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        match mount(&path, options) {
            Ok(()) => Some(Self(path)),
            Err(reason) => {
                println!("skipped: cannot mount a tmpfs here: {reason}");
                None
            }
        }
    }

    fn change(&self, options: &str) {
        mount(&self.0, &format!("remount,{options}")).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn mount(path: &Path, options: &str) -> Result<(), String> {
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(path);
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn an_output_place_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    let Some(_outputs) = Mount::new(sandbox.path("outputs"), "ro") else {
        return;
    };
    let read_only = ["outputs/", "read-only", "hydra.run.dir=DIR"];
    refused(
        &sandbox,
        &format!("{SAQ} method=full quantization=none"),
        &read_only,
    );
    refused(&sandbox, SAQ, &read_only);
    let elsewhere = format!("{SAQ} hydra.run.dir=run");
    let place = ["adapter_saq: the adapter could not be published there"];
    refused(&sandbox, &elsewhere, &place);
    // A run that publishes nothing needs no outputs/.
    sandbox.ok(&format!("{elsewhere} method=full quantization=none"));
}

#[test]
fn a_disk_that_is_full_from_the_start() {
    let sandbox = Sandbox::new();
    let Some(_disk) = Mount::new(sandbox.path("disk"), "nr_blocks=3") else {
        return;
    };
    let full = ["disk/run/", "no space left", "free some space"];
    refused(&sandbox, &format!("{SAQ} hydra.run.dir=disk/run"), &full);
    assert!(!sandbox.path("disk/run").exists());
}

#[test]
fn a_disk_that_fills_up_while_training() {
    let sandbox = Sandbox::new();
    let Some(disk) = Mount::new(sandbox.path("disk"), "size=96k") else {
        return;
    };
    let train = format!("{SAQ} training.save_steps=1 training.save_total_limit=1");
    let on_disk = format!("{train} hydra.run.dir=disk/run training.resume=auto");
    fails(
        &sandbox,
        &on_disk,
        1,
        &[
            "disk/run/checkpoints/step-000001",
            "no space left",
            "needed",
            "free some space",
        ],
    );
    let summary = sandbox.json("disk/run/summary.json");
    assert_eq!(summary["status"], "failed");
    assert!(summary["error"].as_str().unwrap().contains("no space left"));
    assert!(sandbox.read("disk/run/run.log").contains("error: "));
    let files = sandbox.files("disk/run").join(" ");
    assert!(
        !files.contains("tmp") && !files.contains("step-"),
        "{files}"
    );

    // With room again, the same command line goes on and ends as if nothing had been.
    disk.change("size=8m");
    sandbox.ok(&on_disk);
    sandbox.ok(&format!("{train} hydra.run.dir=whole"));
    let adapter = |run: &str| sandbox.bytes(&format!("{run}/adapter/adapter_model.safetensors"));
    assert!(adapter("disk/run") == adapter("whole"));
}

#[test]
fn a_cache_larger_than_memory_is_refused_before_weights_are_read() {
    let sandbox = Sandbox::new();
    sandbox.copy("model", "wide");
    // 66 MB a token or more: no machine has as much as 100,000 of them take.
    sandbox.write("wide/config.json", &config(VOCAB, 1 << 14, 1000));
    fs::remove_file(sandbox.path("wide/model.safetensors")).unwrap();
    let infer = "infer task=saq model.path=wide data.test_path=saq_test.csv adapter=none";
    refused(
        &sandbox,
        &format!("{infer} inference.max_new_tokens=100000"),
        &[
            "the cache for up to 100001 tokens in each of 1 sequences takes ",
            "more than all memory",
            "lower inference.max_new_tokens",
        ],
    );
    sandbox.write("abstracts.txt", "The sky is blue. The grass is green.\n");
    fails(
        &sandbox,
        "synth synth.abstracts=abstracts.txt output=qa.jsonl synth.path=wide \
         synth.max_tokens=100000",
        1,
        &[
            "the cache for up to 100001 tokens",
            "lower synth.max_tokens",
        ],
    );
}

#[test]
fn a_run_that_diverges_keeps_and_publishes_nothing_ruined() {
    let sandbox = Sandbox::new();
    let train = format!(
        "{SAQ} training.logging_steps=1 training.batch_size=2 \
                         training.gradient_accumulation_steps=1 training.warmup_steps=0"
    );
    sandbox.ok(&format!("{train} hydra.run.dir=good"));
    let published = "outputs/adapters/adapter_saq/adapter_model.safetensors";
    let good = sandbox.bytes(published);
    // Ruined by the last update, which no loss has seen; with and without a validation.
    for (run, more) in [("a", ""), ("b", "training.val_ratio=0")] {
        let args = format!(
            "{train} training.max_steps=1 training.learning_rate=1e39 hydra.run.dir={run} {more}"
        );
        fails(
            &sandbox,
            &args,
            1,
            &["step 1: ", "training diverged", "training.learning_rate"],
        );
        assert_eq!(
            sandbox.json(&format!("{run}/summary.json"))["status"],
            "failed"
        );
        assert!(!sandbox.path(&format!("{run}/adapter")).exists());
        assert!(
            !sandbox
                .files(run)
                .iter()
                .any(|file| file.contains("checkpoints/step"))
        );
    }
    assert!(sandbox.bytes(published) == good);
}

#[test]
fn answers_do_not_replace_the_questions() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!("{SAQ} hydra.run.dir=run"));
    let before = sandbox.bytes("saq_test.csv");
    for command in ["infer", "eval", "compare"] {
        for output in ["saq_test.csv", "./saq_test.csv"] {
            let args = format!(
                "{command} task=saq model.path=model data.test_path=saq_test.csv output={output} \
                 inference.max_new_tokens=2 hydra.run.dir=again"
            );
            fails(
                &sandbox,
                &args,
                1,
                &["that file is data.test_path, which would be overwritten"],
            );
            assert!(!sandbox.path("again").exists());
        }
    }
    assert!(sandbox.bytes("saq_test.csv") == before);
}
