//! Weights, linear layers, norms and MLPs of a transformer as nodes.

use crate::judge::onnx::graph::{Attribute, Graph};
use crate::model::{Gated, Gelu, LlamaConfig, Mlp, Norm, Qkv, Scorer};
use crate::numerics::reference::GELU_TANH;

/// A weight as it is.
pub(super) fn tensor(g: &mut Graph, model: &Scorer, name: &str) -> String {
    let tensor = model.parameters.get(name);
    g.floats(name, &tensor.shape, &tensor.values)
}

/// A linear layer.
struct Linear {
    /// Of its weight.
    name: String,
    outputs: usize,
    /// (in, out)
    weight: Vec<f32>,
    bias: Option<(String, Vec<f32>)>,
}

impl Linear {
    /// `name`: of its tensors, without `.weight` and `.bias`.
    fn of(model: &Scorer, name: &str) -> Self {
        let (weight, file) = (format!("{name}.weight"), model.config.family.names());
        let tensor = model.parameters.get(&weight);
        let inputs_first = model.config.family.stores_inputs_first() && name.starts_with(file.layers);
        let (outputs, values) = match (inputs_first, tensor.shape[0], tensor.shape[1]) {
            (true, _, outputs) => (outputs, tensor.values.to_vec()),
            (false, outputs, inputs) => {
                (outputs, (0..inputs * outputs).map(|i| tensor.values[i % outputs * inputs + i / outputs]).collect())
            }
        };
        let bias = format!("{name}.bias");
        let bias = model.parameters.find(&bias).map(|tensor| (bias, tensor.values.to_vec()));
        Self { name: weight, outputs, weight: values, bias }
    }

    /// Some of its outputs, as a layer of its own.
    fn outputs(&self, part: &str, columns: &[usize]) -> Self {
        let of_row = |row: &[f32]| columns.iter().map(|&column| row[column]).collect::<Vec<_>>();
        Self {
            name: format!("{}.{part}", self.name),
            outputs: columns.len(),
            weight: self.weight.chunks_exact(self.outputs).flat_map(of_row).collect(),
            bias: self.bias.as_ref().map(|(name, bias)| (format!("{name}.{part}"), of_row(bias))),
        }
    }

    /// x · W, plus the bias where the layer has one.
    fn apply(&self, g: &mut Graph, x: &str) -> String {
        let weight = g.floats(&self.name, &[self.weight.len() / self.outputs, self.outputs], &self.weight);
        let product = g.op("MatMul", &[x, &weight]);
        match &self.bias {
            None => product,
            Some((name, bias)) => {
                let bias = g.floats(name, &[bias.len()], bias);
                g.op("Add", &[&product, &bias])
            }
        }
    }
}

/// `x` through the linear layer of this name.
pub(super) fn linear(g: &mut Graph, model: &Scorer, name: &str, x: &str) -> String {
    Linear::of(model, name).apply(g, x)
}

/// `x` projected to queries (0), keys (1) or values (2). Where one layer gives all three, its outputs are taken apart here, so that no node
/// has to do it.
pub(super) fn projected(g: &mut Graph, model: &Scorer, layer: usize, part: usize, x: &str) -> String {
    let (names, heads) = (model.config.family.names(), model.config.heads());
    let (q, kv, dim) = (heads.query_width(), heads.key_width(), heads.head_dim);
    let columns: Vec<usize> = match names.qkv {
        Qkv::Apart(parts) => return linear(g, model, &names.in_layer(layer, parts[part]), x),
        Qkv::Thirds(_) => [0..q, q..q + kv, q + kv..q + 2 * kv][part].clone().collect(),
        Qkv::ByHead(_) => (0..heads.heads).flat_map(|head| (0..dim).map(move |d| (3 * head + part) * dim + d)).collect(),
    };
    let (Qkv::Thirds(fused) | Qkv::ByHead(fused)) = names.qkv else { unreachable!("returned above") };
    let whole = Linear::of(model, &names.in_layer(layer, fused));
    whole.outputs(["query", "key", "value"][part], &columns).apply(g, x)
}

/// The constants of a model's norms.
pub(super) struct Norms {
    epsilon: f32,
    /// As a constant, where a norm is written out.
    shift: Option<String>,
}

impl Norms {
    pub fn new(g: &mut Graph, config: &LlamaConfig) -> Self {
        let epsilon = config.rms_norm_eps as f32;
        let written_out = config.block.norm != Norm::Layer;
        Self { epsilon, shift: written_out.then(|| g.floats("rms_norm_eps", &[], &[epsilon])) }
    }

    /// The norm of this name of `x`, over its last axis.
    pub fn of(&self, g: &mut Graph, model: &Scorer, name: &str, x: &str) -> String {
        let weight = format!("{name}.weight");
        let stored = model.parameters.get(&weight);
        let Some(shift) = &self.shift else {
            let weight = g.floats(&weight, &stored.shape, &stored.values);
            let bias = tensor(g, model, &format!("{name}.bias"));
            let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(self.epsilon))];
            return g.op_with("LayerNormalization", &[x, &weight, &bias], &attributes);
        };
        let added = if model.config.block.norm == Norm::RmsOfOnePlus { 1.0 } else { 0.0 };
        let values: Vec<f32> = stored.values.iter().map(|w| w + added).collect();
        let weight = g.floats(&weight, &stored.shape, &values);
        root_mean_square(g, x, shift, &weight)
    }
}

/// x / √(mean(x²) + ε) · weight (Zhang & Sennrich 2019).
fn root_mean_square(g: &mut Graph, x: &str, epsilon: &str, weight: &str) -> String {
    let squares = g.op("Mul", &[x, x]);
    let keep = [("axes", Attribute::Ints(&[-1])), ("keepdims", Attribute::Int(1))];
    let mean = g.op_with("ReduceMean", &[&squares], &keep);
    let shifted = g.op("Add", &[&mean, epsilon]);
    let root = g.op("Sqrt", &[&shifted]);
    let scaled = g.op("Div", &[x, &root]);
    g.op("Mul", &[&scaled, weight])
}

pub(super) fn mlp(g: &mut Graph, model: &Scorer, layer: usize, x: &str) -> String {
    let names = model.config.family.names();
    let inner: Vec<String> = names.mlp_in.iter().map(|part| linear(g, model, &names.in_layer(layer, part), x)).collect();
    let activated = match model.config.block.mlp {
        Mlp::Gated(Gated::SwiGlu) => {
            let sigmoid = g.op("Sigmoid", &[&inner[0]]);
            g.op("Mul", &[&inner[0], &sigmoid])
        }
        Mlp::Gated(Gated::GeGlu) => gelu(g, Gelu::Tanh, &inner[0]),
        Mlp::Gelu(form) => gelu(g, form, &inner[0]),
    };
    let activated = inner[1..].iter().fold(activated, |gated, up| g.op("Mul", &[&gated, up]));
    linear(g, model, &names.in_layer(layer, names.mlp_out), &activated)
}

/// GELU (Hendrycks and Gimpel 2016) in the two forms of [`Gelu`]: x Φ(x), or x σ(a x + b x³).
fn gelu(g: &mut Graph, form: Gelu, x: &str) -> String {
    match form {
        Gelu::Exact => {
            let (root, one) = (g.floats("gelu.root", &[], &[std::f32::consts::FRAC_1_SQRT_2]), g.floats("gelu.one", &[], &[1.0]));
            let half = g.floats("gelu.half", &[], &[0.5]);
            let scaled = g.op("Mul", &[x, &root]);
            let erf = g.op("Erf", &[&scaled]);
            let twice = g.op("Add", &[&erf, &one]);
            let share = g.op("Mul", &[&twice, &half]);
            g.op("Mul", &[x, &share])
        }
        Gelu::Tanh => {
            let [linear, cubic] =
                [("gelu.linear", GELU_TANH[0]), ("gelu.cubic", GELU_TANH[1])].map(|(name, value)| g.floats(name, &[], &[value]));
            let square = g.op("Mul", &[x, x]);
            let cubed = g.op("Mul", &[&square, &cubic]);
            let slope = g.op("Add", &[&cubed, &linear]);
            let inner = g.op("Mul", &[x, &slope]);
            let share = g.op("Sigmoid", &[&inner]);
            g.op("Mul", &[x, &share])
        }
    }
}
