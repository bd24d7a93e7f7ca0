//! How long the sequences of a run are, and the batches that a config makes of
//! them.

use super::super::error::Error;
use super::super::ready::Ready;
use super::super::setup::QuestionFile;
use crate::config::types::{Config, TaskKind, TrainingConfig};
use crate::data::batch::Schedule;
use crate::data::pack::packs;
use crate::data::{Brief, Samples};
use crate::embed::EncoderSize;
use crate::evaluate::references;
use crate::plan::{Batch, Lengths, Similarity, Test, Workload};

/// The sequences of a run.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    train: Sequences,
    val: Sequences,
    /// Prompts of the test set.
    test: Option<Sequences>,
    /// Prompts that are answered at every validation.
    sampled: Option<Sequences>,
    /// What compares the answers with the references.
    encoder: Option<EncoderSize>,
    /// At most so many of its tokens the references of a file are together.
    references: u64,
    kind: TaskKind,
}

/// The sequences of one set.
#[derive(Clone, Debug)]
enum Sequences {
    Read(Vec<Lengths>),
    /// So many of one length: what is assumed takes no memory, whatever a config asks for.
    Alike(Lengths, usize),
}

impl Sequences {
    fn len(&self) -> usize {
        match self {
            Sequences::Read(all) => all.len(),
            Sequences::Alike(_, number) => *number,
        }
    }

    /// Cut to at most `longest` tokens each.
    fn within(&self, longest: usize) -> Sequences {
        match self {
            Sequences::Read(all) => {
                Sequences::Read(all.iter().map(|one| one.within(longest)).collect())
            }
            Sequences::Alike(one, number) => Sequences::Alike(one.within(longest), *number),
        }
    }

    /// See [`Batch::largest`].
    fn largest(&self, size: usize) -> Batch {
        match self {
            Sequences::Read(all) => Batch::largest(all, size),
            Sequences::Alike(one, number) => alike(*one, size.min(*number)),
        }
    }

    /// See [`Batch::of_any`].
    fn of_any(&self, size: usize) -> Batch {
        match self {
            Sequences::Read(all) => Batch::of_any(all, size),
            Sequences::Alike(one, number) => alike(*one, size.min(*number)),
        }
    }
}

/// One batch of `number` equal sequences.
fn alike(one: Lengths, number: usize) -> Batch {
    let sequences = number as u64;
    Batch {
        tokens: one.tokens * sequences,
        supervised: one.supervised * sequences,
        longest: one.tokens,
        sequences,
    }
}

/// An upper bound of the tokens of all references of a file: a piece of a word is at
/// least a byte, and two mark the ends.
fn reference_tokens(file: &QuestionFile, encoder: EncoderSize) -> u64 {
    let texts = file.examples.iter().flat_map(references);
    let longest = encoder.max_tokens;
    texts.map(|text| (text.len() + 2).min(longest) as u64).sum()
}

fn of_sample(sample: Brief) -> Lengths {
    Lengths {
        tokens: sample.tokens as u64,
        supervised: sample.supervised as u64,
    }
}

impl Sizes {
    /// Those of the data, as read.
    ///
    /// # Errors
    /// A test question that cannot be encoded.
    pub(super) fn of(ready: &Ready, config: &Config) -> Result<Sizes, Error> {
        let prompt = |tokens: usize| Lengths {
            tokens: tokens as u64,
            supervised: 0,
        };
        let prompts = |lengths: Option<Vec<usize>>| -> Option<Sequences> {
            lengths.map(|lengths| Sequences::Read(lengths.into_iter().map(prompt).collect()))
        };
        let test = ready.prompt_lengths(ready.test.as_ref(), config)?;
        let sampled = ready.prompt_lengths(ready.sampled.as_ref(), config)?;
        let encoder = ready.sas.as_ref().map(|sas| sas.size);
        let files = [&ready.test, &ready.sampled].into_iter().flatten();
        let references =
            encoder.and_then(|encoder| files.map(|file| reference_tokens(file, encoder)).max());
        Ok(Sizes {
            encoder,
            references: references.unwrap_or_default(),
            train: Sequences::Read(ready.train.briefs().map(of_sample).collect()),
            val: Sequences::Read(ready.val.briefs().map(of_sample).collect()),
            test: prompts(test),
            sampled: prompts(sampled),
            kind: config.task.kind,
        })
    }

    /// Without data: one step of sequences as long as the config allows, every token
    /// supervised.
    pub(super) fn assumed(config: &Config, encoder: Option<EncoderSize>) -> Sizes {
        let training = &config.training;
        let longest = Lengths {
            tokens: training.max_seq_length as u64,
            supervised: training.max_seq_length as u64,
        };
        let alike = |number: usize| Sequences::Alike(longest, number);
        let step = training.batch_size * training.gradient_accumulation_steps;
        let has_test = config.task.kind != TaskKind::Text;
        let answered = config.inference.batch_size;
        Sizes {
            encoder,
            references: 0,
            train: alike(step),
            val: alike(match training.val_ratio > 0.0 {
                true => training.batch_size,
                false => 0,
            }),
            test: has_test.then(|| alike(answered)),
            sampled: (training.eval_examples > 0)
                .then(|| alike(answered.min(training.eval_examples))),
            kind: config.task.kind,
        }
    }

    /// Tokens of all answers to a file as the encoder sees them, if its pieces of words
    /// are those of the model.
    fn answers(&self, encoder: EncoderSize, config: &Config) -> u64 {
        let files = [&self.test, &self.sampled].into_iter().flatten();
        let questions = files.map(Sequences::len).max().unwrap_or_default();
        let longest = (config.inference.max_new_tokens + 2).min(encoder.max_tokens);
        (questions * longest) as u64
    }

    pub(super) fn examples(&self) -> (usize, usize) {
        (self.train.len(), self.val.len())
    }

    /// The batches of `config`, which may ask for smaller or shorter ones than the
    /// config that the sequences were read with.
    ///
    /// # Errors
    /// A config that makes no schedule.
    pub(super) fn workload(&self, config: &Config) -> Result<Workload, Error> {
        let training = &config.training;
        let cut = |all: &Sequences| all.within(training.max_seq_length);
        let schedule = |examples: usize| {
            Schedule::new(
                examples,
                training.batch_size,
                training.gradient_accumulation_steps,
                training.epochs,
                training.max_steps,
            )
        };
        let mut workload = match cut(&self.train) {
            Sequences::Read(train) => {
                let tokens: Vec<usize> = train.iter().map(|l| l.tokens as usize).collect();
                let packs = packs(&tokens, training, config.seed);
                let schedule = schedule(packs.len())?;
                Workload::training(&train, &packs, schedule, config.seed, training.shuffle)
            }
            Sequences::Alike(one, number) => assumed(one, number, training, schedule(number)?),
        };
        // There is one at the end, however few steps there are.
        workload.checkpoints = training.save_steps > 0;
        workload.keeps_best = training.load_best_model_at_end;
        workload.validation =
            (self.val.len() > 0).then(|| cut(&self.val).largest(training.batch_size));
        let answered = |prompts: &Sequences| {
            let (prompts, inference) = (cut(prompts), &config.inference);
            match self.kind {
                TaskKind::Mcq => Test::Ranked(prompts.largest(inference.batch_size)),
                TaskKind::Saq | TaskKind::Text => {
                    let mut prompts = prompts.of_any(inference.batch_size);
                    prompts.sequences *= inference.num_beams as u64;
                    Test::Generated {
                        prompts,
                        capacity: prompts.longest + inference.max_new_tokens as u64,
                    }
                }
            }
        };
        workload.test = self.test.as_ref().map(answered);
        workload.sampled = self.sampled.as_ref().map(answered);
        workload.similarity = self.encoder.map(|encoder| Similarity {
            weights: encoder.weights,
            working: encoder.working(self.references.max(self.answers(encoder, config))),
        });
        Ok(workload)
    }
}

/// The training part of a run each of whose steps takes `number` equal sequences.
fn assumed(one: Lengths, number: usize, training: &TrainingConfig, schedule: Schedule) -> Workload {
    let steps = schedule.total_steps();
    let all = (number as u64).saturating_mul(steps as u64);
    Workload {
        train: alike(one, number.min(training.batch_size)),
        accumulates: number > training.batch_size,
        steps,
        tokens: one.tokens.saturating_mul(all),
        supervised: one.supervised.saturating_mul(all),
        squares: one.tokens.pow(2).saturating_mul(all),
        ..Workload::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is assumed is what the same sequences would give if they had been read.
    #[test]
    fn assumed_sequences_count_as_read_ones() {
        let mut config = crate::config::from_tree(&crate::compose::Node::empty_map()).unwrap();
        config.training.eval_examples = 5;
        for (kind, batch, accumulation, max_steps) in [
            (TaskKind::Mcq, 3, 2, None),
            (TaskKind::Saq, 1, 1, Some(7)),
            (TaskKind::Saq, 4, 5, None),
        ] {
            config.task.kind = kind;
            config.training.batch_size = batch;
            config.training.gradient_accumulation_steps = accumulation;
            config.training.max_steps = max_steps;
            let assumed = Sizes::assumed(&config, None);
            let each = |set: &Sequences| match set {
                Sequences::Alike(one, number) => Sequences::Read(vec![*one; *number]),
                Sequences::Read(_) => panic!("nothing was read"),
            };
            let read = Sizes {
                train: each(&assumed.train),
                val: each(&assumed.val),
                test: assumed.test.as_ref().map(each),
                sampled: assumed.sampled.as_ref().map(each),
                ..assumed.clone()
            };
            // As planned, and with what makes it fit.
            let mut less = config.clone();
            less.training.batch_size = batch.div_ceil(2);
            less.training.gradient_accumulation_steps =
                (batch * accumulation).div_ceil(batch.div_ceil(2));
            less.training.max_seq_length = 100;
            less.inference.batch_size = 3;
            for config in [&config, &less] {
                assert_eq!(
                    assumed.workload(config).unwrap(),
                    read.workload(config).unwrap()
                );
            }
        }
    }
}
