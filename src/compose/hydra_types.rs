//! The types of the keys of the `hydra` node.

use indexmap::IndexMap;

use super::error::Problem;
use super::nearest;
use super::node::{Node, Origin, Value};
use super::python;

/// `hydra.sweeper.zip` is this program's own: Hydra's basic sweeper has no such
/// key. It is absent until it is set, so that the tree stays Hydra's.
const ZIP: &str = "zip";

/// What a key of the `hydra` node holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A mapping with exactly these keys.
    Fixed(&'static [(&'static str, Kind)]),
    /// That, while the choice of this group is `basic`; other options are Python's to type.
    Basic(&'static str, &'static [(&'static str, Kind)]),
    Str,
    OptionalStr,
    OptionalBool,
    Int,
    OptionalInt,
    ListOfStr,
    DictOfStr,
    OptionalDictOfStr,
    /// A list of lists of strings.
    OptionalGroups,
    Dict,
    Mode,
    Any,
}

use Kind::{
    Any, Basic, Dict, DictOfStr, Fixed, Int, ListOfStr, Mode, OptionalBool, OptionalDictOfStr,
    OptionalGroups, OptionalInt, OptionalStr, Str,
};

const SCHEMA: &[(&str, Kind)] = &[
    ("mode", Mode),
    ("searchpath", ListOfStr),
    ("run", Fixed(&[("dir", Str)])),
    ("sweep", Fixed(&[("dir", Str), ("subdir", Str)])),
    ("hydra_logging", Dict),
    ("job_logging", Dict),
    (
        "sweeper",
        Basic(
            "hydra/sweeper",
            &[
                ("_target_", Str),
                ("max_batch_size", OptionalInt),
                ("params", OptionalDictOfStr),
                (ZIP, OptionalGroups),
            ],
        ),
    ),
    ("launcher", Basic("hydra/launcher", &[("_target_", Str)])),
    ("callbacks", Dict),
    ("env", Any),
    (
        "help",
        Fixed(&[
            ("app_name", Str),
            ("header", Str),
            ("footer", Str),
            ("template", Str),
        ]),
    ),
    (
        "hydra_help",
        Fixed(&[("hydra_help", Str), ("template", Str)]),
    ),
    ("output_subdir", OptionalStr),
    (
        "overrides",
        Fixed(&[("hydra", ListOfStr), ("task", ListOfStr)]),
    ),
    (
        "job",
        Fixed(&[
            ("name", Str),
            ("chdir", OptionalBool),
            ("override_dirname", Str),
            ("id", Str),
            ("num", Int),
            ("config_name", OptionalStr),
            ("env_set", DictOfStr),
            ("env_copy", ListOfStr),
            (
                "config",
                Fixed(&[(
                    "override_dirname",
                    Fixed(&[
                        ("kv_sep", Str),
                        ("item_sep", Str),
                        ("exclude_keys", ListOfStr),
                    ]),
                )]),
            ),
        ]),
    ),
    (
        "runtime",
        Fixed(&[
            ("version", Str),
            ("version_base", Str),
            ("cwd", Str),
            ("config_sources", Any),
            ("output_dir", Str),
            ("choices", Dict),
        ]),
    ),
    ("verbose", Any),
];

/// Each group with its choice; `None` for null.
pub(crate) type Choices = IndexMap<String, Option<String>>;

/// The types that the keys of the `hydra` node have under these choices.
#[derive(Clone, Copy)]
pub(crate) struct Types<'c>(pub &'c Choices);

impl Types<'_> {
    /// Checks the `hydra` node against the types of its keys and converts scalars
    /// as OmegaConf does (a number where text is wanted becomes text). `strict`
    /// refuses unknown keys; after `+hydra.x=..` they are wanted.
    pub(crate) fn check(self, hydra: &mut Node, strict: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_kind("hydra", hydra, Fixed(SCHEMA), strict, &mut problems);
        problems
    }

    /// Gives resolved values the types of their keys, where they can have them: an
    /// interpolation brings what it finds.
    pub(crate) fn convert_resolved(self, hydra: &mut Node) {
        // What is wrong with a value by itself was told before it was resolved.
        self.check_kind("hydra", hydra, Fixed(SCHEMA), false, &mut Vec::new());
    }

    /// [`Types::convert_resolved`] for one part of the `hydra` node, by the steps that lead to it.
    pub(crate) fn convert_part(self, part: &mut Node, steps: &[String]) {
        let mut kind = Fixed(SCHEMA);
        for step in steps {
            kind = match self.chosen(kind) {
                Fixed(keys) => match keys.iter().find(|(name, _)| name == step) {
                    Some((_, kind)) => *kind,
                    None => return,
                },
                ListOfStr | DictOfStr | OptionalDictOfStr => Str,
                _ => return,
            };
        }
        self.check_kind("", part, kind, false, &mut Vec::new());
    }

    /// Whether a dotted key below `hydra` may be set although the tree lacks it.
    pub(crate) fn may_be_absent(self, steps: &[String]) -> bool {
        matches!(steps, [group, key] if group == "sweeper" && key == ZIP) && self.is_fixed(steps)
    }

    /// Whether a dotted key below `hydra` belongs to Hydra itself and cannot be deleted.
    pub(crate) fn is_fixed(self, steps: &[String]) -> bool {
        let mut keys = SCHEMA;
        for (index, step) in steps.iter().enumerate() {
            match keys.iter().find(|(name, _)| name == step) {
                Some(_) if index + 1 == steps.len() => return true,
                Some((_, kind)) => match self.chosen(*kind) {
                    Fixed(inner) => keys = inner,
                    _ => return false,
                },
                None => return false,
            }
        }
        true
    }

    fn chosen(self, kind: Kind) -> Kind {
        match kind {
            Basic(group, keys) => match self.0.get(group) {
                Some(Some(choice)) if choice == "basic" => Fixed(keys),
                _ => Any,
            },
            kind => kind,
        }
    }

    fn check_kind(
        self,
        path: &str,
        node: &mut Node,
        kind: Kind,
        strict: bool,
        problems: &mut Vec<Problem>,
    ) {
        if node.is_missing() || node.is_interpolation() {
            return;
        }
        let kind = self.chosen(kind);
        if let (Fixed(keys), Value::Map(map)) = (kind, &mut node.value) {
            for (key, child) in map.iter_mut() {
                let name = key.to_string();
                let child_path = format!("{path}.{name}");
                match keys.iter().find(|(known, _)| *known == name) {
                    Some((_, kind)) => self.check_kind(&child_path, child, *kind, strict, problems),
                    None if strict => problems.push(unknown(path, &name, keys, child)),
                    None => {}
                }
            }
            return;
        }
        if let Err(misfit) = convert(node, kind) {
            problems.push(
                Problem::new(format!(
                    "'{path}' must be {}, not {} {}",
                    misfit.wanted,
                    node.type_name(),
                    python::repr(&node.value)
                ))
                .at(&misfit.item.unwrap_or_else(|| node.origin.clone())),
            );
        }
    }
}

fn unknown(path: &str, name: &str, keys: &[(&'static str, Kind)], node: &Node) -> Problem {
    let known = || keys.iter().map(|(name, _)| *name);
    let help = match nearest(name, known()) {
        Some(near) => format!("did you mean '{path}.{near}'?"),
        None => format!(
            "keys of '{path}': {}",
            known().collect::<Vec<_>>().join(", ")
        ),
    };
    Problem::new(format!("unknown key '{path}.{name}'"))
        .at(&node.origin)
        .help(help)
}

/// A value that is not of its key's type.
struct Misfit {
    wanted: &'static str,
    /// The item that is at fault, in a list or dict.
    item: Option<Origin>,
}

impl From<&'static str> for Misfit {
    fn from(wanted: &'static str) -> Misfit {
        Misfit { wanted, item: None }
    }
}

const LISTS_OF_KEYS: &str = "a list of lists of keys, such as [[a,b]]";

/// Converts in place.
fn convert(node: &mut Node, kind: Kind) -> Result<(), Misfit> {
    let text = |value: &Value| match value {
        Value::Str(_) | Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Bool(_) => {
            Some(Value::Str(python::to_str(value)))
        }
        _ => None,
    };
    let converted = match (kind, &mut node.value) {
        (Any | Basic(..), _) | (Dict, Value::Map(_)) => return Ok(()),
        (
            OptionalStr | OptionalBool | OptionalInt | OptionalDictOfStr | OptionalGroups | Mode,
            Value::Null,
        ) => return Ok(()),
        (Fixed(_) | Dict, _) => return Err("a dict".into()),
        (Str | OptionalStr, value) => text(value).ok_or("a string")?,
        (OptionalBool, value) => Value::Bool(as_bool(value).ok_or("true or false")?),
        (Int | OptionalInt, Value::Int(_) | Value::BigInt(_)) => return Ok(()),
        (Int | OptionalInt, Value::Str(s)) => python::parse_int(s).ok_or("an int")?,
        (Int | OptionalInt, _) => return Err("an int".into()),
        (Mode, Value::Str(s)) if matches!(s.as_str(), "RUN" | "MULTIRUN") => return Ok(()),
        (Mode, Value::Str(s)) if s == "RunMode.RUN" => Value::Str("RUN".into()),
        (Mode, Value::Str(s)) if s == "RunMode.MULTIRUN" => Value::Str("MULTIRUN".into()),
        (Mode, Value::Int(1)) => Value::Str("RUN".into()),
        (Mode, Value::Int(2)) => Value::Str("MULTIRUN".into()),
        (Mode, _) => return Err("RUN or MULTIRUN".into()),
        (ListOfStr, Value::List(items)) => {
            return convert_each(items.iter_mut(), Str, "a list of strings");
        }
        (ListOfStr, _) => return Err("a list of strings".into()),
        (OptionalGroups, Value::List(groups)) => {
            return convert_each(groups.iter_mut(), ListOfStr, LISTS_OF_KEYS);
        }
        (OptionalGroups, _) => return Err(LISTS_OF_KEYS.into()),
        (DictOfStr | OptionalDictOfStr, Value::Map(map)) => {
            return convert_each(map.values_mut(), Str, "a dict of strings");
        }
        (DictOfStr | OptionalDictOfStr, _) => return Err("a dict of strings".into()),
    };
    node.value = converted;
    Ok(())
}

fn convert_each<'n>(
    items: impl Iterator<Item = &'n mut Node>,
    kind: Kind,
    wanted: &'static str,
) -> Result<(), Misfit> {
    for item in items {
        convert(item, kind).map_err(|misfit| Misfit {
            wanted,
            item: misfit.item.or_else(|| Some(item.origin.clone())),
        })?;
    }
    Ok(())
}

fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::Int(i) => Some(*i != 0),
        Value::BigInt(_) => Some(true),
        Value::Str(s) => match s.to_lowercase().as_str() {
            "yes" | "y" | "on" | "true" | "1" => Some(true),
            "no" | "n" | "off" | "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked_with(text: &str, choice: &str) -> (Node, Vec<String>) {
        let path = std::sync::Arc::new(std::path::PathBuf::from("c.yaml"));
        let mut node = super::super::yaml_read::read_yaml(text, &path).expect("valid");
        let groups = ["hydra/launcher", "hydra/sweeper"];
        let choices = groups.map(|group| (group.to_string(), Some(choice.to_string())));
        let problems = Types(&choices.into()).check(&mut node, true);
        (node, problems.iter().map(|p| p.to_string()).collect())
    }

    fn checked(text: &str) -> (Node, Vec<String>) {
        checked_with(text, "basic")
    }

    #[test]
    fn scalars_are_converted_to_the_type_of_their_key() {
        let (node, problems) =
            checked("run: {dir: 5}\njob: {chdir: 'yes', num: '3', name: 1e-4}\nmode: 2");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(
            node.to_json().to_string(),
            r#"{"run":{"dir":"5"},"job":{"chdir":true,"num":3,"name":"0.0001"},"mode":"MULTIRUN"}"#
        );
    }

    #[test]
    fn keys_that_advance_together_are_lists_in_a_list() {
        let (node, problems) = checked("sweeper: {zip: [[lora.r, 5], [a, b]]}");
        assert!(problems.is_empty(), "{problems:?}");
        let zip = node.select("sweeper.zip").map(|n| n.to_json().to_string());
        assert_eq!(zip.as_deref(), Some(r#"[["lora.r","5"],["a","b"]]"#));
        let (_, problems) = checked("sweeper: {zip: [a, b]}");
        assert!(
            problems[0].contains("such as [[a,b]], not list"),
            "{problems:?}"
        );
        let (_, problems) = checked("sweeper: {zipp: [[a, b]]}");
        assert!(problems[0].contains("did you mean 'hydra.sweeper.zip'?"));
    }

    #[test]
    fn typos_get_the_nearest_key_and_all_are_reported() {
        let (_, problems) = checked("runn: {dir: a}\njob: {chdirr: 1, num: x}\nsearchpath: a");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(
            problems[0].starts_with("c.yaml:1: unknown key 'hydra.runn'"),
            "{}",
            problems[0]
        );
        assert!(problems[0].contains("did you mean 'hydra.run'?"));
        assert!(problems[1].contains("did you mean 'hydra.job.chdir'?"));
    }

    #[test]
    fn only_the_basic_launcher_and_sweeper_have_types() {
        let text = "launcher: {_target_: a.B, partition: gpu}\nsweeper: {params: {x: 3}, n: 2}\n";
        let (_, problems) = checked(text);
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (node, problems) = checked_with(text, "other");
        assert!(problems.is_empty(), "{problems:?}");
        let x = node.select("sweeper.params.x").map(|node| &node.value);
        assert!(matches!(x, Some(Value::Int(3))), "{x:?}");
    }

    #[test]
    fn an_item_of_the_wrong_type_is_told_at_its_own_place() {
        for text in [
            "job:\n  env_set:\n    A: x\n    B: [1]\n",
            "job:\n  env_copy:\n  - A\n  - [1]\n",
            "sweeper:\n  zip:\n  - [a, b]\n  - [a, {c: d}]\n",
        ] {
            let (_, problems) = checked(text);
            assert!(problems[0].starts_with("c.yaml:4: "), "{text}{problems:?}");
        }
    }
}
