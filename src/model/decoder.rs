//! The decoder: embedding, layers, final norm, head.

use burn::tensor::{Device, Tensor};

use super::hf_config::ArchConfig;
use super::kv_cache::KvCache;
use super::layer::{Layer, LayerTape};
use super::layer_context::LayerContext;
use super::mlp::{MLP_ROWS, tile_rows};
use super::norm::Norm;
use super::params::{Grads, Params};
use super::pass::{DropoutKey, Pass};
use super::peft::AdapterConfig;
use super::ragged::Ragged;
use super::weight::Weight;
use crate::config::types::TrainingConfig;
use crate::ops::logits::numbers;
use crate::ops::{
    AttentionShape, CrossEntropyGrad, HotOps, Indices, Offloaded, Precision, Room, RopeTable,
    Scalar, for_device,
};

/// A causal language model with its trainable parameters.
pub struct Decoder {
    pub arch: ArchConfig,
    pub embedding: Weight,
    /// A vector for each place, where positions are learned.
    pub positions: Option<Weight>,
    pub layers: Vec<Layer>,
    pub norm: Norm,
    /// `None` where the head is tied to the embedding.
    pub head: Option<Weight>,
    pub params: Params,
    /// Of the adapters in memory, by their numbers.
    pub(super) adapter_configs: Vec<AdapterConfig>,
    /// Lines for the log about what their files hold in vain.
    pub adapter_notes: Vec<String>,
    /// The number of the adapter that computes.
    pub(super) active: usize,
    pub(super) rope: RopeTable,
    pub device: Device,
    /// See [`Pass::mlp_rows`].
    pub mlp_rows: usize,
    ops: &'static dyn HotOps,
}

/// The weights of a [`Decoder`].
pub(super) struct Parts {
    pub embedding: Weight,
    pub positions: Option<Weight>,
    pub layers: Vec<Layer>,
    pub norm: Norm,
    pub head: Option<Weight>,
}

/// What of the forward pass waits for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All intermediate results.
    Tapes,
    /// Each layer's input; the rest is computed again (Chen et al., 2016).
    Inputs,
    /// The inputs, in host memory.
    InputsOnHost,
}

impl Keep {
    pub fn of(training: &TrainingConfig) -> Self {
        match (
            training.gradient_checkpointing,
            training.activation_offloading,
        ) {
            (false, _) => Self::Tapes,
            (true, false) => Self::Inputs,
            (true, true) => Self::InputsOnHost,
        }
    }
}

/// How [`Decoder::loss_backward`] runs.
#[derive(Clone, Copy, Debug)]
pub struct StepOptions {
    /// Multiplies the summed loss before differentiation: 1 / supervised tokens of the window.
    pub scale: f32,
    pub keep: Keep,
    pub dropout: Option<DropoutKey>,
}

impl Decoder {
    pub(super) fn new(
        arch: ArchConfig,
        parts: Parts,
        params: Params,
        device: Device,
        precision: Precision,
    ) -> Self {
        let rope = RopeTable::new(&arch.inv_freq(), 0);
        let ops = for_device(&device, precision);
        let Parts {
            embedding,
            positions,
            layers,
            norm,
            head,
        } = parts;
        Self {
            arch,
            embedding,
            positions,
            layers,
            norm,
            head,
            params,
            adapter_configs: Vec::new(),
            adapter_notes: Vec::new(),
            active: 0,
            rope,
            device,
            mlp_rows: MLP_ROWS,
            ops,
        }
    }

    pub fn ops(&self) -> &'static dyn HotOps {
        self.ops
    }

    /// Makes the rotary table cover `positions` positions. Call before a pass over
    /// longer sequences than before.
    ///
    /// # Panics
    /// Where positions are learned and there are fewer: callers check lengths
    /// against [`ArchConfig::longest_sequence`] before.
    pub fn reserve_positions(&mut self, positions: usize) {
        if let Some(most) = self.arch.longest_sequence() {
            assert!(positions <= most, "{positions} positions of {most}");
        } else if self.rope.positions() < positions {
            self.rope = RopeTable::new(&self.arch.inv_freq(), positions.next_power_of_two());
        }
    }

    /// Readies the device's memory for training passes over `tokens` tokens. Call when
    /// all that stays is there, before the first of them.
    pub fn reserve_activations(&self, tokens: usize, keep: Keep) {
        let wide = match keep {
            Keep::Tapes => tokens,
            Keep::Inputs | Keep::InputsOnHost => tile_rows(tokens, self.mlp_rows),
        };
        let arch = &self.arch;
        let widths = [arch.hidden_size, arch.num_heads * arch.head_dim];
        let widest = tokens * widths[0].max(widths[1]);
        let room = Room {
            input: tokens * arch.hidden_size,
            widest: widest.max(wide.min(tokens) * arch.intermediate_size),
            vocab: arch.vocab_size,
        };
        self.ops.make_room(room, &self.device);
    }

    fn pass(&self, adapter: bool, dropout: Option<DropoutKey>) -> Pass<'_> {
        Pass {
            ops: self.ops,
            params: &self.params,
            adapter: adapter.then_some(self.active),
            dropout,
            operands: None,
            first_row: 0,
            mlp_rows: self.mlp_rows,
        }
    }

    fn context<'a>(&'a self, pass: Pass<'a>, batch: &'a Ragged) -> LayerContext<'a> {
        LayerContext {
            pass,
            batch,
            rope: self.positions.is_none().then_some(&self.rope),
            attention: AttentionShape {
                heads: self.arch.num_heads,
                kv_heads: self.arch.num_kv_heads,
                head_dim: self.arch.head_dim,
                scale: 1.0 / (self.arch.head_dim as f32).sqrt(),
                window: None,
            },
        }
    }

    fn head(&self) -> &Weight {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    fn embed(&self, pass: &Pass<'_>, batch: &Ragged) -> Tensor<2> {
        let x = self.embedding.rows(pass, &batch.ids);
        match &self.positions {
            Some(table) => self.ops.add(x, &table.rows(pass, &batch.positions)),
            None => x,
        }
    }

    /// Hidden states after the final norm at `rows`, `[rows, hidden]`.
    /// `adapter` false leaves LoRA out.
    pub fn hidden(
        &self,
        batch: &Ragged,
        rows: &Indices,
        adapter: bool,
        cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        self.hidden_of(self.embedded(batch, adapter), batch, rows, adapter, cache)
    }

    pub(super) fn embedded(&self, batch: &Ragged, adapter: bool) -> Tensor<2> {
        self.embed(&self.pass(adapter, None), batch)
    }

    /// [`Decoder::hidden`] of embedded tokens.
    pub(super) fn hidden_of(
        &self,
        mut x: Tensor<2>,
        batch: &Ragged,
        rows: &Indices,
        adapter: bool,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<2> {
        let pass = self.pass(adapter, None);
        let cx = self.context(pass, batch);
        for (i, layer) in self.layers.iter().enumerate() {
            x = match cache.as_deref_mut() {
                Some(cache) => layer.extend(&cx, x, &mut cache.layers[i]),
                None => layer.output(&cx, x),
            };
        }
        let x = self.ops.gather_rows(&x, rows);
        self.norm.forward(&pass, &x)
    }

    pub(super) fn head_product(&self, hidden: &Tensor<2>, adapter: bool) -> Tensor<2> {
        let head = self.head().dense(&self.pass(adapter, None));
        self.ops.gemm(hidden, false, &head, true, 1.0)
    }

    /// The number of the adapter that a pass computes with.
    pub(super) fn adapter_number(&self, adapter: bool) -> Option<usize> {
        self.pass(adapter, None).adapter
    }

    /// Logits at `rows` as `rows.len()` rows of `vocab_size` host numbers; with a cache
    /// `rows` are the last of the sequences. Nothing where the cache is lost.
    pub fn logits(
        &self,
        batch: &Ragged,
        rows: &Indices,
        adapter: bool,
        cache: Option<&mut KvCache>,
    ) -> Vec<f32> {
        let logits = self.logits_on_device(batch, rows, adapter, cache);
        logits.map_or_else(Vec::new, |logits| numbers(logits.into_data()))
    }

    /// As [`Decoder::logits`], left on the device: until the next pass over the cache, which
    /// may write over them.
    pub fn logits_on_device(
        &self,
        batch: &Ragged,
        rows: &Indices,
        adapter: bool,
        mut cache: Option<&mut KvCache>,
    ) -> Option<Tensor<2>> {
        if let Some(cache) = cache.as_deref_mut() {
            let replayed = self.replayed(batch, adapter, cache);
            if replayed.is_some() || cache.is_lost() {
                return replayed;
            }
        }
        let hidden = self.hidden(batch, rows, adapter, cache);
        Some(self.head_product(&hidden, adapter))
    }

    /// Summed loss over the supervised rows, without gradients.
    pub fn loss(&self, batch: &Ragged, adapter: bool) -> Scalar {
        if batch.rows.is_empty() {
            return Scalar::Host(0.0);
        }
        let hidden = self.hidden(batch, &batch.rows, adapter, None);
        let head = self.head().dense(&self.pass(adapter, None));
        let grad = CrossEntropyGrad::None;
        self.ops
            .cross_entropy(&hidden, &head, &batch.targets, grad)
            .loss_sum
    }

    /// Summed loss of a micro-batch; adds `scale x` its gradient to `grads`, layer
    /// by layer from the last to the first.
    pub fn loss_backward(&self, batch: &Ragged, options: StepOptions, grads: &mut Grads) -> Scalar {
        if batch.rows.is_empty() {
            return Scalar::Host(0.0);
        }
        let ops = self.ops;
        let pass = self.pass(true, options.dropout);
        let cx = self.context(pass, batch);

        let mut x = self.embed(&pass, batch);
        let mut kept: Vec<Kept> = Vec::with_capacity(self.layers.len());
        let lowest = self.lowest_trained();
        for (i, layer) in self.layers.iter().enumerate() {
            if i < lowest {
                x = layer.output(&cx, x);
                continue;
            }
            // The device still has the layer before to work on.
            if let Some(Kept::Away(input)) = kept.last_mut() {
                input.arrive();
            }
            let input = match options.keep {
                Keep::Tapes => None,
                Keep::Inputs => Some(Kept::Input(x.clone())),
                Keep::InputsOnHost => Some(Kept::Away(ops.offload(&x))),
            };
            let (y, keep) = match input {
                Some(input) => (layer.output(&cx, x), input),
                None => {
                    let (y, tape) = layer.forward(&cx, x);
                    (y, Kept::Tape(tape))
                }
            };
            x = y;
            kept.push(keep);
        }

        let (loss, mut dx) = self.head_backward(&pass, batch, x, options.scale, grads);
        let tables = [
            (Some(&self.embedding), &batch.ids),
            (self.positions.as_ref(), &batch.positions),
        ];
        let trained = tables.map(|(table, ids)| (table.and_then(Weight::param), ids));
        for (i, layer) in self.layers.iter().enumerate().skip(lowest).rev() {
            let want_dx = i > lowest || trained.iter().any(|(id, _)| id.is_some());
            let again = |x, dx, grads| layer.backward_again(&cx, x, dx, grads, want_dx);
            let back = match kept.pop() {
                Some(Kept::Tape(tape)) => layer.backward(&cx, tape, dx, grads, want_dx),
                Some(Kept::Input(x)) => again(x, dx, grads),
                Some(Kept::Away(x)) => again(x.back(), dx, grads),
                None => unreachable!("one entry a layer from the lowest was kept"),
            };
            match back {
                Some(d) => dx = d,
                None => return loss,
            }
        }
        let looked_up = trained[0].0.and_then(|_| self.without_padding(&batch.ids));
        for (table, (id, ids)) in trained.into_iter().enumerate() {
            let Some(id) = id else { continue };
            let shape = self.params.get(id).dims();
            let sum = grads.take(id);
            let sum = sum.unwrap_or_else(|| Tensor::zeros(shape, &self.device));
            let sum = match &looked_up {
                // All of it is padding.
                Some((rows, _)) if table == 0 && rows.is_empty() => sum,
                Some((rows, ids)) if table == 0 => {
                    ops.scatter_add_rows(sum, ids, &ops.gather_rows(&dx, rows))
                }
                _ => ops.scatter_add_rows(sum, ids, &dx),
            };
            grads.set(id, Some(sum));
        }
        loss
    }

    /// The first layer that trains, or has something below it that does: what lies lower
    /// needs no gradient.
    fn lowest_trained(&self) -> usize {
        let tables = [Some(&self.embedding), self.positions.as_ref()];
        if tables
            .into_iter()
            .flatten()
            .any(|table| table.param().is_some())
        {
            return 0;
        }
        let trains = |layer: &Layer| {
            let mut linears = layer.linears();
            linears.any(|l| l.weight.param().is_some() || l.loras.iter().any(Option::is_some))
        };
        self.layers.iter().position(trains).unwrap_or(0)
    }

    /// The rows whose lookups train the embedding, and their ids, where some do not: PyTorch
    /// gives the row of the padding token (`nn.Embedding`'s `padding_idx`, which Llama and its
    /// like set) no gradient from them.
    fn without_padding(&self, ids: &[u32]) -> Option<(Indices, Indices)> {
        let pad = self.arch.frozen_padding().filter(|pad| ids.contains(pad))?;
        let kept = (0..).zip(ids).filter(|(_, id)| **id != pad);
        let (rows, ids): (Vec<u32>, Vec<u32>) = kept.unzip();
        Some((rows.into(), ids.into()))
    }

    /// Final norm, head and loss on the supervised rows only; the gradient comes
    /// back for all rows.
    fn head_backward(
        &self,
        pass: &Pass<'_>,
        batch: &Ragged,
        x: Tensor<2>,
        scale: f32,
        grads: &mut Grads,
    ) -> (Scalar, Tensor<2>) {
        let ops = self.ops;
        let shape = x.dims();
        let x = ops.gather_rows(&x, &batch.rows);
        let hidden = self.norm.forward(pass, &x);
        let head = self.head();
        let grad = match head.param() {
            Some(id) => CrossEntropyGrad::HiddenAndHead {
                scale,
                head_grad: grads.take(id),
            },
            None => CrossEntropyGrad::Hidden { scale },
        };
        let out = ops.cross_entropy(&hidden, &head.dense(pass), &batch.targets, grad);
        if let Some(id) = head.param() {
            grads.set(id, out.d_head);
        }
        let d_hidden = out.d_hidden.unwrap_or_else(|| hidden.zeros_like());
        let d_rows = self.norm.backward(pass, &x, &d_hidden, grads);
        let dx = ops.zeros(shape, &self.device);
        (out.loss_sum, ops.write_rows(dx, &batch.rows, &d_rows))
    }

    /// Numbers in the whole model, the adapter's included.
    pub fn total_parameters(&self) -> usize {
        let frozen = |w: &Weight| match w {
            Weight::Dense(w) => w.dims().iter().product(),
            Weight::Nf4(w) => w.shape().iter().product(),
            Weight::Host(table) => table.shape().iter().product(),
            Weight::Param(_) => 0,
        };
        let tables = [
            Some(&self.embedding),
            self.positions.as_ref(),
            self.head.as_ref(),
        ];
        let norms = self.layers.iter().flat_map(Layer::norms);
        let linears = self.layers.iter().flat_map(Layer::linears);
        let weights = tables
            .into_iter()
            .flatten()
            .chain(norms.chain([&self.norm]).flat_map(Norm::weights))
            .chain(linears.flat_map(|l| std::iter::once(&l.weight).chain(&l.bias)));
        self.params.count() + weights.map(frozen).sum::<usize>()
    }
}

enum Kept {
    Input(Tensor<2>),
    Away(Box<dyn Offloaded>),
    Tape(LayerTape),
}
