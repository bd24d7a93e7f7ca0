//! Composition against what hydra-core 1.3.8 gives. `compose/cases.jsonl` holds
//! one command line a line over the configs of `compose/tree`, with the YAML
//! that Hydra printed (unresolved and resolved) or `error`; `says` is what our
//! message must contain.

use std::path::{Path, PathBuf};

use kiln::compose::{
    Composed, Error, Multirun, Node, Origin, Request, Source, Tree, compose, groups, is_multirun,
    sweep_cells, to_yaml,
};

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose/tree")
}

fn request(config: &str, overrides: &[&str]) -> Request {
    Request {
        sources: vec![Source::dir("main", tree())],
        config_name: Some(config.to_string()),
        overrides: overrides.iter().map(|o| o.to_string()).collect(),
        job_name: "app".to_string(),
        ..Request::default()
    }
}

fn composed(config: &str, overrides: &[&str]) -> Result<Composed, Error> {
    compose(&request(config, overrides))
}

#[test]
fn every_case_agrees_with_hydra() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose/cases.jsonl");
    let text = std::fs::read_to_string(path).expect("the cases are there");
    let mut failures = Vec::new();
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        let case: serde_json::Value = serde_json::from_str(line).expect("a case is JSON");
        let overrides: Vec<&str> = case["overrides"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|o| o.as_str())
            .collect();
        let config = case["config"].as_str().expect("a name");
        let mut fail = |what: String| failures.push(format!("{config} {overrides:?}: {what}"));
        match (composed(config, &overrides), case["says"].as_str()) {
            (Ok(_), Some(_)) => fail("Hydra refuses it".to_string()),
            (Err(error), Some(says)) => {
                if !error.to_string().contains(says) {
                    fail(format!("lacks {says:?}:\n{error}"));
                }
            }
            (Err(error), None) => fail(format!("Hydra composes it:\n{error}")),
            (Ok(composed), None) => {
                let job = to_yaml(&composed.job);
                if Some(job.as_str()) != case["job"].as_str() {
                    fail(format!("job is\n{job}"));
                }
                match (composed.resolved_job(), case["resolved"].as_str()) {
                    (Ok(node), Some(expected)) => {
                        let resolved = to_yaml(&node);
                        if resolved != expected {
                            fail(format!("resolved is\n{resolved}"));
                        }
                    }
                    (Ok(_), None) => fail("Hydra cannot resolve it".to_string()),
                    (Err(error), Some(_)) => fail(format!("Hydra resolves it:\n{error}")),
                    (Err(_), None) => {}
                }
            }
        }
    }
    assert!(count >= 100, "only {count} cases");
    assert!(
        failures.is_empty(),
        "{} of {count} differ:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn every_value_knows_where_it_came_from() {
    let composed = composed("config", &["experiment=fast", "seed=3"]).expect("valid");
    let origin = |path: &str| composed.job.select(path).expect(path).origin.to_string();
    assert_eq!(origin("seed"), "command line: seed=3");
    assert!(
        origin("optim.lr").ends_with("experiment/fast.yaml:8"),
        "{}",
        origin("optim.lr")
    );
    assert!(origin("optim.momentum").ends_with("optim/sgd.yaml:3"));
    assert!(origin("list.0").ends_with("config.yaml:13"));
    let resolved = composed.resolved_job().expect("resolves");
    let name = resolved.select("name").expect("name");
    assert_eq!(name.as_str(), Some("apache_pg"));
    assert!(name.origin.to_string().ends_with("config.yaml:12"));
    let dir = composed.hydra.select("run.dir").expect("there");
    assert_eq!(dir.origin, Origin::BuiltIn);
}

#[test]
fn the_hydra_node_is_filled() {
    let mut composed = compose(&Request {
        run: true,
        ..request(
            "hydrakeys",
            &["hydra.run.dir=d/${hydra.job.name}", "a=1", "+b=x y"],
        )
    })
    .expect("valid");
    let json = |path: &str| {
        let node = composed
            .resolve(path)
            .expect(path)
            .map(|n| n.to_json().to_string());
        node.unwrap_or_else(|| "none".to_string())
    };
    assert_eq!(json("hydra.run.dir"), r#""d/myname""#);
    assert_eq!(json("hydra.job.chdir"), "true");
    assert_eq!(json("hydra.job.env_set"), r#"{"A":"1"}"#);
    assert_eq!(json("hydra.job.override_dirname"), r#""+b=x y,a=1""#);
    assert_eq!(json("hydra.overrides.task"), r#"["a=1","+b=x y"]"#);
    // Overrides are kept as typed, not resolved.
    let typed = composed
        .hydra
        .select("overrides.hydra")
        .map(|n| n.to_json().to_string());
    assert_eq!(
        typed.as_deref(),
        Some(r#"["hydra.run.dir=d/${hydra.job.name}","hydra.mode=RUN"]"#)
    );
    assert_eq!(json("hydra.mode"), r#""RUN""#);
    assert_eq!(json("hydra.runtime.output_dir"), "none");
    assert_eq!(json("hydra.runtime.choices.hydra/launcher"), r#""basic""#);
    assert_eq!(composed.choices["hydra/launcher"].as_deref(), Some("basic"));
    composed.set_output_dir(Path::new("/somewhere/out"));
    composed.set_job(4, "host_4");
    let hydra = composed.resolved_hydra().expect("resolves");
    let text = |path: &str| {
        hydra
            .select(path)
            .and_then(|n| n.as_str())
            .unwrap_or_default()
    };
    assert_eq!(
        text("job_logging.handlers.file.filename"),
        "/somewhere/out/myname.log"
    );
    // The key holds text, whatever its interpolation finds.
    assert_eq!(text("sweep.subdir"), "4");
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = composed("config", &["db=nope", "server=apach"]).expect_err("two");
    assert_eq!(error.problems.len(), 2, "{error}");
    let error = composed("config", &["sed=1", "rat=2", "+seed=3"]).expect_err("three");
    assert_eq!(error.problems.len(), 3, "{error}");
    assert!(error.to_string().starts_with("3 problems:"));
}

#[test]
fn a_typo_is_never_answered_with_plus() {
    for typo in [
        "sed=1",
        "optim.lrr=1",
        "tree.b.cc=1",
        "hydra.runn.dir=x",
        "servr=nginx",
    ] {
        let message = composed("config", &[typo]).expect_err(typo).to_string();
        assert!(message.contains("did you mean"), "{message}");
        assert!(!message.contains(&format!("+{typo}")), "{message}");
    }
}

static EMBEDDED: &[(&str, &str)] = &[
    ("one.yaml", "# @package _global_\nother: 77\n"),
    ("sub/two.yaml", "x: 1\n"),
];

#[test]
fn a_mounted_source_is_a_group_and_the_first_source_wins() {
    let mounted = Source {
        provider: "more".to_string(),
        tree: Tree::Embedded(EMBEDDED),
        mount: Some("experiment".to_string()),
        written: None,
    };
    let mut req = request("config", &["experiment=one", "+experiment/sub=two"]);
    req.sources.push(mounted.clone());
    let composed = compose(&req).expect("valid");
    assert_eq!(
        composed.job.select("other").and_then(|n| n.as_i64()),
        Some(77)
    );
    assert_eq!(
        composed
            .job
            .select("experiment.sub.x")
            .and_then(|n| n.as_i64()),
        Some(1)
    );
    let all = groups(&req.sources);
    let options = |name: &str| {
        all.iter()
            .find(|(g, _)| g == name)
            .map(|(_, o)| o.join(" "))
    };
    assert_eq!(
        options("experiment").as_deref(),
        Some("big fast hidden one relative")
    );
    assert_eq!(options("experiment/sub").as_deref(), Some("two"));
    assert_eq!(options("server/tls").as_deref(), Some("full none"));
}

#[test]
fn the_search_path_grows_by_hydra_searchpath() {
    let dir = tree().join("extra_group");
    let typed = format!("hydra.searchpath=[file://{}]", dir.display());
    let composed = composed("config", &[&typed, "seed=5"]).expect("valid");
    let providers: Vec<&str> = composed
        .sources
        .iter()
        .map(|s| s.provider.as_str())
        .collect();
    assert_eq!(
        providers,
        ["hydra", "main", "hydra.searchpath in command-line"]
    );
    let missing = format!("hydra.searchpath=[{}]", dir.join("absent").display());
    let composed = self::composed("config", &[&missing]).expect("a warning only");
    assert!(composed.warnings[0].contains("does not exist"));
    let gone = Request {
        sources: vec![Source::dir("command-line", tree().join("absent"))],
        ..request("config", &[])
    };
    assert!(
        compose(&gone)
            .expect_err("gone")
            .to_string()
            .contains("does not exist")
    );
}

#[test]
fn sweeps_use_the_params_of_the_config_and_globs_of_options() {
    let cells = |config: &str, overrides: &[&str]| -> Vec<String> {
        let cells = sweep_cells(&request(config, overrides)).expect("valid");
        cells.iter().map(|cell| cell.join(" ")).collect()
    };
    assert_eq!(cells("hydrakeys", &["a=5"]), ["seed=1 a=5", "seed=2 a=5"]);
    assert_eq!(cells("hydrakeys", &["seed=9"]), ["seed=9"]);
    assert_eq!(
        cells("config", &["db=glob(*,exclude=s*)", "hydra.job.name=n"]),
        ["hydra.job.name=n db=mysql", "hydra.job.name=n db=pg"]
    );
}

#[test]
fn a_cell_is_composed_as_hydra_launches_it() {
    let sweep = Multirun::new(&request(
        "hydrakeys",
        &["+b=x,y", "a=5", "hydra.sweep.dir=s"],
    ))
    .expect("valid");
    assert_eq!(sweep.keys, ["seed", "b"]);
    let cells: Vec<String> = sweep.cells.iter().map(|c| c.overrides.join(" ")).collect();
    let last = "seed=2 +b=y a=5";
    assert_eq!(cells[..2], ["seed=1 +b=x a=5", "seed=1 +b=y a=5"]);
    assert_eq!((cells.len(), cells[3].as_str()), (4, last));
    assert_eq!(sweep.cells[3].values, ["2", "y"]);
    assert_eq!(sweep.master.task_overrides, ["+b=x,y", "a=5"]);
    let composed = sweep.compose(3).expect("valid");
    let json = |path: &str| {
        let node = composed.hydra.select(path).expect(path);
        node.to_json().to_string()
    };
    assert_eq!(json("job.num"), "3");
    assert_eq!(json("job.id"), r#""3""#);
    assert_eq!(json("mode"), r#""MULTIRUN""#);
    assert_eq!(json("overrides.task"), r#"["seed=2","+b=y","a=5"]"#);
    let typed = r#"["hydra.sweep.dir=s","hydra.mode=MULTIRUN"]"#;
    assert_eq!(json("overrides.hydra"), typed);
    let seed = composed.job.select("seed").and_then(|n| n.as_i64());
    assert_eq!(seed, Some(2));
    assert!(sweep.master.job.select("b").is_none());
}

#[test]
fn the_mode_of_the_config_asks_for_a_sweep() {
    let asks = |overrides: &[&str]| is_multirun(&request("config", overrides));
    assert!(asks(&["hydra.mode=MULTIRUN", "seed=1,2"]));
    assert!(!asks(&["seed=1,2"]));
    assert!(!asks(&["hydra.mode=RUN"]));
    assert!(!asks(&["hydra.mode=MULTIRUN", "sed=1"]));
    let sweep = Multirun::new(&request("config", &["hydra.mode=RUN", "seed=1,2"]));
    let sweep = sweep.expect("the flag wins");
    assert_eq!(sweep.cells.len(), 2);
    assert!(sweep.master.warnings[0].contains("gives way"));
}

#[test]
fn zipped_keys_advance_together() {
    let cells = |overrides: &[&str]| -> Result<Vec<String>, String> {
        let cells = sweep_cells(&request("config", overrides)).map_err(|e| e.to_string())?;
        let task = cells.iter().map(|cell| cell[1..].join(" "));
        Ok(task.collect())
    };
    let zip = "hydra.sweeper.zip=[[optim.lr,+b]]";
    assert_eq!(
        cells(&[zip, "optim.lr=1,2", "seed=7,8", "+b=x,y"]).expect("valid"),
        [
            "optim.lr=1 +b=x seed=7",
            "optim.lr=1 +b=x seed=8",
            "optim.lr=2 +b=y seed=7",
            "optim.lr=2 +b=y seed=8",
        ]
    );
    let zip = "hydra.sweeper.zip=[[seed,db],[b,c]]";
    assert_eq!(
        cells(&[zip, "+b=1,2", "db=glob(*,exclude=s*)", "+c=3,4", "seed=5,6"]).expect("valid"),
        [
            "+b=1 +c=3 db=mysql seed=5",
            "+b=1 +c=3 db=pg seed=6",
            "+b=2 +c=4 db=mysql seed=5",
            "+b=2 +c=4 db=pg seed=6",
        ]
    );
    for (zip, parts) in [
        ("[[seed,db]]", ["'seed' has 2 values", "'db' has 3 values"]),
        (
            "[[seed,seeed]]",
            ["'seeed', which is not swept", "did you mean 'seed'?"],
        ),
        (
            "[[seed,other]]",
            ["'other', which is not swept", "other=a,b"],
        ),
        ("[[seed]]", ["fewer than two keys", "command line"]),
        ("[[seed,seed]]", ["'seed' twice", "command line"]),
        ("[[seed,b],[b,seed]]", ["'b' twice", "command line"]),
        ("[seed,b]", ["list of lists", "command line"]),
    ] {
        let zip = format!("hydra.sweeper.zip={zip}");
        let error = cells(&[&zip, "seed=1,2", "db=glob(*)", "+b=1,2"]).expect_err(&zip);
        for part in parts {
            assert!(error.contains(part), "{zip}: {error}");
        }
    }
}

#[test]
fn arithmetic_and_time() {
    let overrides = [
        "+x='${mul:2,${seed}}'",
        "+y='${div:7,2}'",
        "+z='${add:1,2,${div:6,2}}'",
        "+w='${now:%Y}'",
        "+r='${round:2.5}'",
    ];
    let composed = composed("config", &overrides).expect("valid");
    let resolved = composed.resolved_job().expect("resolves");
    let json = |key: &str| resolved.select(key).expect(key).to_json().to_string();
    assert_eq!(
        [json("x"), json("y"), json("z"), json("r")],
        ["84", "3.5", "6.0", "2"]
    );
    assert_eq!(json("w").len(), 6);
    for bad in [
        "${div:1,0}",
        "${mul:9223372036854775807,2}",
        "${now:%10Y}",
        "${mull:1,2}",
        "${mul:a,2}",
    ] {
        let one = format!("+x='{bad}'");
        let composed = self::composed("config", &[&one]).expect("composes");
        let message = composed.resolved_job().expect_err(bad).to_string();
        assert!(message.contains("command line"), "{message}");
    }
}

#[test]
fn nothing_makes_it_hang() {
    // Each value holds the one before twice: doubling is cut off, not computed.
    let mut overrides = vec!["+v0=[1,1]".to_string()];
    for i in 1..40 {
        overrides.push(format!("+v{i}=['${{v{}}}','${{v{}}}']", i - 1, i - 1));
    }
    let texts: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let composed = composed("plain", &texts).expect("composes");
    assert!(composed.resolved_job().is_err());
    let chain: Vec<String> = (0..300)
        .map(|i| format!("+c{i}='${{c{}}}'", i + 1))
        .collect();
    let texts: Vec<&str> = chain.iter().map(String::as_str).collect();
    let composed = self::composed("plain", &texts).expect("composes");
    assert!(composed.resolved_job().is_err());
}

#[test]
fn all_stages_report_at_once_and_a_cause_only_once() {
    let problems = |overrides: &[&str]| -> Vec<String> {
        let error = composed("config", overrides).expect_err("wrong");
        error.problems.iter().map(ToString::to_string).collect()
    };
    let all = problems(&[
        "db=nope",
        "a=b=c",
        "sed=1",
        "db.prot=3",
        "+seed=3",
        "hydra.run.dri=x",
    ]);
    assert_eq!(all.len(), 5, "{all:#?}");
    for (text, part) in all.iter().zip([
        "no option 'nope'",
        "column 4",
        "did you mean 'seed'?",
        "is there already",
        "did you mean 'hydra.run.dir'?",
    ]) {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    // What a missing experiment would have brought is not missed as well.
    assert_eq!(problems(&["experiment=fsat", "brought.by.it=1"]).len(), 1);
    assert_eq!(problems(&["experiment=fsat", "sed=1"]).len(), 2);
    assert_eq!(problems(&["+brought=a=b", "brought.key=1"]).len(), 1);
}

#[test]
fn lists_are_edited_and_values_written_as_json() {
    let composed = composed(
        "config",
        &[
            "list=append(x)",
            "list=prepend(0)",
            "list=remove(2)",
            "+j=json_str({a:[1,'é'],b:null})",
        ],
    )
    .expect("valid");
    let json = |key: &str| {
        let node = composed.job.select(key).expect(key);
        node.to_json().to_string()
    };
    assert_eq!(json("list"), r#"[0,1,{"k":"v"},"x"]"#);
    assert_eq!(json("j"), r#""{\"a\": [1, \"\\u00e9\"], \"b\": null}""#);
    let cells = sweep_cells(&request("config", &["list=append(x),append(y,z)"])).expect("valid");
    assert_eq!(cells, [["list=append(x)"], ["list=append(y,z)"]]);
}

#[test]
fn unresolvable_interpolations_are_told_once_each() {
    let composed = composed(
        "config",
        &[
            "+a1=${a2}",
            "+a2=${a3}",
            "+a3=${nope}",
            "+r1=${r2}",
            "+r2=${r1}",
            "+x='${a1}/${a1}'",
        ],
    )
    .expect("composes");
    let error = composed.resolved_job().expect_err("wrong");
    let texts: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:#?}");
    assert!(texts[0].contains("'a3: ${nope}'"), "{texts:#?}");
    assert!(
        texts[1].contains("'r1' leads back to itself, by r2"),
        "{texts:#?}"
    );
}

/// A folder with these files, and what they compose to.
fn composed_of(files: &[(&str, &str)], overrides: &[&str]) -> Result<Composed, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    compose(&Request {
        sources: vec![Source::dir("main", dir.path().join("conf"))],
        cwd: Some(dir.path().to_path_buf()),
        ..request("config", overrides)
    })
}

#[test]
fn the_search_path_of_the_primary_config_is_resolved() {
    for (searchpath, more) in [
        (r#"["${p}"]"#, "p: more"),
        (r#"["file://${oc.env:KILN_NOT_SET,more}"]"#, ""),
        (r#""${oc.create:[more]}""#, ""),
        (r#"[pkg://hydra.conf, "${p}"]"#, "p: more"),
    ] {
        let config =
            format!("defaults: [g: m1, _self_]\nhydra: {{searchpath: {searchpath}}}\n{more}\n");
        let files = [("conf/config.yaml", &*config), ("more/g/m1.yaml", "v: 1")];
        let composed = composed_of(&files, &[]).expect(searchpath);
        assert!(composed.job.select("g.v").is_some(), "{searchpath}");
        assert!(composed.warnings.is_empty(), "{:?}", composed.warnings);
    }
    for (config, part) in [
        (
            "x: 1\nhydra: {searchpath: ['${x}']}",
            "config.yaml:2: hydra.searchpath must be",
        ),
        (
            "hydra: {searchpath: ['${x}']}",
            "interpolation key 'x' not found",
        ),
    ] {
        let error = composed_of(&[("conf/config.yaml", config)], &[]).expect_err(config);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_package_of_python_on_the_search_path_is_passed_over() {
    let config = [(
        "conf/config.yaml",
        "hydra: {searchpath: ['pkg://some.configs']}",
    )];
    let composed = composed_of(&config, &[]).expect("valid");
    let [warning] = composed.warnings.as_slice() else {
        panic!("{:?}", composed.warnings);
    };
    assert!(
        warning.contains("'pkg://some.configs' is a package of Python"),
        "{warning}"
    );
}

#[test]
fn what_a_failed_choice_leads_to_is_not_told_beside_it() {
    for (model, cause) in [
        ("bad", "bad.yaml:2: not valid YAML"),
        ("nope", "no option 'nope'"),
    ] {
        let config = format!("defaults: [_self_, {{model: {model}}}, {{opt: '${{model}}'}}]");
        let files = [
            ("conf/config.yaml", &*config),
            ("conf/model/bad.yaml", "a: [1\n"),
            ("conf/opt/x.yaml", "v: 1"),
        ];
        let error = composed_of(&files, &[]).expect_err(model);
        assert_eq!(error.problems.len(), 1, "{error}");
        assert!(error.to_string().contains(cause), "{error}");
    }
    // What has another cause is told.
    let files = [
        (
            "conf/config.yaml",
            "defaults: [{model: nope}, {opt: '${other}'}]",
        ),
        ("conf/model/x.yaml", "v: 1"),
    ];
    let error = composed_of(&files, &[]).expect_err("both");
    assert_eq!(error.problems.len(), 2, "{error}");
}

#[test]
fn a_config_named_by_an_interpolation_has_the_package_of_its_place() {
    let files = [
        ("conf/config.yaml", "defaults: [{g: a}, {h: x}]"),
        ("conf/h/x.yaml", "z: 1"),
        ("conf/g/a.yaml", "defaults: ['sub_${h}']"),
        ("conf/g/sub_x.yaml", "v: 1"),
    ];
    // Entries are expanded from the end, so the choice of h is known in g.
    let composed = composed_of(&files, &[]).expect("valid");
    assert_eq!(to_yaml(&composed.job), "g:\n  v: 1\nh:\n  z: 1\n");
}

#[test]
fn a_deleted_group_of_hydra_leaves_its_missing_keys() {
    let hydra = |overrides: &[&str], path: &str| {
        let composed = composed_of(&[("conf/config.yaml", "a: 1")], overrides).expect("valid");
        composed
            .hydra
            .select(path)
            .map(|node| node.to_json().to_string())
    };
    for group in ["job_logging", "hydra_logging", "launcher", "sweeper"] {
        let delete = format!("~hydra/{group}");
        assert_eq!(
            hydra(&[&delete], group).as_deref(),
            Some(r#""???""#),
            "{group}"
        );
    }
    assert_eq!(
        hydra(&["~hydra/output"], "run").as_deref(),
        Some(r#"{"dir":"???"}"#)
    );
    assert_eq!(
        hydra(&["~hydra/output"], "sweep").as_deref(),
        Some(r#"{"dir":"???","subdir":"???"}"#)
    );
    let files = [(
        "conf/config.yaml",
        "defaults: [_self_, {override /hydra/launcher: null}]",
    )];
    let composed = composed_of(&files, &[]).expect("valid");
    assert!(
        composed
            .hydra
            .select("launcher")
            .is_some_and(Node::is_missing)
    );
}

#[test]
fn a_variable_to_copy_must_be_set() {
    let copy = ["hydra.job.env_copy=[KILN_NOT_SET]"];
    let error = composed_of(&[("conf/config.yaml", "a: 1")], &copy).expect_err("not set");
    let text = error.to_string();
    assert!(text.contains("'KILN_NOT_SET', which is not set"), "{text}");
}
