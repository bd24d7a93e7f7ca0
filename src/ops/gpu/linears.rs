//! Linear layers of a few rows together: LoRA's first products in one launch, all the
//! rest in another.

use burn::tensor::Tensor;
use burn_cubecl::tensor::CubeTensor;

use super::few_rows::{self, Member, Weight};
use super::tensors::{buffer, tensor};
use crate::ops::{HotOps, Low, Matrix, Nf4Tensor, Part, Then};

/// `None` where the rows are not few or the shapes do not suit.
pub fn of_few_rows(
    ops: &dyn HotOps,
    x: &Tensor<2>,
    parts: &[Part<'_>],
    then: &Then<'_>,
) -> Option<Vec<Tensor<2>>> {
    let rows = buffer(x);
    let mut members = parts.iter().map(member_of).collect::<Option<Vec<_>>>()?;
    if !few_rows::takes(&rows, &members) {
        return None;
    }
    let with_low = parts.iter().zip(&mut members);
    let (lows, lowered): (Vec<&Low>, Vec<&mut Member<'_>>) = with_low
        .filter_map(|(part, member)| Some((part.low.as_ref()?, member)))
        .unzip();
    let lefts = lefts(ops, x, &rows, &lows);
    for ((low, member), left) in lows.iter().zip(lowered).zip(lefts) {
        member.low = Some([left, buffer(&low.b)]);
    }
    let other = match then {
        Then::Add(other) => Some(buffer(other)),
        Then::Nothing | Then::SwiGlu => None,
    };
    let then = match (then, &other) {
        (Then::SwiGlu, _) => few_rows::Then::SwiGlu,
        (_, Some(other)) => few_rows::Then::Add(other),
        (_, None) => few_rows::Then::Nothing,
    };
    let y = few_rows::products(&rows, &members, &then)?;
    Some(y.into_iter().map(tensor).collect())
}

/// A linear without its low rank.
fn member_of<'a>(part: &'a Part<'_>) -> Option<Member<'a>> {
    let weight = match &part.weight {
        Matrix::Dense(weight) => Weight::Dense(buffer(weight)),
        Matrix::Nf4(Nf4Tensor::Gpu(weight)) => Weight::Nf4(weight),
        Matrix::Nf4(Nf4Tensor::Host(_)) => return None,
    };
    Some(Member {
        weight,
        factor: 1.0,
        low: None,
        bias: part.bias.as_ref().map(buffer),
    })
}

/// `scale x A^T` of each, in one launch where their ranks suit.
fn lefts(ops: &dyn HotOps, x: &Tensor<2>, rows: &CubeTensor, lows: &[&Low]) -> Vec<CubeTensor> {
    let member = |low: &&Low| Member::dense(&buffer(&low.a), low.scale);
    let members: Vec<_> = lows.iter().map(member).collect();
    let together = few_rows::products(rows, &members, &few_rows::Then::Nothing);
    together.unwrap_or_else(|| {
        let alone = |low: &&Low| buffer(&ops.gemm(x, false, &low.a, true, low.scale));
        lows.iter().map(alone).collect()
    })
}
