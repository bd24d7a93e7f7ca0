//! Where answers and adapters go: links and pipes stay, runs are not replaced.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::common::sandbox::Sandbox;

const INFER: &str = "infer --base task=saq model.path=model quantization=none \
                     data.test_path=saq_test.csv inference.max_new_tokens=3";

#[test]
fn answers_go_where_a_link_leads() {
    let sandbox = Sandbox::new();
    let kept = sandbox.path("kept.csv");
    sandbox.write("kept.csv", "old");
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("kept.csv", sandbox.path("link.csv")).unwrap();
    sandbox.ok(&format!("{INFER} hydra.run.dir=a output=link.csv"));
    assert!(sandbox.path("link.csv").is_symlink());
    let answers = sandbox.read("a/predictions.csv");
    assert_eq!(sandbox.read("kept.csv"), answers);
    let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Through a link, so that a test that fails takes no device with it.
    symlink("/dev/stdout", sandbox.path("out")).unwrap();
    let said = sandbox.ok(&format!("{INFER} hydra.run.dir=b output=out"));
    assert!(said.contains(&answers), "{said}");
    assert!(sandbox.path("out").is_symlink());
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_answers() {
    let sandbox = Sandbox::new();
    let long = "x".repeat(250);
    let refused = sandbox.run(&format!("{INFER} hydra.run.dir=run output={long}"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("give a shorter name"),
        "{refused:?}"
    );
    assert!(!sandbox.path("run").exists());
    let chat = format!("chat --base model.path=model quantization=none output={long}");
    let refused = sandbox.run(&chat);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("give a shorter name"),
        "{refused:?}"
    );
}

#[test]
fn a_run_where_its_adapter_would_be_published_is_refused() {
    let sandbox = Sandbox::new();
    let train = "train task=saq model.path=model data.path=saq.csv data.test_path=null \
                 training.max_steps=1";
    sandbox.ok(&format!("{train} hydra.run.dir=run"));
    let published = sandbox.tree("outputs/adapters/adapter_saq");
    assert!(!published.is_empty());
    for more in ["", " --dry-run"] {
        let sweep = format!("{train} -m seed=1,2 hydra.sweep.dir=outputs/adapters/adapter_saq/s");
        let refused = sandbox.run(&format!("{sweep}{more}"));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("hydra.sweep.dir"), "{refused:?}");
        assert!(!sandbox.path("outputs/adapters/adapter_saq/s").exists());
    }
    for run in ["adapter_saq", "adapter_saq/run1", "adapter_mcq/run1"] {
        let refused = sandbox.run(&format!("{train} hydra.run.dir=outputs/adapters/{run}"));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(
            refused.stderr.contains("choose another hydra.run.dir"),
            "{refused:?}"
        );
        assert_eq!(sandbox.tree("outputs/adapters/adapter_saq"), published);
    }
    // No empty directory is taken for an adapter.
    assert!(!sandbox.path("outputs/adapters/adapter_mcq").exists());
}
