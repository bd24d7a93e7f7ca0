//! What a config that cannot be used would have brought. A key or a group that is
//! missed after such a failure may be only its consequence, and is not reported
//! beside it: one cause, one problem.

use super::defaults::entry::{Entry, Item};
use super::error::{Cause, Problem};
use super::library::Library;

/// More options of a group than this are not looked into.
const MAX_OPTIONS: usize = 64;

/// The reach of all that failed so far.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Packages whose keys may be lost.
    packages: Vec<String>,
    /// Groups whose entries in a defaults list may be lost.
    groups: Vec<String>,
    /// Any key and any group may be lost.
    everything: bool,
}

impl Lost {
    /// A config that could have brought anything.
    pub(crate) fn everything(&mut self) {
        self.everything = true;
    }

    /// Keys of a package.
    pub(crate) fn package(&mut self, package: &str) {
        if package.is_empty() {
            self.everything = true;
        } else {
            self.packages.push(package.to_string());
        }
    }

    /// An option of a group. What the other options of the group do, it would have done.
    pub(crate) fn option(&mut self, library: &Library, group: &str, package: &str) {
        self.package(package);
        self.groups.push(group.to_string());
        let options = library.options(group);
        if group.is_empty() || options.len() > MAX_OPTIONS {
            self.everything = true;
            return;
        }
        for option in options {
            let Ok(Some(loaded)) = library.load(&format!("{group}/{option}")) else {
                continue;
            };
            if let Some(header) = &loaded.package {
                self.package(absolute(header));
            }
            for entry in &loaded.defaults {
                self.entry(group, entry);
            }
        }
    }

    fn entry(&mut self, group: &str, entry: &Entry) {
        if let Some(package) = entry.package.as_deref()
            && package.contains("_global_")
        {
            self.package(absolute(package));
        }
        let Item::Group { group: named, .. } = &entry.item else {
            return;
        };
        self.groups.push(match named.strip_prefix('/') {
            Some(named) => named.to_string(),
            None => format!("{group}/{named}"),
        });
    }

    /// An override that could not be read, or not be used.
    pub(crate) fn typed(&mut self, library: &Library, text: &str) {
        let key = text.trim_start_matches(['+', '~']);
        let key = key.split(['=', '@', ' ']).next().unwrap_or_default();
        if key.is_empty() {
            return;
        }
        if library.has_group(key) {
            self.option(library, key, &key.replace('/', "."));
        } else {
            self.packages.push(key.to_string());
        }
    }

    /// Whether the lack of an entry for a group may be a consequence.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.everything
            || self
                .groups
                .iter()
                .any(|lost| is_at_or_below(group, lost, '/'))
    }

    /// Whether an interpolation of a defaults list, such as `${db}_fast`, reads the choice
    /// of a group that failed.
    pub(crate) fn has_choice_in(&self, text: &str) -> bool {
        let mut read = text.split("${").skip(1).map(|rest| {
            let key = rest.split('}').next().unwrap_or_default();
            key.split('@').next().unwrap_or_default()
        });
        read.any(|group| self.everything || self.groups.iter().any(|lost| lost == group))
    }

    /// Whether a problem with a key may be a consequence.
    pub(crate) fn explains(&self, key: &str, problem: &Problem) -> bool {
        match problem.cause {
            Cause::Own => false,
            Cause::AbsentNear => self.has_key(key),
            Cause::Absent => self.everything || self.has_key(key),
        }
    }

    fn has_key(&self, key: &str) -> bool {
        self.packages
            .iter()
            .any(|lost| is_at_or_below(key, lost, '.'))
    }
}

fn is_at_or_below(name: &str, top: &str, separator: char) -> bool {
    name.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// A package header or an `@_global_..` as a plain path.
fn absolute(package: &str) -> &str {
    match package.strip_prefix("_global_") {
        Some(rest) => rest.strip_prefix('.').unwrap_or(rest),
        None => package,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{Source, Tree};

    static FILES: &[(&str, &str)] = &[
        ("db/pg.yaml", "port: 1"),
        (
            "experiment/a.yaml",
            "# @package _global_\ndefaults:\n  - override /db: pg\n",
        ),
        (
            "server/nginx.yaml",
            "defaults:\n  - tls: full\n  - /db@_global_.store: pg\n",
        ),
        ("server/tls/full.yaml", "x: 1"),
    ];

    fn lost(group: &str) -> Lost {
        let library = Library::new(&[Source {
            provider: "main".to_string(),
            tree: Tree::Embedded(FILES),
            mount: None,
            written: None,
        }]);
        let mut lost = Lost::default();
        lost.typed(&library, &format!("+{group}=nope"));
        lost
    }

    fn absent() -> Problem {
        Problem::new("x").caused_by(Cause::Absent)
    }

    #[test]
    fn an_option_reaches_as_far_as_its_neighbours() {
        let db = lost("db");
        assert!(db.explains("db.port", &absent()) && db.has_group("db"));
        assert!(!db.explains("seed", &absent()) && !db.has_group("server"));
        let server = lost("server");
        assert!(server.has_group("server/tls") && server.has_group("db"));
        assert!(server.explains("store.port", &absent()) && !server.explains("seed", &absent()));
        let experiment = lost("experiment");
        assert!(experiment.explains("seed", &absent()) && experiment.has_group("server"));
    }

    #[test]
    fn what_stands_by_itself_is_always_told() {
        let experiment = lost("experiment");
        assert!(!experiment.explains("seed", &Problem::new("x")));
        let near = Problem::new("x").caused_by(Cause::AbsentNear);
        assert!(!experiment.explains("sed", &near));
        assert!(experiment.explains("experiment.x", &near));
        assert!(lost("a.b").explains("a.b.c", &near));
    }
}
