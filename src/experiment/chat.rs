//! `run chat`: a conversation, a line at a time.
//!
//! Where the model has a chat template, the conversation so far is the prompt; what is
//! longer than `training.max_seq_length` loses its oldest turns, whole, but never the
//! system message. Without a template each question stands alone in the task's prompt,
//! as in training. Everything random comes from the seed and the number of the turn.

use std::fs;
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde_json::Value;

use super::adapter::adapter_or_base;
use super::error::Error;
use super::forecast::{halved, watch_loading, watch_unplanned};
use super::fsx::{self, FsError};
use super::log::strip_escapes;
use super::setup::{ModelUse, QuestionFile, Setup};
use crate::config::types::{Config, TaskKind};
use crate::data::EncodeError;
use crate::data::Encoder;
use crate::data::chat::{ChatError, message};
use crate::data::example::Example;
use crate::evaluate::answer::certain;
use crate::evaluate::{AnswerError, Questions};
use crate::generate::sampling::Sampler;
use crate::generate::{Beams, GenerateOptions, Prompt, stream};
use crate::model::{Adaptation, Decoder};

/// What the command line says besides the config.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Leave the adapter out.
    pub base: bool,
    /// A person types, so show a prompt.
    pub person: bool,
}

/// Stands for a file in errors about what was typed.
const PLACE: &str = "chat";

const HELP: &str = "/reset begins anew, /system TEXT sets the system message, /exit or Ctrl-D ends; \
                    // begins a message with a slash";

/// Why a line got no answer; the conversation goes on.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Encode(#[from] EncodeError),
    #[error("{0} is no command: {HELP}")]
    Command(String),
    #[error("a system message needs a chat template, and this model has none")]
    NoSystem,
    #[error("this question needs its options: QUESTION | FIRST | SECOND | ...")]
    NoOptions,
    #[error(
        "this message alone takes {tokens} tokens and training.max_seq_length is {limit}: shorten \
         it, or chat with training.max_seq_length={tokens}"
    )]
    TooLong { tokens: usize, limit: usize },
    #[error(
        "token id {id} is outside the model's vocabulary of {vocab}: tokenizer.json belongs to \
         another model; copy it again from the model's page"
    )]
    Vocabulary { id: u32, vocab: usize },
    #[error("the prompt has no tokens: say something, or put {{question}} into prompt.template")]
    Empty,
}

/// Answers the lines of `input` until it ends.
///
/// # Errors
/// The model or the adapter cannot be used, or `output` not written.
pub fn chat(
    config: &Config,
    asked: Asked,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), Error> {
    let adapter = adapter_or_base(config, asked.base)?;
    if let Some(file) = &config.output {
        check_output(file)?;
    }
    let mut setup = Setup::new(config, ModelUse::Run)?;
    setup.take_template(adapter.as_deref());
    setup.check_answers(config)?;
    let device = setup.chosen.name.clone();
    let templated = setup.has_chat()?;
    if !templated && config.prompt.system.is_some() {
        let path = setup.model_dir.clone();
        return Err(EncodeError::NoChat(ChatError::None { path }.to_string()).into());
    }
    let file = QuestionFile {
        path: PLACE.into(),
        examples: Vec::new(),
        left_out: 0,
        skipped: Vec::new(),
    };
    let encoder = setup.encoder(config)?;
    let encoder = match templated {
        true => encoder.for_chat(),
        false => encoder,
    };
    let questions = file.with(&setup, &encoder, config)?;
    let adaptation = adapter
        .as_deref()
        .map_or(Adaptation::None, Adaptation::Adapter);
    let model = watch_loading(&device, config, || setup.load(config, adaptation))?;
    let mut session = Session {
        config,
        model,
        encoder: &encoder,
        questions: &questions,
        templated,
        adapter: adapter.is_some(),
        system: config.prompt.system.clone(),
        history: Vec::new(),
        past: Vec::new(),
        turn: 0,
        sampler: Sampler::new(&config.inference).map_err(AnswerError::from)?,
    };
    if asked.person {
        let with = match &adapter {
            Some(dir) => format!("adapter {}", dir.display()),
            None => "the base alone".to_string(),
        };
        let how = match templated {
            true => "",
            false => "\nno chat template: each question is asked alone, by the task's prompt",
        };
        for note in setup
            .generation_note
            .iter()
            .chain(&session.model.adapter_notes)
        {
            tell(note);
        }
        let model = setup.model_dir.display();
        tell(&format!("model {model}, {with}{how}\n{HELP}"));
    }
    // One message at a time, with all that was said before it.
    let shorter = halved(
        "keep less of the conversation",
        "training.max_seq_length",
        config.training.max_seq_length,
    );
    let ended = watch_unplanned(&device, shorter.as_deref(), || {
        session.talk(asked.person, input, output)
    });
    match ended {
        // Whoever read the answers went away.
        Err(Error::Fs(error)) if error.cause.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Finds out whether the conversations can be kept in `file`, before they are held.
fn check_output(file: &Path) -> Result<(), Error> {
    if file.is_dir() {
        return Err(Error::OutputIsDirectory(file.to_path_buf()));
    }
    if fs::metadata(file).is_ok_and(|there| there.file_type().is_fifo()) {
        let what = "a pipe, and the conversations are written anew after each answer";
        let cause = io::Error::new(ErrorKind::Unsupported, what);
        return Err(FsError::new("write", file, cause).into());
    }
    fsx::create_dir_all(fsx::parent_of(file))?;
    Ok(fsx::check_writable(file)?)
}

/// To the person, not among the answers. If that fails there is nobody to tell.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A conversation.
struct Session<'a> {
    config: &'a Config,
    model: Decoder,
    encoder: &'a Encoder<'a>,
    /// No questions, but what ends an answer.
    questions: &'a Questions<'a>,
    templated: bool,
    adapter: bool,
    system: Option<String>,
    /// Messages since the last /reset that still fit, without the system message.
    history: Vec<Value>,
    /// Conversations, each under one system message, for `output`; the last one goes on.
    past: Vec<Vec<Value>>,
    /// Turns since the last /reset.
    turn: u64,
    sampler: Sampler,
}

/// What a line asks for.
enum Line<'l> {
    Nothing,
    Exit,
    Reset,
    System(&'l str),
    Say(&'l str),
}

fn read(line: &str) -> Result<Line<'_>, Refusal> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    Ok(match word {
        "" => Line::Nothing,
        "/exit" | "/quit" => Line::Exit,
        "/reset" => Line::Reset,
        "/system" => Line::System(rest.trim()),
        _ if word.starts_with("//") => Line::Say(&line[1..]),
        _ if word.starts_with('/') => return Err(Refusal::Command(word.to_string())),
        _ => Line::Say(line),
    })
}

impl Session<'_> {
    fn talk(
        &mut self,
        person: bool,
        input: &mut dyn BufRead,
        output: &mut dyn Write,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        loop {
            if person {
                show(output, "> ")?;
            }
            bytes.clear();
            let read_in = input.read_until(b'\n', &mut bytes);
            if read_in.map_err(|e| FsError::new("read", "standard input", e))? == 0 {
                // The shell's prompt gets a line of its own.
                return if person { show(output, "\n") } else { Ok(()) };
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let refused = match read(&text) {
                Ok(Line::Nothing) => continue,
                Ok(Line::Exit) => return Ok(()),
                Ok(Line::Reset) => {
                    self.reset();
                    continue;
                }
                Ok(Line::System(_)) if !self.templated => Refusal::NoSystem,
                Ok(Line::System(text)) => {
                    self.instruct(text);
                    continue;
                }
                Ok(Line::Say(text)) => match self.prompt(text) {
                    Ok(ids) => {
                        self.answer(text, &ids, output)?;
                        continue;
                    }
                    Err(refused) => refused,
                },
                Err(refused) => refused,
            };
            tell(&refused.to_string());
        }
    }

    fn reset(&mut self) {
        self.history.clear();
        self.turn = 0;
        self.past.push(Vec::new());
    }

    /// Sets the system message, or with an empty text none. The model goes on with what
    /// was said; what is kept begins anew, since earlier answers had another message.
    fn instruct(&mut self, text: &str) {
        let system = (!text.is_empty()).then(|| text.to_string());
        if self.system != system {
            self.system = system;
            self.past.push(Vec::new());
        }
    }

    /// The tokens of a message with what was said before it. Turns that no longer fit
    /// are dropped for good.
    fn prompt(&mut self, text: &str) -> Result<Vec<u32>, Refusal> {
        let limit = self.questions.max_prompt;
        let ids = match self.templated {
            false => self.question(text, limit)?,
            true => {
                let mut dropped = 0;
                let ids = loop {
                    let ids = self.conversation(text, dropped)?;
                    if ids.len() <= limit {
                        break ids;
                    }
                    if dropped == self.history.len() {
                        let tokens = ids.len();
                        return Err(Refusal::TooLong { tokens, limit });
                    }
                    // A question and its answer.
                    dropped = (dropped + 2).min(self.history.len());
                };
                if dropped > 0 {
                    self.history.drain(..dropped);
                    tell(&format!(
                        "(the oldest {} turns no longer fit and are left out)",
                        dropped / 2
                    ));
                }
                ids
            }
        };
        let vocab = self.model.arch.vocab_size;
        match ids.iter().max() {
            None => Err(Refusal::Empty),
            Some(&id) if id as usize >= vocab => Err(Refusal::Vocabulary { id, vocab }),
            Some(_) => Ok(ids),
        }
    }

    fn conversation(&self, text: &str, dropped: usize) -> Result<Vec<u32>, Refusal> {
        let system = self.system.iter().map(|text| message("system", text));
        let kept = self.history[dropped..].iter().cloned();
        let messages: Vec<Value> = system.chain(kept).chain([message("user", text)]).collect();
        Ok(self.encoder.conversation_ids(&messages, Path::new(PLACE))?)
    }

    /// A question by itself in the task's prompt; for multiple choice with its options
    /// behind bars, as in data files.
    fn question(&self, text: &str, limit: usize) -> Result<Vec<u32>, Refusal> {
        let kind = self.config.task.kind;
        let mut parts = text.split('|').map(str::trim);
        let mut example = Example {
            row: self.turn as usize + 1,
            ..Example::default()
        };
        match kind {
            TaskKind::Mcq => {
                example.question = parts.next().map(str::to_string);
                example.options = parts.map(str::to_string).collect();
                if example.options.is_empty() {
                    return Err(Refusal::NoOptions);
                }
            }
            TaskKind::Saq => example.question = Some(text.to_string()),
            // There is no question in it: the model goes on with the text.
            TaskKind::Text => {
                let fail = |error| EncodeError::Tokenizer {
                    path: PLACE.into(),
                    row: example.row,
                    error,
                };
                let ids = self.questions.tokenizer.encode(text, true).map_err(fail)?;
                return match ids.len() > limit {
                    true => Err(Refusal::TooLong {
                        tokens: ids.len(),
                        limit,
                    }),
                    false => Ok(ids),
                };
            }
        }
        let whole = self
            .encoder
            .prompt_ids(&example, Path::new(PLACE), usize::MAX)?;
        match whole.len() > limit {
            true => Err(Refusal::TooLong {
                tokens: whole.len(),
                limit,
            }),
            false => Ok(whole),
        }
    }

    /// Generates an answer onto the terminal and into the history.
    fn answer(&mut self, text: &str, ids: &[u32], output: &mut dyn Write) -> Result<(), Error> {
        let (inference, questions) = (&self.config.inference, self.questions);
        let options = GenerateOptions {
            max_new_tokens: inference.max_new_tokens,
            sampler: self.sampler,
            beams: Beams::new(inference),
            eos_ids: self.encoder.stop_ids(),
            seed: self.config.seed,
            adapter: self.adapter,
            slots: 1,
        };
        let key = [self.turn, 0];
        let stop = |ids: &[u32]| questions.stops(ids, inference);
        let mut shown = String::new();
        let mut written = Ok(());
        let outputs = stream(
            &mut self.model,
            &[Prompt { ids, key }],
            &options,
            &stop,
            &mut |progress| {
                // An answer that cannot be decoded is an error below.
                let all = questions
                    .finish(progress.tokens, inference)
                    .unwrap_or_default();
                let sure = match progress.done {
                    true => &all[..],
                    false => certain(&all, inference),
                };
                let sure = strip_escapes(sure);
                let more = match sure.strip_prefix(&shown) {
                    Some(more) => more.to_string(),
                    // A later token changed how an earlier one reads.
                    None => format!("\n{sure}"),
                };
                if written.is_ok() && !more.is_empty() {
                    written = show(output, &more);
                    shown = sure;
                }
            },
        )
        .map_err(AnswerError::from)?;
        written?;
        show(output, "\n")?;
        let answer = questions.finish(outputs.first().map_or(&[][..], |ids| ids), inference)?;
        self.turn += 1;
        let turn = [message("user", text), message("assistant", &answer)];
        if self.templated {
            self.history.extend(turn.iter().cloned());
        }
        self.keep(turn)
    }

    /// Writes all conversations to `output`, one JSON object a line.
    fn keep(&mut self, turn: [Value; 2]) -> Result<(), Error> {
        let Some(path) = &self.config.output else {
            return Ok(());
        };
        if self.past.is_empty() {
            self.past.push(Vec::new());
        }
        if let Some(last) = self.past.last_mut() {
            if last.is_empty() {
                last.extend(self.system.iter().map(|text| message("system", text)));
            }
            last.extend(turn);
        }
        let held = self.past.iter().filter(|messages| !messages.is_empty());
        let lines: String = held
            .map(|messages| format!("{}\n", serde_json::json!({ "messages": messages })))
            .collect();
        fsx::create_dir_all(fsx::parent_of(path))?;
        Ok(fsx::write(path, lines.as_bytes())?)
    }
}

fn show(output: &mut dyn Write, text: &str) -> Result<(), Error> {
    let written = output.write_all(text.as_bytes());
    let written = written.and_then(|()| output.flush());
    Ok(written.map_err(|e| FsError::new("write", "standard output", e))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_begin_with_a_slash() {
        assert!(matches!(read("  \n"), Ok(Line::Nothing)));
        assert!(matches!(read("/exit\n"), Ok(Line::Exit)));
        assert!(matches!(read(" /reset "), Ok(Line::Reset)));
        assert!(matches!(
            read("/system\tBe brief. \n"),
            Ok(Line::System("Be brief."))
        ));
        assert!(matches!(read("/system"), Ok(Line::System(""))));
        assert!(matches!(
            read("//etc is a path"),
            Ok(Line::Say("/etc is a path"))
        ));
        assert!(matches!(read("hi /exit"), Ok(Line::Say("hi /exit"))));
        let refused = read("/fly away").err().map(|error| error.to_string());
        assert!(
            refused
                .unwrap_or_default()
                .starts_with("/fly is no command: /reset")
        );
    }
}
