//! `--cfg`: the composed config as text.

use crate::compose::{Composed, Error, History, Map, Node, Problem, Value, nearest, to_yaml};

use super::args::Cfg;
use super::why::annotated;

/// The part of the config that was asked for, as YAML.
///
/// A package that is a mapping or a list is headed by `# @package NAME`, so that
/// it can be used as a config file; a scalar is printed bare and resolved. With a
/// history, each value is followed by a comment on its origin.
///
/// # Errors
/// An unknown package; with `resolve`, an interpolation that cannot be resolved.
pub(super) fn show(
    composed: &Composed,
    cfg: Cfg,
    resolve: bool,
    package: Option<&str>,
    history: Option<&History>,
) -> Result<String, Error> {
    let tree = match (cfg, resolve) {
        (Cfg::Job, false) => composed.job.clone(),
        (Cfg::Job, true) => composed.resolved_job()?,
        (Cfg::Hydra, false) => under_hydra(composed.hydra.clone()),
        (Cfg::Hydra, true) => under_hydra(composed.resolved_hydra()?),
        (Cfg::All, false) => composed.all(),
        (Cfg::All, true) => composed.resolved_all()?,
    };
    let Some(package) = package else {
        return Ok(text(&tree, "", history));
    };
    let absent = || {
        let all = tree.leaves();
        let mut names: Vec<&str> = Vec::new();
        for (path, _) in &all {
            let ends = path.match_indices('.').map(|(end, _)| end);
            names.extend(ends.chain([path.len()]).map(|end| &path[..end]));
        }
        let problem = Problem::new(format!("package '{package}' not found in config"));
        Error::from(match nearest(package, names.into_iter()) {
            Some(near) if near != package => problem.help(format!("did you mean '{near}'?")),
            _ => problem.help("print the whole config without --package to see its keys"),
        })
    };
    let node = tree.select(package).ok_or_else(absent)?;
    match node.value {
        Value::Null => Err(absent()),
        Value::Map(_) | Value::List(_) => Ok(format!(
            "# @package {package}\n{}",
            text(node, package, history)
        )),
        _ => {
            let resolved = composed.resolve(package)?.ok_or_else(absent)?;
            Ok(match history {
                Some(_) => text(&resolved, package, history),
                None => scalar(&resolved),
            })
        }
    }
}

fn text(node: &Node, path: &str, history: Option<&History>) -> String {
    match history {
        Some(history) => annotated(node, path, history),
        None => to_yaml(node),
    }
}

fn under_hydra(hydra: Node) -> Node {
    let mut map = Map::new();
    map.insert("hydra".into(), hydra);
    Node::built_in(Value::Map(map))
}

fn scalar(node: &Node) -> String {
    match node.as_str() {
        Some(text) => format!("{text}\n"),
        None => format!("{}\n", node.to_json()),
    }
}
