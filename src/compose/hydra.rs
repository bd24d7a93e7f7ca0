//! Hydra's own config: the tree behind the `hydra` node, and what is filled in once
//! a config is composed.

use super::error::Problem;
use super::hydra_types::Choices;
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
        written: None,
    }
}

/// Whether a source is Hydra's own; its values are built-in defaults to a user.
pub(crate) fn is_own(source: &Source) -> bool {
    matches!(source.tree, Tree::Embedded(files) if std::ptr::eq(files, FILES))
}

/// The version of Hydra whose behaviour `hydra.runtime.version_base` names.
pub(crate) const VERSION_BASE: &str = "1.3";

/// What composition fills in.
pub(crate) struct Facts<'f> {
    pub task_overrides: &'f [String],
    pub hydra_overrides: &'f [String],
    /// `key@package` and text of the task overrides, for `override_dirname`.
    pub task_keys: &'f [(String, String)],
    pub choices: &'f Choices,
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
        sources.push(Source {
            written: Some(path.to_string()),
            ..Source::dir(provider, cwd.join(path))
        });
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
}
