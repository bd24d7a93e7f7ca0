//! A working directory in which tests write run directories by hand and start
//! the built binary. It needs nothing of the model.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a process left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A working directory with an `outputs/` in it. It has no `configs/`, so the
/// copy inside the binary is used.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().expect("a directory");
        Place { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn run(&self, args: &[&str]) -> Finished {
        let output = Command::new(env!("CARGO_BIN_EXE_run"))
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
        done.stdout
    }

    pub fn refused(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(1), "{args:?}: {done:?}");
        assert!(done.stdout.is_empty(), "{args:?}: {done:?}");
        done.stderr
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).expect("JSON")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).expect("read");
        assert!(text.contains(from), "{name} has no {from}: {text}");
        self.write(name, &text.replacen(from, to, 1));
    }

    /// The config files of a run, as a run writes them.
    pub fn snapshot(&self, run: &str, args: &[&str]) {
        let print = |flags: &[&str]| self.ok(&[&["train"], flags, args].concat());
        self.write(&format!("{run}/.hydra/config.yaml"), &print(&["-c", "job"]));
        let resolved = print(&["-c", "job", "--resolve"]);
        self.write(&format!("{run}/config.resolved.yaml"), &resolved);
        self.write(
            &format!("{run}/.hydra/hydra.yaml"),
            &print(&["-c", "hydra"]),
        );
        let overrides: Vec<&&str> = match args {
            ["--from", _, rest @ ..] => rest.iter().collect(),
            all => all.iter().collect(),
        };
        let lines: String = overrides.iter().map(|one| format!("- {one}\n")).collect();
        let list = if lines.is_empty() { "[]\n" } else { &lines };
        self.write(&format!("{run}/.hydra/overrides.yaml"), list);
    }

    pub fn summary(&self, run: &str, started: &str, more: Value) {
        let mut summary = json!({
            "status": "finished", "command": "train", "task": "mcq", "device": "cpu",
            "started": started,
            "metrics": {"base": {"accuracy": 0.25}, "tuned": {"accuracy": 0.9}},
            "train_loss": 0.5, "val_loss": 0.625, "trainable_parameters": 4096,
            "trainable_percent": 1.5, "peak_memory_bytes": 1_000_000,
            "planned_memory_bytes": null, "tokens_per_s": 1000.0, "duration_s": 61.0,
            "versions": {"kiln": "0.1.0"},
        });
        for (key, value) in more.as_object().expect("an object") {
            summary[key] = value.clone();
        }
        self.write(&format!("{run}/summary.json"), &summary.to_string());
    }

    /// A finished run with everything in it.
    pub fn finished(&self, run: &str, started: &str, overrides: &[&str]) {
        self.snapshot(run, overrides);
        self.summary(run, started, json!({}));
        let mut rows = String::from(
            "step,epoch,split,loss,learning_rate,grad_norm,supervised_tokens,tokens_per_s,peak_memory_bytes,elapsed_s\n",
        );
        for step in 1..=7 {
            rows.push_str(&format!(
                "{step},0.5,train,1.{step},0.0001,2.5,16,900.0,1000,3.5\n"
            ));
        }
        rows.push_str("7,0.5,val,0.625,,,64,,,3.9\n");
        self.write(&format!("{run}/metrics.csv"), &rows);
        self.write(&format!("{run}/adapter/adapter_config.json"), "{}");
    }
}

pub const EARLY: &str = "2026-03-01T10:00:00.000000+00:00";
pub const LATER: &str = "2026-03-01T10:30:00.000000+00:00";
pub const FIRST: &str = "outputs/2026-03-01/10-00-00";
pub const SECOND: &str = "outputs/2026-03-01/10-30-00";

/// The one line with `part` in it.
pub fn line<'t>(text: &'t str, part: &str) -> &'t str {
    let mut lines = text.lines().filter(|line| line.contains(part));
    let found = lines
        .next()
        .unwrap_or_else(|| panic!("no {part} in:\n{text}"));
    assert_eq!(lines.next(), None, "{part} stands twice in:\n{text}");
    found
}
