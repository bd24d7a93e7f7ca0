//! What can be known without composing: the search path, its groups, and the
//! defaults lists.

use chrono::Local;

use super::composed::expand;
use super::defaults::{DefaultsTree, Listed};
use super::error::Error;
use super::library::Library;
use super::opened::open;
use super::request::{Request, Typed};
use super::scope::Scope;
use super::source::Source;

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
/// Bad overrides and everything wrong with the defaults lists and their files.
pub fn outline(req: &Request) -> Result<Outline, Error> {
    let opened = open(req)?;
    let typed = Typed::read(req);
    let scope = Scope::new(req.now.unwrap_or_else(Local::now));
    let expanded = expand(req, &opened, &typed, &scope);
    let tree = expanded.tree();
    let list = expanded.listed();
    let mut problems = typed.problems;
    problems.extend(expanded.problems);
    if !problems.is_empty() {
        return Err(Error::new(problems));
    }
    let mut warnings = opened.warnings;
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
    Ok(open(req)?.library.sources().to_vec())
}

/// The options of one group of a search path, sorted; of the empty group, the
/// configs that can be primary ones.
pub fn options(sources: &[Source], group: &str) -> Vec<String> {
    Library::new(sources).options(group)
}

/// Every group of a search path with its options, both sorted; subgroups are
/// `group/sub`. Hydra's own groups come too.
pub fn groups(sources: &[Source]) -> Vec<(String, Vec<String>)> {
    let library = Library::new(sources);
    let groups = library.groups().iter();
    groups
        .map(|group| (group.clone(), library.options(group)))
        .collect()
}
