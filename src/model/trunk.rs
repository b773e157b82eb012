//! The transformer below its head, over a packed batch: the forward pass; `backward` holds the other one.
//!
//! Shapes: a batch has `rows` tokens; `hidden`, `inner` (intermediate size), `q` (heads · head_dim) and `kv`
//! (kv_heads · head_dim) are the widths. Every buffer is row-major. Residual additions are part of the products' chains:
//! a projection back to the residual stream continues from the residual's value (NUMERICS 1), unless its output is normed or
//! dropped on the way, which starts from zero and is then added. Where a projection has a bias, its
//! chain starts from the bias, or from residual + bias; the bias's gradient is a chain over the rows.
//!
//! The last layer computes only `asked` rows, those whose results are wanted, beyond the keys and values of all rows: what it would
//! make of a prompt's other rows nobody reads. Where one projection gives queries, keys and values, it has all rows.

mod backward;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::model::block::{Mlp, Positions, Residual};
use crate::model::dropout::{Masks, PassMasks};
use crate::model::fused;
use crate::model::lora::Applied;
use crate::model::names::{Names, QK_NORMS, Qkv};
use crate::model::norms::Spread;
use crate::model::{LlamaConfig, Packed, Parameters, Tensor};
use crate::numerics::attention::{self, Projections, Queries};
use crate::numerics::buffer::Buffer;
use crate::numerics::linear::Weight;
use crate::numerics::rope::Rotary;
use crate::numerics::{embedding, gelu, gemm, linear, matrix, mlp};

/// What the backward pass needs of one layer.
pub(crate) struct LayerTape {
    /// (rows, hidden): the residual stream at the layer's entry.
    x: Buffer,
    x_spread: Spread,
    /// Queries and keys before their norms, where they have such.
    unnormed: Option<[Buffer; 2]>,
    /// (asked, q) and twice (rows, kv), after the rotary turn.
    q: Buffer,
    pub(super) k: Buffer,
    pub(super) v: Buffer,
    /// (asked, q)
    attended: Buffer,
    rest: Rest,
}

/// What a forward pass keeps for the backward pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    /// Of each layer its input, from which the backward pass computes it again; all of the last one, which that begins with.
    Inputs,
    Layers,
}

impl Keep {
    pub fn of(recomputes: bool) -> Self {
        if recomputes { Self::Inputs } else { Self::Layers }
    }
}

/// What was kept of a layer.
pub(super) enum Kept {
    /// (rows, hidden): the residual stream at its entry.
    Input(Buffer),
    Layer(Box<LayerTape>),
}

/// What the backward pass needs of what follows attention in a layer.
pub(super) struct Rest {
    /// (asked, hidden): what the MLP's norm reads: the residual stream after attention, or, in parallel with it, at the layer's entry.
    source: Buffer,
    source_spread: Spread,
    /// What attention and MLP gave before their norms, where these have such.
    branches: [Option<(Buffer, Spread)>; 2],
    /// (asked, inner) each: gate and up, or up alone.
    inner: Vec<Buffer>,
}

/// Queries of the rows that ask, keys and values of all rows, and what the backward pass needs of their making.
pub(super) struct Projected {
    spread: Spread,
    unnormed: Option<[Buffer; 2]>,
    pub qkv: [Buffer; 3],
}

/// Rotary tables of the layers, none where positions are learned.
pub(super) struct Rotaries {
    plain: Option<Rotary>,
    /// Of layers with a window, where they turn by other angles.
    windowed: Option<Rotary>,
}

impl Rotaries {
    fn of(&self, config: &LlamaConfig, layer: usize) -> Option<&Rotary> {
        self.windowed.as_ref().filter(|_| config.window(layer).is_some()).or(self.plain.as_ref())
    }

    /// How many positions they reach; none: it doesn't matter.
    pub fn positions(&self) -> Option<usize> {
        self.plain.as_ref().map(Rotary::positions)
    }
}

/// The two branches of a layer, in order.
#[derive(Clone, Copy)]
enum Branch {
    Attention,
    Mlp,
}

impl Branch {
    /// The projection that it ends with.
    fn part(self, names: &Names) -> &'static str {
        match self {
            Self::Attention => names.output,
            Self::Mlp => names.mlp_out,
        }
    }

    /// The number that the masks of a residual branch are addressed by: attention and MLP of each layer in turn.
    fn module(self, layer: usize) -> u64 {
        2 * layer as u64 + self as u64
    }
}

/// The state of a forward pass: what each layer saved, and the residual stream after the last one.
pub struct Tape {
    pub(super) layers: Vec<Kept>,
    rotaries: Rotaries,
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

    /// How many f32s of activations the layers keep.
    #[cfg(test)]
    pub(super) fn floats(&self) -> usize {
        let of_layer = |kept: &Kept| match kept {
            Kept::Input(x) => x.len(),
            Kept::Layer(tape) => {
                let LayerTape { x, unnormed, q, k, v, attended, rest, .. } = &**tape;
                let branches = rest.branches.iter().flatten().map(|(x, _)| x.len()).sum::<usize>();
                let own = [x, q, k, v, attended, &rest.source].iter().map(|x| x.len()).sum::<usize>();
                let others = unnormed.iter().flatten().chain(&rest.inner).map(|x| x.len()).sum::<usize>();
                own + others + branches
            }
        };
        self.layers.iter().map(of_layer).sum()
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

/// A matrix as the model's file has it; none of another tensor.
fn matrix<'a>(config: &LlamaConfig, name: &str, tensor: &'a Tensor) -> Option<Weight<'a>> {
    let &[rows, columns] = tensor.shape.as_slice() else { return None };
    let inputs_first = config.family.stores_inputs_first() && name.starts_with(config.family.names().layers);
    Some(Weight::new(&tensor.values, [rows, columns], inputs_first))
}

/// Weight matrices by name, in the layout of [`linear::forward_prepared`].
pub(crate) struct Prepared(BTreeMap<String, gemm::Prepared>);

impl Prepared {
    pub fn new(config: &LlamaConfig, parameters: &Parameters) -> Self {
        let prepared = |(name, t): (&str, &Tensor)| Some((name.to_owned(), matrix(config, name, t)?.prepare()));
        Self(parameters.iter().filter_map(prepared).collect())
    }
}

impl<'a> Trunk<'a> {
    fn names(&self) -> &'static Names {
        self.config.family.names()
    }

    /// Tables for so many positions.
    pub(super) fn rotaries(&self, positions: usize) -> Rotaries {
        let config = self.config;
        let table = |windowed| Rotary::of_frequencies(positions, config.head_dim, &config.frequencies(windowed));
        let turns = config.block.positions != Positions::Learned;
        Rotaries { plain: turns.then(|| table(false)), windowed: (turns && config.has_window_rope()).then(|| table(true)) }
    }

    /// (tokens, hidden)
    pub(super) fn embed(&self, tokens: &[u32], positions: &[u32]) -> Buffer {
        let (hidden, names) = (self.config.hidden_size, self.names());
        let mut x = Buffer::unspecified(tokens.len() * hidden);
        embedding::forward(&self.parameters.get(&format!("{}.weight", names.embedding)).values, hidden, tokens, &mut x);
        if let Some(scale) = self.config.embedding_scale() {
            matrix::scale(&mut x, scale);
        }
        if self.config.block.positions == Positions::Learned {
            let table = &self.parameters.get(&format!("{}.weight", names.positions)).values;
            matrix::add_gathered_rows(table, positions, hidden, &mut x);
        }
        x
    }

    /// The whole forward pass for the results of the packed rows `asked`.
    pub(super) fn forward(&self, packed: &Packed, asked: impl IntoIterator<Item = usize>, keep: Keep) -> Tape {
        let (mut layers, last) = (Vec::new(), self.config.num_hidden_layers - 1);
        let tape = self.forward_with(packed, asked, |saved| match keep {
            Keep::Nothing => {}
            Keep::Inputs if layers.len() < last => layers.push(Kept::Input(saved.x)),
            Keep::Inputs | Keep::Layers => layers.push(Kept::Layer(Box::new(saved))),
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
        let hidden = self.embed(packed.tokens(), packed.positions());
        let (rotaries, masks) = (self.rotaries(positions), PassMasks::default());
        let mut tape = Tape { layers: Vec::new(), rotaries, all, asked, hidden, masks };
        let layers = self.config.num_hidden_layers;
        for layer in 0..layers {
            let x = std::mem::replace(&mut tape.hidden, Buffer::unspecified(0));
            let (saved, out) = self.layer_forward(layer, x, packed, tape.queries(layer, layers), &tape.rotaries);
            tape.hidden = out;
            layer_done(saved);
        }
        tape
    }

    fn layer_forward(
        &self,
        layer: usize,
        x: Buffer,
        packed: &Packed,
        queries: &Queries,
        rotaries: &Rotaries,
    ) -> (LayerTape, Buffer) {
        let Projected { spread: x_spread, unnormed, qkv: [q, k, v] } =
            self.project(layer, &x, packed.positions(), queries.rows(), rotaries);
        let mut attended = Buffer::unspecified(q.len());
        let projections = Projections { q: &q, k: &k, v: &v };
        attention::forward(packed.segments(), queries, self.config.heads_in(layer), projections, &mut attended);
        let (rest, out) = self.finish(layer, self.gather(&x, queries.rows()), &attended);
        (LayerTape { x, x_spread, unnormed, q, k, v, attended, rest }, out)
    }

    /// `y`: (rows, outputs) ← `x`: (rows, inputs) times the transposed matrix `name`, added to what `y` holds when `accumulate`.
    pub(super) fn product(&self, name: &str, x: &[f32], y: &mut [f32], accumulate: bool) {
        match self.prepared {
            Some(prepared) => linear::forward_prepared(x, &prepared.0[name], y, accumulate),
            None => self.weight(name).forward(x, y, accumulate),
        }
    }

    fn weight(&self, name: &str) -> Weight<'a> {
        matrix(self.config, name, self.parameters.get(name)).expect("a matrix has two dimensions")
    }

    fn weight_name(&self, layer: usize, part: &str) -> String {
        self.names().in_layer(layer, part) + ".weight"
    }

    fn bias_name(&self, layer: usize, part: &str) -> String {
        self.names().in_layer(layer, part) + ".bias"
    }

    fn bias(&self, layer: usize, part: &str) -> Option<&'a [f32]> {
        self.parameters.find(&self.bias_name(layer, part)).map(|bias| &bias.values[..])
    }

    fn linear(&self, layer: usize, part: &str, x: &[f32]) -> Buffer {
        let name = self.weight_name(layer, part);
        let weight = self.weight(&name);
        let mut y = Buffer::unspecified(x.len() / weight.inputs() * weight.outputs());
        let bias = self.bias(layer, part);
        if let Some(bias) = bias {
            matrix::fill_rows(bias, &mut y);
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
    pub(super) fn project(&self, layer: usize, x: &[f32], positions: &[u32], asked: &[usize], rotaries: &Rotaries) -> Projected {
        let heads = self.config.heads();
        let (normed, spread) = self.normed(&self.names().in_layer(layer, self.names().attention_norm), x);
        let [mut q, mut k, v] = match self.names().qkv {
            Qkv::Apart([query, key, value]) => {
                let [k, v] = [key, value].map(|part| self.linear(layer, part, &normed));
                [self.linear(layer, query, &self.asked_of(&normed, asked)), k, v]
            }
            fused @ (Qkv::Thirds(part) | Qkv::ByHead(part)) => {
                fused::split(&self.linear(layer, part, &normed), fused, heads, asked)
            }
        };
        let unnormed = self.config.block.qk_norm.then(|| {
            let of_heads = |part: &str, x: &[f32]| self.normed(&self.names().in_layer(layer, part), x).0;
            let (normed_q, normed_k) = (of_heads(QK_NORMS[0], &q), of_heads(QK_NORMS[1], &k));
            [std::mem::replace(&mut q, normed_q), std::mem::replace(&mut k, normed_k)]
        });
        if let Some(rotary) = rotaries.of(self.config, layer) {
            rotary.forward(&mut k, heads.key_width(), positions);
            rotary.forward(&mut q, heads.query_width(), &positions_of(positions, asked));
        }
        Projected { spread, unnormed, qkv: [q, k, v] }
    }

    /// What follows attention, for the rows that ask: `x`: (asked, hidden) is the residual stream at the layer's entry. Returns it at the
    /// layer's end.
    pub(super) fn finish(&self, layer: usize, x: Buffer, attended: &[f32]) -> (Rest, Buffer) {
        let (mut source, mut out) = (x, None);
        let attention = match self.config.block.residual {
            Residual::Parallel => {
                let sum = out.insert(Buffer::copy_of(&source));
                self.add_branch(layer, Branch::Attention, attended, sum)
            }
            Residual::Sequential | Residual::NormedBranches => self.add_branch(layer, Branch::Attention, attended, &mut source),
        };
        let mut out = out.unwrap_or_else(|| Buffer::copy_of(&source));
        let (normed, source_spread) = self.normed(&self.names().in_layer(layer, self.names().mlp_norm), &source);
        let inner: Vec<Buffer> = self.names().mlp_in.iter().map(|part| self.linear(layer, part, &normed)).collect();
        let mlp = self.add_branch(layer, Branch::Mlp, &self.activated(&inner), &mut out);
        (Rest { source, source_spread, branches: [attention, mlp], inner }, out)
    }

    /// (rows, inner): what the MLP's last product takes.
    fn activated(&self, inner: &[Buffer]) -> Buffer {
        let mut activated = Buffer::unspecified(inner[0].len());
        match (self.config.block.mlp, inner) {
            (Mlp::Gated(form), [gate, up]) => mlp::forward(form, gate, up, &mut activated),
            (Mlp::Gelu(form), [up]) => gelu::forward(form, up, &mut activated),
            _ => unreachable!("a gated MLP has two products before it, another one"),
        }
        activated
    }

    /// `x`: (rows, hidden) += a residual branch that ends with its projection of `input`: the projection's chain goes on from `x`. Under
    /// dropout it starts from zero, is dropped and multiplied (GPT-2's `resid_pdrop`), and then added; so where it is normed, which comes
    /// before dropout. Returns what the norm reads.
    fn add_branch(&self, layer: usize, branch: Branch, input: &[f32], x: &mut [f32]) -> Option<(Buffer, Spread)> {
        let part = branch.part(self.names());
        let norm = (self.config.block.residual == Residual::NormedBranches).then(|| self.branch_norm(layer, branch));
        if self.dropout.is_none() && norm.is_none() {
            if let Some(bias) = self.bias(layer, part) {
                matrix::add_to_rows(bias, x);
            }
            self.product(&self.weight_name(layer, part), input, x, true);
            self.adapt(layer, part, input, x);
            return None;
        }
        let mut added = self.linear(layer, part, input);
        let unnormed = norm.map(|name| {
            let (normed, spread) = self.normed(&name, &added);
            (std::mem::replace(&mut added, normed), spread)
        });
        if let Some(masks) = self.dropout {
            added = masks.dropped(branch.module(layer), &added, self.config.hidden_size);
        }
        matrix::add(x, &added);
        unnormed
    }

    fn branch_norm(&self, layer: usize, branch: Branch) -> String {
        self.names().in_layer(layer, self.names().branch_norms[branch as usize])
    }

    /// (rows.len(), hidden): the chosen rows of a (rows, hidden) matrix.
    pub(super) fn gather(&self, x: &[f32], rows: &[usize]) -> Buffer {
        matrix::gather_rows(x, rows, self.config.hidden_size)
    }

    /// [`Self::gather`], without a copy where all rows ask: `rows` ascend.
    fn asked_of<'x>(&self, x: &'x Buffer, rows: &[usize]) -> Cow<'x, Buffer> {
        match rows.len() * self.config.hidden_size == x.len() {
            true => Cow::Borrowed(x),
            false => Cow::Owned(self.gather(x, rows)),
        }
    }
}

fn positions_of(positions: &[u32], rows: &[usize]) -> Vec<u32> {
    rows.iter().map(|r| positions[*r]).collect()
}
