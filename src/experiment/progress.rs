//! Training progress: a bar for a person, plain lines for a pipe and run.log.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::Console;

/// What is known after an optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Optimiser steps done, from 1.
    pub step: usize,
    pub epoch: f64,
    pub loss: f64,
    pub learning_rate: f64,
    /// Non-padding tokens a second.
    pub tokens_per_s: f64,
}

/// Shows the steps of one training loop.
pub struct Progress {
    console: Console,
    bar: Option<ProgressBar>,
    total: usize,
    /// Steps done before this session (a resumed run).
    done_before: usize,
    began: Instant,
}

impl Progress {
    /// `total` steps of which `done_before` were done by an earlier session.
    pub fn start(console: &Console, total: usize, done_before: usize) -> Self {
        let bar = console.interactive().then(|| {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(total as u64), target);
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}");
            bar.set_style(
                style
                    .unwrap_or_else(|_| ProgressStyle::default_bar())
                    .progress_chars("=> "),
            );
            bar.set_position(done_before as u64);
            bar
        });
        console.set_bar(bar.clone());
        Self {
            console: console.clone(),
            bar,
            total,
            done_before,
            began: Instant::now(),
        }
    }

    /// Shows a finished step in the bar.
    pub fn step(&self, report: &StepReport) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  ETA {}", figures(report), self.eta(report)));
            bar.set_position(report.step as u64);
        }
    }

    /// A line for a row of metrics.csv, whose loss is that of all steps since the row before.
    pub fn row(&self, report: &StepReport) {
        let line = format!(
            "{}  epoch {:.2}  {}  ETA {}",
            self.count(report.step),
            report.epoch,
            figures(report),
            self.eta(report)
        );
        if self.bar.is_some() {
            self.console.log_only(&line);
        } else {
            self.console.line(&line);
        }
    }

    fn eta(&self, report: &StepReport) -> String {
        eta(
            self.began.elapsed(),
            report.step.saturating_sub(self.done_before),
            self.total.saturating_sub(report.step),
        )
    }

    /// Shows a validation loss.
    pub fn validation(&self, step: usize, loss: f64) {
        let line = format!("{}  validation loss {loss:.4}", self.count(step));
        self.console.line(&line);
    }

    fn count(&self, step: usize) -> String {
        let width = self.total.to_string().len();
        format!("step {step:>width$}/{}", self.total)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.console.set_bar(None);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn figures(report: &StepReport) -> String {
    format!(
        "loss {:.4}  lr {:.2e}  {:.0} tokens/s",
        report.loss, report.learning_rate, report.tokens_per_s
    )
}

/// The time left at the pace so far: `m:ss`, from an hour on `h:mm:ss`.
fn eta(elapsed: Duration, done: usize, left: usize) -> String {
    if done == 0 {
        return "-".to_string();
    }
    let seconds = (elapsed.as_secs_f64() / done as f64 * left as f64).round() as u64;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if h > 0 {
        format!("{h}:{m:02}:{s:02}")
    } else {
        format!("{m}:{s:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::console;
    use super::*;

    fn report(step: usize) -> StepReport {
        StepReport {
            step,
            epoch: step as f64 / 4.0,
            loss: 1.23456,
            learning_rate: 9.512e-5,
            tokens_per_s: 1834.4,
        }
    }

    #[test]
    fn a_pipe_gets_a_line_for_each_row() {
        let (console, out, _) = console(false);
        let progress = Progress::start(&console, 11, 0);
        for step in 1..=11 {
            progress.step(&report(step));
            if step % 5 == 0 || step == 11 {
                progress.row(&report(step));
            }
            if step == 5 {
                progress.validation(5, 0.5);
            }
        }
        let text = out.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(
            lines[0],
            "step  5/11  epoch 1.25  loss 1.2346  lr 9.51e-5  1834 tokens/s  ETA 0:00"
        );
        assert_eq!(lines[1], "step  5/11  validation loss 0.5000");
        assert!(lines[2].starts_with("step 10/11"));
        assert!(lines[3].starts_with("step 11/11"));
    }

    #[test]
    fn a_terminal_gets_a_bar_and_the_log_the_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.log");
        let (console, out, _) = console(true);
        console.attach(&path).unwrap();
        let progress = Progress::start(&console, 4, 2);
        progress.step(&report(3));
        progress.step(&report(4));
        progress.row(&report(4));
        progress.validation(4, 0.25);
        let bar = progress.bar.clone().unwrap();
        assert_eq!((bar.position(), bar.length()), (4, Some(4)));
        assert!(
            bar.message()
                .contains("loss 1.2346  lr 9.51e-5  1834 tokens/s  ETA 0:00")
        );
        drop(progress);
        assert!(bar.is_finished());
        assert_eq!(out.text(), "step 4/4  validation loss 0.2500\n");
        let log = std::fs::read_to_string(&path).unwrap();
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(
            log.starts_with("step 4/4  epoch 1.00  loss 1.2346"),
            "{log}"
        );
    }

    #[test]
    fn the_bar_template_is_valid() {
        assert!(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}").is_ok());
    }

    #[test]
    fn eta_follows_the_pace() {
        let minute = Duration::from_secs(60);
        assert_eq!(eta(minute, 0, 10), "-");
        assert_eq!(eta(minute, 10, 10), "1:00");
        assert_eq!(eta(minute, 1, 125), "2:05:00");
        assert_eq!(eta(minute, 10, 0), "0:00");
    }
}
