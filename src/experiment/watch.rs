//! What a training run leaves behind as it goes: rows of metrics.csv, lines on
//! the terminal, checkpoints.

use std::time::Instant;

use burn::tensor::Device;

use super::best;
use super::checkpoints;
use super::error::Error;
use super::log::Console;
use super::metrics::{MetricRow, MetricsWriter, Split, peak_memory};
use super::progress::{Progress as Bar, StepReport};
use super::resume::{self, DataSize};
use super::run_dir::RunPaths;
use super::sampled::Sampled;
use crate::config::types::{BestMetric, TrainingConfig};
use crate::data::batch::Schedule as Plan;
use crate::model::Decoder;
use crate::train::{Diverged, Event, Observer, Optimizer, Progress};

/// The [`Observer`] of `run train`.
pub struct Watch<'a> {
    pub paths: &'a RunPaths,
    pub metrics: MetricsWriter,
    pub bar: Bar,
    pub plan: Plan,
    /// Seconds that earlier sessions of a resumed run took.
    pub elapsed_before: f64,
    pub began: Instant,
    training: &'a TrainingConfig,
    data: DataSize,
    device: Device,
    console: Console,
    sampled: Option<Sampled<'a>>,
    /// Smoothed for the bar.
    tokens_per_s: f64,
    learning_rate: f64,
    last_step: Instant,
}

impl<'a> Watch<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        paths: &'a RunPaths,
        console: &Console,
        metrics: MetricsWriter,
        plan: Plan,
        done: usize,
        training: &'a TrainingConfig,
        data: DataSize,
        elapsed_before: f64,
        device: Device,
        sampled: Option<Sampled<'a>>,
    ) -> Self {
        Self {
            paths,
            metrics,
            bar: Bar::start(console, plan.total_steps(), done),
            plan,
            elapsed_before,
            began: Instant::now(),
            training,
            data,
            device,
            console: console.clone(),
            sampled,
            tokens_per_s: 0.0,
            learning_rate: 0.0,
            last_step: Instant::now(),
        }
    }

    fn report(&self, step: usize, loss: f64) -> StepReport {
        StepReport {
            step,
            epoch: self.plan.epoch_after(step),
            loss,
            learning_rate: self.learning_rate,
            tokens_per_s: self.tokens_per_s,
        }
    }
}

impl Observer for Watch<'_> {
    type Error = Error;

    fn step(&mut self, step: usize, _total: usize, loss: f64, lr: f64, tokens: u64) {
        let now = tokens as f64 / self.last_step.elapsed().as_secs_f64().max(1e-9);
        self.last_step = Instant::now();
        self.tokens_per_s = match self.tokens_per_s {
            0.0 => now,
            before => 0.9 * before + 0.1 * now,
        };
        self.learning_rate = lr;
        self.bar.step(&self.report(step, loss));
    }

    fn event(&mut self, event: &Event) -> Result<(), Error> {
        self.metrics.write(&MetricRow {
            step: event.step,
            epoch: event.epoch,
            split: if event.validation {
                Split::Val
            } else {
                Split::Train
            },
            loss: event.loss,
            learning_rate: event.learning_rate,
            grad_norm: event.grad_norm,
            supervised_tokens: Some(event.supervised_tokens),
            tokens_per_s: Some(event.tokens_per_s),
            peak_memory_bytes: peak_memory(&self.device),
            elapsed_s: self.elapsed_before + self.began.elapsed().as_secs_f64(),
        })?;
        if event.validation {
            self.bar.validation(event.step, event.loss);
            self.last_step = Instant::now();
        } else {
            self.bar.row(&self.report(event.step, event.loss));
        }
        Ok(())
    }

    fn validated(&mut self, model: &mut Decoder, event: &Event) -> Result<Option<f64>, Error> {
        let mut measured = None;
        if let Some(sampled) = &mut self.sampled {
            let metrics = sampled.score(model, event.step, event.epoch)?;
            let shown = metrics.iter().map(|(name, v)| format!("{name} {v:.3}"));
            let shown: Vec<String> = shown.collect();
            self.console.line(&format!(
                "step {}: {} of {} validation questions",
                event.step,
                shown.join(", "),
                sampled.len()
            ));
            measured = metrics
                .get(self.training.metric_for_best_model.name())
                .copied();
        }
        self.last_step = Instant::now();
        match self.training.metric_for_best_model {
            BestMetric::Loss => Ok(None),
            metric => measured.map(Some).ok_or(Error::NoMetric(metric.name())),
        }
    }

    fn best(&mut self, model: &Decoder, step: usize) -> Result<(), Error> {
        if self.training.load_best_model_at_end {
            best::save(self.paths, &model.params, step)?;
            self.last_step = Instant::now();
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        model: &Decoder,
        optimizer: &Optimizer,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.metrics.sync()?;
        resume::save(
            self.paths,
            &model.params,
            optimizer,
            progress,
            self.data,
            self.training.save_total_limit,
        )?;
        if let (true, Some(step)) = (self.training.load_best_model_at_end, progress.best_step) {
            best::keep_only(self.paths, step)?;
        }
        self.last_step = Instant::now();
        Ok(())
    }

    fn diverged(&self, step: usize, what: Diverged) -> Error {
        let training = self.training;
        let dir = self.paths.checkpoints();
        let kept = checkpoints::list(&dir).is_ok_and(|all| !all.is_empty());
        Error::Diverged {
            step,
            what,
            lr: training.learning_rate,
            warmup: match training.warmup_steps {
                Some(_) => "training.warmup_steps",
                None => "training.warmup_ratio",
            },
            checkpoints: kept.then_some(dir),
        }
    }
}
