//! The row kernels of norm, rotary turn, gated MLP and log-probability against their definitions in plain scalar loops: equal
//! bits under every instruction set, for rows with and without a part-filled last vector.

use super::rope::Rotary;
use super::testing;
use super::{isa, logprob, mlp, norm, reference, rope};

const LENGTHS: [usize; 6] = [2, 14, 16, 30, 48, 130];

fn random(n: usize, index: u64) -> Vec<f32> {
    testing::random(n, 3.0, index)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn norms_give_the_bits_of_the_definition() {
    for n in LENGTHS {
        let (x, weight, dy) = (random(3 * n, 0), random(n, 1), random(3 * n, 2));
        let row = |r: usize| r * n..(r + 1) * n;
        let inverse: Vec<f32> = (0..3).map(|r| 1.0 / (reference::sum_squares(&x[row(r)]) / n as f32 + 1e-5).sqrt()).collect();
        let y: Vec<f32> = (0..3 * n).map(|i| (x[i] * inverse[i / n]) * weight[i % n]).collect();
        let g: Vec<f32> = (0..3 * n).map(|i| dy[i] * weight[i % n]).collect();
        let dx: Vec<f32> = (0..3 * n)
            .map(|i| {
                let s = inverse[i / n];
                let pull = -(reference::dot(&g[row(i / n)], &x[row(i / n)]) / n as f32) * (s * s * s);
                0.5 + pull.mul_add(x[i], s * g[i])
            })
            .collect();
        let chain = |j: usize| (0..3).fold(0.25f32, |sum, r| (x[r * n + j] * inverse[r]).mul_add(dy[r * n + j], sum));
        let dweight: Vec<f32> = (0..n).map(chain).collect();
        for isa in isa::available() {
            let mut out = vec![0.0; 3];
            norm::inverse_rms_with(isa, &x, n, 1e-5, &mut out);
            assert_eq!(bits(&out), bits(&inverse), "{isa} {n}");
            let mut out = vec![0.0; 3 * n];
            norm::scale_rows_with(isa, &x, &weight, &inverse, &mut out);
            assert_eq!(bits(&out), bits(&y), "{isa} {n}");
            let mut out = vec![0.5; 3 * n];
            norm::backward_rows_with(isa, &x, &weight, &inverse, &dy, &mut out);
            assert_eq!(bits(&out), bits(&dx), "{isa} {n}");
            let mut out = vec![0.25; n];
            norm::weight_gradient_with(isa, &x, &inverse, &dy, &mut out);
            assert_eq!(bits(&out), bits(&dweight), "{isa} {n}");
        }
    }
}

#[test]
fn rotary_turns_give_the_bits_of_the_definition_and_turn_back() {
    for dim in LENGTHS {
        let (x, positions) = (random(2 * dim, 3), [0, 7]);
        let table = Rotary::new(8, dim, 10_000.0);
        let angle = |i: usize| 7.0 * libm::pow(10_000.0, -((2 * i) as f64) / dim as f64);
        let (first, half) = (&x[dim..], dim / 2);
        let turned = |i: usize| {
            let (cos, sin) = (libm::cos(angle(i % half)) as f32, libm::sin(angle(i % half)) as f32);
            match i < half {
                true => first[i].mul_add(cos, -(first[i + half] * sin)),
                false => first[i].mul_add(cos, first[i - half] * sin),
            }
        };
        let expected: Vec<f32> = x[..dim].iter().copied().chain((0..dim).map(turned)).collect();
        for isa in isa::available() {
            let mut out = x.clone();
            rope::turn_with(isa, &table, &mut out, dim, &positions, 1.0);
            assert_eq!(bits(&out), bits(&expected), "{isa} {dim}");
            rope::turn_with(isa, &table, &mut out, dim, &positions, -1.0);
            assert!(out.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

#[test]
fn the_gated_mlp_gives_the_bits_of_the_definition() {
    for n in LENGTHS {
        let (gate, up, dout) = (random(n, 4), random(n, 5), random(n, 6));
        let silu: Vec<f32> = gate.iter().map(|g| g * reference::sigmoid(*g)).collect();
        let out: Vec<f32> = (0..n).map(|i| silu[i] * up[i]).collect();
        let slope = |i: usize| {
            let s = reference::sigmoid(gate[i]);
            (dout[i] * up[i]) * s.mul_add(-silu[i], silu[i] + s)
        };
        let (dgate, dup): (Vec<f32>, Vec<f32>) = (0..n).map(|i| (slope(i), dout[i] * silu[i])).unzip();
        for isa in isa::available() {
            let mut ours = vec![0.0; n];
            mlp::forward_part_with(isa, &gate, &up, &mut ours);
            assert_eq!(bits(&ours), bits(&out), "{isa} {n}");
            let (mut a, mut b, mut c) = (gate.clone(), up.clone(), dout.clone());
            mlp::backward_part_with(isa, &mut a, &mut b, &mut c);
            assert_eq!([bits(&a), bits(&b), bits(&c)], [bits(&dgate), bits(&dup), bits(&out)], "{isa} {n}");
        }
    }
}

#[test]
fn token_scores_give_the_bits_of_the_definition() {
    for n in LENGTHS {
        let (logits, other, token) = (random(n, 7), random(n, 8), n / 2);
        let softmax = |logits: &[f32]| {
            let m = reference::max(logits);
            let e: Vec<f32> = logits.iter().map(|l| reference::exp(l - m)).collect();
            let total = reference::sum(&e);
            (m, e, total)
        };
        let ((m, e, total), (m_other, _, total_other)) = (softmax(&logits), softmax(&other));
        let shifted: Vec<f32> = logits.iter().map(|l| l - m).collect();
        let differences: Vec<f32> = (0..n).map(|i| shifted[i] - (other[i] - m_other)).collect();
        let score = logprob::TokenScore {
            logp: logits[token] - (m + reference::log(total)),
            entropy: reference::log(total) - reference::dot(&e, &shifted) / total,
            mean_logit: reference::sum(&logits) / n as f32,
            log_sum_squares: reference::log(reference::dot(&e, &e)) - 2.0 * reference::log(total),
        };
        let kl = reference::dot(&e, &differences) / total - (reference::log(total) - reference::log(total_other));
        let mut gradient: Vec<f32> = e.iter().map(|e| e * (-0.7 / total)).collect();
        gradient[token] += 0.7;
        for isa in isa::available() {
            assert_eq!(logprob::score_with(isa, &logits, token as u32), score, "{isa} {n}");
            assert_eq!(logprob::kl_with(isa, &logits, &other).to_bits(), kl.to_bits(), "{isa} {n}");
            assert_eq!(logprob::kl_with(isa, &logits, &logits), 0.0);
            let mut row = logits.clone();
            logprob::backward_with(isa, &mut row, token as u32, 0.7);
            assert_eq!(bits(&row), bits(&gradient), "{isa} {n}");
        }
    }
}
