//! The attention kernels against the definition in plain scalar loops: equal bits under every instruction set.

use super::kernels::{Inputs, Shape, Transposed, attend_backward_with, attend_with, transpose_with};
use super::{Heads, SCORE_ROWS, stride, transpose};
use crate::testing::random;
use crate::{isa, reference};

/// (rows, width) with random values in the first `dim` columns of each row.
fn matrix(rows: usize, heads: Heads, seed: &mut u64) -> Vec<f32> {
    let width = heads.width();
    *seed += 1;
    let values = random(rows * width, 2.0, *seed);
    values.into_iter().enumerate().map(|(i, x)| if i % width < heads.head_dim { x } else { 0.0 }).collect()
}

fn chain(terms: impl Iterator<Item = (f32, f32)>, start: f32) -> f32 {
    terms.fold(start, |sum, (a, b)| a.mul_add(b, sum))
}

/// The softmax weights of a query before division, their sum.
fn exponentials(shape: Shape, q: &[f32], k: &[f32], keys: usize) -> (Vec<f32>, f32) {
    let score = |j: usize| chain((0..shape.dim).map(|d| (q[d], k[j * shape.width + d])), 0.0) * shape.scale;
    let scores: Vec<f32> = (0..keys).map(score).collect();
    let m = reference::max(&scores);
    let e: Vec<f32> = scores.iter().map(|s| reference::exp(s - m)).collect();
    let total = reference::sum(&e);
    (e, total)
}

struct Case {
    heads: Heads,
    shape: Shape,
    rows: usize,
    keys: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let mut seed = 0;
    let mut cases = Vec::new();
    for head_dim in [2, 6, 16, 24, 32, 80] {
        for (rows, before) in [(1, 0), (1, 37), (3, 0), (4, 12), (9, 7), (18, 0), (35, 33)] {
            let heads = Heads { heads: 1, kv_heads: 1, head_dim };
            let keys = rows + before;
            let [q, dout] = [0, 1].map(|_| matrix(rows, heads, &mut seed));
            let [k, v] = [0, 1].map(|_| matrix(keys, heads, &mut seed));
            cases.push(Case { heads, shape: heads.shape(before + 1), rows, keys, q, k, v, dout });
        }
    }
    cases
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn attention_gives_the_bits_of_the_definition() {
    for Case { heads, shape, rows, keys, q, k, v, .. } in cases() {
        let w = shape.width;
        let mut expected = vec![0.0; rows * w];
        for i in 0..rows {
            let (e, total) = exponentials(shape, &q[i * w..], &k, shape.first + i);
            for d in 0..w {
                expected[i * w + d] = chain(e.iter().enumerate().map(|(j, e)| (*e, v[j * w + d])), 0.0) / total;
            }
        }
        let kt = transpose(&k, heads);
        let kt = Transposed { data: &kt, stride: stride(keys) };
        for isa in isa::available() {
            let (mut scores, mut out) = (vec![f32::NAN; SCORE_ROWS * kt.stride], vec![f32::NAN; rows * w]);
            attend_with(isa, shape, &q, kt, &v, &mut scores, &mut out);
            assert_eq!(bits(&out), bits(&expected), "{isa}, head_dim {}, {rows} rows, {keys} keys", heads.head_dim);
        }
    }
}

#[test]
fn attention_gradients_give_the_bits_of_the_definition() {
    for Case { heads, shape, rows, keys, q, k, v, dout } in cases() {
        let w = shape.width;
        let (mut dq, mut dk, mut dv) = (vec![0.0f32; rows * w], vec![0.5f32; keys * w], vec![0.25f32; keys * w]);
        for i in 0..rows {
            let seen = shape.first + i;
            let (e, total) = exponentials(shape, &q[i * w..], &k, seen);
            let p: Vec<f32> = e.iter().map(|e| e / total).collect();
            let dp = |j: usize| chain((0..shape.dim).map(|d| (dout[i * w + d], v[j * w + d])), 0.0);
            let dp: Vec<f32> = (0..seen).map(dp).collect();
            let mean = reference::dot(&p, &dp);
            let ds: Vec<f32> = (0..seen).map(|j| (p[j] * (dp[j] - mean)) * shape.scale).collect();
            for d in 0..w {
                dq[i * w + d] = chain((0..seen).map(|j| (ds[j], k[j * w + d])), 0.0);
                for j in 0..seen {
                    dk[j * w + d] = ds[j].mul_add(q[i * w + d], dk[j * w + d]);
                    dv[j * w + d] = p[j].mul_add(dout[i * w + d], dv[j * w + d]);
                }
            }
        }
        let (kt, vt) = (transpose(&k, heads), transpose(&v, heads));
        let [kt, vt] = [&kt, &vt].map(|data| Transposed { data, stride: stride(keys) });
        for isa in isa::available() {
            let [mut p, mut ds] = [0, 1].map(|_| vec![f32::NAN; rows * kt.stride]);
            let mut ours = [vec![f32::NAN; rows * w], vec![0.5; keys * w], vec![0.25; keys * w]];
            let [a, b, c] = &mut ours;
            attend_backward_with(isa, shape, Inputs { q: &q, dout: &dout, k: &k, kt, vt }, &mut p, &mut ds, a, b, c);
            for (ours, expected) in ours.iter().zip([&dq, &dk, &dv]) {
                assert_eq!(bits(ours), bits(expected), "{isa}, head_dim {}, {rows} rows, {keys} keys", heads.head_dim);
            }
        }
    }
}

#[test]
fn transposes_hold_every_element_and_zeros_after_them() {
    for (rows, dim) in [(1, 2), (15, 16), (16, 6), (37, 64), (64, 30)] {
        let (width, stride) = (stride(dim), stride(rows));
        let x = random(rows * width, 1.0, 9);
        let expected: Vec<f32> =
            (0..dim * stride).map(|i| if i % stride < rows { x[i % stride * width + i / stride] } else { 0.0 }).collect();
        for isa in isa::available() {
            let mut out = vec![f32::NAN; dim * stride];
            transpose_with(isa, &x, width, dim, stride, &mut out);
            assert_eq!(out, expected, "{isa}, {rows} rows, {dim} columns");
        }
    }
}
