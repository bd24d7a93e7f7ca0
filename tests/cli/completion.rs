//! Completion in the shell: the query that the scripts make, and the script of
//! bash where there is a bash.

use std::process::Command;

fn query(shell: &str, line: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_run"))
        .args(["-sc", &format!("query={shell}")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("COMP_LINE", line)
        .env_remove("COMP_POINT")
        .env("COMP_WORDBREAKS", " \t\n\"'@><=;|&(:")
        .output()
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{line}"
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_string).collect()
}

/// Whole words, without what they are.
fn words(line: &str) -> Vec<String> {
    let answer = query("fish", line);
    let word = |line: &String| line.split('\t').next().map(str::to_string);
    answer.iter().filter_map(word).collect()
}

#[test]
fn commands_and_flags() {
    assert_eq!(words("run tr"), ["train"]);
    assert!(words("run ").contains(&"compose".to_string()));
    assert_eq!(words("run completion z"), ["zsh"]);
    assert_eq!(words("run pl"), ["plan"]);
    assert_eq!(words("run plan model=ti"), ["model=tiny"]);
    assert_eq!(words("run doctor --j"), ["--json"]);
    assert_eq!(words("run train --config-n"), ["--config-name"]);
    assert_eq!(words("run train seed=1 --cfg h"), ["hydra"]);
    assert_eq!(words("run train --cfg=h"), ["--cfg=hydra"]);
    assert_eq!(words("run train --info d"), ["defaults", "defaults-tree"]);
    assert_eq!(words("run train --why lora.dr"), ["lora.dropout"]);
    assert_eq!(words("run train --no-such "), words("run train "));
    assert_eq!(words("run train -- --c"), [""; 0]);
    assert_eq!(words("run no-such-command "), [""; 0]);
}

#[test]
fn groups_options_keys_and_values() {
    for (line, expected) in [
        ("run train model=ti", vec!["model=tiny"]),
        ("run train --cfg job +experi", vec!["+experiment="]),
        ("run eval +experiment=[mcq,sa", vec!["+experiment=[mcq,saq"]),
        ("run infer 'experiment=[mcq,sa", vec!["experiment=[mcq,saq"]),
        ("run train lora.dr", vec!["lora.dropout="]),
        ("run train ~lora.dr", vec!["~lora.dropout"]),
        ("run train ++lora.dr", vec!["++lora.dropout="]),
        (
            "run train training.scheduler=co",
            vec!["training.scheduler=cosine", "training.scheduler=constant"],
        ),
        (
            "run train training.shuffle=f",
            vec!["training.shuffle=false"],
        ),
        ("run train lora.r=2 lora.r=", vec!["lora.r=2"]),
        (
            "run train data.path=configs/conf",
            vec!["data.path=configs/config.yaml"],
        ),
        (
            "run compose -cd tests/compose/tree optim=a",
            vec!["optim=adam"],
        ),
        (
            "run compose -cd tests/compose/tree tree.b.",
            vec!["tree.b.c=", "tree.b.d=", "tree.b.e=", "tree.b.f="],
        ),
        (
            "run compose -cd tests/compose/tree flag=",
            vec!["flag=true", "flag=false"],
        ),
        ("run compose -cd tests/compose/tree -cn ord", vec!["order"]),
        // The search path of the line itself.
        (
            "run train hydra.searchpath=[tests/compose/tree] +db=m",
            vec!["+db=mysql"],
        ),
        ("run train -cd tests/compose/tree +db=m", vec!["+db=mysql"]),
        ("run train data.path=no/such/dir/", vec![]),
        ("run train ((", vec![]),
    ] {
        assert_eq!(words(line), expected, "{line}");
    }
}

#[test]
fn bash_gets_the_end_of_its_word() {
    for (line, expected) in [
        ("run train model=ti", vec!["tiny "]),
        ("run train +model@teacher=gp", vec!["gpt2 "]),
        ("run train lora.dr", vec!["lora.dropout="]),
        ("run train 'model=ti", vec!["model=tiny"]),
        (
            "run train lora.target_modules=[q_proj,k",
            vec!["[q_proj,k_proj"],
        ),
        // Two, so that readline does not close the quote.
        (
            "run train 'lora.target_modules=[q_proj,k",
            vec![
                "lora.target_modules=[q_proj,k_proj",
                "lora.target_modules=[q_proj,k_proj,",
            ],
        ),
    ] {
        assert_eq!(query("bash", line), expected, "{line}");
    }
    let zsh = query("zsh", "run train --cfg j");
    assert_eq!(zsh, ["job \tThe config of the job"]);
}

#[test]
fn the_script_of_bash_works_in_bash() {
    if Command::new("bash").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(dir.path().join("my data.csv"), "").unwrap_or_else(|e| panic!("{e}"));
    // What readline does: it cuts the line at the break characters and calls.
    let script = r#"
eval "$("$RUN" completion bash)" || exit 1
complete -p run || exit 1
try() {
    COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=("$RUN") COMP_CWORD=0
    COMP_WORDBREAKS=$' \t\n"\'@><=;|&(:'
    _run_completion
    printf '<%s>' "${COMPREPLY[@]}"
    echo
}
try 'run train model=ti'
try 'run train data.path=my'
try 'run train "data.path=my'
try 'run compl'
eval "$("$RUN" -sc uninstall=bash)"
complete -p run 2>/dev/null || echo gone
"#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script])
        .current_dir(dir.path())
        .env("RUN", env!("CARGO_BIN_EXE_run"))
        .output()
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "complete -o nospace -F _run_completion run\n<tiny >\n<my\\ data.csv >\n<data.path=my data.csv>\n<completion >\ngone\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
