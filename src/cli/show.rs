//! `--cfg`: the composed config as text.

use clap::ValueEnum;

use crate::compose::{
    Composed, Error, History, Key, Map, Node, Problem, Value, nearest, printed, to_yaml,
};

use super::why::annotated;

/// Which part of the config to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Cfg {
    /// The config of the job
    Job,
    /// The config of Hydra itself
    Hydra,
    /// Both
    All,
}

/// The part of the config that was asked for, as YAML.
///
/// A package that is a mapping or a list is headed by `# @package NAME`, so that
/// it can be used as a config file; a scalar is printed bare and resolved, as
/// Python prints it. With a history, each value is followed by a comment on its origin.
///
/// # Errors
/// An unknown package; with `resolve`, an interpolation in what is printed that
/// cannot be resolved.
pub(super) fn show(
    composed: &Composed,
    cfg: Cfg,
    resolve: bool,
    package: Option<&str>,
    history: Option<&History>,
) -> Result<String, Error> {
    let package = package.filter(|package| *package != "_global_");
    // A leading dot adds nothing: the path starts at the top anyway.
    let path = package.map(|package| package.strip_prefix('.').unwrap_or(package));
    let Some((package, path)) = package.zip(path.filter(|path| !path.is_empty())) else {
        let text = text(&whole(composed, cfg, resolve)?, "", history);
        return Ok(match package {
            Some(package) => headed(package, &text),
            None => text,
        });
    };
    let absent = || {
        let problem = Problem::new(format!("package '{package}' not found in config"));
        let names = names(&whole(composed, cfg, false)?);
        Err(match nearest(package, names.iter().map(String::as_str)) {
            Some(near) if near != package => problem.help(format!("did you mean '{near}'?")),
            _ => problem.help("print the whole config without --package to see its keys"),
        }
        .into())
    };
    if path.starts_with('.') || cfg == Cfg::Hydra && !is_shown_of_hydra(path) {
        return absent();
    }
    let Some(mut part) = composed.part(cfg != Cfg::Job, path, resolve)? else {
        return absent();
    };
    if cfg == Cfg::Hydra && part.path == "hydra" {
        drop_help(&mut part.node);
    }
    match (&part.node.value, history) {
        (Value::Null, _) => absent(),
        (Value::Map(_) | Value::List(_), _) => {
            Ok(headed(package, &text(&part.node, &part.path, history)))
        }
        (_, Some(_)) => Ok(text(&part.node, package, history)),
        // The one value of a class that Python prints with it.
        (value, None) if part.path == "hydra.mode" => Ok(format!("RunMode.{}\n", printed(value))),
        (value, None) => Ok(format!("{}\n", printed(value))),
    }
}

/// The tree of the job, of Hydra, or of both. As in Hydra, only the last has the
/// texts of Hydra's help.
fn whole(composed: &Composed, cfg: Cfg, resolve: bool) -> Result<Node, Error> {
    let under_hydra = |mut hydra: Node| {
        drop_help(&mut hydra);
        let mut map = Map::new();
        map.insert("hydra".into(), hydra);
        Node::built_in(Value::Map(map))
    };
    Ok(match (cfg, resolve) {
        (Cfg::Job, false) => composed.job.clone(),
        (Cfg::Job, true) => composed.resolved_job()?,
        (Cfg::Hydra, false) => under_hydra(composed.hydra.clone()),
        (Cfg::Hydra, true) => under_hydra(composed.resolved_hydra()?),
        (Cfg::All, false) => composed.all(),
        (Cfg::All, true) => composed.resolved_all()?,
    })
}

/// What `--cfg hydra` leaves out.
const HELP: [&str; 2] = ["help", "hydra_help"];

fn drop_help(hydra: &mut Node) {
    if let Some(map) = hydra.as_map_mut() {
        for key in HELP {
            map.shift_remove(&Key::from(key));
        }
    }
}

fn is_shown_of_hydra(path: &str) -> bool {
    let mut steps = path.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.next() == Some("hydra") && steps.next().is_none_or(|step| !HELP.contains(&step))
}

/// Every path of a tree.
fn names(tree: &Node) -> Vec<String> {
    let mut names = Vec::new();
    for (path, _) in tree.leaves() {
        let ends = path.match_indices('.').map(|(end, _)| end);
        names.extend(ends.chain([path.len()]).map(|end| path[..end].to_string()));
    }
    names
}

fn headed(package: &str, text: &str) -> String {
    format!("# @package {package}\n{text}")
}

fn text(node: &Node, path: &str, history: Option<&History>) -> String {
    match history {
        Some(history) => annotated(node, path, history),
        None => to_yaml(node),
    }
}
