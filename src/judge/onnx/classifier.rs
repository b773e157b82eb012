//! A transformer of any family that is trained here, with a score head, as an ONNX graph: `input_ids` and `attention_mask` in, one logit a
//! sequence out.
//!
//! Sequences are padded on the right. Padding never reaches a score: no real position attends to it, and the score is read at the last
//! unmasked position, or as the mean over these. A pairwise judge has a third input, `token_type_ids` (0 up to the end
//! of the first text, 1 after it, as cross-encoders have it): its logit is the score of the first text minus
//! that of the second, which was read with the first in sight.
//!
//! | file | what it writes |
//! |---|---|
//! | `parts` | weights, linear layers, norms, MLPs |
//! | `attention` | which keys a query sees, rotary positions, attention |

mod attention;
mod parts;

use std::collections::BTreeMap;

use super::graph::{Attribute, Dim, Graph};
use super::proto::{DataType, ModelProto};
use crate::model::{Positions, Residual, Scorer};
use crate::suite::settings::{JudgeKind, Pooling};
use attention::{Shared, attention, shared};
use parts::{linear, mlp, tensor};

/// Names of the graph's inputs and output, as transformers has them.
pub(crate) const INPUT_IDS: &str = "input_ids";
pub(crate) const ATTENTION_MASK: &str = "attention_mask";
pub(crate) const TOKEN_TYPE_IDS: &str = "token_type_ids";
pub(crate) const LOGITS: &str = "logits";

/// The head of a [`Scorer`].
const HEAD: &str = "score";

/// The graph of `model`. Weight matrices are stored as (in, out), as MatMul wants them.
pub(crate) fn sequence_classifier(
    model: &Scorer,
    kind: JudgeKind,
    pooling: Pooling,
    metadata: &BTreeMap<String, String>,
) -> ModelProto {
    let (config, mut graph) = (&model.config, Graph::default());
    let g = &mut graph;
    let batch = [Dim::Named("batch"), Dim::Named("sequence")];
    let ids = g.input(INPUT_IDS, DataType::Int64, &batch);
    let mask = g.input(ATTENTION_MASK, DataType::Int64, &batch);

    let (x, shared) = embedded(g, model, &ids, &mask); // (batch, sequence, hidden)
    let x = (0..config.num_hidden_layers).fold(x, |x, number| layer(g, model, number, x, &shared));
    let (norms, final_norm) = (&shared.norms, config.family.names().final_norm);
    let read = match (pooling, kind) {
        (Pooling::Last, JudgeKind::RewardModel) => {
            let last = last_rows(g, "second", &x, &mask); // (batch, hidden)
            norms.of(g, model, final_norm, &last)
        }
        (Pooling::Last, JudgeKind::Pairwise) => {
            let last = last_rows(g, "second", &x, &mask);
            let [first, _] = texts(g, &mask);
            let first = last_rows(g, "first", &x, &first);
            // The head is linear: the difference of the scores is the score of the difference.
            let [first, last] = [&first, &last].map(|rows| norms.of(g, model, final_norm, rows));
            g.op("Sub", &[&first, &last])
        }
        (Pooling::Mean, JudgeKind::RewardModel) => {
            let normed = norms.of(g, model, final_norm, &x);
            mean_rows(g, "whole", &normed, &mask)
        }
        (Pooling::Mean, JudgeKind::Pairwise) => {
            let normed = norms.of(g, model, final_norm, &x);
            let [first, second] = texts(g, &mask);
            let [first, second] = [("first", first), ("second", second)].map(|(name, text)| mean_rows(g, name, &normed, &text));
            g.op("Sub", &[&first, &second])
        }
    };
    let logits = linear(g, model, HEAD, &read);
    g.output(&logits, LOGITS, DataType::Float, &[Dim::Named("batch"), Dim::Fixed(1)]);
    graph.into_model(&format!("{}_sequence_classifier", config.family.name()), metadata)
}

/// The residual stream below the first layer, and what all layers share.
fn embedded(g: &mut Graph, model: &Scorer, ids: &str, mask: &str) -> (String, Shared) {
    let (config, names) = (&model.config, model.config.family.names());
    let table = tensor(g, model, &format!("{}.weight", names.embedding));
    let mut x = g.op("Gather", &[&table, ids]);
    if let Some(scale) = config.embedding_scale() {
        let scale = g.floats("embedding.scale", &[], &[scale]);
        x = g.op("Mul", &[&x, &scale]);
    }
    let shared = shared(g, config, ids, mask);
    if config.block.positions == Positions::Learned {
        let table = tensor(g, model, &format!("{}.weight", names.positions));
        let learned = g.op("Gather", &[&table, &shared.positions]); // (sequence, hidden)
        x = g.op("Add", &[&x, &learned]);
    }
    (x, shared)
}

/// `x` after a layer: both (batch, sequence, hidden). See [`Residual`] for how its two branches join the stream.
fn layer(g: &mut Graph, model: &Scorer, layer: usize, x: String, shared: &Shared) -> String {
    let (residual, names, norms) = (model.config.block.residual, model.config.family.names(), &shared.norms);
    let name = |part: &str| names.in_layer(layer, part);
    let normed = norms.of(g, model, &name(names.attention_norm), &x);
    let mut attended = attention(g, model, layer, &normed, shared);
    if residual == Residual::NormedBranches {
        attended = norms.of(g, model, &name(names.branch_norms[0]), &attended);
    }
    let sum = g.op("Add", &[&x, &attended]);
    let source = if residual == Residual::Parallel { &x } else { &sum };
    let normed = match names.mlp_norm == names.attention_norm {
        true => normed,
        false => norms.of(g, model, &name(names.mlp_norm), source),
    };
    let mut through = mlp(g, model, layer, &normed);
    if residual == Residual::NormedBranches {
        through = norms.of(g, model, &name(names.branch_norms[1]), &through);
    }
    g.op("Add", &[&sum, &through])
}

/// The rows of `x` at each sequence's last unmasked position: (batch, hidden).
fn last_rows(g: &mut Graph, name: &str, x: &str, mask: &str) -> String {
    let axis = g.ints(&format!("{name}.axis"), &[1]);
    let lengths = g.op_with("ReduceSum", &[mask, &axis], &[("keepdims", Attribute::Int(1))]); // (batch, 1)
    let one = g.ints(&format!("{name}.one"), &[1]);
    let last = g.op("Sub", &[&lengths, &one]);
    g.op_with("GatherND", &[x, &last], &[("batch_dims", Attribute::Int(1))])
}

/// 1 for each token of the first text, and for each of the second: (batch, sequence).
fn texts(g: &mut Graph, mask: &str) -> [String; 2] {
    let types = g.input(TOKEN_TYPE_IDS, DataType::Int64, &[Dim::Named("batch"), Dim::Named("sequence")]);
    let one = g.ints("first.type", &[1]);
    let first = g.op("Sub", &[&one, &types]);
    [g.op("Mul", &[&first, mask]), types]
}

/// The mean of `x` over the tokens that `text` has a 1 for, 0 where there are none: (batch, hidden).
fn mean_rows(g: &mut Graph, name: &str, x: &str, text: &str) -> String {
    let (axis, one) = (g.ints(&format!("{name}.axis"), &[1]), g.floats(&format!("{name}.one"), &[], &[1.0]));
    let weights = g.op_with("Cast", &[text], &[("to", Attribute::Int(DataType::Float as i64))]); // (batch, sequence)
    let row = g.op("Unsqueeze", &[&weights, &axis]);
    let sum = g.op("MatMul", &[&row, x]); // (batch, 1, hidden)
    let sum = g.op("Squeeze", &[&sum, &axis]);
    let count = g.op_with("ReduceSum", &[&weights, &axis], &[("keepdims", Attribute::Int(1))]); // (batch, 1)
    let count = g.op("Max", &[&count, &one]);
    g.op("Div", &[&sum, &count])
}

#[cfg(test)]
pub(crate) mod tests;
