//! Merging one config into another, with OmegaConf's rules: dictionaries merge
//! key by key, lists and scalars replace, `???` replaces nothing.

use super::error::Problem;
use super::found::{Fail, Step, at, at_mut, dotted};
use super::interpolate::Resolver;
use super::node::{Key, MAX_LEVELS, Map, Node, Value, insert_key, split_path};
use super::scope::Scope;

/// Merges `src` into the dictionary at `place`. `closed` refuses keys that are
/// not there yet (struct mode).
///
/// # Errors
/// A dictionary meeting a list, an unknown key in a closed tree.
pub(crate) fn merge(
    root: &mut Node,
    place: &mut Vec<Step>,
    src: &Node,
    closed: bool,
    scope: &Scope,
) -> Result<(), Fault> {
    let Value::Map(src_map) = &src.value else {
        return Err(Fault::Clash {
            place: place.clone(),
            src: src.clone(),
        });
    };
    for (key, child) in src_map {
        place.push(Step::Key(key.clone()));
        merge_key(root, place, key, child, closed, scope)?;
        place.pop();
    }
    Ok(())
}

/// Why a merge failed.
pub(crate) enum Fault {
    /// A dictionary and a list meet at a place.
    Clash { place: Vec<Step>, src: Node },
    /// A key that a closed tree does not have.
    Unknown { place: Vec<Step> },
    /// The copy of an interpolation makes the tree too large or too deep.
    Limit { place: Vec<Step>, message: String },
}

fn merge_key(
    root: &mut Node,
    place: &mut Vec<Step>,
    key: &Key,
    child: &Node,
    closed: bool,
    scope: &Scope,
) -> Result<(), Fault> {
    let src_is_container = matches!(child.value, Value::Map(_) | Value::List(_));
    if at(root, place).is_some_and(Node::is_interpolation) {
        expand_interpolation(root, place, scope)?;
    }
    let parent_place = &place[..place.len() - 1];
    let Some(dest) = at_mut(root, place) else {
        if closed {
            return Err(Fault::Unknown {
                place: place.clone(),
            });
        }
        if let Some(Value::Map(map)) = at_mut(root, parent_place).map(|n| &mut n.value) {
            insert_key(map, key.clone(), child.clone());
        }
        return Ok(());
    };
    match (&mut dest.value, &child.value) {
        (Value::Map(_), Value::Map(_)) => merge(root, place, child, closed, scope),
        (Value::Map(_), Value::List(_)) | (Value::List(_), Value::Map(_)) => Err(Fault::Clash {
            place: place.clone(),
            src: child.clone(),
        }),
        _ => {
            if src_is_container || !child.is_missing() {
                *dest = child.clone();
            }
            Ok(())
        }
    }
}

/// An interpolation that stands for a dictionary or a list becomes a copy of it
/// before something is merged onto it. One that does not resolve yet stays.
fn expand_interpolation(root: &mut Node, place: &[Step], scope: &Scope) -> Result<(), Fault> {
    let limit = |message: &str| {
        Err(Fault::Limit {
            place: place.to_vec(),
            message: message.to_string(),
        })
    };
    let copy = {
        let Some(text) = at(root, place).and_then(Node::as_str) else {
            return Ok(());
        };
        let mut resolver = Resolver::new(root, None, scope).quiet();
        match resolver.text(text, Some(place)) {
            Ok(found) if matches!(found.node.value, Value::Map(_) | Value::List(_)) => {
                // Twice: the copy stays, where others come and go.
                if let Err(fail) = scope.spend(2 * found.node.size()) {
                    return limit(fail.message());
                }
                if place.len() + found.node.levels() > MAX_LEVELS {
                    return limit(&format!("more than {MAX_LEVELS} levels"));
                }
                found.node.into_owned()
            }
            Err(Fail::Limit(message)) => return limit(&message),
            _ => return Ok(()),
        }
    };
    if let Some(node) = at_mut(root, place) {
        *node = copy;
    }
    Ok(())
}

/// Merges a loaded config into its package.
///
/// # Errors
/// With the line of the value that does not fit.
pub(crate) fn merge_package(
    root: &mut Node,
    package: &str,
    config: &Node,
    scope: &Scope,
) -> Result<(), Problem> {
    let steps = split_path(package);
    if steps.len() + config.levels() > MAX_LEVELS {
        return Err(Problem::new(format!(
            "in the package '{package}' it has more than {MAX_LEVELS} levels"
        ))
        .at(&config.origin));
    }
    // A dictionary is merged from where it is, into a package made for it; what
    // else a file may hold replaces its package.
    let is_map = config.as_map().is_some();
    let inner = if is_map {
        Node::new(Node::empty_map().value, config.origin.clone())
    } else {
        config.clone()
    };
    let wrapped = steps.iter().rev().fold(inner, |inner, step| {
        let origin = inner.origin.clone();
        let map = Map::from([(Key::from(step.as_str()), inner)]);
        Node::new(Value::Map(map), origin)
    });
    let merged = merge(root, &mut Vec::new(), &wrapped, false, scope).and_then(|()| {
        if !is_map {
            return Ok(());
        }
        let step = |step: &String| Step::Key(Key::from(step.as_str()));
        merge(
            root,
            &mut steps.iter().map(step).collect(),
            config,
            false,
            scope,
        )
    });
    merged.map_err(|fault| match fault {
        Fault::Clash { place, src } => {
            let there = at(root, &place);
            let kind = there.map_or("dict", Node::type_name);
            let wher = there.map_or(String::new(), |n| format!(" ({})", n.origin));
            let at = match place.is_empty() {
                true => "top".to_string(),
                false => format!("'{}'{wher}", dotted(&place)),
            };
            Problem::new(format!(
                "a {} cannot be merged into the {kind} at {at}",
                src.type_name()
            ))
            .at(&src.origin)
            .help("make both dicts or both lists, or give one of them another key or @package")
        }
        Fault::Unknown { place } => Problem::new(format!("unknown key '{}'", dotted(&place))),
        Fault::Limit { place, message } => {
            Problem::new(format!("cannot merge into '{}': {message}", dotted(&place)))
                .at(&config.origin)
        }
    })
}

/// Takes the content of a package away; its place in the order of keys stays.
pub(crate) fn empty_package(root: &mut Node, package: &str) {
    let steps = super::node::split_path(package);
    let node = steps
        .iter()
        .try_fold(root, |node, step| node.child_mut(step));
    if let Some(node) = node {
        *node = Node::empty_map();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{to_yaml, yaml_read::read_yaml};

    fn merged(texts: &[&str]) -> Result<String, String> {
        let path = std::sync::Arc::new(std::path::PathBuf::from("m.yaml"));
        let mut root = Node::empty_map();
        for text in texts {
            let node = read_yaml(text, &path).map_err(|p| p.to_string())?;
            merge_package(&mut root, "", &node, &Scope::new(chrono::Local::now()))
                .map_err(|p| p.to_string())?;
        }
        Ok(to_yaml(&root))
    }

    #[test]
    fn dicts_merge_and_the_rest_replaces() {
        assert_eq!(
            merged(&[
                "a: {x: 1, l: [1, 2]}\nb: 5\nc: {k: 1}\nd: 1\n",
                "a: {y: 2, l: [9]}\nb: {n: 1}\nc: null\nd: ???\ne: ???\n",
            ]),
            Ok(
                "a:\n  x: 1\n  l:\n  - 9\n  'y': 2\nb:\n  'n': 1\nc: null\nd: 1\ne: ???\n"
                    .to_string()
            )
        );
        let clash = merged(&["a: {x: 1}", "a: [1]"]).expect_err("clash");
        assert!(clash.contains("'a'"), "{clash}");
        assert!(merged(&["a: 1", "- 1"]).is_err());
    }

    #[test]
    fn a_dict_merges_onto_what_an_interpolation_stands_for() {
        assert_eq!(
            merged(&["b: {q: 1}\na: ${b}\nz: ${.no}\n", "a: {r: 2}\nz: {k: 1}\n"]),
            Ok("b:\n  q: 1\na:\n  q: 1\n  r: 2\nz:\n  k: 1\n".to_string())
        );
    }
}
