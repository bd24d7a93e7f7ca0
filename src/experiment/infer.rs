//! `run infer`: answers to the questions of a file.

use std::path::Path;
use std::time::Instant;

use super::error::Error;
use super::forecast::watch_answers;
use super::lifecycle::{close, new_run};
use super::live::Live;
use super::log::Console;
use super::publish::adapter_path;
use super::setup::{ModelUse, OUTPUTS, Setup, questions};
use super::summary::Summary;
use super::{fsx, predictions};
use crate::config::Job;
use crate::config::types::Config;
use crate::data::Answers;
use crate::evaluate::Reader;
use crate::model::Adaptation;

/// Generates an answer to every question of `data.test_path` with the base and
/// the adapter (`adapter`, else the task's published one), and writes
/// predictions.csv into a new run directory and, if given, to `output`.
///
/// # Errors
/// See [`Error`].
pub fn infer(mut job: Job) -> Result<(), Error> {
    let console = Console::stdio();
    let began = Instant::now();
    let config = job.config.clone();
    let setup = Setup::new(&config, ModelUse::Run)?;
    let path = config.data.test_path.as_ref();
    let path = path.ok_or(Error::Missing("data.test_path", "data/questions.csv"))?;
    let file = questions(path, &config, Answers::Optional)?;
    let adapter = adapter_dir(&config)?;
    let device = setup.chosen.name.as_str();
    let mut model = watch_answers(device, &config, || {
        setup.load(&config, Adaptation::Adapter(&adapter))
    })?;
    let encoder = setup.encoder(&config)?;
    let asked = file.with(&setup, &encoder, &config)?;
    asked.check(model.arch.vocab_size, false)?;
    if let Some(output) = &config.output {
        fsx::create_dir_all(fsx::parent_of(output))?;
        if output.is_dir() {
            return Err(Error::OutputIsDirectory(output.clone()));
        }
    }
    let run = new_run(&mut job, &console)?;
    console.line(&format!(
        "task {}, model {}, adapter {}, {} questions",
        config.task.name,
        setup.model_dir.display(),
        adapter.display(),
        file.examples.len()
    ));
    if let Some(note) = &setup.quantised_note {
        console.line(note);
    }
    if let Some(note) = &setup.chosen.note {
        console.line(note);
    }
    let summary = Summary::started("infer", &config.task.name, &setup.chosen.name);
    let work = || -> Result<(), Error> {
        summary.write(&run.summary())?;
        let mut live = Live::new(&console);
        let reader = config
            .inference
            .stream
            .then_some(&mut live as &mut dyn Reader);
        let answers = asked.generate(&mut model, &config.inference, config.seed, true, reader)?;
        predictions::write(&run.predictions(), &file.examples, &answers)?;
        if let Some(output) = &config.output {
            predictions::write(output, &file.examples, &answers)?;
            console.line(&format!("answers    {}", output.display()));
        }
        let valid = answers.iter().filter(|a| a.valid).count();
        let retried = answers.iter().filter(|a| a.attempts > 1).count();
        console.line(&format!(
            "{valid} of {} answers valid, {retried} retried",
            answers.len()
        ));
        console.line(&format!("run        {}", run.root().display()));
        Ok(())
    };
    let outcome = watch_answers(device, &config, work);
    close(
        &run,
        &console,
        &setup.chosen.device,
        summary,
        began,
        outcome,
    )
}

/// `adapter`, else the published adapter of the task.
pub fn adapter_dir(config: &Config) -> Result<std::path::PathBuf, Error> {
    if let Some(dir) = &config.adapter {
        return Ok(dir.clone());
    }
    let published = adapter_path(Path::new(OUTPUTS), &config.task.name)?;
    if published.is_dir() {
        return Ok(published);
    }
    Err(Error::NoAdapter(config.task.name.clone()))
}
