//! Composition and the typed config together, on the project's own config files.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use kiln::compose::{Composed, Node, Request, Source, Tree, Value, compose, groups};
use kiln::config::keys::{self, Default, Limit};
use kiln::config::{
    Command, Config, DataFormat, Job, Method, Metric, ModelInit, QuantMethod, TargetModules,
    TaskKind, complete, from_composed, markdown,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let dir = |name: &str, mount: Option<&str>| Source {
        provider: name.to_string(),
        tree: Tree::Dir(root().join(name)),
        mount: mount.map(str::to_string),
        written: None,
    };
    vec![dir("configs", None), dir("experiments", Some("experiment"))]
}

/// The groups of the project, without Hydra's own.
fn project_groups() -> Vec<(String, Vec<String>)> {
    let mut found = groups(&sources());
    found.retain(|(group, _)| !group.starts_with("hydra"));
    found
}

fn request(overrides: &[&str]) -> Request {
    Request {
        sources: sources(),
        config_name: Some("config".to_string()),
        overrides: overrides.iter().map(ToString::to_string).collect(),
        job_name: "run".to_string(),
        ..Request::default()
    }
}

fn composed(overrides: &[&str]) -> Composed {
    compose(&request(overrides)).unwrap_or_else(|e| panic!("{overrides:?}: {e}"))
}

fn config(overrides: &[&str]) -> Config {
    from_composed(&composed(overrides)).unwrap_or_else(|e| panic!("{overrides:?}: {e}"))
}

/// The error text of a config that must be refused, by composition or by the schema.
fn refusal(overrides: &[&str]) -> String {
    match Job::load(Command::Train, &request(overrides)) {
        Ok(_) => panic!("{overrides:?} was accepted"),
        Err(error) => error.to_string(),
    }
}

/// A config folder of its own with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    for (name, text) in files {
        let path = dir.path().join(name);
        let parent = path.parent().unwrap_or_else(|| panic!("{name}"));
        std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{e}"));
        std::fs::write(path, text).unwrap_or_else(|e| panic!("{e}"));
    }
    dir
}

/// Loads a job with a user's folder last on the search path.
fn with_folder(dir: &Path, name: &str, overrides: &[&str]) -> Result<Job, String> {
    let mut request = request(overrides);
    request.config_name = Some(name.to_string());
    request.sources.push(Source {
        provider: "command-line".to_string(),
        tree: Tree::Dir(dir.to_path_buf()),
        mount: None,
        written: None,
    });
    Job::load(Command::Train, &request).map_err(|e| e.to_string())
}

#[test]
fn the_composed_default_is_the_table() {
    // What the default task and the default model set.
    let set_by_groups = ["data.path", "data.test_path"];
    let job = composed(&[]).job;
    for key in keys::all() {
        let node = job
            .select(key.name)
            .unwrap_or_else(|| panic!("configs/ lacks {}", key.name));
        if !set_by_groups.contains(&key.name) {
            assert!(equals(node, &key.default), "{}: {node:?}", key.name);
        }
    }
    let names: HashSet<&str> = keys::all().map(|key| key.name).collect();
    for (path, _) in job.leaves() {
        let list_item = |p: &str| {
            p.rsplit_once('.')
                .is_some_and(|(list, index)| names.contains(list) && index.parse::<usize>().is_ok())
        };
        assert!(
            names.contains(path.as_str()) || list_item(&path),
            "{path} is not in the table"
        );
    }
}

fn equals(node: &Node, default: &Default) -> bool {
    match default {
        Default::Null => node.is_null(),
        Default::Bool(b) => node.as_bool() == Some(*b),
        Default::Int(i) => node.as_i64() == Some(*i),
        Default::Float(x) => matches!(node.value, Value::Float(y) if y == *x),
        Default::Str(s) => node.as_str() == Some(s),
        Default::List(items) => node.as_list().is_some_and(|nodes| {
            nodes
                .iter()
                .map(Node::as_str)
                .eq(items.iter().map(|s| Some(*s)))
        }),
    }
}

#[test]
fn the_default_job_is_qlora_on_the_tiny_base() {
    let config = config(&[]);
    assert_eq!(config.method, Method::Lora);
    assert_eq!(config.quantization.method, QuantMethod::Nf4);
    assert_eq!(config.model.path, Some(PathBuf::from("data/models/tiny")));
    assert_eq!(config.model.init, ModelInit::Pretrained);
    assert_eq!(config.task.kind, TaskKind::Mcq);
    assert_eq!(config.prompt.template, "{question}\n{options}\nAnswer:");
    assert_eq!(
        config.data.path,
        Some(PathBuf::from("data/train_dataset_mcq.csv"))
    );
    assert_eq!(config.training.learning_rate, 1e-4);
    assert_eq!(config.seed, 42);
}

#[test]
fn every_option_of_every_group_makes_a_config() {
    for (group, options) in project_groups() {
        for option in options {
            config(&[&format!("{group}={option}")]);
        }
    }
}

#[test]
fn tasks_bring_their_data_and_prompt() {
    let saq = config(&["task=saq"]);
    assert_eq!(saq.task.kind, TaskKind::Saq);
    assert_eq!(saq.task.metrics, [Metric::ExactMatch, Metric::F1]);
    assert_eq!(saq.prompt.answer, " {answer}");
    assert_eq!(
        saq.data.test_path,
        Some(PathBuf::from("data/test_dataset_saq.csv"))
    );
    let squad = config(&["task=squad"]);
    assert_eq!(squad.data.format, Some(DataFormat::Squad));
    let tokens = config(&["task=tokens", "data.path=a.jsonl"]);
    assert_eq!(tokens.data.format, Some(DataFormat::Tokens));
    assert_eq!(tokens.task.metrics, []);
}

#[test]
fn commands_of_the_guide_work_as_written() {
    let c = config(&["task=mcq", "training=mcq", "training.epochs=4", "lora.r=8"]);
    assert_eq!((c.training.epochs, c.lora.r), (4.0, 8));
    let c = config(&[
        "task=mcq",
        "training.epochs=4",
        "lora.r=8",
        "training.learning_rate=5e-5",
    ]);
    assert_eq!(c.training.learning_rate, 5e-5);
    let c = config(&["task=saq", "training=saq"]);
    assert_eq!(c.task.name, "saq");
    let c = config(&["task=mcq", "model=llama3_8b"]);
    assert!(c.model.name.is_some_and(|name| name.contains("Llama-3-8B")) && c.model.path.is_none());
    let c = config(&[
        "training.batch_size=2",
        "lora.r=8",
        "training.max_seq_length=256",
    ]);
    assert_eq!((c.training.batch_size, c.training.max_seq_length), (2, 256));
    let c = config(&[
        "training.epochs=2",
        "lora.dropout=0.1",
        "training.val_ratio=0.2",
    ]);
    assert_eq!((c.lora.dropout, c.training.val_ratio), (0.1, 0.2));
    let c = config(&["training.fp16=false", "training.bf16=true"]);
    assert_eq!(
        (c.training.fp16, c.training.bf16),
        (Some(false), Some(true))
    );
    let c = config(&[
        "inference.do_sample=true",
        "inference.top_p=0.9",
        "inference.temperature=1.0",
    ]);
    assert!(c.inference.do_sample && c.inference.top_p == 0.9);
    let c = config(&["task=mcq", "inference.validation.enabled=false"]);
    assert!(!c.inference.validation.enabled);
    let c = config(&["task=saq", "inference.use_stop_tokens=true"]);
    assert!(c.inference.use_stop_tokens);
    let job = Job::load(Command::Infer, &request(&["task=mcq", "mode=infer"]));
    assert!(job.is_ok(), "{:?}", job.err().map(|e| e.to_string()));
}

#[test]
fn experiments_change_what_they_say_and_yield_to_the_command_line() {
    let c = config(&["experiment=low_memory"]);
    assert_eq!(
        (
            c.lora.r,
            c.training.batch_size,
            c.training.gradient_accumulation_steps
        ),
        (8, 2, 8)
    );
    let c = config(&["lora.r=4", "experiment=low_memory"]);
    assert_eq!(c.lora.r, 4);
    assert_eq!(config(&["experiment=saq"]).task.name, "saq");
    let c = config(&["experiment=unstable"]);
    assert_eq!(
        (c.training.learning_rate, c.training.warmup_ratio),
        (5e-5, 0.2)
    );
    assert_eq!(config(&["experiment=overfitting"]).training.val_ratio, 0.2);
    assert_eq!(config(&["experiment=not_learning"]).training.epochs, 5.0);
    assert_eq!(config(&["experiment=diverse"]).inference.temperature, 0.7);
}

#[test]
fn lists_and_interpolations_reach_the_typed_config() {
    let c = config(&["lora.target_modules=all-linear", "lora.alpha=${lora.r}"]);
    assert_eq!(
        c.lora.target_modules,
        TargetModules::Named("all-linear".to_string())
    );
    assert_eq!(c.lora.alpha, 16.0);
    let c = config(&["lora.target_modules=[q_proj,v_proj]"]);
    let names = ["q_proj", "v_proj"].map(str::to_string).to_vec();
    assert_eq!(c.lora.target_modules, TargetModules::List(names));
}

#[test]
fn an_unknown_key_names_the_nearest_and_its_origin() {
    let text = refusal(&["lora.dropuot=0.1"]);
    assert!(text.contains("command line: lora.dropuot=0.1"), "{text}");
    assert!(text.contains("lora.dropout"), "{text}");
    assert_eq!(
        refusal(&["+lora.dropuot=0.1"]),
        "command line: +lora.dropuot=0.1: unknown key `lora.dropuot`\n  did you mean `lora.dropout`?"
    );
    assert_eq!(
        refusal(&["+learning_rate=0.1"]),
        "command line: +learning_rate=0.1: unknown key `learning_rate`\n  did you mean `training.learning_rate`?"
    );
}

#[test]
fn a_wrong_type_says_what_is_wanted() {
    assert_eq!(
        refusal(&["training.epochs=three"]),
        "command line: training.epochs=three: `training.epochs` must be a number above 0 and at most 10000, not the string `three`\n  the default is 3"
    );
    assert_eq!(
        refusal(&["training.batch_size=0"]),
        "command line: training.batch_size=0: `training.batch_size` must be a whole number of at least 1 and at most 16384, not 0\n  the default is 4"
    );
}

#[test]
fn an_unknown_option_comes_with_the_list() {
    assert_eq!(
        refusal(&["training.scheduler=cosin"]),
        "command line: training.scheduler=cosin: `training.scheduler` has no option `cosin`\n  did you mean `cosine`? options: cosine, linear, constant, warmup_stable_decay"
    );
    let text = refusal(&["model=tinny"]);
    assert!(text.contains("model=tinny"), "{text}");
    for option in ["gpt2", "llama3_8b", "tiny", "zephyr_7b"] {
        assert!(text.contains(option), "{text}");
    }
}

#[test]
fn values_of_later_versions_are_refused() {
    for key in keys::all().filter(|key| key.limit == Limit::OnlyDefault) {
        let other = match key.default {
            Default::Bool(b) => (!b).to_string(),
            Default::Int(i) => (i + 1).to_string(),
            _ => panic!("{}: only booleans and numbers are limited so", key.name),
        };
        let text = refusal(&[&format!("{}={other}", key.name)]);
        assert!(text.contains("is not available in this version"), "{text}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = refusal(&["lora.r=0", "training.epochs=x", "+foo.bar=1"]);
    assert!(text.starts_with("3 problems in the config:\n"), "{text}");
    for part in ["`lora.r`", "`training.epochs`", "`foo"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn composing_resolving_and_checking_report_together() {
    let text = refusal(&["lora.dropuot=0.1", "lora.r=x"]);
    assert!(text.starts_with("2 problems in the config:\n"), "{text}");
    assert!(text.contains("did you mean 'lora.dropout'?"), "{text}");
    assert!(text.contains("`lora.r` must be"), "{text}");
    let text = refusal(&["lora.alpha=${lora.rr}", "training.epochs=x", "seed=???"]);
    assert!(text.starts_with("3 problems in the config:\n"), "{text}");
    assert!(text.contains("did you mean 'lora.r'?"), "{text}");
    assert!(text.contains("`seed` has no value yet"), "{text}");
}

#[test]
fn values_that_do_not_go_together() {
    for (overrides, part) in [
        (vec!["method=full"], "quantization=none"),
        (
            vec!["training.fp16=true", "training.bf16=true"],
            "both true",
        ),
        (
            vec![
                "training.early_stopping_patience=2",
                "training.val_ratio=0.0",
            ],
            "needs validation",
        ),
        (
            vec!["training.metric_for_best_model=f1"],
            "`training.eval_examples` is 0",
        ),
        (
            vec![
                "training.metric_for_best_model=sas",
                "training.eval_examples=5",
            ],
            "`evaluate.sas_model` does not ask for",
        ),
        (vec!["quantization.block_size=100"], "power of two"),
        (vec!["model.path=null"], "no base model"),
        (
            vec!["model.name=org/small"],
            "model.path=null model.name=org/small",
        ),
        (vec!["lora.target_modules=[]"], "nothing would be trained"),
        (
            vec!["task=text", "task.metrics=[f1]", "data.path=a.txt"],
            "must be empty",
        ),
        (
            vec!["inference.use_stop_tokens=true", "inference.stop=[]"],
            "`inference.stop` is empty",
        ),
        (vec!["mode=infer"], "not for `run train`"),
        (vec!["task=text"], "nothing to train on"),
    ] {
        let text = refusal(&overrides);
        assert!(text.contains(part), "{overrides:?}: {text}");
    }
    assert!(refusal(&["method=full"]).starts_with("command line: method=full: "));
    config(&["method=full", "quantization=none"]);
}

#[test]
fn a_missing_value_and_a_file_with_its_line() {
    let dir = folder(&[(
        "mine.yaml",
        "defaults:\n  - config\n  - _self_\n\nlora:\n  rank: 8\ntraining:\n  epochs: three\n",
    )]);
    let text = with_folder(dir.path(), "mine", &[])
        .err()
        .unwrap_or_default();
    let at = |line: usize| format!("{}:{line}: ", dir.path().join("mine.yaml").display());
    assert!(text.starts_with("2 problems"), "{text}");
    assert!(
        text.contains(&format!("{}unknown key `lora.rank`", at(6))),
        "{text}"
    );
    assert!(
        text.contains(&format!("{}`training.epochs` must be", at(8))),
        "{text}"
    );
    // Merged over a value, `???` leaves it; by itself it must be filled.
    let dir = folder(&[("mine.yaml", "model:\n  path: m\n\nseed: ???\n")]);
    let text = with_folder(dir.path(), "mine", &[])
        .err()
        .unwrap_or_default();
    assert!(
        text.starts_with(&format!(
            "{}:4: `seed` has no value yet",
            dir.path().join("mine.yaml").display()
        )),
        "{text}"
    );
    assert!(text.contains("set it: seed=VALUE"), "{text}");
}

#[test]
fn a_users_own_config_needs_only_its_own_keys() {
    let dir = folder(&[(
        "mine.yaml",
        "lora:\n  r: 4\ndata:\n  path: mine.csv\nmodel:\n  path: m\n",
    )]);
    let job = with_folder(dir.path(), "mine", &["lora.r=5"]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(job.config.lora.r, 5);
    assert_eq!(job.config.lora.alpha, 32.0);
    assert_eq!(job.config.training.epochs, 3.0);
}

#[test]
fn the_resolved_config_repeats_the_job() {
    let overrides = [
        "task=saq",
        "lora.alpha=${lora.r}",
        "training.learning_rate=3e-7",
        "prompt.option_separator='\\${seed}'",
    ];
    let job = Job::load(Command::Train, &request(&overrides)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(job.config.prompt.option_separator, "${seed}");
    let dir = folder(&[("config.resolved.yaml", &job.resolved_yaml())]);
    let again = with_folder(dir.path(), "config.resolved", &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.config, job.config);
    assert_eq!(again.resolved, job.resolved);
    assert_eq!(again.resolved_yaml(), job.resolved_yaml());
    assert_eq!(
        complete(&again.composed.job),
        again.composed.job,
        "a key is missing"
    );
}

#[test]
fn the_resolved_config_does_not_keep_how_the_run_was_resumed() {
    let request = request(&["training.resume=outputs/a", "seed=7"]);
    let job = Job::load(Command::Train, &request).unwrap_or_else(|e| panic!("{e}"));
    let dir = folder(&[("config.resolved.yaml", &job.resolved_yaml())]);
    let again = with_folder(dir.path(), "config.resolved", &[]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.config.training.resume, None);
    assert_eq!(again.config.seed, 7);
    assert!(job.config_yaml().contains("resume: outputs/a"));
}

#[test]
fn a_job_knows_what_its_run_directory_keeps() {
    let overrides = ["lora.r=8", "hydra.job.name=x", "lora.alpha=${lora.r}"];
    let mut job = Job::load(Command::Train, &request(&overrides)).unwrap_or_else(|e| panic!("{e}"));
    assert!(job.config_yaml().contains("alpha: ${lora.r}"));
    assert!(job.resolved_yaml().contains("alpha: 8"));
    assert_eq!(job.overrides_yaml(), "- lora.r=8\n- lora.alpha=${lora.r}\n");
    job.set_output_dir(Path::new("/some/where"))
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(job.hydra_yaml().starts_with("hydra:\n"));
    assert!(job.hydra_yaml().contains("output_dir: /some/where"));
    assert!(job.run_dir.starts_with("outputs") && !job.run_dir_given);
    let job = Job::load(Command::Train, &request(&["hydra.run.dir=out/mine"]))
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        (job.run_dir, job.run_dir_given),
        (PathBuf::from("out/mine"), true)
    );
}

#[test]
fn a_run_directory_with_the_time_in_a_file_is_a_pattern() {
    let given = |dir: &str, overrides: &[&str]| {
        let text = format!("defaults:\n  - config\n  - _self_\nhydra:\n  run:\n    dir: {dir}\n");
        let folder = folder(&[("mine.yaml", &text)]);
        let job = with_folder(folder.path(), "mine", overrides).unwrap_or_else(|e| panic!("{e}"));
        job.run_dir_given
    };
    assert!(given("out/mine", &[]));
    assert!(!given("out/${now:%Y}/${now:%H-%M-%S}", &[]));
    assert!(given("out/${now:%Y}", &["hydra.run.dir=here"]));
    assert!(given("out/mine", &["hydra.run.dir=out/${now:%Y}"]));
}

#[test]
fn the_documented_keys_are_the_table() {
    const BEGIN: &str = "<!-- keys:begin";
    const END: &str = "<!-- keys:end -->";
    let path = root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{e}"));
    let begin = page.find(BEGIN).unwrap_or_else(|| panic!("no {BEGIN}"));
    let body = page[begin..]
        .find('\n')
        .map_or(page.len(), |i| begin + i + 1);
    let end = page.find(END).unwrap_or_else(|| panic!("no {END}"));
    let fresh = format!("{}\n{}\n{}", &page[..body], markdown(), &page[end..]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, fresh).unwrap_or_else(|e| panic!("{e}"));
    } else {
        assert!(
            page == fresh,
            "docs/configuration.md is out of date: run UPDATE_DOCS=1 cargo test --test compose config"
        );
    }
    for (group, options) in project_groups() {
        for option in options {
            assert!(
                page.contains(&format!("`{group}`")) && page.contains(&format!("`{option}`")),
                "docs/configuration.md does not name {group}={option}"
            );
        }
    }
}
