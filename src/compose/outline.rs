//! How a composition comes about, without making it: the search path and the
//! defaults lists, for a user who asks why.

use super::composed::{Request, Search};
use super::error::Error;
use super::source::Source;

/// A config of the final defaults list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In the search path, without `.yaml`.
    pub config_path: String,
    /// Dotted; empty is the top.
    pub package: String,
    /// Placed by the `_self_` of its own defaults list.
    pub own_body: bool,
    /// The config whose defaults list has it.
    pub parent: Option<String>,
}

/// A config with the entries of its defaults list, as they were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultsTree {
    /// `group: option`, the path of a config, or `_self_`.
    pub name: String,
    pub children: Vec<DefaultsTree>,
}

/// What a composition is made of.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Hydra's own config and the primary one.
    pub tree: Vec<DefaultsTree>,
    /// What is merged, in order.
    pub list: Vec<Listed>,
    /// Things a user should hear of that are no errors.
    pub warnings: Vec<String>,
}

/// Expands the defaults lists. Nothing is merged, so that this works for configs
/// whose values do not fit together.
///
/// # Errors
/// Bad overrides, then the defaults lists with their files.
pub fn outline(req: &Request) -> Result<Outline, Error> {
    let search = Search::new(req)?;
    let expanded = search.expand(req)?;
    let tree = expanded.tree();
    let list = expanded.listed();
    let mut warnings = search.warnings;
    warnings.extend(expanded.warnings);
    Ok(Outline {
        tree,
        list,
        warnings,
    })
}

/// The search path with the entries of `hydra.searchpath`, Hydra's own source first.
///
/// # Errors
/// Bad overrides, a folder that does not exist, a `hydra.searchpath` that is no list.
pub fn full_search_path(req: &Request) -> Result<Vec<Source>, Error> {
    Ok(Search::new(req)?.sources().to_vec())
}
