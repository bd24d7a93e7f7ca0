//! What a config key means, in words for a terminal.

use std::fmt::Write;

use thiserror::Error;

use super::keys::{self, Key, SECTIONS, elsewhere, related};
use crate::compose::nearest;

/// Lines are broken at this many characters.
const WIDTH: usize = 88;

/// A word that is no key.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{word}: there is no such key or group of keys{}", likely(.near))]
pub struct Unknown {
    pub word: String,
    /// Names that are close to it.
    pub near: Vec<String>,
}

fn likely(near: &[String]) -> String {
    match near {
        [] => "; `run train --help` lists all keys".to_string(),
        near => format!("; did you mean {}?", near.join(", ")),
    }
}

/// What a word names.
#[derive(Debug)]
pub enum Topic {
    /// One key, or several whose last parts are the word: `batch_size`.
    Keys(Vec<&'static Key>),
    /// All keys below a prefix such as `lora`, which may be a config group as well.
    Branch(String),
}

/// A group of config files, as far as an explanation needs it.
pub struct Group {
    pub name: String,
    pub options: Vec<String>,
}

/// What `word` names: a key, a prefix of keys, the last part of keys, or a key under the name
/// that other programs give it.
///
/// # Errors
/// Nothing has this name; the error has the nearest ones.
pub fn topic(word: &str, groups: &[Group]) -> Result<Topic, Unknown> {
    let word = word.trim_end_matches('.');
    if word == "hydra" {
        return Ok(Topic::Keys(keys::hydra::KEYS.iter().collect()));
    }
    if let Some(key) = keys::find(word).or_else(|| keys::hydra::find(word)) {
        return Ok(Topic::Keys(vec![key]));
    }
    if keys::is_branch(word) || groups.iter().any(|group| group.name == word) {
        return Ok(Topic::Branch(word.to_string()));
    }
    let tail = format!(".{word}");
    let named: Vec<&Key> = keys::all().filter(|k| k.name.ends_with(&tail)).collect();
    if !word.is_empty() && !named.is_empty() {
        return Ok(Topic::Keys(named));
    }
    let called = elsewhere::called(word);
    if let Some(key) = called.and_then(|key| keys::find(key).or_else(|| keys::hydra::find(key))) {
        return Ok(Topic::Keys(vec![key]));
    }
    let near = near(word, groups);
    let word = word.to_string();
    Err(Unknown { word, near })
}

/// The nearest name by spelling, of whole keys and of their last parts, and keys that
/// contain the word.
fn near(word: &str, groups: &[Group]) -> Vec<String> {
    const MOST: usize = 5;
    let mut near: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !near.iter().any(|one| one == name) {
            near.push(name.to_string());
        }
    };
    let branches =
        keys::all().flat_map(|key| key.name.match_indices('.').map(|(at, _)| &key.name[..at]));
    let names = keys::all().map(|key| key.name).chain(branches);
    let names = names.chain(groups.iter().map(|group| group.name.as_str()));
    let names = names.chain(keys::hydra::KEYS.iter().map(|key| key.name));
    if let Some(name) = nearest(word, names) {
        add(name);
    }
    let last = |key: &Key| key.name.rsplit('.').next().unwrap_or(key.name);
    let tail = word.rsplit('.').next().unwrap_or(word);
    if let Some(name) = nearest(tail, keys::all().map(last)) {
        let same = keys::all().filter(|key| last(key) == name);
        same.for_each(|key| add(key.name));
    }
    if tail.len() > 2 {
        let with = keys::all().filter(|key| key.name.contains(&tail.to_lowercase()));
        with.for_each(|key| add(key.name));
    }
    near.truncate(MOST);
    near
}

/// One key: what it is, what it takes, how it acts, what goes with it, how to set it.
/// `value`: what it holds in a config and who set it.
pub fn key(key: &Key, value: Option<&str>) -> String {
    let heading = wrapped(&format!("{}: {}", key.name, key.help), WIDTH);
    let mut out = heading.join("\n") + "\n\n";
    let mut row = |name: &str, text: &str| {
        let indent = " ".repeat(10);
        let lines = wrapped(text, WIDTH - indent.len());
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<8}{}", lines.join(&format!("\n{indent}")));
    };
    row("takes", &key.type_text());
    row("default", &key.default.to_string());
    if let Some(value) = value {
        row("value", value);
    }
    let names = elsewhere::names(key.name).join(", ");
    if !names.is_empty() {
        row("called", &format!("{names} elsewhere"));
    }
    row(
        "set it",
        &format!("run {} {}", key.command(), key.example()),
    );
    if !key.about.is_empty() {
        let _ = writeln!(out, "\n{}", wrapped(key.about, WIDTH).join("\n"));
    }
    let mentioned = key.mentions();
    let bundles: Vec<&related::Bundle> = related::bundles(key.name).collect();
    if !mentioned.is_empty() || !bundles.is_empty() {
        out.push_str("\nrelated\n");
    }
    let mut related = |about: &str, names: &[&str]| {
        let text = format!("{about}: {}", names.join(", "));
        let lines = wrapped(&text, WIDTH - 4);
        let _ = writeln!(out, "  {}", lines.join("\n    "));
    };
    for bundle in &bundles {
        let others: Vec<&str> = bundle
            .keys
            .iter()
            .copied()
            .filter(|k| *k != key.name)
            .collect();
        related(bundle.about, &others);
    }
    let said = |name: &&str| bundles.iter().any(|bundle| bundle.keys.contains(name));
    let others: Vec<&str> = mentioned.into_iter().filter(|name| !said(name)).collect();
    if !others.is_empty() {
        related("see also", &others);
    }
    out
}

/// The keys below `prefix`, a line each, and the files of the config group of that name.
pub fn branch(prefix: &str, groups: &[Group], value: &dyn Fn(&str) -> Option<String>) -> String {
    let below = |key: &&Key| {
        let rest = key.name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let mut out = String::new();
    let section = SECTIONS
        .iter()
        .find(|s| s.keys.iter().any(|key| below(&key)));
    match section {
        Some(section) => {
            let _ = writeln!(out, "{prefix}: {}\n", section.title);
            let _ = writeln!(out, "{}", wrapped(section.about, WIDTH).join("\n"));
        }
        None => {
            let _ = writeln!(out, "{prefix}: a group of config files");
        }
    }
    if let Some(group) = groups.iter().find(|group| group.name == prefix) {
        let text = format!("{prefix}=NAME chooses one of {}", group.options.join(", "));
        let _ = writeln!(out, "\n{}", wrapped(&text, WIDTH).join("\n"));
    }
    let found: Vec<&Key> = keys::all().filter(below).collect();
    let width = found.iter().map(|key| key.name.len()).max().unwrap_or(0);
    if !found.is_empty() {
        out.push('\n');
    }
    for key in found {
        let shown = match value(key.name) {
            Some(value) => format!("[{}] now {value}", key.default),
            None => format!("[{}]", key.default),
        };
        let _ = writeln!(out, "  {:width$}  {} {shown}", key.name, key.help);
    }
    out
}

/// Text in lines of at most `width` characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else {
            break;
        };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(word: &str) -> Vec<&'static str> {
        match topic(word, &[]) {
            Ok(Topic::Keys(keys)) => keys.iter().map(|key| key.name).collect(),
            other => panic!("{word}: {other:?}"),
        }
    }

    #[test]
    fn a_key_is_found_by_its_name_or_the_end_of_it() {
        assert_eq!(names("lora.r"), ["lora.r"]);
        assert_eq!(names("seed"), ["seed"]);
        assert_eq!(names("hydra.run.dir"), ["hydra.run.dir"]);
        assert_eq!(names("hydra").len(), 7);
        assert_eq!(names("learning_rate"), ["training.learning_rate"]);
        assert_eq!(
            names("batch_size"),
            ["training.batch_size", "inference.batch_size"]
        );
        assert_eq!(
            names("validation.enabled"),
            ["inference.validation.enabled"]
        );
        for branch in ["lora", "training", "inference.validation", "data.columns."] {
            assert!(
                matches!(topic(branch, &[]), Ok(Topic::Branch(_))),
                "{branch}"
            );
        }
    }

    #[test]
    fn the_nearest_names_are_offered() {
        let near = |word: &str| topic(word, &[]).unwrap_err().near;
        assert_eq!(near("lora.rnak"), ["lora.r"]);
        assert_eq!(near("hydra.run.dri"), ["hydra.run.dir"]);
        assert_eq!(near("training.learnign_rate")[0], "training.learning_rate");
        assert_eq!(near("learnign_rate"), ["training.learning_rate"]);
        let temperature = near("training.temperature");
        assert!(temperature.contains(&"inference.temperature".to_string()));
        assert!(near("beta").contains(&"training.adam_beta1".to_string()));
        assert_eq!(near(""), [""; 0]);
        let text = topic("xyzzy", &[]).unwrap_err().to_string();
        assert!(text.contains("run train --help"), "{text}");
    }

    #[test]
    fn every_key_has_an_explanation_in_lines_of_bounded_length() {
        for entry in keys::all().chain(keys::hydra::KEYS) {
            let text = key(entry, Some("1, command line"));
            assert!(text.contains(&format!("run {} {}=", entry.command(), entry.name)));
            for line in text.lines() {
                let long = line.chars().count() > WIDTH && line.trim_start().contains(' ');
                assert!(!long || line.contains("set it"), "{line}");
            }
        }
    }
}
