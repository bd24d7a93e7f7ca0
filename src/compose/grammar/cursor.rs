//! A place in an override as it is read.

use super::Fault;

/// The text of an override, and how far it is read.
pub(super) struct Cursor {
    pub(super) chars: Vec<char>,
    pub(super) pos: usize,
    /// Brackets that are open.
    pub(super) depth: usize,
}

impl Cursor {
    pub(super) fn new(text: &str) -> Cursor {
        Cursor {
            chars: text.chars().collect(),
            pos: 0,
            depth: 0,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.pos).copied()
    }

    pub(super) fn text(&self, start: usize, end: usize) -> String {
        self.chars[start..end].iter().collect()
    }

    pub(super) fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::new(self.pos, message))
    }
}
