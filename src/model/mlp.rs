//! The feed-forward part of a layer, forward and backward by hand.

use std::ops::Range;

use burn::tensor::Tensor;

use super::linear::{Linear, LinearTape};
use super::params::Grads;
use super::pass::Pass;

/// Most rows that are taken at once where nothing is kept: beyond it, products gain no
/// more from being larger.
pub const MLP_ROWS: usize = 2048;
/// A tile has a multiple of so many rows.
const ALIGN: usize = 64;

/// The feed-forward part.
#[allow(clippy::large_enum_variant)]
pub enum Mlp {
    /// `down(silu(gate x) * up x)`: gate, up and down.
    SwiGlu([Linear; 3]),
    /// `proj(gelu(fc x))`: fc and proj.
    Gelu([Linear; 2]),
}

/// What the backward needs besides the input: what the activation was given, the
/// tapes of the linears in their order, and what came of the activation if that was
/// kept.
pub struct MlpTape {
    inner: Vec<Tensor<2>>,
    linears: Vec<LinearTape>,
    activated: Option<Tensor<2>>,
}

/// Rows of a tile where at most `most` of `rows` are taken at once: alike, and a
/// multiple of a matrix product's own tiles.
pub fn tile_rows(rows: usize, most: usize) -> usize {
    let count = rows.div_ceil(most);
    rows.div_ceil(count.max(1))
        .next_multiple_of(ALIGN)
        .min(most)
}

fn tiles(rows: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..rows).step_by(at_once);
    starts.map(move |start| start..rows.min(start + at_once))
}

impl Mlp {
    pub fn linears(&self) -> &[Linear] {
        match self {
            Self::SwiGlu(linears) => linears,
            Self::Gelu(linears) => linears,
        }
    }

    pub fn linears_mut(&mut self) -> &mut [Linear] {
        match self {
            Self::SwiGlu(linears) => linears,
            Self::Gelu(linears) => linears,
        }
    }

    /// `x` is `[tokens, hidden]`, already normalised.
    pub fn forward(&self, pass: &Pass<'_>, x: &Tensor<2>) -> (Tensor<2>, MlpTape) {
        let (activated, mut tape) = self.activate(pass, x);
        let (y, last) = self.last().forward(pass, &activated);
        tape.linears.push(last);
        (y, tape)
    }

    /// The tape of [`Mlp::forward`] alone, for a recomputation: the last product, whose
    /// result only the next layer would need, is left out. The backward comes next, so
    /// what came of the activation stays for it.
    fn tape(&self, pass: &Pass<'_>, x: &Tensor<2>) -> MlpTape {
        let (activated, mut tape) = self.activate(pass, x);
        tape.linears.push(self.last().tape(pass, &activated));
        tape.activated = Some(activated);
        tape
    }

    /// The output alone, where no backward follows, as many rows at a time as
    /// [`Mlp::tile`] says: they take the places of what they come from.
    pub fn output(&self, pass: &Pass<'_>, x: Tensor<2>) -> Tensor<2> {
        let tile = |pass: &Pass<'_>, x: &Tensor<2>| {
            let (activated, _) = self.activate(pass, x);
            self.last().forward(pass, &activated).0
        };
        let rows = x.dims()[0];
        let at_once = self.tile(pass, rows, false);
        if at_once >= rows {
            return tile(pass, &x);
        }
        tiles(rows, at_once).fold(x, |x, part| {
            let pass = pass.later(part.start);
            let y = tile(&pass, &x.clone().slice([part.clone()]));
            x.slice_assign([part], y)
        })
    }

    /// [`Mlp::backward`] where only the input was kept: the rest is computed again,
    /// as many rows at a time as [`Mlp::tile`] says.
    pub fn backward_again(
        &self,
        pass: &Pass<'_>,
        x: Tensor<2>,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> Option<Tensor<2>> {
        let rows = x.dims()[0];
        let at_once = self.tile(pass, rows, true);
        if at_once >= rows {
            let tape = self.tape(pass, &x);
            return self.backward(pass, x, tape, dy, grads);
        }
        tiles(rows, at_once).try_fold(x, |x, part| {
            let pass = pass.later(part.start);
            let rows = |all: &Tensor<2>| all.clone().slice([part.clone()]);
            let (input, dy) = (rows(&x), rows(dy));
            let tape = self.tape(&pass, &input);
            let dx = self.backward(&pass, input, tape, &dy, grads)?;
            Some(x.slice_assign([part.clone()], dx))
        })
    }

    /// Rows to take at once of `rows` (TiledMLP of Arctic Long Sequence Training,
    /// 2025): the part's own results are the widest of a layer, and no row needs
    /// another. All, where each tile would need as much work as the whole: DoRA's norms
    /// and, going `back`, gradients of dense weights.
    fn tile(&self, pass: &Pass<'_>, rows: usize, back: bool) -> usize {
        let whole = self.linears().iter().any(|linear| {
            let lora = pass.adapter.and_then(|number| linear.lora(number));
            let trains = linear.weight.param().is_some();
            lora.is_some_and(|lora| lora.dora.is_some()) || back && trains
        });
        match whole {
            true => rows,
            false => tile_rows(rows, pass.mlp_rows),
        }
    }

    /// Whether [`Mlp::output`] takes so many rows in parts.
    pub(super) fn is_tiled(&self, pass: &Pass<'_>, rows: usize) -> bool {
        self.tile(pass, rows, false) < rows
    }

    pub(super) fn last(&self) -> &Linear {
        match self {
            Self::SwiGlu([.., down]) => down,
            Self::Gelu([.., proj]) => proj,
        }
    }

    /// All up to the activation, and the tape without the last linear's.
    fn activate(&self, pass: &Pass<'_>, x: &Tensor<2>) -> (Tensor<2>, MlpTape) {
        let ops = pass.ops;
        let tape = |inner, linears| MlpTape {
            inner,
            linears,
            activated: None,
        };
        match self {
            Self::SwiGlu([gate, up, _]) => {
                let (g, tg) = gate.forward(pass, x);
                let (u, tu) = up.forward(pass, x);
                (ops.swiglu(&g, &u), tape(vec![g, u], vec![tg, tu]))
            }
            Self::Gelu([fc, _]) => {
                let (h, tf) = fc.forward(pass, x);
                (ops.gelu(&h), tape(vec![h], vec![tf]))
            }
        }
    }

    /// Adds the weights' gradients to `grads`; returns the gradient of `x`, which
    /// is dropped with the rest as soon as it has been used.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        x: Tensor<2>,
        tape: MlpTape,
        dy: &Tensor<2>,
        grads: &mut Grads,
    ) -> Option<Tensor<2>> {
        let ops = pass.ops;
        let MlpTape {
            mut inner,
            linears,
            activated,
        } = tape;
        match self {
            Self::SwiGlu([gate, up, down]) => {
                let (u, g) = (inner.pop()?, inner.pop()?);
                // Of the widest, one less at a time.
                let s = activated.unwrap_or_else(|| ops.swiglu(&g, &u));
                let back = down.backward_weights(pass, &s, &linears[2], dy, grads);
                drop(s);
                let ds = down.backward_input(pass, back, dy, None);
                let (dg, du) = ops.swiglu_backward(g, u, &ds);
                drop(ds);
                let dx = gate.backward(pass, &x, &linears[0], &dg, grads, None, true);
                drop(dg);
                up.backward(pass, &x, &linears[1], &du, grads, dx, true)
            }
            Self::Gelu([fc, proj]) => {
                let h = inner.pop()?;
                let s = activated.unwrap_or_else(|| ops.gelu(&h));
                let back = proj.backward_weights(pass, &s, &linears[1], dy, grads);
                drop(s);
                let ds = proj.backward_input(pass, back, dy, None);
                let dh = ops.gelu_backward(&h, &ds);
                drop((h, ds));
                fc.backward(pass, &x, &linears[0], &dh, grads, None, true)
            }
        }
    }
}
