//! Tokens and labels of what the chat template writes.
//!
//! The template's text is tokenised as it stands: BOS is there where the template
//! writes one, and never twice. Supervised are the tokens of assistant turns, each
//! with the token that ends it; where a template ends turns without one, EOS follows
//! the last. A question becomes a conversation of one turn, and the same text stands
//! before the answer in training and in generation.

use std::path::Path;

use serde_json::Value;

use super::chat::{self, ChatError, ChatTemplate, Conversation, Frame, Piece, message, role};
use super::encode::{Encoder, Parts, head, join};
use super::encode_error::{EncodeError, prompt_error, tokenizer_error};
use super::example::Example;
use super::sample::{IGNORED, Sample};
use super::tokenizer::{Tokenizer, TokenizerError};

impl Encoder<'_> {
    /// Every token that ends generation: the model's own, and with
    /// `prompt.chat_template` the one that ends a turn.
    pub fn stop_ids(&self) -> Vec<u32> {
        let Some(tokenizer) = self.tokenizer else {
            return Vec::new();
        };
        let mut ids = tokenizer.eos_ids().to_vec();
        if let (true, Ok(template)) = (self.asks_by_chat, &self.chat)
            && let Ok(frame) = chat::frame(template, &[message("user", "a")], &Value::Null)
            && let Some(id) = tokenizer.mark_at(frame.end.trim_start())
            && !ids.contains(&id)
        {
            ids.push(id);
        }
        ids
    }

    /// The tokens of a conversation up to where the assistant speaks next, as training
    /// saw them. `path` is for errors, whose row is the number of the message.
    ///
    /// # Errors
    /// There is no template or no tokenizer, or the template refuses the messages.
    pub fn conversation_ids(
        &self,
        messages: &[Value],
        path: &Path,
    ) -> Result<Vec<u32>, EncodeError> {
        let example = Example {
            row: messages.len(),
            ..Example::default()
        };
        let tokenizer = self.tokenizer(&example, path)?;
        let frame = self.framed(messages).map_err(|e| e.at(&example, path))?;
        tokenizer
            .encode(&frame.prompt, false)
            .map_err(|e| tokenizer_error(e, &example, path))
    }

    fn template(&self) -> Result<&ChatTemplate, EncodeError> {
        match &self.chat {
            Ok(template) => Ok(template),
            Err(why) => Err(EncodeError::NoChat(why.clone())),
        }
    }

    /// The system message, where there is one, and the question.
    fn question(&self, example: &Example, path: &Path) -> Result<Vec<Value>, EncodeError> {
        let text = self
            .prompter
            .prompt(example)
            .map_err(|e| prompt_error(e, example, path))?;
        let system = self.system.iter().map(|s| message("system", s));
        Ok(system.chain([message("user", text.trim())]).collect())
    }

    fn framed(&self, messages: &[Value]) -> Result<Frame, EncodeErrorKind> {
        let template = self.template().map_err(EncodeErrorKind::Whole)?;
        chat::frame(template, messages, &Value::Null).map_err(EncodeErrorKind::Chat)
    }

    /// The tokens of a question up to where the answer begins, and how many of them
    /// stand before the question itself, for a prompt longer than `limit`.
    pub(super) fn chat_prompt(
        &self,
        example: &Example,
        tokenizer: &Tokenizer,
        path: &Path,
        limit: usize,
    ) -> Result<(Vec<u32>, usize), EncodeError> {
        let messages = self.question(example, path)?;
        let frame = self.framed(&messages).map_err(|e| e.at(example, path))?;
        let ids = tokenizer
            .encode(&frame.prompt, false)
            .map_err(|e| tokenizer_error(e, example, path))?;
        let head = match ids.len() > limit {
            true => self
                .chat_head(messages, &frame.prompt, tokenizer, limit)
                .map_err(|e| e.at(example, path))?,
            false => 0,
        };
        Ok((ids, head))
    }

    /// Tokens before the question's own text, at most half of `limit`: more would
    /// cost the question too much.
    fn chat_head(
        &self,
        mut messages: Vec<Value>,
        prompt: &str,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<usize, EncodeErrorKind> {
        let asked = messages.pop().unwrap_or_default();
        let text = asked["content"].as_str().unwrap_or("");
        // Differs from the question in the first character.
        let other = if text.starts_with('x') { "y" } else { "x" };
        messages.push(message("user", other));
        let other = self.framed(&messages)?.prompt;
        let same = prompt.bytes().zip(other.bytes());
        let before = same.take_while(|(a, b)| a == b).count();
        let located = tokenizer.encode_located(prompt)?;
        let frame = located.bytes.iter().take_while(|b| b.end <= before).count();
        Ok(match frame <= limit / 2 {
            true => frame,
            false => head(&located.ids, tokenizer),
        })
    }

    /// A question and its answer as two turns.
    pub(super) fn chat_parts(
        &self,
        example: &Example,
        tokenizer: &Tokenizer,
        path: &Path,
    ) -> Result<Parts, EncodeError> {
        let answer = self
            .prompter
            .answer(example)
            .map_err(|e| prompt_error(e, example, path))?;
        let answer = answer.trim();
        let mut messages = self.question(example, path)?;
        let frame = self.framed(&messages).map_err(|e| e.at(example, path))?;
        messages.push(message("assistant", answer));
        let whole = self
            .template()?
            .render(&messages, &Value::Null, false)
            .map_err(|e| EncodeErrorKind::Chat(e).at(example, path))?;
        let turn = match whole.text.strip_prefix(&frame.prompt) {
            Some(turn) => turn.to_string(),
            // The template reads something into this answer: as generation begins.
            None => format!("{}{answer}{}", frame.gap, frame.end),
        };
        let turn = tokenizer.trim_after_mark(&turn);
        let fail = |e| tokenizer_error(e, example, path);
        let (prompt, mut answer) =
            join(tokenizer, frame.prompt.clone(), turn, false).map_err(fail)?;
        if !answer.last().is_some_and(|id| tokenizer.is_mark(*id)) {
            answer.push(tokenizer.eos_id().map_err(fail)?);
        }
        messages.pop();
        let head = match prompt.len() + answer.len() > self.max_length {
            true => self
                .chat_head(messages, &frame.prompt, tokenizer, self.max_length / 2)
                .map_err(|e| e.at(example, path))?,
            false => 0,
        };
        Ok(Parts {
            prompt,
            answer,
            head,
        })
    }

    /// The samples of a conversation: one, or more where the template shows earlier
    /// turns differently.
    pub(super) fn conversation(
        &self,
        conversation: &Conversation,
        example: &Example,
        tokenizer: &Tokenizer,
        path: &Path,
    ) -> Result<Vec<Sample>, EncodeError> {
        let template = self.template()?;
        if let Some(message) = unwritten_call(conversation, template) {
            let error = EncodeErrorKind::Chat(ChatError::UnwrittenCall { message });
            return Err(error.at(example, path));
        }
        let mut conversation = conversation.clone();
        if let Some(system) = &self.system
            && conversation
                .messages
                .first()
                .is_none_or(|m| role(m) != "system")
        {
            conversation.messages.insert(0, message("system", system));
        }
        let pieces = chat::pieces(template, &conversation)
            .map_err(|e| EncodeErrorKind::Chat(e).at(example, path))?;
        pieces
            .iter()
            .map(|piece| {
                let (mut input_ids, mut labels) =
                    labelled(piece, tokenizer).map_err(|e| tokenizer_error(e, example, path))?;
                let cut = input_ids.len().saturating_sub(self.max_length);
                input_ids.truncate(self.max_length);
                labels.truncate(self.max_length);
                Ok(Sample {
                    row: example.row,
                    input_ids,
                    labels,
                    cut,
                })
            })
            .collect()
    }
}

/// The number, from 1, of an assistant's message that only calls tools, where the template has no
/// word of calls: the model would learn to say nothing.
fn unwritten_call(conversation: &Conversation, template: &ChatTemplate) -> Option<usize> {
    let calls_only = |message: &Value| {
        let text = message.get("content").and_then(Value::as_str);
        let calls = message
            .get("tool_calls")
            .is_some_and(|calls| !calls.is_null());
        let parts = message.get("content").is_some_and(Value::is_array);
        calls && !parts && text.is_none_or(|text| text.trim().is_empty())
    };
    if template.source().contains("tool_calls") {
        return None;
    }
    let at = conversation.messages.iter().position(calls_only);
    at.map(|at| at + 1)
}

/// Tokens of a piece, and their labels.
fn labelled(piece: &Piece, tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<i64>), TokenizerError> {
    let located = tokenizer.encode_located(&piece.text)?;
    let mut ids = located.ids;
    let mut labels = vec![IGNORED; ids.len()];
    let mut last = None;
    for span in &piece.spans {
        let text = piece.text.get(span.clone()).unwrap_or("");
        let end = span.start + tokenizer.trim_after_mark(text).len();
        let from = located.bytes.partition_point(|b| b.end <= span.start);
        last = None;
        for t in from..ids.len() {
            if located.bytes[t].start >= end {
                // A block of the template may leave out the token that ends it.
                if tokenizer.eos_ids().contains(&ids[t])
                    && !last.is_some_and(|l: usize| tokenizer.is_mark(ids[l]))
                {
                    labels[t] = i64::from(ids[t]);
                    last = Some(t);
                }
                break;
            }
            if located.bytes[t].end > span.start {
                labels[t] = i64::from(ids[t]);
                last = Some(t);
            }
        }
    }
    // Without a token that ends the last turn, the model would never stop.
    if let Some(last) = last
        && !tokenizer.is_mark(ids[last])
    {
        ids.truncate(last + 1);
        labels.truncate(last + 1);
        let eos = tokenizer.eos_id()?;
        ids.push(eos);
        labels.push(i64::from(eos));
    }
    Ok((ids, labels))
}

/// An error that does not know its row yet.
enum EncodeErrorKind {
    Whole(EncodeError),
    Chat(ChatError),
    Tokenizer(TokenizerError),
}

impl From<TokenizerError> for EncodeErrorKind {
    fn from(error: TokenizerError) -> Self {
        Self::Tokenizer(error)
    }
}

impl EncodeErrorKind {
    fn at(self, example: &Example, path: &Path) -> EncodeError {
        match self {
            Self::Whole(error) => error,
            Self::Tokenizer(error) => tokenizer_error(error, example, path),
            Self::Chat(error) => EncodeError::Chat {
                path: path.to_path_buf(),
                row: example.row,
                error,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::{PromptConfig, TaskKind};
    use crate::data::tokenizer::tests::write_words;
    use std::sync::Arc;

    const WORDS: [&str; 11] = [
        "U:", "A:", "S:", "q1", "q2", "q3", "a1", "a2", "q4", "rest", "</u>",
    ];
    const TURNS: &str = "{{ bos_token }} {% for m in messages %}{{ {'user': 'U:', 'assistant': 'A:', 'system': 'S:'}[m.role] + ' ' + m.content + ' <eot>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}";
    /// `<s>` 0, `</s>` 1, `<eot>` 2, then the words.
    fn id(word: &str) -> u32 {
        3 + WORDS.iter().position(|w| *w == word).unwrap() as u32
    }

    /// A tokenizer that would add BOS itself.
    fn tokenizer() -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        write_words(dir.path(), true, &WORDS);
        let config = r#"{"eos_token": "</s>", "bos_token": "<s>", "pad_token": "</s>"}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::load(dir.path()).unwrap()
    }

    fn encoder<'a>(
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        kind: TaskKind,
        max_length: usize,
    ) -> Encoder<'a> {
        let config = PromptConfig {
            template: "{question}".to_string(),
            answer: " {answer}".to_string(),
            chat_template: kind != TaskKind::Text,
            system: None,
            ..PromptConfig::default()
        };
        let encoder = Encoder::new(&config, kind, Some(tokenizer), max_length);
        encoder.unwrap().with_chat(Ok(template))
    }

    fn question(text: &str, answer: &str) -> Example {
        Example {
            row: 1,
            question: Some(text.to_string()),
            answers: vec![answer.to_string()],
            ..Example::default()
        }
    }

    fn talk(turns: &[(&str, &str)]) -> Example {
        let messages = turns.iter().map(|(r, c)| message(r, c)).collect();
        Example {
            row: 1,
            conversation: Some(Arc::new(Conversation {
                messages,
                tools: Value::Null,
            })),
            ..Example::default()
        }
    }

    /// Tokens as words; the supervised ones in brackets.
    fn shown(sample: &Sample, tokenizer: &Tokenizer) -> String {
        let word = |(id, label): (&u32, &i64)| {
            let token = tokenizer.token(*id).unwrap();
            match *label {
                IGNORED => token,
                label => {
                    assert_eq!(label, i64::from(*id));
                    format!("[{token}]")
                }
            }
        };
        let pairs = sample.input_ids.iter().zip(&sample.labels);
        pairs.map(word).collect::<Vec<_>>().join(" ")
    }

    fn encode(template: &str, example: Example, kind: TaskKind, max_length: usize) -> Vec<String> {
        let (tokenizer, template) = (tokenizer(), ChatTemplate::of(template).unwrap());
        let encoder = encoder(&tokenizer, &template, kind, max_length);
        let encoded = encoder.encode(&[example], Path::new("d")).unwrap();
        let samples = encoded.samples.iter();
        samples.map(|s| shown(s, &tokenizer)).collect()
    }

    const TALK: [(&str, &str); 5] = [
        ("system", "rest"),
        ("user", "q1 q2"),
        ("assistant", "a1"),
        ("user", "q3"),
        ("assistant", "a2 a1"),
    ];

    #[test]
    fn bos_comes_once_and_every_assistant_turn_is_supervised_to_its_end() {
        assert_eq!(
            encode(TURNS, talk(&TALK), TaskKind::Text, 64),
            ["<s> S: rest <eot> U: q1 q2 <eot> A: [a1] [<eot>] U: q3 <eot> A: [a2] [a1] [<eot>]"]
        );
    }

    #[test]
    fn eos_is_supervised_although_it_pads_too() {
        let template = TURNS.replace("<eot>", "</s>");
        let got = encode(&template, talk(&TALK[1..3]), TaskKind::Text, 64);
        assert_eq!(got, ["<s> U: q1 q2 </s> A: [a1] [</s>]"]);
        let got = encode(&template, question("q1 q2", "a1"), TaskKind::Saq, 64);
        assert_eq!(got, ["<s> U: q1 q2 </s> A: [a1] [</s>]"]);
    }

    #[test]
    fn a_template_without_an_end_gets_eos() {
        let template = TURNS.replace(" <eot>", "");
        let got = encode(&template, talk(&TALK[1..3]), TaskKind::Text, 64);
        assert_eq!(got, ["<s> U: q1 q2 A: [a1] [</s>]"]);
        let got = encode(&template, question("q1", "a1"), TaskKind::Saq, 64);
        assert_eq!(got, ["<s> U: q1 A: [a1] [</s>]"]);
    }

    #[test]
    fn calls_that_the_template_does_not_write_are_refused() {
        let calls = |content: Value| {
            let call = serde_json::json!([{"function": {"name": "f", "arguments": {}}}]);
            let mut turn = serde_json::json!({"role": "assistant", "tool_calls": call});
            turn["content"] = content;
            let messages = vec![message("user", "q1"), turn];
            let tools = Value::Null;
            Conversation { messages, tools }
        };
        let template = |text: &str| ChatTemplate::of(text).unwrap();
        for content in [Value::Null, "".into(), " \n".into()] {
            assert_eq!(unwritten_call(&calls(content), &template(TURNS)), Some(2));
        }
        let writes = TURNS.replace("m.content", "m.content or m.tool_calls[0].function.name");
        assert_eq!(unwritten_call(&calls("".into()), &template(&writes)), None);
        assert_eq!(unwritten_call(&calls("a1".into()), &template(TURNS)), None);
    }

    #[test]
    fn a_generation_block_that_leaves_out_eos_gets_it() {
        let template = "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}{% endgeneration %} </s>{% else %}U: {{ m.content }} </u>{% endif %} {% endfor %}";
        assert_eq!(
            encode(template, talk(&TALK[1..]), TaskKind::Text, 64),
            ["U: q1 q2 </u> A: [a1] [</s>] U: q3 </u> A: [a2] [a1] [</s>]"]
        );
    }

    #[test]
    fn generation_sees_what_training_masked() {
        let (tokenizer, template) = (tokenizer(), ChatTemplate::of(TURNS).unwrap());
        let encoder = encoder(&tokenizer, &template, TaskKind::Saq, 64);
        let example = question("q1 q2", "a2");
        let prompt = encoder.prompt_ids(&example, Path::new("d"), 64).unwrap();
        let encoded = encoder.encode(&[example], Path::new("d")).unwrap();
        let sample = &encoded.samples[0];
        assert_eq!(
            shown(sample, &tokenizer),
            "<s> U: q1 q2 <eot> A: [a2] [<eot>]"
        );
        assert_eq!(prompt, sample.input_ids[..prompt.len()]);
        assert!(sample.labels[prompt.len() - 1] < 0 && sample.labels[prompt.len()] >= 0);
        // An answer ends with its turn.
        assert_eq!(encoder.stop_ids(), [1, 2]);
    }

    #[test]
    fn a_long_question_keeps_the_frame_around_it() {
        let long = question("q1 q2 q3 q1 q2 q3 q4", "a1");
        assert_eq!(
            encode(TURNS, long.clone(), TaskKind::Saq, 9),
            ["<s> U: q2 q3 q4 <eot> A: [a1] [<eot>]"]
        );
        let (tokenizer, template) = (tokenizer(), ChatTemplate::of(TURNS).unwrap());
        let encoder = encoder(&tokenizer, &template, TaskKind::Saq, 64);
        let ids = encoder.prompt_ids(&long, Path::new("d"), 7).unwrap();
        assert_eq!(
            ids,
            [0, id("U:"), id("q2"), id("q3"), id("q4"), 2, id("A:")]
        );
    }

    #[test]
    fn a_long_conversation_is_cut_on_the_right() {
        let got = encode(TURNS, talk(&TALK), TaskKind::Text, 12);
        assert_eq!(got, ["<s> S: rest <eot> U: q1 q2 <eot> A: [a1] [<eot>] U:"]);
        let (tokenizer, template) = (tokenizer(), ChatTemplate::of(TURNS).unwrap());
        let encoder = encoder(&tokenizer, &template, TaskKind::Text, 6);
        let error = encoder.encode(&[talk(&TALK)], Path::new("d")).unwrap_err();
        assert!(matches!(error, EncodeError::Truncation { .. }), "{error}");
    }

    #[test]
    fn what_cannot_be_a_chat_is_refused() {
        let (tokenizer, template) = (
            tokenizer(),
            ChatTemplate::of("{{ raise_exception('no') }}").unwrap(),
        );
        let refused = encoder(&tokenizer, &template, TaskKind::Saq, 9);
        let error = refused
            .encode(&[question("q1", "a1")], Path::new("d"))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("d:1: the chat template refuses these messages: no")
        );
        let none = refused.with_chat(Err("no template here".to_string()));
        let error = none
            .encode(&[question("q1", "a1")], Path::new("d"))
            .unwrap_err();
        assert_eq!(error.to_string(), "no template here");
        let text = Example {
            row: 4,
            text: Some("q1 q2".to_string()),
            ..Example::default()
        };
        let config = PromptConfig {
            answer: "{text}".to_string(),
            system: Some("rest".to_string()),
            ..PromptConfig::default()
        };
        let plain = Encoder::new(&config, TaskKind::Text, Some(&tokenizer), 9).unwrap();
        let error = plain
            .encode(&[text], Path::new("d"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("d:4: prompt.system is set, but this row"),
            "{error}"
        );
    }
}
