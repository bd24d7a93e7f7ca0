//! `run compare`: base and tuned model side by side, question by question.
//!
//! Besides the scores there is a sheet for a person to mark, which does not tell which
//! answer is whose: the order of each pair is drawn from the seed, and the key lies in
//! a file of its own.

use std::time::Instant;

use super::adapter::{adapter_dir, other_base};
use super::csv_file::write_csv;
use super::error::Error;
use super::forecast::{watch_answers, watch_loading};
use super::lifecycle::{close, new_run};
use super::log::Console;
use super::run_dir::RunPaths;
use super::scorer::{SasModel, Scorer};
use super::setup::{ModelUse, Setup, questions, tell_skipped};
use super::summary::{Metrics, Summary};
use super::table::metric_label;
use super::train::comparison;
use super::trained_on;
use super::win_rate::{check_judge, win_rates};
use super::{fsx, predictions};
use crate::config::Job;
use crate::config::types::{Config, Metric, TaskKind};
use crate::data::Answers;
use crate::data::example::Example;
use crate::evaluate::{Answer, by_question, references};
use crate::model::Adaptation;
use crate::report::{Bars, Group};
use crate::rng::Stream;

/// Names the order of answers on the marking sheet among the random streams.
const MARKING: u64 = 0x3A7C;

/// Answers the test set with the base and with the adapter (`adapter`, else the
/// task's published one); the weights are loaded once. Writes evaluation.csv,
/// evaluation_for_marking.csv with marking_key.csv, comparison.svg and predictions.csv
/// into a new run directory, and evaluation.csv to `output` as well.
///
/// # Errors
/// See [`Error`].
pub fn compare(mut job: Job) -> Result<(), Error> {
    let console = Console::stdio();
    let began = Instant::now();
    let config = job.config.clone();
    check_judge(&config)?;
    let mut setup = Setup::new(&config, ModelUse::Run)?;
    let path = config.data.test_path.as_ref();
    let path = path.ok_or(Error::Missing("data.test_path", "data/questions.csv"))?;
    let file = questions(path, &config, Answers::Required)?;
    let adapter = adapter_dir(&config)?;
    setup.take_template(Some(&adapter));
    let sas = SasModel::find(&config, ModelUse::Run)?;
    let scorer = Scorer::new(&config, sas.as_ref());
    let device = setup.chosen.name.as_str();
    let mut model = watch_loading(device, &config, || {
        setup.load(&config, Adaptation::Adapter(&adapter))
    })?;
    let encoder = setup.encoder(&config)?;
    let asked = file.with(&setup, &encoder, &config)?;
    let ranked = config.task.kind == TaskKind::Mcq;
    asked.check(model.arch.vocab_size, ranked)?;
    let resolved = job.resolved_yaml();
    let run = new_run(&mut job, &console)?;
    // With what depends on the run's directory.
    let config = job.config;
    console.line(&format!(
        "task {}, model {}, adapter {}",
        config.task.name,
        setup.model_dir.display(),
        adapter.display()
    ));
    setup.tell_notes(&console, &model);
    let notes = [
        other_base(Some(&adapter), &setup, &config),
        trained_on::otherwise(Some(&adapter), &setup, &resolved),
        sas.as_ref().map(SasModel::note),
    ];
    notes.iter().flatten().for_each(|note| console.line(note));
    let mut summary = Summary::started("compare", &config.task.name, &setup.chosen.name);
    let work = || -> Result<(), Error> {
        summary.skipped_rows = tell_skipped(&console, &file.path, &file.skipped);
        summary.write(&run.summary())?;
        let base = scorer.score(&mut model, &asked, false)?;
        let tuned = scorer.score(&mut model, &asked, true)?;
        summary.metrics.base = base.metrics;
        summary.metrics.tuned = tuned.metrics;
        let pairs = Pairs {
            examples: &file.examples,
            base: &base.answers,
            tuned: &tuned.answers,
        };
        let title = file.title(&path.display().to_string());
        predictions::write(&run.predictions(), &file.examples, &tuned.answers)?;
        pairs.write(&run, &config)?;
        // The judge may be a model of its own.
        drop(model);
        let models = [("base", base.answers.as_slice()), ("tuned", &tuned.answers)];
        win_rates(
            &config,
            &run,
            &console,
            &file.examples,
            &models,
            &mut summary,
        )?;
        let chart = chart(&config.task.name, &title, &summary.metrics);
        fsx::write(&run.comparison_chart(), chart.as_bytes())?;
        let (base, tuned) = (&summary.metrics.base, &summary.metrics.tuned);
        console.line(&comparison(&config.task.name, &title, base, tuned));
        if let Some(line) = pairs.changes(&config) {
            console.line(&line);
        }
        let sheet = run.marking_sheet();
        console.line(&format!("to mark    {}", sheet.display()));
        if let Some(output) = &config.output {
            console.line(&format!("answers    {}", output.display()));
        }
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

/// Every question with both answers.
struct Pairs<'a> {
    examples: &'a [Example],
    base: &'a [Answer],
    tuned: &'a [Answer],
}

impl Pairs<'_> {
    fn write(&self, run: &RunPaths, config: &Config) -> Result<(), Error> {
        let rows = || self.examples.iter().zip(self.base.iter().zip(self.tuned));
        let question = |e: &Example| e.question.clone().unwrap_or_default();
        let reference = |e: &Example| references(e).join(" | ");
        let mut all = vec![
            ["question", "base", "tuned", "reference"]
                .map(String::from)
                .to_vec(),
        ];
        let mut sheet = vec![
            ["id", "question", "reference", "A", "B", "winner"]
                .map(String::from)
                .to_vec(),
        ];
        let mut key = vec![["id", "A", "B"].map(String::from).to_vec()];
        let order = Stream::new(config.seed, &[MARKING]);
        for (i, (example, (base, tuned))) in rows().enumerate() {
            let (question, reference) = (question(example), reference(example));
            let (base, tuned) = (base.text.clone(), tuned.text.clone());
            all.push(vec![
                question.clone(),
                base.clone(),
                tuned.clone(),
                reference.clone(),
            ]);
            let (answers, names) = match order.bits(i as u64) & 1 {
                0 => ([base, tuned], ["base", "tuned"]),
                _ => ([tuned, base], ["tuned", "base"]),
            };
            let [a, b] = answers;
            // Someone who marks needs to see what the letters stood for.
            let options = example.options.iter().enumerate();
            let options =
                options.map(|(i, text)| format!("\n{}) {text}", crate::data::option_letter(i)));
            let asked = question + &options.collect::<String>();
            sheet.push(vec![
                example.id.clone(),
                asked,
                reference,
                a,
                b,
                String::new(),
            ]);
            key.push(
                [example.id.as_str(), names[0], names[1]]
                    .map(String::from)
                    .to_vec(),
            );
        }
        write_csv(&run.evaluation(), &all)?;
        write_csv(&run.marking_sheet(), &sheet)?;
        write_csv(&run.marking_key(), &key)?;
        match &config.output {
            Some(output) => write_csv(output, &all),
            None => Ok(()),
        }
    }

    /// On how many questions the first metric that each of them has rose and fell.
    fn changes(&self, config: &Config) -> Option<String> {
        let mut metrics = config.task.metrics.iter();
        // Verdicts come later.
        let metric = *metrics.find(|metric| **metric != Metric::WinRate)?;
        let base = by_question(metric, self.examples, self.base);
        let tuned = by_question(metric, self.examples, self.tuned);
        let pairs = || {
            base.iter()
                .zip(&tuned)
                .filter_map(|(b, t)| Some(((*b)?, (*t)?)))
        };
        let count = |which: fn(f64, f64) -> bool| pairs().filter(|(b, t)| which(*b, *t)).count();
        Some(format!(
            "tuned is better on {} questions, worse on {}, equal on {}",
            count(|base, tuned| tuned > base),
            count(|base, tuned| tuned < base),
            count(|base, tuned| tuned == base),
        ))
    }
}

/// The metrics of base and tuned model as bars.
pub(super) fn chart(task: &str, title: &str, metrics: &Metrics) -> String {
    let names = metrics
        .tuned
        .keys()
        .chain((metrics.base.keys()).filter(|name| !metrics.tuned.contains_key(*name)));
    let groups = names.map(|name| Group {
        label: metric_label(task, name),
        values: vec![
            metrics.base.get(name).copied(),
            metrics.tuned.get(name).copied(),
        ],
    });
    let chart = Bars {
        title: title.to_string(),
        x_label: "metric".to_string(),
        y_label: "score".to_string(),
        series: vec!["base".to_string(), "tuned".to_string()],
        groups: groups.collect(),
        percent: true,
    };
    chart.svg()
}
