//! Short samples packed into sequences of up to `max_seq_length` tokens.
//!
//! A pack is only a group: each of its samples stays a sequence of its own, with its
//! own positions, and attends to nothing outside itself. What packing changes is what
//! counts as one example of a batch.

use crate::config::types::TrainingConfig;
use crate::rng::Stream;

/// Names the stream of this file.
const PACKING: u64 = 0x9AC4;

/// The samples of each example of a batch: one each, or a pack each.
pub type Packs = Vec<Vec<usize>>;

/// Every sample by itself.
pub fn alone(samples: usize) -> Packs {
    (0..samples).map(|i| vec![i]).collect()
}

/// What `training.packing` makes of samples of these lengths.
pub fn packs(lengths: &[usize], training: &TrainingConfig, seed: u64) -> Packs {
    match training.packing {
        true => first_fit(lengths, training.max_seq_length, seed, training.shuffle),
        false => alone(lengths.len()),
    }
}

/// First fit: the samples, in an order that `seed` gives (that of the file where
/// `shuffle` is false), go each into the first pack that has room for it. No pack is
/// longer than `most` tokens but of a single sample that is.
pub fn first_fit(lengths: &[usize], most: usize, seed: u64, shuffle: bool) -> Packs {
    let order = match shuffle {
        true => Stream::new(seed, &[PACKING]).permutation(lengths.len()),
        false => (0..lengths.len()).collect(),
    };
    let mut rooms = Rooms::new(lengths.len());
    let mut packs: Packs = Vec::new();
    for sample in order {
        let length = lengths[sample];
        match rooms.first(length, packs.len()) {
            Some(pack) => {
                packs[pack].push(sample);
                rooms.set(pack, rooms.get(pack) - length);
            }
            None => {
                rooms.set(packs.len(), most.saturating_sub(length));
                packs.push(vec![sample]);
            }
        }
    }
    packs
}

/// The free tokens of each pack under a tree of maxima, so that the first pack with
/// room is found without looking at all of them.
struct Rooms {
    /// Node i has the children 2i and 2i + 1; the leaves begin at `leaves`.
    largest: Vec<usize>,
    leaves: usize,
}

impl Rooms {
    fn new(packs: usize) -> Self {
        let leaves = packs.next_power_of_two();
        Self {
            largest: vec![0; 2 * leaves],
            leaves,
        }
    }

    fn get(&self, pack: usize) -> usize {
        self.largest[self.leaves + pack]
    }

    fn set(&mut self, pack: usize, room: usize) {
        let mut node = self.leaves + pack;
        self.largest[node] = room;
        while node > 1 {
            node /= 2;
            self.largest[node] = self.largest[2 * node].max(self.largest[2 * node + 1]);
        }
    }

    /// The first of the `packs` with room for `length` tokens.
    fn first(&self, length: usize, packs: usize) -> Option<usize> {
        let mut node = 1;
        if packs == 0 || self.largest[node] < length {
            return None;
        }
        while node < self.leaves {
            node *= 2;
            if self.largest[node] < length {
                node += 1;
            }
        }
        Some(node - self.leaves).filter(|pack| *pack < packs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow_first_fit(lengths: &[usize], order: &[usize], most: usize) -> Packs {
        let mut packs: Packs = Vec::new();
        for &sample in order {
            let fits = |pack: &&mut Vec<usize>| {
                pack.iter().map(|i| lengths[*i]).sum::<usize>() + lengths[sample] <= most
            };
            match packs.iter_mut().find(fits) {
                Some(pack) => pack.push(sample),
                None => packs.push(vec![sample]),
            }
        }
        packs
    }

    #[test]
    fn packs_equal_those_of_the_slow_search() {
        let random = Stream::new(29, &[]);
        for case in 0..300u64 {
            let n = random.bits(case * 1000) as usize % 70;
            let most = 1 + random.bits(case * 1000 + 1) as usize % 60;
            let lengths: Vec<usize> = (0..n as u64)
                .map(|i| 1 + random.bits(case * 1000 + 2 + i) as usize % most)
                .collect();
            let plain: Vec<usize> = (0..n).collect();
            let in_order = first_fit(&lengths, most, 5, false);
            assert_eq!(in_order, slow_first_fit(&lengths, &plain, most), "{case}");

            let packs = first_fit(&lengths, most, case, true);
            let mut all = packs.concat();
            all.sort_unstable();
            assert_eq!(all, plain, "{case}: each sample once");
            for pack in &packs {
                assert!(pack.iter().map(|i| lengths[*i]).sum::<usize>() <= most);
            }
            assert_eq!(packs, first_fit(&lengths, most, case, true));
        }
    }

    #[test]
    fn the_seed_gives_the_order_and_long_samples_stay_alone() {
        let lengths = [3; 40];
        let packs = |seed| first_fit(&lengths, 12, seed, true);
        assert_ne!(packs(1), packs(2));
        assert_eq!(packs(1).len(), 10);
        assert_eq!(first_fit(&[9, 2, 9], 5, 0, false), [[0], [1], [2]]);
        assert_eq!(
            first_fit(&[0, 0, 7], 5, 0, false),
            vec![vec![0, 1], vec![2]]
        );
        assert_eq!(first_fit(&[], 5, 0, true), Packs::new());
        assert_eq!(alone(2), [[0], [1]]);
    }
}
