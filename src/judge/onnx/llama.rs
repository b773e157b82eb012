//! A Llama trunk with a score head as an ONNX graph: `input_ids` and `attention_mask` in, one logit a sequence out.
//!
//! Sequences are padded on the right. Padding never reaches a score: no real position attends to it (causal and masked),
//! and the score is read at the last unmasked position. A pairwise judge has a third input, `token_type_ids` (0 up to the end
//! of the first text, 1 after it, as cross-encoders have it): its logit is the score read at the end of the first text minus
//! the score at the end of the second, which was read with the first in sight.

use std::collections::BTreeMap;

use super::graph::{Attribute, Dim, Graph};
use super::proto::{DataType, ModelProto};
use crate::model::{LlamaConfig, Scorer};
use crate::suite::settings::JudgeKind;

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
    /// (batch, 1, 1, sequence, sequence): 0 where attention is allowed, else −10⁹.
    bias: String,
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
        bias: attention_bias(g, &sequence, mask),
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

/// cos and sin of position · θ^(−2i / head_dim), (positions, head_dim), both halves alike (Su et al. 2021, in Hugging
/// Face's layout). In binary64 by a portable libm, rounded once, as the training kernels have it.
fn rotary_tables(config: &LlamaConfig) -> (Vec<f32>, Vec<f32>) {
    let dim = config.head_dim;
    let frequencies: Vec<f64> = (0..dim / 2).map(|i| libm::pow(config.rope_theta, -((2 * i) as f64) / dim as f64)).collect();
    let table = |f: fn(f64) -> f64| -> Vec<f32> {
        let row = |p: usize| {
            let once = frequencies.iter().map(move |w| f(p as f64 * w) as f32);
            once.clone().chain(once)
        };
        (0..config.max_position_embeddings).flat_map(row).collect()
    };
    (table(libm::cos), table(libm::sin))
}

/// 0 where query position q may see key position k (k ≤ q, and k is no padding), else −10⁹, whose exponential is 0.
fn attention_bias(g: &mut Graph, sequence: &str, mask: &str) -> String {
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
    g.op("Where", &[&allowed, &open, &shut])
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

/// x · Wᵀ for a weight of shape (out, in).
fn linear(g: &mut Graph, model: &Scorer, name: &str, x: &str) -> String {
    let weight = model.parameters.get(name);
    let (output, input) = (weight.shape[0], weight.shape[1]);
    let transposed: Vec<f32> = (0..input * output).map(|i| weight.values[i % output * input + i / output]).collect();
    let weight = g.floats(name, &[input, output], &transposed);
    g.op("MatMul", &[x, &weight])
}

/// Causal attention with grouped queries: (batch, sequence, hidden) to the same.
fn attention(g: &mut Graph, model: &Scorer, layer: usize, x: &str, shared: &Shared) -> String {
    let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}_proj.weight");
    let swap = [("perm", Attribute::Ints(&[0, 2, 1, 3]))];
    let heads = |g: &mut Graph, part: &str, to: &str| {
        let projected = linear(g, model, &name(part), x);
        let split = g.op("Reshape", &[&projected, to]);
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
    let biased = g.op("Add", &[&scaled, &shared.bias]);
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
pub(crate) mod tests {
    use super::*;
    use crate::judge::session::Model;
    use crate::model::{Block, Family, Parameters, Tensor};
    use crate::rng::Stream;
    use crate::suite::settings::Numerics;
    use crate::watch::Silent;
    use candle_core::{DType, Device};
    use candle_transformers::models::llama;
    use prost::Message;

    pub(crate) fn config() -> LlamaConfig {
        LlamaConfig {
            family: Family::Llama,
            vocab_size: 320,
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            initializer_range: 0.2,
            tie_word_embeddings: true,
            bos_token_id: Some(1),
            eos_token_id: vec![2],
            pad_token_id: None,
            block: Block::default(),
        }
    }

    /// A scorer whose weights are large enough for every part of it to matter.
    pub(crate) fn random() -> Scorer {
        let config = config();
        let mut parameters = Parameters::new();
        let mut tensors = config.trunk_tensors();
        tensors.push(("score.weight".to_owned(), vec![1, config.hidden_size]));
        for (i, (name, shape)) in tensors.into_iter().enumerate() {
            let mut stream = Stream::of(5, "test/weights", i as u64);
            let (mean, spread) = if name.contains("norm") { (1.0, 0.1) } else { (0.0, 0.2) };
            let values = (0..shape.iter().product()).map(|_| (mean + spread * stream.normal()) as f32).collect();
            parameters.insert(name, Tensor { shape, values });
        }
        Scorer { config, parameters, numerics: Numerics::Strict }
    }

    pub(crate) fn bytes(model: &Scorer) -> Vec<u8> {
        let positions = model.config.max_position_embeddings.to_string();
        let metadata = BTreeMap::from([("dpo_eval.max_positions".to_owned(), positions)]);
        sequence_classifier(model, JudgeKind::RewardModel, &metadata).encode_to_vec()
    }

    pub(crate) fn sequences() -> Vec<Vec<u32>> {
        let mut stream = Stream::of(6, "test/sequences", 0);
        [1, 2, 7, 33, 64, 33, 12].map(|n| (0..n).map(|_| stream.index(config().vocab_size) as u32).collect()).to_vec()
    }

    /// The same scores by candle's Llama, whose language-model head is here our score head in every row.
    fn candle_scores(model: &Scorer, sequences: &[Vec<u32>]) -> Vec<f32> {
        let (shape, device) = (&model.config, Device::Cpu);
        let mut tensors = std::collections::HashMap::new();
        for (name, tensor) in model.parameters.iter() {
            let values = candle_core::Tensor::from_vec(tensor.values.clone(), tensor.shape.as_slice(), &device).unwrap();
            if name == "score.weight" {
                let head = values.broadcast_as((shape.vocab_size, shape.hidden_size)).unwrap().contiguous().unwrap();
                tensors.insert("lm_head.weight".to_owned(), head);
            } else {
                tensors.insert(name.to_owned(), values);
            }
        }
        let config = llama::Config {
            hidden_size: shape.hidden_size,
            intermediate_size: shape.intermediate_size,
            vocab_size: shape.vocab_size,
            num_hidden_layers: shape.num_hidden_layers,
            num_attention_heads: shape.num_attention_heads,
            num_key_value_heads: shape.num_key_value_heads,
            use_flash_attn: false,
            rms_norm_eps: shape.rms_norm_eps,
            rope_theta: shape.rope_theta as f32,
            bos_token_id: None,
            eos_token_id: None,
            rope_scaling: None,
            max_position_embeddings: shape.max_position_embeddings,
            tie_word_embeddings: false,
        };
        let builder = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &device);
        let model = llama::Llama::load(builder, &config).unwrap();
        let score = |ids: &Vec<u32>| {
            let mut cache = llama::Cache::new(false, DType::F32, &config, &device).unwrap();
            let ids = candle_core::Tensor::new(ids.as_slice(), &device).unwrap().unsqueeze(0).unwrap();
            model.forward(&ids, 0, &mut cache).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0]
        };
        sequences.iter().map(score).collect()
    }

    #[test]
    fn the_exported_graph_scores_as_candles_llama_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let model = random();
        std::fs::write(&path, bytes(&model)).unwrap();
        let sequences = sequences();
        let rows: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let ours = Model::open(&path, 2).unwrap().logits(&rows, &Silent).unwrap();
        let theirs = candle_scores(&model, &sequences);
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= 1e-5, "{ours:?}\n{theirs:?}");
        }
    }
}
