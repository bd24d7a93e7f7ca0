//! The expansion as users see it.

use super::entry::Item;
use super::tree::{Branch, Defaults};
use crate::compose::outline::{DefaultsTree, Listed};

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
        self.roots.iter().map(Branch::shown).collect()
    }
}

impl Branch {
    fn shown(&self) -> DefaultsTree {
        let entry = &self.entry;
        let name = match &entry.item {
            Item::OwnBody => "_self_".to_string(),
            Item::Config(_) => entry.config_path(),
            Item::Group { .. } => {
                let name = entry.name().unwrap_or("null");
                format!("{}: {name}", entry.override_key())
            }
        };
        DefaultsTree {
            name,
            children: self.children.iter().map(Branch::shown).collect(),
        }
    }
}
