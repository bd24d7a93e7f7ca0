//! `run synth`: training data out of abstracts. Another model writes questions and
//! answers and reads them over; checks drop what is doubled or does not stand on its
//! abstract; the rest becomes texts in roles, one JSON object a line.

mod journal;
mod read;
mod sorted;
mod work;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::asked::{check, name, with_asker};
use super::csv_file::write_csv;
use super::error::{Error, SynthError};
use super::fsx::{self, LockFile, Locking};
use super::log::Console;
use super::setup::tell_skipped;
use crate::config::types::{Config, SynthConfig};
use crate::synth::PROMPTS;
use journal::Journal;
use read::{Abstract, read};
use sorted::{Sorted, sort};
use work::{ask_all, is_done, wanted};

/// Turns the abstracts of `synth.abstracts` into the JSONL file `output`, which appears
/// when it is whole. Beside it lie `OUTPUT.journal`, which a later call goes on from,
/// and `OUTPUT.report.csv` with every pair and why it was dropped.
///
/// # Errors
/// See [`Error`].
pub fn synth(config: &Config) -> Result<(), Error> {
    let console = Console::stdio();
    let synth = &config.synth;
    let path = synth.abstracts.as_ref();
    let path = path.ok_or(Error::Missing("synth.abstracts", "abstracts.jsonl"))?;
    let output = config.output.as_ref();
    let output = output.ok_or(Error::Missing("output", "data/synthetic_qa.jsonl"))?;
    let beside = |end: &str| {
        let mut name = output.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    };
    let (journal_path, report) = (beside(".journal"), beside(".report.csv"));
    check("synth", &synth.asked)?;
    if output.is_dir() {
        return Err(Error::OutputIsDirectory(output.clone()));
    }
    // One that this command made can be made again out of its journal.
    if output.exists() && !journal_path.exists() {
        return Err(Error::OutputExists(output.clone()));
    }
    let (abstracts, skipped) = read(path, &config.data)?;
    fsx::create_dir_all(fsx::parent_of(output))?;
    let _lock = lock(output, &beside(".lock"))?;
    let mut journal = Journal::open(&journal_path, &settings(synth))?;
    tell_skipped(&console, path, &skipped);
    console.line(&format!(
        "{} abstracts in {}, asked {}",
        abstracts.len(),
        path.display(),
        name(&synth.asked)
    ));
    let earlier = journal.requests();
    ask(config, &console, &abstracts, &mut journal, &journal_path)?;
    let sorted = sort(&abstracts, synth, &journal);
    write_report(&report, &sorted)?;
    tell(&console, &sorted, &abstracts, earlier);
    if sorted.rows.is_empty() {
        let hint = match journal_has_pairs(&abstracts, &journal) {
            true => "lower synth.min_grounded or set synth.review=false if the reasons are wrong",
            false => "ask a model that can follow instructions and write JSON",
        };
        let hint = hint.to_string();
        return Err(SynthError::NothingKept { report, hint }.into());
    }
    let lines: String = sorted
        .rows
        .iter()
        .map(|text| format!("{}\n", json!({ "text": text })))
        .collect();
    fsx::write(output, lines.as_bytes())?;
    console.line(&format!("report     {}", report.display()));
    console.line(&format!("pairs      {}", output.display()));
    console.line(&format!(
        "read them over: run preview task=chat data.path={}",
        output.display()
    ));
    Ok(())
}

/// Asks about what the journal lacks; nobody is called where it lacks nothing.
fn ask(
    config: &Config,
    console: &Console,
    abstracts: &[Abstract],
    journal: &mut Journal,
    path: &Path,
) -> Result<(), Error> {
    let synth = &config.synth;
    let mut seen = std::collections::HashSet::new();
    let each: Vec<&Abstract> = abstracts.iter().filter(|a| seen.insert(&a.hash)).collect();
    let is_open = |a: &&&Abstract| journal.entry(&a.hash).is_none_or(|e| !is_done(e, synth));
    let open = each.iter().filter(is_open).count();
    let had = each.len() - open;
    if had > 0 {
        console.line(&format!("{had} of them were asked about before"));
    }
    if open == 0 {
        return Ok(());
    }
    let bar = bar(console, each.len());
    let mut done = 0;
    let asked = with_asker("synth", &synth.asked, config, |asker| {
        ask_all(&each, synth, asker, journal, &mut || {
            done += 1;
            bar.set_position(done as u64);
        })
        .map_err(Error::from)
    });
    bar.finish_and_clear();
    console.set_bar(None);
    if asked.is_err() {
        journal.remove_if_empty();
    }
    asked.map_err(|cause| match done {
        0 => cause,
        _ => SynthError::BrokenOff {
            cause: Box::new(cause),
            done,
            of: each.len(),
            journal: path.to_path_buf(),
        }
        .into(),
    })
}

fn bar(console: &Console, length: usize) -> ProgressBar {
    if !console.interactive() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("asking {bar:30} {pos}/{len} abstracts, {eta} left");
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    console.set_bar(Some(bar.clone()));
    bar
}

/// What the replies depend on. Thresholds of the checks are not among them: they can be
/// changed without asking anew.
fn settings(synth: &SynthConfig) -> Value {
    json!({
        "kiln.prompts": PROMPTS,
        "the model asked": name(&synth.asked),
        "synth.answers": wanted(synth).answers,
        "synth.refusals": wanted(synth).refusals,
        "synth.corrections": wanted(synth).corrections,
        "synth.temperature": synth.asked.temperature,
    })
}

fn lock(output: &Path, path: &Path) -> Result<LockFile, SynthError> {
    match LockFile::acquire(path, &format!("process {}", std::process::id()))? {
        Locking::Held(lock) => Ok(lock),
        Locking::Busy(owner) => Err(SynthError::Busy {
            path: output.to_path_buf(),
            owner,
        }),
    }
}

fn journal_has_pairs(abstracts: &[Abstract], journal: &Journal) -> bool {
    let entries = abstracts.iter().filter_map(|a| journal.entry(&a.hash));
    entries.into_iter().any(|entry| !entry.pairs.is_empty())
}

fn write_report(path: &Path, sorted: &Sorted) -> Result<(), Error> {
    let header = [
        "abstract", "row", "kind", "question", "answer", "kept", "reason",
    ];
    let mut rows = vec![header.map(String::from).to_vec()];
    for line in &sorted.lines {
        let pair = line.pair.as_ref();
        let kept = line.reason.is_none().to_string();
        let reason = match &line.reason {
            None => String::new(),
            Some((reason, more)) if more.is_empty() => reason.words().to_string(),
            Some((reason, more)) => format!("{}: {more}", reason.words()),
        };
        rows.push(vec![
            line.abstract_id.clone(),
            line.row.to_string(),
            pair.map_or(String::new(), |p| p.kind.word().to_string()),
            pair.map_or(String::new(), |p| p.question.clone()),
            pair.map_or(String::new(), |p| p.answer.clone()),
            kept,
            reason,
        ]);
    }
    write_csv(path, &rows)
}

fn tell(console: &Console, sorted: &Sorted, abstracts: &[Abstract], earlier: usize) {
    let kinds: Vec<String> = sorted
        .kept
        .iter()
        .map(|(kind, n)| format!("{n} of kind {kind}"))
        .collect();
    console.line(&format!(
        "kept       {} pairs from {} abstracts: {}",
        sorted.rows.len(),
        abstracts.len(),
        kinds.join(", ")
    ));
    for (reason, count) in sorted.counts() {
        console.line(&format!("dropped    {count}: {}", reason.words()));
    }
    if sorted.surplus > 0 {
        let surplus = sorted.surplus;
        console.line(&format!("dropped    {surplus}: more than were asked for"));
    }
    let before = match earlier {
        0 => String::new(),
        earlier => format!(", {earlier} of them before"),
    };
    console.line(&format!("requests   {}{before}", sorted.requests));
}
