//! Trainable parameters and their gradients, addressed by number so that the
//! model, the optimiser and checkpoints agree on one order.

use burn::tensor::Tensor;

use crate::ops::HotOps;

/// Which trainable parameter; an index into [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamId(usize);

/// All trainable parameters, f32, in a fixed order. Vectors are `[1, n]`.
#[derive(Default)]
pub struct Params {
    names: Vec<String>,
    decays: Vec<bool>,
    tables: Vec<bool>,
    values: Vec<Tensor<2>>,
}

impl Params {
    /// Adds a parameter; `decay` tells whether weight decay applies to it.
    pub fn push(&mut self, name: String, value: Tensor<2>, decay: bool) -> ParamId {
        self.names.push(name);
        self.decays.push(decay);
        self.tables.push(false);
        self.values.push(value);
        ParamId(self.values.len() - 1)
    }

    /// Adds the table of an embedding, of which a step reaches few rows. Weight decay applies.
    pub fn push_table(&mut self, name: String, value: Tensor<2>) -> ParamId {
        let id = self.push(name, value, true);
        self.tables[id.0] = true;
        id
    }

    pub fn get(&self, id: ParamId) -> &Tensor<2> {
        &self.values[id.0]
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether weight decay applies, in parameter order.
    pub fn decays(&self) -> &[bool] {
        &self.decays
    }

    /// Which ones are tables of embeddings, in parameter order.
    pub fn tables(&self) -> &[bool] {
        &self.tables
    }

    pub fn values(&self) -> &[Tensor<2>] {
        &self.values
    }

    /// Moves the values out, so that an update can write in place; follow with [`Params::put`].
    pub fn take(&mut self) -> Vec<Tensor<2>> {
        std::mem::take(&mut self.values)
    }

    /// Puts values back in the same order and shapes.
    pub fn put(&mut self, values: Vec<Tensor<2>>) {
        assert_eq!(values.len(), self.names.len());
        self.values = values;
    }

    /// Number of trainable numbers.
    pub fn count(&self) -> usize {
        self.values
            .iter()
            .map(|v| v.dims().iter().product::<usize>())
            .sum()
    }
}

/// Gradients of one accumulation window, in parameter order.
pub struct Grads(Vec<Option<Tensor<2>>>);

impl Grads {
    pub fn new(params: &Params) -> Self {
        Self(vec![None; params.len()])
    }

    /// Adds `alpha x op(a) . op(b)` to the gradient of `id`.
    #[allow(clippy::too_many_arguments)]
    pub fn add_product(
        &mut self,
        ops: &dyn HotOps,
        id: ParamId,
        a: &Tensor<2>,
        ta: bool,
        b: &Tensor<2>,
        tb: bool,
        alpha: f32,
    ) {
        let slot = &mut self.0[id.0];
        *slot = Some(ops.gradient(slot.take(), a, ta, b, tb, alpha));
    }

    /// Adds a whole gradient to that of `id`.
    pub fn add(&mut self, ops: &dyn HotOps, id: ParamId, grad: Tensor<2>) {
        let slot = &mut self.0[id.0];
        *slot = Some(match slot.take() {
            Some(sum) => ops.add(sum, &grad),
            None => grad,
        });
    }

    /// Takes the gradient out, for an operation that adds to it in place.
    pub fn take(&mut self, id: ParamId) -> Option<Tensor<2>> {
        self.0[id.0].take()
    }

    pub fn set(&mut self, id: ParamId, grad: Option<Tensor<2>>) {
        self.0[id.0] = grad;
    }

    /// In parameter order; `None` where nothing reached the parameter.
    pub fn iter(&self) -> impl Iterator<Item = Option<&Tensor<2>>> {
        self.0.iter().map(Option::as_ref)
    }
}
