//! Composition, and what comes out of it.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Local};
use indexmap::IndexMap;

use super::apply::{Setting, apply};
use super::defaults::{self, Defaults, Listed};
use super::error::{Error, MAX_PROBLEMS, Problem, drop_repeated};
use super::grammar::overrides::Override;
use super::hydra;
use super::hydra_types::Types;
use super::interpolate::Resolver;
use super::library::Library;
use super::lost::Lost;
use super::merge::{empty_package, merge_package};
use super::node::{Key, MAX_NODES, Map, Node, Origin, Value, split_path};
use super::opened::{Opened, open};
use super::request::{Request, Typed};
use super::scope::Scope;
use super::source::Source;

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
    pub(crate) now: DateTime<Local>,
}

/// A part of a composed config.
#[derive(Clone, Debug)]
pub struct Part {
    pub node: Node,
    /// Where it stands: the place that an interpolation led to.
    pub path: String,
}

/// Composes a configuration.
///
/// # Errors
/// Every problem of every stage: overrides, defaults lists with their files,
/// merging, applying the overrides. What may be only the consequence of another
/// problem is left out.
pub fn compose(req: &Request) -> Result<Composed, Error> {
    compose_in(req, &open(req)?)
}

/// Sees the whole tree after each merged config and after each applied override,
/// which comes along.
pub(super) type Watch<'w> = dyn FnMut(&Node, Option<&Override>) + 'w;

/// [`compose`], step by step.
pub(super) fn compose_watched(req: &Request, watch: &mut Watch) -> Result<Composed, Error> {
    whole(compose_partly_in(req, &open(req)?, watch))
}

/// [`compose`] with the files of a search path that is open already. It is that
/// of the request: the same sources, primary config and `hydra.searchpath`.
pub(crate) fn compose_in(req: &Request, opened: &Opened) -> Result<Composed, Error> {
    whole(compose_partly_in(req, opened, &mut |_, _| {}))
}

fn whole((composed, problems): (Composed, Vec<Problem>)) -> Result<Composed, Error> {
    if problems.is_empty() {
        Ok(composed)
    } else {
        Err(Error::new(problems))
    }
}

/// Composes as far as it goes: what could be composed beside all problems. There
/// is nothing where the search path or the primary config cannot be read. Where there
/// are problems, the config lacks what they are about; it serves to look for more.
pub fn compose_partly(req: &Request) -> (Option<Composed>, Vec<Problem>) {
    match open(req) {
        Ok(opened) => {
            let (composed, problems) = compose_partly_in(req, &opened, &mut |_, _| {});
            (Some(composed), problems)
        }
        Err(error) => (None, error.problems),
    }
}

/// Expands the defaults lists of a request.
pub(super) fn expand(req: &Request, opened: &Opened, typed: &Typed, scope: &Scope) -> Defaults {
    let mut lost = Lost::default();
    for text in &typed.unusable {
        lost.typed(&opened.library, text);
    }
    defaults::expand(
        &opened.library,
        req.primary(),
        req.base.as_ref(),
        &typed.overrides,
        req.multirun,
        scope,
        lost,
    )
}

fn compose_partly_in(
    req: &Request,
    opened: &Opened,
    watch: &mut Watch,
) -> (Composed, Vec<Problem>) {
    let typed = Typed::read(req);
    let library = &opened.library;
    let scope = Scope::new(req.now.unwrap_or_else(Local::now));
    let mut expanded = expand(req, opened, &typed, &scope);
    let Typed {
        overrides,
        mut problems,
        ..
    } = typed;
    problems.append(&mut expanded.problems);
    let mut root = merge_all(library, &mut expanded, &scope, &mut problems, watch);
    apply_all(
        &mut root,
        library,
        &expanded,
        req,
        &scope,
        &mut problems,
        watch,
    );
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
    let mut sources = library.sources().to_vec();
    if let Some(saved) = &req.base {
        sources.insert(1.min(sources.len()), saved.source());
    }
    let task_overrides = texts(false);
    let task_keys: Vec<(String, String)> = overrides
        .iter()
        .filter(|one| !one.is_hydra())
        .map(|one| (one.key.clone(), one.input.clone()))
        .collect();
    problems.extend(hydra::fill(
        &mut hydra,
        &hydra::Facts {
            task_overrides: &task_overrides,
            hydra_overrides: &hydra_overrides,
            task_keys: &task_keys,
            choices: &expanded.choices,
            sources: &sources,
            job_name: &req.job_name,
            config_name: req.primary(),
            cwd: opened.cwd.display().to_string(),
        },
    ));
    drop_repeated(&mut problems);
    put_in_order(&mut problems, &req.overrides);
    if let Some(saved) = req.base.as_ref().filter(|_| !req.multirun) {
        saved.number(&mut hydra);
    }
    let mut warnings = opened.warnings.clone();
    let defaults = expanded.listed();
    warnings.extend(expanded.warnings);
    let composed = Composed {
        job: root,
        hydra,
        task_overrides,
        hydra_overrides,
        choices: expanded.choices,
        defaults,
        sources,
        warnings,
        now: scope.now,
    };
    (composed, problems)
}

/// Overrides as they were typed, then each file from top to bottom, then the rest.
fn put_in_order(problems: &mut [Problem], typed: &[String]) {
    let mut files: Vec<std::sync::Arc<PathBuf>> = Vec::new();
    for problem in problems.iter() {
        if let Some(Origin::File { path, .. }) = &problem.origin
            && !files.contains(path)
        {
            files.push(path.clone());
        }
    }
    problems.sort_by_key(|problem| match &problem.origin {
        Some(Origin::CommandLine { text }) => (0, typed.iter().position(|one| **one == **text), 0),
        Some(Origin::File { path, line }) => (1, files.iter().position(|file| file == path), *line),
        _ => (2, None, 0),
    });
}

fn errors(problems: Vec<Problem>) -> Error {
    Error::new(problems)
}

/// Merges what the defaults list names. A file that cannot be merged is lost.
fn merge_all(
    library: &Library,
    expanded: &mut Defaults,
    scope: &Scope,
    problems: &mut Vec<Problem>,
    watch: &mut Watch,
) -> Node {
    let mut root = Node::empty_map();
    let mut values = 0;
    for placed in &expanded.list {
        match library.load(&placed.config_path) {
            Ok(Some(loaded)) => {
                values += loaded.values;
                if values > MAX_NODES {
                    problems.push(Problem::new(format!(
                        "the config has more than {MAX_NODES} values, reached at '{}'",
                        placed.config_path
                    )));
                    expanded.lost.everything();
                    break;
                }
                if let Err(problem) =
                    merge_package(&mut root, &placed.package, &loaded.config, scope)
                {
                    problems.push(problem);
                    expanded.lost.package(&placed.package);
                }
                problems.extend(stray_search_path(placed, &loaded.config));
                if placed.primary && placed.own_body {
                    for package in &expanded.replaced {
                        empty_package(&mut root, package);
                    }
                }
                watch(&root, None);
            }
            Ok(None) => {}
            Err(found) => problems.extend(found),
        }
    }
    if let Some(hydra) = root.child_mut("hydra") {
        problems.extend(Types(&expanded.choices).check(hydra, true));
    }
    root
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
    req: &Request,
    scope: &Scope,
    problems: &mut Vec<Problem>,
    watch: &mut Watch,
) {
    let types = Types(&expanded.choices);
    let setting = Setting {
        library,
        types,
        scope,
        closed: req.closed,
    };
    let mut hydra_is_sound = true;
    for one in &expanded.value_overrides {
        if problems.len() > MAX_PROBLEMS {
            break;
        }
        if let Err(problem) = apply(root, one, setting) {
            if !expanded.lost.explains(&one.key, &problem) {
                problems.push(problem);
            }
        } else if one.is_hydra()
            && hydra_is_sound
            && let Some(hydra) = root.child_mut("hydra")
        {
            // Checked at once, so that a later override does not hide a wrong type.
            let found = types.check(hydra, false);
            hydra_is_sound = found.is_empty();
            problems.extend(found);
        }
        watch(root, Some(one));
    }
    match root.child_mut("hydra") {
        Some(hydra) if hydra.as_map().is_some() => {
            if hydra_is_sound {
                problems.extend(types.check(hydra, false));
            }
        }
        _ => problems.push(Problem::new("the node 'hydra' must stay a mapping")),
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
        Resolver::new(&self.job, Some(&all), &Scope::new(self.now))
            .resolve_all()
            .map_err(errors)
    }

    /// The hydra config with every interpolation resolved; `???` stays.
    ///
    /// # Errors
    /// As [`Composed::resolved_job`].
    pub fn resolved_hydra(&self) -> Result<Node, Error> {
        let all = self.all();
        let hydra = Resolver::new(&all, Some(&all), &Scope::new(self.now))
            .resolve_path("hydra")
            .map_err(errors)?;
        let mut hydra = hydra.unwrap_or_else(Node::empty_map);
        Types(&self.choices).convert_resolved(&mut hydra);
        Ok(hydra)
    }

    /// The whole tree with every interpolation resolved; `???` stays.
    ///
    /// # Errors
    /// As [`Composed::resolved_job`].
    pub fn resolved_all(&self) -> Result<Node, Error> {
        let all = self.all();
        let mut resolved = Resolver::new(&all, Some(&all), &Scope::new(self.now))
            .resolve_all()
            .map_err(errors)?;
        if let Some(hydra) = resolved.child_mut("hydra") {
            Types(&self.choices).convert_resolved(hydra);
        }
        Ok(resolved)
    }

    /// A part of the tree, the job's alone or the whole one, as `--package` shows it: what
    /// the path leads to, through interpolations as well. What is inside is resolved
    /// only on demand; `hydra.*` then has the types of its keys. `None` as in
    /// [`Composed::resolve`].
    ///
    /// # Errors
    /// An interpolation on the way, or with `resolve` inside, that cannot be resolved.
    pub fn part(&self, whole: bool, path: &str, resolve: bool) -> Result<Option<Part>, Error> {
        let all = self.all();
        let root = if whole { &all } else { &self.job };
        let scope = Scope::new(self.now);
        let mut resolver = Resolver::new(root, Some(&all), &scope);
        let Some((mut node, place)) = resolver.part(path, resolve).map_err(errors)? else {
            return Ok(None);
        };
        let steps = split_path(place.as_deref().unwrap_or(path));
        if let Some((first, below)) = steps.split_first()
            && first == "hydra"
            && (resolve || !matches!(node.value, Value::Map(_) | Value::List(_)))
        {
            Types(&self.choices).convert_part(&mut node, below);
        }
        Ok(Some(Part {
            node,
            path: place.unwrap_or_else(|| path.to_string()),
        }))
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
        Resolver::new(root, Some(&all), &Scope::new(self.now))
            .resolve_path(path)
            .map_err(errors)
    }
}
