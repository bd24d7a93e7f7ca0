//! A forecast as text and as JSON.

use std::fmt::Write;

use serde_json::json;

use super::{Capacity, Forecast, Speed};
use crate::device::Asked;
use crate::device::memory_size;
use crate::plan::{Change, Place};

/// From this share of the memory on, a plan is tight: it may be off by so much.
const TIGHT: f64 = 0.9;

impl Forecast {
    /// Two lines for the log of a run: what was planned, and a warning where that is
    /// more than there is.
    pub fn lines_of_run(&self) -> Vec<String> {
        let planned = memory_size(self.memory.total);
        let mut lines = vec![match self.capacity {
            Some(capacity) => format!(
                "planned memory {planned} of {} available",
                memory_size(capacity.available_bytes)
            ),
            None => format!("planned memory {planned}"),
        }];
        if self.fits() == Some(false) {
            lines.push(match self.change(self.available()) {
                Some(change) => format!(
                    "warning: that is more than there is; it would fit with {} (planned {})",
                    change.overrides.join(" "),
                    memory_size(change.bytes)
                ),
                None => "warning: that is more than there is; take a smaller model".to_string(),
            });
        }
        lines
    }

    /// What `run plan` prints.
    pub(super) fn text(&self, change: Option<&Change>, speed: Option<&Speed>) -> String {
        let mut text = String::new();
        self.introduce(&mut text);
        self.table(&mut text);
        self.verdict(&mut text, change);
        self.effort(&mut text, speed);
        text
    }

    // Writing to a String cannot fail: the results of `writeln!` are let go.

    fn introduce(&self, text: &mut String) {
        let recipe = &self.recipe;
        let (all, trained) = (recipe.parameters(), recipe.trainable());
        let method = match (recipe.full, recipe.nf4) {
            (true, _) => "full fine-tuning",
            (false, Some(_)) => "QLoRA, NF4 base",
            (false, None) => "LoRA, dense base",
        };
        let recompute = match recipe.checkpointing {
            true => "layers computed again in the backward",
            false => "intermediate results of all layers kept",
        };
        let _ = writeln!(
            text,
            "model      {} parameters, {} of them train ({:.2} %)",
            thousands(all),
            thousands(trained),
            100.0 * trained as f64 / all.max(1) as f64
        );
        let _ = writeln!(text, "method     {method}, {recompute}");
        let batch = &self.workload.train;
        let sequences = match batch.sequences {
            1 => "1 sequence".to_string(),
            n => format!("{n} sequences"),
        };
        let _ = writeln!(
            text,
            "batch      up to {sequences} with {} tokens in all, the longest {}; {} tokens supervised",
            thousands(batch.tokens),
            thousands(batch.longest),
            thousands(batch.supervised)
        );
        match &self.assumed {
            Some(why) => {
                let _ = writeln!(
                    text,
                    "           assumed, as long as training.max_seq_length allows: {why}"
                );
            }
            None => {
                let (train, val) = self.sizes.examples();
                let _ = writeln!(
                    text,
                    "run        {} training and {} validation examples, {} steps, {} tokens",
                    thousands(train as u64),
                    thousands(val as u64),
                    thousands(self.workload.steps as u64),
                    thousands(self.workload.tokens)
                );
            }
        }
        let _ = writeln!(text, "device     {}", self.device);
    }

    fn table(&self, text: &mut String) {
        let memory = &self.memory;
        let _ = writeln!(text, "\nmemory in {}", memory.phase.label());
        let mut row = |name: &str, bytes: u64| {
            let share = 100.0 * bytes as f64 / memory.total.max(1) as f64;
            let _ = writeln!(
                text,
                "  {name:<38} {:>11} {share:>5.1} %",
                memory_size(bytes)
            );
        };
        for (part, bytes) in &memory.parts {
            row(part.label(), *bytes);
        }
        row("all", memory.total);
        let stages: Vec<String> = memory
            .phases
            .iter()
            .map(|(phase, bytes)| format!("{} {}", phase.label(), memory_size(*bytes)))
            .collect();
        let _ = writeln!(text, "at most, by stage: {}", stages.join(", "));
        if self.place == Place::Gpu {
            let _ = writeln!(
                text,
                "The forecast for a GPU has not been compared with a measured run yet."
            );
        }
    }

    fn verdict(&self, text: &mut String, change: Option<&Change>) {
        let Some(capacity) = self.capacity else {
            let _ = writeln!(text, "\nHow much memory there is, the system does not say.");
            return;
        };
        let of = of_capacity(capacity);
        let planned = memory_size(self.memory.total);
        let verdict = match (self.fits(), change) {
            (Some(false), Some(change)) => format!(
                "does not fit: {planned} of {of}. It would with\n  {}\n  (planned {})",
                change.overrides.join(" "),
                memory_size(change.bytes)
            ),
            (Some(false), None) => format!(
                "does not fit: {planned} of {of}, nor does it with smaller batches, shorter \
                 sequences and a thinner adapter: take a smaller model or a larger device"
            ),
            _ if self.memory.total as f64 > TIGHT * capacity.available_bytes as f64 => {
                format!("tight: {planned} of {of}")
            }
            _ => format!("fits: {planned} of {of}"),
        };
        let _ = writeln!(text, "\n{verdict}");
    }

    fn effort(&self, text: &mut String, speed: Option<&Speed>) {
        let work = &self.work;
        let _ = writeln!(
            text,
            "\nwork       {} a token, {} a step, {} in all steps",
            flops(work.per_token),
            flops(work.per_step),
            flops(work.total)
        );
        if let Some(speed) = speed {
            let _ = writeln!(
                text,
                "time       {} or more for the steps: an estimate from {}/s, which matrix products of \
                 this size reached here just now",
                duration(speed.seconds),
                flops(speed.flops_per_s)
            );
        }
    }

    /// The forecast for programs.
    pub(super) fn json(&self, change: Option<&Change>, speed: Option<&Speed>) -> String {
        let memory = &self.memory;
        let object = |pairs: Vec<(serde_json::Value, u64)>| -> serde_json::Value {
            let key = |name: &serde_json::Value| name.as_str().unwrap_or_default().to_string();
            let pairs = pairs.iter().map(|(name, bytes)| (key(name), json!(bytes)));
            serde_json::Value::Object(pairs.collect())
        };
        let parts = memory.parts.iter().map(|(part, n)| (json!(part), *n));
        let phases = memory.phases.iter().map(|(phase, n)| (json!(phase), *n));
        let batch = &self.workload.train;
        let value = json!({
            "device": self.device,
            "parameters": self.recipe.parameters(),
            "trainable_parameters": self.recipe.trainable(),
            "planned_memory_bytes": memory.total,
            "memory": object(parts.collect()),
            "peak_stage": memory.phase,
            "stages": object(phases.collect()),
            "capacity": self.capacity,
            "fits": self.fits(),
            "would_fit_with": change.map(|change| json!({
                "overrides": change.overrides,
                "planned_memory_bytes": change.bytes,
            })),
            "assumed_batches": self.assumed,
            "batch": {
                "sequences": batch.sequences,
                "tokens": batch.tokens,
                "longest": batch.longest,
                "supervised": batch.supervised,
            },
            // Of an assumed batch there is one step only.
            "steps": self.assumed.is_none().then_some(self.workload.steps),
            "tokens": self.assumed.is_none().then_some(self.workload.tokens),
            "flops": {
                "per_token": self.work.per_token,
                "per_step": self.work.per_step,
                "total": self.assumed.is_none().then_some(self.work.total),
            },
            "estimate": speed,
        });
        format!("{value:#}\n")
    }
}

/// What is told when a device has no memory left in training.
pub(super) fn exhausted(forecast: &Forecast, asked: Asked, change: Option<&Change>) -> String {
    let planned = memory_size(forecast.memory.total);
    let of = forecast.capacity.map(of_capacity);
    let of = of.map_or(String::new(), |of| format!(" of {of}"));
    let others = match forecast.fits() {
        Some(true) => "; other programs may hold memory as well (nvidia-smi)",
        _ => "",
    };
    let way_out = match change {
        Some(change) => format!(
            "run it with {} (planned {})",
            change.overrides.join(" "),
            memory_size(change.bytes)
        ),
        None => "take a smaller model or a larger device".to_string(),
    };
    let what = no_memory(&forecast.device, asked);
    format!("{what}; planned were {planned}{of}{others}; {way_out}")
}

/// And in work that nothing is planned for; `remedy` is what helps it besides another
/// model or device.
pub(super) fn no_room(device: &str, asked: Asked, remedy: Option<&str>) -> String {
    let what = no_memory(device, asked);
    let otherwise = "take a smaller model or a larger device";
    match remedy {
        Some(remedy) => format!("{what}; {remedy}, or {otherwise}"),
        None => format!("{what}; {otherwise}"),
    }
}

fn no_memory(device: &str, asked: Asked) -> String {
    let what = match asked.bytes {
        Some(bytes) => format!("{} more were asked for", memory_size(bytes)),
        None => "no more could be had".to_string(),
    };
    match asked.host {
        true => format!("out of main memory, page-locked for copies to {device}: {what}"),
        false => format!("out of memory on {device}: {what}"),
    }
}

fn of_capacity(capacity: Capacity) -> String {
    let (total, available) = (
        memory_size(capacity.total_bytes),
        memory_size(capacity.available_bytes),
    );
    match capacity.total_bytes == capacity.available_bytes {
        true => total,
        false => format!("{available} available ({total} in all)"),
    }
}

/// 1,234,567.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 12.3 GFLOP.
fn flops(n: f64) -> String {
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    let mut value = n;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}FLOP", UNITS[unit])
}

/// `0:12`, `2:05:00`.
fn duration(seconds: f64) -> String {
    let s = seconds.ceil().min(1e15) as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(flops(0.0), "0.0 FLOP");
        assert_eq!(flops(1234.0), "1.2 KFLOP");
        assert_eq!(flops(4.8e10), "48.0 GFLOP");
        assert_eq!(flops(1e21), "1000000.0 PFLOP");
        assert_eq!(duration(11.2), "0:12");
        assert_eq!(duration(7500.0), "2:05:00");
    }
}
