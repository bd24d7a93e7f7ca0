//! The same products by the matrix units of NVIDIA's cards, where the weights are in NF4.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;

use super::{Member, Then, Weight};
use crate::ops::gpu::cuda::{self, Family, FewRows, Finish};

/// `None` where the card has no such kernel, or it does not take these.
pub fn products(
    x: &CubeTensor,
    members: &[Member<'_>],
    then: &Then<'_>,
) -> Option<Vec<CubeTensor>> {
    // What every launch asks comes first.
    let nf4 = matches!(members.first()?.weight, Weight::Nf4(_));
    if !nf4 || x.dtype != DType::BF16 || !cuda::on(x, Family::FewRows) {
        return None;
    }
    let of_member = |member: &'_ Member<'_>| match &member.weight {
        Weight::Nf4(weight) => weight.cuda_buffers(),
        Weight::Dense(_) => None,
    };
    let weights = members.iter().map(of_member).collect::<Option<Vec<_>>>()?;
    let members: Vec<FewRows<'_>> = members
        .iter()
        .zip(weights)
        .map(|(member, weight)| FewRows {
            weight,
            low: member.low.as_ref().map(|[left, right]| [left, right]),
            bias: member.bias.as_ref(),
        })
        .collect();
    let finish = match then {
        Then::Nothing => Finish::Nothing,
        Then::Add(other) => Finish::Add(other),
        Then::SwiGlu => Finish::SwiGlu,
    };
    cuda::few_rows(x, &members, &finish)
}
