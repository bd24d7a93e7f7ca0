//! `run quantize` and `run merge` from outside.

use crate::common::sandbox::Sandbox;
use kiln::model::checkpoint::Checkpoint;
use kiln::model::hf_config::ArchConfig;

const TRAIN: &str = "train task=saq data.path=saq.csv training.max_steps=4 \
                     training.learning_rate=1e-2 data.test_path=null";

#[test]
fn training_from_a_quantised_checkpoint_gives_the_same_adapter() {
    let sandbox = Sandbox::new();
    let text = sandbox.ok("quantize model.path=model output=deep/nf4");
    assert!(
        text.contains("double quantisation") && text.contains("size "),
        "{text}"
    );
    assert_eq!(
        sandbox.files("deep"),
        [
            "nf4/chat_template.jinja",
            "nf4/config.json",
            "nf4/model.safetensors",
            "nf4/tokenizer.json",
            "nf4/tokenizer_config.json"
        ]
    );
    for file in ["chat_template.jinja", "tokenizer.json"] {
        assert!(
            sandbox.bytes(&format!("deep/nf4/{file}")) == sandbox.bytes(&format!("model/{file}"))
        );
    }
    let config = sandbox.json("deep/nf4/config.json");
    assert_eq!(config["quantization_config"]["bnb_4bit_quant_type"], "nf4");
    assert_eq!(
        config["quantization_config"]["bnb_4bit_compute_dtype"],
        "float32"
    );
    sandbox.ok(&format!("{TRAIN} model.path=model hydra.run.dir=a"));
    let text = sandbox.ok(&format!(
        "{TRAIN} model.path=deep/nf4 hydra.run.dir=b quantization.block_size=128"
    ));
    assert!(
        text.contains(
            "the base is NF4 already (blocks of 64, double quantisation) and used as it is"
        ),
        "{text}"
    );
    assert!(
        text.contains("the config's (blocks of 128, double quantisation) does not apply"),
        "{text}"
    );
    assert_eq!(sandbox.read("b/run.log").matches("NF4 already").count(), 1);
    let weights = "adapter/adapter_model.safetensors";
    assert!(sandbox.bytes(&format!("a/{weights}")) == sandbox.bytes(&format!("b/{weights}")));
    for (args, part) in [
        ("quantization=none", "leave quantization=nf4"),
        (
            "quantization=none method=full",
            "method=full trains every weight",
        ),
    ] {
        let finished = sandbox.run(&format!(
            "{TRAIN} model.path=deep/nf4 hydra.run.dir=c {args}"
        ));
        assert_eq!(finished.code, Some(1));
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
        assert!(sandbox.files("c").is_empty());
    }
    let finished = sandbox.run("quantize model.path=deep/nf4 output=again");
    assert!(
        finished.stderr.contains("quantised to NF4 already"),
        "{}",
        finished.stderr
    );
    let plan = sandbox.ok(&format!(
        "{} model.path=deep/nf4",
        TRAIN.replacen("train", "plan", 1)
    ));
    assert!(plan.contains("NF4"), "{plan}");
}

#[test]
fn what_a_killed_quantize_left_goes_with_the_next() {
    let sandbox = Sandbox::new();
    let left = || {
        let entries = std::fs::read_dir(sandbox.path("")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".nf4.")).count()
    };
    let quantize = "quantize model.path=model output=nf4";
    for _ in 0..50 {
        let mut child = sandbox.spawn(quantize);
        while left() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if left() > 0 {
            break;
        }
        // It was whole before the kill.
        std::fs::remove_dir_all(sandbox.path("nf4")).unwrap();
    }
    assert_eq!(left(), 1, "no quantize could be killed in time");
    sandbox.ok(quantize);
    assert_eq!(left(), 0);
}

#[test]
fn a_merged_model_answers_as_base_and_adapter_do() {
    let sandbox = Sandbox::new();
    sandbox.ok(&format!(
        "{TRAIN} model.path=model hydra.run.dir=outputs/run"
    ));
    sandbox.ok("quantize model.path=model output=nf4");
    // The task's published adapter is the default; onto NF4 either way.
    for (base, output) in [("model", "one"), ("nf4", "two")] {
        let text = sandbox.ok(&format!("merge task=saq model.path={base} output={output}"));
        let line = text
            .lines()
            .find(|line| line.starts_with("logits"))
            .unwrap();
        let largest = line.split("largest difference ").nth(1).unwrap();
        let largest: f32 = largest.split(',').next().unwrap().parse().unwrap();
        assert!(largest < 1e-3, "{text}");
        let counts = line.split("token at ").nth(1).unwrap();
        let counts: Vec<&str> = counts.split(' ').collect();
        assert_eq!(counts[0], counts[2], "{text}");
    }
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let [one, two] = ["one", "two"].map(|dir| sandbox.bytes(&format!("{dir}/{file}")));
        assert!(one == two, "{file}");
    }
    let dense = sandbox.ok("merge adapter=outputs/run/adapter model.path=model output=dense quantization=none export.dtype=bf16");
    assert!(dense.contains("onto its dense weights"), "{dense}");
    let dir = sandbox.path("dense");
    let arch = ArchConfig::from_dir(&dir).unwrap();
    assert_eq!(arch.dtype.as_deref(), Some("bfloat16"));
    Checkpoint::open_for(&dir, &arch).unwrap();
    let text = sandbox
        .ok("merge adapter=outputs/run/adapter model.path=model output=quiet export.check=false");
    assert!(!text.contains("logits"), "{text}");
    // And it loads for training.
    sandbox.ok(&format!(
        "{TRAIN} model.path=one hydra.run.dir=again quantization=none"
    ));
}

#[test]
fn an_adapter_is_merged_onto_what_it_was_trained_on() {
    let sandbox = Sandbox::new();
    let train = format!("{TRAIN} model.path=model");
    sandbox.ok(&format!(
        "{train} hydra.run.dir=outputs/nf4 quantization.block_size=128"
    ));
    sandbox.ok(&format!(
        "{train} hydra.run.dir=outputs/dense quantization=none"
    ));
    sandbox.copy("outputs/dense/adapter", "copied");
    let merge = |args: &str| {
        let text = sandbox.ok(&format!("merge model.path=model export.check=false {args}"));
        let line = |name: &str| text.lines().find(|line| line.starts_with(name));
        let merging = line("merging").unwrap().to_string();
        (merging, line("base").map(str::to_string))
    };
    for (args, onto, why) in [
        (
            "output=a adapter=outputs/nf4/adapter",
            "as NF4 (blocks of 128)",
            "outputs/nf4/config.resolved.yaml",
        ),
        (
            "output=b adapter=outputs/dense/adapter",
            "onto its dense weights",
            "outputs/dense/config.resolved.yaml",
        ),
        // The published one is that of the last run.
        (
            "output=c task=saq",
            "onto its dense weights",
            "outputs/dense/config.resolved.yaml",
        ),
        (
            "output=d adapter=copied",
            "onto its dense weights",
            "does not say what it was trained on",
        ),
    ] {
        let (merging, base) = merge(args);
        assert!(merging.contains(onto), "{args}: {merging}");
        let base = base.unwrap();
        assert!(base.contains(why), "{args}: {base}");
    }
    // What is asked for holds, in each way of asking.
    for (args, onto) in [
        ("output=e quantization=none", "onto its dense weights"),
        ("output=f quantization=nf4", "as NF4 (blocks of 64)"),
        ("output=g quantization.method=nf4", "as NF4 (blocks of 64)"),
        (
            "output=h quantization.block_size=128",
            "as NF4 (blocks of 128)",
        ),
    ] {
        let (merging, base) = merge(&format!("{args} adapter=outputs/dense/adapter"));
        assert!(merging.contains(onto), "{args}: {merging}");
        assert_eq!(base, None, "{args}");
    }
    let weights = |dir: &str| sandbox.bytes(&format!("{dir}/model.safetensors"));
    for (one, other, same) in [
        ("b", "c", true),
        ("b", "d", true),
        ("b", "e", true),
        ("b", "f", false),
        ("f", "g", true),
        ("f", "h", false),
    ] {
        assert_eq!(weights(one) == weights(other), same, "{one} {other}");
    }
}

#[test]
fn what_cannot_be_done_leaves_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("full/mine", "x");
    sandbox.ok(&format!("{TRAIN} model.path=model hydra.run.dir=run"));
    let before = sandbox.files(".");
    for (args, part) in [
        ("quantize model.path=model", "output is not set"),
        ("quantize model.path=absent output=x", "absent/config.json"),
        (
            "quantize model.path=model output=full",
            "full: the directory is not empty",
        ),
        (
            "quantize model.path=model output=full/mine",
            "there is a file of that name",
        ),
        (
            "quantize model.path=model output=x quantization=none",
            "nothing to quantise to",
        ),
        (
            "quantize model.path=model output=x export.format=gguf",
            "is for `run merge`",
        ),
        (
            "quantize model.path=model output=x export.dtype=f16",
            "is for `run merge`",
        ),
        (
            "quantize model.path=model output=x export.max_shard_gb=0",
            "export.max_shard_gb",
        ),
        (
            "merge model.path=model adapter=run/adapter output=x export.compute_dtype=f16",
            "is for `run quantize`",
        ),
        (
            "merge model.path=model adapter=run/adapter output=x.gguf export.format=gguf export.check=true",
            "leave export.check out",
        ),
        (
            "quantize model.path=model adapter=run/adapter output=x",
            "merge it first",
        ),
        (
            "merge model.path=model adapter=run/adapter",
            "output is not set",
        ),
        (
            "merge model.path=model output=x task=mcq",
            "give adapter=DIR",
        ),
        (
            "merge model.path=model adapter=model output=x",
            "adapter_config.json",
        ),
        (
            "merge model.path=model adapter=run/adapter output=full",
            "full: the directory is not empty",
        ),
        (
            "merge model.path=model adapter=run/adapter output=full export.format=gguf",
            "name a file",
        ),
        (
            "merge model.path=model adapter=run/adapter output=full/mine export.format=gguf",
            "such a file already",
        ),
        (
            "merge model.path=model adapter=run/adapter output=x.gguf export.format=gguf",
            "is WordLevel, not BPE",
        ),
        (
            "merge model.path=model adapter=run/adapter output=x export.dtype=q8_0",
            "a type of GGUF files",
        ),
        (
            "merge model.path=model adapter=run/adapter output=x export.dtype=bf16 export.format=gguf",
            "cannot be written as GGUF",
        ),
    ] {
        let finished = sandbox.run(args);
        assert_eq!(finished.code, Some(1), "{args}: {finished:?}");
        assert!(
            finished.stderr.contains(part),
            "{args}: {}",
            finished.stderr
        );
        assert_eq!(
            finished
                .stdout
                .lines()
                .filter(|l| !l.starts_with("merging") && !l.starts_with("base "))
                .count(),
            0,
            "{finished:?}"
        );
        assert_eq!(sandbox.files("."), before, "{args}");
    }
    // Damage that is found in the middle of the work.
    let mut bytes = sandbox.bytes("model/model.safetensors");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(sandbox.path("model/model.safetensors"), bytes).unwrap();
    for args in [
        "quantize model.path=model output=x",
        "merge model.path=model adapter=run/adapter output=x",
    ] {
        let finished = sandbox.run(args);
        assert!(finished.stderr.contains("holds NaN"), "{}", finished.stderr);
        assert_eq!(sandbox.files("."), before, "{args}");
    }
}

#[test]
fn both_commands_print_their_config_and_help() {
    let sandbox = Sandbox::new();
    for command in ["quantize", "merge"] {
        let text = sandbox.ok(&format!("{command} --help"));
        assert!(text.contains("export.max_shard_gb"), "{text}");
        let text = sandbox.ok(&format!(
            "{command} --cfg job export.check=false mode=train"
        ));
        assert!(text.contains("check: false"), "{text}");
    }
    let text = sandbox.ok("--help");
    assert!(
        text.contains("quantize") && text.contains("merge"),
        "{text}"
    );
}
