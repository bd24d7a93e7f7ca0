//! The elements of a JSON list, one at a time: a file is never held whole.

use std::io::{self, BufRead};

/// Elements as their bytes, not checked but for where they end.
pub(super) struct Elements<R> {
    input: R,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before the `[`.
    Before,
    /// After it, and before any element.
    First,
    Inside,
    Done,
}

/// What can be wrong with the list itself.
#[derive(Debug)]
pub(super) enum ListError {
    Io(io::Error),
    What(&'static str),
}

impl<R: BufRead> Elements<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            state: State::Before,
        }
    }

    /// Skips blanks; the byte after them stays.
    fn peek(&mut self) -> Result<Option<u8>, ListError> {
        loop {
            let buffer = self.input.fill_buf().map_err(ListError::Io)?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blanks = buffer.iter().take_while(|b| b.is_ascii_whitespace());
            let blanks = blanks.count();
            let found = buffer.get(blanks).copied();
            self.input.consume(blanks);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The bytes up to the `,` or `]` that ends an element, and which of them it was;
    /// both are consumed.
    fn element(&mut self) -> Result<(Vec<u8>, u8), ListError> {
        let (mut bytes, mut depth, mut text, mut escaped) = (Vec::new(), 0usize, false, false);
        loop {
            let buffer = self.input.fill_buf().map_err(ListError::Io)?;
            if buffer.is_empty() {
                return Err(ListError::What("it ends within the list"));
            }
            let end = buffer.iter().position(|&byte| {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if text => escaped = true,
                    b'"' => text = !text,
                    _ if text => {}
                    b'[' | b'{' => depth += 1,
                    b',' | b']' if depth == 0 => return true,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                false
            });
            let taken = end.unwrap_or(buffer.len());
            bytes.extend(&buffer[..taken]);
            let closes = end.map(|at| buffer[at]);
            self.input.consume(taken + usize::from(end.is_some()));
            if let Some(closes) = closes {
                return Ok((bytes, closes));
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Vec<u8>>, ListError> {
        if self.state == State::Before {
            if self.peek()? != Some(b'[') {
                return Err(ListError::What("it does not begin with ["));
            }
            self.input.consume(1);
            self.state = State::First;
        }
        let empty = self.state == State::First && self.peek()? == Some(b']');
        if empty {
            self.input.consume(1);
        }
        let mut found = None;
        if !empty && self.state != State::Done {
            let (bytes, closes) = self.element()?;
            self.state = State::Inside;
            if closes == b',' {
                return Ok(Some(bytes));
            }
            found = Some(bytes);
        }
        if self.state != State::Done {
            self.state = State::Done;
            if self.peek()?.is_some() {
                return Err(ListError::What("something follows the list"));
            }
        }
        Ok(found)
    }
}

impl<R: BufRead> Iterator for Elements<R> {
    type Item = Result<Vec<u8>, ListError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            self.state = State::Done;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn split(text: &str, buffer: usize) -> Result<Vec<String>, String> {
        Elements::new(BufReader::with_capacity(buffer, text.as_bytes()))
            .map(|item| match item {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_string()),
                Err(ListError::What(what)) => Err(what.to_string()),
                Err(ListError::Io(error)) => Err(error.to_string()),
            })
            .collect()
    }

    #[test]
    fn elements_end_where_json_says() {
        let list = r#" [ {"a": [1, "]}\\\", {"]} ,2,
            [[], {}] , "x" , null ] "#;
        for buffer in [1, 2, 3, 7, 1000] {
            let found = split(list, buffer).unwrap();
            let whole: Vec<serde_json::Value> = serde_json::from_str(list).unwrap();
            assert_eq!(found.len(), whole.len());
            for (part, value) in found.iter().zip(&whole) {
                let part: serde_json::Value = serde_json::from_str(part).unwrap();
                assert_eq!(part, *value);
            }
            assert_eq!(split("[]", buffer), Ok(vec![]));
            assert_eq!(split("[1,]", buffer), Ok(vec!["1".into(), String::new()]));
            for (text, what) in [
                ("[1, {", "it ends within the list"),
                ("[1", "it ends within the list"),
                ("[1] x", "something follows the list"),
                ("{}", "it does not begin with ["),
            ] {
                assert_eq!(split(text, buffer), Err(what.to_string()), "{text}");
            }
        }
    }
}
