//! What a device must get right before it runs these kernels: random inputs,
//! ragged tiles, every layout, against the CPU.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::attention::{FlashPlan, flash_backward, flash_forward, starts};
use super::few_rows::{FewRows, Finish, few_rows};
use super::gemm::{Maxima, Nf4Buffers, Product, nf4_product_on, product_on};
use super::{Family, Units, multiprocessors};
use crate::ops::cpu::{CPU, tensor2};
use crate::ops::gpu::attention_backward::delta_by_head;
use crate::ops::gpu::tensors::tensor;
use crate::ops::nf4::{self, Absmax, dynamic_map};
use crate::ops::{AttentionShape, HotOps, Span, Spans};
use crate::rng::Stream;

/// Relative error that bf16 explains: its mantissa has 8 bits.
const BOUND: f64 = 1e-2;
/// The same of a single number: so much of all numbers' root mean square, and so much of the largest.
/// A few numbers that are wrong would not show in the error of all.
const BOUND_OF_ONE: (f64, f64) = (0.1, 1.0 / 64.0);
/// Blocks that a kernel is tried with besides as many as the card runs at once: each then has
/// several tiles, one after another, as at the shapes of large models.
const FEW_BLOCKS: usize = 2;

struct Trial<'a> {
    like: &'a CubeTensor,
    /// Is told what comes next.
    say: &'a mut dyn FnMut(&str),
    random: Stream,
    drawn: u64,
}

/// Tries the kernels of a family; `say` is told of each comparison before it begins.
///
/// # Errors
/// The first kernel that fails or is wrong.
pub fn run(like: &CubeTensor, family: Family, say: &mut dyn FnMut(&str)) -> Result<(), String> {
    let mut trial = Trial {
        like,
        say,
        random: Stream::new(20_251, &[]),
        drawn: 0,
    };
    match family {
        Family::Nf4Products(units) => trial.nf4_products(units),
        Family::FewRows => trial.few_rows(),
        Family::Products(units) => trial.products(units),
        Family::Attention => {
            trial.attention(64, None)?;
            trial.attention(64, Some(40))?;
            trial.attention(128, None)
        }
    }
}

impl Trial<'_> {
    fn upload(&self, bytes: &[u8], shape: &[usize], dtype: DType) -> CubeTensor {
        let handle = self.like.client.create_from_slice(bytes);
        let (client, device) = (self.like.client.clone(), self.like.device.clone());
        CubeTensor::new_contiguous(client, device, Shape::from(shape.to_vec()), handle, dtype)
    }

    /// Normal numbers that bf16 holds, on the CPU and on the device.
    fn draw(&mut self, shape: [usize; 2]) -> (Tensor<2>, CubeTensor) {
        let n = (shape[0] * shape[1]) as u64;
        let numbers = (self.drawn..self.drawn + n).map(|i| self.random.normal(i));
        let halves: Vec<half::bf16> = numbers.map(half::bf16::from_f32).collect();
        self.drawn += n;
        let values = halves.iter().map(|h| h.to_f32()).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        let device = self.upload(&bytes, &shape, DType::BF16);
        (tensor2(values, shape), device)
    }

    fn nf4_products(&mut self, units: Units) -> Result<(), String> {
        let cards = multiprocessors(self.like) as usize;
        let (n, k) = (192, 320);
        let (w, _) = self.draw([n, k]);
        let values: Vec<f32> = w.into_data().iter::<f32>().collect();
        for (double, rows, cards) in [
            (true, 300, cards),
            (false, 70, cards),
            (true, 1100, FEW_BLOCKS),
        ] {
            let weight = nf4::quantize(&values, [n, k], 64, double);
            let mut dense = vec![0.0; n * k];
            weight.dequantize_into(&mut dense);
            for v in &mut dense {
                *v = half::bf16::from_f32(*v).to_f32();
            }
            let dense = tensor2(dense, [n, k]);
            let buffers = self.buffers(&weight);
            for transposed in [true, false] {
                let (x, gx) = self.draw([rows, if transposed { k } else { n }]);
                let (sum, gsum) = self.draw([rows, if transposed { n } else { k }]);
                let name =
                    format!("NF4 product of {rows} rows, transposed {transposed}, double {double}");
                let product = |low, sum| {
                    nf4_product_on(units, &gx, &buffers, low, sum, transposed, cards)
                        .map_err(|_| format!("{name}: not taken"))
                };
                (self.say)(&name);
                let want = CPU.gemm(&x, false, &dense, transposed, 1.0);
                compare(&name, product(None, None)?, &want)?;
                let want = CPU.add(sum, &want);
                compare(&name, product(None, Some(gsum.clone()))?, &want)?;
                // With a product of low rank, added to what the last one left.
                let rank = if double { 16 } else { 72 };
                let (left, gleft) = self.draw([rows, rank]);
                let (right, gright) = self.draw(match transposed {
                    true => [n, rank],
                    false => [rank, k],
                });
                let ranked = format!("{name}, with rank {rank}");
                (self.say)(&ranked);
                let want = CPU.add(want, &CPU.gemm(&x, false, &dense, transposed, 1.0));
                let want = CPU.gemm_add(want, &left, false, &right, transposed, 1.0);
                let low = Some([&gleft, &gright]);
                compare(&ranked, product(low, Some(gsum))?, &want)?;
            }
        }
        Ok(())
    }

    /// Decoding's products: several weights at once, and all that they have beside them.
    fn few_rows(&mut self) -> Result<(), String> {
        // Four steps, the last one ragged: each place in shared memory is filled twice.
        let k = 3392;
        for (double, rows, rank) in [(true, 3, 16), (false, 8, 4), (true, 13, 8)] {
            let mut members = Vec::new();
            for n in [96, 40, 40] {
                let (w, _) = self.draw([n, k]);
                let values: Vec<f32> = w.into_data().iter::<f32>().collect();
                let weight = nf4::quantize(&values, [n, k], 64, double);
                let mut dense = vec![0.0; n * k];
                weight.dequantize_into(&mut dense);
                for v in &mut dense {
                    *v = half::bf16::from_f32(*v).to_f32();
                }
                let [left, right] = [self.draw([rows, rank]), self.draw([n, rank])];
                let bias = self.draw([1, n]);
                members.push((
                    self.buffers(&weight),
                    tensor2(dense, [n, k]),
                    left,
                    right,
                    bias,
                ));
            }
            let (x, gx) = self.draw([rows, k]);
            let (other, gother) = self.draw([rows, 96]);
            let want = |member: usize| {
                let (_, dense, left, right, bias) = &members[member];
                let plain = CPU.gemm(&x, false, dense, true, 1.0);
                CPU.gemm_add(plain, &left.0, false, &right.0, true, 1.0) + bias.0.clone()
            };
            let of = |range: std::ops::Range<usize>| -> Vec<FewRows<'_>> {
                let all = members[range].iter();
                all.map(|(weight, _, left, right, bias)| FewRows {
                    weight: weight.clone(),
                    low: Some([&left.1, &right.1]),
                    bias: Some(&bias.1),
                })
                .collect()
            };
            // Without a bias, and low rank beside one weight alone, as where LoRA has some of them.
            let plain = |member: usize, low: bool| {
                let (_, dense, left, right, _) = &members[member];
                let plain = CPU.gemm(&x, false, dense, true, 1.0);
                match low {
                    true => CPU.gemm_add(plain, &left.0, false, &right.0, true, 1.0),
                    false => plain,
                }
            };
            let mut some = of(0..2);
            some.iter_mut().for_each(|member| member.bias = None);
            some[1].low = None;
            let name = format!("{rows} rows in NF4 with low rank beside one, double {double}");
            (self.say)(&name);
            let got = few_rows(&gx, &some, &Finish::Nothing);
            let got = got.ok_or_else(|| format!("{name}: not taken"))?;
            for (got, want) in got.into_iter().zip([plain(0, true), plain(1, false)]) {
                compare(&name, got, &want)?;
            }
            let gate = want(1);
            let gated = gate.clone() / (gate.neg().exp() + 1.0) * want(2);
            for (name, range, finish, wanted) in [
                (
                    "together",
                    0..3,
                    Finish::Nothing,
                    vec![want(0), want(1), want(2)],
                ),
                (
                    "with a sum",
                    0..1,
                    Finish::Add(&gother),
                    vec![want(0) + other],
                ),
                ("gated", 1..3, Finish::SwiGlu, vec![gated]),
            ] {
                let name = format!("{rows} rows in NF4 {name}, double {double}");
                (self.say)(&name);
                let got = few_rows(&gx, &of(range), &finish);
                let got = got.ok_or_else(|| format!("{name}: not taken"))?;
                for (got, want) in got.into_iter().zip(&wanted) {
                    compare(&name, got, want)?;
                }
            }
        }
        Ok(())
    }

    fn buffers(&self, weight: &nf4::Nf4) -> Nf4Buffers {
        let floats = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.upload(&bytes, &[values.len()], DType::F32)
        };
        let words = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            self.upload(&bytes, &[bytes.len() / 4], DType::U32)
        };
        Nf4Buffers {
            codes: words(&weight.packed),
            maxima: match &weight.absmax {
                Absmax::Plain(maxima) => Maxima::Plain(floats(maxima)),
                Absmax::Double {
                    codes,
                    nested_absmax,
                    offset,
                } => Maxima::Double {
                    codes: words(codes),
                    nested: floats(nested_absmax),
                    map: floats(dynamic_map()),
                    offset: *offset,
                },
            },
            shape: weight.shape,
        }
    }

    fn products(&mut self, units: Units) -> Result<(), String> {
        // A ragged one, a split contraction, one that fills the card with the largest
        // tiles; widths that vectors do not divide, of operands and of the result.
        let cards = multiprocessors(self.like) as usize;
        let large = 256 * cards.div_ceil(11);
        let shapes = [
            ([200, 72, 136], cards),
            ([16, 4096, 64], cards),
            ([large, 64, 1408], cards),
            ([large, 4, 1408], cards),
            ([70, 1030, 4], cards),
            ([1100, 328, 328], FEW_BLOCKS),
            // Too few of the largest tiles for so many: smaller ones.
            ([1100, 328, 328], 20),
            ([1100, 200, 332], FEW_BLOCKS),
            ([700, 200, 64], FEW_BLOCKS),
        ];
        for ([m, k, n], cards) in shapes {
            for (ta, tb) in [(false, true), (false, false), (true, false)] {
                for dtype in [DType::BF16, DType::F32] {
                    let name = format!("product {m}x{k}x{n} {ta}/{tb} in {dtype:?}");
                    (self.say)(&name);
                    let (a, ga) = self.draw(if ta { [k, m] } else { [m, k] });
                    let (b, gb) = self.draw(if tb { [n, k] } else { [k, n] });
                    let want = CPU.gemm(&a, ta, &b, tb, 0.5);
                    let with = Product {
                        a: &ga,
                        ta,
                        b: &gb,
                        tb,
                        scale: 0.5,
                        sum: None,
                        dtype,
                    };
                    let got = product_on(units, with, cards);
                    compare(&name, got.map_err(|_| format!("{name}: not taken"))?, &want)?;
                }
            }
        }
        Ok(())
    }

    fn attention(&mut self, head_dim: usize, window: Option<usize>) -> Result<(), String> {
        let shape = AttentionShape {
            heads: 4,
            kv_heads: 2,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window,
        };
        let mut spans = Spans::default();
        for (q_start, q_len) in [(0, 150), (150, 1), (151, 70)] {
            spans.push(Span {
                q_start,
                q_len,
                k_start: q_start,
                k_len: q_len,
            });
        }
        let rows = 221;
        let first = starts(&spans).ok_or("packed documents were not recognised")?;
        let bytes: Vec<u8> = first.iter().flat_map(|v| v.to_le_bytes()).collect();
        let plan = FlashPlan {
            shape,
            starts: self.upload(&bytes, &[rows], DType::U32),
        };
        let (q, gq) = self.draw([rows, 4 * head_dim]);
        let (k, gk) = self.draw([rows, 2 * head_dim]);
        let (v, gv) = self.draw([rows, 2 * head_dim]);
        let (dout, gdout) = self.draw([rows, 4 * head_dim]);
        let (out, lse) = CPU.attention(&q, &k, &v, &spans, shape);
        let name = format!("attention, heads of {head_dim}, window {window:?}");
        (self.say)(&name);
        let (gout, glse) = flash_forward(&plan, [&gq, &gk, &gv]);
        compare(&name, gout.clone(), &out)?;
        (self.say)(&format!("{name}, backward"));
        let delta = delta_by_head(gout, gdout.clone(), shape);
        let got = flash_backward(&plan, [&gq, &gk, &gv], &gdout, &glse, &delta);
        let want = CPU.attention_backward(&q, &k, &v, &out, &lse, &dout, &spans, shape);
        for (got, want) in got.into_iter().zip([want.0, want.1, want.2]) {
            compare(&format!("{name}, backward"), got, &want)?;
        }
        Ok(())
    }
}

fn compare(name: &str, got: CubeTensor, want: &Tensor<2>) -> Result<(), String> {
    let got = tensor::<2>(got).try_into_data();
    let got = got.map_err(|e| format!("{name}: {e:?}"))?;
    let want: Vec<f64> = want.clone().into_data().iter::<f64>().collect();
    let mut difference = 0.0;
    let (mut norm, mut largest, mut most_wrong) = (0.0, 0.0f64, 0.0f64);
    for (a, b) in got.iter::<f64>().zip(&want) {
        let off = (a - b).abs();
        difference += off * off;
        norm += b * b;
        largest = largest.max(b.abs());
        most_wrong = most_wrong.max(off);
    }
    let error = (difference / norm).sqrt();
    let rms = (norm / want.len() as f64).sqrt();
    let allowed = BOUND_OF_ONE.0 * rms + BOUND_OF_ONE.1 * largest;
    // NaN does not pass.
    if error <= BOUND && most_wrong <= allowed {
        return Ok(());
    }
    let (most, rms) = (most_wrong / rms, allowed / rms);
    Err(format!(
        "{name}: relative error {error:.1e}, of one number {most:.1e} where {rms:.1e} is allowed"
    ))
}
