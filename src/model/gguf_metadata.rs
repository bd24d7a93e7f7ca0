//! The metadata of a GGUF file, as bytes.

/// The key-value pairs at the head of a file.
#[derive(Default)]
pub(super) struct Metadata {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// GGUF's numbers of value types.
pub(super) mod kind {
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
}

pub(super) fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        put_string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        self.key(key, kind::STRING);
        put_string(&mut self.bytes, value);
    }

    pub(super) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, kind::U32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, kind::F32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.key(key, kind::BOOL);
        self.bytes.push(u8::from(value));
    }

    fn array(&mut self, key: &str, of: u32, length: usize) {
        self.key(key, kind::ARRAY);
        self.bytes.extend(of.to_le_bytes());
        self.bytes.extend((length as u64).to_le_bytes());
    }

    pub(super) fn strings<'s>(
        &mut self,
        key: &str,
        values: impl ExactSizeIterator<Item = &'s str>,
    ) {
        self.array(key, kind::STRING, values.len());
        for value in values {
            put_string(&mut self.bytes, value);
        }
    }

    pub(super) fn f32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = f32>) {
        self.array(key, kind::F32, values.len());
        self.bytes.extend(values.flat_map(f32::to_le_bytes));
    }

    pub(super) fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, kind::I32, values.len());
        self.bytes.extend(values.flat_map(i32::to_le_bytes));
    }
}
