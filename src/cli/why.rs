//! `--why` and `--origins`: who set a value.

use crate::compose::{Composed, Error, History, Node, to_yaml_noted};
use crate::config::{place, remark, why};

/// The history of each key: bare for one value, with its path otherwise.
///
/// # Errors
/// An unknown key.
pub(super) fn sentences(
    composed: &Composed,
    history: &History,
    keys: &[String],
) -> Result<String, Error> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut bare = keys.len() == 1;
    for key in keys {
        let found = why(composed, history, key)?;
        bare &= found.len() == 1 && found[0].0 == *key;
        lines.extend(found);
    }
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(path, text)| {
            if bare {
                format!("{text}\n")
            } else {
                format!("{path}: {text}\n")
            }
        })
        .collect();
    Ok(lines.concat())
}

/// A part of the config as YAML, each value followed by a comment that says who
/// set it. `path` is where the part stands in the whole.
pub(super) fn annotated(node: &Node, path: &str, history: &History) -> String {
    to_yaml_noted(node, &|below, node| {
        let full = match (path, below) {
            ("", below) => below.to_string(),
            (path, "") => path.to_string(),
            (path, below) => format!("{path}.{below}"),
        };
        // Items of lists have no history of their own, only a place.
        remark(history.of(&full)).or_else(|| Some(place(&node.origin)))
    })
}
