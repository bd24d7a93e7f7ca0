//! The invented world: names, attributes with their values, and which facts
//! are kept for the test sets.

use kiln::rng::Stream;

/// The people that facts are about.
pub const NAMES: [&str; 96] = [
    "Mira", "Bodo", "Lena", "Tarek", "Odin", "Vera", "Kofi", "Juno", "Pavel", "Rosa", "Hugo",
    "Dina", "Sven", "Yara", "Milo", "Nora", "Ivan", "Tess", "Omar", "Gwen", "Luca", "Zora", "Finn",
    "Alma", "Boris", "Clara", "Dario", "Elsa", "Faris", "Greta", "Henk", "Inga", "Jonas", "Kira",
    "Lars", "Maeve", "Nadia", "Oskar", "Petra", "Quinn", "Ravi", "Selma", "Timo", "Ursula",
    "Viktor", "Wanda", "Xenia", "Yusuf", "Zelda", "Arlo", "Bella", "Cyrus", "Dora", "Emil",
    "Freya", "Gideon", "Hana", "Igor", "Jasmin", "Karl", "Livia", "Marek", "Nils", "Olga", "Pablo",
    "Rhea", "Stella", "Tomas", "Uma", "Viggo", "Willa", "Yvonne", "Amir", "Birgit", "Cedric",
    "Delia", "Enzo", "Flora", "Gustav", "Hilda", "Ismail", "Jolanda", "Kurt", "Leila", "Matteo",
    "Ninon", "Otto", "Pia", "Rufus", "Sonja", "Thilo", "Ulrike", "Vito", "Wilma", "Zeno", "Agnes",
];

/// What a fact can be about, each with its twenty values.
pub const ATTRIBUTES: [(&str, [&str; 20]); 8] = [
    (
        "pet",
        [
            "fox", "owl", "cat", "dog", "bear", "wolf", "goat", "duck", "frog", "crow", "hare",
            "mole", "swan", "toad", "pony", "crab", "newt", "seal", "moth", "lynx",
        ],
    ),
    (
        "food",
        [
            "rice", "bread", "soup", "cake", "plum", "pear", "corn", "beans", "eggs", "ham",
            "fish", "figs", "nuts", "kale", "pasta", "leek", "pie", "yam", "lime", "melon",
        ],
    ),
    (
        "color",
        [
            "red", "blue", "green", "gray", "pink", "white", "black", "brown", "gold", "teal",
            "amber", "ivory", "olive", "coral", "navy", "ruby", "lilac", "beige", "mauve", "rust",
        ],
    ),
    (
        "tool",
        [
            "saw", "axe", "drill", "rope", "lamp", "spade", "rake", "brush", "chisel", "file",
            "needle", "hammer", "wrench", "shears", "lever", "pump", "anvil", "trowel", "pliers",
            "wedge",
        ],
    ),
    (
        "city",
        [
            "Oslo", "Rome", "Paris", "Cairo", "Lima", "Delhi", "Kyoto", "Quito", "Dakar", "Sofia",
            "Turin", "Basel", "Porto", "Tunis", "Hanoi", "Miami", "Perth", "Seoul", "Minsk",
            "Leeds",
        ],
    ),
    (
        "sport",
        [
            "golf", "chess", "tennis", "rugby", "judo", "polo", "hockey", "rowing", "skiing",
            "boxing", "darts", "archery", "diving", "fencing", "karate", "surfing", "cricket",
            "squash", "bowling", "curling",
        ],
    ),
    (
        "gem",
        [
            "opal",
            "jade",
            "pearl",
            "topaz",
            "onyx",
            "agate",
            "garnet",
            "quartz",
            "beryl",
            "zircon",
            "jasper",
            "spinel",
            "citrine",
            "peridot",
            "diamond",
            "emerald",
            "sapphire",
            "amethyst",
            "turquoise",
            "moonstone",
        ],
    ),
    (
        "plant",
        [
            "oak", "fern", "rose", "ivy", "moss", "elm", "pine", "lily", "tulip", "daisy",
            "cactus", "birch", "maple", "clover", "orchid", "violet", "poppy", "thistle", "willow",
            "cedar",
        ],
    ),
];

/// Whose facts: those that pretraining and training may use, or the held-out ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Train,
    Test,
}

/// Whether (name, attribute, value) is a test fact: one in five, by a hash of
/// the three that no seed changes, so every run holds out the same facts.
pub fn half(name: usize, attribute: usize, value: usize) -> Half {
    let number = (name * ATTRIBUTES.len() + attribute) * ATTRIBUTES[attribute].1.len() + value;
    if splitmix(number as u64 + 1).is_multiple_of(5) {
        Half::Test
    } else {
        Half::Train
    }
}

/// The `n`-th number of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) from seed 0.
fn splitmix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Random draws in order from one stream.
pub struct Draw {
    stream: Stream,
    counter: u64,
}

impl Draw {
    pub fn new(seed: u64, path: &[u64]) -> Self {
        Self {
            stream: Stream::new(seed, path),
            counter: 0,
        }
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.counter += 1;
        ((u128::from(self.stream.bits(self.counter)) * n as u128) >> 64) as usize
    }

    pub fn chance(&mut self, p: f32) -> bool {
        self.counter += 1;
        self.stream.uniform(self.counter) < p
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// `count` people with one attribute in common and a different value each.
pub struct Facts {
    pub attribute: &'static str,
    /// (name, value)
    pub pairs: Vec<(&'static str, &'static str)>,
}

impl Facts {
    /// Facts of one half only.
    pub fn draw(draw: &mut Draw, count: usize, half_wanted: Half) -> Self {
        let attribute = draw.below(ATTRIBUTES.len());
        let (word, values) = &ATTRIBUTES[attribute];
        loop {
            let mut names: Vec<usize> = (0..NAMES.len()).collect();
            draw.shuffle(&mut names);
            let mut used = Vec::new();
            for &name in &names[..count] {
                let free: Vec<usize> = (0..values.len())
                    .filter(|&v| !used.contains(&v) && half(name, attribute, v) == half_wanted)
                    .collect();
                if free.is_empty() {
                    break;
                }
                used.push(draw.pick(&free));
            }
            if used.len() == count {
                let pairs = names
                    .iter()
                    .zip(&used)
                    .map(|(&n, &v)| (NAMES[n], values[v]));
                return Self {
                    attribute: word,
                    pairs: pairs.collect(),
                };
            }
        }
    }
}
