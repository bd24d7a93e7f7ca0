//! The configs that a search path holds: looked up, read once, taken apart into
//! body, package header and defaults list.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::defaults::entry::{Choice, Entry, Item, read_entries};
use super::error::Problem;
use super::hydra;
use super::node::{Key, Node, Origin, Value};
use super::source::Source;
use super::yaml_read::read_yaml;

/// The header is looked for in this many first characters, as in Hydra.
const HEADER_CHARS: usize = 512;

/// One config file.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The content without its `defaults`.
    pub config: Node,
    /// How many values it has.
    pub values: usize,
    /// `# @package NAME`.
    pub package: Option<String>,
    /// The defaults list; empty when there is none.
    pub defaults: Vec<Entry>,
}

impl Loaded {
    /// Whether the body says anything besides `???`.
    pub(crate) fn has_content(&self) -> bool {
        self.config
            .as_map()
            .is_some_and(|map| map.values().any(|node| !node.is_missing()))
    }
}

/// All that is wrong with a file, or `None` where no source has it.
type Read = Result<Option<Arc<Loaded>>, Vec<Problem>>;

/// Hydra's own configs, which never change: the cells of a sweep share them.
static OWN: Mutex<BTreeMap<String, Arc<Loaded>>> = Mutex::new(BTreeMap::new());

/// Of more groups than this only the ones nearest to the root are known.
const MAX_GROUPS: usize = 5_000;

/// All sources, Hydra's own first. The first source that has a file wins.
pub(crate) struct Library {
    sources: Vec<Source>,
    cache: RefCell<HashMap<String, Read>>,
    groups: OnceCell<Vec<String>>,
}

impl Library {
    pub(crate) fn new(sources: &[Source]) -> Library {
        let mut all = vec![hydra::source()];
        all.extend_from_slice(sources);
        Library {
            sources: all,
            cache: RefCell::default(),
            groups: OnceCell::new(),
        }
    }

    /// Over files that are no files.
    #[cfg(test)]
    pub(crate) fn embedded(files: &'static [(&'static str, &'static str)]) -> Library {
        Library::new(&[Source {
            provider: "main".to_string(),
            tree: super::source::Tree::Embedded(files),
            mount: None,
            written: None,
        }])
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Adds the entries of `hydra.searchpath`. What is read already stays.
    pub(crate) fn extend(&mut self, sources: Vec<Source>) {
        self.sources.extend(sources);
        self.groups = OnceCell::new();
    }

    /// Reads a config by its path, with or without `.yaml`. `None` if no source has it.
    pub(crate) fn load(&self, path: &str) -> Read {
        if let Some(read) = self.cache.borrow().get(path) {
            return read.clone();
        }
        let read = self.read(path);
        self.cache
            .borrow_mut()
            .insert(path.to_string(), read.clone());
        read
    }

    fn read(&self, path: &str) -> Read {
        let file = with_extension(path);
        let Some(source) = self.sources.iter().find(|s| s.has_file(&file)) else {
            return Ok(None);
        };
        if !hydra::is_own(source) {
            return Ok(Some(Arc::new(load(source, path, &file)?)));
        }
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = own.get(path) {
            return Ok(Some(loaded.clone()));
        }
        let loaded = Arc::new(load(source, path, &file)?);
        own.insert(path.to_string(), loaded.clone());
        Ok(Some(loaded))
    }

    /// Puts a saved config in the place of the primary one. Of the primary one
    /// stay what a saved config does not have: Hydra's settings, and the groups
    /// of the defaults list, which then wait for a new choice.
    ///
    /// # Errors
    /// A primary config that cannot be read. There may be none.
    pub(crate) fn rebase(&self, primary: &str, saved: &Node) -> Result<(), Vec<Problem>> {
        let mut config = saved.clone();
        let mut defaults = vec![Entry::new(Item::OwnBody, saved.origin.clone())];
        if let Some(loaded) = self.load(primary)? {
            if let (Some(map), Some(hydra)) = (config.as_map_mut(), loaded.config.child("hydra")) {
                map.entry(Key::from("hydra"))
                    .or_insert_with(|| hydra.clone());
            }
            for entry in &loaded.defaults {
                let mut entry = entry.clone();
                let Item::Group { group, choice } = &mut entry.item else {
                    continue;
                };
                if !group.trim_start_matches('/').starts_with("hydra/") {
                    if entry.overrides {
                        continue;
                    }
                    *choice = Choice::Null;
                    entry.saved = true;
                }
                defaults.push(entry);
            }
        }
        let rebased = Loaded {
            values: config.size(),
            config,
            package: None,
            defaults,
        };
        self.cache
            .borrow_mut()
            .insert(primary.to_string(), Ok(Some(Arc::new(rebased))));
        Ok(())
    }

    pub(crate) fn has_config(&self, path: &str) -> bool {
        if matches!(self.cache.borrow().get(path), Some(Ok(Some(_)))) {
            return true;
        }
        let file = with_extension(path);
        self.sources.iter().any(|s| s.has_file(&file))
    }

    pub(crate) fn has_group(&self, path: &str) -> bool {
        self.sources.iter().any(|s| s.has_group(path))
    }

    /// The options of a group from all sources, sorted.
    pub(crate) fn options(&self, group: &str) -> Vec<String> {
        let mut names: Vec<String> = self.sources.iter().flat_map(|s| s.list(group).0).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The groups directly under a group (or under the root, for ""), sorted.
    pub(crate) fn subgroups(&self, group: &str) -> Vec<String> {
        let mut names: Vec<String> = self.sources.iter().flat_map(|s| s.list(group).1).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every group with its subgroups, as `group/sub`, sorted.
    pub(crate) fn groups(&self) -> &[String] {
        self.groups.get_or_init(|| self.find_groups())
    }

    fn find_groups(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = VecDeque::from(self.subgroups(""));
        while let Some(group) = open.pop_front() {
            // Links can make a tree endless, and wide as well.
            if group.matches('/').count() < 16 && found.len() + open.len() < MAX_GROUPS {
                let below = self.subgroups(&group);
                open.extend(below.into_iter().map(|sub| format!("{group}/{sub}")));
            }
            found.push(group);
        }
        found.sort();
        found
    }

    /// The search path for messages, one source a line.
    pub(crate) fn describe(&self) -> String {
        let lines: Vec<String> = self
            .sources
            .iter()
            .map(|source| {
                let (scheme, path) = source.place();
                format!("  {}: {scheme}://{path}", source.provider)
            })
            .collect();
        format!("config search path:\n{}", lines.join("\n"))
    }
}

/// Reads a file of a source and takes it apart.
fn load(source: &Source, path: &str, file: &str) -> Result<Loaded, Vec<Problem>> {
    let found = source.read(file).map_err(|p| vec![p])?;
    let origin_path = Arc::new(found.path);
    let package = header_package(&found.text).map_err(|message| {
        vec![Problem::new(format!(
            "{}: {message}",
            origin_path.display()
        ))]
    })?;
    let mut config = read_yaml(&found.text, &origin_path).map_err(|p| vec![p])?;
    if hydra::is_own(source) {
        config.set_origin(&Origin::BuiltIn);
    }
    let defaults = match &mut config.value {
        Value::Map(map) => match map.shift_remove(&Key::from("defaults")) {
            Some(list) => read_entries(path, &list)?,
            None => Vec::new(),
        },
        _ => Vec::new(),
    };
    Ok(Loaded {
        values: config.size(),
        config,
        package,
        defaults,
    })
}

fn with_extension(path: &str) -> String {
    if path.ends_with(".yaml") {
        path.to_string()
    } else {
        format!("{path}.yaml")
    }
}

/// The package named by `# @package NAME` in the first lines, before anything
/// but blank lines and other `# @` lines.
fn header_package(text: &str) -> Result<Option<String>, String> {
    let head: String = text.chars().take(HEADER_CHARS).collect();
    let mut package = None;
    for line in head.lines() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let body = line.trim_start_matches('#').trim();
        if !line.starts_with('#') || !line[1..].trim_start().starts_with('@') {
            break;
        }
        let words: Vec<&str> = body.split(' ').filter(|w| !w.is_empty()).collect();
        match words[..] {
            [key, value] => {
                // Only spaces part words, other white space is cut off.
                if key.trim() == "@package" {
                    package = Some(value.trim().to_string());
                }
            }
            [_] | [] => {
                return Err(format!(
                    "the header '{line}' lacks its value, as in '# @package _global_'"
                ));
            }
            _ => return Err(format!("the header '{line}' has more than one value")),
        }
    }
    Ok(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_header_stands_in_the_first_lines() {
        let package = |text: &str| header_package(text);
        assert_eq!(
            package("# @package _global_\na: 1"),
            Ok(Some("_global_".into()))
        );
        assert_eq!(package("\n  #@package a.b\n"), Ok(Some("a.b".into())));
        assert_eq!(package("# @package\t x\n"), Ok(Some("x".into())));
        assert_eq!(package("# @package \tx\n"), Ok(Some("x".into())));
        assert_eq!(package("# comment\n# @package x\n"), Ok(None));
        assert_eq!(package("# @other 1\n# @package x\n"), Ok(Some("x".into())));
        assert_eq!(package("a: 1\n# @package x\n"), Ok(None));
        assert!(package("# @package\n").is_err());
        assert!(package("# @package a b\n").is_err());
    }
}
