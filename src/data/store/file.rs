//! The bytes of a store: written once from front to back, checked when opened.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::{Backing, ENTRY, Said, Store, pack};
use crate::data::sample::{Brief, Sample};
use crate::digest::hash_all;

/// What a file begins with; the last byte is the version of the layout.
pub(in crate::data) const MARK: &[u8; 8] = b"KILNTOK\x01";
/// Three lengths and a hash.
const FOOTER: usize = 3 * 8 + 32;

/// Writes samples one after another.
pub(in crate::data) struct Writer<W> {
    out: W,
    /// `None` where nobody will check it.
    hash: Option<Sha256>,
    at: u64,
    entries: Vec<u8>,
    words: Vec<u32>,
    bytes: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, hashed: bool) -> io::Result<Self> {
        let mut writer = Self {
            out,
            hash: hashed.then(Sha256::new),
            at: 0,
            entries: Vec::new(),
            words: Vec::new(),
            bytes: Vec::new(),
        };
        writer.put(MARK)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    pub fn push(&mut self, sample: &Sample) -> io::Result<()> {
        pack(sample, &mut self.words);
        let brief = Brief::of(sample);
        let entry = [self.at, brief.row as u64].map(u64::to_le_bytes);
        self.entries.extend(entry.as_flattened());
        let counts = [self.words.len(), brief.tokens, brief.supervised, brief.cut];
        for count in counts {
            let count = u32::try_from(count).map_err(io::Error::other)?;
            self.entries.extend(count.to_le_bytes());
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        self.put(&bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Writes the rest; gives back what was written to, and the length of the samples.
    pub fn finish(mut self, said: &Said) -> io::Result<(W, u64)> {
        let samples = self.at;
        let entries = std::mem::take(&mut self.entries);
        let said = serde_json::to_vec(said).map_err(io::Error::other)?;
        self.put(&entries)?;
        self.put(&said)?;
        let lengths = [samples, entries.len() as u64, said.len() as u64];
        self.put(lengths.map(u64::to_le_bytes).as_flattened())?;
        if let Some(hash) = self.hash.take() {
            self.out.write_all(&hash.finalize())?;
        }
        self.out.flush()?;
        Ok((self.out, samples))
    }
}

impl Writer<Vec<u8>> {
    /// The store in memory.
    pub fn into_store(self, said: Said) -> io::Result<Store> {
        let count = self.entries.len() / ENTRY;
        let (bytes, samples) = self.finish(&said)?;
        Ok(Store {
            bytes: Backing::Memory(bytes),
            entries: samples as usize,
            count,
            said,
        })
    }
}

/// Why a file is no store.
#[derive(Debug)]
pub(in crate::data) enum Damage {
    Io(io::Error),
    What(&'static str),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Damage::Io(error)
    }
}

/// Maps the file at `path` after reading it once against its hash.
pub(in crate::data) fn open(path: &Path) -> Result<Store, Damage> {
    map(&File::open(path)?)
}

/// [`open`] for a file that was just opened; it may lose its name.
pub(in crate::data) fn map(file: &File) -> Result<Store, Damage> {
    let length = file.metadata()?.len();
    let short = Damage::What("it is cut off");
    let Some(hashed) = length.checked_sub(32) else {
        return Err(short);
    };
    let mut hash = Sha256::new();
    hash_all(file.take(hashed), &mut hash)?;
    // SAFETY: the file is written under another name and never changed afterwards.
    let map = unsafe { Mmap::map(file) }?;
    let footer = (map.len().checked_sub(FOOTER)).ok_or(short)?;
    if hash.finalize()[..] != map[map.len() - 32..] || map.len() as u64 != length {
        return Err(Damage::What("its checksum does not match"));
    }
    if !map.starts_with(MARK) {
        return Err(Damage::What("it is of another version"));
    }
    let lengths: Vec<usize> = (0..3).map(|i| super::long(&map, footer + 8 * i)).collect();
    let &[entries, size, said] = &lengths[..] else {
        return Err(Damage::What("it has no lengths"));
    };
    if entries.checked_add(size).and_then(|n| n.checked_add(said)) != Some(footer) {
        return Err(Damage::What("its lengths do not match"));
    }
    let said = serde_json::from_slice(&map[entries + size..footer])
        .map_err(|_| Damage::What("its figures cannot be read"))?;
    Ok(Store {
        entries,
        count: size / ENTRY,
        bytes: Backing::File(map),
        said,
    })
}
