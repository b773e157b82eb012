//! Bits of the definitions that were recorded once: another CPU, compiler or standard library that gives others is found out here,
//! even where its kernels and its definitions agree.

use super::attention::{Heads, Projections, Segment};
use super::gemm::MatRef;
use super::optim::{AdamwStep, RmspropStep, SgdStep};
use super::reference::*;
use super::testing::{bits, random};

/// FNV-1a over the bits' bytes.
fn digest(values: &[f32]) -> u64 {
    let bytes = bits(values).into_iter().flat_map(u32::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Numbers of every size and sign, and the ends.
fn sweep() -> Vec<f32> {
    (0..=u32::MAX).step_by(300_007).map(f32::from_bits).chain(random(4000, 4.0, 1)).collect()
}

fn of_each(functions: &[fn(f32) -> f32], xs: &[f32]) -> Vec<f32> {
    functions.iter().flat_map(|f| xs.iter().map(|x| f(*x))).collect()
}

fn products() -> Vec<f32> {
    let (m, n, k) = (7, 9, 300);
    let [a, b, mut c] = [m * k, k * n, m * n].map(|length| random(length, 2.0, length as u64));
    gemm(m, n, k, MatRef::rows(&a, k), MatRef::rows(&b, n), &mut c, n, true);
    c
}

fn norms() -> Vec<f32> {
    let [x, weight, bias, dy] = [0, 1, 2, 3].map(|seed| random(70, 2.0, seed));
    let [mut dx, mut dweight, mut dbias] = [4, 5, 6].map(|seed| random(70, 1.0, seed));
    let y = [rms_norm(&x, &weight, 1e-6), layer_norm(&x, &weight, &bias, 1e-6)];
    rms_norm_backward(&x, &weight, 1e-6, &dy, &mut dx, &mut dweight);
    layer_norm_backward(&x, &weight, 1e-6, &dy, &mut dx, &mut dweight, &mut dbias);
    [y.concat(), dx, dweight, dbias].concat()
}

fn rotary_tables() -> Vec<f32> {
    let pairs = (0..1000).flat_map(|position| (0..32).map(move |i| (position, i)));
    pairs.map(|(position, i)| rotary(position, i, 64, 10_000.0)).flat_map(|(cos, sin)| [cos, sin]).collect()
}

fn attended() -> Vec<f32> {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 24, ..Heads::default() };
    let segments = [Segment { rows: 0..19, parent: None }, Segment { rows: 19..41, parent: Some(0) }];
    let [q, dout] = [0, 1].map(|seed| random(41 * heads.query_width(), 1.0, seed));
    let [k, v] = [2, 3].map(|seed| random(41 * heads.key_width(), 1.0, seed));
    let from = Projections { q: &q, k: &k, v: &v };
    [attention(&segments, heads, from), attention_backward(&segments, heads, from, &dout).concat()].concat()
}

fn token_scores() -> Vec<f32> {
    let [logits, other] = [0, 1].map(|seed| random(1000, 5.0, seed));
    let score = token_score(&logits, 3);
    let scores = vec![score.logp, score.entropy, score.mean_logit, row_kl(&logits, &other)];
    [scores, softmax(&logits), token_score_backward(&logits, 3, 0.7)].concat()
}

fn optimizers() -> Vec<f32> {
    let [mut param, mut m, v] = [0, 1, 2].map(|seed| random(500, 1.0, seed));
    let mut v: Vec<f32> = v.iter().map(|v| v * v).collect();
    for step in 1..20 {
        let (lr, weight_decay, grad_scale) = (1e-2, 0.1, 0.7);
        let adamw_step = AdamwStep { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, step, grad_scale };
        let rmsprop_step = RmspropStep { lr, alpha: 0.99, eps: 1e-8, weight_decay, grad_scale };
        for (i, grad) in random(500, 1.0, step).into_iter().enumerate() {
            adamw(&mut param[i], grad, &mut m[i], &mut v[i], &adamw_step.coefficients());
            rmsprop(&mut param[i], grad, &mut v[i], &rmsprop_step.coefficients());
            sgd(&mut param[i], grad, &SgdStep { lr, weight_decay, grad_scale }.coefficients());
        }
    }
    let norm = global_norm(&[&param, &m]) as f32;
    [param, m, v, vec![norm]].concat()
}

#[test]
fn the_definitions_give_the_bits_that_they_gave_where_they_were_recorded() {
    let (xs, small) = (sweep(), random(4000, 3.0, 2));
    let mlp = |i: usize| [swiglu(small[i], small[i + 1]), swiglu_backward(small[i], small[i + 1], 0.3).0];
    let activations = [
        of_each(&[gelu, gelu_tanh, |x| gelu_backward(x, 0.3), |x| gelu_tanh_backward(x, 0.3)], &small),
        (0..3999).flat_map(mlp).collect(),
    ];
    let sums = |n: usize| [sum(&small[..n]), sum_squares(&small[..n]), dot(&small[..n], &small[1..=n]), max(&small[..n])];
    let all = [
        ("elementary", of_each(&[exp, log, tanh, sigmoid, log_sigmoid, softplus, erf], &xs)),
        ("reductions", (0..200).flat_map(sums).collect()),
        ("products", products()),
        ("norms", norms()),
        ("rotary", rotary_tables()),
        ("attention", attended()),
        ("activations", activations.concat()),
        ("token scores", token_scores()),
        ("optimizers", optimizers()),
    ];
    let digests: Vec<String> = all.iter().map(|(name, values)| format!("{name} {:016x}", digest(values))).collect();
    // Recorded on x86-64 (AMD EPYC, Rust 1.95); the same on aarch64.
    let recorded = [
        "elementary 495178b49dab2d25",
        "reductions fb3a2e32e2217356",
        "products 07f75fe6c909bcbd",
        "norms 20672eee757038d1",
        "rotary 7f244f1b4145177f",
        "attention b5050da96c3bd92c",
        "activations ba712d20e53a3b68",
        "token scores 59ef0c621154f13c",
        "optimizers f010d6439a812190",
    ];
    assert_eq!(digests, recorded);
}
