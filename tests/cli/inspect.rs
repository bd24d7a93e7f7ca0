//! Asking about a config through the binary: `--info`, `--why`, `--origins`, the
//! config in the help.

use std::path::Path;
use std::process::{Command, Output};

use kiln::compose::{Request, Source, compose};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_run"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|e| panic!("{e}"))
}

fn ok(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(args: &[&str], code: i32) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    stderr
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    for (name, text) in files {
        let path = dir.path().join(name);
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).unwrap_or_else(|e| panic!("{e}"));
        std::fs::write(path, text).unwrap_or_else(|e| panic!("{e}"));
    }
    dir
}

/// What hydra-core 1.3.8 prints for the tree, below its own config.
const TREE: &str = "\
  config:
    db: mysql
    server: apache:
      server/tls: full
      _self_
      db@server.backup: sqlite
    optim: sgd
    experiment: null
    model: sgd_small
    _self_
";

#[test]
fn the_defaults_are_laid_out_as_hydra_lays_them_out() {
    let base = ["compose", "-cd", "tests/compose/tree", "optim=sgd"];
    let with = |more: &[&str]| ok(&[&base[..], more].concat());
    let tree = with(&["server/tls=full", "--info", "defaults-tree"]);
    let start =
        "\nDefaults Tree\n*************\n<root>:\n  hydra/config:\n    hydra/output: default\n";
    assert!(tree.starts_with(start) && tree.ends_with(TREE), "{tree}");
    let list = with(&["-i", "defaults"]);
    for line in [
        "| Config path | Package | _self_ | Parent |",
        "| hydra/output/default | hydra | False | hydra/config |",
        "| hydra/config | hydra | True | <root> |",
        "| db/mysql | db | False | config |",
        "| db/sqlite | server.backup | False | server/apache |",
        "| config | | True | <root> |",
    ] {
        let words = |l: &str| l.split_whitespace().eq(line.split_whitespace());
        assert!(list.lines().any(words), "{line}\n{list}");
    }
    let path = with(&["--info=searchpath", "hydra.searchpath=[elsewhere]"]);
    for part in [
        "| hydra                            | pkg://hydra.conf ",
        "| main                             | file:///",
        "| hydra.searchpath in command-line | file://elsewhere ",
        "| schema                           | structured://",
    ] {
        assert!(path.contains(part), "{part}\n{path}");
    }
    let all = with(&["-i"]);
    let parts = [
        "Kiln ",
        "Config search path\n",
        "Defaults Tree\n",
        "Defaults List\n",
        "\nConfig\n",
    ];
    let places: Vec<Option<usize>> = parts.iter().map(|part| all.find(part)).collect();
    assert!(places.is_sorted() && !places.contains(&None), "{all}");
    assert!(all.contains("\nseed: 42\n"));
    assert_eq!(with(&["--info", "config"]).find("Kiln "), None);
}

#[test]
fn info_shows_what_it_can_of_a_broken_config() {
    let dir = folder(&[
        ("config.yaml", "defaults: [{a: x}, {b@a: y}, _self_]\n"),
        ("a/x.yaml", "k: {l: 1}\n"),
        ("b/y.yaml", "k: [1]\n"),
    ]);
    let at = dir.path().to_string_lossy().into_owned();
    let output = run(&["compose", "--config-dir", &at, "--info"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("| b/y ") && !text.contains("\nConfig\n"),
        "{text}"
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("y.yaml:1"), "{text}");
}

#[test]
fn why_tells_every_setter() {
    assert_eq!(
        ok(&["train", "lora.r=8", "--why", "lora.r"]),
        "8, command line; was 16, configs/lora/default.yaml:2\n"
    );
    let text = ok(&[
        "eval",
        "--why",
        "lora",
        "lora.alpha=${lora.r}",
        "--why",
        "seed",
    ]);
    for line in [
        "lora.r: 16, configs/lora/default.yaml:2",
        "lora.alpha: 16 from ${lora.r}, command line; was 32, configs/lora/default.yaml:4",
        "seed: 42, configs/config.yaml:19",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    let error = refused(&["train", "--why", "lora.dropuot"], 1);
    assert!(error.contains("did you mean 'lora.dropout'?"), "{error}");
    assert!(error.starts_with("error: there is no key 'lora.dropuot'"));
    // A value that the tree lacks has the default of the table.
    let dir = folder(&[("small.yaml", "lora: {r: 4}\ndata: {path: a.csv}\n")]);
    let at = dir.path().to_string_lossy().into_owned();
    let base = ["train", "-cd", &at, "-cn", "small", "--why"];
    let text = ok(&[&base[..], &["lora.r"]].concat());
    assert!(
        text.starts_with("4, ") && text.ends_with("small.yaml:1; was 16, built-in default\n"),
        "{text}"
    );
    let text = ok(&[&base[..], &["lora.alpha"]].concat());
    assert_eq!(text, "32, built-in default\n");
    let text = ok(&[
        "compose", "-cd", &at, "-cn", "small", "x.y=1", "+x.y=1", "--why", "x.y",
    ]
    .into_iter()
    .filter(|arg| *arg != "x.y=1")
    .collect::<Vec<_>>());
    assert_eq!(text, "1, command line\n");
}

#[test]
fn origins_are_comments_that_change_nothing() {
    let base = [
        "train",
        "--cfg",
        "job",
        "task=squad",
        "seed=7",
        "prompt.answer=\"a # b\"",
    ];
    let plain = ok(&base);
    let noted = ok(&[&base[..], &["--origins"]].concat());
    assert!(noted.contains("\nseed: 7  # command line; was 42, configs/config.yaml:19\n"));
    assert!(
        noted.contains("\n  - q_proj  # configs/lora/default.yaml:8\n"),
        "{noted}"
    );
    let read = |text: &str| {
        let dir = folder(&[("config.yaml", text)]);
        let request = Request {
            sources: vec![Source::dir("main", dir.path())],
            config_name: Some("config".to_string()),
            ..Request::default()
        };
        compose(&request)
            .unwrap_or_else(|e| panic!("{e}\n{text}"))
            .job
    };
    assert_eq!(read(&plain), read(&noted));
    for line in noted.lines().filter(|line| !line.contains("  # ")) {
        // Only mappings, and texts of several lines, have lines without a comment.
        let is_inside = line.is_empty() || line.starts_with(' ') || line.contains(": '");
        assert!(line.ends_with(':') || is_inside, "{line}");
    }
    let part = ok(&["train", "--cfg", "all", "-p", "hydra.job", "--origins"]);
    assert!(
        part.starts_with("# @package hydra.job\nname: run  # built-in default"),
        "{part}"
    );
    let scalar = ok(&[
        "train",
        "-c",
        "job",
        "-p",
        "lora.r",
        "--origins",
        "lora.r=2",
    ]);
    assert_eq!(
        scalar,
        "2  # command line; was 16, configs/lora/default.yaml:2\n"
    );
}

#[test]
fn one_thing_is_asked_at_a_time() {
    for args in [
        &["train", "--info", "--cfg", "job"][..],
        &["train", "--why", "seed", "--info", "all"],
        &["compose", "--cfg", "job", "--info", "all"],
        &["compose", "--resolve", "--why", "seed"],
        &["train", "--info", "plugins"],
        &["train", "--origins"],
        &["train", "--resolve"],
        &["train", "-sc", "nothing"],
    ] {
        refused(args, 2);
    }
}

#[test]
fn help_ends_with_the_config() {
    let text = ok(&["train", "--help", "lora.r=8", "lora.alpha=${lora.r}"]);
    assert!(
        text.contains("\nlora:\n  r: 8\n  alpha: ${lora.r}\n"),
        "{text}"
    );
    let text = ok(&[
        "train",
        "-h",
        "--resolve",
        "lora.r=8",
        "lora.alpha=${lora.r}",
    ]);
    assert!(text.contains("\nlora:\n  r: 8\n  alpha: 8\n"), "{text}");
    let text = ok(&["train", "-h", "lora.rr=8"]);
    let end = "makes no config:\n  command line: lora.rr=8: cannot override 'lora.rr': there is no such key\n    did you mean 'lora.r'?\n";
    assert!(text.ends_with(end), "{text}");
    let text = ok(&["compose", "-h", "-cd", "tests/compose/tree"]);
    assert!(
        text.contains("  optim ") && text.contains("\nseed: 42\n"),
        "{text}"
    );
}

/// Selecting comes before resolving, goes through interpolations, and prints
/// scalars as Python does; all as hydra-core 1.3.8.
#[test]
fn a_package_is_selected_as_hydra_selects_it() {
    let config = "a: {b: 1, c: '${x}'}\nw: ${a}\nx: 1e-05\nt: true\ni: .inf\nn: null\nbad: ${nope}\n\
                  l: [{k: '${x}'}]\nm: ???\nh: ${hydra:job.name}\n";
    let dir = folder(&[("config.yaml", config)]);
    let path = dir.path().to_string_lossy().into_owned();
    let part = |more: &[&str]| {
        let fixed = ["compose", "--config-dir", &path];
        run(&[&fixed[..], more].concat())
    };
    let shown = |more: &[&str]| {
        let output = part(more);
        assert_eq!(output.status.code(), Some(0), "{more:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (package, text) in [
        ("w", "# @package w\nb: 1\nc: ${x}\n"),
        ("w.b", "1\n"),
        (".a.b", "1\n"),
        (".a", "# @package .a\nb: 1\nc: ${x}\n"),
        ("w.c", "1e-05\n"),
        ("t", "True\n"),
        ("i", "inf\n"),
        ("l[0]", "# @package l[0]\nk: ${x}\n"),
        ("h", "run\n"),
    ] {
        assert_eq!(shown(&["-p", package]), text, "{package}");
    }
    assert_eq!(
        shown(&["--resolve", "-p", "w"]),
        "# @package w\nb: 1\nc: 1.0e-05\n"
    );
    assert_eq!(shown(&["-p", "_global_"]), shown(&[]));
    for package in ["", "."] {
        let all = shown(&["-p", package]);
        assert_eq!(all, format!("# @package {package}\n{}", shown(&[])));
    }
    for package in ["n", "m", "a.b.c", "..a", "l.7", "hydra"] {
        let output = part(&["-p", package]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{package}");
        assert!(
            text.contains(&format!("package '{package}' not found")),
            "{text}"
        );
    }
    assert!(String::from_utf8_lossy(&part(&["-p", "bad"]).stderr).contains("'nope' not found"));
}

#[test]
fn the_texts_of_hydras_help_are_shown_with_all_only() {
    let base = ["compose", "-cd", "tests/errors/tree", "--cfg"];
    let shown = |more: &[&str]| ok(&[&base[..], more].concat());
    let is_help = |line: &str| {
        line.trim_start()
            .trim_start_matches("hydra_")
            .starts_with("help:")
    };
    for args in [
        &["hydra"][..],
        &["hydra", "-p", "hydra"],
        &["hydra", "--resolve"],
    ] {
        let text = shown(args);
        assert!(
            text.contains("launcher:") && !text.lines().any(is_help),
            "{text}"
        );
    }
    assert!(shown(&["all"]).contains("\n  hydra_help:\n"));
    assert!(shown(&["all", "-p", "hydra.help"]).contains("app_name"));
    let args = [&base[..], &["hydra", "-p", "hydra.help"]].concat();
    assert!(refused(&args, 1).contains("'hydra.help' not found"));
    assert_eq!(
        shown(&["all", "-p", "hydra.mode", "hydra.mode=RUN"]),
        "RunMode.RUN\n"
    );
}
