//! `run preview`: what training would see of a data set, without running it.

use std::fmt::Write;
use std::path::Path;

use super::error::Error;
use super::ready::{check_questions, skipped_rows, test_questions};
use super::setup::{ModelUse, Setup};
use crate::config::types::{Config, Method, TaskKind};
use crate::data::Encoder;
use crate::data::example::Example;
use crate::data::formats::{Examples, Want};
use crate::data::pack::packs;
use crate::data::shown::{self, Marks};
use crate::data::split::split;
use crate::data::{Answers, Sample, Samples, Store};
use crate::model::lora_modules::lora_modules;

/// Tokens are listed in lines of this many characters.
const WIDTH: usize = 96;

/// The text, and why training would refuse to begin, if it would.
pub struct Preview {
    pub text: String,
    pub refused: Option<Error>,
}

/// Shows the first `examples` examples of `data.path` as tokens and labels, and counts
/// over the whole set. Reads tokenizer and config.json of the model, no weights.
///
/// # Errors
/// The model directory or the file cannot be used.
pub fn preview(config: &Config, examples: usize, colour: bool) -> Result<Preview, Error> {
    // Tokens are the same on every device, so one that is not here is no hindrance.
    let mut here = config.clone();
    here.device = "cpu".to_string();
    (here.training.bf16, here.training.fp16) = (None, None);
    let setup = Setup::new(&here, ModelUse::Encode)?;
    let path = config.data.path.as_ref();
    let path = path.ok_or(Error::Missing("data.path", "data/train.csv"))?;
    let encoder = setup.encoder(config)?;
    let store = setup.tokenise(path, config, &encoder)?.store;
    let want = Want::new(config.task.kind, Answers::Required);
    let mut first: Vec<Example> = Examples::open(path, &config.data, want)?
        .take(examples)
        .collect::<Result<_, _>>()?;
    // Some may have been refused by the template.
    first.retain(|example| store.briefs().any(|sample| sample.row == example.row));
    let shown = Shown {
        config,
        setup: &setup,
        path,
        marks: match colour {
            true => Marks::COLOUR,
            false => Marks::PLAIN,
        },
    };
    let mut text = shown.first(&first, &store, &encoder)?;
    text += &shown.counts(&store);
    for row in skipped_rows(path, &store) {
        text += &format!("skipped {row}\n");
    }
    let largest = store.said.report.largest_id;
    let of_set: Option<Error> = match encoder.refuse_unsupervised(store.briefs(), path) {
        Err(error) => Some(error.into()),
        Ok(()) if store.said.examples == 0 => Some(crate::data::ScheduleError::NoSamples.into()),
        Ok(()) if largest as usize >= setup.arch.vocab_size => Some(Error::Vocabulary {
            path: path.clone(),
            id: largest,
            vocab: setup.arch.vocab_size,
        }),
        Ok(()) => None,
    };
    // A set is looked at before there are questions for afterwards.
    let mut without = config.clone();
    let test = without.data.test_path.take_if(|file| !file.exists());
    if let Some(file) = test.filter(|_| config.task.kind != TaskKind::Text) {
        let file = file.display();
        text += &format!(
            "test        {file} is not there: training asks for it, or for data.test_path=null\n"
        );
    }
    let refused = of_set.or_else(|| check_others(&without, &setup).err());
    Ok(Preview { text, refused })
}

/// What training needs beside the set and can be checked without weights.
///
/// # Errors
/// Test questions that cannot be asked, or no module of the model for a new adapter.
fn check_others(config: &Config, setup: &Setup) -> Result<(), Error> {
    let test = test_questions(config)?;
    let lora = &config.lora;
    if config.method == Method::Lora && lora.init_from.is_none() {
        lora_modules(lora, &setup.arch)?;
    }
    match test {
        Some(test) => check_questions(&test, setup, config, setup.arch.vocab_size),
        None => Ok(()),
    }
}

struct Shown<'a> {
    config: &'a Config,
    setup: &'a Setup,
    path: &'a Path,
    marks: Marks,
}

impl Shown<'_> {
    /// The samples of the first examples.
    fn first(
        &self,
        first: &[Example],
        store: &Store,
        encoder: &Encoder<'_>,
    ) -> Result<String, Error> {
        // The same samples uncut: their difference says where the cut was.
        let longest = store.said.report.longest_whole.max(2);
        let whole = encoder.with_length(longest).encode_all(first, self.path)?;
        let held_out = split(store, self.config.training.val_ratio, self.config.seed).val;
        let mut text = String::new();
        if !first.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}\n", self.marks.legend());
        }
        for (i, example) in first.iter().enumerate() {
            let of_row = (0..store.len()).filter(|&at| store.brief(at).row == example.row);
            let mut wholes = whole.samples.iter().filter(|s| s.row == example.row);
            for (n, at) in of_row.enumerate() {
                let sample = store.get(at);
                let part = match n {
                    0 => String::new(),
                    n => format!(", sample {}", n + 1),
                };
                let side = match held_out.contains(&at) {
                    true => "validation",
                    false => "training",
                };
                let _ = writeln!(
                    text,
                    "example {}{part} ({}:{}, {side}): {}",
                    i + 1,
                    self.path.display(),
                    sample.row,
                    shown::counts(&sample)
                );
                text += &self.sample(&sample, wholes.next())?;
            }
        }
        Ok(text)
    }

    fn sample(&self, sample: &Sample, whole: Option<&Sample>) -> Result<String, Error> {
        let cuts = match whole {
            Some(whole) => shown::cuts(sample, whole),
            None => Vec::new(),
        };
        let tokenizer = self.setup.tokenizer.as_ref();
        let mut text = String::new();
        if let Some(tokenizer) = tokenizer {
            for line in shown::text(sample, &cuts, tokenizer, &self.marks)?.lines() {
                let _ = writeln!(text, "  | {line}");
            }
        }
        for line in shown::tokens(sample, &cuts, tokenizer, &self.marks, WIDTH) {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
        Ok(text)
    }

    /// Figures of the whole set.
    fn counts(&self, store: &Store) -> String {
        let (report, t) = (&store.said.report, &self.config.training);
        let examples = store.said.examples;
        let mut lengths: Vec<usize> = store.briefs().map(|s| s.tokens).collect();
        let parts = split(store, t.val_ratio, self.config.seed);
        let trained: Vec<usize> = parts.train.iter().map(|&i| lengths[i]).collect();
        let packed = t
            .packing
            .then(|| packs(&trained, t, self.config.seed).len());
        lengths.sort_unstable();
        let with_sample: std::collections::HashSet<usize> = store.briefs().map(|s| s.row).collect();
        let dropped = examples.saturating_sub(with_sample.len());
        let cut: usize = store.briefs().map(|s| s.cut).sum();
        let share = |part: usize| 100.0 * part as f64 / report.tokens.max(1) as f64;
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<11} {value}");
        };
        row("examples", format!("{examples} in {}", self.path.display()));
        row(
            "samples",
            format!(
                "{}: {} for training, {} for validation",
                report.samples,
                parts.train.len(),
                parts.val.len()
            ),
        );
        row(
            "tokens",
            format!(
                "{}: min {}, median {}, mean {:.1}, max {} a sample",
                report.tokens,
                lengths.first().unwrap_or(&0),
                median(&lengths),
                report.tokens as f64 / report.samples.max(1) as f64,
                lengths.last().unwrap_or(&0)
            ),
        );
        row(
            "supervised",
            format!(
                "{} tokens ({:.1} %)",
                report.supervised_tokens,
                share(report.supervised_tokens)
            ),
        );
        row(
            "truncated",
            format!(
                "{} samples, {cut} tokens, by training.max_seq_length={} (longest: {})",
                report.truncated, t.max_seq_length, report.longest_whole
            ),
        );
        row("dropped", format!("{dropped} examples"));
        if let Some(packed) = packed {
            row(
                "packed",
                format!("{packed} sequences of at most {} tokens", t.max_seq_length),
            );
        }
        text
    }
}

/// The middle of a sorted list, or the mean of the two in the middle.
fn median(sorted: &[usize]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2] as f64,
        n => (sorted[n / 2 - 1] + sorted[n / 2]) as f64 / 2.0,
    }
}
