//! The expansion of defaults lists: a tree of configs, walked depth first into
//! the list of what is merged.

use indexmap::IndexMap;

use super::choices::{Choices, unknown_option};
use super::entry::{Choice, Entry, Item};
use crate::compose::error::{MAX_PROBLEMS, Problem};
use crate::compose::found::Step;
use crate::compose::grammar::overrides::Override;
use crate::compose::interpolate::Resolver;
use crate::compose::library::Library;
use crate::compose::lost::Lost;
use crate::compose::node::{Key, Map, Node, Origin, Value};
use crate::compose::saved::Saved;
use crate::compose::scope::Scope;

/// Configs that include configs deeper than this are taken for a cycle.
const MAX_DEPTH: usize = 64;
/// More entries than this in the defaults lists of one composition are refused.
const MAX_ENTRIES: usize = 20_000;
/// A longer group or package (in bytes) is refused: every entry below holds it.
const MAX_PATH: usize = 4096;
/// Messages list no more names than this.
const MAX_NAMES: usize = 100;

/// One config of the final list.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub config_path: String,
    /// Dotted; empty is the top.
    pub package: String,
    /// Listed by a `_self_` of its own defaults list.
    pub own_body: bool,
    pub primary: bool,
    pub parent: Option<String>,
    /// Of a group, and where the entry was written.
    override_key: Option<(String, Origin)>,
}

/// The outcome of the expansion.
pub(crate) struct Defaults {
    /// In the order of merging, later wins.
    pub list: Vec<Placed>,
    /// Groups and their final choices, in the order of discovery.
    pub choices: IndexMap<String, Option<String>>,
    /// Overrides of values, not yet applied.
    pub value_overrides: Vec<Override>,
    pub warnings: Vec<String>,
    /// What went wrong on the way; the list lacks it.
    pub problems: Vec<Problem>,
    /// What that would have brought.
    pub lost: Lost,
    /// Packages whose saved values give way to a new choice.
    pub replaced: Vec<String>,
    /// Hydra's own config and the primary one.
    pub(super) roots: [Branch; 2],
}

pub(super) struct Branch {
    pub(super) entry: Entry,
    pub(super) children: Vec<Branch>,
}

/// Where an entry is expanded.
#[derive(Clone, Copy)]
struct Context<'c> {
    parent: Option<&'c str>,
    depth: usize,
    /// Below an entry whose option was an interpolation.
    interpolated: bool,
}

struct Expansion<'l> {
    library: &'l Library,
    choices: Choices,
    /// `???` choices are left out (for the master config of a sweep).
    skip_missing: bool,
    scope: &'l Scope,
    problems: Vec<Problem>,
    lost: Lost,
    warnings: Vec<String>,
    replaced: Vec<String>,
    entries: usize,
    /// A limit was met and reported.
    ended: bool,
}

/// Expands Hydra's own config and the primary one. The problems of the outcome are
/// everything found wrong: bad files, unknown options, missing choices, double
/// choices, overrides without an entry. `lost` is what failed before.
pub(crate) fn expand(
    library: &Library,
    primary: Option<&str>,
    saved: Option<&Saved>,
    overrides: &[Override],
    skip_missing: bool,
    scope: &Scope,
    lost: Lost,
) -> Defaults {
    let mut problems = Vec::new();
    let mut choices = Choices::new(library, overrides, &mut problems);
    choices.saved = saved.cloned();
    let mut expansion = Expansion {
        library,
        choices,
        skip_missing,
        scope,
        problems,
        warnings: Vec::new(),
        lost,
        replaced: Vec::new(),
        entries: 0,
        ended: false,
    };
    let context = Context {
        parent: None,
        depth: 0,
        interpolated: false,
    };
    // The primary config first, so that its overrides reach Hydra's own groups.
    let primary = match primary {
        Some(name) => expansion.primary(name, context),
        None => expansion.without_primary(context),
    };
    let hydra = Entry::new(
        Item::Config("hydra/config".to_string()),
        crate::compose::node::Origin::BuiltIn,
    );
    // An endless primary config is no reason to lack Hydra's own.
    (expansion.entries, expansion.ended) = (0, false);
    let hydra = expansion.config(hydra, context);
    let mut list = Vec::new();
    walk(&hydra, None, &mut list);
    walk(&primary, None, &mut list);
    expansion.refuse_double_entries(&list);
    let unused = expansion.choices.unused(library, &expansion.lost);
    expansion.problems.extend(unused);
    Defaults {
        list,
        choices: expansion.choices.all(),
        value_overrides: expansion.choices.values,
        warnings: expansion.warnings,
        roots: [hydra, primary],
        replaced: expansion.replaced,
        problems: expansion.problems,
        lost: expansion.lost,
    }
}

impl Expansion<'_> {
    fn primary(&mut self, name: &str, context: Context) -> Branch {
        let mut entry = Entry::new(
            Item::Config(name.to_string()),
            crate::compose::node::Origin::BuiltIn,
        );
        entry.primary = true;
        if !self.library.has_config(&entry.config_path()) {
            let options = self.library.options(&entry.group_path());
            let near = crate::compose::nearest(
                entry.name().unwrap_or_default(),
                options.iter().map(String::as_str),
            );
            let hint = near.map_or(String::new(), |near| format!("did you mean '{near}'?\n"));
            self.problems.push(
                Problem::new(format!("there is no primary config '{name}'"))
                    .help(format!("{hint}{}", self.library.describe())),
            );
            self.lost.everything();
            return leaf(deleted(entry));
        }
        self.config(entry, context)
    }

    /// Only what the command line adds.
    fn without_primary(&mut self, context: Context) -> Branch {
        let mut entry = Entry::new(
            Item::Config("empty".to_string()),
            crate::compose::node::Origin::BuiltIn,
        );
        entry.primary = true;
        entry.deleted = true;
        let mut appended = std::mem::take(&mut self.choices.appended);
        for entry in &mut appended {
            entry.set_parent("", "");
        }
        let children = self.children(appended, "", context);
        Branch { entry, children }
    }

    /// What is too much about an entry, if anything, and what to do.
    fn limit(&self, entry: &Entry, context: Context) -> Option<(String, &'static str)> {
        if context.depth > MAX_DEPTH {
            return Some((
                format!(
                    "the defaults lists do not come to an end at '{}'",
                    entry.config_path()
                ),
                "a config includes itself, directly or through others",
            ));
        }
        if self.entries > MAX_ENTRIES {
            return Some((
                format!("the defaults lists have more than {MAX_ENTRIES} entries"),
                "look for a config that is included by many others, or by itself",
            ));
        }
        let longest = entry.parent.package.len().max(entry.parent.group.len());
        (longest > MAX_PATH).then(|| {
            (
                format!("a group or package is longer than {MAX_PATH} bytes"),
                "give it a shorter name",
            )
        })
    }

    /// One config with all that its defaults list brings.
    fn config(&mut self, mut entry: Entry, context: Context) -> Branch {
        // Said once; the rest of the tree is cut.
        if self.ended || self.problems.len() > MAX_PROBLEMS {
            return leaf(deleted(entry));
        }
        if let Some((message, help)) = self.limit(&entry, context) {
            self.ended = true;
            self.problems
                .push(Problem::new(message).at(&entry.origin).help(help));
            self.lost.everything();
            return leaf(deleted(entry));
        }
        let path = entry.config_path();
        let has_name = entry.name().is_some() && !entry.is_missing();
        let loaded = match has_name.then(|| self.library.load(&path)).transpose() {
            Ok(loaded) => loaded.flatten(),
            Err(problems) => {
                self.problems.extend(problems);
                self.lose(&entry);
                return leaf(deleted(entry));
            }
        };
        if let Some(loaded) = &loaded {
            self.note_old_package(&path, loaded.package.as_deref());
            entry.set_header(loaded.package.as_deref());
        }
        if self.choices.delete(&entry) {
            return leaf(deleted(entry));
        }
        if let Err(problem) = self.choices.record(&entry) {
            self.problems.push(problem);
            return leaf(deleted(entry));
        }
        if entry.name().is_none() {
            return leaf(entry);
        }
        if entry.is_missing() {
            if !self.skip_missing {
                let problem = self.missing_choice(&entry);
                self.problems.push(problem);
                self.lose(&entry);
            }
            return leaf(entry);
        }
        let Some(loaded) = loaded else {
            if !entry.optional {
                let problem = unknown_option(self.library, &entry, context.parent);
                self.problems.push(problem);
                self.lose(&entry);
            }
            return leaf(deleted(entry));
        };
        self.entries += 1 + loaded.defaults.len();
        let mut list = loaded.defaults.clone();
        let appended = if entry.primary {
            std::mem::take(&mut self.choices.appended)
        } else {
            Vec::new()
        };
        if !list.is_empty() || !appended.is_empty() {
            self.place_own_body(&entry, &mut list, loaded.has_content());
        }
        list.extend(appended);
        let (group, package) = (entry.group_path(), entry.final_package());
        for item in list.iter_mut().filter(|item| !item.is_own_body()) {
            item.set_parent(&group, &package);
        }
        self.note_overrides(&path, &list, context);
        let children = self.children(list, &path, context);
        Branch { entry, children }
    }

    /// Notes what the config of an entry would have brought.
    fn lose(&mut self, entry: &Entry) {
        let group = entry.group_path();
        self.lost
            .option(self.library, &group, &entry.final_package());
    }

    /// A list that does not say where the file's own values go has them last.
    fn place_own_body(&mut self, entry: &Entry, list: &mut Vec<Entry>, has_content: bool) {
        let has_own_body = list.iter().any(Entry::is_own_body);
        let has_plain = list.iter().any(|item| !item.overrides);
        if !has_own_body && has_plain || list.is_empty() {
            if entry.primary && has_content && has_plain {
                self.warnings.push(format!(
                    "in '{}': the defaults list does not say where the file's own values go; add '- _self_' (they go last now)",
                    entry.config_path()
                ));
            }
            list.push(Entry::new(Item::OwnBody, entry.origin.clone()));
        }
    }

    /// Words that Hydra replaced in headers up to its version_base 1.1.
    fn note_old_package(&mut self, path: &str, package: Option<&str>) {
        let mut words = package.into_iter().flat_map(|package| package.split('.'));
        if let Some(word) = words.find(|word| matches!(*word, "_group_" | "_name_")) {
            self.warnings.push(format!(
                "in '{path}': '{word}' in '# @package' is a key of that name since version_base 1.2; \
                 without the line a config lies under its group"
            ));
        }
    }

    fn note_overrides(&mut self, path: &str, list: &[Entry], context: Context) {
        let mut last: Option<&Entry> = None;
        for item in list.iter().filter(|item| !item.is_own_body()) {
            if let Some(last) = last
                && !item.overrides
                && !item.appended
            {
                self.problems.push(
                    Problem::new(format!(
                        "in '{path}': 'override {}' stands before '{}'",
                        last.override_key(),
                        item.override_key()
                    ))
                    .at(&last.origin)
                    .help("overrides stand at the end of the defaults list"),
                );
                return;
            }
            if item.overrides {
                last = Some(item);
                if context.interpolated {
                    self.problems.push(
                        Problem::new(format!(
                            "in '{path}': 'override {}' is not allowed below an option that was an interpolation",
                            item.override_key()
                        ))
                        .at(&item.origin)
                        .help("move the override to the config that has the interpolation"),
                    );
                }
                self.choices.note_override(path, item);
            }
        }
    }

    /// Expands the entries of a list, last first: an `override` reaches the
    /// entries before it. Interpolated options wait until the others are known.
    fn children(&mut self, list: Vec<Entry>, path: &str, context: Context) -> Vec<Branch> {
        let inner = Context {
            parent: Some(path),
            depth: context.depth + 1,
            interpolated: context.interpolated,
        };
        let mut children: Vec<Branch> = Vec::new();
        for mut item in list.into_iter().rev() {
            if item.is_own_body() {
                children.push(leaf(item));
                continue;
            }
            if item.overrides {
                continue;
            }
            match self.choices.replace(&mut item) {
                Ok(replaced) if replaced || !item.saved => {}
                Ok(_) => continue,
                Err(problem) => {
                    self.problems.push(problem);
                    continue;
                }
            }
            if let Item::Group {
                group,
                choice: Choice::Many(options),
            } = &item.item
            {
                for option in options.iter().rev() {
                    if option.contains("${") {
                        self.problems.push(
                            Problem::new(format!(
                                "in '{path}': '{option}': an interpolation cannot stand in a list of options"
                            ))
                            .at(&item.origin)
                            .help("give each option an entry of its own"),
                        );
                        continue;
                    }
                    let mut one = Entry::new(
                        Item::Config(format!("{group}/{option}")),
                        item.origin.clone(),
                    );
                    one.package = item.package.clone();
                    one.optional = item.optional;
                    one.saved = item.saved;
                    one.parent = item.parent.clone();
                    let branch = self.config(one, inner);
                    children.push(branch);
                }
            } else if item.is_interpolation() {
                children.push(leaf(item));
            } else {
                let branch = self.config(item, inner);
                children.push(branch);
            }
        }
        let deferred = Context {
            interpolated: true,
            ..inner
        };
        for child in &mut children {
            if child.entry.is_interpolation() {
                // A choice that failed is told already, and leads nowhere else.
                let follows = self.lost.has_choice_in(&template(&child.entry));
                match self.resolve(&child.entry) {
                    Ok(entry) if follows && !self.library.has_config(&entry.config_path()) => {
                        self.lose(&entry);
                        child.entry.deleted = true;
                    }
                    Ok(entry) => *child = self.config(entry, deferred),
                    Err(problem) => {
                        if !follows {
                            self.problems.push(problem);
                        }
                        let entry = child.entry.clone();
                        self.lose(&entry);
                        child.entry.deleted = true;
                    }
                }
            }
        }
        for child in children.iter().filter(|child| child.entry.saved) {
            self.note_replaced(&child.entry);
        }
        children.reverse();
        children
    }

    /// A group of a saved config that was chosen anew: its package starts empty.
    fn note_replaced(&mut self, entry: &Entry) {
        let package = entry.final_package();
        if !package.is_empty() {
            self.replaced.push(package);
        } else if let Err(problem) = self.choices.refuse_mixture(entry) {
            self.problems.push(problem);
        }
    }

    /// Fills in an option such as `${db}_fast` from the choices known by now.
    fn resolve(&self, entry: &Entry) -> Result<Entry, Problem> {
        let mut known = Map::new();
        for (key, name) in self.choices.all() {
            let value = name.map_or(Value::Null, Value::Str);
            known.insert(Key::Str(key), Node::built_in(value));
        }
        if let Err(fail) = self.scope.spend(known.len()) {
            return Err(Problem::new(fail.message()).at(&entry.origin));
        }
        let root = Node::built_in(Value::Map(known));
        let text = template(entry);
        let place = [Step::Key(Key::from("defaults"))];
        let mut resolver = Resolver::new(&root, None, self.scope);
        let fault = |message: &str| {
            let keys: Vec<String> = self.choices.all().into_keys().take(MAX_NAMES).collect();
            Problem::new(format!("cannot resolve the option '{text}': {message}"))
                .at(&entry.origin)
                .help(format!("known choices: {}", keys.join(", ")))
        };
        let found = resolver
            .text(&text, Some(&place))
            .map_err(|fail| fault(fail.message()))?;
        let Some(name) = found.node.as_str() else {
            return Err(fault(&format!(
                "it gives {}, not a name",
                found.node.type_name()
            )));
        };
        let mut resolved = entry.clone();
        match &mut resolved.item {
            Item::Group { choice, .. } => *choice = Choice::One(name.to_string()),
            // Relative as it was written: its group and package are then those of any entry.
            Item::Config(path) => *path = name.to_string(),
            Item::OwnBody => {}
        }
        Ok(resolved)
    }

    fn missing_choice(&self, entry: &Entry) -> Problem {
        let key = match &entry.item {
            Item::Group { .. } => entry.override_key(),
            _ => return Problem::new("a config name cannot be '???'").at(&entry.origin),
        };
        let options = self.library.options(&entry.group_path());
        Problem::new(format!("an option of '{key}' must be chosen"))
            .at(&entry.origin)
            .help(format!(
                "write {key}=OPTION; options: {}",
                options.join(", ")
            ))
    }

    fn refuse_double_entries(&mut self, list: &[Placed]) {
        let mut seen = std::collections::HashSet::new();
        for (key, origin) in list
            .iter()
            .filter_map(|placed| placed.override_key.as_ref())
        {
            if !seen.insert(key) {
                self.problems.push(
                    Problem::new(format!(
                        "the group '{key}' stands more than once in the final defaults list"
                    ))
                    .at(origin)
                    .help(format!(
                        "remove all entries but one; to choose another option here, write 'override {key}: OPTION'"
                    )),
                );
            }
        }
    }
}

/// What of an entry may hold an interpolation: an option, or the path of a config.
fn template(entry: &Entry) -> String {
    match &entry.item {
        Item::Config(path) => path.clone(),
        _ => entry.name().unwrap_or_default().to_string(),
    }
}

fn leaf(entry: Entry) -> Branch {
    Branch {
        entry,
        children: Vec::new(),
    }
}

fn deleted(mut entry: Entry) -> Entry {
    entry.deleted = true;
    entry
}

/// Depth first: children in their order, a leaf itself.
fn walk(branch: &Branch, parent: Option<(&Branch, Option<&Entry>)>, list: &mut Vec<Placed>) {
    if !branch.children.is_empty() {
        for child in &branch.children {
            walk(child, Some((branch, parent.map(|(b, _)| &b.entry))), list);
        }
        return;
    }
    let entry = &branch.entry;
    if entry.deleted || entry.is_missing() || entry.name().is_none() {
        return;
    }
    if entry.is_own_body() {
        if let Some((owner, grand)) = parent
            && !owner.entry.deleted
        {
            list.push(Placed {
                config_path: owner.entry.config_path(),
                package: owner.entry.final_package(),
                own_body: true,
                primary: owner.entry.primary,
                parent: grand.map(Entry::config_path),
                override_key: None,
            });
        }
        return;
    }
    list.push(Placed {
        config_path: entry.config_path(),
        package: entry.final_package(),
        own_body: false,
        primary: entry.primary,
        parent: parent.map(|(owner, _)| owner.entry.config_path()),
        override_key: matches!(entry.item, Item::Group { .. })
            .then(|| (entry.override_key(), entry.origin.clone())),
    });
}
