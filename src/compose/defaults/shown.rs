//! The expansion as users see it.

use super::entry::Item;
use super::tree::{Branch, Defaults};

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
    /// `group: option`, the path of a config, or `_self_`, with a path as Hydra shows it.
    pub name: String,
    pub children: Vec<DefaultsTree>,
}

impl Defaults {
    /// What is merged, in order.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        self.list
            .iter()
            .map(|placed| Listed {
                config_path: placed.config_path.clone(),
                package: placed.package.clone(),
                own_body: placed.own_body,
                parent: placed.parent.clone(),
            })
            .collect()
    }

    /// The defaults lists as they lie in one another.
    pub(crate) fn tree(&self) -> Vec<DefaultsTree> {
        self.roots.iter().map(|root| root.shown("")).collect()
    }
}

impl Branch {
    /// `above`: the group that names in the list above this one's begin at; Hydra shows a body there.
    fn shown(&self, above: &str) -> DefaultsTree {
        let entry = &self.entry;
        let name = match &entry.item {
            Item::OwnBody if above.is_empty() => "_self_".to_string(),
            Item::OwnBody => format!("{above}/_self_"),
            Item::Config(_) => entry.config_path(),
            Item::Group { .. } => {
                let name = entry.name().unwrap_or("null");
                format!("{}: {name}", entry.override_key())
            }
        };
        DefaultsTree {
            name,
            children: self
                .children
                .iter()
                .map(|child| child.shown(&entry.parent.group))
                .collect(),
        }
    }
}
