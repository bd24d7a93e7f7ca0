//! Launchers and sweepers other than the basic ones, which are Python: they are composed
//! and printed as they stand.

use kiln::compose::{Composed, Error, Node, Request, Source, compose};

const CONFIG: &str = "defaults:
- _self_
- override hydra/launcher: slurm
- override hydra/sweeper: search
hydra:
  launcher:
    nodes: 2
";
const SLURM: &str = "_target_: my.SlurmLauncher\npartition: gpu\ntimeout_min: 60\n";
const SEARCH: &str = "_target_: my.Sweeper\nn_trials: 20\nparams: {x: 3, y: [1.5]}\n";

fn composed(overrides: &[&str]) -> Result<Composed, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("config.yaml", CONFIG),
        ("hydra/launcher/slurm.yaml", SLURM),
        ("hydra/sweeper/search.yaml", SEARCH),
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    compose(&Request {
        sources: vec![Source::dir("main", dir.path())],
        config_name: Some("config".to_string()),
        overrides: overrides.iter().map(|one| one.to_string()).collect(),
        job_name: "run".to_string(),
        ..Request::default()
    })
}

fn json(node: Option<&Node>) -> String {
    node.map_or("nothing".to_string(), |node| node.to_json().to_string())
}

#[test]
fn their_options_keep_their_keys_and_types() {
    let composed = composed(&[]).expect("valid");
    let launcher = r#""_target_":"my.SlurmLauncher","partition":"gpu","timeout_min":60"#;
    let found = json(composed.hydra.select("launcher"));
    assert!(
        found.contains(launcher) && found.contains(r#""nodes":2"#),
        "{found}"
    );
    let resolved = composed.resolved_hydra().expect("resolves");
    for hydra in [&composed.hydra, &resolved] {
        let params = json(hydra.select("sweeper.params"));
        assert_eq!(params, r#"{"x":3,"y":[1.5]}"#);
    }
    let part = composed
        .part(true, "hydra.sweeper.params.x", true)
        .expect("resolves");
    assert_eq!(json(part.as_ref().map(|part| &part.node)), "3");
}

#[test]
fn overrides_change_add_and_delete_their_keys() {
    for (text, path, expected) in [
        (
            "hydra.launcher.partition=cpu",
            "launcher.partition",
            r#""cpu""#,
        ),
        ("+hydra.launcher.foo=1", "launcher.foo", "1"),
        ("~hydra.launcher.partition", "launcher.partition", "nothing"),
        ("hydra.launcher._target_=5", "launcher._target_", "5"),
    ] {
        let composed = composed(&[text]).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(json(composed.hydra.select(path)), expected, "{text}");
    }
    for text in [
        "hydra.launcher.partitoin=cpu",
        "~hydra.launcher",
        "hydra.sweeper.zip=[[a]]",
    ] {
        assert!(composed(&[text]).is_err(), "{text}");
    }
}

#[test]
fn the_basic_ones_have_no_other_keys() {
    let error = composed(&["hydra/launcher=basic"]).expect_err("nodes");
    let text = error.to_string();
    assert!(
        text.contains("config.yaml:7: unknown key 'hydra.launcher.nodes'"),
        "{text}"
    );
}
