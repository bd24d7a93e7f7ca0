//! A training sample as text for people: which tokens are supervised, and where
//! truncation cut.

use super::sample::{IGNORED, Sample, supervised};
use super::tokenizer::{Tokenizer, TokenizerError};

/// How supervised tokens and cuts are marked.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    supervised: (&'static str, &'static str),
    cut: (&'static str, &'static str),
}

impl Marks {
    /// Colours of a terminal: green what is supervised, red a cut.
    pub const COLOUR: Marks = Marks {
        supervised: ("\x1b[32m", "\x1b[0m"),
        cut: ("\x1b[31m<", ">\x1b[0m"),
    };
    /// Signs that any file can hold.
    pub const PLAIN: Marks = Marks {
        supervised: ("[[", "]]"),
        cut: ("<<", ">>"),
    };

    /// What the signs mean, for a heading.
    pub fn legend(&self) -> String {
        let ((open, close), (cut, end)) = (self.supervised, self.cut);
        format!("{open}supervised{close}, the rest is masked; {cut}N tokens cut{end}")
    }
}

/// Tokens that truncation removed before position `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub at: usize,
    pub tokens: usize,
}

/// Where `sample` lost tokens, by comparison with the `whole` one: within the prompt,
/// at the end, or both.
pub fn cuts(sample: &Sample, whole: &Sample) -> Vec<Cut> {
    let end = sample.input_ids.len();
    if sample.cut == 0 {
        return Vec::new();
    }
    if whole.input_ids.starts_with(&sample.input_ids) {
        let tokens = sample.cut;
        return vec![Cut { at: end, tokens }];
    }
    let masked = |s: &Sample| s.labels.iter().take_while(|l| **l == IGNORED).count();
    let same = sample.input_ids.iter().zip(&whole.input_ids);
    let head = same.take_while(|(a, b)| a == b).count();
    let prompt = masked(whole).saturating_sub(masked(sample)).min(sample.cut);
    [
        Cut {
            at: head.min(masked(sample)),
            tokens: prompt,
        },
        Cut {
            at: end,
            tokens: sample.cut - prompt,
        },
    ]
    .into_iter()
    .filter(|cut| cut.tokens > 0)
    .collect()
}

/// `27 tokens, 2 supervised`, with what was cut.
pub fn counts(sample: &Sample) -> String {
    let mut text = format!(
        "{} tokens, {} supervised",
        sample.input_ids.len(),
        supervised(&sample.labels)
    );
    if sample.cut > 0 {
        text += &format!(", {} cut", sample.cut);
    }
    text
}

/// The text that the tokens stand for, supervised parts and cuts marked. Special
/// tokens have no text.
///
/// # Errors
/// Tokens that cannot be decoded.
pub fn text(
    sample: &Sample,
    cuts: &[Cut],
    tokenizer: &Tokenizer,
    marks: &Marks,
) -> Result<String, TokenizerError> {
    let length = sample.input_ids.len();
    let mut out = String::new();
    // A part of a text does not decode alone as it does within the whole: so each
    // part is what the text grows by.
    let mut shown = String::new();
    let mut from = 0;
    while from <= length {
        for cut in cuts.iter().filter(|cut| cut.at == from) {
            let (open, close) = marks.cut;
            out += &format!("{open}{} tokens cut{close}", cut.tokens);
        }
        if from == length {
            break;
        }
        let counts = is_supervised(sample, from);
        let ends = |t: usize| is_supervised(sample, t) != counts || cuts.iter().any(|c| c.at == t);
        let to = (from + 1..length).find(|&t| ends(t)).unwrap_or(length);
        let whole = tokenizer.decode(&sample.input_ids[..to])?;
        let part = match whole.strip_prefix(&shown) {
            Some(part) => part.to_string(),
            None => tokenizer.decode(&sample.input_ids[from..to])?,
        };
        shown = whole;
        let (open, close) = match counts && !part.is_empty() {
            true => marks.supervised,
            false => ("", ""),
        };
        // A terminal may end a colour with the line.
        let lines: Vec<&str> = part.split('\n').collect();
        out += &format!("{open}{}{close}", lines.join(&format!("{close}\n{open}")));
        from = to;
    }
    Ok(printable(&out))
}

/// Every token with its id, as the vocabulary writes it, in lines of about `width`
/// characters; a label that differs from its token is shown behind it.
pub fn tokens(
    sample: &Sample,
    cuts: &[Cut],
    tokenizer: Option<&Tokenizer>,
    marks: &Marks,
    width: usize,
) -> Vec<String> {
    let name = |id: u32| match tokenizer.and_then(|t| t.token(id)) {
        Some(token) => format!("{id}:{}", token.escape_debug()),
        None => id.to_string(),
    };
    let mut lines = vec![String::new()];
    let mut column = 0;
    let mut add = |text: &str, (open, close): (&str, &str)| {
        let length = text.chars().count() + 1;
        if column > 0 && column + length > width {
            lines.push(String::new());
            column = 0;
        }
        if let Some(line) = lines.last_mut() {
            if column > 0 {
                line.push(' ');
            }
            *line += &format!("{open}{text}{close}");
        }
        column += length;
    };
    for t in 0..=sample.input_ids.len() {
        for cut in cuts.iter().filter(|cut| cut.at == t) {
            add(&format!("{} tokens cut", cut.tokens), marks.cut);
        }
        let Some(&id) = sample.input_ids.get(t) else {
            break;
        };
        let label = sample.labels[t];
        if !is_supervised(sample, t) {
            add(&name(id), ("", ""));
        } else if label == i64::from(id) {
            add(&name(id), marks.supervised);
        } else {
            let label = u32::try_from(label).map_or_else(|_| label.to_string(), name);
            add(&format!("{}->{label}", name(id)), marks.supervised);
        }
    }
    lines
}

/// The label at position t supervises the logits at t - 1, so the first never counts.
fn is_supervised(sample: &Sample, t: usize) -> bool {
    t > 0 && sample.labels[t] != IGNORED
}

/// Control characters of a data file must not reach the terminal; those of the marks
/// are ours.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let ours = ["\x1b[32m", "\x1b[31m", "\x1b[0m"]
            .into_iter()
            .find(|mark| rest.starts_with(mark));
        match ours {
            Some(mark) => {
                out.push_str(mark);
                rest = &rest[mark.len()..];
                continue;
            }
            None if c.is_control() && c != '\n' && c != '\t' => out.extend(c.escape_debug()),
            None => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ids: &[u32], masked: usize, cut: usize) -> Sample {
        let label = |(t, id): (usize, &u32)| if t < masked { IGNORED } else { i64::from(*id) };
        Sample {
            row: 1,
            input_ids: ids.to_vec(),
            labels: ids.iter().enumerate().map(label).collect(),
            cut,
        }
    }

    #[test]
    fn cuts_are_found_where_tokens_are_missing() {
        let whole = sample(&[0, 11, 12, 13, 14, 21, 22, 23], 5, 0);
        let cut = |at, tokens| Cut { at, tokens };
        for (ids, masked, lost, want) in [
            (&[0, 11, 12, 13, 14, 21, 22, 23][..], 5, 0, vec![]),
            (&[0, 13, 14, 21, 22, 23], 3, 2, vec![cut(1, 2)]),
            (&[13, 14, 21, 22, 23], 2, 3, vec![cut(0, 3)]),
            (&[0, 14, 21], 2, 5, vec![cut(1, 3), cut(3, 2)]),
            (&[0, 11, 12, 13, 14, 21], 5, 2, vec![cut(6, 2)]),
        ] {
            assert_eq!(cuts(&sample(ids, masked, lost), &whole), want, "{ids:?}");
        }
    }

    #[test]
    fn labels_and_cuts_stand_beside_their_tokens() {
        let mut one = sample(&[7, 8, 9], 1, 4);
        one.labels[2] = 5;
        let cut = Cut { at: 3, tokens: 4 };
        let lines = tokens(&one, &[cut], None, &Marks::PLAIN, 80);
        assert_eq!(lines, ["7 [[8]] [[9->5]] <<4 tokens cut>>"]);
        let narrow = tokens(&one, &[], None, &Marks::PLAIN, 4);
        assert_eq!(narrow, ["7 [[8]]", "[[9->5]]"]);
        // The first label supervises nothing.
        let all = sample(&[7, 8], 0, 0);
        assert_eq!(tokens(&all, &[], None, &Marks::PLAIN, 80), ["7 [[8]]"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\n");
        assert_eq!(printable("\x1b[32ma\x1b[0m"), "\x1b[32ma\x1b[0m");
    }
}
