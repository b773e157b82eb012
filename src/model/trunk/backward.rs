//! The backward pass of the transformer below its head.

use super::{Branch, Kept, LayerTape, Rest, Rotaries, Tape, Trunk, positions_of};
use crate::model::block::{Mlp, Positions, Residual};
use crate::model::names::{QK_NORMS, Qkv};
use crate::model::norms::{Spread, Use};
use crate::model::{Gradients, Packed, fused};
use crate::numerics::attention::{self, ProjectionGradients, Projections, Queries};
use crate::numerics::buffer::Buffer;
use crate::numerics::{embedding, gelu, linear, matrix, mlp};

impl Trunk<'_> {
    /// Accumulates the gradients of all trunk weights, or of the adapter's over frozen ones, for `dx`: (asked, hidden), the gradient
    /// of [`Tape::hidden`].
    pub(in crate::model) fn backward(&self, mut tape: Tape, packed: &Packed, mut dx: Buffer, grads: &mut Gradients) {
        let saved = std::mem::take(&mut tape.layers);
        let layers = saved.len();
        for (layer, kept) in saved.into_iter().enumerate().rev() {
            let mut saved = match kept {
                Kept::Layer(saved) => *saved,
                Kept::Input(x) => self.layer_forward(layer, x, packed, tape.queries(layer, layers), &tape.rotaries).0,
            };
            // In parallel with the MLP attention's own gradient is that of the layer's output.
            let parallel = self.config.block.residual == Residual::Parallel;
            let of_attention = parallel.then(|| Buffer::copy_of(&dx));
            self.mlp_backward(layer, &mut saved.rest, &mut dx, grads);
            let queries = tape.queries(layer, layers);
            dx = self.attention_backward(layer, &saved, packed, queries, &tape.rotaries, dx, of_attention, grads);
        }
        if self.adapter.is_none() {
            self.embeddings_backward(packed, dx, grads);
        }
    }

    fn embeddings_backward(&self, packed: &Packed, mut dx: Buffer, grads: &mut Gradients) {
        let (hidden, names) = (self.config.hidden_size, self.names());
        if self.config.block.positions == Positions::Learned {
            embedding::backward(&dx, hidden, packed.positions(), grads.get_mut(&format!("{}.weight", names.positions)));
        }
        if let Some(scale) = self.config.embedding_scale() {
            matrix::scale(&mut dx, scale);
        }
        embedding::backward(&dx, hidden, packed.tokens(), grads.get_mut(&format!("{}.weight", names.embedding)));
    }

    /// The gradient of a linear layer's input from `dy`: (rows, outputs), that of its output, into `dx`: (rows, inputs), added to what
    /// `dx` holds where it says so; into nothing where nobody asks. Returns what [`Self::weight_gradient`] wants of an adapter.
    fn input_gradient(&self, layer: usize, part: &str, dy: &[f32], dx: Option<(&mut [f32], bool)>) -> Option<Buffer> {
        let Some((dx, accumulate)) = dx else { return self.adapter?.backward_input(layer, part, dy, None) };
        self.weight(&self.weight_name(layer, part)).backward_input(dy, dx, accumulate);
        self.adapter?.backward_input(layer, part, dy, Some(dx))
    }

    /// Whether a linear layer's weight is trained, or an adapter of it: then its input is wanted in the backward pass.
    fn learns(&self, layer: usize, part: &str) -> bool {
        self.adapter.is_none_or(|adapter| adapter.adapts(layer, part))
    }

    /// Normed rows again, where one of the linear layers `parts` learns from them.
    fn scaled_for(&self, layer: usize, parts: &[&str], norm: &str, x: &[f32], spread: &Spread) -> Option<Buffer> {
        parts.iter().any(|part| self.learns(layer, part)).then(|| self.scaled(norm, x, spread))
    }

    /// Continues the gradients of a linear layer's weight and bias, or of its adapter: `dlow` is what [`Self::input_gradient`] gave.
    fn weight_gradient(&self, layer: usize, part: &str, dy: &[f32], x: &[f32], dlow: Option<Buffer>, grads: &mut Gradients) {
        match (self.adapter, dlow) {
            (None, _) => {
                let name = self.weight_name(layer, part);
                self.weight(&name).backward_weight(dy, x, grads.get_mut(&name));
                if self.bias(layer, part).is_some() {
                    linear::backward_bias(dy, grads.get_mut(&self.bias_name(layer, part)));
                }
            }
            (Some(adapter), Some(dlow)) => adapter.backward_weight(layer, part, dy, x, &dlow, grads),
            (Some(_), None) => {}
        }
    }

    /// The gradient of what a branch's projection gives, where that of the residual stream is `dx`; none where it is the same.
    fn branch_gradient(
        &self,
        layer: usize,
        branch: Branch,
        dx: &[f32],
        unnormed: Option<&(Buffer, Spread)>,
        grads: &mut Gradients,
    ) -> Option<Buffer> {
        let dropped = self.dropout.map(|masks| masks.dropped(branch.module(layer), dx, self.config.hidden_size));
        let Some((x, spread)) = unnormed else { return dropped };
        let mut through = Buffer::zeros(x.len());
        let dy = dropped.as_deref().unwrap_or(dx);
        self.norm_backward(&self.branch_norm(layer, branch), x, spread, dy, &mut through, Use::First, grads);
        Some(through)
    }

    /// `dx`: the gradient of the layer's output becomes that of what the MLP's norm reads.
    fn mlp_backward(&self, layer: usize, saved: &mut Rest, dx: &mut [f32], grads: &mut Gradients) {
        let names = self.names();
        // The gradient of the activated values, then these values again where they are learnt from; gate and up become their gradients.
        let mut activated = Buffer::unspecified(saved.inner[0].len());
        let through = self.branch_gradient(layer, Branch::Mlp, dx, saved.branches[1].as_ref(), grads);
        let dy = through.as_deref().unwrap_or(dx);
        let dlow = self.input_gradient(layer, names.mlp_out, dy, Some((&mut activated, false)));
        self.activation_backward(&mut saved.inner, &mut activated, self.learns(layer, names.mlp_out));
        self.weight_gradient(layer, names.mlp_out, dy, &activated, dlow, grads);
        drop(activated);
        let norm = names.in_layer(layer, names.mlp_norm);
        let normed = self.scaled_for(layer, names.mlp_in, &norm, &saved.source, &saved.source_spread);
        let mut dnormed = Buffer::unspecified(dx.len());
        for (i, (part, d)) in names.mlp_in.iter().zip(&saved.inner).enumerate() {
            let dlow = self.input_gradient(layer, part, d, Some((&mut dnormed, i > 0)));
            if let Some(normed) = &normed {
                self.weight_gradient(layer, part, d, normed, dlow, grads);
            }
        }
        let of = if names.mlp_norm == names.attention_norm { Use::Second } else { Use::First };
        self.norm_backward(&norm, &saved.source, &saved.source_spread, &dnormed, dx, of, grads);
    }

    /// `inner` becomes its gradient, `dout` the activated values again, where they are wanted.
    fn activation_backward(&self, inner: &mut [Buffer], dout: &mut [f32], again: bool) {
        match (self.config.block.mlp, inner) {
            (Mlp::Gated(form), [gate, up]) => mlp::backward(form, gate, up, dout, again),
            (Mlp::Gelu(form), [up]) => gelu::backward(form, up, dout),
            _ => unreachable!("a gated MLP has two products before it, another one"),
        }
    }

    /// (rows, hidden): the gradient of the layer's input, from `dx`: (asked, hidden), what reaches it or the stream after attention
    /// otherwise than through attention, and attention's own, where that is another. Below an adapter's first layer nothing is trained:
    /// what is returned there is no gradient.
    #[allow(clippy::too_many_arguments, reason = "a layer's state and the pass it belongs to")]
    fn attention_backward(
        &self,
        layer: usize,
        saved: &LayerTape,
        packed: &Packed,
        queries: &Queries,
        rotaries: &Rotaries,
        dx: Buffer,
        of_attention: Option<Buffer>,
        grads: &mut Gradients,
    ) -> Buffer {
        let (output, asked) = (self.names().output, queries.rows());
        let mut dattended = Buffer::unspecified(saved.attended.len());
        let own = of_attention.as_deref().unwrap_or(&dx);
        let through = self.branch_gradient(layer, Branch::Attention, own, saved.rest.branches[0].as_ref(), grads);
        let dy = through.as_deref().unwrap_or(own);
        let dlow = self.input_gradient(layer, output, dy, Some((&mut dattended, false)));
        self.weight_gradient(layer, output, dy, &saved.attended, dlow, grads);
        let projections = Projections { q: &saved.q, k: &saved.k, v: &saved.v };
        let mut d = attention::backward(packed.segments(), queries, self.config.heads_in(layer), projections, &dattended);
        if let Some(rotary) = rotaries.of(self.config, layer) {
            let heads = self.config.heads();
            rotary.backward(&mut d.dq, heads.query_width(), &positions_of(packed.positions(), asked));
            rotary.backward(&mut d.dk, heads.key_width(), packed.positions());
        }
        if let Some(unnormed) = &saved.unnormed {
            self.head_norms_backward(layer, unnormed, [&mut d.dq, &mut d.dk], grads);
        }
        let norm = self.names().in_layer(layer, self.names().attention_norm);
        let normed = self.scaled(&norm, &saved.x, &saved.x_spread);
        let goes_on = layer > 0 || self.adapter.is_none();
        let Some(dnormed) = self.projections_backward(layer, &d, &normed, asked, goes_on, grads) else { return dx };
        let mut dx = spread_rows(dx, asked, saved.x.len(), self.config.hidden_size);
        self.norm_backward(&norm, &saved.x, &saved.x_spread, &dnormed, &mut dx, Use::First, grads);
        dx
    }

    /// (rows, hidden): the gradient of the normed rows, from those of queries, keys and values; none unless it `goes_on`.
    fn projections_backward(
        &self,
        layer: usize,
        d: &ProjectionGradients,
        normed: &Buffer,
        asked: &[usize],
        goes_on: bool,
        grads: &mut Gradients,
    ) -> Option<Buffer> {
        match self.names().qkv {
            Qkv::Apart([query, key, value]) => {
                let mut dnormed = self.query_backward(layer, query, &d.dq, normed, asked, goes_on, grads);
                for (part, d) in [(key, &d.dk), (value, &d.dv)] {
                    let dlow = self.input_gradient(layer, part, d, dnormed.as_deref_mut().map(|dx| (dx, true)));
                    self.weight_gradient(layer, part, d, normed, dlow, grads);
                }
                dnormed
            }
            of @ (Qkv::Thirds(part) | Qkv::ByHead(part)) => {
                let rows = normed.len() / self.config.hidden_size;
                let dy = fused::join([&d.dq, &d.dk, &d.dv], of, self.config.heads(), asked, rows);
                let mut dnormed = goes_on.then(|| Buffer::unspecified(normed.len()));
                let dlow = self.input_gradient(layer, part, &dy, dnormed.as_deref_mut().map(|dx| (dx, false)));
                self.weight_gradient(layer, part, &dy, normed, dlow, grads);
                dnormed
            }
        }
    }

    /// (rows, hidden): the gradient that reaches the normed rows through the queries of the rows `asked`; none unless it `goes_on`.
    #[allow(clippy::too_many_arguments, reason = "a projection's operands, and where its gradients go")]
    fn query_backward(
        &self,
        layer: usize,
        part: &str,
        dq: &[f32],
        normed: &Buffer,
        asked: &[usize],
        goes_on: bool,
        grads: &mut Gradients,
    ) -> Option<Buffer> {
        let hidden = self.config.hidden_size;
        let mut through = goes_on.then(|| Buffer::unspecified(asked.len() * hidden));
        let dlow = self.input_gradient(layer, part, dq, through.as_deref_mut().map(|dx| (dx, false)));
        self.weight_gradient(layer, part, dq, &self.asked_of(normed, asked), dlow, grads);
        through.map(|through| spread_rows(through, asked, normed.len(), hidden))
    }

    /// The gradients of queries and keys become those of what their norms were given. A norm's weight is a chain over rows, then heads.
    fn head_norms_backward(&self, layer: usize, unnormed: &[Buffer; 2], d: [&mut Buffer; 2], grads: &mut Gradients) {
        for ((part, x), d) in QK_NORMS.into_iter().zip(unnormed).zip(d) {
            let (name, mut dx) = (self.names().in_layer(layer, part), Buffer::zeros(x.len()));
            self.norm_backward(&name, x, &self.spread(&name, x), d, &mut dx, Use::First, grads);
            *d = dx;
        }
    }

    /// `x`: (rows, hidden) += the rows of `parts`, each at its place, in order.
    pub(in crate::model) fn scatter_add(&self, parts: &[f32], rows: &[usize], x: &mut [f32]) {
        matrix::scatter_add_rows(parts, rows, self.config.hidden_size, x);
    }
}

/// `length` floats: the rows of `parts` at their places among rows of zeros.
fn spread_rows(parts: Buffer, rows: &[usize], length: usize, width: usize) -> Buffer {
    if parts.len() == length { parts } else { matrix::spread_rows(&parts, rows, length, width) }
}
