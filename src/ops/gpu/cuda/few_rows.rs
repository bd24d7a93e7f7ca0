//! Products of up to 16 rows with NF4 weights, as in decoding, by mma.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use super::gemm::{LowRank, Maxima, Nf4Buffers};
use super::kernel::{File, Kernel};
use crate::ops::gpu::tensors::{dims, empty};

/// Rows of the input that a kernel computes, of its two forms.
const ROWS: [usize; 2] = [8, 16];
/// Weights of a launch.
const MEMBERS: usize = 3;
const THREADS: u32 = 256;
/// Bytes of shared memory for so many rows: two steps of 1,024 numbers, and the gaps between the
/// words.
const fn shared(rows: usize) -> u32 {
    4096 * rows as u32 + 1024
}

/// A weight, and what its product has beside it.
pub struct FewRows<'a> {
    pub weight: Nf4Buffers,
    pub low: Option<LowRank<'a>>,
    /// `[1, out]`.
    pub bias: Option<&'a CubeTensor>,
}

/// What comes of the products.
pub enum Finish<'a> {
    Nothing,
    /// Something is added to the only one.
    Add(&'a CubeTensor),
    /// The first one's SiLU times the second.
    SwiGlu,
}

/// `x . W^T` of each member with all that it has beside it; `None` where the kernel does not
/// take the shapes.
pub fn few_rows(
    x: &CubeTensor,
    members: &[FewRows<'_>],
    finish: &Finish<'_>,
) -> Option<Vec<CubeTensor>> {
    let [rows, k] = dims(x);
    let rows_of_form = *ROWS.iter().find(|most| rows <= **most)?;
    if rows == 0 || members.is_empty() || members.len() > MEMBERS || !k.is_multiple_of(64) {
        return None;
    }
    let double = |member: &FewRows<'_>| matches!(member.weight.maxima, Maxima::Double { .. });
    let bias = |member: &FewRows<'_>| member.bias.map(|bias| bias.dtype);
    let alike = |member: &FewRows<'_>| {
        double(member) == double(&members[0])
            && bias(member) == bias(&members[0])
            && member.weight.shape[1] == k
    };
    let bf16 = |tensor: &CubeTensor| tensor.dtype == DType::BF16;
    let added = match finish {
        Finish::Add(other) => Some(*other),
        Finish::Nothing | Finish::SwiGlu => None,
    };
    let lows = || members.iter().filter_map(|member| member.low);
    if !members.iter().all(alike)
        || ![x]
            .into_iter()
            .chain(added)
            .chain(lows().flatten())
            .all(bf16)
    {
        return None;
    }
    let bias_form = match bias(&members[0]) {
        None => 0,
        Some(DType::BF16) => 1,
        Some(DType::F32) => 2,
        Some(_) => return None,
    };
    let rank = |member: &FewRows<'_>| member.low.map_or(0, |[left, _]| dims(left)[1]);
    let low_form = match () {
        () if lows().next().is_none() => 0,
        () if members.iter().all(|m| rank(m).is_multiple_of(8)) => 8,
        () => 1,
    };
    let (then, written, width) = match finish {
        Finish::Nothing => (0, members, 32),
        Finish::Add(_) => (1, members, 32),
        Finish::SwiGlu => (2, &members[..1], 16),
    };
    let columns = |member: &FewRows<'_>| member.weight.shape[0];
    let paired = members.len() == 2 && columns(&members[0]) == columns(&members[1]);
    if then == 1 && members.len() > 1 || then == 2 && !paired {
        return None;
    }

    let mut buffers = vec![x];
    let mut offsets = [0u64; MEMBERS];
    let mut map = None;
    for (member, offset) in members.iter().zip(&mut offsets) {
        buffers.push(&member.weight.codes);
        match &member.weight.maxima {
            Maxima::Plain(maxima) => buffers.push(maxima),
            Maxima::Double {
                codes,
                nested,
                map: of_codes,
                offset: added,
            } => {
                buffers.extend([codes, nested]);
                map = Some(of_codes);
                *offset = u64::from(added.to_bits());
            }
        }
        if low_form > 0 {
            // Of a rank of 0 nothing is read.
            buffers.extend(member.low.unwrap_or([x, x]));
        }
        buffers.extend(member.bias);
    }
    buffers.extend(map);
    buffers.extend(added);
    let y: Vec<CubeTensor> = written
        .iter()
        .map(|member| empty(x, &[rows, columns(member)], DType::BF16))
        .collect();
    let kernel = Kernel {
        file: File::Nf4Rows,
        entry: "nf4_rows",
        defines: vec![
            ("KILN_ROWS", rows_of_form as u32),
            ("KILN_DOUBLE_QUANT", u32::from(double(&members[0]))),
            ("KILN_MEMBERS", members.len() as u32),
            ("KILN_LOW", low_form),
            ("KILN_BIAS", bias_form),
            ("KILN_THEN", then),
        ],
        threads: THREADS,
        shared: shared(rows_of_form),
    };
    let of_each = |number: &dyn Fn(&FewRows<'_>) -> usize| {
        let mut words = [0u64; MEMBERS];
        let numbers = members.iter().map(|member| number(member) as u64);
        words
            .iter_mut()
            .zip(numbers)
            .for_each(|(word, n)| *word = n);
        words
    };
    let mut words = vec![rows as u64, k as u64];
    words.extend(of_each(&columns));
    words.extend(of_each(&rank));
    words.extend(offsets);
    let blocks: usize = written.iter().map(|m| columns(m).div_ceil(width)).sum();
    let outputs: Vec<&CubeTensor> = y.iter().collect();
    kernel.launch([blocks as u32, 1, 1], &buffers, &outputs, words);
    Some(y)
}
