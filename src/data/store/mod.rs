//! Encoded samples in a compact form: in memory, or in a file that is mapped and of
//! which memory holds what was read last.
//!
//! A file is the mark, the samples' tokens and labels as words of 32 bits, an entry of
//! 32 bytes a sample, what encoding said as JSON, and a footer with the lengths and the
//! SHA-256 of all that. Everything is little-endian. Labels are runs: most are either
//! masked or the token itself.

mod file;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::encode_report::EncodeReport;
use super::sample::{Brief, IGNORED, Sample};
pub(super) use file::{Damage, MARK, Writer, map, open};

/// Bytes of a sample's entry: where its words begin (8), its row (8), and as 4 bytes
/// each the number of its words, of its tokens, of supervised ones and of those cut.
const ENTRY: usize = 32;

/// Samples that can be counted and fetched one by one.
pub trait Samples {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Figures of sample `index`, without reading it.
    fn brief(&self, index: usize) -> Brief;

    fn get(&self, index: usize) -> Cow<'_, Sample>;

    /// Figures of every sample.
    fn briefs(&self) -> impl Iterator<Item = Brief>
    where
        Self: Sized,
    {
        (0..self.len()).map(|i| self.brief(i))
    }
}

impl Samples for &[Sample] {
    fn len(&self) -> usize {
        <[Sample]>::len(self)
    }

    fn brief(&self, index: usize) -> Brief {
        Brief::of(&self[index])
    }

    fn get(&self, index: usize) -> Cow<'_, Sample> {
        Cow::Borrowed(&self[index])
    }
}

impl Samples for Vec<Sample> {
    fn len(&self) -> usize {
        <[Sample]>::len(self)
    }

    fn brief(&self, index: usize) -> Brief {
        Brief::of(&self[index])
    }

    fn get(&self, index: usize) -> Cow<'_, Sample> {
        Cow::Borrowed(&self[index])
    }
}

/// What encoding a file said besides the samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Examples that were read.
    pub examples: usize,
    pub report: EncodeReport,
    /// What was wrong with each row that was left out, after the file's name.
    pub skipped: Vec<String>,
}

/// All samples of a file of data.
#[derive(Debug)]
pub struct Store {
    bytes: Backing,
    /// Where the entries begin, and their number.
    entries: usize,
    count: usize,
    pub said: Said,
}

#[derive(Debug)]
enum Backing {
    Memory(Vec<u8>),
    File(Mmap),
}

impl Backing {
    fn bytes(&self) -> &[u8] {
        match self {
            Backing::Memory(bytes) => bytes,
            Backing::File(map) => map,
        }
    }
}

/// The number at `at`; 0 beyond the end, which a checked file does not name.
fn number(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> usize {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u64::from_le_bytes(*word)) as usize
}

impl Samples for Store {
    fn len(&self) -> usize {
        self.count
    }

    fn brief(&self, index: usize) -> Brief {
        let bytes = self.bytes.bytes();
        let at = self.entries + index * ENTRY;
        Brief {
            row: long(bytes, at + 8),
            tokens: number(bytes, at + 20) as usize,
            supervised: number(bytes, at + 24) as usize,
            cut: number(bytes, at + 28) as usize,
        }
    }

    fn get(&self, index: usize) -> Cow<'_, Sample> {
        let brief = self.brief(index);
        let bytes = self.bytes.bytes();
        let at = self.entries + index * ENTRY;
        let from = long(bytes, at);
        let words = number(bytes, at + 16) as usize;
        let mut all = (0..words).map(|i| number(bytes, from + 4 * i));
        let input_ids: Vec<u32> = all.by_ref().take(brief.tokens).collect();
        let mut labels = Vec::with_capacity(input_ids.len());
        while labels.len() < input_ids.len() {
            let Some(run) = all.next() else { break };
            let end = (labels.len() + (run >> 2) as usize).min(input_ids.len());
            let own = labels.len()..end;
            match run & 3 {
                MASKED => labels.resize(end, IGNORED),
                SAME => labels.extend(input_ids[own].iter().map(|&id| i64::from(id))),
                _ => labels.extend(all.by_ref().take(own.len()).map(i64::from)),
            }
        }
        Cow::Owned(Sample {
            row: brief.row,
            input_ids,
            labels,
            cut: brief.cut,
        })
    }
}

/// Kinds of a run of labels, in the lowest two bits of its word; its length is in the
/// others.
const MASKED: u32 = 0;
const SAME: u32 = 1;
/// The labels follow, a word each.
const OTHER: u32 = 2;

/// The words of a sample.
fn pack(sample: &Sample, words: &mut Vec<u32>) {
    words.clear();
    words.extend(&sample.input_ids);
    let kind = |(&id, &label): (&u32, &i64)| match label {
        IGNORED => MASKED,
        label if label == i64::from(id) => SAME,
        _ => OTHER,
    };
    let kinds: Vec<u32> = sample
        .input_ids
        .iter()
        .zip(&sample.labels)
        .map(kind)
        .collect();
    let mut labels = &sample.labels[..];
    for run in kinds.chunk_by(|a, b| a == b) {
        words.push((run.len() as u32) << 2 | run[0]);
        let (own, rest) = labels.split_at(run.len());
        if run[0] == OTHER {
            // A label that is not masked is the id of a token.
            words.extend(own.iter().map(|&label| label as u32));
        }
        labels = rest;
    }
}

/// Some of the samples of a store, in an order of their own.
#[derive(Clone, Debug)]
pub struct Part {
    pub store: Arc<Store>,
    pub of: Vec<usize>,
}

impl Samples for Part {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn brief(&self, index: usize) -> Brief {
        self.store.brief(self.of[index])
    }

    fn get(&self, index: usize) -> Cow<'_, Sample> {
        self.store.get(self.of[index])
    }
}
