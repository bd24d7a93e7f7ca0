//! The one table of config keys. It drives the schema check, the built-in
//! defaults, `--help` and docs/configuration.md, so that a key is described in
//! exactly one place. To add a key: one entry here, one field in `types.rs`,
//! one line in `configs/`; tests fail until the three agree.

mod ask;
mod data;
pub mod elsewhere;
mod evaluate;
mod export;
pub mod hydra;
mod inference;
mod model;
pub mod related;
mod run;
mod task;
mod training;

use std::fmt;

/// One config key.
#[derive(Debug)]
pub struct Key {
    /// Dotted path, e.g. `training.learning_rate`.
    pub name: &'static str,
    pub kind: Kind,
    /// Whether `null` is a value of this key.
    pub nullable: bool,
    pub default: Default,
    /// One line: what it is.
    pub help: &'static str,
    /// A paragraph: how it acts, when to change it. Empty where the line says all.
    pub about: &'static str,
    pub limit: Limit,
}

/// The type of a key's value, with its range.
#[derive(Debug)]
pub enum Kind {
    Bool,
    Int(Range),
    Float(Range),
    Str,
    /// A file or directory, relative to the working directory.
    Path,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// True, false or this word.
    BoolOr(&'static str),
    /// True, or a word of [`crate::config::types::LoraInit`].
    LoraInit,
    /// A list of strings.
    Strings,
    /// A list of these words.
    Words(&'static [&'static str]),
    /// A list of strings, or this one word in its place.
    StringsOr(&'static str),
    /// A whole number, or a list of them.
    IntOrInts(Range),
    /// A mapping from patterns of names to whole numbers.
    IntByName(Range),
    /// A mapping from patterns of names to numbers.
    FloatByName(Range),
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    Device,
}

/// Values that are known but cannot be had in this version. They are refused,
/// never ignored.
#[derive(Debug, PartialEq, Eq)]
pub enum Limit {
    None,
    /// Only the default value is available.
    OnlyDefault,
}

/// A default as it is written in the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'static str),
    List(&'static [&'static str]),
}

/// Most tokens of a sequence, more than a step or an answer ever has. Together with the
/// bounds of the batches it keeps the sizes that a plan works out within 64 bits.
const MOST_TOKENS: f64 = 1_048_576.0;

/// Bounds of a number. Whole numbers up to 2^53 are exact here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    min: f64,
    max: f64,
    /// Whether the bound itself is excluded.
    min_open: bool,
    max_open: bool,
}

impl Range {
    pub const fn at_least(min: f64) -> Self {
        Range {
            min,
            max: f64::INFINITY,
            min_open: false,
            max_open: true,
        }
    }

    pub const fn above(min: f64) -> Self {
        Range {
            min,
            max: f64::INFINITY,
            min_open: true,
            max_open: true,
        }
    }

    /// `min <= x <= max`
    pub const fn closed(min: f64, max: f64) -> Self {
        Range {
            min,
            max,
            min_open: false,
            max_open: false,
        }
    }

    /// `min <= x < max`
    pub const fn half_open(min: f64, max: f64) -> Self {
        Range {
            min,
            max,
            min_open: false,
            max_open: true,
        }
    }

    /// `min < x <= max`
    pub const fn left_open(min: f64, max: f64) -> Self {
        Range {
            min,
            max,
            min_open: true,
            max_open: false,
        }
    }

    /// False for NaN and for infinities.
    pub fn contains(&self, x: f64) -> bool {
        let low = if self.min_open {
            x > self.min
        } else {
            x >= self.min
        };
        let high = if self.max_open {
            x < self.max
        } else {
            x <= self.max
        };
        low && high
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = if self.min_open {
            "above"
        } else {
            "of at least"
        };
        write!(f, "{low} {}", self.min)?;
        if self.max.is_finite() {
            let high = if self.max_open { "below" } else { "at most" };
            write!(f, " and {high} {}", self.max)?;
        }
        Ok(())
    }
}

impl fmt::Display for Default {
    /// As it would be typed in an override.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Default::Null => f.write_str("null"),
            Default::Bool(b) => write!(f, "{b}"),
            Default::Int(i) => write!(f, "{i}"),
            Default::Float(x) if *x != 0.0 && x.abs() < 1e-3 => write!(f, "{x:e}"),
            Default::Float(x) => write!(f, "{x:?}"),
            Default::Str(s) if s.contains('\n') => write!(f, "{s:?}"),
            Default::Str(s) => f.write_str(s),
            Default::List(items) => {
                let escaped: Vec<String> =
                    items.iter().map(|s| s.escape_debug().to_string()).collect();
                write!(f, "[{}]", escaped.join(", "))
            }
        }
    }
}

impl fmt::Display for Kind {
    /// The type in words, e.g. `a whole number of at least 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("true or false"),
            Kind::Int(range) => write!(f, "a whole number {range}"),
            Kind::Float(range) => write!(f, "a number {range}"),
            Kind::Str => f.write_str("a string"),
            Kind::Path => f.write_str("a path"),
            Kind::Enum(words) => write!(f, "one of {}", words.join(", ")),
            Kind::BoolOr(word) => write!(f, "true, false or {word}"),
            Kind::LoraInit => f.write_str("one of true, gaussian, pissa, pissa_niter_N, loftq"),
            Kind::Strings => f.write_str("a list of strings"),
            Kind::Words(words) => write!(f, "a list out of {}", words.join(", ")),
            Kind::StringsOr(word) => write!(f, "a list of strings, or {word}"),
            Kind::IntOrInts(range) => write!(f, "a whole number {range}, or a list of them"),
            Kind::IntByName(range) => {
                write!(f, "a mapping of names to whole numbers, each {range}")
            }
            Kind::FloatByName(range) => write!(f, "a mapping of names to numbers, each {range}"),
            Kind::Device => f.write_str("one of auto, cpu, cuda, cuda:N"),
        }
    }
}

impl Key {
    /// The type in words, with `null` where it is allowed.
    pub fn type_text(&self) -> String {
        let mut text = match self.limit {
            Limit::OnlyDefault => format!("only {} in this version", self.default),
            _ => self.kind.to_string(),
        };
        if self.nullable {
            text.push_str("; or null");
        }
        text
    }
}

/// Keys that belong together, with a heading for help and docs.
#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
}

/// All keys, in the order in which help and docs show them.
pub const SECTIONS: &[Section] = &[
    run::SECTION,
    task::TASK,
    task::PROMPT,
    data::SECTION,
    model::MODEL,
    model::QUANTIZATION,
    model::LORA,
    training::SECTION,
    inference::SECTION,
    evaluate::SECTION,
    export::SECTION,
    ask::SYNTH,
    ask::JUDGE,
];

/// Every key of the table.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The entry of a dotted name.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// Whether some key lies below this dotted prefix, e.g. `inference.validation`.
pub fn is_branch(prefix: &str) -> bool {
    all().any(|key| {
        key.name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_lead_nowhere_twice() {
        let mut seen = HashSet::new();
        for key in all() {
            assert!(seen.insert(key.name), "{} stands twice", key.name);
            assert!(!is_branch(key.name), "{} is a key and a branch", key.name);
        }
    }

    #[test]
    fn every_key_is_described() {
        for key in all() {
            assert!(!key.help.is_empty(), "{}: no help", key.name);
            assert!(
                key.help.len() <= 80,
                "{}: help longer than 80 characters",
                key.name
            );
            assert!(
                !key.help.ends_with('.'),
                "{}: help is a phrase, not a sentence",
                key.name
            );
            assert!(!key.help.contains('\n') && !key.about.contains("  "));
        }
    }

    #[test]
    fn a_text_that_names_most_options_names_all() {
        for key in all() {
            let Kind::Enum(words) = key.kind else {
                continue;
            };
            let named = |word: &&&str| key.about.contains(&format!("`{word}`"));
            let missing: Vec<_> = words.iter().filter(|word| !named(word)).collect();
            assert!(
                missing.is_empty() || 2 * missing.len() >= words.len(),
                "{}: {missing:?}",
                key.name
            );
        }
    }

    #[test]
    fn a_null_default_needs_a_nullable_key() {
        for key in all() {
            assert!(
                key.nullable || key.default != Default::Null,
                "{}: null default, but null is not allowed",
                key.name
            );
        }
    }

    #[test]
    fn ranges() {
        assert!(Range::half_open(0.0, 1.0).contains(0.0));
        assert!(!Range::half_open(0.0, 1.0).contains(1.0));
        assert!(Range::left_open(0.0, 1.0).contains(1.0));
        assert!(!Range::left_open(0.0, 1.0).contains(0.0));
        assert!(!Range::above(0.0).contains(f64::NAN));
        assert!(!Range::above(0.0).contains(f64::INFINITY));
        assert_eq!(
            Range::half_open(0.0, 1.0).to_string(),
            "of at least 0 and below 1"
        );
    }

    #[test]
    fn defaults_print_as_they_are_typed() {
        let shown = |name: &str| find(name).map(|key| key.default.to_string());
        assert_eq!(shown("training.learning_rate").as_deref(), Some("1e-4"));
        assert_eq!(shown("training.weight_decay").as_deref(), Some("0.0"));
        assert_eq!(
            shown("lora.target_modules").as_deref(),
            Some("[q_proj, k_proj, v_proj, o_proj]")
        );
        assert_eq!(shown("inference.stop").as_deref(), Some("[\\n]"));
    }
}
