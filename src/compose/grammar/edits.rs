//! The functions that edit the list a key already holds: `append(a,b)` and its
//! other name `extend_list(a,b)`, `prepend(a,b)`, `remove(a)`.

use super::element::Element;

/// What a call does to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Append,
    Prepend,
    /// Each item that is equal goes.
    Remove,
}

/// A list edit as an override's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListEdit {
    pub how: How,
    /// The function as typed; two of them append.
    pub function: &'static str,
    pub items: Vec<Element>,
}

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

impl ListEdit {
    /// The edit that a call of one of [`names`] stands for.
    ///
    /// # Errors
    /// Another function, no values, an edit among them.
    pub(crate) fn of(name: &str, items: &[Element]) -> Result<ListEdit, String> {
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

    /// As it can be typed.
    pub(crate) fn to_text(&self) -> String {
        let items: Vec<String> = self.items.iter().map(Element::to_inner_text).collect();
        format!("{}({})", self.function, items.join(","))
    }

    /// Why the edit cannot stand where it does.
    pub(crate) fn misplaced(&self, place: &str) -> String {
        format!(
            "{}() edits the list of its key, so it is the whole value or one of a sweep's; it cannot stand in {place}",
            self.function
        )
    }
}
