//! Which validation is the best, and when a run stops for want of a better one, by given metrics.

use std::convert::Infallible;

use crate::common;
use crate::log::Log;
use crate::packing::{model, samples};

use kiln::config::types::TrainingConfig;
use kiln::data::batch::Schedule as Plan;
use kiln::model::Decoder;
use kiln::train::{Diverged, Event, Observer, Optimizer, Progress, Schedule, Trainer};

/// Gives one value after another, and keeps the steps that were the best.
struct Scripted {
    values: Vec<f64>,
    best: Vec<usize>,
    log: Log,
}

impl Observer for Scripted {
    type Error = Infallible;
    fn step(&mut self, _: usize, _: usize, _: f64, _: f64, _: u64) {}
    fn event(&mut self, event: &Event) -> Result<(), Infallible> {
        self.log.event(event)
    }
    fn validated(&mut self, _: &mut Decoder, event: &Event) -> Result<Option<f64>, Infallible> {
        Ok(self.values.get(event.step - 1).copied())
    }
    fn best(&mut self, _: &Decoder, step: usize) -> Result<(), Infallible> {
        self.best.push(step);
        Ok(())
    }
    fn checkpoint(&mut self, _: &Decoder, _: &Optimizer, _: &Progress) -> Result<(), Infallible> {
        Ok(())
    }
    fn diverged(&self, step: usize, what: Diverged) -> Infallible {
        self.log.diverged(step, what)
    }
}

/// A run of eight steps, each validated.
fn run(values: &[f64], patience: Option<usize>) -> (Scripted, Progress) {
    let (samples, mut model) = (samples(16), model());
    let (train, val) = samples.split_at(12);
    let (train, val) = (train.to_vec(), val.to_vec());
    let config = TrainingConfig {
        batch_size: 2,
        gradient_accumulation_steps: 1,
        eval_steps: 1,
        early_stopping_patience: patience,
        ..common::reference_training(true)
    };
    let packs: Vec<Vec<usize>> = (0..train.len()).map(|i| vec![i]).collect();
    let plan = Plan::new(packs.len(), 2, 1, 3.0, Some(8)).unwrap();
    let mut observer = Scripted {
        values: values.to_vec(),
        best: Vec::new(),
        log: Log::default(),
    };
    let mut trainer = Trainer {
        optimizer: Optimizer::new(&model.params, config.optimizer),
        model: &mut model,
        progress: Progress::default(),
        config: &config,
        seed: 1,
        train: &train,
        val: &val,
        packs: &packs,
        plan,
        schedule: Schedule::new(&config, plan.total_steps()),
    };
    let Ok(_) = trainer.run(&mut observer);
    let progress = trainer.progress;
    (observer, progress)
}

fn val_losses(observer: &Scripted) -> Vec<f64> {
    let rows = observer.log.0.iter().filter(|row| row.validation);
    rows.map(|row| row.loss).collect()
}

#[test]
fn the_highest_metric_is_the_best_and_of_equal_ones_the_first() {
    let values = [0.2, 0.5, 0.5, 0.4, 0.7, 0.7, 0.1, 0.6];
    let (observer, progress) = run(&values, None);
    assert_eq!(observer.best, [1, 2, 5]);
    assert_eq!(
        (progress.best_step, progress.best_metric),
        (Some(5), Some(0.7))
    );
    assert_eq!(progress.best_val_loss, Some(val_losses(&observer)[4]));
    assert_eq!(progress.worse, 3);
    let (observer, progress) = run(&values, Some(2));
    assert_eq!((observer.best, progress.step), (vec![1, 2], 4));
}

#[test]
fn without_a_metric_the_lowest_loss_is_the_best() {
    let (observer, progress) = run(&[], None);
    let losses = val_losses(&observer);
    let mut lowest = f64::INFINITY;
    let mut want = Vec::new();
    for (i, loss) in losses.iter().enumerate() {
        if *loss < lowest {
            lowest = *loss;
            want.push(i + 1);
        }
    }
    assert_eq!(observer.best, want);
    assert_eq!(
        (progress.best_val_loss, progress.best_metric),
        (Some(lowest), None)
    );
}
