//! What a training run leaves behind as it goes: rows of metrics.csv, lines on
//! the terminal, checkpoints.

use std::time::Instant;

use burn::tensor::Device;

use super::best;
use super::error::Error;
use super::log::Console;
use super::metrics::{MetricRow, MetricsWriter, Split, peak_memory};
use super::progress::{Progress as Bar, StepReport};
use super::resume;
use super::run_dir::RunPaths;
use super::sampled::Sampled;
use crate::data::batch::Schedule as Plan;
use crate::model::Decoder;
use crate::train::{Event, Observer, Optimizer, Progress};

/// The [`Observer`] of `run train`.
pub struct Watch<'a> {
    pub paths: &'a RunPaths,
    pub metrics: MetricsWriter,
    pub bar: Bar,
    pub plan: Plan,
    pub save_total_limit: Option<usize>,
    /// Seconds that earlier sessions of a resumed run took.
    pub elapsed_before: f64,
    pub began: Instant,
    device: Device,
    console: Console,
    keep_best: bool,
    sampled: Option<Sampled<'a>>,
    /// Smoothed for the bar.
    tokens_per_s: f64,
    last_step: Instant,
    last_lr: f64,
}

impl<'a> Watch<'a> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        paths: &'a RunPaths,
        console: &Console,
        metrics: MetricsWriter,
        plan: Plan,
        done: usize,
        training: &crate::config::types::TrainingConfig,
        elapsed_before: f64,
        device: Device,
        sampled: Option<Sampled<'a>>,
    ) -> Self {
        Self {
            paths,
            metrics,
            bar: Bar::start(console, plan.total_steps(), done, training.logging_steps),
            plan,
            save_total_limit: training.save_total_limit,
            elapsed_before,
            began: Instant::now(),
            device,
            console: console.clone(),
            keep_best: training.load_best_model_at_end,
            sampled,
            tokens_per_s: 0.0,
            last_step: Instant::now(),
            last_lr: 0.0,
        }
    }
}

impl Observer for Watch<'_> {
    type Error = Error;

    fn step(&mut self, step: usize, _total: usize, loss: f64, lr: f64, tokens: u64) {
        let now = tokens as f64 / self.last_step.elapsed().as_secs_f64().max(1e-9);
        self.last_step = Instant::now();
        self.last_lr = lr;
        self.tokens_per_s = match self.tokens_per_s {
            0.0 => now,
            before => 0.9 * before + 0.1 * now,
        };
        self.bar.step(&StepReport {
            step,
            epoch: self.plan.epoch_after(step),
            loss,
            learning_rate: lr,
            tokens_per_s: self.tokens_per_s,
        });
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
        }
        Ok(())
    }

    fn validated(&mut self, model: &mut Decoder, event: &Event, best: bool) -> Result<(), Error> {
        if best && self.keep_best {
            best::save(self.paths, &model.params, event.step)?;
        }
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
        }
        self.last_step = Instant::now();
        Ok(())
    }

    fn checkpoint(
        &mut self,
        model: &Decoder,
        optimizer: &Optimizer,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.metrics.sync()?;
        let limit = self.save_total_limit;
        resume::save(self.paths, &model.params, optimizer, progress, limit)?;
        if let (true, Some(step)) = (self.keep_best, progress.best_step) {
            best::keep_only(self.paths, step)?;
        }
        self.last_step = Instant::now();
        Ok(())
    }

    fn diverged(&self, step: usize, loss: f64) -> Error {
        Error::Diverged {
            step,
            loss,
            lr: self.last_lr,
            run: self.paths.root().to_path_buf(),
        }
    }
}
