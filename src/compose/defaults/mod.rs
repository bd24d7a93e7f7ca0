//! Defaults lists: which configs make up the whole, in which order and package.

mod choices;
pub(crate) mod entry;
mod shown;
mod tree;

pub use shown::{DefaultsTree, Listed};
pub(crate) use tree::{Defaults, Placed, expand};
