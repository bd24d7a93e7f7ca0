//! The search path of a request, opened: each config file is read once, however
//! many configs are composed of them.

use std::path::{Path, PathBuf};

use chrono::Local;

use super::error::{Error, Problem};
use super::grammar::element::Element;
use super::grammar::overrides::Override;
use super::grammar::values::Parsed;
use super::hydra;
use super::interpolate::Resolver;
use super::library::Library;
use super::request::{Request, Typed};
use super::scope::Scope;
use super::source::{Source, Tree};

/// The config files of a search path.
pub(crate) struct Opened {
    pub library: Library,
    pub cwd: PathBuf,
    pub warnings: Vec<String>,
}

/// Opens the search path of a request.
///
/// # Errors
/// A directory that is not there, a bad `hydra.searchpath`, a primary config that
/// cannot be read; the overrides that cannot be read beside them.
pub(crate) fn open(req: &Request) -> Result<Opened, Error> {
    let typed = Typed::read(req);
    let cwd = match &req.cwd {
        Some(cwd) => cwd.clone(),
        None => std::env::current_dir().unwrap_or_default(),
    };
    let mut warnings = Vec::new();
    match library(req, &typed.overrides, &cwd, &mut warnings) {
        Ok(library) => Ok(Opened {
            library,
            cwd,
            warnings,
        }),
        Err(found) => {
            let mut problems = typed.problems;
            problems.extend(found);
            Err(Error::new(problems))
        }
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
                    "the config directory {} {}",
                    path.display(),
                    match path.is_file() {
                        true => "is a file",
                        false => "does not exist",
                    }
                ))
                .help(match path.is_file() {
                    true => "name the directory that it lies in, and the file with --config-name",
                    false => "name a directory that exists and can be read",
                }),
            );
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut library = Library::new(&req.sources);
    if let (Some(name), Some(saved)) = (req.primary(), &req.base) {
        library.rebase(name, &saved.job)?;
    }
    let extra = search_path(req, overrides, &library, cwd, warnings)?;
    for source in &extra {
        if !source.available() {
            let (_, path) = source.place();
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
    warnings: &mut Vec<String>,
) -> Result<Vec<Source>, Vec<Problem>> {
    let typed = overrides
        .iter()
        .find(|one| one.key_element() == "hydra.searchpath");
    if let Some(one) = typed
        && let Parsed::Element(element) = &one.value
    {
        let node = match element {
            Element::Edit(edit) => Err(Problem::new(format!(
                "{}() cannot edit hydra.searchpath, which is needed before there is a config",
                edit.function
            ))
            .help("give the whole list: hydra.searchpath=[..]")),
            element => element.to_node(&one.origin()).map_err(Problem::new),
        };
        return node
            .map_err(|problem| problem.at(&one.origin()))
            .and_then(|node| {
                hydra::search_path(&node, "hydra.searchpath in command-line", cwd, warnings)
            })
            .map_err(|problem| vec![problem]);
    }
    let Some(name) = req.primary() else {
        return Ok(Vec::new());
    };
    let Some(primary) = library.load(name)? else {
        return Ok(Vec::new());
    };
    if primary.config.as_map().is_none() {
        return Err(vec![
            Problem::new(format!(
                "the primary config '{name}' must be a mapping, not a list"
            ))
            .at(&primary.config.origin)
            .help("give its values names: 'name: value'"),
        ]);
    }
    // Before there is a config, an interpolation can only lead to the file's own values.
    let scope = Scope::new(req.now.unwrap_or_else(Local::now));
    match Resolver::new(&primary.config, None, &scope).resolve_path("hydra.searchpath")? {
        Some(node) => hydra::search_path(&node, "hydra.searchpath in main", cwd, warnings)
            .map_err(|problem| vec![problem]),
        None => Ok(Vec::new()),
    }
}
