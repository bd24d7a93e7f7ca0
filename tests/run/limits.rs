//! Limits of the shell that a run meets: each ends it with a sentence and exit code 1.

use std::process::{Command, Output};

use crate::common::sandbox::Sandbox;

/// Trains under a limit, which the shell sets.
fn train(sandbox: &Sandbox, limit: &str, more: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_run"))
        .args(["train", "task=saq", "model.path=model", "data.path=saq.csv"])
        .args(["data.test_path=null", "training.max_steps=1", "device=cpu"])
        .args(["hydra.run.dir=run"])
        .args(more)
        .env("RUST_BACKTRACE", "1")
        .current_dir(sandbox.path(""))
        .output()
        .unwrap()
}

#[test]
fn memory_that_cannot_be_had_is_said_to_be_short() {
    let sandbox = Sandbox::new();
    let large = ["lora.r=65536", "lora.target_modules=all-linear"];
    let run = train(&sandbox, "ulimit -v 700000", &large);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("run plan says") && !stderr.contains("stack backtrace"),
        "{stderr}"
    );
}

#[test]
fn a_file_that_may_not_grow_is_named() {
    let sandbox = Sandbox::new();
    let run = train(&sandbox, "ulimit -f 1", &[]);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ulimit -f"), "{stderr}");
    let left = sandbox.tree("run");
    assert!(
        !left.keys().any(|name| name.contains(".tmp-")),
        "{:?}",
        left.keys()
    );
}

#[test]
fn more_threads_than_are_of_use_are_refused() {
    let sandbox = Sandbox::new();
    let run = train(&sandbox, "export RAYON_NUM_THREADS=1000000", &[]);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("RAYON_NUM_THREADS=1000000: "), "{stderr}");
}
