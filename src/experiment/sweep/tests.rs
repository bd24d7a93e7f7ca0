//! Sweeps over a stand-in for the job, which writes what a run would.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::compose::Request;
use crate::config::search_path;
use crate::experiment::log::tests::{Shown, console};
use crate::experiment::summary::{Status, Summary};

struct Sandbox {
    dir: TempDir,
    out: Shown,
    err: Shown,
    console: Console,
}

impl Sandbox {
    fn new() -> Self {
        let (console, out, err) = console(false);
        let dir = tempfile::tempdir().unwrap();
        Self {
            dir,
            out,
            err,
            console,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("sweep")
    }

    fn request(&self, overrides: &[&str]) -> Request {
        let mut overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        overrides.push(format!("hydra.sweep.dir={}", self.root().display()));
        Request {
            sources: search_path(None, None),
            config_name: Some("config".to_string()),
            overrides,
            job_name: "run".to_string(),
            closed: Some(crate::config::key_called),
            run: true,
            ..Request::default()
        }
    }

    fn run(&self, overrides: &[&str]) -> Result<(), String> {
        run_on(
            &self.console,
            Command::Train,
            &self.request(overrides),
            fake,
        )
        .map_err(|e| e.to_string())
    }

    fn dry_run(&self, overrides: &[&str]) -> Result<(), String> {
        dry_run_on(&self.console, Command::Train, &self.request(overrides))
            .map_err(|e| e.to_string())
    }

    /// sweep.csv: a row as pairs of column and value.
    fn rows(&self) -> Vec<Vec<(String, String)>> {
        let mut reader = ::csv::Reader::from_path(self.root().join("sweep.csv")).unwrap();
        let header = reader.headers().unwrap().clone();
        let record = |row: Result<::csv::StringRecord, _>| {
            let row = row.unwrap();
            let pairs = header.iter().zip(row.iter());
            pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        reader.records().map(record).collect()
    }

    fn column(&self, name: &str) -> Vec<String> {
        let of = |row: &Vec<(String, String)>| row.iter().find(|(k, _)| k == name).cloned();
        let found = self.rows().iter().map(of).collect::<Option<Vec<_>>>();
        let found = found.unwrap_or_else(|| panic!("no column {name}"));
        found.into_iter().map(|(_, value)| value).collect()
    }
}

/// By its seed a cell fails before its directory is made (1) or after (2), or
/// panics (3); others finish with the rank as accuracy.
fn fake(job: Job) -> Result<(), String> {
    let seed = job.config.seed;
    if seed == 1 {
        return Err("data/none.csv: no such\nfile".to_string());
    }
    let path = job.run_dir.join("summary.json");
    let mut summary = Summary::started("train", &job.config.task.name, "cpu");
    summary.write(&path).unwrap();
    match seed {
        2 => summary.status = Status::Failed,
        3 => panic!("a fault\nin two lines"),
        _ => {
            summary.status = Status::Finished;
            summary.val_loss = Some(1.0 / seed as f64);
            summary.duration_s = Some(61.0);
            let rank = job.config.lora.r as f64;
            summary.metrics.base.insert("accuracy".into(), 0.25);
            summary
                .metrics
                .tuned
                .insert("accuracy".into(), rank / 100.0);
        }
    }
    summary.write(&path).unwrap();
    match summary.status {
        Status::Finished => Ok(()),
        _ => Err("stopped".to_string()),
    }
}

#[test]
fn every_cell_has_a_directory_and_a_row() {
    let sandbox = Sandbox::new();
    sandbox.run(&["lora.r=4,8", "seed=10,20"]).unwrap();
    assert_eq!(sandbox.column("cell"), ["0", "1", "2", "3"]);
    assert_eq!(sandbox.column("lora.r"), ["4", "4", "8", "8"]);
    assert_eq!(sandbox.column("seed"), ["10", "20", "10", "20"]);
    assert_eq!(sandbox.column("overrides")[1], "lora.r=4 seed=20");
    assert_eq!(sandbox.column("metrics.tuned.accuracy")[2], "0.08");
    assert_eq!(sandbox.column("duration_s")[0], "61.0");
    assert_eq!(sandbox.column("error"), [""; 4]);
    // Of two cells with the same accuracy, the lower loss.
    assert_eq!(sandbox.column("best"), ["false", "false", "false", "true"]);
    for (num, directory) in sandbox.column("directory").iter().enumerate() {
        assert_eq!(Path::new(directory), sandbox.root().join(num.to_string()));
        assert!(Path::new(directory).join("summary.json").is_file());
    }
    let master = fs::read_to_string(sandbox.root().join("multirun.yaml")).unwrap();
    assert!(
        master.starts_with("hydra:\n") && master.contains("\nlora:\n"),
        "{master}"
    );
    assert!(
        master.contains("    - lora.r=4,8\n    - seed=10,20\n"),
        "{master}"
    );
    let shown = sandbox.out.text();
    assert!(shown.contains("#1: lora.r=4 seed=20"), "{shown}");
    assert!(
        shown.contains("\n   cell  lora.r  seed  status    accuracy, base  tuned  val loss  "),
        "{shown}"
    );
    assert!(
        shown.contains("\n*  #3    8       20    finished          25.0 %  8.0 %    0.0500  "),
        "{shown}"
    );
    assert!(shown.contains("* best: cell #3, "), "{shown}");
}

#[test]
fn a_failed_cell_does_not_stop_the_others() {
    let sandbox = Sandbox::new();
    let error = sandbox.run(&["seed=1,2,3,9"]).unwrap_err();
    assert!(
        error.starts_with("3 of 4 cells failed (#0, #1, #2); see"),
        "{error}"
    );
    assert_eq!(
        sandbox.column("status"),
        ["failed", "failed", "failed", "finished"]
    );
    let errors = sandbox.column("error");
    assert_eq!(errors[0], "data/none.csv: no such file");
    assert_eq!(errors[1], "stopped");
    assert!(
        errors[2].contains("internal error: a fault in two lines"),
        "{errors:?}"
    );
    // One finished cell is no comparison.
    assert_eq!(sandbox.column("best"), ["false"; 4]);
    assert!(!sandbox.root().join("0").exists());
    let crashed = Summary::read(&sandbox.root().join("2/summary.json")).unwrap();
    assert_eq!(crashed.status, Status::Failed);
    assert_eq!(crashed.error.as_deref(), Some(errors[2].as_str()));
    let told = sandbox.err.text();
    assert!(
        told.contains("cell 0 failed: data/none.csv: no such\nfile\n"),
        "{told}"
    );
}

#[test]
fn a_mistake_in_any_cell_refuses_the_sweep() {
    let sandbox = Sandbox::new();
    let error = sandbox.run(&["lora.r=4,0", "seed=8,9"]).unwrap_err();
    assert!(
        error.starts_with("2 of 4 cells cannot run, so none was run\n"),
        "{error}"
    );
    assert!(
        error.contains("\ncells #2, #3:\n  command line: lora.r=0: `lora.r`"),
        "{error}"
    );
    assert!(!sandbox.root().exists());
    let error = sandbox.run(&["model=tiny,tyni"]).unwrap_err();
    assert!(error.contains("cell #1 (model=tyni):"), "{error}");
    assert!(!sandbox.root().exists());
}

#[test]
fn cells_do_not_share_what_each_needs_for_itself() {
    let sandbox = Sandbox::new();
    for (typed, part) in [
        ("hydra.sweep.subdir=same", "the directory"),
        ("hydra.sweep.subdir=", "must name a directory"),
        ("training.resume=outputs/a", "names one run"),
    ] {
        let error = sandbox.run(&["seed=8,9", typed]).unwrap_err();
        assert!(error.contains(part), "{typed}: {error}");
    }
    let infer = |output: &str| {
        let request = sandbox.request(&["seed=8,9", output]);
        dry_run_on(&sandbox.console, Command::Infer, &request).map_err(|e| e.to_string())
    };
    let error = infer("output=answers.csv").unwrap_err();
    assert!(error.contains("overwritten"), "{error}");
    infer("output='${hydra:runtime.output_dir}/a.csv'").unwrap();
    sandbox
        .dry_run(&["seed=8,9", "training.resume=auto"])
        .unwrap();
    sandbox
        .dry_run(&[
            "seed=8,9",
            "hydra.sweep.subdir='${hydra.job.override_dirname}'",
        ])
        .unwrap();
    let shown = sandbox.out.text();
    assert!(shown.contains("/sweep/seed=9\n"), "{shown}");
}

#[test]
fn a_dry_run_lists_the_cells_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let zip = "hydra.sweeper.zip=[[lora.r,lora.alpha]]";
    sandbox
        .dry_run(&["lora.r=4,8", "seed=8,9", "lora.alpha=1,2", zip])
        .unwrap();
    let root = sandbox.root();
    let line = |num: usize, text: &str| format!("#{num}  {text}  {}/{num}\n", root.display());
    assert_eq!(
        sandbox.out.text(),
        line(0, "lora.r=4 lora.alpha=1 seed=8")
            + &line(1, "lora.r=4 lora.alpha=1 seed=9")
            + &line(2, "lora.r=8 lora.alpha=2 seed=8")
            + &line(3, "lora.r=8 lora.alpha=2 seed=9")
            + "4 cells; nothing was run\n"
    );
    assert!(!root.exists());
    let error = sandbox.dry_run(&["lora.r=4,0"]).unwrap_err();
    assert!(error.contains("`lora.r`"), "{error}");
    assert!(sandbox.out.text().contains("#1  lora.r=0  cannot run\n"));
}

#[test]
fn a_directory_that_holds_a_sweep_is_not_used_again() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.root()).unwrap();
    fs::write(sandbox.root().join("notes.txt"), "mine").unwrap();
    sandbox.run(&["seed=8,9"]).unwrap();
    for result in [sandbox.run(&["seed=7,6"]), sandbox.dry_run(&["seed=7,6"])] {
        let error = result.unwrap_err();
        assert!(error.contains("already holds multirun.yaml"), "{error}");
    }
    fs::remove_file(sandbox.root().join("multirun.yaml")).unwrap();
    fs::remove_file(sandbox.root().join("sweep.csv")).unwrap();
    let error = sandbox.run(&["seed=7,6"]).unwrap_err();
    assert!(error.contains("already holds 0,"), "{error}");
    assert!(!sandbox.root().join(".lock").exists());
}

#[test]
fn a_root_that_was_not_named_is_numbered() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = dir.path().join("2025-03-09/07-05-01");
    let made: Vec<SweepDir> = (0..3)
        .map(|_| SweepDir::create(&wanted, false, false, &[]).unwrap())
        .collect();
    let names: Vec<_> = made.iter().map(|d| d.root().file_name().unwrap()).collect();
    assert_eq!(names, ["07-05-01", "07-05-01-1", "07-05-01-2"]);
    let busy = SweepDir::create(&wanted, true, false, &[])
        .map(drop)
        .unwrap_err();
    assert!(busy.to_string().contains("another process"), "{busy}");
}

#[test]
fn tasks_are_judged_apart() {
    let sandbox = Sandbox::new();
    sandbox
        .run(&["task=mcq,saq", "lora.r=4,8", "seed=9"])
        .unwrap();
    assert_eq!(sandbox.column("best"), ["false", "true", "true", "false"]);
    assert!(
        sandbox.out.text().contains("* best of saq: cell #2"),
        "{}",
        sandbox.out.text()
    );
}
