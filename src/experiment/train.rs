//! `run train`: from a job to a run directory with an adapter and its result.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indexmap::IndexMap;

use super::error::Error;
use super::forecast::Forecast;
use super::lifecycle::{begin, close};
use super::log::Console;
use super::metrics::MetricsWriter;
use super::quantize::{copy_side_files, shard_bytes};
use super::ready::Ready;
use super::registry::{ResumePlan, ResumeRequest, plan_resume};
use super::resume::{self, Restored};
use super::run_dir::RunDir;
use super::sampled::Sampled;
use super::scorer::Scorer;
use super::setup::{ModelUse, OUTPUTS, QuestionFile, tell_skipped};
use super::summary::Summary;
use super::table::{Comparison, Unit, metric_label, render};
use super::watch::Watch;
use super::{best, checkpoints, fsx, predictions, publish, start_from, win_rate};
use crate::config::Job;
use crate::config::types::{Config, LoraInit, Method, ModelInit, Optimizer as Kind};
use crate::data::Samples;
use crate::model::export::WeightType;
use crate::model::rewrite::Base;
use crate::model::{Adaptation, Decoder};
use crate::ops::Precision;
use crate::ops::cpu::multiplies_bf16;
use crate::train::{Optimizer, Progress, Schedule, Trainer};

/// Fine-tunes a model and evaluates it on the task's test set.
///
/// # Errors
/// See [`Error`]. Nothing is left behind by what fails before the first step;
/// what fails later leaves a run that can be resumed.
pub fn train(mut job: Job) -> Result<(), Error> {
    let console = Console::stdio();
    let began = Instant::now();
    start_from::settle(&mut job)?;
    let plan = plan_resume(&ResumeRequest {
        resume: job.config.training.resume.as_deref(),
        run_dir: job.run_dir_given.then_some(job.run_dir.as_path()),
        outputs: Path::new(OUTPUTS),
        resolved_config: &job.resolved_yaml(),
    })?;
    if let ResumePlan::AlreadyFinished { run_dir, changed } = &plan {
        let run = run_dir.display();
        console.line(&format!(
            "{run} is finished; nothing to do. Start a new run without training.resume."
        ));
        for change in changed {
            console.line(&format!("not done, since the run is finished: {change}"));
        }
        if !changed.is_empty() && job.config.method == Method::Lora {
            console.line(&format!(
                "lora.init_from={run}/adapter goes on from its adapter in a new run"
            ));
        }
        return Ok(());
    }
    let ready = Ready::new(&job.config, ModelUse::Run)?;
    let config = job.config.clone();
    let scorer = Scorer::new(&config, ready.sas.as_ref());
    let forecast = Forecast::of_run(&ready, &job.config)?;
    let load = || ready.setup.load(&job.config, adaptation(&job.config));
    let mut model = forecast.watch(load)?;
    ready.check_vocabulary(&job.config, &model)?;

    let (run, checkpoint, mut changed) = match plan {
        ResumePlan::Continue {
            run,
            checkpoint,
            changed,
        } => (run, checkpoint, changed),
        _ if job.run_dir_given => (RunDir::create_given(&job.run_dir)?, None, Vec::new()),
        _ => (RunDir::create_numbered(&job.run_dir)?, None, Vec::new()),
    };
    let training = &job.config.training;
    // A checkpoint that does not fit must not cost the run its own config.
    let start = match &checkpoint {
        Some(found) => {
            let mut restored = resume::restore(found, &mut model.params, training.optimizer)?;
            if let Some(data) = restored.data.filter(|data| *data != ready.data_size()) {
                let now = ready.data_size();
                changed.push(format!("the training data: {data} -> {now}"));
            }
            let by = training.metric_for_best_model;
            if restored.progress.forget_best_by_other(by) && training.seeks_best() {
                let what = match restored.progress.step < ready.plan.total_steps() {
                    true => "the best of the steps to come will be taken",
                    false => "no step is left, so the last one is taken",
                };
                console.line(&format!(
                    "training.metric_for_best_model={}: the best so far was so by another; {what}",
                    by.name()
                ));
            }
            if training.load_best_model_at_end
                && let Some(best) = restored.progress.best_step
                && !best::is_kept(&run, best)?
            {
                console.line(&format!(
                    "training.load_best_model_at_end: the parameters after step {best}, the best so \
                     far, were not kept; the best of the steps to come will be taken"
                ));
                restored.progress.forget_best();
            }
            restored
        }
        None => Restored {
            optimizer: Optimizer::new(&model.params, training.optimizer),
            progress: Progress {
                best_by: training.metric_for_best_model,
                ..Progress::default()
            },
            data: None,
        },
    };
    let earlier = Summary::read(&run.summary()).ok();
    let run = begin(&mut job, run, &console)?;
    for change in changed {
        console.line(&format!("changed since the run began: {change}"));
    }
    if let Some(found) = &checkpoint {
        console.line(&format!("resuming from {}", found.path.display()));
        for dir in [run.checkpoints(), run.best()] {
            checkpoints::remove_after(&dir, found.step)?;
        }
        // One more than that is left where a run was killed before it removed the oldest.
        if let Some(limit) = job.config.training.save_total_limit {
            checkpoints::prune(&run.checkpoints(), limit)?;
        }
    }
    let mut summary = Summary::started("train", &job.config.task.name, &ready.setup.chosen.name);
    if let Some(earlier) = earlier {
        summary.started = earlier.started;
    }
    let mut session = Session {
        config: &job.config,
        console: &console,
        run: &run,
        ready: &ready,
        scorer: &scorer,
        forecast: &forecast,
        summary,
    };
    let outcome = forecast.watch(|| session.work(&mut model, start.optimizer, start.progress));
    let device = &ready.setup.chosen.device;
    close(&run, &console, device, session.summary, began, outcome)
}

fn adaptation(config: &Config) -> Adaptation<'_> {
    match config.method {
        Method::Lora => Adaptation::Lora(&config.lora),
        Method::Full => Adaptation::Full,
    }
}

/// One run from its first step to its summary.
struct Session<'a> {
    config: &'a Config,
    console: &'a Console,
    run: &'a RunDir,
    ready: &'a Ready,
    scorer: &'a Scorer<'a>,
    forecast: &'a Forecast,
    summary: Summary,
}

impl Session<'_> {
    fn work(
        &mut self,
        model: &mut Decoder,
        optimizer: Optimizer,
        progress: Progress,
    ) -> Result<(), Error> {
        let (trainable, total) = (model.params.count(), model.total_parameters());
        self.summary.trainable_parameters = Some(trainable as u64);
        self.summary.trainable_percent = Some(100.0 * trainable as f64 / total as f64);
        self.summary.planned_memory_bytes = Some(self.forecast.memory.total);
        self.summary.skipped_rows = self.tell_skipped();
        self.summary.write(&self.run.summary())?;
        self.introduce(trainable, total);
        for note in &model.adapter_notes {
            self.console.line(note);
        }

        let (progress, seconds) = self.optimise(model, optimizer, progress)?;
        self.summary.train_loss = progress.train_loss;
        self.summary.val_loss = progress.val_loss;
        self.summary.tokens_per_s = seconds.map(|(tokens, s)| tokens as f64 / s.max(1e-9));
        self.save(model)?;
        if let Some(test) = &self.ready.test {
            self.evaluate(model, test)?;
        }
        if self.config.method == Method::Lora {
            let outputs = Path::new(OUTPUTS);
            let name = &self.config.task.name;
            let place = publish::publish_adapter(outputs, name, &self.run.adapter())?;
            self.console
                .line(&format!("adapter    {}", place.display()));
        }
        self.console
            .line(&format!("run        {}", self.run.root().display()));
        Ok(())
    }

    fn tell_skipped(&self) -> u64 {
        let ready = self.ready;
        let of_training = tell_skipped(self.console, &ready.data_path, &ready.skipped);
        let of_test = ready.test.as_ref();
        let of_test = of_test.map_or(0, |t| tell_skipped(self.console, &t.path, &t.skipped));
        of_training + of_test
    }

    fn introduce(&self, trainable: usize, total: usize) {
        let (config, ready) = (self.config, self.ready);
        let base = match (config.method, config.quantization.method) {
            (Method::Full, _) => "full fine-tuning, f32".to_string(),
            (Method::Lora, crate::config::types::QuantMethod::Nf4) => "QLoRA, NF4 base".to_string(),
            (Method::Lora, crate::config::types::QuantMethod::None) => {
                format!("LoRA, {} base", ready.setup.precision.label())
            }
        };
        self.console.line(&format!(
            "task {}, model {}, {base}, device {}",
            config.task.name,
            ready.setup.model_dir.display(),
            ready.setup.chosen.name
        ));
        self.console.line(&format!(
            "{trainable} of {total} parameters train ({:.2} %)",
            100.0 * trainable as f64 / total as f64
        ));
        for note in &ready.notes {
            self.console.line(note);
        }
        if let Some(note) = &ready.setup.quantised_note {
            self.console.line(note);
        }
        if let Some(sas) = &ready.sas {
            self.console.line(&sas.note());
        }
        if let Some(note) = &ready.setup.chosen.note {
            self.console.line(note);
        }
        if ready.setup.chosen.gpu.is_none() && config.training.activation_offloading {
            self.console.line(
                "training.activation_offloading=true: on the CPU all memory is the host's, so nothing moves",
            );
        }
        if ready.setup.chosen.gpu.is_none() && config.training.optimizer == Kind::PagedAdamw {
            self.console.line(
                "training.optimizer=paged_adamw: on the CPU all memory is the host's, so this is plain adamw",
            );
        }
        if ready.setup.chosen.gpu.is_none()
            && ready.setup.precision == Precision::Bf16
            && !multiplies_bf16()
        {
            self.console.line(
                "training.bf16=true: this CPU has no AVX512-BF16, so rounded numbers are multiplied as f32",
            );
        }
        for line in self.forecast.lines_of_run() {
            self.console.line(&line);
        }
        let warmup = config.training.warmup_steps.unwrap_or(0);
        if warmup > ready.plan.total_steps() {
            self.console.line(&format!(
                "training.warmup_steps={warmup}: the run has {} steps, so the learning rate never \
                 reaches its top",
                ready.plan.total_steps()
            ));
        }
        if let (Some(dir), Method::Lora) = (&config.lora.init_from, config.method) {
            self.console.line(&format!(
                "adapter starts from {}, with its own rank, alpha and modules; dropout {}",
                dir.display(),
                config.lora.dropout
            ));
        }
        self.console.line(&format!(
            "{} training{} and {} validation examples, {} steps{}",
            ready.train.len(),
            match config.training.packing {
                true => format!(" (in {} packs)", ready.packs.len()),
                false => String::new(),
            },
            ready.val.len(),
            ready.plan.total_steps(),
            match ready.truncated {
                0 => String::new(),
                n => format!("; {n} truncated to training.max_seq_length"),
            }
        ));
    }

    /// Trains; returns where it ended, with the tokens and seconds of this session.
    #[allow(clippy::type_complexity)]
    fn optimise(
        &mut self,
        model: &mut Decoder,
        optimizer: Optimizer,
        progress: Progress,
    ) -> Result<(Progress, Option<(u64, f64)>), Error> {
        let training = &self.config.training;
        let done = progress.step;
        let (metrics, last) = match done {
            0 => (MetricsWriter::create(&self.run.metrics())?, None),
            step => MetricsWriter::resume(&self.run.metrics(), step)?,
        };
        let before = last.map_or(0.0, |row| row.elapsed_s);
        self.summary.duration_s = (before > 0.0).then_some(before);
        let setup = &self.ready.setup;
        let encoder = setup.encoder(self.config)?;
        let sampled = match &self.ready.sampled {
            Some(file) => {
                let questions = file.with(setup, &encoder, self.config)?;
                let path = self.run.eval_metrics();
                Some(Sampled::new(questions, self.scorer, path, done)?)
            }
            None => None,
        };
        let plan = self.ready.plan;
        let mut watch = Watch::new(
            self.run,
            self.console,
            metrics,
            plan,
            done,
            training,
            self.ready.data_size(),
            before,
            self.ready.setup.chosen.device.clone(),
            sampled,
        );
        let tokens_before = progress.tokens;
        let mut trainer = Trainer {
            model,
            optimizer,
            progress,
            config: training,
            seed: self.config.seed,
            train: &self.ready.train,
            val: &self.ready.val,
            packs: &self.ready.packs,
            plan,
            schedule: Schedule::new(training, plan.total_steps()),
        };
        let trained = trainer.run(&mut watch)?;
        watch.metrics.sync()?;
        let mut progress = trainer.progress;
        if progress.step < plan.total_steps() {
            self.tell_stop(&progress);
        }
        if training.load_best_model_at_end {
            self.take_best(model, &mut progress)?;
        }
        let tokens = progress.tokens - tokens_before;
        let seconds = trained.as_secs_f64();
        Ok((progress, (tokens > 0).then_some((tokens, seconds))))
    }

    /// Says why there are fewer steps than were planned.
    fn tell_stop(&self, progress: &Progress) {
        let by = self.config.training.metric_for_best_model.name();
        let (what, best) = match progress.best_metric {
            Some(value) => (format!("{by} did not rise above"), Some(value)),
            None => ("the loss did not fall below".into(), progress.best_val_loss),
        };
        let best = match (best, progress.best_step) {
            (Some(value), Some(step)) => format!("{value:.4} of step {step}"),
            _ => "the best".to_string(),
        };
        self.console.line(&format!(
            "stopped    after step {} of {}: in {} validations {what} {best} \
             (training.early_stopping_patience)",
            progress.step,
            self.ready.plan.total_steps(),
            progress.worse
        ));
    }

    /// Puts the parameters of the best validation in place of the last.
    fn take_best(&self, model: &mut Decoder, progress: &mut Progress) -> Result<(), Error> {
        let (Some(step), Some(loss)) = (progress.best_step, progress.best_val_loss) else {
            return Ok(());
        };
        best::load(self.run, &mut model.params, step)?;
        best::keep_only(self.run, step)?;
        let last = progress.val_loss.replace(loss).unwrap_or(loss);
        let by = self.config.training.metric_for_best_model.name();
        let metric = progress
            .best_metric
            .map(|value| format!("{by} {value:.4}, "));
        self.console.line(&format!(
            "best       step {step}, {}validation loss {loss:.4}; after step {} the loss was {last:.4}",
            metric.unwrap_or_default(),
            progress.step
        ));
        Ok(())
    }

    /// Writes `adapter/`, or `model/` after full fine-tuning.
    fn save(&self, model: &Decoder) -> Result<(), Error> {
        let setup = &self.ready.setup;
        let copy_tokenizer = |dir: &Path| setup.copy_tokenizer(dir);
        let lora = &self.config.lora;
        let own_base = lora.init_lora_weights == LoraInit::Loftq && lora.changes_base();
        let base = match self.config.method == Method::Lora && own_base {
            false => setup.base(self.config),
            true => self.save_base()?,
        };
        match model.adapter(&base) {
            Some(adapter) => fsx::publish_dir(&self.run.adapter(), |dir| {
                adapter.write_into(dir)?;
                copy_tokenizer(dir)
            }),
            None => {
                let bf16 = model.arch.dtype.as_deref() == Some("bfloat16");
                let stored = if bf16 {
                    WeightType::Bf16
                } else {
                    WeightType::F32
                };
                let dir = self.run.model();
                model.write_checkpoint(&dir, stored, copy_tokenizer)
            }
        }
    }

    /// Writes `base/`, the weights that the rounds of LoftQ quantised.
    fn save_base(&self) -> Result<PathBuf, Error> {
        let (setup, config) = (&self.ready.setup, self.config);
        let base = Base::open(&setup.model_dir)?;
        let dir = self.run.base();
        fsx::publish_dir(&dir, |temp| {
            let (q, most) = (&setup.quantization, shard_bytes(config));
            base.write_loftq(temp, q, &config.lora, config.seed, most)?;
            copy_side_files(&base.dir, temp)
        })?;
        let place = dir.display();
        self.console.line(&format!(
            "base       {place} (give the adapter this one: model.path={place})"
        ));
        Ok(dir)
    }

    /// Base and tuned on the held-out test set.
    fn evaluate(&mut self, model: &mut Decoder, test: &QuestionFile) -> Result<(), Error> {
        let (config, scorer) = (self.config, self.scorer);
        let encoder = self.ready.setup.encoder(config)?;
        let questions = test.with(&self.ready.setup, &encoder, config)?;
        self.console
            .line(&format!("test       {}", test.path.display()));
        let base = match config.method {
            Method::Lora if !config.lora.changes_base() => {
                Some(scorer.score(model, &questions, false)?)
            }
            Method::Full if config.model.init == ModelInit::Random => None,
            // The base as it was, beside what became of it.
            Method::Lora | Method::Full => {
                let mut base = self.ready.setup.load(config, Adaptation::None)?;
                Some(scorer.score(&mut base, &questions, false)?)
            }
        };
        let tuned = scorer.score(model, &questions, true)?;
        predictions::write(&self.run.predictions(), &test.examples, &tuned.answers)?;
        let base_metrics = base.map(|b| b.metrics).unwrap_or_default();
        // A test on the training file says nothing about new questions.
        let same = config.data.path.as_deref() == Some(test.path.as_path());
        let set = if same {
            "training file"
        } else {
            "held-out test set"
        };
        let title = test.title(set);
        self.console.line("");
        self.console.line(&comparison(
            &config.task.name,
            &title,
            &base_metrics,
            &tuned.metrics,
        ));
        if win_rate::is_wanted(config) {
            let line = "win_rate is judged by run eval and run compare";
            self.console.line(line);
        }
        self.console.line("");
        self.summary.metrics.base = base_metrics;
        self.summary.metrics.tuned = tuned.metrics;
        Ok(())
    }
}

/// The table of base and tuned metrics.
pub fn comparison(
    task: &str,
    title: &str,
    base: &IndexMap<String, f64>,
    tuned: &IndexMap<String, f64>,
) -> String {
    let names = tuned
        .keys()
        .chain(base.keys().filter(|k| !tuned.contains_key(*k)));
    let rows: Vec<Comparison> = names
        .map(|name| Comparison {
            label: metric_label(task, name),
            unit: Unit::Fraction,
            base: base.get(name).copied(),
            tuned: tuned.get(name).copied(),
        })
        .collect();
    render(title, &rows)
}
