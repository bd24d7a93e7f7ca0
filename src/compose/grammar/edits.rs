//! The functions that edit the list a key already holds: `append(a,b)` and its
//! other name `extend_list(a,b)`, `prepend(a,b)`, `remove(a)`.

use super::element::{Element, How, ListEdit};

const FUNCTIONS: [(&str, How); 4] = [
    ("append", How::Append),
    ("extend_list", How::Append),
    ("prepend", How::Prepend),
    ("remove", How::Remove),
];

/// The names of the functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.into_iter().map(|(name, _)| name)
}

/// More values than this are not removed at once.
const MAX_REMOVED: usize = 1000;

/// The edit that a call of one of [`names`] stands for.
///
/// # Errors
/// Another function, no values, an edit among them.
pub(super) fn edit(name: &str, items: &[Element]) -> Result<ListEdit, String> {
    let Some((function, how)) = FUNCTIONS.into_iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name}() does not edit lists"));
    };
    if items.is_empty() {
        return Err(format!("{name}() needs at least one value"));
    }
    // Each is compared with each item of the list.
    if how == How::Remove && items.len() > MAX_REMOVED {
        return Err(format!("{name}() takes at most {MAX_REMOVED} values"));
    }
    Ok(ListEdit {
        how,
        function,
        items: items.to_vec(),
    })
}
