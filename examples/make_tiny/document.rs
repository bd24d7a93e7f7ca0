//! Pretraining documents: facts and labelled lists, then many restatements of
//! them in other words. Every restatement is a look-up the model can only get
//! right from the context.
//!
//! What the documents never contain: a question mark, a colon, "What", "Answer", or a
//! test fact. Labels, facts and lists are there in many formats.

use crate::world::{Draw, Facts, Half};

/// Ways to state a fact; `{n}` name, `{v}` value, `{a}` attribute.
const FACT: [&str; 5] = [
    "The {a} of {n} is {v}.",
    "For {n} the {a} is {v}.",
    " {n} has the {a} {v}.",
    "We know {n} by the {a} {v}.",
    " {n} chose {v}.",
];
/// Ways to restate it that name the value last; the statements serve as well.
const VALUE_OF_NAME: [&str; 5] = [
    " {n} - {v}.",
    "So {n} goes with {v}.",
    " {n} = {v};",
    "As for {n}, it is {v}.",
    " {n}, as all of us say, likes {v}.",
];
const NAME_OF_VALUE: [&str; 4] = [
    "The {a} {v} is of {n}.",
    " {v} goes to {n}.",
    " {v} <- {n};",
    "It is {v} for {n}.",
];
/// `{l}` is the label of a list item.
const LABEL_OF_VALUE: [&str; 4] = [
    " {v} is at {l}.",
    "Mark {v} with {l}.",
    "Item {v} # {l};",
    " {v} -> {l}.",
];
const VALUE_OF_LABEL: [&str; 3] = ["At {l} is {v}.", " {l} holds {v};", "Item {l} @ {v}."];
const LABEL_OF_NAME: [&str; 6] = [
    " {n} is at {l}.",
    "Mark {n} with {l}.",
    "Pick for {n} # {l};",
    " {n} -> {l}.",
    "As for {n}, it is at {l}.",
    " {n}, as all of us say, is at {l}.",
];
const HEADINGS: [&str; 4] = ["Notes", "List", "Facts", "Report"];
const LABELS: [[&str; 8]; 4] = [
    ["A", "B", "C", "D", "E", "F", "G", "H"],
    ["a", "b", "c", "d", "e", "f", "g", "h"],
    ["1", "2", "3", "4", "5", "6", "7", "8"],
    ["P", "Q", "R", "S", "T", "U", "V", "W"],
];
const AFTER_LABEL: [&str; 6] = [".", "-", "=", "]", ")", "/"];
const BEFORE_LIST: [&str; 3] = ["\nFor {n},", "\nMark {n},", "\nOf {n}"];
const AFTER_LIST: [&str; 4] = ["\nPick", "\nSo it is at", "\nThis is at", "\nMark #"];

/// What may stand between the two words of a bare pair.
const CONNECTORS: [&str; 9] = [
    " -",
    " =",
    " is",
    " has",
    " chose",
    " goes with",
    ", it is",
    " is at",
    ", as all of us say, likes",
];

/// Words without meaning here, for gaps.
const FILLERS: [&str; 24] = [
    "as", "all", "of", "us", "say", "well", "then", "now", "here", "there", "and", "so", "for",
    "sure", "you", "see", "that", "too", "very", "much", "by", "the", "way", "once",
];
/// Cues without meaning, in front of a label drawn by lot.
const SIGNS: [&str; 16] = [
    "!", "&", "*", "%", "+", "~", "^", "$", "|", "{", "}", "[", "(", "<", "_", "\"",
];
/// The last words of a gap.
const BEFORE_ANSWER: [&str; 5] = [" is", " ->", " =", " goes with", " #"];

/// What a document trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bare pairs of name and value.
    Pairs,
    /// Bare pairs of label and value.
    LabelPairs,
    /// Bare pairs of name and value, then of label and value, then label from
    /// name and from value.
    PairsAndList,
    /// Facts, then value from name and name from value.
    Facts,
    /// A labelled list, then label from value and value from label.
    List,
    /// Facts and a labelled list of their values, then label from name.
    FactsAndList,
    /// Facts, then a name or value and a labelled list behind it, over and over:
    /// the label must be told from what stands before the list.
    Blocks,
}

/// One slot of the curriculum's rotation.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub kind: Kind,
    /// How many facts, drawn evenly from these.
    pub facts: &'static [usize],
    /// Most tokens in a document.
    pub length: usize,
    /// Share of documents that repeat the name (and label) right behind each
    /// value. It makes the value's position learn whose it is.
    pub echo: f32,
    /// Share of bare-pair documents with words between the two of a pair.
    pub connected: f32,
    /// Most words put between what is asked about and the answer; a share of the
    /// restatements has such a gap. It makes the model look for the last name
    /// or value, however far back, not for the word two places before.
    pub gap: usize,
    /// Share of picked labels that follow a meaningless sign and are drawn by lot.
    /// So the base answers only to the cues it knows; that `Answer:` is one is
    /// left for an adapter to learn.
    pub lots: f32,
}

/// A piece of text that is one token, and whether the loss counts it.
pub struct Piece {
    pub text: String,
    pub supervised: bool,
}

/// A document as pieces, without BOS and EOS.
#[derive(Default)]
pub struct Document {
    pub pieces: Vec<Piece>,
}

struct Values<'a> {
    name: &'a str,
    value: &'a str,
    attribute: &'a str,
    label: &'a str,
}

impl Document {
    pub fn draw(draw: &mut Draw, slot: &Slot, supervise_all: f32) -> Self {
        let count = draw.pick(slot.facts);
        let facts = Facts::draw(draw, count, Half::Train);
        let mut document = Self::default();
        match slot.kind {
            Kind::Pairs | Kind::LabelPairs => document.pairs(draw, &facts, slot),
            Kind::PairsAndList => document.pairs_and_list(draw, &facts, slot.length),
            Kind::Blocks => document.blocks(draw, &facts, slot),
            _ => {
                document.text_about(draw, &facts, slot);
                if draw.chance(supervise_all) {
                    for piece in &mut document.pieces {
                        piece.supervised = true;
                    }
                }
            }
        }
        document
    }

    /// The whole text.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|p| p.text.as_str()).collect()
    }

    fn push(&mut self, text: &str, supervised: bool) {
        for piece in pieces(text) {
            self.pieces.push(Piece {
                text: piece.to_owned(),
                supervised,
            });
        }
    }

    fn word(&mut self, word: &str, supervised: bool) {
        self.push(&format!(" {word}"), supervised);
    }

    /// Each pair with its first word again behind it; then the pairs over and
    /// over, either way round.
    fn pairs(&mut self, draw: &mut Draw, facts: &Facts, slot: &Slot) {
        let alphabet = alphabet(draw, facts.pairs.len());
        let connector = if draw.chance(slot.connected) {
            draw.pick(&CONNECTORS)
        } else {
            ""
        };
        let mut pairs = facts.pairs.clone();
        for ((key, value), label) in pairs.iter_mut().zip(alphabet) {
            if slot.kind == Kind::LabelPairs {
                *key = label;
                self.push("\n", false);
                self.push(key, false);
            } else {
                self.word(key, false);
            }
            self.push(connector, false);
            self.word(value, false);
            self.word(key, true);
        }
        loop {
            let kept = self.pieces.len();
            let (key, value) = draw.pick(&pairs);
            let (first, second) = if draw.chance(0.3) {
                (value, key)
            } else {
                (key, value)
            };
            self.word(first, false);
            if slot.gap > 0 && draw.chance(0.7) {
                self.gap(draw, slot.gap);
            } else {
                self.push(connector, false);
            }
            self.word(second, true);
            self.word(first, true);
            // BOS and EOS come on top.
            if self.pieces.len() + 2 > slot.length {
                self.pieces.truncate(kept);
                return;
            }
        }
    }

    /// A meaningless cue and any label.
    fn lot(&mut self, draw: &mut Draw, labels: &[&str]) {
        self.push(
            draw.pick(&["\n", "\n", " ", ""]).trim_end_matches(' '),
            false,
        );
        for _ in 0..=draw.below(3) {
            self.push(draw.pick(&SIGNS), false);
        }
        self.word(draw.pick(labels), true);
        self.push(".", true);
    }

    /// Up to `most` words.
    fn gap(&mut self, draw: &mut Draw, most: usize) {
        for _ in 0..draw.below(most + 1) {
            self.word(draw.pick(&FILLERS), false);
        }
        self.push(draw.pick(&BEFORE_ANSWER), false);
    }

    fn pairs_and_list(&mut self, draw: &mut Draw, facts: &Facts, length: usize) {
        for (name, value) in &facts.pairs {
            self.word(name, false);
            self.word(value, false);
            self.word(name, true);
        }
        let alphabet = alphabet(draw, facts.pairs.len());
        let mut items = facts.pairs.clone();
        draw.shuffle(&mut items);
        for ((name, value), label) in items.iter().zip(alphabet) {
            self.push("\n", false);
            self.push(label, false);
            self.word(value, false);
            self.word(label, true);
            self.word(name, true);
        }
        while self.pieces.len() + 4 < length {
            let i = draw.below(items.len());
            let (name, value) = items[i];
            let first = if draw.chance(0.3) { value } else { name };
            self.word(first, false);
            self.word(alphabet[i], true);
            self.word(first, true);
        }
    }

    fn blocks(&mut self, draw: &mut Draw, facts: &Facts, slot: &Slot) {
        if draw.chance(slot.connected) {
            let heading = draw.chance(0.5);
            if heading {
                self.push(draw.pick(&HEADINGS), false);
                self.push("\n", false);
            }
            let echo = draw.chance(slot.echo);
            self.statements(draw, facts, echo, heading);
        } else {
            for (name, value) in &facts.pairs {
                self.word(name, false);
                self.word(value, false);
            }
        }
        let before = draw.pick(&BEFORE_LIST);
        let between = draw.pick(&["\n", "\n", " ", ""]);
        let after = draw.pick(&AFTER_LABEL);
        let behind = draw.pick(&AFTER_LIST);
        loop {
            let kept = self.pieces.len();
            let mut items = facts.pairs.clone();
            draw.shuffle(&mut items);
            let alphabet = alphabet(draw, items.len());
            let asked = draw.below(items.len());
            let (name, value) = items[asked];
            let key = if draw.chance(0.25) { value } else { name };
            self.push(&before.replace("{n}", key), false);
            for (&(_, value), label) in items.iter().zip(alphabet) {
                match between {
                    "" => self.push(&format!(" {label} {value}"), false),
                    _ => self.push(&format!("{between}{label}{after} {value}"), false),
                }
            }
            if slot.lots > 0.0 && draw.chance(slot.lots) {
                self.lot(draw, &alphabet[..items.len()]);
            } else {
                self.push(behind, false);
                self.word(alphabet[asked], true);
                self.push(".", true);
            }
            // BOS and EOS come on top.
            if self.pieces.len() + 2 > slot.length {
                self.pieces.truncate(kept);
                return;
            }
        }
    }

    fn text_about(&mut self, draw: &mut Draw, facts: &Facts, slot: &Slot) {
        let echo = draw.chance(slot.echo);
        let heading = draw.chance(0.5);
        if heading {
            self.push(draw.pick(&HEADINGS), false);
            self.push("\n", true);
        }
        if slot.kind != Kind::List {
            self.statements(draw, facts, echo, heading);
        }
        let labels = if slot.kind == Kind::Facts {
            Vec::new()
        } else {
            self.list(draw, facts, slot.kind, echo)
        };
        self.restatements(draw, facts, slot, &labels, echo);
    }

    fn statements(&mut self, draw: &mut Draw, facts: &Facts, echo: bool, heading: bool) {
        let one_style = draw.chance(0.7).then(|| draw.pick(&FACT));
        let between = separator(draw);
        for (i, &(name, value)) in facts.pairs.iter().enumerate() {
            let style = one_style.unwrap_or_else(|| draw.pick(&FACT));
            let values = Values {
                name,
                value,
                attribute: facts.attribute,
                label: "",
            };
            let before = if i == 0 && heading { " " } else { between };
            self.sentence(style, before, &values, None);
            if echo && let Some(stop) = self.pieces.pop() {
                self.word(name, true);
                self.pieces.push(stop);
            }
        }
    }

    /// Returns (value, label) pairs.
    fn list(
        &mut self,
        draw: &mut Draw,
        facts: &Facts,
        kind: Kind,
        echo: bool,
    ) -> Vec<(&'static str, &'static str)> {
        let alphabet = alphabet(draw, facts.pairs.len());
        let mut items = facts.pairs.clone();
        draw.shuffle(&mut items);
        let after = draw.pick(&AFTER_LABEL);
        let lines = draw.chance(0.6);
        let about = (kind == Kind::FactsAndList && !echo && draw.chance(0.4))
            .then(|| draw.below(items.len()));
        if let Some(i) = about {
            self.push(&draw.pick(&BEFORE_LIST).replace("{n}", items[i].0), false);
        }
        for (&(name, value), label) in items.iter().zip(alphabet) {
            let before = if lines { "\n" } else { " " };
            self.push(&format!("{before}{label}{after} {value}"), false);
            if echo {
                self.word(label, true);
                if kind == Kind::FactsAndList {
                    self.word(name, true);
                }
            }
            if !lines {
                self.push(",", false);
            }
        }
        if let Some(i) = about {
            self.push(draw.pick(&AFTER_LIST), false);
            self.word(alphabet[i], true);
            self.push(".", true);
        }
        items.iter().map(|p| p.1).zip(alphabet).collect()
    }

    /// Restates the facts in rounds, each in a fresh order, up to the length.
    fn restatements(
        &mut self,
        draw: &mut Draw,
        facts: &Facts,
        slot: &Slot,
        labels: &[(&'static str, &'static str)],
        echo: bool,
    ) {
        let between = separator(draw);
        let mut round: Vec<(&str, &str)> = Vec::new();
        loop {
            if round.is_empty() {
                round.clone_from(&facts.pairs);
                draw.shuffle(&mut round);
            }
            let Some((name, value)) = round.pop() else {
                return;
            };
            let gap = slot.gap > 0 && draw.chance(0.6);
            let (style, asked) = restatement(draw, slot.kind);
            let label = labels.iter().find(|l| l.0 == value).map_or("", |l| l.1);
            let values = Values {
                name,
                value,
                attribute: facts.attribute,
                label,
            };
            let kept = self.pieces.len();
            if gap {
                let (key, answer) = match (slot.kind, asked) {
                    (Kind::Facts, 'v') => (name, value),
                    (Kind::Facts, _) => (value, name),
                    (Kind::List, 'v') => (label, value),
                    (Kind::List, _) => (value, label),
                    (_, 'v') => (name, value),
                    _ if draw.chance(0.8) => (name, label),
                    _ => (value, label),
                };
                self.push(between.trim_end_matches(' '), false);
                self.word(key, false);
                if slot.kind == Kind::FactsAndList && slot.lots > 0.0 && draw.chance(slot.lots) {
                    let all: Vec<&str> = labels.iter().map(|l| l.1).collect();
                    self.lot(draw, &all);
                } else {
                    self.gap(draw, slot.gap);
                    self.word(answer, true);
                    self.push(".", true);
                }
            } else {
                self.sentence(style, between, &values, Some(asked));
            }
            let key = match asked {
                'v' if slot.kind == Kind::List => Some(label),
                'v' => Some(name),
                _ => None,
            };
            if echo
                && let Some(key) = key
                && let Some(stop) = self.pieces.pop()
            {
                self.word(key, true);
                self.pieces.push(stop);
            }
            // BOS and EOS come on top.
            if self.pieces.len() + 2 > slot.length {
                self.pieces.truncate(kept);
                return;
            }
        }
    }

    /// Fills a template; the asked slot and the piece behind it are supervised.
    fn sentence(&mut self, template: &str, before: &str, values: &Values, asked: Option<char>) {
        // A space in front of a template that opens with a word belongs to that word.
        let mut rest = match (before, template.starts_with(' ')) {
            (" ", true) => template.to_owned(),
            _ => format!("{before}{template}"),
        };
        if before == "\n" {
            self.push("\n", false);
            rest.remove(0);
        }
        let mut rest = rest.as_str();
        let mut next_supervised = false;
        while let Some(open) = rest.find('{') {
            let key = rest[open + 1..].chars().next().unwrap_or(' ');
            let spaced = rest[..open].ends_with(' ');
            let literal = &rest[..open - usize::from(spaced)];
            self.literal(literal, &mut next_supervised);
            let word = match key {
                'n' => values.name,
                'v' => values.value,
                'a' => values.attribute,
                _ => values.label,
            };
            let supervised = asked == Some(key);
            if spaced {
                self.word(word, supervised);
            } else {
                self.push(word, supervised);
            }
            next_supervised = supervised;
            rest = &rest[open + 3..];
        }
        self.literal(rest, &mut next_supervised);
    }

    fn literal(&mut self, text: &str, first_supervised: &mut bool) {
        for piece in pieces(text) {
            self.push(piece, std::mem::take(first_supervised));
        }
    }
}

/// Labels, of which a list of `count` takes the first ones.
fn alphabet(draw: &mut Draw, count: usize) -> [&'static str; 8] {
    let mut alphabet = draw.pick(&LABELS);
    if draw.chance(0.4) {
        let start = draw.below(alphabet.len() - count + 1);
        alphabet.rotate_left(start);
    }
    if draw.chance(0.2) {
        draw.shuffle(&mut alphabet);
    }
    alphabet
}

fn separator(draw: &mut Draw) -> &'static str {
    if draw.chance(0.5) { " " } else { "\n" }
}

/// A template and the slot it asks for.
fn restatement(draw: &mut Draw, kind: Kind) -> (&'static str, char) {
    let value_of_name = |draw: &mut Draw| {
        let i = draw.below(FACT.len() + VALUE_OF_NAME.len());
        let style = FACT.iter().chain(&VALUE_OF_NAME).nth(i);
        (style.copied().unwrap_or(FACT[0]), 'v')
    };
    let x = draw.below(100);
    match kind {
        Kind::Facts if x < 75 => value_of_name(draw),
        Kind::Facts => (draw.pick(&NAME_OF_VALUE), 'n'),
        Kind::List if x < 65 => (draw.pick(&LABEL_OF_VALUE), 'l'),
        Kind::List => (draw.pick(&VALUE_OF_LABEL), 'v'),
        Kind::FactsAndList if x < 70 => (draw.pick(&LABEL_OF_NAME), 'l'),
        Kind::FactsAndList if x < 80 => value_of_name(draw),
        // The bare pairs have no sentences.
        Kind::FactsAndList | Kind::Pairs | Kind::LabelPairs | Kind::PairsAndList | Kind::Blocks => {
            (draw.pick(&LABEL_OF_VALUE), 'l')
        }
    }
}

/// Splits text as the byte-level pre-tokeniser does for the characters used
/// here: words and signs with the space before them, each line break alone.
fn pieces(text: &str) -> Vec<&str> {
    let class = |c: char| match c {
        '\n' => 0,
        ' ' => 1,
        c if c.is_ascii_digit() => 2,
        c if c.is_alphabetic() => 3,
        _ => 4,
    };
    let mut found = Vec::new();
    let mut start = 0;
    let mut last: Option<char> = None;
    for (i, c) in text.char_indices() {
        let joined = last.is_some_and(|l| class(l) == 1 || (class(l) == class(c) && class(c) > 1));
        if !joined && i > start {
            found.push(&text[start..i]);
            start = i;
        }
        last = Some(c);
    }
    if start < text.len() {
        found.push(&text[start..]);
    }
    found
}
