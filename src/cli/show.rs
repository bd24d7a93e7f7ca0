//! `--cfg`: the composed config as text.

use crate::compose::{Composed, Error, Map, Node, Problem, Value, to_yaml};

use super::args::Cfg;

/// The part of the config that was asked for, as YAML.
///
/// A package that is a mapping or a list is headed by `# @package NAME`, so that
/// it can be used as a config file; a scalar is printed bare and resolved.
///
/// # Errors
/// An unknown package; with `resolve`, an interpolation that cannot be resolved.
pub(super) fn show(
    composed: &Composed,
    cfg: Cfg,
    resolve: bool,
    package: Option<&str>,
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
        return Ok(to_yaml(&tree));
    };
    let absent = || {
        Error::from(
            Problem::new(format!("package '{package}' not found in config"))
                .help("print the whole config without --package to see its keys"),
        )
    };
    let node = tree.select(package).ok_or_else(absent)?;
    match node.value {
        Value::Null => Err(absent()),
        Value::Map(_) | Value::List(_) => Ok(format!("# @package {package}\n{}", to_yaml(node))),
        _ => Ok(scalar(&composed.resolve(package)?.ok_or_else(absent)?)),
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
