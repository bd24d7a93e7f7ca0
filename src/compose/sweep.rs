//! Sweeps: one config for every combination of the swept overrides, as Hydra's
//! basic sweeper makes them. `hydra.sweeper.zip` goes beyond it: the keys of one
//! of its lists advance together.

mod expand;
mod zip;

use super::composed::{Composed, compose, compose_in};
use super::error::{Error, Problem};
use super::grammar::overrides::{Override, excerpt};
use super::node::{Key, Node, Origin, Value};
use super::opened::{Opened, open};
use super::request::Request;

use expand::expand;
use zip::zipped;

pub use expand::Cell;

/// A sweep: its master config and its cells. The cells are composed one by one,
/// out of config files that are read once.
pub struct Multirun {
    /// The config without the swept overrides, as Hydra keeps it in `multirun.yaml`.
    pub master: Composed,
    /// The swept keys, in the order of the overrides.
    pub keys: Vec<String>,
    pub cells: Vec<Cell>,
    /// Where the overrides of a cell were written, if not on the command line.
    origins: Vec<Option<Origin>>,
    request: Request,
    opened: Opened,
}

impl Multirun {
    /// Composes the master config and expands the cells: `hydra.sweeper.params`
    /// of the config first, then the overrides. The last key varies fastest; of
    /// two with the same key the later counts.
    ///
    /// # Errors
    /// As [`compose`]; swept keys of `hydra`, an interval, a glob over no group,
    /// a `hydra.sweeper.zip` that does not fit, too many cells.
    pub fn new(request: &Request) -> Result<Multirun, Error> {
        let mut request = request.clone();
        (request.multirun, request.run) = (true, false);
        let opened = open(&request)?;
        let mut master = compose_in(&request, &opened)?;
        if mode(&master) == Some("RUN") {
            // Hydra lets the flag win, and says so.
            request.overrides.push("hydra.mode=MULTIRUN".to_string());
            master = compose_in(&request, &opened)?;
            let warning = "hydra.mode=RUN gives way to --multirun";
            master.warnings.push(warning.to_string());
        }
        // Another sweeper's params are written for it.
        let target = master.resolve("hydra.sweeper._target_")?;
        let name = target.as_ref().and_then(Node::as_str);
        let basic = name.is_none_or(|name| name.ends_with("basic_sweeper.BasicSweeper"));
        let mut overrides = match master.resolve("hydra.sweeper.params")? {
            Some(params) if basic => params_of(&params)?,
            _ => Vec::new(),
        };
        overrides.extend(typed(&master.task_overrides)?);
        let library = &opened.library;
        let dimensions = expand::dimensions(&overrides, &|group| {
            library.has_group(group).then(|| library.options(group))
        })?;
        let dimensions = match master.resolve("hydra.sweeper.zip")? {
            Some(groups) => zipped(dimensions, &groups)?,
            None => dimensions,
        };
        let cells = expand(&dimensions)?;
        request.overrides.clone_from(&master.hydra_overrides);
        (request.multirun, request.now) = (false, Some(master.now));
        Ok(Multirun {
            origins: (dimensions.iter().flat_map(|d| &d.written).cloned()).collect(),
            keys: dimensions.into_iter().flat_map(|d| d.swept).collect(),
            cells,
            request,
            opened,
            master,
        })
    }

    /// The config of a cell, with `hydra.job.num` and `hydra.job.id` set.
    ///
    /// # Errors
    /// As [`compose`].
    pub fn compose(&self, num: usize) -> Result<Composed, Error> {
        let mut request = self.request.clone();
        if let Some(cell) = self.cells.get(num) {
            let first = request.overrides.len();
            let written = self.origins.iter().cloned().enumerate();
            request.origins = written
                .filter_map(|(index, origin)| Some((first + index, origin?)))
                .collect();
            request.overrides.extend(cell.overrides.iter().cloned());
        }
        let mut composed = compose_in(&request, &self.opened)?;
        composed.set_job(num, &num.to_string());
        Ok(composed)
    }
}

/// Whether a config asks for a sweep by `hydra.mode=MULTIRUN`, in a file or an
/// override. One that cannot be composed asks for nothing.
pub fn is_multirun(request: &Request) -> bool {
    let lenient = Request {
        multirun: true,
        run: false,
        ..request.clone()
    };
    // Where nothing is set, composition itself puts MULTIRUN there.
    compose(&lenient).is_ok_and(|master| {
        mode(&master) == Some("MULTIRUN")
            && master
                .hydra
                .select("mode")
                .is_some_and(|node| node.origin != Origin::BuiltIn)
    })
}

fn mode(composed: &Composed) -> Option<&str> {
    composed.hydra.select("mode").and_then(Node::as_str)
}

/// Every cell of a sweep as its own list of overrides, without any config: no
/// glob, no `hydra.sweeper`. Overrides of `hydra.*` stand first, as typed.
///
/// # Errors
/// As [`Multirun::new`].
pub fn expand_sweep(overrides: &[String]) -> Result<Vec<Vec<String>>, Error> {
    let (hydra, task): (Vec<_>, Vec<_>) =
        typed(overrides)?.into_iter().partition(Override::is_hydra);
    let fixed: Vec<String> = hydra.iter().map(|one| one.input.clone()).collect();
    let swept_hydra = expand::refuse_swept(&hydra);
    let dimensions = expand::dimensions(&task, &|_| None);
    if !swept_hydra.is_empty() {
        let mut problems = swept_hydra;
        problems.extend(dimensions.err().into_iter().flat_map(|e| e.problems));
        return Err(Error::new(problems));
    }
    let cells = expand(&dimensions?)?;
    behind(&fixed, cells)
}

/// The cells of a request: [`Multirun::new`], overrides only.
///
/// # Errors
/// As [`Multirun::new`].
pub fn sweep_cells(request: &Request) -> Result<Vec<Vec<String>>, Error> {
    let sweep = Multirun::new(request)?;
    let fixed: Vec<String> = (sweep.master.hydra_overrides.iter())
        // What composition itself added is no part of the request.
        .filter(|text| request.overrides.contains(text))
        .cloned()
        .collect();
    behind(&fixed, sweep.cells)
}

/// The overrides of each cell behind those that all cells have.
fn behind(fixed: &[String], cells: Vec<Cell>) -> Result<Vec<Vec<String>>, Error> {
    let bytes: usize = fixed.iter().map(|text| expand::bytes_of(text)).sum();
    expand::refuse_large(bytes, cells.len())?;
    Ok(cells
        .into_iter()
        .map(|cell| fixed.iter().cloned().chain(cell.overrides).collect())
        .collect())
}

fn typed(texts: &[String]) -> Result<Vec<Override>, Error> {
    Override::parse_all(texts).map_err(Error::new)
}

/// `hydra.sweeper.params` as overrides: each key with its text.
fn params_of(params: &Node) -> Result<Vec<Override>, Error> {
    let fault = |node: &Node| {
        Error::from(
            Problem::new("hydra.sweeper.params maps keys to swept values")
                .at(&node.origin)
                .help("write\n  params:\n    seed: 1,2,3"),
        )
    };
    let map = match &params.value {
        Value::Null => return Ok(Vec::new()),
        Value::Map(map) => map,
        _ => return Err(fault(params)),
    };
    let mut placed = Vec::new();
    let mut problems = Vec::new();
    for (key, node) in map {
        let text = match (key, &node.value) {
            (Key::Str(key), Value::Null) => format!("{key}=null"),
            (Key::Str(_), Value::List(_) | Value::Map(_)) => return Err(fault(node)),
            (Key::Str(key), value) => format!("{key}={}", super::python::to_str(value)),
            _ => return Err(fault(node)),
        };
        match Override::parse(&text) {
            Ok(one) => placed.push(Override {
                written: Some(node.origin.clone()),
                ..one
            }),
            Err(fault) => problems.push(
                Problem::new(format!("hydra.sweeper.params: {}", fault.message))
                    .at(&node.origin)
                    .help(excerpt(&text, fault.column)),
            ),
        }
    }
    problems.extend(placed.iter().filter(|one| one.is_hydra()).map(|one| {
        Problem::new(format!(
            "hydra.sweeper.params: '{}' belongs to hydra, whose keys cannot be swept",
            one.key
        ))
        .at(&one.origin())
        .help("set it in the node 'hydra' of the config itself")
    }));
    if problems.is_empty() {
        Ok(placed)
    } else {
        Err(Error::new(problems))
    }
}
