//! SHA-256 of what is read, and digests as text.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// Adds all of `input` to `hash`; its length.
pub fn hash_all(mut input: impl Read, hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                length += count as u64;
                hash.update(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
