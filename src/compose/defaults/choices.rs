//! Which option each group gets: bookkeeping over the whole expansion of the
//! defaults lists. Command line beats primary config beats nested configs.

use indexmap::IndexMap;

use super::entry::{Choice, Entry, Item};
use crate::compose::error::Problem;
use crate::compose::grammar::element::Element;
use crate::compose::grammar::overrides::{Kind, Override};
use crate::compose::grammar::values::Parsed;
use crate::compose::library::Library;
use crate::compose::lost::Lost;
use crate::compose::nearest;
use crate::compose::node::Origin;
use crate::compose::saved::Saved;

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
    /// The choices behind a saved config that the expansion starts from.
    pub saved: Option<Saved>,
    known_by_group: IndexMap<String, Vec<String>>,
    /// Where each known choice was made.
    origins: IndexMap<String, Origin>,
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

    /// Gives the entry the choice that replaces its own, if there is one, and
    /// says whether there was.
    ///
    /// # Errors
    /// `~group` on a saved config: the values are there without the choice.
    pub(crate) fn replace(&mut self, entry: &mut Entry) -> Result<bool, Problem> {
        let key = match &entry.item {
            Item::Group { .. } => entry.override_key(),
            _ => return Ok(false),
        };
        if let Some(deletion) = self.deletions.get_mut(&key).filter(|_| entry.saved) {
            deletion.used = true;
            let message = format!(
                "'~{key}' leaves nothing out: the saved config holds the values of '{key}'"
            );
            return Err(Problem::new(message).at(&deletion.origin).help(format!(
                "choose another option with {key}=OPTION, or delete single keys"
            )));
        }
        let Some(replacement) = self.replacements.get_mut(&key) else {
            return Ok(false);
        };
        replacement.used = true;
        if let Item::Group { choice, .. } = &mut entry.item {
            *choice = replacement.choice.clone();
        }
        // Whoever chose is to be named when the choice does not exist.
        entry.origin = replacement.origin.clone();
        Ok(true)
    }

    /// Refuses an option at the top of the config where the saved choice put
    /// values there too: which of them to take back is not known any more.
    pub(crate) fn refuse_mixture(&self, entry: &Entry) -> Result<(), Problem> {
        let key = entry.override_key();
        let (Some(saved), Some(name)) = (&self.saved, entry.name()) else {
            return Ok(());
        };
        let there = match saved.choices.get(&key) {
            Some(None) => return Ok(()),
            Some(Some(choice)) => format!("those of '{key}={choice}'"),
            None => "no record of its own choice".to_string(),
        };
        let mut anew = saved.overrides.clone();
        anew.push(format!("{key}={name}"));
        Err(Problem::new(format!(
            "'{key}={name}' sets keys in all parts of the config, and the saved config has {there}"
        ))
        .at(&entry.origin)
        .help(format!(
            "compose a new config instead, with the overrides of the saved one: {}",
            anew.join(" ")
        )))
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
                let (first, second) = (text(&name), text(before));
                // Lists are walked from their end: the one known is the later one.
                let later = self.origins.get(&key).unwrap_or(&entry.origin);
                let help = match later {
                    Origin::CommandLine { .. } => {
                        format!("to replace the choice, write {key}={second} without the +")
                    }
                    _ => format!("to replace the choice, write 'override /{key}: {second}'"),
                };
                return Err(Problem::new(format!(
                    "the group '{key}' is chosen twice: '{second}' here and '{first}' at {}",
                    entry.origin
                ))
                .at(later)
                .help(help));
            }
            Some(_) => {}
            None => {
                self.known.insert(key.clone(), name);
                self.origins.insert(key.clone(), entry.origin.clone());
                let keys = self.known_by_group.entry(entry.group_path()).or_default();
                keys.push(key);
            }
        }
        Ok(())
    }

    /// The choices known by now, then those of the saved config that stand.
    pub(crate) fn all(&self) -> IndexMap<String, Option<String>> {
        let mut all = self.known.clone();
        for (key, name) in self.saved.iter().flat_map(|saved| &saved.choices) {
            all.entry(key.clone()).or_insert_with(|| name.clone());
        }
        all
    }

    /// Replacements and deletions that met no entry, but for those whose entry
    /// may stand in a config that is lost.
    pub(crate) fn unused(&self, library: &Library, lost: &Lost) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, replacement) in &self.replacements {
            if !replacement.used && !lost.has_group(group_of(key)) {
                problems.push(self.unused_replacement(library, key, replacement));
            }
        }
        for (key, deletion) in &self.deletions {
            if deletion.used || lost.has_group(group_of(key)) {
                continue;
            }
            let chosen = self.known.get(key).map(|name| match name {
                Some(name) => format!("its choice is '{name}'"),
                None => "its choice is null".to_string(),
            });
            let hint = match (&chosen, self.near(key)) {
                (None, Some(near)) => format!("did you mean '~{near}'?"),
                _ => self.known_groups(),
            };
            let what = chosen.unwrap_or_else(|| "it is not in the defaults list".to_string());
            problems.push(
                Problem::new(format!("cannot delete the group '{key}': {what}"))
                    .at(&deletion.origin)
                    .help(hint),
            );
        }
        problems
    }

    /// The group of the defaults list that was probably meant, with its package.
    fn near(&self, key: &str) -> Option<&str> {
        let of_group = self.known_by_group.get(group_of(key));
        let of_group = of_group.into_iter().flatten().map(String::as_str);
        nearest(key, of_group).or_else(|| {
            let known = self.known.keys().map(String::as_str);
            nearest(key, known.filter(|known| !known.starts_with("hydra/")))
        })
    }

    fn unused_replacement(
        &self,
        library: &Library,
        key: &str,
        replacement: &Replacement,
    ) -> Problem {
        let place = match &replacement.config {
            Some(config) => format!("in '{config}': "),
            None => String::new(),
        };
        let group = group_of(key);
        if !library.has_group(group) {
            return no_group(library, group, &place).at(&replacement.origin);
        }
        let problem = Problem::new(format!(
            "{place}cannot override the group '{key}': no entry for it in the defaults list"
        ))
        .at(&replacement.origin);
        let option = match &replacement.choice {
            Choice::One(name) => name.clone(),
            Choice::Many(names) => format!("[{}]", names.join(",")),
            Choice::Null => "null".to_string(),
        };
        let same_group = self.known_by_group.get(group);
        problem.help(match (self.near(key), same_group, &replacement.config) {
            (Some(near), _, _) => format!("did you mean '{near}'?"),
            (None, Some(keys), _) => {
                let mut keys: Vec<String> = keys.iter().map(|key| format!("'{key}'")).collect();
                keys.sort_unstable();
                format!("did you mean {}?", keys.join(" or "))
            }
            (None, None, Some(_)) => format!(
                "to add it, write '{group}: {option}' without override\n{}",
                self.known_groups()
            ),
            (None, None, None) => format!("to add the group, write +{key}={option}"),
        })
    }

    fn known_groups(&self) -> String {
        let mut groups: Vec<&str> = self
            .known
            .keys()
            .map(String::as_str)
            .filter(|key| !key.starts_with("hydra/"))
            .collect();
        if groups.is_empty() {
            return "the defaults list has no groups".to_string();
        }
        groups.sort_unstable();
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
    if !group.is_empty() && !library.has_group(&group) {
        return no_group(library, &group, &place).at(&entry.origin);
    }
    let name = entry.name().unwrap_or_default();
    let mut options = library.options(&group);
    let Item::Group { .. } = entry.item else {
        let problem =
            Problem::new(format!("{place}no config '{}'", entry.config_path())).at(&entry.origin);
        let candidates = options.iter().map(String::as_str).chain(["_self_"]);
        let near = nearest(name, candidates).map(str::to_string);
        if near.is_some() {
            return problem.help(did_you_mean(near).trim_end());
        }
        options.truncate(30);
        let kind = if group.is_empty() {
            "configs there are".to_string()
        } else {
            format!("options of '{group}'")
        };
        return problem.help(format!(
            "{}{kind}: {}",
            did_you_mean(near),
            options.join(", ")
        ));
    };
    let near = nearest(name, options.iter().map(String::as_str)).map(str::to_string);
    Problem::new(format!("{place}the group '{group}' has no option '{name}'"))
        .at(&entry.origin)
        .help(format!(
            "{}options of '{group}': {}",
            did_you_mean(near),
            options.join(", ")
        ))
}

/// The problem of a group that no source has. A group written without `/` in a
/// nested config is looked for below that config's own group.
fn no_group(library: &Library, group: &str, place: &str) -> Problem {
    let problem = Problem::new(format!("{place}there is no group '{group}'"));
    let groups = library.groups();
    let mut below = group;
    while let Some((_, rest)) = below.split_once('/') {
        if library.has_group(rest) {
            return problem.help(format!(
                "did you mean '/{rest}'? Without the '/', a group is one below the config's own"
            ));
        }
        below = rest;
    }
    if let Some(near) = nearest(group, groups.iter().map(String::as_str)) {
        return problem.help(format!("did you mean '{near}'?"));
    }
    let groups: Vec<&str> = groups
        .iter()
        .map(String::as_str)
        .filter(|group| *group != "hydra" && !group.starts_with("hydra/"))
        .collect();
    let known = match groups.is_empty() {
        true => String::new(),
        false => format!("groups there are: {}\n", groups.join(", ")),
    };
    problem.help(format!("{known}{}", library.describe()))
}

/// The group of a key that may have a package.
fn group_of(key: &str) -> &str {
    key.split('@').next().unwrap_or(key)
}

fn did_you_mean(near: Option<String>) -> String {
    match near {
        Some(near) => format!("did you mean '{near}'?\n"),
        None => String::new(),
    }
}
