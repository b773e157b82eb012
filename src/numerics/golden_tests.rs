//! Values and gradients of whole layers, by the functions that models call, against PyTorch's in binary64.
//!
//! `golden/numerics/gradients.py` made the file that is read here; its first lines say how close it must be met.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::attention::{self, Heads, Projections, Queries, Segment};
use super::gelu::{self, Gelu};
use super::layer_norm::{self, Moments};
use super::mlp::Gated;
use super::rope::Rotary;
use super::{embedding, linear, logprob, mlp, norm};

#[derive(Deserialize)]
struct Golden {
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    inputs: BTreeMap<String, Tensor>,
    output: Tensor,
    upstream: Tensor,
    gradients: BTreeMap<String, Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Tensor {
    /// The largest difference relative to the largest number, or to 1.
    fn distance(&self, ours: &[f32]) -> f64 {
        assert_eq!(ours.len(), self.values.len());
        let largest = self.values.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        self.values.iter().zip(ours).fold(0.0, |most: f64, (x, y)| most.max((x - f64::from(*y)).abs())) / largest
    }
    fn floats(&self) -> Vec<f32> {
        assert_eq!(self.shape.iter().product::<usize>(), self.values.len());
        self.values.iter().map(|x| *x as f32).collect()
    }
}

impl Case {
    fn named(name: &str) -> Self {
        let text = include_str!("../../golden/numerics/gradients.json");
        let mut golden: Golden = serde_json::from_str(text).expect("golden/numerics/gradients.json");
        golden.cases.remove(name).expect("the case is in the file")
    }
    fn input(&self, name: &str) -> Vec<f32> {
        self.inputs[name].floats()
    }
    fn upstream(&self) -> Vec<f32> {
        self.upstream.floats()
    }
    fn check(&self, output: &[f32], gradients: &[(&str, &[f32])]) {
        let distance = self.output.distance(output);
        assert!(distance <= 1e-6, "the output is off by {distance:e}");
        assert!(gradients.iter().map(|(name, _)| *name).eq(self.gradients.keys().map(String::as_str)), "every gradient, by name");
        for (name, ours) in gradients {
            let distance = self.gradients[*name].distance(ours);
            assert!(distance <= 1e-5, "the gradient of {name} is off by {distance:e}");
        }
    }
}

fn zeros(like: &[f32]) -> Vec<f32> {
    vec![0.0; like.len()]
}

/// y = x Wᵀ + b.
struct Linear {
    weight: Vec<f32>,
    bias: Vec<f32>,
    dweight: Vec<f32>,
    dbias: Vec<f32>,
}

impl Linear {
    fn new(weight: Vec<f32>, bias: Vec<f32>) -> Self {
        let (dweight, dbias) = (zeros(&weight), zeros(&bias));
        Self { weight, bias, dweight, dbias }
    }
    /// Without a bias: one of zeros gives the same numbers.
    fn plain(weight: Vec<f32>, outputs: usize) -> Self {
        Self::new(weight, vec![0.0; outputs])
    }
    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len()
    }
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len() / self.inputs() * self.bias.len()];
        linear::forward_biased(x, &self.weight, &self.bias, self.inputs(), &mut y);
        y
    }
    fn backward(&mut self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let mut dx = zeros(x);
        linear::backward_input(dy, &self.weight, self.inputs(), &mut dx, false);
        linear::backward_weight(dy, x, self.inputs(), &mut self.dweight);
        linear::backward_bias(dy, &mut self.dbias);
        dx
    }
}

#[test]
fn a_linear_map_agrees_with_pytorch() {
    let case = Case::named("linear");
    let x = case.input("input");
    let mut map = Linear::new(case.input("weight"), case.input("bias"));
    let dx = map.backward(&x, &case.upstream());
    case.check(&map.forward(&x), &[("bias", &map.dbias), ("input", &dx), ("weight", &map.dweight)]);
}

#[test]
fn an_embedding_agrees_with_pytorch() {
    let case = Case::named("embedding");
    let (table, tokens) = (case.input("weight"), [3, 0, 3, 6]);
    let (mut out, mut dtable) = (vec![0.0; tokens.len() * 5], zeros(&table));
    embedding::forward(&table, 5, &tokens, &mut out);
    embedding::backward(&case.upstream(), 5, &tokens, &mut dtable);
    case.check(&out, &[("weight", &dtable)]);
}

#[test]
fn rms_norm_agrees_with_pytorch() {
    let case = Case::named("rms_norm");
    let (x, weight) = (case.input("x"), case.input("weight"));
    let mut inverse = vec![0.0; 3];
    norm::inverse_rms(&x, weight.len(), 1e-5, &mut inverse);
    let (mut y, mut dx, mut dweight) = (zeros(&x), zeros(&x), zeros(&weight));
    norm::scale(&x, &weight, &inverse, &mut y);
    norm::backward(&x, &weight, &inverse, &case.upstream(), &mut dx, &mut dweight);
    case.check(&y, &[("weight", &dweight), ("x", &dx)]);
}

#[test]
fn layer_norm_agrees_with_pytorch() {
    let case = Case::named("layer_norm");
    // The script adds 2, so that the mean has something to take away.
    let x: Vec<f32> = case.input("x").iter().map(|x| x + 2.0).collect();
    let (weight, bias) = (case.input("weight"), case.input("bias"));
    let mut moments = [Moments::default(); 3];
    layer_norm::moments(&x, weight.len(), 1e-5, &mut moments);
    let (mut y, mut dx, mut dweight, mut dbias) = (zeros(&x), zeros(&x), zeros(&weight), zeros(&bias));
    layer_norm::scale(&x, &weight, &bias, &moments, &mut y);
    layer_norm::backward(&x, &weight, &moments, &case.upstream(), &mut dx, &mut dweight, &mut dbias);
    case.check(&y, &[("bias", &dbias), ("weight", &dweight), ("x", &dx)]);
}

#[test]
fn a_gated_mlp_agrees_with_pytorch() {
    let case = Case::named("swiglu_mlp");
    let x = case.input("x");
    let [mut gate, mut up] = ["gate", "up"].map(|name| Linear::plain(case.input(name), 20));
    let mut down = Linear::plain(case.input("down"), 10);
    let (mut g, mut u) = (gate.forward(&x), up.forward(&x));
    let mut middle = zeros(&g);
    mlp::forward(Gated::SwiGlu, &g, &u, &mut middle);
    let y = down.forward(&middle);
    let mut dmiddle = down.backward(&middle, &case.upstream());
    mlp::backward(Gated::SwiGlu, &mut g, &mut u, &mut dmiddle, true);
    assert_eq!(dmiddle, middle, "the backward pass makes the forward's output again");
    let (from_gate, from_up) = (gate.backward(&x, &g), up.backward(&x, &u));
    let dx: Vec<f32> = from_gate.iter().zip(&from_up).map(|(a, b)| a + b).collect();
    case.check(&y, &[("down", &down.dweight), ("gate", &gate.dweight), ("up", &up.dweight), ("x", &dx)]);
}

#[test]
fn gelu_mlps_agree_with_pytorch() {
    for (name, form) in [("gelu_mlp", Gelu::Exact), ("gelu_new_mlp", Gelu::Tanh)] {
        let case = Case::named(name);
        let x = case.input("x");
        let mut up = Linear::new(case.input("up"), case.input("up_bias"));
        let mut down = Linear::new(case.input("down"), case.input("down_bias"));
        let mut before = up.forward(&x);
        let mut middle = zeros(&before);
        gelu::forward(form, &before, &mut middle);
        let y = down.forward(&middle);
        let mut dmiddle = down.backward(&middle, &case.upstream());
        gelu::backward(form, &mut before, &mut dmiddle);
        assert_eq!(dmiddle, middle, "the backward pass makes the forward's output again");
        let dx = up.backward(&x, &before);
        let gradients =
            [("down", &down.dweight[..]), ("down_bias", &down.dbias), ("up", &up.dweight), ("up_bias", &up.dbias), ("x", &dx)];
        case.check(&y, &gradients);
    }
}

#[test]
fn rotary_causal_attention_with_shared_keys_agrees_with_pytorch() {
    let case = Case::named("attention");
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 6, ..Heads::default() };
    let (table, positions) = (Rotary::new(5, 6, 10_000.0), [0, 1, 2, 3, 4]);
    let [mut q, mut k, v] = ["q", "k", "v"].map(|name| case.input(name));
    table.forward(&mut q, heads.query_width(), &positions);
    table.forward(&mut k, heads.key_width(), &positions);
    let (segments, from) = ([Segment { rows: 0..5, parent: None }], Projections { q: &q, k: &k, v: &v });
    let mut out = zeros(&q);
    let queries = Queries::all(&segments);
    attention::forward(&segments, &queries, heads, from, &mut out);
    let mut gradients = attention::backward(&segments, &queries, heads, from, &case.upstream());
    table.backward(&mut gradients.dq, heads.query_width(), &positions);
    table.backward(&mut gradients.dk, heads.key_width(), &positions);
    case.check(&out, &[("k", &gradients.dk), ("q", &gradients.dq), ("v", &gradients.dv)]);
}

#[test]
fn token_log_probabilities_agree_with_pytorch() {
    let case = Case::named("token_logp");
    let (mut logits, upstream) = (case.input("logits"), case.upstream());
    let mut logps = Vec::new();
    for ((row, token), dlogp) in logits.chunks_mut(23).zip([4, 0, 22]).zip(upstream) {
        logps.push(logprob::score(row, token).logp);
        logprob::backward(row, token, dlogp);
    }
    case.check(&logps, &[("logits", &logits)]);
}
