//! metrics.csv: one row an event, written as it happens.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;
use thiserror::Error;

use super::fsx::{self, FsError};
use crate::device;

/// The columns, in order.
pub const COLUMNS: [&str; 10] = [
    "step",
    "epoch",
    "split",
    "loss",
    "learning_rate",
    "grad_norm",
    "supervised_tokens",
    "tokens_per_s",
    "peak_memory_bytes",
    "elapsed_s",
];

/// A metrics file that cannot be read or written.
#[derive(Debug, Error)]
pub enum MetricsError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("{}:{line}: {what}; restore the file or start a new run", .path.display())]
    Format {
        path: PathBuf,
        line: usize,
        what: String,
    },
}

/// Which examples a loss was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Val,
}

impl Split {
    /// As metrics.csv writes it.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
        }
    }
}

/// One row. None is written as a blank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MetricRow {
    /// Optimiser steps done, from 1 (0: before training).
    pub step: usize,
    /// Epochs done, a fraction within an epoch.
    pub epoch: f64,
    pub split: Split,
    /// Mean over the supervised tokens, in nats.
    pub loss: f64,
    pub learning_rate: Option<f64>,
    /// L2 norm over all trained parameters, before clipping.
    pub grad_norm: Option<f64>,
    /// Supervised tokens the loss is the mean of.
    pub supervised_tokens: Option<u64>,
    /// Non-padding tokens a second since the row before.
    pub tokens_per_s: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    /// Seconds of work since the run began, resumed sessions added up.
    pub elapsed_s: f64,
}

impl MetricRow {
    /// The row as CSV with a newline. Floats are the shortest text that reads
    /// back to the same bits.
    fn to_csv(self) -> String {
        fn blank<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
            value.map(text).unwrap_or_default()
        }
        let float = |v: f64| format!("{v:?}");
        let count = |v: u64| v.to_string();
        let fields = [
            self.step.to_string(),
            float(self.epoch),
            self.split.name().to_string(),
            float(self.loss),
            blank(self.learning_rate, float),
            blank(self.grad_norm, float),
            blank(self.supervised_tokens, count),
            blank(self.tokens_per_s, float),
            blank(self.peak_memory_bytes, count),
            float(self.elapsed_s),
        ];
        fields.join(",") + "\n"
    }

    fn from_csv(record: &csv::StringRecord) -> Result<Self, String> {
        let field = |i: usize| record.get(i).unwrap_or_default();
        let wrong = |i: usize, kind: &str| {
            let (name, text) = (COLUMNS[i], field(i));
            format!("column {name} holds \"{text}\", which is not {kind}")
        };
        let float = |i: usize| field(i).parse::<f64>().map_err(|_| wrong(i, "a number"));
        let count = |i: usize| field(i).parse::<u64>().map_err(|_| wrong(i, "a count"));
        let filled = |i: usize| (!field(i).is_empty()).then_some(i);
        Ok(Self {
            step: field(0).parse().map_err(|_| wrong(0, "a count"))?,
            epoch: float(1)?,
            split: match field(2) {
                "train" => Split::Train,
                "val" => Split::Val,
                _ => return Err(wrong(2, "train or val")),
            },
            loss: float(3)?,
            learning_rate: filled(4).map(float).transpose()?,
            grad_norm: filled(5).map(float).transpose()?,
            supervised_tokens: filled(6).map(count).transpose()?,
            tokens_per_s: filled(7).map(float).transpose()?,
            peak_memory_bytes: filled(8).map(count).transpose()?,
            elapsed_s: float(9)?,
        })
    }
}

/// Appends rows to metrics.csv; each is in the file when `write` returns.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Starts a new file with the header.
    pub fn create(path: &Path) -> Result<Self, MetricsError> {
        fsx::write(path, header().as_bytes())?;
        Self::append(path)
    }

    /// Goes on after `step`: rows of later steps and a torn last line are cut
    /// off, so that the file becomes that of an uninterrupted run. Returns the
    /// last kept row too. A missing file is started afresh.
    ///
    /// All events of a step must be written before its checkpoint is saved:
    /// what comes after the save is neither kept nor done again.
    pub fn resume(path: &Path, step: usize) -> Result<(Self, Option<MetricRow>), MetricsError> {
        if !path.exists() {
            return Ok((Self::create(path)?, None));
        }
        let mut kept = header();
        let mut last = None;
        for row in read(path)?.into_iter().filter(|row| row.step <= step) {
            kept.push_str(&row.to_csv());
            last = Some(row);
        }
        fsx::write(path, kept.as_bytes())?;
        Ok((Self::append(path)?, last))
    }

    /// Writes one row, in one system call, so that a kill tears at most the last line.
    pub fn write(&mut self, row: &MetricRow) -> Result<(), MetricsError> {
        let written = self.file.write_all(row.to_csv().as_bytes());
        Ok(written.map_err(|e| self.failed(e))?)
    }

    /// Makes the rows so far last through a power cut; call it before a
    /// checkpoint that counts on them.
    pub fn sync(&self) -> Result<(), MetricsError> {
        Ok(self.file.sync_data().map_err(|e| self.failed(e))?)
    }

    fn append(path: &Path) -> Result<Self, MetricsError> {
        let file = File::options()
            .append(true)
            .open(path)
            .map_err(|e| FsError::new("write", path, e))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    fn failed(&self, cause: io::Error) -> FsError {
        FsError::new("write", &self.path, cause)
    }
}

fn header() -> String {
    COLUMNS.join(",") + "\n"
}

/// Reads the rows of a metrics.csv. A last line without its newline was torn
/// by a kill and is left out.
pub fn read(path: &Path) -> Result<Vec<MetricRow>, MetricsError> {
    let text = fsx::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let wrong = |line: usize, what: String| MetricsError::Format {
        path: path.to_path_buf(),
        line,
        what,
    };
    let mut records = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(whole.as_bytes())
        .into_records()
        .enumerate();
    match records.next() {
        Some((_, Ok(first))) if first.iter().eq(COLUMNS) => {}
        _ => {
            let what = format!("the header is not \"{}\"", COLUMNS.join(","));
            return Err(wrong(1, what));
        }
    }
    records
        .map(|(i, record)| {
            let record = record.map_err(|e| wrong(i + 1, e.to_string()))?;
            MetricRow::from_csv(&record).map_err(|what| wrong(i + 1, what))
        })
        .collect()
}

/// The most memory that the run has taken, in bytes: on a GPU what the allocator
/// has taken of it, which it keeps; on the CPU what the process has held.
pub fn peak_memory(device: &Device) -> Option<u64> {
    device::reserved(device).or_else(peak_memory_bytes)
}

/// The most memory this process has held so far, in bytes (resident set).
/// None where the system does not say.
pub fn peak_memory_bytes() -> Option<u64> {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| high_water_mark(&status))
        .or_else(max_rss)
}

/// The memory this process holds now, in bytes (resident set). None where the
/// system does not say.
pub fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, "VmRSS:")
}

/// Lets [`peak_memory_bytes`] begin anew at what the process holds now. Only
/// Linux knows how (proc_pid_clear_refs(5)); elsewhere the mark stays.
pub fn reset_peak_memory() {
    // Without the right to, the figure is that of the whole process, as before.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// `VmHWM:   123 kB` in /proc/self/status, in bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    kibibytes(status, "VmHWM:")
}

fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn max_rss() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the buffer is of the right type and getrusage fills it on success.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    // macOS counts bytes, the others kibibytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: usize, loss: f64) -> MetricRow {
        MetricRow {
            step,
            epoch: step as f64 / 3.0,
            split: Split::Train,
            loss,
            learning_rate: Some(1e-4),
            grad_norm: Some(0.1 + 0.2),
            supervised_tokens: Some(17),
            tokens_per_s: Some(1234.5),
            peak_memory_bytes: Some(1 << 40),
            elapsed_s: step as f64,
        }
    }

    fn val(step: usize, loss: f64) -> MetricRow {
        MetricRow {
            split: Split::Val,
            learning_rate: None,
            grad_norm: None,
            tokens_per_s: None,
            peak_memory_bytes: None,
            ..train(step, loss)
        }
    }

    #[test]
    fn rows_are_the_contracts_columns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let mut writer = MetricsWriter::create(&path).unwrap();
        writer.write(&train(1, 1e-7)).unwrap();
        // In the file at once, without closing it.
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "step,epoch,split,loss,learning_rate,grad_norm,supervised_tokens,tokens_per_s,\
             peak_memory_bytes,elapsed_s\n\
             1,0.3333333333333333,train,1e-7,0.0001,0.30000000000000004,17,1234.5,1099511627776,1.0\n"
        );
        writer.write(&val(2, 2.0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("2,0.6666666666666666,val,2.0,,,17,,,2.0\n"));
        assert_eq!(read(&path).unwrap(), [train(1, 1e-7), val(2, 2.0)]);
    }

    #[test]
    fn hard_floats_survive() {
        for loss in [
            f64::MIN_POSITIVE,
            f64::MAX,
            5e-324,
            1.0 / 3.0,
            f64::INFINITY,
        ] {
            let text = train(1, loss).to_csv();
            let record = csv::StringRecord::from(text.trim_end().split(',').collect::<Vec<_>>());
            assert_eq!(
                MetricRow::from_csv(&record).unwrap().loss.to_bits(),
                loss.to_bits()
            );
        }
    }

    #[test]
    fn a_resumed_file_equals_the_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, killed) = (dir.path().join("a.csv"), dir.path().join("b.csv"));
        let rows = [
            train(1, 3.0),
            train(2, 2.0),
            val(2, 2.5),
            train(3, 1.5),
            val(4, 1.25),
        ];
        let mut writer = MetricsWriter::create(&whole).unwrap();
        for row in &rows {
            writer.write(row).unwrap();
        }
        // Killed while the last row was being written, after a checkpoint at step 2.
        let text = std::fs::read_to_string(&whole).unwrap();
        std::fs::write(&killed, &text[..text.len() - 3]).unwrap();
        let (mut writer, last) = MetricsWriter::resume(&killed, 2).unwrap();
        assert_eq!(last, Some(val(2, 2.5)));
        for row in &rows[3..] {
            writer.write(row).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&killed).unwrap(), text);
    }

    #[test]
    fn resuming_without_a_file_starts_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let (_, last) = MetricsWriter::resume(&path, 5).unwrap();
        assert_eq!(last, None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), header());
    }

    #[test]
    fn damage_is_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let message = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).unwrap_err().to_string()
        };
        assert!(message("a,b\n1,2\n").contains("metrics.csv:1: the header is not"));
        assert!(message("").contains("metrics.csv:1: the header is not"));
        let bad = header() + "1,0.5,test,1.0,,,,,,1.0\n";
        assert!(message(&bad).contains("metrics.csv:2: column split holds \"test\""));
        let bad = header() + &train(1, 1.0).to_csv() + "2,0.5\n";
        assert!(
            message(&bad).contains("metrics.csv:3: "),
            "{}",
            message(&bad)
        );
    }

    #[test]
    fn a_full_device_is_an_error() {
        let Ok(file) = File::options().write(true).open("/dev/full") else {
            println!("skipped: this system has no /dev/full");
            return;
        };
        let path = PathBuf::from("/dev/full");
        let mut writer = MetricsWriter { path, file };
        let text = writer.write(&train(1, 1.0)).unwrap_err().to_string();
        assert!(text.contains("no space left on the device"), "{text}");
    }

    #[test]
    fn peak_memory_is_plausible() {
        assert_eq!(
            high_water_mark("VmPeak: 1 kB\nVmHWM:\t   2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(high_water_mark("VmPeak: 1 kB\n"), None);
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_memory_bytes().unwrap();
        drop(block);
        assert!(after > 64 << 20, "{after}");
        assert!(max_rss().unwrap() > 64 << 20);
        reset_peak_memory();
        assert!(peak_memory_bytes().unwrap() > 0);
    }
}
