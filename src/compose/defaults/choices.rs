//! Which option each group gets: bookkeeping over the whole expansion of the
//! defaults lists. Command line beats primary config beats nested configs.

use indexmap::IndexMap;

use super::entry::{Choice, Entry, Item};
use crate::compose::error::Problem;
use crate::compose::grammar::element::Element;
use crate::compose::grammar::overrides::{Kind, Override, Parsed};
use crate::compose::library::Library;
use crate::compose::nearest;
use crate::compose::node::Origin;

/// A choice that replaces the one in a defaults list.
struct Replacement {
    choice: Choice,
    /// The config whose `override` entry it is; `None` for the command line.
    config: Option<String>,
    used: bool,
    origin: Origin,
}

struct Deletion {
    /// Delete only if this is the choice.
    option: Option<String>,
    used: bool,
    origin: Origin,
}

/// All that is known about groups so far.
#[derive(Default)]
pub(crate) struct Choices {
    replacements: IndexMap<String, Replacement>,
    deletions: IndexMap<String, Deletion>,
    /// `+group=option`, for the end of the primary defaults list.
    pub appended: Vec<Entry>,
    /// Overrides of values, in order.
    pub values: Vec<Override>,
    /// Final choices in the order of discovery.
    pub known: IndexMap<String, Option<String>>,
    known_by_group: IndexMap<String, Vec<String>>,
}

impl Choices {
    /// Sorts the overrides into choices of groups and changes of values. An
    /// override is about a group if its key is one.
    pub(crate) fn new(
        library: &Library,
        overrides: &[Override],
        problems: &mut Vec<Problem>,
    ) -> Choices {
        let mut choices = Choices::default();
        for one in overrides {
            let element = match &one.value {
                Parsed::Sweep(_) => continue,
                Parsed::Nothing => None,
                Parsed::Element(element) => Some(element),
            };
            let is_value = matches!(element, Some(Element::Dict(_)));
            if is_value || one.key.is_empty() || !library.has_group(&one.key) {
                choices.values.push(one.clone());
            } else if let Err(problem) = choices.add(one, element) {
                problems.push(problem.at(&one.origin()));
            }
        }
        choices
    }

    fn add(&mut self, one: &Override, element: Option<&Element>) -> Result<(), Problem> {
        let key = one.bare_key();
        if one.kind == Kind::ForceAdd {
            return Err(
                Problem::new(format!("'++' does not work for the group '{}'", one.key)).help(
                    format!("choose with {key}=option, or add the group with +{key}=option"),
                ),
            );
        }
        if one.kind == Kind::Delete {
            let option = match element {
                None | Some(Element::Null) => None,
                Some(Element::Str(name) | Element::Quoted { text: name, .. }) => Some(name.clone()),
                Some(_) => {
                    return Err(Problem::new(format!(
                        "the option in '~{key}=..' must be a name"
                    )));
                }
            };
            self.deletions.insert(
                key,
                Deletion {
                    option,
                    used: false,
                    origin: one.origin(),
                },
            );
            return Ok(());
        }
        let choice = match element {
            Some(Element::Str(name) | Element::Quoted { text: name, .. }) => {
                Choice::One(name.clone())
            }
            Some(Element::List(items)) => Choice::Many(
                items
                    .iter()
                    .map(|item| match item {
                        Element::Str(name) | Element::Quoted { text: name, .. } => Ok(name.clone()),
                        other => Err(Problem::new(format!(
                            "'{}' is a group; its options are names, not {}",
                            one.key,
                            other.type_name()
                        ))),
                    })
                    .collect::<Result<_, _>>()?,
            ),
            other => {
                let kind = other.map_or("nothing", Element::type_name);
                let problem = Problem::new(format!(
                    "'{}' is a group; choose a name or a list of names, not {kind}",
                    one.key
                ));
                return Err(match other {
                    Some(Element::Null) => {
                        problem.help(format!("to leave the group out, write ~{key}"))
                    }
                    _ => problem.help("quote the name if it looks like a number"),
                });
            }
        };
        if one.kind == Kind::Add {
            let item = Item::Group {
                group: one.key.clone(),
                choice,
            };
            let mut entry = Entry::new(item, one.origin()).with_package(one.package.clone());
            entry.appended = true;
            self.appended.push(entry);
        } else {
            let replacement = Replacement {
                choice,
                config: None,
                used: false,
                origin: one.origin(),
            };
            self.replacements.insert(key, replacement);
        }
        Ok(())
    }

    /// Notes an `override` entry. The first one for a key stays.
    pub(crate) fn note_override(&mut self, config: &str, entry: &Entry) {
        if let Item::Group { choice, .. } = &entry.item {
            self.replacements
                .entry(entry.override_key())
                .or_insert_with(|| Replacement {
                    choice: choice.clone(),
                    config: Some(config.to_string()),
                    used: false,
                    origin: entry.origin.clone(),
                });
        }
    }

    /// Gives the entry the choice that replaces its own, if there is one.
    pub(crate) fn replace(&mut self, entry: &mut Entry) {
        let key = match &entry.item {
            Item::Group { .. } => entry.override_key(),
            _ => return,
        };
        if let Some(replacement) = self.replacements.get_mut(&key) {
            replacement.used = true;
            if let Item::Group { choice, .. } = &mut entry.item {
                *choice = replacement.choice.clone();
            }
            // Whoever chose is to be named when the choice does not exist.
            entry.origin = replacement.origin.clone();
        }
    }

    /// Whether `~group` drops the entry.
    pub(crate) fn delete(&mut self, entry: &Entry) -> bool {
        if !matches!(entry.item, Item::Group { .. }) {
            return false;
        }
        let Some(deletion) = self.deletions.get_mut(&entry.override_key()) else {
            return false;
        };
        let matches = deletion
            .option
            .as_deref()
            .is_none_or(|option| entry.name() == Some(option));
        deletion.used |= matches;
        matches
    }

    /// Records the choice of a group.
    ///
    /// # Errors
    /// The same group was chosen differently before.
    pub(crate) fn record(&mut self, entry: &Entry) -> Result<(), Problem> {
        if !matches!(entry.item, Item::Group { .. }) {
            return Ok(());
        }
        let key = entry.override_key();
        let name = entry.name().map(str::to_string);
        match self.known.get(&key) {
            Some(before) if *before != name => {
                let text = |name: &Option<String>| name.clone().unwrap_or_else(|| "null".into());
                return Err(Problem::new(format!(
                    "the group '{key}' is chosen twice: '{}' and '{}'",
                    text(&name),
                    text(before)
                ))
                .at(&entry.origin)
                .help(format!(
                    "to replace a choice, write 'override {key}: {}' in the later defaults list, or {key}={} on the command line",
                    text(before),
                    text(before)
                )));
            }
            Some(_) => {}
            None => {
                self.known.insert(key.clone(), name);
                let keys = self.known_by_group.entry(entry.group_path()).or_default();
                keys.push(key);
            }
        }
        Ok(())
    }

    /// Replacements and deletions that met no entry.
    pub(crate) fn unused(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, replacement) in &self.replacements {
            if !replacement.used {
                problems.push(self.unused_replacement(key, replacement));
            }
        }
        for (key, deletion) in &self.deletions {
            if !deletion.used {
                let chosen = self.known.get(key).map(|name| match name {
                    Some(name) => format!("its choice is '{name}'"),
                    None => "its choice is null".to_string(),
                });
                let what = chosen.unwrap_or_else(|| "it is not in the defaults list".to_string());
                problems.push(
                    Problem::new(format!("cannot delete the group '{key}': {what}"))
                        .at(&deletion.origin)
                        .help(self.known_groups()),
                );
            }
        }
        problems
    }

    fn unused_replacement(&self, key: &str, replacement: &Replacement) -> Problem {
        let group = key.split('@').next().unwrap_or(key);
        let candidates: Vec<&str> = self
            .known_by_group
            .get(group)
            .map(|keys| keys.iter().map(String::as_str).collect())
            .unwrap_or_default();
        let place = match &replacement.config {
            Some(config) => format!("in '{config}': "),
            None => String::new(),
        };
        let problem = Problem::new(format!(
            "{place}cannot override the group '{key}': no entry for it in the defaults list"
        ))
        .at(&replacement.origin);
        let option = match &replacement.choice {
            Choice::One(name) => name.clone(),
            Choice::Many(names) => format!("[{}]", names.join(",")),
            Choice::Null => "null".to_string(),
        };
        problem.help(if !candidates.is_empty() {
            format!("did you mean {}?", candidates.join(" or "))
        } else if replacement.config.is_some() {
            format!(
                "keys of overrides are relative to the group of the config; an absolute one starts with '/'\n{}",
                self.known_groups()
            )
        } else {
            format!("to add the group, write +{key}={option}")
        })
    }

    fn known_groups(&self) -> String {
        let groups: Vec<&str> = self
            .known
            .keys()
            .map(String::as_str)
            .filter(|key| !key.starts_with("hydra/"))
            .collect();
        if groups.is_empty() {
            return "the defaults list has no groups".to_string();
        }
        format!("groups in the defaults list: {}", groups.join(", "))
    }
}

/// The problem of an option that is no file, with the options there are.
pub(crate) fn unknown_option(library: &Library, entry: &Entry, parent: Option<&str>) -> Problem {
    let place = match parent {
        Some(parent) => format!("in '{parent}': "),
        None => String::new(),
    };
    let group = entry.group_path();
    let Item::Group { .. } = entry.item else {
        let problem =
            Problem::new(format!("{place}no config '{}'", entry.config_path())).at(&entry.origin);
        let mut names = library.options(&group);
        if names.is_empty() {
            return problem.help(library.describe());
        }
        let name = entry.name().unwrap_or_default().to_string();
        let near = nearest(&name, names.iter().map(String::as_str)).map(str::to_string);
        names.truncate(30);
        let kind = if group.is_empty() {
            "configs there are".to_string()
        } else {
            format!("options of '{group}'")
        };
        return problem.help(format!(
            "{}{kind}: {}",
            did_you_mean(near),
            names.join(", ")
        ));
    };
    let name = entry.name().unwrap_or_default();
    let problem = Problem::new(format!("{place}the group '{group}' has no option '{name}'"))
        .at(&entry.origin);
    let options = library.options(&group);
    if options.is_empty() {
        let groups = library.subgroups("");
        let near = nearest(&group, groups.iter().map(String::as_str)).map(str::to_string);
        return problem.help(format!(
            "{}there is no group '{group}'\n{}",
            did_you_mean(near),
            library.describe()
        ));
    }
    let near = nearest(name, options.iter().map(String::as_str)).map(str::to_string);
    problem.help(format!(
        "{}options of '{group}': {}",
        did_you_mean(near),
        options.join(", ")
    ))
}

fn did_you_mean(near: Option<String>) -> String {
    match near {
        Some(near) => format!("did you mean '{near}'?\n"),
        None => String::new(),
    }
}
