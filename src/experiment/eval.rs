//! `run eval`: the task's metrics for the base and, where there is one, an adapter.

use std::time::Instant;

use super::adapter::{adapter_or_base, other_base};
use super::error::Error;
use super::forecast::{watch_answers, watch_loading};
use super::lifecycle::{close, new_run};
use super::log::Console;
use super::predictions;
use super::scorer::{SasModel, Scorer};
use super::setup::{ModelUse, Setup, questions, tell_skipped};
use super::summary::Summary;
use super::train::comparison;
use super::trained_on;
use super::win_rate::{check_judge, win_rates};
use crate::config::Job;
use crate::config::types::TaskKind;
use crate::data::Answers;
use crate::model::Adaptation;

/// Scores the test set. With `base`, or without `adapter` and without a published one for the
/// task, the base alone. Writes predictions.csv into a new run directory and, if given,
/// to `output`.
///
/// # Errors
/// See [`Error`].
pub fn eval(mut job: Job, base: bool) -> Result<(), Error> {
    let console = Console::stdio();
    let began = Instant::now();
    let config = job.config.clone();
    check_judge(&config)?;
    let mut setup = Setup::new(&config, ModelUse::Run)?;
    let path = config.data.test_path.as_ref();
    let path = path.ok_or(Error::Missing("data.test_path", "data/questions.csv"))?;
    let file = questions(path, &config, Answers::Required)?;
    let adapter = match adapter_or_base(&config, base) {
        Ok(adapter) => adapter,
        Err(Error::NoAdapterNorBase(_)) => None,
        Err(other) => return Err(other),
    };
    setup.take_template(adapter.as_deref());
    let adaptation = adapter
        .as_deref()
        .map_or(Adaptation::None, Adaptation::Adapter);
    let sas = SasModel::find(&config, ModelUse::Run)?;
    let scorer = Scorer::new(&config, sas.as_ref());
    let device = setup.chosen.name.as_str();
    let mut model = watch_loading(device, &config, || setup.load(&config, adaptation))?;
    let encoder = setup.encoder(&config)?;
    let asked = file.with(&setup, &encoder, &config)?;
    let ranked = config.task.kind == TaskKind::Mcq;
    asked.check(model.arch.vocab_size, ranked)?;
    let resolved = job.resolved_yaml();
    let run = new_run(&mut job, &console)?;
    // With what depends on the run's directory.
    let config = job.config;
    let with = match &adapter {
        Some(dir) => format!("adapter {}", dir.display()),
        None => "no adapter: the base alone".to_string(),
    };
    console.line(&format!(
        "task {}, model {}, {with}",
        config.task.name,
        setup.model_dir.display()
    ));
    setup.tell_notes(&console, &model);
    let notes = [
        other_base(adapter.as_deref(), &setup, &config),
        trained_on::otherwise(adapter.as_deref(), &setup, &resolved),
        sas.as_ref().map(SasModel::note),
    ];
    notes.iter().flatten().for_each(|note| console.line(note));
    let mut summary = Summary::started("eval", &config.task.name, &setup.chosen.name);
    let work = || -> Result<(), Error> {
        summary.skipped_rows = tell_skipped(&console, &file.path, &file.skipped);
        summary.write(&run.summary())?;
        let base = scorer.score(&mut model, &asked, false)?;
        let mut models = vec![("base", base.answers)];
        summary.metrics.base = base.metrics;
        if adapter.is_some() {
            let tuned = scorer.score(&mut model, &asked, true)?;
            models.push(("tuned", tuned.answers));
            summary.metrics.tuned = tuned.metrics;
        }
        // The judge may be a model of its own.
        drop(model);
        if let Some((_, answers)) = models.last() {
            predictions::write(&run.predictions(), &file.examples, answers)?;
            if let Some(output) = &config.output {
                predictions::write(output, &file.examples, answers)?;
                console.line(&format!("answers    {}", output.display()));
            }
        }
        win_rates(
            &config,
            &run,
            &console,
            &file.examples,
            &models,
            &mut summary,
        )?;
        let title = file.title(&path.display().to_string());
        let (base, tuned) = (&summary.metrics.base, &summary.metrics.tuned);
        console.line(&comparison(&config.task.name, &title, base, tuned));
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
