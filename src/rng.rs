//! Counter-based random numbers: the value at (seed, stream, counter) is a pure
//! function, so shuffling, initialisation and dropout can be replayed from
//! anywhere, which is what recomputation and bit-exact resume need.
//!
//! The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)
//! applied to a Weyl sequence keyed by seed and stream.

const WEYL: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One independent sequence of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream of `seed` named by `path`, e.g. `[DROPOUT, step, layer]`.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        let mut key = mix(seed.wrapping_add(WEYL));
        for &part in path {
            key = mix(key ^ mix(part.wrapping_add(WEYL)));
        }
        Self { key }
    }

    /// The same sequence from counter `first` on.
    pub fn from(self, first: u64) -> Self {
        let key = self.key.wrapping_add(first.wrapping_mul(WEYL));
        Self { key }
    }

    /// What [`Stream::bits`] mixes with the counter.
    #[cfg(feature = "gpu")]
    pub(crate) fn key(self) -> u64 {
        self.key
    }

    /// The 64 random bits at `counter`.
    #[inline]
    pub fn bits(self, counter: u64) -> u64 {
        mix(self.key.wrapping_add(counter.wrapping_mul(WEYL)))
    }

    /// Uniform in [0, 1) at `counter`, on the grid of 2^-24, exact in f32.
    #[inline]
    pub fn uniform(self, counter: u64) -> f32 {
        (self.bits(counter) >> 40) as f32 * (1.0 / (1u64 << 24) as f32)
    }

    /// A standard normal value at `counter` (Box and Muller, 1958).
    pub fn normal(self, counter: u64) -> f32 {
        let bits = self.bits(counter);
        let u = ((bits >> 32) as f64 + 1.0) / 4_294_967_297.0;
        let v = (bits & 0xFFFF_FFFF) as f64 / 4_294_967_296.0;
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// A random order of `0..n` (Fisher and Yates).
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            // The bias of multiply-shift is below 2^-32 for any real data set.
            let j = ((u128::from(self.bits(i as u64)) * (i as u128 + 1)) >> 64) as usize;
            order.swap(i, j);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_replay_and_differ() {
        let a = Stream::new(42, &[1, 7]);
        assert_eq!(a.bits(5), Stream::new(42, &[1, 7]).bits(5));
        assert_eq!(a.from(3).bits(5), a.bits(8));
        assert_ne!(a.bits(5), Stream::new(42, &[7, 1]).bits(5));
        assert_ne!(a.bits(5), Stream::new(43, &[1, 7]).bits(5));
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let s = Stream::new(3, &[]);
        let n = 200_000;
        let mean = (0..n).map(|i| f64::from(s.uniform(i))).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 3e-3, "{mean}");
        let z: Vec<f64> = (0..n).map(|i| f64::from(s.normal(i))).collect();
        let mean = z.iter().sum::<f64>() / n as f64;
        let var = z.iter().map(|v| v * v).sum::<f64>() / n as f64;
        assert!(
            mean.abs() < 0.01 && (var - 1.0).abs() < 0.02,
            "{mean} {var}"
        );
    }

    #[test]
    fn permutation_is_a_permutation() {
        let mut p = Stream::new(9, &[2]).permutation(101);
        assert_ne!(p, (0..101).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..101).collect::<Vec<_>>());
        assert!(Stream::new(9, &[2]).permutation(0).is_empty());
    }
}
