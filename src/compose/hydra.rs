//! Hydra's own config: the tree behind the `hydra` node, the types of its keys,
//! and what is filled in once a config is composed.

use indexmap::IndexMap;

use super::error::Problem;
use super::nearest;
use super::node::{Key, Map, Node, Value};
use super::python;
use super::source::{Source, Tree};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("hydra/", $name), include_str!(concat!("hydra_conf/", $name)))),*]
    };
}

/// Sorted by path.
static FILES: &[(&str, &str)] = files![
    "config.yaml",
    "env/default.yaml",
    "help/default.yaml",
    "hydra_help/default.yaml",
    "hydra_logging/default.yaml",
    "hydra_logging/disabled.yaml",
    "hydra_logging/hydra_debug.yaml",
    "hydra_logging/none.yaml",
    "job_logging/default.yaml",
    "job_logging/disabled.yaml",
    "job_logging/none.yaml",
    "job_logging/stdout.yaml",
    "launcher/basic.yaml",
    "output/default.yaml",
    "sweeper/basic.yaml",
];

/// The source that stands before all others.
pub(crate) fn source() -> Source {
    Source {
        provider: "hydra".to_string(),
        tree: Tree::Embedded(FILES),
        mount: None,
    }
}

/// Whether a source is Hydra's own; its values are built-in defaults to a user.
pub(crate) fn is_own(source: &Source) -> bool {
    matches!(source.tree, Tree::Embedded(files) if std::ptr::eq(files, FILES))
}

/// The version of Hydra whose behaviour `hydra.runtime.version_base` names.
pub(crate) const VERSION_BASE: &str = "1.3";

/// `hydra.sweeper.zip` is this program's own: Hydra's basic sweeper has no such
/// key. It is absent until it is set, so that the tree stays Hydra's.
const ZIP: &str = "zip";

/// What a key of the `hydra` node holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A mapping with exactly these keys.
    Fixed(&'static [(&'static str, Kind)]),
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
    Any, Dict, DictOfStr, Fixed, Int, ListOfStr, Mode, OptionalBool, OptionalDictOfStr,
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
        Fixed(&[
            ("_target_", Str),
            ("max_batch_size", OptionalInt),
            ("params", OptionalDictOfStr),
            (ZIP, OptionalGroups),
        ]),
    ),
    ("launcher", Fixed(&[("_target_", Str)])),
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

/// Checks the `hydra` node against the types of its keys and converts scalars
/// as OmegaConf does (a number where text is wanted becomes text). `strict`
/// refuses unknown keys; after `+hydra.x=..` they are wanted.
pub(crate) fn check(hydra: &mut Node, strict: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_kind("hydra", hydra, Fixed(SCHEMA), strict, &mut problems);
    problems
}

/// Gives resolved values the types of their keys, where they can have them: an
/// interpolation brings what it finds.
pub(crate) fn convert_resolved(hydra: &mut Node) {
    // What is wrong with a value by itself was told before it was resolved.
    check_kind("hydra", hydra, Fixed(SCHEMA), false, &mut Vec::new());
}

/// [`convert_resolved`] for one part of the `hydra` node, by the steps that lead to it.
pub(crate) fn convert_part(part: &mut Node, steps: &[String]) {
    let mut kind = Fixed(SCHEMA);
    for step in steps {
        kind = match kind {
            Fixed(keys) => match keys.iter().find(|(name, _)| name == step) {
                Some((_, kind)) => *kind,
                None => return,
            },
            ListOfStr | DictOfStr | OptionalDictOfStr => Str,
            _ => return,
        };
    }
    check_kind("", part, kind, false, &mut Vec::new());
}

/// Whether a dotted key below `hydra` may be set although the tree lacks it.
pub(crate) fn may_be_absent(steps: &[String]) -> bool {
    matches!(steps, [group, key] if group == "sweeper" && key == ZIP)
}

/// Whether a dotted key below `hydra` belongs to Hydra itself and cannot be deleted.
pub(crate) fn is_fixed(steps: &[String]) -> bool {
    let mut keys = SCHEMA;
    for (index, step) in steps.iter().enumerate() {
        match keys.iter().find(|(name, _)| name == step) {
            Some(_) if index + 1 == steps.len() => return true,
            Some((_, Fixed(inner))) => keys = inner,
            _ => return false,
        }
    }
    true
}

fn check_kind(path: &str, node: &mut Node, kind: Kind, strict: bool, problems: &mut Vec<Problem>) {
    if node.is_missing() || node.is_interpolation() {
        return;
    }
    if let (Fixed(keys), Value::Map(map)) = (kind, &mut node.value) {
        for (key, child) in map.iter_mut() {
            let name = key.to_string();
            let child_path = format!("{path}.{name}");
            match keys.iter().find(|(known, _)| *known == name) {
                Some((_, kind)) => check_kind(&child_path, child, *kind, strict, problems),
                None if strict => {
                    let known = || keys.iter().map(|(name, _)| *name);
                    let help = match nearest(&name, known()) {
                        Some(near) => format!("did you mean '{path}.{near}'?"),
                        None => format!(
                            "keys of '{path}': {}",
                            known().collect::<Vec<_>>().join(", ")
                        ),
                    };
                    problems.push(
                        Problem::new(format!("unknown key '{child_path}'"))
                            .at(&child.origin)
                            .help(help),
                    );
                }
                None => {}
            }
        }
        return;
    }
    if let Err(wanted) = convert(node, kind) {
        problems.push(
            Problem::new(format!(
                "'{path}' must be {wanted}, not {} {}",
                node.type_name(),
                python::repr(&node.value)
            ))
            .at(&node.origin),
        );
    }
}

const LISTS_OF_KEYS: &str = "a list of lists of keys, such as [[a,b]]";

/// Converts in place; the error is what the key wants.
fn convert(node: &mut Node, kind: Kind) -> Result<(), &'static str> {
    let text = |value: &Value| match value {
        Value::Str(_) | Value::Int(_) | Value::BigInt(_) | Value::Float(_) | Value::Bool(_) => {
            Some(Value::Str(python::to_str(value)))
        }
        _ => None,
    };
    let converted = match (kind, &mut node.value) {
        (Any, _) | (Dict, Value::Map(_)) => return Ok(()),
        (
            OptionalStr | OptionalBool | OptionalInt | OptionalDictOfStr | OptionalGroups | Mode,
            Value::Null,
        ) => return Ok(()),
        (Fixed(_) | Dict, _) => return Err("a dict"),
        (Str | OptionalStr, value) => text(value).ok_or("a string")?,
        (OptionalBool, value) => Value::Bool(as_bool(value).ok_or("true or false")?),
        (Int | OptionalInt, Value::Int(_) | Value::BigInt(_)) => return Ok(()),
        (Int | OptionalInt, Value::Str(s)) => python::parse_int(s).ok_or("an int")?,
        (Int | OptionalInt, _) => return Err("an int"),
        (Mode, Value::Str(s)) if matches!(s.as_str(), "RUN" | "MULTIRUN") => return Ok(()),
        (Mode, Value::Str(s)) if s == "RunMode.RUN" => Value::Str("RUN".into()),
        (Mode, Value::Str(s)) if s == "RunMode.MULTIRUN" => Value::Str("MULTIRUN".into()),
        (Mode, Value::Int(1)) => Value::Str("RUN".into()),
        (Mode, Value::Int(2)) => Value::Str("MULTIRUN".into()),
        (Mode, _) => return Err("RUN or MULTIRUN"),
        (ListOfStr, Value::List(items)) => {
            for item in items {
                convert(item, Str).map_err(|_| "a list of strings")?;
            }
            return Ok(());
        }
        (ListOfStr, _) => return Err("a list of strings"),
        (OptionalGroups, Value::List(groups)) => {
            for group in groups {
                convert(group, ListOfStr).map_err(|_| LISTS_OF_KEYS)?;
            }
            return Ok(());
        }
        (OptionalGroups, _) => return Err(LISTS_OF_KEYS),
        (DictOfStr | OptionalDictOfStr, Value::Map(map)) => {
            for item in map.values_mut() {
                convert(item, Str).map_err(|_| "a dict of strings")?;
            }
            return Ok(());
        }
        (DictOfStr | OptionalDictOfStr, _) => return Err("a dict of strings"),
    };
    node.value = converted;
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

/// What composition fills in.
pub(crate) struct Facts<'f> {
    pub task_overrides: &'f [String],
    pub hydra_overrides: &'f [String],
    /// `key@package` and text of the task overrides, for `override_dirname`.
    pub task_keys: &'f [(String, String)],
    pub choices: &'f IndexMap<String, Option<String>>,
    pub sources: &'f [Source],
    pub job_name: &'f str,
    pub config_name: Option<&'f str>,
    pub cwd: String,
}

/// Fills the runtime keys of a composed `hydra` node. The problems are variables
/// to be copied that are not set.
pub(crate) fn fill(hydra: &mut Node, facts: &Facts) -> Vec<Problem> {
    let list =
        |texts: &[String]| Node::built_in(Value::List(texts.iter().map(Node::str).collect()));
    append(hydra, "task", list(facts.task_overrides));
    append(hydra, "hydra", list(facts.hydra_overrides));
    if let Some(choices) = child(hydra, &["runtime", "choices"]).and_then(Node::as_map_mut) {
        for (group, name) in facts.choices {
            let value = name.clone().map_or(Value::Null, Value::Str);
            choices.insert(Key::Str(group.clone()), Node::built_in(value));
        }
    }
    let problems = copy_environment(hydra);
    set(
        hydra,
        "runtime",
        "version",
        Node::str(env!("CARGO_PKG_VERSION")),
    );
    set(hydra, "runtime", "version_base", Node::str(VERSION_BASE));
    set(hydra, "runtime", "cwd", Node::str(facts.cwd.as_str()));
    set(
        hydra,
        "runtime",
        "config_sources",
        config_sources(facts.sources),
    );
    if child(hydra, &["job", "name"]).is_none_or(|name| name.is_missing()) {
        set(hydra, "job", "name", Node::str(facts.job_name));
    }
    let dirname = override_dirname(hydra, facts.task_keys);
    set(hydra, "job", "override_dirname", Node::str(dirname));
    let name = facts
        .config_name
        .map_or(Value::Null, |name| Value::Str(name.to_string()));
    set(hydra, "job", "config_name", Node::built_in(name));
    problems
}

fn child<'n>(node: &'n mut Node, path: &[&str]) -> Option<&'n mut Node> {
    path.iter()
        .try_fold(node, |node, step| node.child_mut(step))
}

/// Sets `hydra.GROUP.KEY`.
pub(crate) fn set(hydra: &mut Node, group: &str, key: &str, node: Node) {
    if let Some(map) = child(hydra, &[group]).and_then(Node::as_map_mut) {
        map.insert(Key::from(key), node);
    }
}

fn append(hydra: &mut Node, key: &str, more: Node) {
    if let (Some(list), Value::List(more)) = (child(hydra, &["overrides", key]), more.value) {
        match &mut list.value {
            Value::List(items) => items.extend(more),
            other => *other = Value::List(more),
        }
    }
}

/// Puts the variables of `hydra.job.env_copy` into `hydra.job.env_set`.
fn copy_environment(hydra: &mut Node) -> Vec<Problem> {
    let wanted = child(hydra, &["job", "env_copy"]).cloned();
    let mut problems = Vec::new();
    for item in wanted.iter().filter_map(Node::as_list).flatten() {
        let Some(name) = item.as_str() else { continue };
        // Such names would make the lookup panic; there are no such variables.
        let sound = !name.is_empty() && !name.contains(['=', '\0']);
        let Some(value) = sound.then(|| std::env::var_os(name)).flatten() else {
            problems.push(
                Problem::new(format!(
                    "hydra.job.env_copy names the environment variable '{name}', which is not set"
                ))
                .at(&item.origin)
                .help("set it, or take it out of hydra.job.env_copy"),
            );
            continue;
        };
        let value = Node::str(value.to_string_lossy().into_owned());
        if let Some(map) = child(hydra, &["job", "env_set"]).and_then(Node::as_map_mut) {
            map.insert(Key::Str(name.to_string()), value);
        }
    }
    problems
}

fn config_sources(sources: &[Source]) -> Node {
    let entry = |path: &str, schema: &str, provider: &str| {
        let mut map = Map::new();
        map.insert(Key::from("path"), Node::str(path));
        map.insert(Key::from("schema"), Node::str(schema));
        map.insert(Key::from("provider"), Node::str(provider));
        Node::built_in(Value::Map(map))
    };
    let mut entries: Vec<Node> = sources
        .iter()
        .map(|source| {
            let (scheme, path) = source.location();
            entry(&path, scheme, &source.provider)
        })
        .collect();
    entries.push(entry("", "structured", "schema"));
    Node::built_in(Value::List(entries))
}

fn override_dirname(hydra: &mut Node, overrides: &[(String, String)]) -> String {
    let mut setting = |key: &str, default: &str| {
        child(hydra, &["job", "config", "override_dirname", key])
            .and_then(|node| node.as_str().map(str::to_string))
            .unwrap_or_else(|| default.to_string())
    };
    let kv_sep = setting("kv_sep", "=");
    let item_sep = setting("item_sep", ",");
    let excluded: Vec<String> = child(
        hydra,
        &["job", "config", "override_dirname", "exclude_keys"],
    )
    .and_then(|node| {
        node.as_list().map(|items| {
            items
                .iter()
                .filter_map(|n| n.as_str().map(str::to_string))
                .collect()
        })
    })
    .unwrap_or_default();
    let mut lines: Vec<&str> = overrides
        .iter()
        .filter(|(key, _)| !excluded.contains(key))
        .map(|(_, text)| text.as_str())
        .collect();
    lines.sort_unstable();
    lines.join(&item_sep).replace('=', &kv_sep)
}

/// The entries of `hydra.searchpath` as sources. Packages of Python are passed over
/// with a warning.
pub(crate) fn search_path(
    node: &Node,
    provider: &str,
    cwd: &std::path::Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<Source>, Problem> {
    let fault = |node: &Node| {
        Problem::new(format!(
            "hydra.searchpath must be a list of directories, not {}",
            python::repr(&node.value)
        ))
        .at(&node.origin)
        .help("write hydra.searchpath=[file:///path/to/configs]")
    };
    let items = match &node.value {
        Value::Null => return Ok(Vec::new()),
        Value::List(items) => items,
        _ => return Err(fault(node)),
    };
    let mut sources = Vec::with_capacity(items.len());
    for item in items {
        let text = item.as_str().filter(|_| !item.is_missing());
        let text = text.ok_or_else(|| fault(item))?;
        let path = match text.split_once("://") {
            None => text,
            Some(("file", path)) => path,
            // Hydra's own configs are on every search path.
            Some(("pkg", "hydra.conf")) => continue,
            Some(("pkg", _)) => {
                warnings.push(format!(
                    "{provider}: '{text}' is a package of Python, which cannot be searched here; \
                     name its directory, as file:///path/to/configs"
                ));
                continue;
            }
            Some((scheme, _)) => {
                return Err(Problem::new(format!(
                    "hydra.searchpath: '{scheme}://' is not supported in '{text}'"
                ))
                .at(&item.origin)
                .help("name a directory, as file:///path/to/configs"));
            }
        };
        sources.push(Source::dir(provider, cwd.join(path)));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_sorted_for_binary_search() {
        assert!(FILES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    fn checked(text: &str) -> (Node, Vec<String>) {
        let path = std::sync::Arc::new(std::path::PathBuf::from("c.yaml"));
        let mut node = super::super::yaml_read::read_yaml(text, &path).expect("valid");
        let problems = check(&mut node, true);
        (node, problems.iter().map(|p| p.to_string()).collect())
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
}
