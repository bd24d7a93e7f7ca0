//! The training loop: windows of micro-batches in, an adapted model out. It
//! knows nothing of files; what happens is told to an [`Observer`].

use std::borrow::Borrow;
use std::fmt;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;

use super::optimizer::Optimizer;
use super::schedule::Schedule;
use crate::config::types::{BestMetric, TrainingConfig};
use crate::data::Sample;
use crate::data::batch::{Schedule as Plan, Window};
use crate::data::store::Samples;
use crate::model::{Decoder, DropoutKey, Grads, Keep, Ragged, StepOptions};
use crate::ops::Scalar;
use crate::ops::is_cpu;

/// One row of metrics.csv, training or validation.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub step: usize,
    pub epoch: f64,
    pub validation: bool,
    /// Mean over `supervised_tokens`, in nats.
    pub loss: f64,
    /// Of the step just taken; training only.
    pub learning_rate: Option<f64>,
    /// Before clipping; training only.
    pub grad_norm: Option<f64>,
    /// Tokens that `loss` is the mean over.
    pub supervised_tokens: u64,
    /// Tokens seen (training) or scored (validation) since the row before, per second.
    pub tokens_per_s: f64,
}

/// Where a run stands between two steps: with the parameters and the optimiser's
/// moments, all that the rest of the run depends on.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Loss summed over supervised tokens since the last logged row.
    pub loss_sum: f64,
    pub supervised: u64,
    /// By what the best validation so far is the best, the value of that (none for the loss), the
    /// loss there, and the step after which it was measured.
    #[serde(default)]
    pub best_by: BestMetric,
    #[serde(default)]
    pub best_metric: Option<f64>,
    pub best_val_loss: Option<f64>,
    #[serde(default)]
    pub best_step: Option<usize>,
    /// Validations in a row that were not better.
    pub worse: usize,
    /// The loss of each step, the mean over its window, summed over so many steps: all but those
    /// before a checkpoint that did not keep it.
    #[serde(default)]
    pub mean_sum: f64,
    #[serde(default)]
    pub mean_steps: u64,
    /// For the summary: the mean over the steps up to the last row, and what the last
    /// validation gave.
    pub train_loss: Option<f64>,
    pub val_loss: Option<f64>,
    /// All non-padding tokens trained on.
    pub tokens: u64,
}

impl Progress {
    /// No validation was the best so far.
    pub fn forget_best(&mut self) {
        (self.best_metric, self.best_val_loss, self.best_step) = (None, None, None);
    }

    /// From now on `by` says what is best. Whether something was so by another.
    pub fn forget_best_by_other(&mut self, by: BestMetric) -> bool {
        let other = self.best_by != by && self.best_val_loss.is_some();
        if other {
            self.forget_best();
            self.worse = 0;
        }
        self.best_by = by;
        other
    }
}

/// What is no finite number any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Diverged {
    Loss(f64),
    /// Its norm.
    Gradient(f64),
    ValidationLoss(f64),
    /// What the step made of them; its loss was that of those before.
    Parameters,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss(loss) => write!(f, "the loss is {loss}"),
            Self::Gradient(norm) => write!(f, "the norm of the gradient is {norm}"),
            Self::ValidationLoss(loss) => write!(f, "the validation loss is {loss}"),
            Self::Parameters => f.write_str("parameters are infinite or no numbers"),
        }
    }
}

/// What the loop tells as it goes.
pub trait Observer {
    type Error;

    /// After every step: the mean loss of the step's window.
    fn step(&mut self, step: usize, total: usize, loss: f64, lr: f64, tokens: u64);
    /// A row for metrics.csv.
    fn event(&mut self, event: &Event) -> Result<(), Self::Error>;
    /// After a validation, whose row was told before: the value of `metric_for_best_model`;
    /// none where that is the loss.
    fn validated(
        &mut self,
        _model: &mut Decoder,
        _event: &Event,
    ) -> Result<Option<f64>, Self::Error> {
        Ok(None)
    }
    /// The validation after `step` was the best so far.
    fn best(&mut self, _model: &Decoder, _step: usize) -> Result<(), Self::Error> {
        Ok(())
    }
    /// A checkpoint is due.
    fn checkpoint(
        &mut self,
        model: &Decoder,
        optimizer: &Optimizer,
        progress: &Progress,
    ) -> Result<(), Self::Error>;
    /// The run cannot go on.
    fn diverged(&self, step: usize, what: Diverged) -> Self::Error;
}

/// A run in memory.
pub struct Trainer<'a> {
    pub model: &'a mut Decoder,
    pub optimizer: Optimizer,
    pub progress: Progress,
    pub config: &'a TrainingConfig,
    pub seed: u64,
    pub train: &'a dyn Samples,
    pub val: &'a dyn Samples,
    /// The samples that count as one example of a batch.
    pub packs: &'a [Vec<usize>],
    /// Which packs each step sees.
    pub plan: Plan,
    pub schedule: Schedule,
}

impl Trainer<'_> {
    /// Trains from `progress.step` to the end, or until early stopping. Returns the time
    /// that it took, without validation and checkpoints.
    pub fn run<O: Observer>(&mut self, observer: &mut O) -> Result<Duration, O::Error> {
        let longest = |all: &dyn Samples| (0..all.len()).map(|i| all.brief(i).tokens).max();
        let longest = longest(self.train).max(longest(self.val));
        self.model.reserve_positions(longest.unwrap_or(1));
        if !is_cpu(&self.model.device) {
            let keep = Keep::of(self.config);
            self.model.reserve_activations(self.largest_batch(), keep);
        }
        let total = self.plan.total_steps();
        // Stopped early, and killed after the checkpoint of that step.
        if self.out_of_patience() {
            return Ok(Duration::ZERO);
        }
        let mut trained = Duration::ZERO;
        let (mut since, mut seen) = (Instant::now(), 0u64);
        let windows = self
            .plan
            .windows(self.seed, self.config.shuffle, self.progress.step);
        for window in windows {
            let lr = self.schedule.lr(self.progress.step);
            let outcome = self.step(&window, lr);
            if !outcome.loss_sum.is_finite() || !outcome.grad_norm.is_finite() {
                let what = match outcome.loss_sum.is_finite() {
                    true => Diverged::Gradient(outcome.grad_norm),
                    false => Diverged::Loss(outcome.loss_sum),
                };
                return Err(observer.diverged(self.progress.step + 1, what));
            }
            let progress = &mut self.progress;
            progress.step += 1;
            progress.loss_sum += outcome.loss_sum;
            progress.mean_sum += outcome.loss_sum / outcome.supervised.max(1) as f64;
            progress.mean_steps += 1;
            progress.supervised += outcome.supervised;
            progress.tokens += outcome.tokens;
            seen += outcome.tokens;
            let step = progress.step;
            let mean = outcome.loss_sum / outcome.supervised as f64;
            observer.step(step, total, mean, lr, outcome.tokens);

            let last = step == total;
            if due(step, self.config.logging_steps) || last {
                let took = since.elapsed();
                observer.event(&self.row(lr, outcome.grad_norm, seen, took))?;
                trained += took;
                (since, seen) = (Instant::now(), 0);
            }
            let mut stop = false;
            if !self.val.is_empty() && (due(step, self.config.eval_steps) || last) {
                let away = Instant::now();
                let event = self.validate();
                if !event.loss.is_finite() {
                    return Err(observer.diverged(step, Diverged::ValidationLoss(event.loss)));
                }
                observer.event(&event)?;
                let metric = observer.validated(self.model, &event)?;
                if self.is_best(event.loss, metric) {
                    observer.best(self.model, step)?;
                }
                stop = self.out_of_patience();
                since += away.elapsed();
            }
            if stop && self.progress.supervised > 0 {
                // The last step after all; before the checkpoint, so that no row is told twice.
                let took = since.elapsed();
                observer.event(&self.row(lr, outcome.grad_norm, seen, took))?;
                trained += took;
            }
            let ends = stop || last;
            let saves = self.config.save_steps > 0 && (ends || due(step, self.config.save_steps));
            // What is kept can be gone on from, and is not published ruined.
            if (saves || ends) && !self.is_sound() {
                return Err(observer.diverged(step, Diverged::Parameters));
            }
            if saves {
                let away = Instant::now();
                observer.checkpoint(self.model, &self.optimizer, &self.progress)?;
                since += away.elapsed();
            }
            if stop {
                break;
            }
        }
        Ok(trained)
    }

    /// Whether all parameters are finite.
    fn is_sound(&self) -> bool {
        let params: Vec<&Tensor<2>> = self.model.params.values().iter().collect();
        let squares = self.model.ops().sum_squares(&params);
        squares.value().is_finite()
    }

    /// What the steps since the last row come to, `seen` tokens in the time they `took`.
    fn row(&mut self, lr: f64, grad_norm: f64, seen: u64, took: Duration) -> Event {
        let progress = &mut self.progress;
        let loss = progress.loss_sum / progress.supervised as f64;
        let event = Event {
            step: progress.step,
            epoch: self.plan.epoch_after(progress.step),
            validation: false,
            loss,
            learning_rate: Some(lr),
            grad_norm: Some(grad_norm),
            supervised_tokens: progress.supervised,
            tokens_per_s: seen as f64 / took.as_secs_f64().max(1e-9),
        };
        progress.train_loss = Some(progress.mean_sum / progress.mean_steps.max(1) as f64);
        (progress.loss_sum, progress.supervised) = (0.0, 0);
        event
    }

    /// Tokens of the largest micro-batch to come.
    fn largest_batch(&self) -> usize {
        let tokens = |all: &dyn Samples, i: usize| all.brief(i).tokens;
        let pack = |pack: &Vec<usize>| pack.iter().map(|&i| tokens(self.train, i)).sum();
        let packs: Vec<usize> = self.packs.iter().map(pack).collect();
        let windows = self
            .plan
            .windows(self.seed, self.config.shuffle, self.progress.step);
        let micro_batches = windows.flat_map(|window| window.micro_batches);
        let trained = micro_batches.map(|rows| rows.iter().map(|&i| packs[i]).sum());
        let val: Vec<usize> = (0..self.val.len()).map(|i| tokens(self.val, i)).collect();
        let validated = val.chunks(self.config.batch_size.max(1));
        let validated = validated.map(|batch| batch.iter().sum());
        trained.chain(validated).max().unwrap_or(0)
    }

    fn step(&mut self, window: &Window, lr: f64) -> StepOutcome {
        let step = self.progress.step;
        let samples = |rows: &Vec<usize>| {
            let packed = rows.iter().flat_map(|&pack| &self.packs[pack]);
            ragged(packed.map(|&i| self.train.get(i)))
        };
        let micro_batches: Vec<Ragged> = window.micro_batches.iter().map(samples).collect();
        let supervised: usize = micro_batches.iter().map(|b| b.rows.len()).sum();
        let mut grads = Grads::new(&self.model.params);
        let mut losses = Vec::with_capacity(micro_batches.len());
        for (micro, batch) in micro_batches.iter().enumerate() {
            let options = StepOptions {
                scale: 1.0 / supervised.max(1) as f32,
                keep: Keep::of(self.config),
                dropout: Some(DropoutKey {
                    seed: self.seed,
                    step: step as u64,
                    micro: micro as u64,
                }),
            };
            losses.push(self.model.loss_backward(batch, options, &mut grads));
        }
        let ops = self.model.ops();
        let params = &mut self.model.params;
        let squared_norm = self.optimizer.step(ops, params, grads, self.config, lr);
        // Only now, with the whole step given to the device, is anything waited for.
        StepOutcome {
            loss_sum: losses.iter().map(Scalar::value).sum(),
            grad_norm: squared_norm.value().sqrt(),
            supervised: supervised as u64,
            tokens: micro_batches.iter().map(|b| b.len() as u64).sum(),
        }
    }

    /// Mean loss over the validation set.
    fn validate(&mut self) -> Event {
        let since = Instant::now();
        let (mut losses, mut supervised, mut tokens) = (Vec::new(), 0u64, 0u64);
        let size = self.config.batch_size.max(1);
        for from in (0..self.val.len()).step_by(size) {
            let rows = from..self.val.len().min(from + size);
            let batch = ragged(rows.map(|i| self.val.get(i)));
            losses.push(self.model.loss(&batch, true));
            supervised += batch.rows.len() as u64;
            tokens += batch.len() as u64;
        }
        let loss = losses.iter().map(Scalar::value).sum::<f64>() / supervised.max(1) as f64;
        self.progress.val_loss = Some(loss);
        Event {
            step: self.progress.step,
            epoch: self.plan.epoch_after(self.progress.step),
            validation: true,
            loss,
            learning_rate: None,
            grad_norm: None,
            supervised_tokens: supervised,
            tokens_per_s: tokens as f64 / since.elapsed().as_secs_f64().max(1e-9),
        }
    }

    /// Whether the last validation is the best so far: by a metric, of which more is better, or
    /// else by its loss. Of equal ones the first is.
    fn is_best(&mut self, loss: f64, metric: Option<f64>) -> bool {
        let progress = &mut self.progress;
        let better = match metric {
            Some(value) => progress.best_metric.is_none_or(|best| value > best),
            None => progress.best_val_loss.is_none_or(|best| loss < best),
        };
        if better {
            progress.best_val_loss = Some(loss);
            progress.best_metric = metric;
            progress.best_step = Some(progress.step);
            progress.worse = 0;
        } else {
            progress.worse += 1;
        }
        better
    }

    /// Early stopping: so many validations in a row were not better.
    fn out_of_patience(&self) -> bool {
        self.config
            .early_stopping_patience
            .is_some_and(|patience| self.progress.worse >= patience)
    }
}

struct StepOutcome {
    loss_sum: f64,
    grad_norm: f64,
    supervised: u64,
    tokens: u64,
}

fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// The samples as one batch without padding.
pub fn ragged(samples: impl Iterator<Item = impl Borrow<Sample>>) -> Ragged {
    let mut batch = Ragged::default();
    for sample in samples {
        let sample = sample.borrow();
        batch.push_labelled(&sample.input_ids, &sample.labels);
    }
    batch
}
