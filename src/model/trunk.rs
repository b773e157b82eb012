//! The transformer below its head, forward and backward over a packed batch.
//!
//! Shapes: a batch has `rows` tokens; `hidden`, `inner` (intermediate size), `q` (heads · head_dim) and `kv`
//! (kv_heads · head_dim) are the widths. Every buffer is row-major. Residual additions are part of the products' chains:
//! a projection back to the residual stream continues from the residual's value (NUMERICS 1). Where a projection has a bias, its
//! chain starts from the bias, or from residual + bias; the bias's gradient is a chain over the rows.
//!
//! The last layer computes only `asked` rows, those whose results are wanted, beyond the keys and values of all rows: what it would
//! make of a prompt's other rows nobody reads.

use std::collections::BTreeMap;

use crate::model::dropout::{Masks, PassMasks};
use crate::model::lora::Applied;
use crate::model::{Gradients, LlamaConfig, Packed, Parameters, Tensor};
use crate::numerics::attention::{self, Projections, Queries, gather_rows};
use crate::numerics::buffer::Buffer;
use crate::numerics::rope::Rotary;
use crate::numerics::{embedding, gemm, linear, mlp, norm};

/// What the backward pass needs of one layer.
pub(crate) struct LayerTape {
    /// (rows, hidden): the residual stream at the layer's entry, and (rows,) its inverse root mean square.
    x: Buffer,
    x_inverse: Buffer,
    /// Queries and keys before their norms, where they have such.
    unnormed: Option<[Buffer; 2]>,
    /// (asked, q) and twice (rows, kv), after the rotary turn.
    q: Buffer,
    pub(super) k: Buffer,
    pub(super) v: Buffer,
    /// (asked, q)
    attended: Buffer,
    /// (asked, hidden): the residual stream between attention and MLP.
    middle: Buffer,
    middle_inverse: Buffer,
    /// (asked, inner)
    gate: Buffer,
    up: Buffer,
}

/// Queries of the rows that ask, keys and values of all rows, and what the backward pass needs of their making.
pub(super) struct Projected {
    inverse: Buffer,
    unnormed: Option<[Buffer; 2]>,
    pub qkv: [Buffer; 3],
}

/// The state of a forward pass: what each layer saved, and the residual stream after the last one.
pub struct Tape {
    pub(super) layers: Vec<LayerTape>,
    rotary: Rotary,
    /// All rows, which the layers but the last compute.
    all: Queries,
    asked: Queries,
    /// (asked, hidden), before the final norm.
    pub(super) hidden: Buffer,
    /// Of the pass's dropout.
    pub(super) masks: PassMasks,
}

impl Tape {
    /// Where packed rows stand in `hidden`.
    ///
    /// # Panics
    /// When one of them was not asked for.
    pub(super) fn places(&self, rows: impl IntoIterator<Item = usize>) -> Vec<usize> {
        rows.into_iter().map(|row| self.asked.place(row)).collect()
    }

    fn queries(&self, layer: usize, layers: usize) -> &Queries {
        if layer + 1 == layers { &self.asked } else { &self.all }
    }
}

/// The transformer's weights under their configuration.
#[derive(Clone, Copy)]
pub(crate) struct Trunk<'a> {
    pub config: &'a LlamaConfig,
    pub parameters: &'a Parameters,
    /// The matrices of `parameters` for products of few rows, where many of these are to come.
    pub prepared: Option<&'a Prepared>,
    /// Over frozen weights.
    pub adapter: Option<Applied<'a>>,
    /// Of what attention and MLP add to the residual stream; none outside of training steps.
    pub dropout: Option<&'a Masks>,
}

/// Weight matrices by name, in the layout of [`linear::forward_prepared`].
pub(crate) struct Prepared(BTreeMap<String, gemm::Prepared>);

impl Prepared {
    pub fn new(parameters: &Parameters) -> Self {
        let matrix = |(name, t): (&str, &Tensor)| match t.shape[..] {
            [_, inputs] => Some((name.to_owned(), linear::prepare(&t.values, inputs))),
            _ => None,
        };
        Self(parameters.iter().filter_map(matrix).collect())
    }
}

fn layer_name(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}.weight")
}

fn bias_name(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}.bias")
}

/// Of queries and of keys.
const QK_NORMS: [&str; 2] = ["self_attn.q_norm", "self_attn.k_norm"];

impl<'a> Trunk<'a> {
    pub(super) fn rotary(&self, positions: usize) -> Rotary {
        Rotary::of_frequencies(positions, &self.config.frequencies())
    }

    /// (tokens, hidden)
    pub(super) fn embed(&self, tokens: &[u32]) -> Buffer {
        let mut x = Buffer::unspecified(tokens.len() * self.config.hidden_size);
        embedding::forward(&self.parameters.get("model.embed_tokens.weight").values, self.config.hidden_size, tokens, &mut x);
        x
    }

    /// The whole forward pass for the results of the packed rows `asked`; `keep` saves what the backward pass needs.
    pub(super) fn forward(&self, packed: &Packed, asked: impl IntoIterator<Item = usize>, keep: bool) -> Tape {
        let mut layers = Vec::new();
        let tape = self.forward_with(packed, asked, |saved| {
            if keep {
                layers.push(saved);
            }
        });
        Tape { layers, ..tape }
    }

    /// [`Self::forward`] that keeps nothing and shows each layer's state, from the first on.
    pub(super) fn forward_with(
        &self,
        packed: &Packed,
        asked: impl IntoIterator<Item = usize>,
        mut layer_done: impl FnMut(LayerTape),
    ) -> Tape {
        let positions = packed.positions().iter().max().map_or(0, |p| *p as usize + 1);
        let (all, asked) = (Queries::all(packed.segments()), Queries::covering(packed.segments(), asked));
        let hidden = self.embed(packed.tokens());
        let mut tape =
            Tape { layers: Vec::new(), rotary: self.rotary(positions), all, asked, hidden, masks: PassMasks::default() };
        let layers = self.config.num_hidden_layers;
        for layer in 0..layers {
            let x = std::mem::replace(&mut tape.hidden, Buffer::unspecified(0));
            let (saved, out) = self.layer_forward(layer, x, packed, tape.queries(layer, layers), &tape.rotary);
            tape.hidden = out;
            layer_done(saved);
        }
        tape
    }

    fn layer_forward(&self, layer: usize, x: Buffer, packed: &Packed, queries: &Queries, rotary: &Rotary) -> (LayerTape, Buffer) {
        let Projected { inverse: x_inverse, unnormed, qkv: [q, k, v] } =
            self.project(layer, &x, packed.positions(), queries.rows(), rotary);
        let mut attended = Buffer::unspecified(q.len());
        let projections = Projections { q: &q, k: &k, v: &v };
        attention::forward(packed.segments(), queries, self.config.heads_in(layer), projections, &mut attended);
        let mut middle = self.gather(&x, queries.rows());
        self.add_attended(layer, &attended, &mut middle);
        let mut out = Buffer::copy_of(&middle);
        let (middle_inverse, gate, up) = self.add_mlp(layer, &middle, &mut out);
        (LayerTape { x, x_inverse, unnormed, q, k, v, attended, middle, middle_inverse, gate, up }, out)
    }

    /// (rows, hidden) and (rows,): RMSNorm of the rows of `x`, with their inverse root mean squares.
    pub(super) fn normed(&self, name: &str, x: &[f32]) -> (Buffer, Buffer) {
        let inverse = self.inverse(x, self.config.hidden_size);
        (self.scaled(name, x, &inverse), inverse)
    }

    /// (rows,): inverse root mean squares of the rows of `x`: (rows, width).
    fn inverse(&self, x: &[f32], width: usize) -> Buffer {
        let mut inverse = Buffer::unspecified(x.len() / width);
        norm::inverse_rms(x, width, self.config.rms_norm_eps as f32, &mut inverse);
        inverse
    }

    fn scaled(&self, name: &str, x: &[f32], inverse: &[f32]) -> Buffer {
        let mut y = Buffer::unspecified(x.len());
        norm::scale(x, &self.parameters.get(name).values, inverse, &mut y);
        y
    }

    /// `y`: (rows, outputs) ← `x`: (rows, inputs) times the transposed matrix `name`, added to what `y` holds when `accumulate`.
    pub(super) fn product(&self, name: &str, x: &[f32], y: &mut [f32], accumulate: bool) {
        if let Some(prepared) = self.prepared {
            return linear::forward_prepared(x, &prepared.0[name], y, accumulate);
        }
        let weight = self.parameters.get(name);
        linear::forward(x, &weight.values, weight.shape[1], y, accumulate);
    }

    fn bias(&self, layer: usize, part: &str) -> Option<&'a [f32]> {
        self.parameters.find(&bias_name(layer, part)).map(|bias| &bias.values[..])
    }

    fn linear(&self, layer: usize, part: &str, x: &[f32]) -> Buffer {
        let name = layer_name(layer, part);
        let shape = &self.parameters.get(&name).shape;
        let mut y = Buffer::unspecified(x.len() / shape[1] * shape[0]);
        let bias = self.bias(layer, part);
        if let Some(bias) = bias {
            y.chunks_exact_mut(bias.len()).for_each(|y| y.copy_from_slice(bias));
        }
        self.product(&name, x, &mut y, bias.is_some());
        self.adapt(layer, part, x, &mut y);
        y
    }

    /// `y` += what the adapter adds to the layer's output.
    fn adapt(&self, layer: usize, part: &str, x: &[f32], y: &mut [f32]) {
        if let Some(adapter) = self.adapter {
            adapter.forward(layer, part, x, y);
        }
    }

    /// The queries of the rows `asked`, the keys and values of all rows of `x`, normed where the family does so, and turned by position.
    pub(super) fn project(&self, layer: usize, x: &[f32], positions: &[u32], asked: &[usize], rotary: &Rotary) -> Projected {
        let heads = self.config.heads();
        let (normed, inverse) = self.normed(&layer_name(layer, "input_layernorm"), x);
        let [mut k, v] = ["self_attn.k_proj", "self_attn.v_proj"].map(|part| self.linear(layer, part, &normed));
        let mut q = self.linear(layer, "self_attn.q_proj", &self.gather(&normed, asked));
        let unnormed = self.config.block.qk_norm.then(|| {
            let of_heads = |part: &str, x: &[f32]| self.scaled(&layer_name(layer, part), x, &self.inverse(x, heads.head_dim));
            let (normed_q, normed_k) = (of_heads(QK_NORMS[0], &q), of_heads(QK_NORMS[1], &k));
            [std::mem::replace(&mut q, normed_q), std::mem::replace(&mut k, normed_k)]
        });
        rotary.forward(&mut k, heads.key_width(), positions);
        rotary.forward(&mut q, heads.query_width(), &positions_of(positions, asked));
        Projected { inverse, unnormed, qkv: [q, k, v] }
    }

    /// The gradients of queries and keys become those of what their norms were given. A norm's weight is a chain over rows, then heads.
    fn head_norms_backward(&self, layer: usize, unnormed: &[Buffer; 2], d: [&mut Buffer; 2], grads: &mut Gradients) {
        for ((part, x), d) in QK_NORMS.into_iter().zip(unnormed).zip(d) {
            let mut dx = Buffer::zeros(x.len());
            self.norm_backward(&layer_name(layer, part), x, &self.inverse(x, self.config.head_dim), d, &mut dx, grads);
            *d = dx;
        }
    }

    /// `x` += attended · Woᵀ.
    pub(super) fn add_attended(&self, layer: usize, attended: &[f32], x: &mut [f32]) {
        self.add_branch(layer, "self_attn.o_proj", attended, x);
    }

    /// `x`: (rows, hidden) += the residual branch that ends with the layer `part` of `input`: its chain goes on from `x`. Under dropout it
    /// starts from zero, is dropped and multiplied (GPT-2's `resid_pdrop`), and then added.
    fn add_branch(&self, layer: usize, part: &str, input: &[f32], x: &mut [f32]) {
        let Some(masks) = self.dropout else {
            if let Some(bias) = self.bias(layer, part) {
                x.chunks_exact_mut(bias.len()).for_each(|x| x.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
            }
            self.product(&layer_name(layer, part), input, x, true);
            return self.adapt(layer, part, input, x);
        };
        let branch = masks.dropped(branch(layer, part), &self.linear(layer, part, input), self.config.hidden_size);
        x.iter_mut().zip(branch.iter()).for_each(|(x, b)| *x += b);
    }

    /// The gradient of such a branch where that of the residual stream is `dx`; none where it is the same.
    fn branch_gradient(&self, layer: usize, part: &str, dx: &[f32]) -> Option<Buffer> {
        self.dropout.map(|masks| masks.dropped(branch(layer, part), dx, self.config.hidden_size))
    }

    /// `out` += the gated MLP of `x`; returns the inverse root mean squares of `x`, and gate and up: (rows, inner).
    pub(super) fn add_mlp(&self, layer: usize, x: &[f32], out: &mut [f32]) -> (Buffer, Buffer, Buffer) {
        let (normed, inverse) = self.normed(&layer_name(layer, "post_attention_layernorm"), x);
        let [gate, up] = ["mlp.gate_proj", "mlp.up_proj"].map(|p| self.linear(layer, p, &normed));
        let mut activated = Buffer::unspecified(gate.len());
        mlp::forward(&gate, &up, &mut activated);
        self.add_branch(layer, "mlp.down_proj", &activated, out);
        (inverse, gate, up)
    }

    /// Accumulates the gradients of all trunk weights, or of the adapter's over frozen ones, for `dx`: (asked, hidden), the gradient
    /// of [`Tape::hidden`].
    pub(super) fn backward(&self, mut tape: Tape, packed: &Packed, mut dx: Buffer, grads: &mut Gradients) {
        let saved = std::mem::take(&mut tape.layers);
        let layers = saved.len();
        for (layer, mut saved) in saved.into_iter().enumerate().rev() {
            self.mlp_backward(layer, &mut saved, &mut dx, grads);
            dx = self.attention_backward(layer, &saved, packed, tape.queries(layer, layers), &tape.rotary, dx, grads);
        }
        if self.adapter.is_none() {
            embedding::backward(&dx, self.config.hidden_size, packed.tokens(), grads.get_mut("model.embed_tokens.weight"));
        }
    }

    /// The gradient of a linear layer's input from `dy`: (rows, outputs), that of its output, into `dx`: (rows, inputs), added to what
    /// `dx` holds where it says so; into nothing where nobody asks. Returns what [`Self::weight_gradient`] wants of an adapter.
    fn input_gradient(&self, layer: usize, part: &str, dy: &[f32], dx: Option<(&mut [f32], bool)>) -> Option<Buffer> {
        let Some((dx, accumulate)) = dx else { return self.adapter?.backward_input(layer, part, dy, None) };
        let weight = self.parameters.get(&layer_name(layer, part));
        linear::backward_input(dy, &weight.values, weight.shape[1], dx, accumulate);
        self.adapter?.backward_input(layer, part, dy, Some(dx))
    }

    /// Continues the gradients of a linear layer's weight and bias, or of its adapter: `dlow` is what [`Self::input_gradient`] gave.
    fn weight_gradient(&self, layer: usize, part: &str, dy: &[f32], x: &[f32], dlow: Option<Buffer>, grads: &mut Gradients) {
        match (self.adapter, dlow) {
            (None, _) => {
                let name = layer_name(layer, part);
                linear::backward_weight(dy, x, self.parameters.get(&name).shape[1], grads.get_mut(&name));
                if self.bias(layer, part).is_some() {
                    linear::backward_bias(dy, grads.get_mut(&bias_name(layer, part)));
                }
            }
            (Some(adapter), Some(dlow)) => adapter.backward_weight(layer, part, dy, x, &dlow, grads),
            (Some(_), None) => {}
        }
    }

    /// `dx`: the gradient of the layer's output becomes that of its middle.
    fn mlp_backward(&self, layer: usize, saved: &mut LayerTape, dx: &mut [f32], grads: &mut Gradients) {
        // The gradient of the activated values, then these values again; gate and up become their gradients.
        let mut activated = Buffer::unspecified(saved.gate.len());
        let dropped = self.branch_gradient(layer, "mlp.down_proj", dx);
        let dy = dropped.as_deref().unwrap_or(dx);
        let dlow = self.input_gradient(layer, "mlp.down_proj", dy, Some((&mut activated, false)));
        mlp::backward(&mut saved.gate, &mut saved.up, &mut activated);
        self.weight_gradient(layer, "mlp.down_proj", dy, &activated, dlow, grads);
        drop(activated);
        let norm = layer_name(layer, "post_attention_layernorm");
        let normed = self.scaled(&norm, &saved.middle, &saved.middle_inverse);
        let mut dnormed = Buffer::unspecified(dx.len());
        for (i, (part, d)) in [("mlp.gate_proj", &saved.gate), ("mlp.up_proj", &saved.up)].into_iter().enumerate() {
            let dlow = self.input_gradient(layer, part, d, Some((&mut dnormed, i > 0)));
            self.weight_gradient(layer, part, d, &normed, dlow, grads);
        }
        self.norm_backward(&norm, &saved.middle, &saved.middle_inverse, &dnormed, dx, grads);
    }

    /// (rows, hidden): the gradient of the layer's input, from `dx`: (asked, hidden), that of its middle. Below an adapter's first
    /// layer nothing is trained: what is returned there is no gradient.
    #[allow(clippy::too_many_arguments, reason = "a layer's state and the pass it belongs to")]
    fn attention_backward(
        &self,
        layer: usize,
        saved: &LayerTape,
        packed: &Packed,
        queries: &Queries,
        rotary: &Rotary,
        dx: Buffer,
        grads: &mut Gradients,
    ) -> Buffer {
        let (hidden, heads, asked) = (self.config.hidden_size, self.config.heads_in(layer), queries.rows());
        let mut dattended = Buffer::unspecified(saved.attended.len());
        let dropped = self.branch_gradient(layer, "self_attn.o_proj", &dx);
        let dy = dropped.as_deref().unwrap_or(&dx);
        let dlow = self.input_gradient(layer, "self_attn.o_proj", dy, Some((&mut dattended, false)));
        self.weight_gradient(layer, "self_attn.o_proj", dy, &saved.attended, dlow, grads);
        let projections = Projections { q: &saved.q, k: &saved.k, v: &saved.v };
        let mut d = attention::backward(packed.segments(), queries, heads, projections, &dattended);
        rotary.backward(&mut d.dq, heads.query_width(), &positions_of(packed.positions(), asked));
        rotary.backward(&mut d.dk, heads.key_width(), packed.positions());
        if let Some(unnormed) = &saved.unnormed {
            self.head_norms_backward(layer, unnormed, [&mut d.dq, &mut d.dk], grads);
        }
        let norm = layer_name(layer, "input_layernorm");
        let normed = self.scaled(&norm, &saved.x, &saved.x_inverse);
        let goes_on = layer > 0 || self.adapter.is_none();
        let mut dnormed = self.query_backward(layer, &d.dq, &normed, asked, goes_on, grads);
        for (part, d) in [("self_attn.k_proj", &d.dk), ("self_attn.v_proj", &d.dv)] {
            let dlow = self.input_gradient(layer, part, d, dnormed.as_deref_mut().map(|dx| (dx, true)));
            self.weight_gradient(layer, part, d, &normed, dlow, grads);
        }
        let Some(dnormed) = dnormed else { return dx };
        let mut dx = spread_rows(dx, asked, saved.x.len(), hidden);
        self.norm_backward(&norm, &saved.x, &saved.x_inverse, &dnormed, &mut dx, grads);
        dx
    }

    /// (rows, hidden): the gradient that reaches the normed rows through the queries of the rows `asked`; none unless it `goes_on`.
    fn query_backward(
        &self,
        layer: usize,
        dq: &[f32],
        normed: &Buffer,
        asked: &[usize],
        goes_on: bool,
        grads: &mut Gradients,
    ) -> Option<Buffer> {
        let (hidden, part) = (self.config.hidden_size, "self_attn.q_proj");
        let mut through = goes_on.then(|| Buffer::unspecified(asked.len() * hidden));
        let dlow = self.input_gradient(layer, part, dq, through.as_deref_mut().map(|dx| (dx, false)));
        self.weight_gradient(layer, part, dq, &self.gather(normed, asked), dlow, grads);
        through.map(|through| spread_rows(through, asked, normed.len(), hidden))
    }

    /// `dx` += the gradient of the RMSNorm `name` of `x`, whose output has the gradient `dy`.
    pub(super) fn norm_backward(
        &self,
        name: &str,
        x: &[f32],
        inverse: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        grads: &mut Gradients,
    ) {
        let weight = &self.parameters.get(name).values;
        match self.adapter {
            None => norm::backward(x, weight, inverse, dy, dx, grads.get_mut(name)),
            Some(_) => norm::backward_input(x, weight, inverse, dy, dx),
        }
    }

    /// (rows.len(), hidden): the chosen rows of a (rows, hidden) matrix.
    pub(super) fn gather(&self, x: &[f32], rows: &[usize]) -> Buffer {
        gather_rows(x, rows, self.config.hidden_size)
    }

    /// `x`: (rows, hidden) += the rows of `parts`, each at its place, in order.
    pub(super) fn scatter_add(&self, parts: &[f32], rows: &[usize], x: &mut [f32]) {
        let hidden = self.config.hidden_size;
        for (part, r) in parts.chunks_exact(hidden).zip(rows) {
            x[r * hidden..][..hidden].iter_mut().zip(part).for_each(|(x, p)| *x += p);
        }
    }
}

/// The number that the masks of a residual branch are addressed by: attention and MLP of each layer in turn.
fn branch(layer: usize, part: &str) -> u64 {
    2 * layer as u64 + u64::from(part == "mlp.down_proj")
}

fn positions_of(positions: &[u32], rows: &[usize]) -> Vec<u32> {
    rows.iter().map(|r| positions[*r]).collect()
}

/// `length` floats: the rows of `parts` at their places among rows of zeros.
fn spread_rows(parts: Buffer, rows: &[usize], length: usize, width: usize) -> Buffer {
    if parts.len() == length {
        return parts;
    }
    let mut out = Buffer::zeros(length);
    for (part, r) in parts.chunks_exact(width).zip(rows) {
        out[r * width..][..width].copy_from_slice(part);
    }
    out
}
