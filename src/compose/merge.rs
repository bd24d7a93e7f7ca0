//! Merging one config into another, with OmegaConf's rules: dictionaries merge
//! key by key, lists and scalars replace, `???` replaces nothing.

use super::error::Problem;
use super::interpolate::{Resolver, Step, at, at_mut};
use super::node::{Key, Map, Node, Value, insert_key};

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
    now: chrono::DateTime<chrono::Local>,
) -> Result<(), Fault> {
    let Value::Map(src_map) = &src.value else {
        return Err(Fault::Clash {
            place: place.clone(),
            src: src.clone(),
        });
    };
    for (key, child) in src_map {
        place.push(Step::Key(key.clone()));
        merge_key(root, place, key, child, closed, now)?;
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
}

fn merge_key(
    root: &mut Node,
    place: &mut Vec<Step>,
    key: &Key,
    child: &Node,
    closed: bool,
    now: chrono::DateTime<chrono::Local>,
) -> Result<(), Fault> {
    let src_is_container = matches!(child.value, Value::Map(_) | Value::List(_));
    if at(root, place).is_some_and(Node::is_interpolation) {
        expand_interpolation(root, place, now);
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
        (Value::Map(_), Value::Map(_)) => merge(root, place, child, closed, now),
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
fn expand_interpolation(root: &mut Node, place: &[Step], now: chrono::DateTime<chrono::Local>) {
    let copy = {
        let Some(text) = at(root, place).and_then(Node::as_str) else {
            return;
        };
        let mut resolver = Resolver::new(root, None, now);
        match resolver.text(text, Some(place)) {
            Ok(found) if matches!(found.node.value, Value::Map(_) | Value::List(_)) => {
                found.node.into_owned()
            }
            _ => return,
        }
    };
    if let Some(node) = at_mut(root, place) {
        *node = copy;
    }
}

/// Merges a loaded config into its package.
///
/// # Errors
/// With the line of the value that does not fit.
pub(crate) fn merge_package(
    root: &mut Node,
    package: &str,
    config: &Node,
    now: chrono::DateTime<chrono::Local>,
) -> Result<(), Problem> {
    let mut wrapped = config.clone();
    if !package.is_empty() {
        for step in super::node::split_path(package).into_iter().rev() {
            let origin = wrapped.origin.clone();
            let mut map = Map::new();
            map.insert(Key::Str(step), wrapped);
            wrapped = Node::new(Value::Map(map), origin);
        }
    }
    merge(root, &mut Vec::new(), &wrapped, false, now).map_err(|fault| match fault {
        Fault::Clash { place, src } => {
            let there = at(root, &place);
            let kind = there.map_or("dict", Node::type_name);
            let wher = there.map_or(String::new(), |n| format!(" ({})", n.origin));
            let path = super::interpolate::dotted(&place);
            Problem::new(format!(
                "a {} cannot be merged into the {kind} at '{path}'{wher}",
                src.type_name()
            ))
            .at(&src.origin)
            .help("make both dicts or both lists, or give one of them another key or @package")
        }
        Fault::Unknown { place } => Problem::new(format!(
            "unknown key '{}'",
            super::interpolate::dotted(&place)
        )),
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
            merge_package(&mut root, "", &node, chrono::Local::now()).map_err(|p| p.to_string())?;
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
