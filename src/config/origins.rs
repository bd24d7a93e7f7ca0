//! The histories of values as sentences: `8, command line; was 16, a.yaml:3`.

use crate::compose::{Change, Composed, Error, History, Origin, one_line};

use super::keys;
use super::layers::default_node;

/// In a comment, values longer than this are cut.
const LONGEST: usize = 60;

/// Lays the built-in defaults of the table under a job's history. A default that
/// the tree repeats is not said again.
pub fn underlay_defaults(history: &mut History) {
    for key in keys::all() {
        history.underlay(key.name, default_node(&key.default));
    }
}

/// A value, or every value below a mapping, with who set it: the path and the
/// history, newest first. An interpolation is told with what it stands for.
///
/// # Errors
/// An unknown key, with the nearest one there is.
pub fn why(
    composed: &Composed,
    history: &History,
    key: &str,
) -> Result<Vec<(String, String)>, Error> {
    let found = history.under(key);
    if found.is_empty() {
        return item(composed, key).ok_or_else(|| history.unknown(key).into());
    }
    Ok(found
        .into_iter()
        .map(|(path, changes)| (path.to_string(), sentence(composed, path, changes)))
        .collect())
}

/// A part of a list: only the list as a whole has a history.
fn item(composed: &Composed, key: &str) -> Option<Vec<(String, String)>> {
    if key.is_empty() {
        return None;
    }
    let node = match key.strip_prefix("hydra.") {
        Some(path) => composed.hydra.select(path),
        None => composed.job.select(key),
    }?;
    let change = Change {
        value: Some(node.clone()),
        origin: node.origin.clone(),
    };
    let text = sentence(composed, key, std::slice::from_ref(&change));
    Some(vec![(key.to_string(), text)])
}

fn sentence(composed: &Composed, path: &str, changes: &[Change]) -> String {
    let mut parts: Vec<String> = Vec::with_capacity(changes.len());
    for change in changes.iter().rev() {
        let mut value = change
            .value
            .as_ref()
            .map_or_else(|| "deleted".to_string(), one_line);
        if let (true, Some(node)) = (parts.is_empty(), &change.value)
            && node.is_interpolation()
        {
            value = match composed.resolve(path) {
                Ok(Some(resolved)) => format!("{} from {value}", one_line(&resolved)),
                Ok(None) => format!("??? from {value}"),
                Err(error) => format!("{value} (cannot be resolved: {})", cause(&error)),
            };
        }
        parts.push(format!("{value}, {}", place(&change.origin)));
    }
    parts.join("; was ")
}

/// The history of a value without the value itself: what stands behind it in a
/// comment.
pub fn remark(changes: &[Change]) -> Option<String> {
    let (newest, older) = changes.split_last()?;
    let mut text = place(&newest.origin);
    for change in older.iter().rev() {
        let value = change
            .value
            .as_ref()
            .map_or_else(|| "deleted".to_string(), one_line);
        let value = match value.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}...", &value[..end]),
            None => value,
        };
        text.push_str(&format!("; was {value}, {}", place(&change.origin)));
    }
    Some(text)
}

/// Where a value was set: a file and a line, or the command line.
pub fn place(origin: &Origin) -> String {
    match origin {
        Origin::CommandLine { .. } => "command line".to_string(),
        // A file name may hold anything; the text must stay one line.
        other => other.to_string().replace(char::is_control, "?"),
    }
}

fn cause(error: &Error) -> String {
    error
        .problems
        .first()
        .map(|problem| problem.message.clone())
        .unwrap_or_default()
}
