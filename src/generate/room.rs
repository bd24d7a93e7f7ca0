//! Whether the cache for answers can be had at all, found before it is asked for: the
//! host's allocator ends the program where it cannot give that much.

use thiserror::Error;

use crate::device::memory_size;
use crate::model::hf_config::ArchConfig;

/// Room in the cache that answers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// At once: slots, each with its beams.
    pub sequences: usize,
    /// Tokens of a prompt and its answer.
    pub capacity: usize,
}

/// A cache that no machine, or not this one, has room for. The message lacks what to do,
/// which depends on the keys that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the cache for up to {} tokens in each of {} sequences takes {}, {}",
    room.capacity, room.sequences, memory_size(*bytes), self.most()
)]
pub struct NoRoom {
    room: Room,
    bytes: u64,
    /// What there is, where that is too little.
    memory: Option<u64>,
}

impl NoRoom {
    fn most(&self) -> String {
        match self.memory {
            Some(memory) => format!("more than all memory ({})", memory_size(memory)),
            None => "more than its rows can be counted".to_string(),
        }
    }
}

impl Room {
    /// Whether keys and values of `number` bytes each, and the table of positions, are
    /// within `memory` bytes, and the rows within what indices count.
    ///
    /// # Errors
    /// They are not.
    pub fn check(self, arch: &ArchConfig, number: u64, memory: Option<u64>) -> Result<(), NoRoom> {
        let rows = self.sequences as u128 * self.capacity as u128;
        let row = 2 * arch.num_layers * arch.num_kv_heads * arch.head_dim;
        let table = match arch.longest_sequence() {
            // Learned positions are there already.
            Some(_) => 0,
            // A cosine and a sine for each pair of a head's numbers.
            None => 2 * self.capacity as u128 * (arch.head_dim / 2) as u128 * 4,
        };
        // Saturating: the settings may be anything.
        let bytes = rows.saturating_mul(row as u128 * u128::from(number));
        let bytes = bytes.saturating_add(table);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let memory = memory.filter(|memory| bytes > *memory);
        match rows > u128::from(u32::MAX) || memory.is_some() {
            true => Err(NoRoom {
                room: self,
                bytes,
                memory,
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_more_than_memory_or_indices_have_is_refused() {
        let text = r#"{"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
            "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}"#;
        let arch = ArchConfig::from_json(text, Path::new("config.json")).unwrap();
        let room = |sequences, capacity| Room {
            sequences,
            capacity,
        };
        // A row has 2 x 2 x 8 numbers, a position 4.
        let bytes = 3 * 100 * 32 * 2 + 100 * 4 * 4;
        assert_eq!(room(3, 100).check(&arch, 2, Some(bytes)), Ok(()));
        let error = room(3, 100).check(&arch, 2, Some(bytes - 1)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("up to 100 tokens in each of 3 sequences"),
            "{text}"
        );
        assert!(text.contains("more than all memory"), "{text}");
        let most = u32::MAX as usize;
        assert_eq!(room(1, most).check(&arch, 2, None), Ok(()));
        let error = room(2, most / 2 + 1).check(&arch, 2, None).unwrap_err();
        assert!(error.to_string().contains("can be counted"), "{error}");
        assert!(room(usize::MAX, usize::MAX).check(&arch, 4, None).is_err());
    }
}
