//! The schema check: every value of a composed tree against the table of keys.
//! It finds all problems, not just the first.

use crate::compose::{Node, Origin, Value, nearest, override_value};

use super::error::ConfigError;
use super::keys::elsewhere::called;
use super::keys::{self, Default, Key, Kind, Limit, Range};
use super::types::LoraInit;

/// Which values are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// For running: every value must be there and resolved.
    Resolved,
    /// For running, where some interpolations cannot be resolved: they may stand.
    Unresolved,
    /// For printing: `???` and interpolations may stand.
    Printable,
}

/// Compares a job's tree with the table of keys.
pub fn check(job: &Node, strictness: Strictness) -> Vec<ConfigError> {
    let mut checker = Checker {
        strictness,
        errors: Vec::new(),
    };
    checker.branch(job, "");
    checker.errors
}

struct Checker {
    strictness: Strictness,
    errors: Vec<ConfigError>,
}

impl Checker {
    fn branch(&mut self, node: &Node, path: &str) {
        if self.strictness != Strictness::Resolved && node.is_interpolation() {
            return;
        }
        let Some(map) = node.as_map() else {
            self.errors.push(ConfigError::WrongType {
                key: path.to_string(),
                origin: node.origin.clone(),
                expected: "a group of keys".to_string(),
                found: describe(node),
                hint: siblings(path),
            });
            return;
        };
        for (key, child) in map {
            let name = if path.is_empty() {
                key.to_string()
            } else {
                format!("{path}.{key}")
            };
            if let Some(entry) = keys::find(&name) {
                self.value(entry, child);
            } else if keys::is_branch(&name) {
                self.branch(child, &name);
            } else {
                self.errors.push(ConfigError::UnknownKey {
                    hint: suggestion(&name),
                    origin: origin_below(child),
                    key: name,
                });
            }
        }
    }

    fn value(&mut self, key: &Key, node: &Node) {
        if node.is_missing() {
            if self.strictness != Strictness::Printable {
                self.errors.push(ConfigError::Missing {
                    key: key.name.to_string(),
                    origin: node.origin.clone(),
                    help: key.help.to_string(),
                });
            }
            return;
        }
        if self.strictness != Strictness::Resolved && node.is_interpolation() {
            return;
        }
        if node.is_null() && key.nullable {
            return;
        }
        if let Err(error) = fits(key, node) {
            self.errors.push(*error);
        }
    }
}

/// Whether an override may give a key this value, as far as the key alone can say.
pub fn accepts(key: &Key, text: &str) -> bool {
    let node = override_value(text);
    node.is_some_and(|node| node.is_null() && key.nullable || fits(key, &node).is_ok())
}

/// Whether a value that is neither null nor missing fits its key.
fn fits(key: &Key, node: &Node) -> Result<(), Box<ConfigError>> {
    match (&key.kind, &node.value) {
        (Kind::Bool | Kind::BoolOr(_), Value::Bool(_)) => {}
        (Kind::Int(range), Value::Int(i)) => in_range(key, node, *range, *i as f64)?,
        (Kind::Float(range), Value::Int(i)) => in_range(key, node, *range, *i as f64)?,
        (Kind::Float(range), Value::BigInt(i)) => in_range(key, node, *range, i.to_f64())?,
        (Kind::Float(range), Value::Float(x)) => in_range(key, node, *range, *x)?,
        // A name made of digits reads as a number; OmegaConf's string nodes take it too.
        (Kind::Str | Kind::Path, Value::Int(_) | Value::BigInt(_)) | (Kind::Str, Value::Str(_)) => {
        }
        (Kind::Path, Value::Str(s)) if s.trim().is_empty() => return Err(wrong_type(key, node)),
        (Kind::Path, Value::Str(_)) => {}
        (Kind::Enum(words), Value::Str(s)) => option(key, node, words, s)?,
        (Kind::LoraInit, Value::Bool(true)) => {}
        (Kind::LoraInit, Value::Str(s)) if LoraInit::from_word(s).is_some() => {}
        (Kind::LoraInit, Value::Str(s)) => option(key, node, &LoraInit::WORDS, s)?,
        (Kind::BoolOr(word), Value::Str(s)) => option(key, node, &["true", "false", word], s)?,
        (Kind::StringsOr(word), Value::Str(s)) => option(key, node, &[word], s)?,
        (Kind::Strings | Kind::StringsOr(_), Value::List(items)) => strings(key, node, items)?,
        (Kind::Words(words), Value::List(items)) => {
            strings(key, node, items)?;
            for item in items {
                option(key, item, words, item.as_str().unwrap_or_default())?;
            }
        }
        (Kind::IntOrInts(range), Value::Int(i)) => in_range(key, node, *range, *i as f64)?,
        (Kind::IntOrInts(range), Value::List(items)) => {
            numbers(key, node, *range, true, "a list", items.iter())?;
        }
        (Kind::IntByName(range), Value::Map(map)) => {
            numbers(key, node, *range, true, "a mapping", map.values())?;
        }
        (Kind::FloatByName(range), Value::Map(map)) => {
            numbers(key, node, *range, false, "a mapping", map.values())?;
        }
        (Kind::Device, Value::Str(s)) if is_device(s) => {}
        (Kind::Device, Value::Str(s)) => {
            option(key, node, &["auto", "cpu", "cuda", "cuda:N"], s)?;
        }
        _ => return Err(wrong_type(key, node)),
    }
    if key.limit == Limit::OnlyDefault && !same(&key.default, node) {
        return Err(Box::new(ConfigError::NotAvailable {
            key: key.name.to_string(),
            origin: node.origin.clone(),
            found: shown(node),
            available: key.default.to_string(),
        }));
    }
    Ok(())
}

fn in_range(key: &Key, node: &Node, range: Range, x: f64) -> Result<(), Box<ConfigError>> {
    if range.contains(x) {
        return Ok(());
    }
    Err(Box::new(ConfigError::OutOfRange {
        key: key.name.to_string(),
        origin: node.origin.clone(),
        expected: key.kind.to_string(),
        found: shown(node),
        default: key.default.to_string(),
    }))
}

fn option(key: &Key, node: &Node, words: &[&str], found: &str) -> Result<(), Box<ConfigError>> {
    // `cuda:N` stands for a pattern, so it is never right by itself.
    if words.contains(&found) && found != "cuda:N" {
        return Ok(());
    }
    // transformers calls what it evaluates so.
    let plain = found.strip_prefix("eval_").unwrap_or(found);
    let hint = nearest(plain, words.iter().copied())
        .map(|word| format!("did you mean `{word}`? "))
        .unwrap_or_default();
    Err(Box::new(ConfigError::UnknownOption {
        key: key.name.to_string(),
        origin: node.origin.clone(),
        found: found.to_string(),
        options: match key.kind {
            Kind::StringsOr(word) => format!("{word}, or a list: {}=[a,b]", key.name),
            _ => words.join(", "),
        },
        hint,
    }))
}

/// Whether all items of a list or mapping are numbers within a range.
fn numbers<'n>(
    key: &Key,
    node: &Node,
    range: Range,
    whole: bool,
    holder: &str,
    items: impl Iterator<Item = &'n Node>,
) -> Result<(), Box<ConfigError>> {
    for item in items {
        match &item.value {
            Value::Int(i) => in_range(key, item, range, *i as f64)?,
            Value::Float(x) if !whole => in_range(key, item, range, *x)?,
            _ => {
                return Err(Box::new(ConfigError::WrongType {
                    key: key.name.to_string(),
                    origin: node.origin.clone(),
                    expected: key.type_text(),
                    found: format!("{holder} that holds {}", describe(item)),
                    hint: example(key),
                }));
            }
        }
    }
    Ok(())
}

fn strings(key: &Key, node: &Node, items: &[Node]) -> Result<(), Box<ConfigError>> {
    match items
        .iter()
        .find(|item| item.as_str().is_none_or(str::is_empty))
    {
        None => Ok(()),
        Some(item) => Err(Box::new(ConfigError::WrongType {
            key: key.name.to_string(),
            origin: node.origin.clone(),
            expected: key.kind.to_string(),
            found: format!("a list that holds {}", describe(item)),
            hint: example(key),
        })),
    }
}

fn wrong_type(key: &Key, node: &Node) -> Box<ConfigError> {
    Box::new(ConfigError::WrongType {
        key: key.name.to_string(),
        origin: node.origin.clone(),
        expected: key.type_text(),
        found: describe(node),
        hint: quoted(key, node).unwrap_or_else(|| example(key)),
    })
}

/// The way out where text would be right without its quotes, as that of a variable would.
fn quoted(key: &Key, node: &Node) -> Option<String> {
    let text = node.as_str()?.trim();
    let reads = match key.kind {
        Kind::Bool | Kind::BoolOr(_) => matches!(text, "true" | "false"),
        Kind::Int(_) | Kind::Float(_) => text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => false,
    };
    reads.then(|| {
        format!(
            "leave out the quotes: {}={text}; text of an environment variable is read by \
             ${{oc.decode:${{oc.env:NAME}}}}",
            key.name
        )
    })
}

fn example(key: &Key) -> String {
    match key.kind {
        Kind::Strings | Kind::Words(_) | Kind::StringsOr(_) => {
            format!("write a list: {}=[a,b]", key.name)
        }
        Kind::IntOrInts(_) => format!("write a number or a list: {}=[0,1]", key.name),
        Kind::IntByName(_) | Kind::FloatByName(_) => {
            format!("write a mapping: {}={{q_proj:8}}", key.name)
        }
        Kind::Str => format!("put it in quotes: '{}=\"...\"'", key.name),
        Kind::Path if key.nullable => format!("for none write {}=null", key.name),
        _ => format!("the default is {}", key.default),
    }
}

fn is_device(text: &str) -> bool {
    matches!(text, "auto" | "cpu" | "cuda")
        || text
            .strip_prefix("cuda:")
            .is_some_and(|n| !n.is_empty() && n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a node holds exactly this default. `1` and `1.0` are the same number.
pub(super) fn same(default: &Default, node: &Node) -> bool {
    match default {
        Default::Null => node.is_null(),
        Default::Bool(b) => node.as_bool() == Some(*b),
        Default::Int(i) => node.as_f64() == Some(*i as f64),
        Default::Float(x) => node.as_f64() == Some(*x),
        Default::Str(s) => node.as_str() == Some(s),
        Default::List(items) => node.as_list().is_some_and(|nodes| {
            nodes.len() == items.len()
                && nodes.iter().zip(*items).all(|(n, s)| n.as_str() == Some(s))
        }),
    }
}

/// A value as a reader would name it in a sentence.
fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_string(),
        Value::Bool(_) => format!("the truth value {}", shown(node)),
        Value::Int(_) | Value::Float(_) => format!("the number {}", shown(node)),
        Value::BigInt(_) => format!("{}, which does not fit 64 bits", shown(node)),
        Value::Str(s) if s.is_empty() => "the empty string".to_string(),
        Value::Str(_) => format!("the string `{}`", shown(node)),
        Value::List(_) => "a list".to_string(),
        Value::Map(_) => "a mapping".to_string(),
    }
}

fn shown(node: &Node) -> String {
    const LONGEST: usize = 60;
    let text = match &node.value {
        Value::Str(s) => s.escape_debug().to_string(),
        Value::BigInt(i) => i.to_string(),
        _ => node.to_json().to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("...".chars()).collect()
}

/// The origin of the first value below a node: a mapping made on the way to a
/// command-line key has none of its own that would help.
pub(super) fn origin_below(node: &Node) -> Origin {
    match node.leaves().first() {
        Some((_, leaf)) => leaf.origin.clone(),
        None => node.origin.clone(),
    }
}

/// What an unknown key may have meant.
fn suggestion(name: &str) -> String {
    let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
    let same_last = || {
        keys::all()
            .map(|key| key.name)
            .find(|key| key.rsplit('.').next() == Some(last))
    };
    let near = || nearest(name, keys::all().map(|key| key.name));
    match called(name).or_else(same_last).or_else(near) {
        Some(key) => format!("did you mean `{key}`?"),
        None => siblings(parent),
    }
}

/// The names that stand under a branch; all sections' names at the root or under
/// a branch that does not exist.
fn siblings(parent: &str) -> String {
    let prefix = if keys::is_branch(parent) {
        format!("{parent}.")
    } else {
        String::new()
    };
    let mut names: Vec<&str> = Vec::new();
    for key in keys::all() {
        if let Some(rest) = key.name.strip_prefix(prefix.as_str()) {
            let step = rest.split('.').next().unwrap_or(rest);
            if !names.contains(&step) {
                names.push(step);
            }
        }
    }
    if prefix.is_empty() {
        format!("keys: {}", names.join(", "))
    } else {
        format!("keys under `{parent}`: {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::Map;

    /// A tree with one value at a dotted path, as a command line would set it.
    fn tree(path: &str, value: Value) -> Node {
        let origin = Origin::CommandLine {
            text: format!("{path}=..").into(),
        };
        let mut node = Node::new(value, origin.clone());
        for step in path.rsplit('.') {
            let mut map = Map::new();
            map.insert(step.into(), node);
            node = Node::new(Value::Map(map), origin.clone());
        }
        node
    }

    fn errors(path: &str, value: Value) -> Vec<ConfigError> {
        check(&tree(path, value), Strictness::Resolved)
    }

    fn message(path: &str, value: Value) -> String {
        errors(path, value)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn string(text: &str) -> Value {
        Value::Str(text.to_string())
    }

    #[test]
    fn right_values_pass() {
        for (path, value) in [
            ("training.learning_rate", Value::Float(5e-5)),
            ("training.epochs", Value::Int(4)),
            ("training.max_steps", Value::Null),
            ("training.fp16", Value::Bool(true)),
            ("model.revision", Value::Int(7)),
            ("lora.target_modules", string("all-linear")),
            (
                "lora.target_modules",
                Value::List(vec![Node::str("q_proj")]),
            ),
            ("task.metrics", Value::List(vec![])),
            ("device", string("cuda:3")),
            ("inference.num_beams", Value::Int(1)),
            ("data.columns.question", string("Q")),
        ] {
            assert_eq!(errors(path, value), vec![], "{path}");
        }
    }

    #[test]
    fn wrong_types_say_what_is_wanted() {
        assert_eq!(
            message("training.epochs", string("three")),
            "command line: training.epochs=..: `training.epochs` must be a number above 0 and at most 10000, not the string `three`\n  the default is 3"
        );
        assert_eq!(
            message("lora.r", Value::Float(8.0)),
            "command line: lora.r=..: `lora.r` must be a whole number of at least 1 and at most 65536, not the number 8.0\n  the default is 16"
        );
        assert!(
            message("training.shuffle", Value::Null).contains("must be true or false, not null")
        );
        assert!(message("data.path", string("")).contains("not the empty string"));
        let quoted = message("seed", string("9"));
        assert!(quoted.contains("leave out the quotes: seed=9;"), "{quoted}");
        assert!(quoted.contains("${oc.decode:${oc.env:NAME}}"), "{quoted}");
        assert!(message("lora", Value::Int(8)).contains("keys under `lora`: r, alpha"));
        let list = Value::List(vec![Node::built_in(Value::Int(1))]);
        assert!(message("inference.stop", list).contains("a list that holds the number 1"));
    }

    #[test]
    fn ranges_hold() {
        assert!(message("lora.r", Value::Int(0)).contains("at least 1"));
        assert!(message("training.val_ratio", Value::Float(1.0)).contains("below 1, not 1.0"));
        assert!(message("training.learning_rate", Value::Float(f64::NAN)).contains("above 0"));
        assert!(message("seed", Value::Int(-1)).contains("at least 0"));
    }

    /// No number of a config makes a product of sizes overflow, or a list too long.
    #[test]
    fn sizes_have_an_upper_bound() {
        for (path, most) in [
            ("training.max_steps", 10_000_000),
            ("training.batch_size", 16_384),
            ("training.gradient_accumulation_steps", 65_536),
            ("training.max_seq_length", 1_048_576),
            ("inference.batch_size", 4_096),
            ("inference.num_beams", 256),
            ("inference.max_new_tokens", 1_048_576),
            ("synth.max_tokens", 1_048_576),
            ("judge.max_tokens", 1_048_576),
        ] {
            assert_eq!(message(path, Value::Int(most)), "");
            for more in [most + 1, 1_000_000_000_000, 9_000_000_000_000_000_000] {
                let text = message(path, Value::Int(more));
                let part = format!("and at most {most}, not {more}\n  the default is");
                assert!(text.contains(&part), "{text}");
            }
        }
        assert!(
            message("training.epochs", Value::Float(1e18)).contains("at most 10000, not 1e+18")
        );
    }

    #[test]
    fn unknown_options_are_listed() {
        let text = message("training.scheduler", string("cosin"));
        assert!(text.contains("`training.scheduler` has no option `cosin`"));
        assert!(text.contains("options: cosine, linear, constant"));
        assert!(message("device", string("gpu")).contains("options: auto, cpu, cuda, cuda:N"));
        assert!(message("device", string("cuda:N")).contains("has no option"));
        assert!(message("lora.target_modules", string("all")).contains("all-linear, or a list"));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        assert!(
            message("learning_rate", Value::Float(0.1))
                .contains("did you mean `training.learning_rate`?")
        );
        assert!(message("lora.rank", Value::Int(8)).contains("did you mean `lora.r`?"));
        assert!(message("zzzzzz", Value::Int(8)).contains("keys: method, mode, seed"));
    }

    #[test]
    fn missing_and_interpolated_values_may_be_printed_but_not_run() {
        assert!(message("data.path", string("???")).contains("set it: data.path=VALUE"));
        for text in ["???", "${a.b}"] {
            let node = tree("training.epochs", string(text));
            assert_eq!(check(&node, Strictness::Printable), vec![]);
        }
    }
}
