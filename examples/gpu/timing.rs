//! Times an operation on the device beside the time that its bytes and its
//! arithmetic need at the card's own limits.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use burn::tensor::Device;
use kiln::experiment::crash;
use serde_json::{Value, json};

/// Bytes a second and operations a second that an H200 was measured to reach (a
/// device-to-device copy, a large bf16 product on random numbers). The flags
/// `--bandwidth` and `--rate` take those of the card at hand.
pub const BYTES_PER_S: f64 = 4.0e12;
pub const FLOP_PER_S: f64 = 790.0e12;

/// One measurement is a run of launches that takes about so long.
const RUN_S: f64 = 0.02;
const MOST_LAUNCHES: usize = 200;
/// The median of so many is told.
const RUNS: usize = 5;
/// Launches before the first: kernels are compiled and chosen in these.
const WARMUP: usize = 3;

/// What an operation cannot do without, and how often a training step calls it.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Read once and written once.
    pub bytes: f64,
    /// Of matrix products.
    pub flops: f64,
    pub calls: usize,
}

/// One line of the table.
pub struct Row {
    pub op: String,
    pub shape: String,
    pub cost: Cost,
    /// Seconds a call, or why there are none.
    pub seconds: Result<f64, String>,
    pub floor: f64,
}

impl Row {
    pub fn json(&self) -> Value {
        let seconds = self.seconds.as_ref().ok();
        json!({
            "op": self.op,
            "shape": self.shape,
            "ms": seconds.map(|s| s * 1e3),
            "floor_ms": self.floor * 1e3,
            "ratio": seconds.map(|s| s / self.floor),
            "calls_per_step": self.cost.calls,
            "bytes": self.cost.bytes,
            "flops": self.cost.flops,
            "failure": self.seconds.as_ref().err(),
        })
    }

    pub fn cells(&self) -> Vec<String> {
        let (ms, ratio) = match &self.seconds {
            Ok(s) => (format!("{:.4}", s * 1e3), format!("{:.2}", s / self.floor)),
            Err(_) => ("failed".to_string(), "-".to_string()),
        };
        vec![
            self.op.clone(),
            self.shape.clone(),
            ms,
            format!("{:.4}", self.floor * 1e3),
            ratio,
            self.cost.calls.to_string(),
        ]
    }
}

/// Collects the rows.
pub struct Timer {
    pub device: Device,
    pub bytes_per_s: f64,
    pub flop_per_s: f64,
    pub rows: Vec<Row>,
    /// Gets every row as a JSON line at once: a run may be cut short.
    pub sink: Option<File>,
}

impl Timer {
    /// Times `call`, which gets the number of the launch to choose its inputs by.
    pub fn time(&mut self, op: &str, shape: String, cost: Cost, call: impl FnMut(usize)) {
        let device = &self.device;
        // One operation that fails does not take the others' figures with it.
        let seconds = crash::catch(|| measure(device, call)).and_then(|outcome| outcome);
        if let Err(why) = &seconds {
            eprintln!("{op} {shape}: {why}");
        }
        let row = Row {
            op: op.to_string(),
            shape,
            cost,
            seconds,
            floor: (cost.bytes / self.bytes_per_s).max(cost.flops / self.flop_per_s),
        };
        if let Some(file) = &mut self.sink
            && let Err(error) = writeln!(file, "{}", row.json())
        {
            eprintln!("--json: {error}");
            self.sink = None;
        }
        self.rows.push(row);
    }
}

fn measure(device: &Device, mut call: impl FnMut(usize)) -> Result<f64, String> {
    let sync = || device.sync().map_err(|e| format!("{e:?}"));
    let mut launch = 0;
    let mut run = |launches: usize| -> Result<f64, String> {
        sync()?;
        let began = Instant::now();
        for _ in 0..launches {
            call(launch);
            launch += 1;
        }
        sync()?;
        Ok(began.elapsed().as_secs_f64() / launches as f64)
    };
    run(WARMUP)?;
    let once = run(2)?;
    let launches = ((RUN_S / once.max(1e-9)) as usize).clamp(1, MOST_LAUNCHES);
    let times: Result<Vec<f64>, String> = (0..RUNS).map(|_| run(launches)).collect();
    Ok(median(&times?))
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Between the two values nearest to `q` of the way through the sorted ones.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
