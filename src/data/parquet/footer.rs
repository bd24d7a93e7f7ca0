//! A file's schema as its footer holds it, walked before the crate builds it: the crate
//! goes down the stack with each level of nesting, and no error can be made of a stack
//! that overflows.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::MAGIC;
use super::shape::DEEPEST;

/// Types of Thrift's compact protocol.
const STOP: u8 = 0;
const I32: u8 = 5;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Structs within one another in an element of the schema; the format has three.
const STRUCTS: usize = 16;

/// Refuses a schema that is nested too deep or whose groups have more fields than there
/// are. Whatever else may be wrong is for the crate to say.
///
/// # Errors
/// What makes the schema unusable.
pub(super) fn check(file: &File) -> Result<(), String> {
    match read(file) {
        Some(footer) => Reader { rest: &footer }
            .schema()
            .unwrap_or_else(|| Err("its footer does not begin with a schema".to_string())),
        None => Ok(()),
    }
}

/// The bytes of the footer; `None` where the file has none.
fn read(file: &File) -> Option<Vec<u8>> {
    let end = file.metadata().ok()?.len().checked_sub(8)?;
    let mut tail = [0; 8];
    file.read_exact_at(&mut tail, end).ok()?;
    let [a, b, c, d, magic @ ..] = tail;
    if magic.as_slice() != MAGIC {
        return None;
    }
    let length = u32::from_le_bytes([a, b, c, d]);
    let start = end.checked_sub(u64::from(length))?;
    let mut footer = vec![0; length as usize];
    file.read_exact_at(&mut footer, start).ok()?;
    Some(footer)
}

/// Reads Thrift's compact protocol; `None` is bytes that are not what they should be.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    /// Walks the list of schema elements, which every writer puts behind the version.
    fn schema(&mut self) -> Option<Result<(), String>> {
        let (mut kind, mut id) = self.field(0)?;
        if id == 1 {
            self.number()?;
            (kind, id) = self.field(id)?;
        }
        if (kind, id) != (LIST, 2) {
            return None;
        }
        let (kind, count) = self.list()?;
        if kind != STRUCT || count > self.rest.len() as u64 {
            return None;
        }
        // The groups around an element, and how many fields of each are still to come.
        let mut groups: Vec<u64> = Vec::new();
        for left in (0..count).rev() {
            let children = self.element()?;
            while groups.last() == Some(&0) {
                groups.pop();
            }
            if let Some(due) = groups.last_mut() {
                *due -= 1;
            }
            // The outermost group is the file.
            if groups.len() > DEEPEST + 1 {
                let what = format!("its columns are nested deeper than {DEEPEST}");
                return Some(Err(what));
            }
            if children > left {
                return Some(Err("its schema contradicts itself".to_string()));
            }
            if children > 0 {
                groups.push(children);
            }
        }
        Some(Ok(()))
    }

    /// The number of fields of a schema element.
    fn element(&mut self) -> Option<u64> {
        let (mut last, mut children) = (0, 0);
        loop {
            let (kind, id) = self.field(last)?;
            // The crate reads by the field's number, whatever type is named.
            let wanted = match id {
                1..=3 | 5..=9 => I32,
                4 => BINARY,
                10 => STRUCT,
                _ => kind,
            };
            match (kind, id) {
                (STOP, _) => return Some(children),
                _ if kind != wanted => return None,
                // As the crate cuts it; a negative one is refused there.
                (_, 5) => children = u64::try_from(self.number()? as i32).unwrap_or(0),
                _ => self.skip(kind, STRUCTS)?,
            }
            last = id;
        }
    }

    /// Passes a field of a struct.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            // The type is the value.
            1 | 2 => Some(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(drop),
            7 => self.pass(8),
            BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            STRUCT if depth > 0 => loop {
                match self.field(0)? {
                    (STOP, _) => return Some(()),
                    (kind, _) => self.skip(kind, depth - 1)?,
                }
            },
            _ => None,
        }
    }

    /// The type and the number of a struct's next field.
    fn field(&mut self, last: i16) -> Option<(u8, i16)> {
        let head = self.byte()?;
        let kind = head & 0x0f;
        let id = match head >> 4 {
            _ if kind == STOP => 0,
            0 => self.number()? as i16,
            step => last.checked_add(i16::from(step))?,
        };
        Some((kind, id))
    }

    /// The type and the number of a list's elements.
    fn list(&mut self) -> Option<(u8, u64)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Some((head & 0x0f, count))
    }

    fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }
}
