//! The elements of a JSON list, one at a time: a file is never held whole. The list is
//! the file, or a value of the object that the file is.

use std::io::{self, BufRead};

/// Elements as their bytes, not checked but for where they end.
pub(super) struct Elements<R> {
    input: R,
    state: State,
    /// Of the object whose value the list is; `None` where the list is all there is.
    key: Option<&'static str>,
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
            key: None,
        }
    }

    /// Those of the list under `key` in the object that the input is. Its other values
    /// are passed over.
    pub fn under(key: &'static str, input: R) -> Self {
        Self {
            key: Some(key),
            ..Self::new(input)
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

    /// Consumes `byte`, which must come next.
    fn expect(&mut self, byte: u8, missing: &'static str) -> Result<(), ListError> {
        match self.peek()? == Some(byte) {
            true => self.input.consume(1),
            false => return Err(ListError::What(missing)),
        }
        Ok(())
    }

    /// From the `{` to before the list, or to the `}` if the key is not there.
    fn enter(&mut self, key: &str) -> Result<(), ListError> {
        self.expect(b'{', "it does not begin with {")?;
        while !self.name(key)? {
            if self.element(b'}')?.1 == b'}' {
                return Err(ListError::What("it has no list of articles, `data`"));
            }
        }
        Ok(())
    }

    /// Reads a name and its colon; whether it is `key`.
    fn name(&mut self, key: &str) -> Result<bool, ListError> {
        const NAME: &str = "a name in quotes is missing";
        self.expect(b'"', NAME)?;
        let mut name = Vec::new();
        loop {
            self.input
                .read_until(b'"', &mut name)
                .map_err(ListError::Io)?;
            if name.pop() != Some(b'"') {
                return Err(ListError::What(NAME));
            }
            // A quote behind an odd number of backslashes belongs to the name.
            if name.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 0 {
                break;
            }
            name.push(b'"');
        }
        self.expect(b':', "a colon is missing behind a name")?;
        Ok(name == key.as_bytes())
    }

    /// From behind the list to behind the `}`.
    fn leave(&mut self) -> Result<(), ListError> {
        if self.peek()? != Some(b',') {
            return self.expect(b'}', "neither a comma nor } follows the list");
        }
        self.input.consume(1);
        loop {
            self.name("")?;
            if self.element(b'}')?.1 == b'}' {
                return Ok(());
            }
        }
    }

    /// The bytes up to the `,` or `close` that ends an element, and which of them it
    /// was; both are consumed.
    fn element(&mut self, close: u8) -> Result<(Vec<u8>, u8), ListError> {
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
                    b',' if depth == 0 => return true,
                    _ if byte == close && depth == 0 => return true,
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
            if let Some(key) = self.key {
                self.enter(key)?;
            }
            self.expect(b'[', "it does not begin with [")?;
            self.state = State::First;
        }
        let empty = self.state == State::First && self.peek()? == Some(b']');
        if empty {
            self.input.consume(1);
        }
        let mut found = None;
        if !empty && self.state != State::Done {
            let (bytes, closes) = self.element(b']')?;
            self.state = State::Inside;
            if closes == b',' {
                return Ok(Some(bytes));
            }
            found = Some(bytes);
        }
        if self.state != State::Done {
            self.state = State::Done;
            if self.key.is_some() {
                self.leave()?;
            }
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
        let input = BufReader::with_capacity(buffer, text.as_bytes());
        collect(Elements::new(input))
    }

    fn under(text: &str, buffer: usize) -> Result<Vec<String>, String> {
        let input = BufReader::with_capacity(buffer, text.as_bytes());
        collect(Elements::under("data", input))
    }

    fn collect(elements: Elements<impl BufRead>) -> Result<Vec<String>, String> {
        elements
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

    #[test]
    fn a_list_is_found_under_its_key_wherever_it_stands() {
        let found = Ok(vec!["1".to_string(), "{\"data\": [2]}".to_string()]);
        for text in [
            r#"{"data": [1, {"data": [2]}]}"#,
            r#" { "version":"1,1}" , "a\"b" : {"data": [7]}, "data" :[1,{"data": [2]}] } "#,
            r#"{"data": [1, {"data": [2]}], "version": [3, {}], "more": "}"}"#,
        ] {
            for buffer in [1, 2, 3, 7, 1000] {
                assert_eq!(under(text, buffer), found, "{text}");
            }
        }
        for (text, what) in [
            ("[1]", "it does not begin with {"),
            ("", "it does not begin with {"),
            (r#"{"a": 1}"#, "it has no list of articles, `data`"),
            (r#"{"data": {}}"#, "it does not begin with ["),
            (r#"{"data": [1]"#, "neither a comma nor } follows the list"),
            (r#"{"data": [1]} x"#, "something follows the list"),
            (r#"{"data": [1"#, "it ends within the list"),
            (r#"{"data" [1]}"#, "a colon is missing behind a name"),
            (r#"{data: [1]}"#, "a name in quotes is missing"),
            (r#"{"da"#, "a name in quotes is missing"),
            (r#"{"data": [1], "x": 2"#, "it ends within the list"),
        ] {
            assert_eq!(under(text, 3), Err(what.to_string()), "{text}");
        }
    }
}
