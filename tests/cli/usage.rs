//! The binary from outside: exit codes, help, printing. Nothing here trains.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_run"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap_or_else(|e| panic!("{e}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_and_version_succeed() {
    for args in [&["--help"][..], &["-h"], &["help"], &[]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(stdout(&output).contains("run train task=saq"), "{args:?}");
        assert!(output.stderr.is_empty());
    }
    for args in [&["--version"][..], &["train", "--version"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn help_of_a_job_lists_groups_and_keys() {
    let output = run(&["train", "lora.r=8", "--help"]);
    assert_eq!(output.stdout, run(&["help", "train", "lora.r=8"]).stdout);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0));
    for part in [
        "Usage: run train",
        "--cfg <WHAT>",
        "zephyr_7b",
        "experiment",
        "training.learning_rate",
        "[1e-4]",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for args in [
        &["fly"][..],
        &["train", "--no-such-flag"],
        &["train", "--cfg", "nothing"],
        &["train", "--resolve"],
        &["train", "-p", "lora"],
        &["train", "--config-dir"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn config_errors_exit_with_1() {
    for (args, part) in [
        (
            &["train", "lora.r=x"][..],
            "command line: lora.r=x: `lora.r` must be",
        ),
        (&["train", "--cfg", "job", "lora.r=x"], "`lora.r` must be"),
        (&["infer", "model=nope"], "zephyr_7b"),
        (&["eval", "mode=train"], "meant for `run train`"),
        (&["train", "lora.r"], "lora.r"),
        (&["train", "--config-name", "nope"], "nope"),
        (
            &["train", "--cfg", "job", "-p", "nope"],
            "package 'nope' not found in config",
        ),
        (&["compose", "--config-dir", "no/such/dir"], "no/such/dir"),
    ] {
        let output = run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(
            text.starts_with("error: ") && text.contains(part),
            "{args:?}: {text}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn cfg_prints_without_running() {
    let text = stdout(&run(&[
        "train",
        "--cfg",
        "job",
        "lora.r=8",
        "lora.alpha=${lora.r}",
    ]));
    assert!(
        text.contains("r: 8") && text.contains("alpha: ${lora.r}") && !text.contains("hydra:"),
        "{text}"
    );
    let text = stdout(&run(&[
        "train",
        "-c",
        "job",
        "--resolve",
        "lora.r=8",
        "lora.alpha=${lora.r}",
    ]));
    assert!(text.contains("alpha: 8"), "{text}");
    let text = stdout(&run(&["train", "--cfg=hydra"]));
    assert!(text.starts_with("hydra:\n"), "{text}");
    let text = stdout(&run(&["train", "--cfg=all"]));
    assert!(
        text.contains("hydra:\n") && text.contains("\nlora:\n"),
        "{text}"
    );
    let text = stdout(&run(&["infer", "--cfg", "job", "-p", "lora"]));
    assert!(text.starts_with("# @package lora\nr: 16\n"), "{text}");
    assert_eq!(
        stdout(&run(&["eval", "--cfg", "job", "-p", "lora.r"])),
        "16\n"
    );
}

#[test]
fn compose_knows_no_schema() {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    std::fs::create_dir(dir.path().join("db")).unwrap_or_else(|e| panic!("{e}"));
    for (name, text) in [
        (
            "app.yaml",
            "defaults:\n  - db: a\n  - _self_\nx: 1\nw: ${db.port}\n",
        ),
        ("db/a.yaml", "port: 1\n"),
        ("db/b.yaml", "port: 2\n"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap_or_else(|e| panic!("{e}"));
    }
    let at = dir.path().to_string_lossy().into_owned();
    let base = ["compose", "--config-dir", &at, "--config-name", "app"];
    let text = stdout(&run(&[&base[..], &["db=b", "+z=[1,2]"]].concat()));
    assert_eq!(text, "db:\n  port: 2\nx: 1\nw: ${db.port}\nz:\n- 1\n- 2\n");
    let text = stdout(&run(&[&base[..], &["--resolve", "x=9"]].concat()));
    assert_eq!(text, "db:\n  port: 1\nx: 9\nw: 1\n");
}

#[test]
fn of_a_repeated_flag_the_last_counts() {
    let output = run(&[
        "compose",
        "-cd=nowhere",
        "-cn=nothing",
        "-cn=config",
        "-p=seed",
        "-cd=tests/errors/tree",
        "-p",
        "d.b",
    ]);
    assert_eq!(
        stdout(&output),
        "# @package d.b\nc: 2\n",
        "{}",
        stderr(&output)
    );
}

#[test]
fn without_a_configs_folder_the_copy_inside_is_used() {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let args = ["train", "--cfg", "job", "experiment=low_memory", "task=saq"];
    let mut away = command(&args);
    let away = away
        .current_dir(dir.path())
        .output()
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(away.status.code(), Some(0), "{}", stderr(&away));
    assert_eq!(stdout(&away), stdout(&run(&args)));
}

#[test]
fn a_closed_pipe_is_no_crash() {
    for args in [
        &["train", "--help"][..],
        &["train", "--cfg", "all"],
        &["--help"],
    ] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{e}"));
        drop(child.stdout.take());
        let mut text = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr
                .read_to_string(&mut text)
                .unwrap_or_else(|e| panic!("{e}"));
        }
        let status = child.wait().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(status.code(), Some(0), "{args:?}: {text}");
        assert_eq!(text, "");
    }
}

#[test]
fn the_doctor_ends_well_with_and_without_a_gpu() {
    let output = run(&["doctor"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for part in ["CPU", "memory", "disk", "driver", "NVRTC", "CUDA headers"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("device=auto uses "), "{last}");
    let json = stdout(&run(&["doctor", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}"));
    assert!(report["cpu"]["cores"].as_u64() >= Some(1));
    assert!(report["disk"]["available_bytes"].is_u64());
    assert_eq!(report["cuda"]["built_in"], cfg!(feature = "cuda"));
}

#[test]
fn the_doctor_shows_the_folder_in_which_models_are_looked_for() {
    let home = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    std::fs::create_dir_all(home.path().join("hf/hub/models--one--two"))
        .unwrap_or_else(|e| panic!("{e}"));
    // As the hub's own tools read them: blank is unset, ~ is the home folder.
    let output = command(&["doctor", "--json"])
        .env("HOME", home.path())
        .env("HF_HOME", "~/hf")
        .env("HF_HUB_CACHE", " ")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .output()
        .unwrap_or_else(|e| panic!("{e}"));
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}"));
    let folder = home.path().join("hf/hub").display().to_string();
    assert_eq!(report["hub_cache"]["path"], folder);
    assert_eq!(report["hub_cache"]["holds"], 1);
}

#[test]
fn a_gpu_that_cannot_be_had_is_refused_with_a_way_out() {
    // No machine has so many.
    for device in ["cuda:99", "cuda:512"] {
        let output = run(&["train", &format!("device={device}")]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.starts_with(&format!("error: command line: device={device}: ")),
            "{text}"
        );
        assert!(
            text.contains("run doctor") && text.contains("device=cpu"),
            "{text}"
        );
    }
}

#[test]
fn a_swept_value_is_answered_by_what_the_command_can_do() {
    let text = stderr(&run(&["plan", "lora.r=4,8"]));
    assert!(text.contains("run plan takes one config"), "{text}");
    assert!(!text.contains("add --multirun"), "{text}");
    let text = stderr(&run(&["train", "lora.r=4,8"]));
    assert!(text.contains("add --multirun (-m)"), "{text}");
    let output = run(&["plan", "lora.r=4,8", "-m"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn keys_of_hydra_without_effect_are_refused() {
    for (over, key) in [
        ("hydra.output_subdir=null", "hydra.output_subdir"),
        ("hydra.output_subdir=meta", "hydra.output_subdir"),
        ("hydra.job.chdir=true", "hydra.job.chdir"),
        ("+hydra.job.env_set.FOO=1", "hydra.job.env_set"),
        ("hydra.job.env_copy=[PATH]", "hydra.job.env_copy"),
        ("+hydra.callbacks.x._target_=1", "hydra.callbacks"),
        ("hydra.launcher._target_=a.B", "hydra.launcher._target_"),
        ("hydra.verbose=true", "hydra.verbose"),
        ("hydra.mode=MULTIRUN", "hydra.mode"),
    ] {
        let output = run(&["plan", over]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{over}: {text}");
        let told = text.contains(&format!("command line: {over}: ")) && text.contains(key);
        assert!(
            told && text.matches("command line").count() == 1,
            "{over}: {text}"
        );
    }
    // What is the default anyway may be said.
    let output = run(&[
        "plan",
        "hydra.output_subdir=.hydra",
        "hydra.job.chdir=false",
        "hydra.job.env_set={}",
        "hydra.callbacks={}",
        "hydra.verbose=false",
        "lora.r=x",
    ]);
    assert_eq!(
        stderr(&output).matches("command line").count(),
        1,
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_launcher_or_sweeper_of_ones_own_is_printed_but_not_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let group = dir.path().join("hydra/launcher");
    std::fs::create_dir_all(&group).expect("made");
    let named = "_target_: my.Launcher\npartition: gpu\n";
    std::fs::write(group.join("named.yaml"), named).expect("written");
    std::fs::write(group.join("bare.yaml"), "partition: gpu\n").expect("written");
    let folder = format!("-cd={}", dir.path().display());
    for (option, key) in [
        ("hydra/launcher=named", "`hydra.launcher._target_`"),
        ("hydra/launcher=bare", "`hydra.launcher`"),
    ] {
        let output = run(&["plan", &folder, option]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let told = format!("{key} has no effect on a run here");
        assert!(text.contains(&told), "{text}");
    }
    let sweepers = dir.path().join("hydra/sweeper");
    std::fs::create_dir_all(&sweepers).expect("made");
    let search = "_target_: my.Sweeper\nparams: {lora.r: [1, 2], seed: interval(0,1)}\n";
    std::fs::write(sweepers.join("search.yaml"), search).expect("written");
    let output = run(&["train", "-m", &folder, "hydra/sweeper=search", "seed=1,2"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("`hydra.sweeper._target_` has no effect"),
        "{text}"
    );
    let print = ["--cfg", "hydra", "-p", "hydra.launcher"];
    let output = run(&[&["plan", &folder, "hydra/launcher=named"], &print[..]].concat());
    let expected = format!("# @package hydra.launcher\n{named}");
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
}
