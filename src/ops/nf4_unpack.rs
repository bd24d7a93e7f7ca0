//! 4-bit codes to numbers: two levels a byte from a table, eight at a time where
//! the CPU can permute a register (AVX2). Both give the same bits, one f32 product
//! of a level and its block's maximum.

use super::nf4_code::CODE;

/// The two levels of each packed byte.
const PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [CODE[byte >> 4], CODE[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Writes `scale * level` of the flat elements from `start` on.
pub fn unpack(packed: &[u8], start: usize, scale: f32, out: &mut [f32]) {
    let level = |i: usize| PAIRS[packed[i / 2] as usize][i % 2];
    let head = (start % 2).min(out.len());
    let (first, out) = out.split_at_mut(head);
    if let Some(first) = first.first_mut() {
        *first = level(start) * scale;
    }
    let start = start + head;
    let pairs = out.len() / 2;
    let bytes = &packed[start / 2..start / 2 + pairs];
    let (even, last) = out.split_at_mut(2 * pairs);
    unpack_pairs(bytes, scale, even);
    if let Some(last) = last.first_mut() {
        *last = level(start + 2 * pairs) * scale;
    }
}

/// Two numbers a byte, the high half first.
fn unpack_pairs(bytes: &[u8], scale: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        let whole = bytes.len() / 4;
        // SAFETY: AVX2 is there, and `out` holds eight numbers for each four bytes.
        unsafe { unpack_avx2(&bytes[..4 * whole], scale, &mut out[..8 * whole]) };
        return by_table(&bytes[4 * whole..], scale, &mut out[8 * whole..]);
    }
    by_table(bytes, scale, out);
}

fn by_table(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (out, byte) in out.chunks_exact_mut(2).zip(bytes) {
        let pair = PAIRS[*byte as usize];
        out[0] = pair[0] * scale;
        out[1] = pair[1] * scale;
    }
}

/// # Safety
/// The CPU must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn unpack_avx2(bytes: &[u8], scale: f32, out: &mut [f32]) {
    use std::arch::x86_64::*;
    // SAFETY: loads read the sixteen levels, stores write chunks of eight of `out`.
    unsafe {
        let low = _mm256_loadu_ps(CODE.as_ptr());
        let high = _mm256_loadu_ps(CODE.as_ptr().add(8));
        let scale = _mm256_set1_ps(scale);
        // The codes of a little-endian word: high half of byte 0, its low half, ...
        let shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
        for (bytes, out) in bytes.chunks_exact(4).zip(out.chunks_exact_mut(8)) {
            let word = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            // A permutation looks at the low three bits of each index.
            let codes = _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);
            let small = _mm256_permutevar8x32_ps(low, codes);
            let large = _mm256_permutevar8x32_ps(high, codes);
            // Bit 3 of the code, moved to the sign, chooses.
            let choose = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
            let levels = _mm256_blendv_ps(small, large, choose);
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_mul_ps(levels, scale));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn every_way_gives_the_bits_of_the_table() {
        let random = Stream::new(11, &[]);
        let packed: Vec<u8> = (0..300).map(|i| random.bits(i) as u8).collect();
        for (start, len) in [(0, 600), (1, 1), (1, 70), (3, 597), (8, 64), (2, 9), (5, 0)] {
            let scale = random.normal(start as u64 + 1000);
            let mut got = vec![0.0; len];
            unpack(&packed, start, scale, &mut got);
            for (i, got) in got.iter().enumerate() {
                let at = start + i;
                let code = match at % 2 {
                    0 => packed[at / 2] >> 4,
                    _ => packed[at / 2] & 15,
                };
                let want = CODE[usize::from(code)] * scale;
                assert_eq!(got.to_bits(), want.to_bits(), "{start}, {i}");
            }
        }
    }
}
