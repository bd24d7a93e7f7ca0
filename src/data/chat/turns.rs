//! Which text an assistant has to produce.
//!
//! What stands before an answer when the model generates is the prompt; the rest of
//! the turn is supervised, the token that ends it included. The prompt is found by
//! rendering: up to `add_generation_prompt`, and further where the template itself
//! writes something before every answer (a role it forgets in its generation prompt,
//! an empty think block). An answer with thoughts of its own has no empty block: there the
//! prompt ends where `add_generation_prompt` does, and the block's opening tag is learnt.
//!
//! Templates may show an earlier turn differently than they showed it when it was the
//! last one (thoughts are dropped from the history). Such a turn becomes a sample of
//! its own, with the history that it had.

use std::ops::Range;

use serde_json::Value;

use super::template::{ChatError, ChatTemplate};
use super::{Conversation, message, role};

/// Stands for an answer; the filters of templates leave it as it is.
const PROBE: &str = "KilnAnswer7f3a";

/// A rendered conversation and what is supervised of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    /// Byte ranges of `text`, in order.
    pub spans: Vec<Range<usize>>,
}

/// What stands around an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub prompt: String,
    /// Between the prompt and the answer: blanks, or nothing.
    pub gap: String,
    /// After the answer.
    pub end: String,
}

/// The text around the answer to `messages`.
///
/// # Errors
/// The template cannot render them.
pub fn frame(
    template: &ChatTemplate,
    messages: &[Value],
    tools: &Value,
) -> Result<Frame, ChatError> {
    let prompt = template.render(messages, tools, true);
    let mut probed = messages.to_vec();
    probed.push(message("assistant", PROBE));
    let probed = template.render(&probed, tools, false);
    let parts = probed.as_ref().ok().and_then(|r| r.text.rsplit_once(PROBE));
    match (prompt, parts) {
        (Err(error), None) => Err(error),
        // Without the answer in the text there is only the prompt to go by.
        (Ok(prompt), None) => Ok(Frame {
            prompt: prompt.text,
            gap: String::new(),
            end: String::new(),
        }),
        (prompt, Some((before, end))) => {
            let prompt = prompt.ok().filter(|p| {
                before
                    .strip_prefix(p.text.as_str())
                    .is_some_and(|gap| gap.trim().is_empty())
            });
            let at = prompt.map_or(before.len(), |p| p.text.len());
            Ok(Frame {
                prompt: before[..at].to_string(),
                gap: before[at..].to_string(),
                end: end.to_string(),
            })
        }
    }
}

/// The rendered conversation, in one piece or as many as the template needs, each
/// assistant turn supervised once. Messages after the last one are left out.
///
/// # Errors
/// The template cannot render the messages.
pub fn pieces(
    template: &ChatTemplate,
    conversation: &Conversation,
) -> Result<Vec<Piece>, ChatError> {
    let (messages, tools) = (&conversation.messages, &conversation.tools);
    let mut open: Vec<usize> = (0..messages.len())
        .filter(|&i| role(&messages[i]) == "assistant")
        .collect();
    if template.marks_assistant() {
        let end = open.last().map_or(0, |last| last + 1);
        let whole = template.render(&messages[..end], tools, false)?;
        if !whole.generation.is_empty() {
            return Ok(vec![Piece {
                text: whole.text,
                spans: whole.generation,
            }]);
        }
    }
    let mut starts = Vec::with_capacity(open.len());
    let mut wholes = Vec::with_capacity(open.len());
    for &i in &open {
        let whole = template.render(&messages[..=i], tools, false)?.text;
        let mut start = frame(template, &messages[..i], tools)?.prompt;
        if !whole.starts_with(&start)
            && let Ok(prompt) = template.render(&messages[..i], tools, true)
            && whole.starts_with(&prompt.text)
        {
            start = prompt.text;
        }
        starts.push((i, start));
        wholes.push((i, whole));
    }
    let of = |all: &[(usize, String)], i: usize| -> String {
        let found = all.iter().find(|(turn, _)| *turn == i);
        found.map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let mut pieces = Vec::new();
    while let Some(last) = open.pop() {
        let text = of(&wholes, last);
        let mut spans = Vec::new();
        open.retain(|&i| {
            let (start, whole) = (of(&starts, i), of(&wholes, i));
            let fits = whole.starts_with(&start) && text.starts_with(&whole);
            if fits {
                spans.push(start.len()..whole.len());
            }
            !fits
        });
        spans.push(common(&of(&starts, last), &text)..text.len());
        pieces.push(Piece { text, spans });
    }
    pieces.reverse();
    Ok(pieces)
}

/// The bytes that two texts begin with in common, at a character's boundary.
fn common(a: &str, b: &str) -> usize {
    a.char_indices()
        .zip(b.chars())
        .find(|((_, x), y)| x != y)
        .map_or(a.len().min(b.len()), |((at, _), _)| at)
}
