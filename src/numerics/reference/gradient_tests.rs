//! The definitions against the formulas that they stand for, written once more in binary64: values, and central finite differences
//! for every backward pass. Rotary tables and softmax against identities.

use super::*;
use crate::attention::{Heads, Projections, Segment};
use crate::testing::random;

const EPS: f64 = 1e-5;

/// Outputs and gradients in binary32 of the scalar Σ upstream · output, beside the same function of the same inputs in binary64.
struct Check {
    inputs: Vec<Vec<f32>>,
    upstream: Vec<f32>,
    output: Vec<f32>,
    gradients: Vec<Vec<f32>>,
}

impl Check {
    fn against(&self, f: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
        let mut at: Vec<Vec<f64>> = self.inputs.iter().map(|x| x.iter().map(|x| f64::from(*x)).collect()).collect();
        near(&self.output, &f(&at), 2e-6, "output");
        let scalar = |at: &[Vec<f64>]| -> f64 { f(at).iter().zip(&self.upstream).map(|(y, u)| y * f64::from(*u)).sum() };
        for i in 0..at.len() {
            let mut slopes = Vec::new();
            for j in 0..at[i].len() {
                let (x, h) = (at[i][j], 1e-5);
                let mut beside = |x: f64| {
                    at[i][j] = x;
                    scalar(&at)
                };
                slopes.push((beside(x + h) - beside(x - h)) / (2.0 * h));
                at[i][j] = x;
            }
            near(&self.gradients[i], &slopes, 1e-5, &format!("gradient {i}"));
        }
    }
}

/// Within `tolerance` of the largest exact value, or of 1.
fn near(ours: &[f32], exact: &[f64], tolerance: f64, what: &str) {
    assert_eq!(ours.len(), exact.len(), "{what}");
    let bound = tolerance * exact.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    for (i, (x, y)) in ours.iter().zip(exact).enumerate() {
        assert!((f64::from(*x) - y).abs() <= bound, "{what}[{i}] is {x}, not {y}");
    }
}

fn draw<const N: usize>(lengths: [usize; N], scale: f32) -> Vec<Vec<f32>> {
    lengths.iter().zip(100..).map(|(n, seed)| random(*n, scale, seed)).collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn softmax_f64(x: &[f64]) -> Vec<f64> {
    let e: Vec<f64> = x.iter().map(|x| x.exp()).collect();
    e.iter().map(|x| x / e.iter().sum::<f64>()).collect()
}

#[test]
fn a_linear_map_follows_its_formula() {
    let inputs = draw([9, 7 * 9, 7], 1.0);
    let upstream = random(7, 1.0, 1);
    let (mut dweight, mut dbias) = (vec![0.0; 63], vec![0.0; 7]);
    let dx = linear_backward(&inputs[0], &inputs[1], &upstream, &mut dweight, &mut dbias);
    let output = linear(&inputs[0], &inputs[1], Some(&inputs[2]));
    let product = |at: &[Vec<f64>]| {
        let row = |o: usize| at[2][o] + (0..9).map(|i| at[1][9 * o + i] * at[0][i]).sum::<f64>();
        (0..7).map(row).collect()
    };
    Check { inputs, upstream, output, gradients: vec![dx, dweight, dbias] }.against(product);
}

#[test]
fn an_embedding_hands_its_gradient_to_the_tokens_it_read() {
    let (inputs, upstream, tokens) = (draw([4 * 3], 1.0), random(9, 1.0, 2), [2u32, 0, 2]);
    let output = tokens.iter().flat_map(|t| embedding(&inputs[0], 3, *t)).copied().collect();
    let mut dtable = vec![0.0; 12];
    upstream.chunks(3).zip(tokens).for_each(|(d, token)| embedding_backward(d, token, &mut dtable));
    Check { inputs, upstream, output, gradients: vec![dtable] }
        .against(|at| tokens.iter().flat_map(|t| at[0][3 * *t as usize..][..3].to_vec()).collect());
}

#[test]
fn rms_norm_follows_its_formula() {
    for n in [1, 5, 16, 40] {
        let (inputs, upstream) = (draw([n, n], 1.5), random(n, 1.0, 3));
        let (mut dx, mut dweight) = (vec![0.0; n], vec![0.0; n]);
        rms_norm_backward(&inputs[0], &inputs[1], EPS as f32, &upstream, &mut dx, &mut dweight);
        let output = rms_norm(&inputs[0], &inputs[1], EPS as f32);
        Check { inputs, upstream, output, gradients: vec![dx, dweight] }.against(|at| {
            let square: Vec<f64> = at[0].iter().map(|x| x * x).collect();
            at[0].iter().zip(&at[1]).map(|(x, w)| x * w / (mean(&square) + EPS).sqrt()).collect()
        });
    }
}

#[test]
fn layer_norm_follows_its_formula() {
    for n in [2, 5, 16, 40] {
        let (mut inputs, upstream) = (draw([n, n, n], 1.5), random(n, 1.0, 4));
        inputs[0].iter_mut().for_each(|x| *x += 2.0);
        let [mut dx, mut dweight, mut dbias] = [0, 1, 2].map(|_| vec![0.0; n]);
        layer_norm_backward(&inputs[0], &inputs[1], EPS as f32, &upstream, &mut dx, &mut dweight, &mut dbias);
        let output = layer_norm(&inputs[0], &inputs[1], &inputs[2], EPS as f32);
        Check { inputs, upstream, output, gradients: vec![dx, dweight, dbias] }.against(|at| {
            let centred: Vec<f64> = at[0].iter().map(|x| x - mean(&at[0])).collect();
            let square: Vec<f64> = centred.iter().map(|x| x * x).collect();
            let s = (mean(&square) + EPS).sqrt();
            (0..n).map(|i| centred[i] / s * at[1][i] + at[2][i]).collect()
        });
    }
}

#[test]
fn activations_follow_their_formulas() {
    let (inputs, upstream) = (draw([60, 60], 2.0), random(60, 1.0, 5));
    let (dgate, dup) = (0..60).map(|i| swiglu_backward(inputs[0][i], inputs[1][i], upstream[i])).unzip();
    let output = (0..60).map(|i| swiglu(inputs[0][i], inputs[1][i])).collect();
    Check { inputs, upstream, output, gradients: vec![dgate, dup] }
        .against(|at| at[0].iter().zip(&at[1]).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect());

    type Activation = (fn(f32) -> f32, fn(f32, f32) -> f32, fn(f64) -> f64);
    let exact: fn(f64) -> f64 = |x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    let by_tanh: fn(f64) -> f64 = |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    let forms: [Activation; 2] = [(gelu, gelu_backward, exact), (gelu_tanh, gelu_tanh_backward, by_tanh)];
    let (inputs, upstream) = (draw([60, 60], 2.0), random(60, 1.0, 5));
    let (dgate, dup) = (0..60).map(|i| geglu_backward(inputs[0][i], inputs[1][i], upstream[i])).unzip();
    let output = (0..60).map(|i| geglu(inputs[0][i], inputs[1][i])).collect();
    Check { inputs, upstream, output, gradients: vec![dgate, dup] }
        .against(|at| at[0].iter().zip(&at[1]).map(|(g, u)| by_tanh(*g) * u).collect());
    for (forward, backward, formula) in forms {
        let inputs = vec![(-80..=80).map(|i| i as f32 / 8.0).collect::<Vec<f32>>()];
        let upstream = random(161, 1.0, 6);
        let output = inputs[0].iter().map(|x| forward(*x)).collect();
        let dx = inputs[0].iter().zip(&upstream).map(|(x, d)| backward(*x, *d)).collect();
        Check { inputs, upstream, output, gradients: vec![dx] }.against(|at| at[0].iter().map(|x| formula(*x)).collect());
    }
    assert!((gelu(1.0) - 0.841_344_7).abs() < 1e-7, "Φ(1) of the normal distribution's tables");
}

#[test]
fn a_soft_cap_follows_its_formula() {
    let (inputs, upstream, cap) = (draw([60], 4.0), random(60, 1.0, 5), 2.5);
    let output: Vec<f32> = inputs[0].iter().map(|x| softcap(*x, cap)).collect();
    let dx = output.iter().zip(&upstream).map(|(y, d)| d * softcap_slope(*y, cap)).collect();
    Check { inputs, upstream, output, gradients: vec![dx] }
        .against(|at| at[0].iter().map(|x| f64::from(cap) * (x / f64::from(cap)).tanh()).collect());
}

#[test]
fn a_rotary_turn_follows_its_formula() {
    let (inputs, upstream, position) = (draw([12], 1.0), random(12, 1.0, 7), 5);
    let (mut output, mut dx) = (inputs[0].clone(), upstream.clone());
    turn(&mut output, position, 100.0);
    turn_backward(&mut dx, position, 100.0);
    Check { inputs, upstream, output, gradients: vec![dx] }.against(|at| {
        let turned = |i: usize| {
            let angle = f64::from(position) * 100f64.powf(-2.0 * (i % 6) as f64 / 12.0);
            let (a, b) = (at[0][i % 6], at[0][i % 6 + 6]);
            if i < 6 { a * angle.cos() - b * angle.sin() } else { b * angle.cos() + a * angle.sin() }
        };
        (0..12).map(turned).collect()
    });
}

#[test]
fn rotary_turns_keep_lengths_and_see_only_the_distance_of_positions() {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let [q, k] = [8, 9].map(|seed| random(16, 1.0, seed));
    let turned = |x: &[f32], position: u32| {
        let mut x = x.to_vec();
        turn(&mut x, position, 10_000.0);
        x
    };
    assert_eq!(turned(&q, 0), q, "position 0 turns nothing");
    for (p, distance) in [(3, 0), (40, 7), (2000, 31)] {
        let score = product(&turned(&q, p + distance), &turned(&k, p));
        assert!((score - product(&turned(&q, distance), &k)).abs() < 1e-5, "positions {p} and {p} + {distance}");
        assert!((product(&turned(&q, p), &turned(&q, p)) - product(&q, &q)).abs() < 1e-5);
    }
    assert_eq!(rotary(1, 0, 64, 10_000.0), (libm::cos(1.0) as f32, libm::sin(1.0) as f32));
    assert!((f64::from(rotary(3, 32, 64, 10_000.0).1) - 3e-4).abs() < 1e-10, "the slowest pair turns by position / θ");
}

#[test]
fn attention_over_a_tree_follows_its_formula() {
    attention_over_a_tree(None, None, None);
}

#[test]
fn attention_in_a_window_over_a_tree_follows_its_formula() {
    attention_over_a_tree(Some(2), None, None);
}

#[test]
fn capped_attention_with_a_scale_of_its_own_over_a_tree_follows_its_formula() {
    attention_over_a_tree(None, Some(0.4), Some(1.5));
    attention_over_a_tree(Some(2), None, Some(0.7));
}

/// Heads share keys, a prompt has two continuations, and another sequence stands beside them.
fn attention_over_a_tree(window: Option<usize>, scale: Option<f32>, cap: Option<f32>) {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 3, window, scale, cap, bidirectional: false };
    let segment = |rows, parent| Segment { rows, parent };
    let segments = [segment(0..2, None), segment(2..4, Some(0)), segment(4..5, Some(0)), segment(5..7, None)];
    let seen: [&[usize]; 7] = [&[0], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 4], &[5], &[5, 6]];
    attention_over(&segments, heads, seen);
}

#[test]
fn attention_in_both_directions_follows_its_formula() {
    let segment = |rows| Segment { rows, parent: None };
    let segments = [segment(0..4), segment(4..5), segment(5..7)];
    let seen: [&[usize]; 7] = [&[0, 1, 2, 3], &[0, 1, 2, 3], &[0, 1, 2, 3], &[0, 1, 2, 3], &[4], &[5, 6], &[5, 6]];
    for cap in [None, Some(1.5)] {
        attention_over(
            &segments,
            Heads { heads: 4, kv_heads: 2, head_dim: 3, bidirectional: true, cap, ..Heads::default() },
            seen,
        );
    }
}

/// `seen`: the rows that each row attends to, its window aside.
fn attention_over(segments: &[Segment], heads: Heads, seen: [&[usize]; 7]) {
    let Heads { window, scale, cap, .. } = heads;
    let factor = scale.map_or(1.0 / 3f64.sqrt(), f64::from);
    let capped = |score: f64| cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
    let (inputs, upstream) = (draw([7 * 12, 7 * 6, 7 * 6], 1.0), random(7 * 12, 1.0, 10));
    let from = Projections { q: &inputs[0], k: &inputs[1], v: &inputs[2] };
    let output = attention(segments, heads, from);
    let gradients = attention_backward(segments, heads, from, &upstream).to_vec();
    Check { inputs, upstream, output, gradients }.against(|at| {
        let mut out = Vec::new();
        for (row, keys) in seen.iter().enumerate() {
            let keys = &keys[window.map_or(0, |window| keys.len().saturating_sub(window))..];
            for head in 0..4 {
                let key = |j: usize, d: usize| 6 * j + 3 * (head / 2) + d;
                let q = &at[0][12 * row + 3 * head..][..3];
                let score = |j: &usize| capped((0..3).map(|d| q[d] * at[1][key(*j, d)]).sum::<f64>() * factor);
                let p = softmax_f64(&keys.iter().map(score).collect::<Vec<f64>>());
                out.extend((0..3).map(|d| keys.iter().zip(&p).map(|(j, p)| p * at[2][key(*j, d)]).sum::<f64>()));
            }
        }
        out
    });
}

#[test]
fn token_scores_follow_their_formulas() {
    let (inputs, other) = (draw([23], 3.0), random(23, 3.0, 11));
    let widen = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
    let (p, q) = (softmax_f64(&widen(&inputs[0])), softmax_f64(&widen(&other)));
    let score = token_score(&inputs[0], 4);
    let entropy = -p.iter().map(|p| p * p.ln()).sum::<f64>();
    near(&[score.entropy, score.mean_logit], &[entropy, mean(&widen(&inputs[0]))], 1e-6, "entropy, mean logit");
    let kl = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    near(&[row_kl(&inputs[0], &other)], &[kl], 1e-6, "KL");
    assert_eq!(row_kl(&inputs[0], &inputs[0]), 0.0);
    let gradients = vec![token_score_backward(&inputs[0], 4, -0.6)];
    let output = vec![score.logp];
    Check { inputs, upstream: vec![-0.6], output, gradients }.against(|at| vec![softmax_f64(&at[0])[4].ln()]);
}

#[test]
fn softmax_is_a_distribution_that_a_shift_of_the_logits_leaves_alone() {
    let logits = random(40, 3.0, 12);
    let exact = softmax_f64(&logits.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>());
    near(&softmax(&logits), &exact, 1e-7, "softmax");
    assert!((f64::from(sum(&softmax(&logits))) - 1.0).abs() < 3e-7);
    // Adding 2¹⁶ to multiples of 2⁻⁷ is exact, so the bits stay.
    let coarse: Vec<f32> = logits.iter().map(|x| (x * 128.0).round() / 128.0).collect();
    let moved: Vec<f32> = coarse.iter().map(|x| x + 65_536.0).collect();
    assert_eq!(softmax(&moved), softmax(&coarse));
    assert_eq!(log_sum_exp(&[7.5]), 7.5);
    near(&[log_sum_exp(&[1.0; 8])], &[1.0 + 8f64.ln()], 1e-7, "log Σ of eight ones");
    assert_eq!(softmax(&[3.0; 4]), [0.25; 4]);
    near(&[token_score(&[0.5; 32], 3).entropy], &[32f64.ln()], 1e-7, "the entropy of 32 equal tokens");
}
