//! A Llama trunk, or one of a family that differs little from it (Mistral, Qwen2, Qwen3), with a score head as an ONNX graph: `input_ids` and `attention_mask` in, one logit a sequence out.
//!
//! Sequences are padded on the right. Padding never reaches a score: no real position attends to it (causal and masked),
//! and the score is read at the last unmasked position. A pairwise judge has a third input, `token_type_ids` (0 up to the end
//! of the first text, 1 after it, as cross-encoders have it): its logit is the score read at the end of the first text minus
//! the score at the end of the second, which was read with the first in sight.

use std::collections::BTreeMap;

use super::graph::{Attribute, Dim, Graph};
use super::proto::{DataType, ModelProto};
use crate::model::{Block, LlamaConfig, Scorer};
use crate::suite::settings::JudgeKind;

/// Names of the graph's inputs and output, as transformers has them.
pub(crate) const INPUT_IDS: &str = "input_ids";
pub(crate) const ATTENTION_MASK: &str = "attention_mask";
pub(crate) const TOKEN_TYPE_IDS: &str = "token_type_ids";
pub(crate) const LOGITS: &str = "logits";

/// Names of the nodes and constants that every layer uses.
struct Shared {
    epsilon: String,
    /// (sequence, head_dim) each.
    cos: String,
    sin: String,
    /// By the layer's window, (batch, 1, 1, sequence, sequence): 0 where attention is allowed, else −10⁹.
    biases: BTreeMap<Option<usize>, String>,
    scale: String,
    half: [String; 4],
    heads_shape: String,
    kv_heads_shape: String,
    grouped_query_shape: String,
    grouped_key_shape: String,
    grouped_value_shape: String,
    ungrouped_shape: String,
    merged_shape: String,
}

/// What of a block the graph can't say, in words; empty where it says all.
pub(crate) fn unwritten(block: &Block) -> Vec<&'static str> {
    let rest = Block {
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        windows: Vec::new(),
        rope_scaling: None,
        ..block.clone()
    };
    rest.beyond_llama()
}

/// The graph of `model`. Weight matrices are stored transposed, (in, out), as MatMul wants them.
pub(crate) fn sequence_classifier(model: &Scorer, kind: JudgeKind, metadata: &BTreeMap<String, String>) -> ModelProto {
    let (config, mut graph) = (&model.config, Graph::default());
    let g = &mut graph;
    let batch = [Dim::Named("batch"), Dim::Named("sequence")];
    let ids = g.input(INPUT_IDS, DataType::Int64, &batch);
    let mask = g.input(ATTENTION_MASK, DataType::Int64, &batch);

    let table = tensor(g, model, "model.embed_tokens.weight");
    let mut x = g.op("Gather", &[&table, &ids]); // (batch, sequence, hidden)
    let shared = shared(g, config, &ids, &mask);
    for layer in 0..config.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let normed = norm(g, model, &name("input_layernorm"), &x, &shared.epsilon);
        let attended = attention(g, model, layer, &normed, &shared);
        x = g.op("Add", &[&x, &attended]);
        let normed = norm(g, model, &name("post_attention_layernorm"), &x, &shared.epsilon);
        let gate = linear(g, model, &name("mlp.gate_proj"), &normed);
        let up = linear(g, model, &name("mlp.up_proj"), &normed);
        let sigmoid = g.op("Sigmoid", &[&gate]);
        let silu = g.op("Mul", &[&gate, &sigmoid]);
        let gated = g.op("Mul", &[&silu, &up]);
        let down = linear(g, model, &name("mlp.down_proj"), &gated);
        x = g.op("Add", &[&x, &down]);
    }
    let last = last_rows(g, "second", &x, &mask); // (batch, hidden)
    let logits = match kind {
        JudgeKind::RewardModel => {
            let normed = norm(g, model, "model.norm.weight", &last, &shared.epsilon);
            linear(g, model, "score.weight", &normed)
        }
        JudgeKind::Pairwise => {
            let types = g.input(TOKEN_TYPE_IDS, DataType::Int64, &batch);
            let one = g.ints("first.type", &[1]);
            let first = g.op("Sub", &[&one, &types]);
            let first = g.op("Mul", &[&first, &mask]);
            let first = last_rows(g, "first", &x, &first);
            // The head is linear: the difference of the scores is the score of the difference.
            let [first, last] = [&first, &last].map(|rows| norm(g, model, "model.norm.weight", rows, &shared.epsilon));
            let difference = g.op("Sub", &[&first, &last]);
            linear(g, model, "score.weight", &difference)
        }
    };
    g.output(&logits, LOGITS, DataType::Float, &[Dim::Named("batch"), Dim::Fixed(1)]);
    graph.into_model("llama_sequence_classifier", metadata)
}

fn tensor(g: &mut Graph, model: &Scorer, name: &str) -> String {
    let tensor = model.parameters.get(name);
    g.floats(name, &tensor.shape, &tensor.values)
}

fn shared(g: &mut Graph, config: &LlamaConfig, ids: &str, mask: &str) -> Shared {
    let (heads, kv, dim) = (config.num_attention_heads as i64, config.num_key_value_heads as i64, config.head_dim as i64);
    let half = dim / 2;
    let lengths = g.op("Shape", &[ids]);
    let one = g.ints("one", &[1]);
    let sequence = g.op("Gather", &[&lengths, &one]); // (1,)
    let (cos, sin) = rotary_tables(config);
    let table = |g: &mut Graph, name: &str, values: &[f32]| {
        let whole = g.floats(name, &[config.max_position_embeddings, config.head_dim], values);
        let (zero, axis) = (g.ints(&format!("{name}.start"), &[0]), g.ints(&format!("{name}.axis"), &[0]));
        g.op("Slice", &[&whole, &zero, &sequence, &axis])
    };
    let (cos, sin) = (table(g, "rotary.cos", &cos), table(g, "rotary.sin", &sin));
    Shared {
        epsilon: g.floats("rms_norm_eps", &[], &[config.rms_norm_eps as f32]),
        cos,
        sin,
        biases: attention_biases(g, config, &sequence, mask),
        scale: g.floats("attention.scale", &[], &[(1.0 / (config.head_dim as f64).sqrt()) as f32]),
        half: [("zero", 0), ("half", half), ("whole", dim), ("last_axis", -1)]
            .map(|(name, value)| g.ints(&format!("rotary.{name}"), &[value])),
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

/// cos and sin of position · frequency, (positions, head_dim), both halves alike (Su et al. 2021, in Hugging
/// Face's layout). In binary64 by a portable libm, rounded once, as the training kernels have it.
fn rotary_tables(config: &LlamaConfig) -> (Vec<f32>, Vec<f32>) {
    let frequencies = config.frequencies(false);
    let table = |f: fn(f64) -> f64| -> Vec<f32> {
        let row = |p: usize| {
            let once = frequencies.iter().map(move |w| f(p as f64 * w) as f32);
            once.clone().chain(once)
        };
        (0..config.max_position_embeddings).flat_map(row).collect()
    };
    (table(libm::cos), table(libm::sin))
}

/// 0 where query position q may see key position k (k ≤ q, k is no padding, and k > q − window), else −10⁹, whose exponential is 0.
fn attention_biases(g: &mut Graph, config: &LlamaConfig, sequence: &str, mask: &str) -> BTreeMap<Option<usize>, String> {
    let (start, step) = (g.int("range.start", 0), g.int("range.step", 1));
    let limit = g.op("Squeeze", &[sequence]);
    let positions = g.op("Range", &[&start, &limit, &step]);
    let (axis0, axis1) = (g.ints("axis.0", &[0]), g.ints("axis.1", &[1]));
    let keys = g.op("Unsqueeze", &[&positions, &axis0]); // (1, sequence)
    let queries = g.op("Unsqueeze", &[&positions, &axis1]); // (sequence, 1)
    let causal = g.op("LessOrEqual", &[&keys, &queries]); // (sequence, sequence)
    let real = g.op_with("Cast", &[mask], &[("to", Attribute::Int(DataType::Bool as i64))]);
    let axes = g.ints("axes.123", &[1, 2, 3]);
    let real = g.op("Unsqueeze", &[&real, &axes]); // (batch, 1, 1, 1, sequence)
    let allowed = g.op("And", &[&causal, &real]); // (batch, 1, 1, sequence, sequence)
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
    config.windows().into_iter().map(&mut bias).collect()
}

/// x / √(mean(x²) + ε) · weight over the last axis (Zhang & Sennrich 2019).
fn norm(g: &mut Graph, model: &Scorer, name: &str, x: &str, epsilon: &str) -> String {
    let weight = tensor(g, model, name);
    let squares = g.op("Mul", &[x, x]);
    let keep = [("axes", Attribute::Ints(&[-1])), ("keepdims", Attribute::Int(1))];
    let mean = g.op_with("ReduceMean", &[&squares], &keep);
    let shifted = g.op("Add", &[&mean, epsilon]);
    let root = g.op("Sqrt", &[&shifted]);
    let scaled = g.op("Div", &[x, &root]);
    g.op("Mul", &[&scaled, &weight])
}

/// x · Wᵀ for a weight of shape (out, in), plus the bias where the model has one.
fn linear(g: &mut Graph, model: &Scorer, name: &str, x: &str) -> String {
    let weight = model.parameters.get(name);
    let (output, input) = (weight.shape[0], weight.shape[1]);
    let transposed: Vec<f32> = (0..input * output).map(|i| weight.values[i % output * input + i / output]).collect();
    let weight = g.floats(name, &[input, output], &transposed);
    let product = g.op("MatMul", &[x, &weight]);
    let bias = format!("{}.bias", name.trim_end_matches(".weight"));
    match model.parameters.find(&bias) {
        None => product,
        Some(values) => {
            let bias = g.floats(&bias, &values.shape, &values.values);
            g.op("Add", &[&product, &bias])
        }
    }
}

/// Causal attention with grouped queries: (batch, sequence, hidden) to the same.
fn attention(g: &mut Graph, model: &Scorer, layer: usize, x: &str, shared: &Shared) -> String {
    let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}_proj.weight");
    let swap = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
    let heads = |g: &mut Graph, part: &str, to: &str| {
        let projected = linear(g, model, &name(part), x);
        let mut split = g.op("Reshape", &[&projected, to]);
        if model.config.block.qk_norm && part != "v" {
            split = norm(g, model, &format!("model.layers.{layer}.self_attn.{part}_norm.weight"), &split, &shared.epsilon);
        }
        g.op_with("Transpose", &[&split], &swap) // (batch, heads, sequence, head_dim)
    };
    let query = heads(g, "q", &shared.heads_shape);
    let key = heads(g, "k", &shared.kv_heads_shape);
    let value = heads(g, "v", &shared.kv_heads_shape);
    let (query, key) = (rotated(g, &query, shared), rotated(g, &key, shared));

    let query = g.op("Reshape", &[&query, &shared.grouped_query_shape]); // (batch, kv, group, sequence, head_dim)
    let key = g.op_with("Transpose", &[&key], &[("perm", Attribute::Ints(&[0, 1, 3, 2]))]);
    let key = g.op("Reshape", &[&key, &shared.grouped_key_shape]); // (batch, kv, 1, head_dim, sequence)
    let value = g.op("Reshape", &[&value, &shared.grouped_value_shape]); // (batch, kv, 1, sequence, head_dim)
    let products = g.op("MatMul", &[&query, &key]);
    let scaled = g.op("Mul", &[&products, &shared.scale]);
    let biased = g.op("Add", &[&scaled, &shared.biases[&model.config.window(layer)]]);
    let shares = g.op_with("Softmax", &[&biased], &[("axis", Attribute::Int(-1))]);
    let mixed = g.op("MatMul", &[&shares, &value]); // (batch, kv, group, sequence, head_dim)
    let mixed = g.op("Reshape", &[&mixed, &shared.ungrouped_shape]);
    let mixed = g.op_with("Transpose", &[&mixed], &swap);
    let merged = g.op("Reshape", &[&mixed, &shared.merged_shape]);
    linear(g, model, &name("o"), &merged)
}

/// x · cos + rotate_half(x) · sin.
fn rotated(g: &mut Graph, x: &str, shared: &Shared) -> String {
    let [zero, half, whole, axis] = &shared.half;
    let first = g.op("Slice", &[x, zero, half, axis]);
    let second = g.op("Slice", &[x, half, whole, axis]);
    let negated = g.op("Neg", &[&second]);
    let turned = g.op_with("Concat", &[&negated, &first], &[("axis", Attribute::Int(-1))]);
    let along = g.op("Mul", &[x, &shared.cos]);
    let across = g.op("Mul", &[&turned, &shared.sin]);
    g.op("Add", &[&along, &across])
}

/// The rows of `x` at each sequence's last unmasked position: (batch, hidden).
fn last_rows(g: &mut Graph, name: &str, x: &str, mask: &str) -> String {
    let axis = g.ints(&format!("{name}.axis"), &[1]);
    let lengths = g.op_with("ReduceSum", &[mask, &axis], &[("keepdims", Attribute::Int(1))]); // (batch, 1)
    let one = g.ints(&format!("{name}.one"), &[1]);
    let last = g.op("Sub", &[&lengths, &one]);
    g.op_with("GatherND", &[x, &last], &[("batch_dims", Attribute::Int(1))])
}

#[cfg(test)]
pub(crate) mod tests;
