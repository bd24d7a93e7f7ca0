//! YAML text to a [`Node`] tree, by parser events so that the style and the
//! position of every scalar are known. Scalars mean what [`super::scalar`] says.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::error::Problem;
use super::grammar::interpolation;
use super::node::{Key, MAX_LEVELS, Map, Node, Origin, Value, has_key, insert_key};
use super::scalar;
use super::yaml_block;
use super::yaml_indent::Indented;

/// A file with more nodes than this, aliases expanded, is refused.
const MAX_NODES: usize = 200_000;

/// Reads one YAML document. Empty text is an empty mapping, as in OmegaConf.
///
/// # Errors
/// Bad syntax, a duplicate key, an unknown tag, a malformed interpolation, too
/// deep or too large a document; each with its line.
pub(crate) fn read_yaml(text: &str, path: &Arc<PathBuf>) -> Result<Node, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_control_characters(text, path)?;
    let mut source = Indented::new(text);
    let node = loop {
        let mut reader = Reader::new(&source, path);
        match (reader.document(), reader.fault) {
            (Ok(node), _) => break node,
            (Err(_), Some(fault)) if source.mend(&fault) => {}
            (Err(problem), _) => return Err(problem),
        }
    };
    Ok(match node.value {
        Value::Null => Node::new(Value::Map(Map::new()), node.origin),
        // OmegaConf reads a lone word as a key without a value.
        Value::Str(word) => {
            let mut map = Map::new();
            map.insert(Key::Str(word), Node::new(Value::Null, node.origin.clone()));
            Node::new(Value::Map(map), node.origin)
        }
        Value::List(_) | Value::Map(_) => node,
        _ => {
            return Err(Problem::new(format!(
                "a config must be a mapping, not {}",
                node.type_name()
            ))
            .at(&node.origin));
        }
    })
}

/// YAML is printable text. (The parser takes a zero byte for the end of the text.)
fn refuse_control_characters(text: &str, path: &Arc<PathBuf>) -> Result<(), Problem> {
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let not_text = |c: char| control(c) || matches!(c, '\u{fffe}' | '\u{ffff}');
    let Some((at, c)) = text.char_indices().find(|(_, c)| not_text(*c)) else {
        return Ok(());
    };
    let origin = Origin::File {
        path: path.clone(),
        line: 1 + text[..at].matches('\n').count(),
    };
    Err(Problem::new(format!(
        "the character U+{:04X} cannot stand in YAML",
        c as u32
    ))
    .at(&origin)
    .help(format!(
        "remove it, or write it inside double quotes as \"\\u{:04X}\"",
        c as u32
    )))
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    source: &'t Indented<'t>,
    /// The fault of the syntax that ended the reading.
    fault: Option<ScanError>,
    /// The characters of a text that is not ASCII, to find them by their index.
    chars: Vec<char>,
    path: Arc<PathBuf>,
    /// Anchored nodes with their sizes.
    anchors: HashMap<usize, (Node, usize)>,
    /// The line of each anchor's name.
    anchor_lines: HashMap<String, usize>,
    nodes: usize,
    /// The values in `anchors`.
    anchored: usize,
}

/// Where a node stands: how deep, whether within `[..]` or `{..}`, whether as a key.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    flow: bool,
    key: bool,
}

/// A mapping key with what the duplicate check needs to know.
enum ReadKey {
    Merge,
    Key(Key),
}

impl<'t> Reader<'t> {
    fn new(source: &'t Indented<'t>, path: &Arc<PathBuf>) -> Reader<'t> {
        let text = source.text();
        Reader {
            parser: Parser::new_from_str(text),
            source,
            fault: None,
            chars: if text.is_ascii() {
                Vec::new()
            } else {
                text.chars().collect()
            },
            path: path.clone(),
            anchors: HashMap::new(),
            anchor_lines: HashMap::new(),
            nodes: 0,
            anchored: 0,
        }
    }

    fn origin(&self, line: usize) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: line.max(1),
        }
    }

    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem::new(message).at(&self.origin(line))
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => {
                let column = self.source.column(&e);
                let message = format!("not valid YAML: {} (column {column})", e.info());
                let problem = self.problem(e.marker().line(), message);
                self.fault = Some(e);
                Err(problem.help("check indentation, brackets and quotes near this line"))
            }
            None => Err(self.problem(1, "not valid YAML: the text ends too early")),
        }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        return Err(self.problem(
                            span.start.line(),
                            "a config file holds one YAML document, here a second one begins",
                        ));
                    }
                }
                event => {
                    let place = Place {
                        depth: 0,
                        flow: false,
                        key: false,
                    };
                    root = Some(self.node(event, span, place)?);
                }
            }
        }
        Ok(root.unwrap_or_else(|| Node::new(Value::Null, self.origin(1))))
    }

    fn node(&mut self, event: Event<'t>, span: Span, place: Place) -> Result<Node, Problem> {
        let line = span.start.line();
        let start_count = self.nodes;
        self.count(1, line)?;
        if place.depth > MAX_LEVELS {
            return Err(self.problem(line, format!("nested deeper than {MAX_LEVELS} levels")));
        }
        let inner = Place {
            depth: place.depth + 1,
            key: false,
            flow: place.flow || self.opens_bracket(span),
        };
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id) else {
                    return Err(self.problem(line, "an alias stands inside the value it names"));
                };
                let (node, size) = (node.clone(), *size);
                self.count(size, line)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text = self.as_written(&text, style, span);
                let value = self.scalar(text, style, tag.as_deref(), line, place)?;
                (Node::new(value, self.origin(line)), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", line)?;
                (self.sequence(line, inner)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", line)?;
                (self.mapping(line, inner)?, anchor)
            }
            _ => return Err(self.problem(line, "not valid YAML: a value is missing here")),
        };
        if anchor > 0 {
            self.refuse_second_anchor(span)?;
            // The copy counts too: anchors can stand inside each other.
            let size = self.nodes - start_count;
            self.anchored = self.anchored.saturating_add(size);
            self.count(0, line)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    /// Whether the start of a collection is a bracket. The parser gives where its anchor, tag and
    /// first token stand; a block collection's first token has no width.
    fn opens_bracket(&self, span: Span) -> bool {
        let (start, end) = (span.start.index(), span.end.index());
        let bracket_in = |line: &mut dyn Iterator<Item = char>| {
            line.take_while(|c| *c != '#')
                .any(|c| matches!(c, '[' | '{'))
        };
        if self.chars.is_empty() {
            // All bytes are characters.
            let text = self.source.text().get(start..end).unwrap_or_default();
            text.split('\n').any(|line| bracket_in(&mut line.chars()))
        } else {
            let text = self.chars.get(start..end).unwrap_or_default();
            text.split(|c| *c == '\n')
                .any(|line| bracket_in(&mut line.iter().copied()))
        }
    }

    /// YAML lets a second anchor of the same name take over; PyYAML does not, and an alias
    /// far below would mean another value than the one its reader finds first.
    fn refuse_second_anchor(&mut self, span: Span) -> Result<(), Problem> {
        let line = span.start.line();
        let start = span.start.index();
        let name = match self.chars.is_empty() {
            true => anchor_name(self.source.text().get(start..).unwrap_or_default().chars()),
            false => anchor_name(self.chars.iter().skip(start).copied()),
        };
        match name.and_then(|name| self.anchor_lines.insert(name.clone(), line).zip(Some(name))) {
            Some((first, name)) => Err(self
                .problem(
                    line,
                    format!("the anchor '&{name}' stands twice, first on line {first}"),
                )
                .help("give one of the two another name")),
            None => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes.saturating_add(self.anchored) > MAX_NODES {
            return Err(self.problem(line, format!("more than {MAX_NODES} values in one file")));
        }
        Ok(())
    }

    fn sequence(&mut self, line: usize, place: Place) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node::new(Value::List(items), self.origin(line)));
            }
            items.push(self.node(event, span, place)?);
        }
    }

    fn mapping(&mut self, line: usize, place: Place) -> Result<Node, Problem> {
        let mut own: Vec<(Key, Node)> = Vec::new();
        let mut merged: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key_line = span.start.line();
            let key = self.key(event, span, place)?;
            let (event, span) = self.next()?;
            let mut node = self.node(event, span, place)?;
            match key {
                ReadKey::Merge => merged.extend(self.merge_value(node, key_line)?),
                ReadKey::Key(key) => {
                    if let Key::Str(text) = &key
                        && let Some(first) = seen.insert(text.clone(), key_line)
                    {
                        return Err(self
                            .problem(
                                key_line,
                                format!("duplicate key '{text}', first on line {first}"),
                            )
                            .help("remove one of the two"));
                    }
                    // A value on a later line than its key is found by its key.
                    if let Origin::File { line, .. } = &mut node.origin
                        && matches!(node.value, Value::Map(_) | Value::List(_) | Value::Null)
                    {
                        *line = key_line;
                    }
                    own.push((key, node));
                }
            }
        }
        let mut map = Map::new();
        for (key, node) in merged.into_iter().chain(own) {
            insert_key(&mut map, key, node);
        }
        Ok(Node::new(Value::Map(map), self.origin(line)))
    }

    fn key(&mut self, event: Event<'t>, span: Span, place: Place) -> Result<ReadKey, Problem> {
        let line = span.start.line();
        match &event {
            Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<" => {
                return Ok(ReadKey::Merge);
            }
            // As a key, '=' is an ordinary string.
            Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "=" => {
                return Ok(ReadKey::Key(Key::from("=")));
            }
            _ => {}
        }
        let node = self.node(event, span, Place { key: true, ..place })?;
        match node.value {
            Value::Str(text) => Ok(ReadKey::Key(Key::Str(text))),
            Value::Int(i) => Ok(ReadKey::Key(Key::Int(i))),
            Value::BigInt(i) => Ok(ReadKey::Key(Key::BigInt(i))),
            Value::Bool(b) => Ok(ReadKey::Key(Key::Bool(b))),
            Value::Float(f) => Ok(ReadKey::Key(Key::Float(f.to_bits()))),
            Value::Null | Value::List(_) | Value::Map(_) => Err(self
                .problem(line, format!("a key cannot be {}", node.type_name()))
                .help("keys are strings, numbers or booleans; quote the key to make it a string")),
        }
    }

    fn merge_value(&self, node: Node, line: usize) -> Result<Vec<(Key, Node)>, Problem> {
        let fault = || {
            self.problem(
                line,
                "the merge key '<<' takes a mapping or a list of mappings",
            )
        };
        match node.value {
            Value::Map(map) => Ok(map.into_iter().collect()),
            Value::List(items) => {
                // The first mapping of the list wins.
                let mut merged = Map::new();
                for item in items {
                    let Value::Map(map) = item.value else {
                        return Err(fault());
                    };
                    for (key, node) in map {
                        if !has_key(&merged, &key) {
                            merged.insert(key, node);
                        }
                    }
                }
                Ok(merged.into_iter().collect())
            }
            _ => Err(fault()),
        }
    }

    fn as_written<'v>(&self, value: &'v str, style: ScalarStyle, span: Span) -> &'v str {
        let text = self.source.text();
        if text.ends_with(['\n', '\r']) {
            return value;
        }
        let chars = if self.chars.is_empty() {
            text.len()
        } else {
            self.chars.len()
        };
        yaml_block::as_written(value, style, span, chars)
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        line: usize,
        place: Place,
    ) -> Result<Value, Problem> {
        if style == ScalarStyle::Plain && place.flow && text.contains('?') {
            return Err(self
                .problem(line, format!("'{text}' needs quotes inside [..] or {{..}}"))
                .help(format!("write \"{text}\"")));
        }
        let value = match tag {
            None if style == ScalarStyle::Plain => scalar::resolve(text),
            None => Ok(Value::Str(text.to_string())),
            // PyYAML reads the text as if it were plain, quoted or not.
            Some(tag) if is_non_specific(tag) => scalar::resolve(text),
            Some(tag) => match core_name(tag) {
                Some(name) => scalar::resolve_tagged(text, name),
                None => Err(format!("the tag '{tag}' is not supported")),
            },
        };
        let value = value.map_err(|message| self.problem(line, message))?;
        // A key with `${` in it is no interpolation and is not checked as one.
        if let Value::Str(text) = &value
            && !place.key
        {
            interpolation::check(text).map_err(|message| {
                self.problem(
                    line,
                    format!("malformed interpolation in '{text}': {message}"),
                )
                .help("to have the text '${' itself, write '\\${'")
            })?;
        }
        Ok(value)
    }

    fn collection_tag(&self, tag: Option<&Tag>, own: &str, line: usize) -> Result<(), Problem> {
        match tag {
            None => Ok(()),
            Some(tag) if is_non_specific(tag) || core_name(tag) == Some(own) => Ok(()),
            Some(tag) => Err(self.problem(line, format!("the tag '{tag}' is not supported here"))),
        }
    }
}

/// The name of the anchor at the beginning of a node, which a tag may precede.
fn anchor_name(node: impl Iterator<Item = char>) -> Option<String> {
    let mut node = node.peekable();
    loop {
        match node.next()? {
            '&' => {
                let ends = |c: &char| c.is_whitespace() || ",[]{}".contains(*c);
                return Some(node.take_while(|c| !ends(c)).collect());
            }
            '!' => while node.next_if(|c| !c.is_whitespace()).is_some() {},
            '#' => while node.next_if(|c| *c != '\n').is_some() {},
            c if c.is_whitespace() => {}
            _ => return None,
        }
    }
}

/// `int` of `!!int` and of `!<tag:yaml.org,2002:int>`.
fn core_name(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        return Some(&tag.suffix);
    }
    tag.suffix.strip_prefix("tag:yaml.org,2002:")
}

/// The lone tag `!`.
fn is_non_specific(tag: &Tag) -> bool {
    (tag.handle.is_empty() && tag.suffix == "!") || (tag.handle == "!" && tag.suffix.is_empty())
}

#[cfg(test)]
#[path = "yaml_read_tests.rs"]
mod tests;
