//! `run infer`: answers to the questions of a file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::adapter::other_base;
use super::error::Error;
use super::forecast::{watch_answers, watch_loading};
use super::lifecycle::{close, new_run};
use super::live::Live;
use super::log::Console;
use super::predictions;
use super::routes::{Placed, Route, routes};
use super::setup::{ModelUse, Setup, tell_skipped};
use super::summary::{Answered, Summary};
use super::trained_on;
use crate::config::Job;
use crate::config::types::Config;
use crate::data::Example;
use crate::evaluate::{Answer, Reader};
use crate::model::{Adaptation, Decoder};

/// Generates an answer to every question of `data.test_path` with the base and the
/// adapter of its task (`adapter`, where that is set, for all; with `base` without one),
/// and writes predictions.csv into a new run directory and, if given, to `output`. The base is
/// loaded once; the adapters lie beside it.
///
/// # Errors
/// See [`Error`].
pub fn infer(mut job: Job, base: bool) -> Result<(), Error> {
    let console = Console::stdio();
    let began = Instant::now();
    let config = job.config.clone();
    let mut setup = Setup::new(&config, ModelUse::Run)?;
    let path = config.data.test_path.as_ref();
    let path = path.ok_or(Error::Missing("data.test_path", "data/questions.csv"))?;
    let routes = routes(&job, path, base)?;
    let adapters = adapters_of(&routes);
    // Of several each may have another.
    if let [adapter] = &adapters[..] {
        setup.take_template(Some(adapter));
    }
    let device = setup.chosen.name.as_str();
    let mut model = watch_loading(device, &config, || load(&setup, &config, &adapters))?;
    let mut encoders = Vec::with_capacity(routes.len());
    for route in &routes {
        encoders.push(setup.encoder(&route.config)?);
    }
    let mut asked = Vec::with_capacity(routes.len());
    for (route, encoder) in routes.iter().zip(&encoders) {
        let questions = route.file.with(&setup, encoder, &route.config)?;
        questions.check(model.arch.vocab_size, false)?;
        asked.push(questions);
    }
    let resolved = job.resolved_yaml();
    let run = new_run(&mut job, &console)?;
    // It may lie in the run's directory, which is known now.
    let output = job.config.output;
    for route in &routes {
        console.line(&format!(
            "task {}, model {}, {}, {} questions",
            route.config.task.name,
            setup.model_dir.display(),
            match &route.adapter {
                Some(adapter) => format!("adapter {}", adapter.display()),
                None => "no adapter: the base alone".to_string(),
            },
            route.places.len()
        ));
        let adapter = route.adapter.as_deref();
        let other = trained_on::otherwise(adapter, &setup, &resolved);
        for note in other_base(adapter, &setup, &config).iter().chain(&other) {
            console.line(note);
        }
    }
    setup.tell_notes(&console, &model);
    let mut summary = Summary::started("infer", &config.task.name, &setup.chosen.name);
    let work = || -> Result<(), Error> {
        for route in &routes {
            summary.skipped_rows += tell_skipped(&console, path, &route.file.skipped);
        }
        summary.write(&run.summary())?;
        let mut live = Live::new(&console);
        let mut placed = Vec::new();
        for (route, questions) in routes.iter().zip(&asked) {
            let tuned = route.adapter.is_some();
            if let Some(adapter) = &route.adapter {
                let held = adapters.iter().position(|dir| dir == adapter);
                model.use_adapter(held.unwrap_or_default());
            }
            let mut reader = Placed {
                reader: &mut live,
                places: &route.places,
            };
            let reader = config
                .inference
                .stream
                .then_some(&mut reader as &mut dyn Reader);
            let inference = &config.inference;
            let answers = questions.generate(&mut model, inference, config.seed, tuned, reader)?;
            let name = route.config.task.name.clone();
            let figures = answered(route.adapter.as_deref(), &answers);
            if routes.len() > 1 {
                let (valid, retried) = (figures.valid, figures.retried);
                console.line(&format!(
                    "task {name}: {valid} of {} answers valid, {retried} retried",
                    answers.len()
                ));
            }
            summary.answers.insert(name, figures);
            placed.extend(route.places.iter().zip(&route.file.examples).zip(answers));
        }
        placed.sort_by_key(|((place, _), _)| **place);
        let (examples, answers): (Vec<&Example>, Vec<Answer>) = placed
            .into_iter()
            .map(|((_, example), answer)| (example, answer))
            .unzip();
        predictions::write(&run.predictions(), examples.iter().copied(), &answers)?;
        if let Some(output) = &output {
            predictions::write(output, examples.iter().copied(), &answers)?;
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

/// The adapters of the routes, each once.
fn adapters_of(routes: &[Route]) -> Vec<PathBuf> {
    let mut adapters: Vec<PathBuf> = Vec::new();
    for adapter in routes.iter().filter_map(|route| route.adapter.as_ref()) {
        if !adapters.contains(adapter) {
            adapters.push(adapter.clone());
        }
    }
    adapters
}

/// The base with these adapters, numbered as they are.
fn load(setup: &Setup, config: &Config, adapters: &[PathBuf]) -> Result<Decoder, Error> {
    let (first, more) = match adapters {
        [first, more @ ..] => (Adaptation::Adapter(first), more),
        [] => (Adaptation::None, adapters),
    };
    let mut model = setup.load(config, first)?;
    for adapter in more {
        model.add_adapter(adapter)?;
    }
    Ok(model)
}

fn answered(adapter: Option<&Path>, answers: &[Answer]) -> Answered {
    let count = |wanted: &dyn Fn(&Answer) -> bool| answers.iter().filter(|a| wanted(a)).count();
    let of_all = |part: usize| part as f64 / answers.len().max(1) as f64;
    let valid = count(&|a| a.valid);
    Answered {
        adapter: adapter.map(|dir| dir.display().to_string()),
        questions: answers.len(),
        valid,
        valid_rate: of_all(valid),
        valid_rate_first: of_all(count(&|a| a.valid && a.attempts == 1)),
        retried: count(&|a| a.attempts > 1),
        retries: answers.iter().map(|a| a.attempts - 1).sum(),
    }
}
