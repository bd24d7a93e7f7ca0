//! What goes into composition.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Local};

use super::error::{MAX_PROBLEMS, Problem};
use super::grammar::element::Element;
use super::grammar::overrides::Override;
use super::grammar::sweeps::Sweep;
use super::grammar::values::Parsed;
use super::node::Origin;
use super::saved::Saved;
use super::source::Source;

/// A composition to be made.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The search path, first match wins. Hydra's own configs stand before it.
    /// A missing directory is an error for the providers `main` and
    /// `command-line`, and is passed over for others.
    pub sources: Vec<Source>,
    /// The primary config, with or without `.yaml`. `None` composes from nothing.
    pub config_name: Option<String>,
    /// A saved config that takes the place of the primary one, of which then
    /// only Hydra's settings and the groups to choose from are used.
    pub base: Option<Saved>,
    /// Overrides as typed, flags already taken out.
    pub overrides: Vec<String>,
    /// Where an override was written, by its index, if not on the command line:
    /// in the `hydra.sweeper.params` of a file.
    pub origins: BTreeMap<usize, Origin>,
    /// `hydra.job.name` unless the config or an override sets it.
    pub job_name: String,
    /// A sweep's master config: swept values such as `a=1,2` are allowed and left
    /// out, options that are `???` too, and `hydra.mode` becomes `MULTIRUN`.
    pub multirun: bool,
    /// The job is going to run: `hydra.mode` becomes `RUN` where nothing else set it.
    pub run: bool,
    /// What is said to somebody who sweeps a key in a command that makes no sweeps;
    /// `None` where `--multirun` is the way.
    pub no_sweep: Option<String>,
    /// The composed config is checked against a schema: an unknown key is then
    /// never answered with adding it, but with the key that other programs call so.
    pub closed: Option<Elsewhere>,
    /// `hydra.runtime.cwd`; the process's own directory when `None`.
    pub cwd: Option<PathBuf>,
    /// The time that `${now:..}` gives, the same for all values; the time of composition when `None`.
    pub now: Option<DateTime<Local>>,
}

/// The key that other programs call by a name.
pub type Elsewhere = fn(&str) -> Option<&'static str>;

impl Request {
    /// The primary config. A saved one needs a name to stand under.
    pub(super) fn primary(&self) -> Option<&str> {
        match (&self.config_name, &self.base) {
            (None, Some(_)) => Some("config"),
            (name, _) => name.as_deref(),
        }
    }
}

/// The overrides of a request.
pub(super) struct Typed<'r> {
    pub overrides: Vec<Override>,
    /// Those that cannot be used, and why.
    pub unusable: Vec<&'r str>,
    pub problems: Vec<Problem>,
}

impl Typed<'_> {
    pub(super) fn read(req: &Request) -> Typed<'_> {
        let mut typed = Typed {
            overrides: Vec::new(),
            unusable: Vec::new(),
            problems: Vec::new(),
        };
        for (index, text) in req.overrides.iter().enumerate() {
            if typed.problems.len() > MAX_PROBLEMS {
                break;
            }
            let read = Override::read(text).and_then(|mut one| {
                one.written = req.origins.get(&index).cloned();
                let refused = refuse_sweep(&one, req);
                typed.overrides.push(one);
                refused.map_or(Ok(()), Err)
            });
            if let Err(problem) = read {
                typed.problems.push(problem);
                typed.unusable.push(text);
            }
        }
        typed
    }
}

/// Without `--multirun`, a swept value is a mistake; with it, one under `hydra.` is.
fn refuse_sweep(one: &Override, req: &Request) -> Option<Problem> {
    let Parsed::Sweep(sweep) = &one.value else {
        return None;
    };
    let multirun = req.multirun;
    let no_sweep = req.no_sweep.as_deref();
    let key = one.key_element();
    let problem = match sweep {
        _ if multirun && !one.is_hydra() => return None,
        _ if multirun => Problem::new(format!("'{}': the keys of hydra cannot be swept", one.key)),
        Sweep::Choice {
            simple: true,
            values,
            ..
        } => {
            let edits = values.iter().any(|value| matches!(value, Element::Edit(_)));
            let ways = if edits {
                format!("to make each change, write one after another: {key}=.. {key}=..")
            } else {
                format!("for a list, write {key}=[a,b]\nfor a string, quote it: '{key}=\"a,b\"'")
            };
            Problem::new(format!(
                "'{}' has several values, which only a sweep can take",
                one.key
            ))
            .help(match no_sweep {
                Some(text) => format!("{ways}\n{text}"),
                None => format!("{ways}\nto sweep over it, add --multirun (-m)"),
            })
        }
        _ => Problem::new(format!("'{}' is swept, but this is not a sweep", one.key)).help(
            match no_sweep {
                Some(text) => format!("give one value; {text}"),
                None => "give one value, or add --multirun (-m) to sweep over it".to_string(),
            },
        ),
    };
    Some(problem.at(&one.origin()))
}
