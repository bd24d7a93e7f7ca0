//! The errors in docs/hydra.md are what the program prints. `errors/cases.jsonl`
//! holds one command a line with Hydra's answer in short; the configs are in
//! `errors/tree`. `UPDATE_DOCS=1 cargo test --test cli errors_doc` writes the page anew.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- errors:begin";
const END: &str = "<!-- errors:end -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(root().join("tests/errors/cases.jsonl"))
        .unwrap_or_else(|e| panic!("{e}"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}

/// What the command prints, which must be an error. Paths of this checkout are cut.
fn message(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_run"))
        .args(args)
        .current_dir(root())
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap_or_else(|e| panic!("{e}"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?} prints to stdout");
    assert!(
        text.starts_with("error: ") && !text.contains("panick"),
        "{args:?}: {text}"
    );
    text.replace(&format!("{}/", root().display()), ".../")
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./@~,:".contains(c);
    if arg.chars().all(plain) && !arg.starts_with('~') {
        arg.to_string()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

fn markdown() -> String {
    let mut page = String::new();
    for case in cases() {
        if let Some(section) = case["section"].as_str() {
            let _ = write!(page, "\n### {section}\n");
            continue;
        }
        let args: Vec<&str> = case["args"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|arg| arg.as_str())
            .collect();
        let (title, hydra) = (case["title"].as_str(), case["hydra"].as_str());
        let (Some(title), Some(hydra)) = (title, hydra) else {
            panic!("a case lacks its title or Hydra's answer: {case}");
        };
        let typed: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        let _ = write!(
            page,
            "\n**{title}.** Hydra: {hydra}\n\n```text\n$ run {}\n{}```\n",
            typed.join(" "),
            message(&args)
        );
    }
    page
}

#[test]
fn the_errors_of_the_page_are_what_is_printed() {
    let path = root().join("docs/hydra.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{e}"));
    let begin = page.find(BEGIN).unwrap_or_else(|| panic!("no {BEGIN}"));
    let body = page[begin..]
        .find('\n')
        .map_or(page.len(), |i| begin + i + 1);
    let end = page.find(END).unwrap_or_else(|| panic!("no {END}"));
    let fresh = format!("{}{}\n{}", &page[..body], markdown(), &page[end..]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, fresh).unwrap_or_else(|e| panic!("{e}"));
    } else {
        for (ours, printed) in page.lines().zip(fresh.lines()) {
            assert_eq!(
                ours, printed,
                "docs/hydra.md is out of date: run UPDATE_DOCS=1 cargo test --test cli errors_doc"
            );
        }
        assert_eq!(page.len(), fresh.len(), "docs/hydra.md is out of date");
    }
}

#[test]
fn a_typo_is_never_answered_with_plus() {
    for case in cases() {
        let is_typo = |title: &str| title.to_lowercase().contains("misspelt");
        if !case["title"].as_str().is_some_and(is_typo) {
            continue;
        }
        let args: Vec<&str> = case["args"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|arg| arg.as_str())
            .collect();
        let text = message(&args);
        assert!(text.contains("did you mean"), "{args:?}: {text}");
        assert!(!text.contains("write +"), "{args:?}: {text}");
    }
}
