//! Products of a few rows with transposed weights, as in decoding, one or several
//! weights a launch. Any CubeCL runtime; in bf16 on NVIDIA's cards NF4 goes to the matrix units.

mod kernel;
#[cfg(feature = "cuda")]
mod matrix_units;

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::many::{buffers, firsts};
use super::nf4::{Buffers, GpuNf4, WORD};
use super::tensors::{cubes, dims, elem, empty, vector_size};
use kernel::{Form, Last, products_kernel};

/// Rows that are few: beyond them arithmetic takes longer than to read the weight.
const FEW: usize = 16;
const UNITS: usize = 128;

/// A product with `rows` that all members of a launch have.
pub struct Member<'a> {
    pub weight: Weight<'a>,
    /// On the product with a dense weight.
    pub factor: f32,
    /// Plus `left . right^T`, of `[rows, rank]` and `[columns, rank]`.
    pub low: Option<[CubeTensor; 2]>,
    /// `[1, columns]`.
    pub bias: Option<CubeTensor>,
}

/// `[columns, width]`.
pub enum Weight<'a> {
    Dense(CubeTensor),
    Nf4(&'a GpuNf4),
}

/// What comes of the outputs, as of [`crate::ops::Then`].
pub enum Then<'a> {
    Nothing,
    Add(&'a CubeTensor),
    SwiGlu,
}

impl<'a> Member<'a> {
    pub fn dense(weight: &CubeTensor, factor: f32) -> Self {
        Self {
            weight: Weight::Dense(weight.clone()),
            factor,
            low: None,
            bias: None,
        }
    }

    pub fn nf4(weight: &'a GpuNf4) -> Self {
        Self {
            weight: Weight::Nf4(weight),
            factor: 1.0,
            low: None,
            bias: None,
        }
    }

    fn shape(&self) -> [usize; 2] {
        match &self.weight {
            Weight::Dense(weight) => dims(weight),
            Weight::Nf4(weight) => weight.shape,
        }
    }

    fn rank(&self) -> usize {
        self.low.as_ref().map_or(0, |[left, _]| dims(left)[1])
    }

    /// What has to be alike in one launch: the kind of weight, with NF4 its blocks, the
    /// width, and whether there is a bias.
    fn kind(&self) -> (Option<(usize, bool)>, usize, bool) {
        let blocks = match &self.weight {
            Weight::Dense(_) => None,
            Weight::Nf4(weight) => Some((weight.block_size, weight.is_double())),
        };
        (blocks, self.shape()[1], self.bias.is_some())
    }
}

/// Rows of a weight that a cube has, for so many rows of the input: shared memory for
/// the sums of all units takes 16 KiB at most.
fn outputs(most: usize) -> usize {
    if most <= FEW / 2 { 4 } else { 2 }
}

/// Whether [`products`] makes these of `x`.
pub fn takes(x: &CubeTensor, members: &[Member<'_>]) -> bool {
    let rows = dims(x)[0];
    let Some(kind) = members.first().map(Member::kind) else {
        return false;
    };
    let suits = |member: &Member<'_>| {
        let [columns, width] = member.shape();
        let typed = match &member.weight {
            Weight::Dense(weight) => weight.dtype == x.dtype,
            Weight::Nf4(weight) => weight.block_size.is_multiple_of(WORD),
        };
        let outputs = outputs(rows.next_power_of_two());
        typed
            && member.kind() == kind
            && width > 0
            && width.is_multiple_of(WORD)
            && columns.is_multiple_of(outputs)
    };
    // Weight or codes and maxima, low rank, bias, output; rows, tables and what is added.
    let buffers = 8 * members.len() + 3;
    let most = x.client.properties().hardware.max_bindings as usize;
    (1..=FEW).contains(&rows) && buffers <= most && members.iter().all(suits)
}

/// `factor x . weight^T` with all that a member has beside it, in the type of `x`, and
/// what `then` makes of them: with [`Then::Add`] of one member, with [`Then::SwiGlu`] of
/// two of one shape. `None` where [`takes`] says no.
pub fn products(
    x: &CubeTensor,
    members: &[Member<'_>],
    then: &Then<'_>,
) -> Option<Vec<CubeTensor>> {
    if !takes(x, members) {
        return None;
    }
    #[cfg(feature = "cuda")]
    if let Some(y) = matrix_units::products(x, members, then) {
        return Some(y);
    }
    let [rows, width] = dims(x);
    let most = rows.next_power_of_two();
    let form = Form {
        nf4: matches!(members[0].weight, Weight::Nf4(_)),
        double: matches!(members[0].weight, Weight::Nf4(weight) if weight.is_double()),
        low: members.iter().any(|member| member.low.is_some()),
        bias: members[0].bias.is_some(),
        last: match then {
            Then::Nothing => Last::Nothing,
            Then::Add(_) => Last::Add,
            Then::SwiGlu => Last::SwiGlu,
        },
        most,
        outputs: outputs(most),
        units: UNITS,
    };
    let written = match then {
        Then::Nothing => members,
        Then::Add(_) | Then::SwiGlu => &members[..1],
    };
    let columns = |member: &Member<'_>| member.shape()[0];
    let y: Vec<CubeTensor> = written
        .iter()
        .map(|member| empty(x, &[rows, columns(member)], x.dtype))
        .collect();
    let (firsts, count) = firsts(written.iter().map(|m| columns(m) / form.outputs));
    let (mut dense, mut nf4) = (Vec::new(), Vec::<Buffers>::new());
    for member in members {
        match &member.weight {
            Weight::Dense(weight) => dense.push(weight),
            Weight::Nf4(weight) => nf4.push(weight.buffers()),
        }
    }
    let block_words = match members[0].weight {
        Weight::Dense(_) => 1,
        Weight::Nf4(weight) => weight.block_size / WORD,
    };
    // A member without has rank 0, of which nothing is read.
    let low = |side: usize| {
        let of = move |m: &'_ Member<'_>| m.low.as_ref().map_or(x, |low| &low[side]).clone();
        let all = members.iter().filter(|_| form.low).map(of);
        all.collect::<Vec<_>>()
    };
    let bias: Vec<_> = members.iter().filter_map(|m| m.bias.as_ref()).collect();
    let bias_kind = elem(bias.first().map_or(x, |bias| bias));
    let added: &[&CubeTensor] = match then {
        Then::Add(other) => &[*other],
        _ => &[],
    };
    let tables = nf4.first().map(|read| &read.tables);
    // SAFETY: `outputs` divides the columns, words the width; rows are clamped when
    // read, checked when written; a block of maxima for every `block_size` elements.
    unsafe {
        products_kernel::launch_unchecked(
            &x.client,
            cubes(count),
            CubeDim::new_1d(UNITS as u32),
            vector_size(WORD),
            x.clone().into_buffer_arg(),
            buffers(dense.iter().copied()),
            buffers(nf4.iter().map(|read| &read.codes)),
            buffers(nf4.iter().map(|read| &read.maxima)),
            buffers(nf4.iter().map(|read| &read.maxima_codes)),
            buffers(nf4.iter().map(|read| &read.nested)),
            buffers(tables.into_iter()),
            buffers(low(0).iter()),
            buffers(low(1).iter()),
            buffers(bias.iter().copied()),
            buffers(added.iter().copied()),
            buffers(y.iter()),
            written.iter().map(|m| columns(m) as u32).collect(),
            members.iter().map(|m| m.rank() as u32).collect(),
            members.iter().map(|m| m.factor).collect(),
            nf4.iter().map(|read| read.offset).collect(),
            firsts,
            rows,
            width / WORD,
            block_words,
            form,
            [elem(x), bias_kind],
        );
    }
    Some(y)
}
