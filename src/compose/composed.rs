//! What goes into composition and what comes out.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};
use indexmap::IndexMap;

use super::apply::{Setting, apply};
use super::defaults::{self, Defaults};
use super::error::{Error, Problem};
use super::grammar::overrides::{Override, Parsed};
use super::grammar::sweeps::Sweep;
use super::hydra;
use super::interpolate::Resolver;
use super::library::Library;
use super::merge::merge_package;
use super::node::{Key, Map, Node, Origin, Value};
use super::source::{Source, Tree};

/// A composition to be made.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The search path, first match wins. Hydra's own configs stand before it.
    /// A missing directory is an error for the providers `main` and
    /// `command-line`, and is passed over for others.
    pub sources: Vec<Source>,
    /// The primary config, with or without `.yaml`. `None` composes from nothing.
    pub config_name: Option<String>,
    /// Overrides as typed, flags already taken out.
    pub overrides: Vec<String>,
    /// `hydra.job.name` unless the config or an override sets it.
    pub job_name: String,
    /// A sweep's master config: swept values such as `a=1,2` are allowed and left
    /// out, options that are `???` too, and `hydra.mode` becomes `MULTIRUN`.
    pub multirun: bool,
    /// The job is going to run: `hydra.mode` becomes `RUN` where nothing else set it.
    pub run: bool,
    /// The composed config is checked against a schema: an unknown key is then
    /// never answered with adding it.
    pub closed: bool,
    /// `hydra.runtime.cwd`; the process's own directory when `None`.
    pub cwd: Option<PathBuf>,
    /// The time that `${now:..}` gives, the same for all values; the time of composition when `None`.
    pub now: Option<DateTime<Local>>,
}

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

/// A composed configuration. Values are unresolved and carry their origins.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The config without its `hydra` node.
    pub job: Node,
    /// The content of the `hydra` node.
    pub hydra: Node,
    pub task_overrides: Vec<String>,
    pub hydra_overrides: Vec<String>,
    /// Group (with `@package` where it is not the default one) to its choice;
    /// `None` for null. Groups of the primary config come first, last entry first.
    pub choices: IndexMap<String, Option<String>>,
    /// What was merged, in order.
    pub defaults: Vec<Listed>,
    /// The search path as used, Hydra's own source first.
    pub sources: Vec<Source>,
    /// Things a user should hear of that are no errors.
    pub warnings: Vec<String>,
    now: DateTime<Local>,
}

/// Composes a configuration.
///
/// # Errors
/// Holds every problem of the stage that failed: bad overrides, then the
/// defaults list with its files, then merging and applying the overrides.
pub fn compose(req: &Request) -> Result<Composed, Error> {
    let overrides = Override::parse_all(&req.overrides).map_err(errors)?;
    refuse_sweeps(&overrides, req.multirun).map_err(errors)?;
    let now = req.now.unwrap_or_else(Local::now);
    let cwd = match &req.cwd {
        Some(cwd) => cwd.clone(),
        None => std::env::current_dir().unwrap_or_default(),
    };
    let mut warnings = Vec::new();
    let library = library(req, &overrides, &cwd, &mut warnings).map_err(errors)?;
    let expanded = defaults::expand(
        &library,
        req.config_name.as_deref(),
        &overrides,
        req.multirun,
        now,
    )
    .map_err(errors)?;
    let mut root = merge_all(&library, &expanded, now).map_err(errors)?;
    apply_all(&mut root, &library, &expanded, now, req.closed).map_err(errors)?;

    let mut hydra = match root
        .as_map_mut()
        .and_then(|m| m.shift_remove(&Key::from("hydra")))
    {
        Some(hydra) => hydra,
        None => Node::empty_map(),
    };
    let texts = |hydra: bool| -> Vec<String> {
        overrides
            .iter()
            .filter(|one| one.is_hydra() == hydra)
            .map(|one| one.input.clone())
            .collect()
    };
    let mut hydra_overrides = texts(true);
    hydra_overrides.extend(set_mode(&mut hydra, req));
    let task_overrides = texts(false);
    let task_keys: Vec<(String, String)> = overrides
        .iter()
        .filter(|one| !one.is_hydra())
        .map(|one| (one.key.clone(), one.input.clone()))
        .collect();
    hydra::fill(
        &mut hydra,
        &hydra::Facts {
            task_overrides: &task_overrides,
            hydra_overrides: &hydra_overrides,
            task_keys: &task_keys,
            choices: &expanded.choices,
            sources: library.sources(),
            job_name: &req.job_name,
            config_name: req.config_name.as_deref(),
            cwd: cwd.display().to_string(),
        },
    );
    warnings.extend(expanded.warnings);
    Ok(Composed {
        job: root,
        hydra,
        task_overrides,
        hydra_overrides,
        choices: expanded.choices,
        defaults: expanded
            .list
            .into_iter()
            .map(|placed| Listed {
                config_path: placed.config_path,
                package: placed.package,
                own_body: placed.own_body,
                parent: placed.parent,
            })
            .collect(),
        sources: library.sources().to_vec(),
        warnings,
        now,
    })
}

/// Every group of a search path with its options, both sorted; subgroups are
/// `group/sub`. Hydra's own groups come too.
pub fn groups(sources: &[Source]) -> Vec<(String, Vec<String>)> {
    let library = Library::new(sources);
    let mut found = Vec::new();
    let mut open = library.subgroups("");
    while let Some(group) = open.pop() {
        // Links can make a tree endless.
        if group.matches('/').count() < 16 {
            open.extend(
                library
                    .subgroups(&group)
                    .into_iter()
                    .map(|sub| format!("{group}/{sub}")),
            );
        }
        found.push((group.clone(), library.options(&group)));
    }
    found.sort();
    found
}

fn errors(problems: Vec<Problem>) -> Error {
    Error { problems }
}

/// Without `--multirun`, a swept value is a mistake; with it, one under `hydra.` is.
fn refuse_sweeps(overrides: &[Override], multirun: bool) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for one in overrides {
        let Parsed::Sweep(sweep) = &one.value else {
            continue;
        };
        let key = one.key_element();
        let problem = if multirun {
            if !one.is_hydra() {
                continue;
            }
            Problem::new(format!("'{}': the keys of hydra cannot be swept", one.key))
        } else if let Sweep::Choice { simple: true, .. } = sweep {
            Problem::new(format!(
                "'{}' has several values, which only a sweep can take",
                one.key
            ))
            .help(format!(
                "for a list, write {key}=[a,b]\nfor a string, quote it: '{key}=\"a,b\"'"
            ))
        } else {
            Problem::new(format!("'{}' is swept, but this is not a sweep", one.key))
                .help("give one value")
        };
        problems.push(problem.at(&one.origin()));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// The search path with the entries of `hydra.searchpath`.
fn library(
    req: &Request,
    overrides: &[Override],
    cwd: &Path,
    warnings: &mut Vec<String>,
) -> Result<Library, Vec<Problem>> {
    let mut problems = Vec::new();
    for source in &req.sources {
        if let (Tree::Dir(path), false) = (&source.tree, source.available())
            && matches!(source.provider.as_str(), "main" | "command-line")
        {
            problems.push(
                Problem::new(format!(
                    "the config directory {} does not exist",
                    path.display()
                ))
                .help("name a directory that exists and can be read"),
            );
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut library = Library::new(&req.sources);
    let extra = search_path(req, overrides, &library, cwd).map_err(|p| vec![p])?;
    for source in &extra {
        if !source.available() {
            let (_, path) = source.location();
            warnings.push(format!(
                "{}: the directory {path} does not exist",
                source.provider
            ));
        }
    }
    library.extend(extra);
    Ok(library)
}

fn search_path(
    req: &Request,
    overrides: &[Override],
    library: &Library,
    cwd: &Path,
) -> Result<Vec<Source>, Problem> {
    let typed = overrides
        .iter()
        .find(|one| one.key_element() == "hydra.searchpath");
    if let Some(one) = typed
        && let Parsed::Element(element) = &one.value
    {
        let node = element
            .to_node(&one.origin())
            .map_err(|message| Problem::new(message).at(&one.origin()))?;
        return hydra::search_path(&node, "hydra.searchpath in command-line", cwd);
    }
    let Some(name) = &req.config_name else {
        return Ok(Vec::new());
    };
    let Some(primary) = library.load(name)? else {
        return Ok(Vec::new());
    };
    if primary.config.as_map().is_none() {
        return Err(Problem::new(format!(
            "the primary config '{name}' must be a mapping, not a list"
        ))
        .at(&primary.config.origin));
    }
    match primary.config.select("hydra.searchpath") {
        Some(node) if !node.is_missing() => {
            hydra::search_path(node, "hydra.searchpath in main", cwd)
        }
        _ => Ok(Vec::new()),
    }
}

fn merge_all(
    library: &Library,
    expanded: &Defaults,
    now: DateTime<Local>,
) -> Result<Node, Vec<Problem>> {
    let mut root = Node::empty_map();
    let mut problems = Vec::new();
    for placed in &expanded.list {
        match library.load(&placed.config_path) {
            Ok(Some(loaded)) => {
                if let Err(problem) = merge_package(&mut root, &placed.package, &loaded.config, now)
                {
                    problems.push(problem);
                }
                problems.extend(stray_search_path(placed, &loaded.config));
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(hydra) = root.child_mut("hydra") {
        problems.extend(hydra::check(hydra, true));
    }
    if problems.is_empty() {
        Ok(root)
    } else {
        Err(problems)
    }
}

/// Only the primary config may set the search path: the others are found by it.
fn stray_search_path(placed: &defaults::Placed, config: &Node) -> Option<Problem> {
    if placed.primary || placed.config_path == "hydra/config" {
        return None;
    }
    let inside = match placed.package.as_str() {
        "" => config.select("hydra.searchpath"),
        "hydra" => config.select("searchpath"),
        _ => None,
    };
    let node = inside.filter(|node| !node.is_null() && !node.is_missing())?;
    Some(
        Problem::new(format!(
            "'{}' sets hydra.searchpath, which only the primary config can",
            placed.config_path
        ))
        .at(&node.origin)
        .help("move it to the primary config, or to the command line"),
    )
}

fn apply_all(
    root: &mut Node,
    library: &Library,
    expanded: &Defaults,
    now: DateTime<Local>,
    closed: bool,
) -> Result<(), Vec<Problem>> {
    let groups = library.subgroups("");
    let setting = Setting {
        groups: &groups,
        now,
        closed,
    };
    let mut problems = Vec::new();
    let mut hydra_is_sound = true;
    for one in &expanded.value_overrides {
        if let Err(problem) = apply(root, one, setting) {
            problems.push(problem);
        } else if one.is_hydra()
            && hydra_is_sound
            && let Some(hydra) = root.child_mut("hydra")
        {
            // Checked at once, so that a later override does not hide a wrong type.
            let found = hydra::check(hydra, false);
            hydra_is_sound = found.is_empty();
            problems.extend(found);
        }
    }
    match root.child_mut("hydra") {
        Some(hydra) if hydra.as_map().is_some() => {
            if hydra_is_sound {
                problems.extend(hydra::check(hydra, false));
            }
        }
        _ => problems.push(Problem::new("the node 'hydra' must stay a mapping")),
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Sets `hydra.mode` for what is going to happen; gives the override that says so.
fn set_mode(hydra: &mut Node, req: &Request) -> Option<String> {
    let mode = match (req.multirun, req.run) {
        (true, _) => "MULTIRUN",
        (false, true) => "RUN",
        (false, false) => return None,
    };
    let node = hydra.child_mut("mode")?;
    if !node.is_null() {
        return None;
    }
    *node = Node::str(mode);
    Some(format!("hydra.mode={mode}"))
}

impl Composed {
    /// `hydra.runtime.output_dir`, known only once the run directory is made.
    pub fn set_output_dir(&mut self, dir: &Path) {
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let node = Node::str(absolute.display().to_string());
        hydra::set(&mut self.hydra, "runtime", "output_dir", node);
    }

    /// `hydra.job.num` and `hydra.job.id` of this cell of a sweep.
    pub fn set_job(&mut self, num: usize, id: &str) {
        let num = Node::built_in(Value::Int(i64::try_from(num).unwrap_or(i64::MAX)));
        hydra::set(&mut self.hydra, "job", "num", num);
        hydra::set(&mut self.hydra, "job", "id", Node::str(id));
    }

    /// The whole tree: `hydra` first, then the job's keys.
    pub fn all(&self) -> Node {
        let mut map = Map::new();
        map.insert(Key::from("hydra"), self.hydra.clone());
        if let Some(job) = self.job.as_map() {
            map.extend(job.iter().map(|(key, node)| (key.clone(), node.clone())));
        }
        Node::new(Value::Map(map), Origin::BuiltIn)
    }

    /// The job config with every interpolation resolved; `???` stays. Hydra's
    /// own values are reached by `${hydra:..}`, as in Hydra.
    ///
    /// # Errors
    /// Every value that cannot be resolved, with its file and line.
    pub fn resolved_job(&self) -> Result<Node, Error> {
        let all = self.all();
        Resolver::new(&self.job, Some(&all), self.now)
            .resolve_all()
            .map_err(errors)
    }

    /// The hydra config with every interpolation resolved; `???` stays.
    ///
    /// # Errors
    /// As [`Composed::resolved_job`].
    pub fn resolved_hydra(&self) -> Result<Node, Error> {
        let all = self.all();
        let hydra = Resolver::new(&all, Some(&all), self.now)
            .resolve_path("hydra")
            .map_err(errors)?;
        Ok(hydra.unwrap_or_else(Node::empty_map))
    }

    /// The whole tree with every interpolation resolved; `???` stays.
    ///
    /// # Errors
    /// As [`Composed::resolved_job`].
    pub fn resolved_all(&self) -> Result<Node, Error> {
        let all = self.all();
        Resolver::new(&all, Some(&all), self.now)
            .resolve_all()
            .map_err(errors)
    }

    /// One value of the whole tree, resolved: `resolve("hydra.run.dir")`. `None`
    /// if there is no such key or it is `???`.
    ///
    /// # Errors
    /// An interpolation that cannot be resolved.
    pub fn resolve(&self, path: &str) -> Result<Option<Node>, Error> {
        let all = self.all();
        let is_hydra = path == "hydra" || path.starts_with("hydra.");
        let root = if is_hydra { &all } else { &self.job };
        Resolver::new(root, Some(&all), self.now)
            .resolve_path(path)
            .map_err(errors)
    }
}
