//! Attention as nodes: which keys a query sees, rotary positions, grouped queries.

use std::collections::BTreeMap;

use super::parts::{Norms, linear, projected};
use crate::judge::onnx::graph::{Attribute, Graph};
use crate::judge::onnx::proto::DataType;
use crate::model::{LlamaConfig, Positions, QK_NORMS, Scorer};

/// Names of the nodes and constants that every layer uses.
pub(super) struct Shared {
    /// (sequence,)
    pub positions: String,
    pub norms: Norms,
    rotaries: Option<Rotaries>,
    /// By the layer's window, what broadcasts to (batch, 1, 1, sequence, sequence): 0 where attention is allowed, else −10⁹.
    biases: BTreeMap<Option<usize>, String>,
    scale: String,
    cap: Option<String>,
    heads_shape: String,
    kv_heads_shape: String,
    grouped_query_shape: String,
    grouped_key_shape: String,
    grouped_value_shape: String,
    ungrouped_shape: String,
    merged_shape: String,
}

/// Where heads are turned by position.
struct Rotaries {
    /// cos and sin, (sequence, turned) each.
    plain: [String; 2],
    /// Of layers with a window, where they turn by other angles.
    windowed: Option<[String; 2]>,
    /// 0, half of the turned elements, all of them, and the axis.
    half: [String; 4],
    /// Where the elements end that aren't turned.
    end: Option<String>,
}

pub(super) fn shared(g: &mut Graph, config: &LlamaConfig, ids: &str, mask: &str) -> Shared {
    let of = config.heads();
    let (heads, kv, dim) = (of.heads as i64, of.kv_heads as i64, of.head_dim as i64);
    let lengths = g.op("Shape", &[ids]);
    let one = g.ints("one", &[1]);
    let sequence = g.op("Gather", &[&lengths, &one]); // (1,)
    let turns = config.block.positions != Positions::Learned;
    let plain = turns.then(|| tables(g, config, &sequence, "rotary", false));
    let windowed = (turns && config.has_window_rope()).then(|| tables(g, config, &sequence, "rotary.windowed", true));
    let norms = Norms::new(g, config);
    let (positions, biases) = attention_biases(g, config, &sequence, mask);
    let scale = of.scale.unwrap_or((1.0 / (config.head_dim as f64).sqrt()) as f32);
    Shared {
        positions,
        norms,
        biases,
        scale: g.floats("attention.scale", &[], &[scale]),
        cap: of.cap.map(|cap| g.floats("attention.cap", &[], &[cap])),
        rotaries: plain.map(|plain| Rotaries::new(g, config, plain, windowed)),
        // In Reshape, 0 keeps the input's dimension and −1 is what is left.
        heads_shape: g.ints("shape.heads", &[0, 0, heads, dim]),
        kv_heads_shape: g.ints("shape.kv_heads", &[0, 0, kv, dim]),
        grouped_query_shape: g.ints("shape.grouped_query", &[0, kv, heads / kv, -1, dim]),
        grouped_key_shape: g.ints("shape.grouped_key", &[0, kv, 1, dim, -1]),
        grouped_value_shape: g.ints("shape.grouped_value", &[0, kv, 1, -1, dim]),
        ungrouped_shape: g.ints("shape.ungrouped", &[0, heads, -1, dim]),
        merged_shape: g.ints("shape.merged", &[0, 0, heads * dim]),
    }
}

impl Rotaries {
    fn new(g: &mut Graph, config: &LlamaConfig, plain: [String; 2], windowed: Option<[String; 2]>) -> Self {
        let (dim, turned) = (config.head_dim as i64, config.turned() as i64);
        let half = [("zero", 0), ("half", turned / 2), ("whole", turned), ("last_axis", -1)]
            .map(|(name, value)| g.ints(&format!("rotary.{name}"), &[value]));
        let end = (turned < dim).then(|| g.ints("rotary.end", &[dim]));
        Self { plain, windowed, half, end }
    }

    /// What is turned, x · cos + rotate_half(x) · sin, and what isn't behind it.
    fn turned(&self, g: &mut Graph, config: &LlamaConfig, layer: usize, x: &str) -> String {
        let [zero, half, whole, axis] = &self.half;
        let [cos, sin] = self.windowed.as_ref().filter(|_| config.window(layer).is_some()).unwrap_or(&self.plain);
        let behind =
            |g: &mut Graph, end: &String| (g.op("Slice", &[x, zero, whole, axis]), g.op("Slice", &[x, whole, end, axis]));
        let (x, rest) = self.end.as_ref().map(|end| behind(g, end)).map_or((x.to_owned(), None), |(x, rest)| (x, Some(rest)));
        let first = g.op("Slice", &[&x, zero, half, axis]);
        let second = g.op("Slice", &[&x, half, whole, axis]);
        let negated = g.op("Neg", &[&second]);
        let turned = g.op_with("Concat", &[&negated, &first], &[("axis", Attribute::Int(-1))]);
        let along = g.op("Mul", &[&x, cos]);
        let across = g.op("Mul", &[&turned, sin]);
        let sum = g.op("Add", &[&along, &across]);
        match rest {
            None => sum,
            Some(rest) => g.op_with("Concat", &[&sum, &rest], &[("axis", Attribute::Int(-1))]),
        }
    }
}

/// cos and sin of position · frequency, (sequence, turned) each, both halves alike (Su et al. 2021, in Hugging
/// Face's layout). In binary64 by a portable libm, rounded once, as the training kernels have it.
fn tables(g: &mut Graph, config: &LlamaConfig, sequence: &str, name: &str, windowed: bool) -> [String; 2] {
    let frequencies = config.frequencies(windowed);
    [("cos", libm::cos as fn(f64) -> f64), ("sin", libm::sin)].map(|(part, f)| {
        let row = |p: usize| {
            let once = frequencies.iter().map(move |w| f(p as f64 * w) as f32);
            once.clone().chain(once)
        };
        let (name, positions) = (format!("{name}.{part}"), config.max_position_embeddings);
        let whole = g.floats(&name, &[positions, config.turned()], &(0..positions).flat_map(row).collect::<Vec<f32>>());
        let (zero, axis) = (g.ints(&format!("{name}.start"), &[0]), g.ints(&format!("{name}.axis"), &[0]));
        g.op("Slice", &[&whole, &zero, sequence, &axis])
    })
}

/// The positions, and by window 0 where query position q may see key position k (k ≤ q unless in both directions, k is no padding, and
/// k > q − window), else −10⁹, whose exponential is 0.
fn attention_biases(
    g: &mut Graph,
    config: &LlamaConfig,
    sequence: &str,
    mask: &str,
) -> (String, BTreeMap<Option<usize>, String>) {
    let (start, step) = (g.int("range.start", 0), g.int("range.step", 1));
    let limit = g.op("Squeeze", &[sequence]);
    let positions = g.op("Range", &[&start, &limit, &step]);
    let (axis0, axis1) = (g.ints("axis.0", &[0]), g.ints("axis.1", &[1]));
    let keys = g.op("Unsqueeze", &[&positions, &axis0]); // (1, sequence)
    let queries = g.op("Unsqueeze", &[&positions, &axis1]); // (sequence, 1)
    let causal = (!config.block.bidirectional).then(|| g.op("LessOrEqual", &[&keys, &queries])); // (sequence, sequence)
    let real = g.op_with("Cast", &[mask], &[("to", Attribute::Int(DataType::Bool as i64))]);
    let axes = g.ints("axes.123", &[1, 2, 3]);
    let real = g.op("Unsqueeze", &[&real, &axes]); // (batch, 1, 1, 1, sequence)
    // (batch, 1, 1, sequence, sequence), or in both directions what broadcasts to it
    let allowed = causal.map_or(real.clone(), |causal| g.op("And", &[&causal, &real]));
    let (open, shut) = (g.floats("bias.open", &[], &[0.0]), g.floats("bias.shut", &[], &[-1e9]));
    let mut bias = |window: Option<usize>| {
        let allowed = match window {
            None => allowed.clone(),
            Some(window) => {
                let window = g.int(&format!("window.{window}"), window as i64);
                let before = g.op("Sub", &[&queries, &window]);
                let near = g.op("Greater", &[&keys, &before]); // (sequence, sequence)
                g.op("And", &[&allowed, &near])
            }
        };
        (window, g.op("Where", &[&allowed, &open, &shut]))
    };
    let biases = config.windows().into_iter().map(&mut bias).collect();
    (positions, biases)
}

/// Attention with grouped queries: (batch, sequence, hidden) to the same.
pub(super) fn attention(g: &mut Graph, model: &Scorer, layer: usize, x: &str, shared: &Shared) -> String {
    let (config, names) = (&model.config, model.config.family.names());
    let swap = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
    let heads = |g: &mut Graph, part: usize, to: &str| {
        let projected = projected(g, model, layer, part, x);
        let mut split = g.op("Reshape", &[&projected, to]);
        if let Some(norm) = QK_NORMS.get(part).filter(|_| config.block.qk_norm) {
            split = shared.norms.of(g, model, &names.in_layer(layer, norm), &split);
        }
        g.op_with("Transpose", &[&split], &swap) // (batch, heads, sequence, head_dim)
    };
    let mut query = heads(g, 0, &shared.heads_shape);
    let mut key = heads(g, 1, &shared.kv_heads_shape);
    let value = heads(g, 2, &shared.kv_heads_shape);
    if let Some(rotaries) = &shared.rotaries {
        (query, key) = (rotaries.turned(g, config, layer, &query), rotaries.turned(g, config, layer, &key));
    }

    let query = g.op("Reshape", &[&query, &shared.grouped_query_shape]); // (batch, kv, group, sequence, head_dim)
    let key = g.op_with("Transpose", &[&key], &[("perm", Attribute::Ints(&[0, 1, 3, 2]))]);
    let key = g.op("Reshape", &[&key, &shared.grouped_key_shape]); // (batch, kv, 1, head_dim, sequence)
    let value = g.op("Reshape", &[&value, &shared.grouped_value_shape]); // (batch, kv, 1, sequence, head_dim)
    let products = g.op("MatMul", &[&query, &key]);
    let mut scores = g.op("Mul", &[&products, &shared.scale]);
    if let Some(cap) = &shared.cap {
        let shares = g.op("Div", &[&scores, cap]);
        let bounded = g.op("Tanh", &[&shares]);
        scores = g.op("Mul", &[&bounded, cap]);
    }
    let biased = g.op("Add", &[&scores, &shared.biases[&config.heads_in(layer).window]]);
    let shares = g.op_with("Softmax", &[&biased], &[("axis", Attribute::Int(-1))]);
    let mixed = g.op("MatMul", &[&shares, &value]); // (batch, kv, group, sequence, head_dim)
    let mixed = g.op("Reshape", &[&mixed, &shared.ungrouped_shape]);
    let mixed = g.op_with("Transpose", &[&mixed], &swap);
    let merged = g.op("Reshape", &[&mixed, &shared.merged_shape]);
    linear(g, model, &names.in_layer(layer, names.output), &merged)
}
