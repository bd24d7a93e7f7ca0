//! Small damage to bytes: flips, cuts, copies, splices and pieces of grammar.

use super::corpus;
use super::rng::Rng;

/// Longer texts are cut: the tests of limits have the long ones.
const LONGEST: usize = 4_000;

/// Damages the bytes a few times over.
pub fn bytes(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.count() {
        once(rng, bytes);
    }
    bytes.truncate(LONGEST);
}

/// As [`bytes`], for a text.
pub fn text(rng: &mut Rng, text: &mut String) {
    let mut raw = std::mem::take(text).into_bytes();
    bytes(rng, &mut raw);
    *text = String::from_utf8_lossy(&raw).into_owned();
}

fn once(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.below(bytes.len() + 1);
    let end = (at + 1 + rng.count()).min(bytes.len());
    match rng.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = rng.next() as u8,
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy: Vec<u8> = bytes[at..end].repeat(1 + rng.count());
            bytes.splice(at..at, copy);
        }
        4 => {
            let other = rng.pick(corpus::FILES).as_bytes();
            let from = rng.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let source = match rng.below(6) {
                0 => corpus::SCALARS,
                1 => corpus::INTERPOLATIONS,
                2 => corpus::NAMES,
                _ => corpus::TOKENS,
            };
            let piece = rng.pick(source).as_bytes().repeat(match rng.below(60) {
                0 => 1 + rng.below(300),
                _ => 1,
            });
            bytes.splice(at..at, piece);
        }
    }
}
