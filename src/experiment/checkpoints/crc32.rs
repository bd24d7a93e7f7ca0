//! CRC-32 with the IEEE polynomial, as zlib computes it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::super::fsx::FsError;

/// The checksum of a file's content.
pub fn of_file(path: &Path) -> Result<u32, FsError> {
    let fail = |e| FsError::new("read", path, e);
    let mut file = File::open(path).map_err(fail)?;
    let mut buffer = vec![0; 1 << 20];
    let mut crc = 0;
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return Ok(crc),
            n => crc = update(crc, &buffer[..n]),
        }
    }
}

/// CRC-32 continued from `crc` (0 to begin), eight bytes at a time by the
/// slicing tables of Kounavis and Berry (ISCC 2005).
pub fn update(crc: u32, bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables();
    let mut crc = !crc;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk) ^ u64::from(crc);
        crc = 0;
        for (i, byte) in word.to_le_bytes().into_iter().enumerate() {
            crc ^= TABLES[7 - i][usize::from(byte)];
        }
    }
    for &byte in rest {
        crc = (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    !crc
}

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (0xEDB8_8320 * (value & 1));
            bit += 1;
        }
        tables[0][i] = value;
        i += 1;
    }
    let mut t = 1;
    while t < 8 {
        let mut i = 0;
        while i < 256 {
            let before = tables[t - 1][i];
            tables[t][i] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            i += 1;
        }
        t += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(update(0, b"123456789"), 0xCBF4_3926);
        assert_eq!(update(update(0, b"12345"), b"6789"), 0xCBF4_3926);
        let long: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let by_byte = long.iter().fold(0, |crc, b| update(crc, &[*b]));
        assert_eq!(update(0, &long), by_byte);
    }
}
