//! Inputs: a small config tree and a command line over it.

use std::fmt;

use super::corpus::{FILES, INTERPOLATIONS, NAMES, OVERRIDES, SCALARS};
use super::mutate;
use super::rng::Rng;

/// One case.
#[derive(Default)]
pub struct Input {
    /// Relative path and content; `config.yaml` is the primary one.
    pub files: Vec<(String, Vec<u8>)>,
    pub overrides: Vec<String>,
    pub multirun: bool,
}

/// A literal that can be pasted into a test.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Input {{\n    files: vec![")?;
        for (path, bytes) in &self.files {
            let text = bytes.escape_ascii();
            writeln!(f, "        ({path:?}.into(), b\"{text}\".to_vec()),")?;
        }
        writeln!(f, "    ],\n    overrides: vec![")?;
        for one in &self.overrides {
            writeln!(f, "        {one:?}.into(),")?;
        }
        write!(f, "    ],\n    multirun: {},\n}}", self.multirun)
    }
}

/// The tree that overrides are tried on: groups, packages, interpolations, lists.
const TREE: &[(&str, &str)] = &[
    (
        "config.yaml",
        "defaults:\n- g: one\n- h: null\n- _self_\na: {b: 1, c: '${b}'}\nb: x\nx: [1, two, {k: 3}]\nz: ???\n",
    ),
    ("g/one.yaml", "n: 1\nl: [${b}]\n"),
    ("g/two.yaml", "defaults:\n- sub: deep\nn: 2\n"),
    ("g/sub/deep.yaml", "q: ${..n}\n"),
    ("h/three.yaml", "# @package _global_\na: {b: 7}\n"),
];

impl Input {
    pub fn new(rng: &mut Rng) -> Input {
        let mut input = Input {
            multirun: rng.one_in(4),
            ..Input::default()
        };
        match rng.below(5) {
            0 => {
                input.plain_tree();
                input.add_overrides(rng, 1);
            }
            1 => {
                let file = file(rng);
                input.add("config.yaml", file);
            }
            2 => {
                input.plain_tree();
                let list = defaults(rng);
                input.files[0].1.splice(0.., list.into_bytes());
                let group = rng.pick(&["g/one.yaml", "g/two.yaml", "h/three.yaml"]);
                let list = defaults(rng);
                input.add(group, list.into_bytes());
                input.add_overrides(rng, 3);
            }
            3 => {
                for (path, _) in TREE {
                    if !rng.one_in(6) {
                        let file = file(rng);
                        input.add(path, file);
                    }
                }
                input.add_overrides(rng, 2);
            }
            _ => {
                let mut text = String::new();
                for key in ["a", "b", "c", "d", "x"] {
                    let mut value = interpolation(rng, 0);
                    if rng.one_in(8) {
                        mutate::text(rng, &mut value);
                    }
                    text.push_str(&format!("{key}: {}\n", quoted(rng, &value)));
                }
                input.add("config.yaml", text.into_bytes());
            }
        }
        input
    }

    fn plain_tree(&mut self) {
        for (path, text) in TREE {
            self.add(path, text.as_bytes().to_vec());
        }
    }

    /// Adds a file, or replaces the one of that name.
    fn add(&mut self, path: &str, content: Vec<u8>) {
        match self.files.iter_mut().find(|(name, _)| name == path) {
            Some((_, old)) => *old = content,
            None => self.files.push((path.to_string(), content)),
        }
    }

    /// One override in `spare`, or several.
    fn add_overrides(&mut self, rng: &mut Rng, spare: usize) {
        if !rng.one_in(spare) {
            return;
        }
        for _ in 0..1 + rng.below(3) {
            let mut text = if rng.one_in(3) {
                rng.pick(OVERRIDES).to_string()
            } else {
                let prefix = rng.pick(&["", "", "", "+", "++", "~"]);
                format!("{prefix}{}={}", rng.pick(NAMES), value(rng, 0))
            };
            if rng.one_in(3) {
                mutate::text(rng, &mut text);
            }
            self.overrides.push(text);
        }
    }
}

/// A value of the override grammar.
fn value(rng: &mut Rng, depth: usize) -> String {
    if depth > 4 {
        return rng.pick(SCALARS).to_string();
    }
    let list = |rng: &mut Rng| -> String {
        let items: Vec<String> = (0..rng.count().min(30))
            .map(|_| value(rng, depth + 1))
            .collect();
        items.join(rng.pick(&[",", ", ", " , "]))
    };
    match rng.below(12) {
        0 => format!("[{}]", list(rng)),
        1 => {
            let pairs: Vec<String> = (0..rng.below(4))
                .map(|_| format!("{}:{}", rng.pick(NAMES), value(rng, depth + 1)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
        2 => {
            let name = rng.pick(&[
                "choice",
                "range",
                "interval",
                "glob",
                "sort",
                "shuffle",
                "tag",
                "int",
                "float",
                "str",
                "bool",
                "json_str",
                "extend_list",
                "nope",
            ]);
            let named = rng.pick(&["", ",reverse=true", ",start=1", ",exclude=a*", ",step=0.5"]);
            format!("{name}({}{named})", list(rng))
        }
        3 => interpolation(rng, depth),
        4 => list(rng),
        5 => format!("'{}'", value(rng, depth + 1)),
        6 => rng.pick(NAMES).to_string(),
        _ => rng.pick(SCALARS).to_string(),
    }
}

/// Text with interpolations in it.
fn interpolation(rng: &mut Rng, depth: usize) -> String {
    if depth > 5 {
        return rng.pick(INTERPOLATIONS).to_string();
    }
    match rng.below(8) {
        0 => format!("${{{}}}", path(rng, depth)),
        1 => format!(
            "{}{}",
            interpolation(rng, depth + 1),
            interpolation(rng, depth + 1)
        ),
        2 | 3 => {
            let name = rng.pick(&[
                "oc.env",
                "oc.decode",
                "oc.create",
                "oc.select",
                "oc.dict.keys",
                "oc.dict.values",
                "oc.deprecated",
                "now",
                "hydra",
                "mul",
                "add",
                "sub",
                "div",
                "min",
                "max",
                "round",
                "nope",
                "a",
            ]);
            let args: Vec<String> = (0..rng.below(4)).map(|_| value(rng, depth + 2)).collect();
            format!("${{{name}:{}}}", args.join(","))
        }
        4 => rng.pick(SCALARS).to_string(),
        _ => rng.pick(INTERPOLATIONS).to_string(),
    }
}

fn path(rng: &mut Rng, depth: usize) -> String {
    let mut path = ".".repeat(rng.below(8) / 4);
    for index in 0..1 + rng.below(3) {
        let step = match rng.below(4) {
            0 => interpolation(rng, depth + 1),
            _ => rng.pick(NAMES).to_string(),
        };
        path.push_str(&match (index, rng.below(3)) {
            (0, _) => step,
            (_, 0) => format!("[{step}]"),
            _ => format!(".{step}"),
        });
    }
    path
}

/// A text as a YAML scalar, in one of the styles.
fn quoted(rng: &mut Rng, text: &str) -> String {
    match rng.below(3) {
        0 => text.to_string(),
        1 => format!("'{}'", text.replace('\'', "''")),
        _ => format!("{text:?}"),
    }
}

/// A config file, sound or damaged.
fn file(rng: &mut Rng) -> Vec<u8> {
    let mut text = match rng.below(5) {
        0 | 1 => rng.pick(FILES).to_string(),
        2 => defaults(rng),
        _ => {
            let mut text = String::new();
            for _ in 0..1 + rng.below(5) {
                mapping(rng, 0, &mut text);
            }
            text
        }
    };
    if rng.one_in(12) {
        text = text.replace('\n', "\r\n");
    }
    let mut bytes = text.into_bytes();
    if rng.one_in(3) {
        mutate::bytes(rng, &mut bytes);
    }
    bytes
}

/// One `key: value` of a block mapping.
fn mapping(rng: &mut Rng, depth: usize, out: &mut String) {
    out.push_str(&"  ".repeat(depth));
    out.push_str(rng.pick(NAMES));
    out.push(':');
    if rng.one_in(10) {
        out.push_str(rng.pick(&[" &x", " !!map", " !!seq", " !!str", " &y"]));
    }
    match rng.below(8) {
        0 if depth < 6 => {
            out.push('\n');
            for _ in 0..1 + rng.below(3) {
                mapping(rng, depth + 1, out);
            }
        }
        1 => {
            out.push('\n');
            for _ in 0..1 + rng.count() {
                out.push_str(&format!("{}- {}\n", "  ".repeat(depth), flow(rng, 0)));
            }
        }
        2 => out.push_str(&format!(" |\n{}text\n", "  ".repeat(depth + 1))),
        _ => out.push_str(&format!(" {}\n", flow(rng, 0))),
    }
}

/// A value on one line.
fn flow(rng: &mut Rng, depth: usize) -> String {
    let items = |rng: &mut Rng| -> Vec<String> {
        (0..rng.below(4)).map(|_| flow(rng, depth + 1)).collect()
    };
    match rng.below(9) {
        0 if depth < 5 => format!("[{}]", items(rng).join(", ")),
        1 if depth < 5 => {
            let pairs: Vec<String> = items(rng)
                .iter()
                .map(|item| format!("{}: {item}", rng.pick(NAMES)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        2 => {
            let text = interpolation(rng, 2);
            quoted(rng, &text)
        }
        3 => rng
            .pick(&["*x", "*y", "&x 1", "&y [1]", "!!int '1'"])
            .to_string(),
        4 => rng.pick(NAMES).to_string(),
        _ => rng.pick(SCALARS).to_string(),
    }
}

/// A file with a defaults list.
fn defaults(rng: &mut Rng) -> String {
    let mut text = String::new();
    if rng.one_in(5) {
        text.push_str(rng.pick(&[
            "# @package _global_\n",
            "# @package a.b\n",
            "# @package _group_\n",
        ]));
    }
    text.push_str("defaults:\n");
    for _ in 0..rng.below(6) {
        let prefix = rng.pick(&[
            "",
            "",
            "",
            "",
            "override ",
            "optional ",
            "optional override ",
        ]);
        let group = rng.pick(&[
            "g",
            "h",
            "g/sub",
            "sub",
            "/g",
            "/h",
            "hydra/help",
            "nope",
            ".",
        ]);
        let package = rng.pick(&[
            "",
            "",
            "",
            "@x",
            "@_global_",
            "@_here_",
            "@_group_.q",
            "@a.b",
            "@",
        ]);
        let option = rng.pick(&[
            "one",
            "two",
            "three",
            "deep",
            "null",
            "???",
            "nope",
            "[one, two]",
            "${g}",
            "${h}",
            "'${g}_x'",
            "default",
            "_self_",
            "../config",
            "one.yaml",
            "5",
            "{a: 1}",
        ]);
        text.push_str(&match rng.below(8) {
            0 => "- _self_\n".to_string(),
            1 => format!(
                "- {}{package}\n",
                rng.pick(&["config", "g/one", "/g/two", "nope", "./g/one"])
            ),
            _ => format!("- {prefix}{group}{package}: {option}\n"),
        });
    }
    if rng.one_in(2) {
        mapping(rng, 0, &mut text);
    }
    text
}
