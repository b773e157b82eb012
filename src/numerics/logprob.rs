//! Log-probabilities of tokens from rows of logits (NUMERICS 6), and the gradient of a row.

use super::device::{self, logits as on_device};
use super::elementary::lanes;
use super::elementary::lanes::exp;
use super::parallel::{for_each_rows, for_each_with};
use super::reduce::lanes::{max, sum};
use super::row::{load, starts, store};
use super::simd::{F32x16, dispatch};

/// What one target position says about its token. Natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenScore {
    /// log p(token).
    pub logp: f32,
    /// −Σ p log p over the vocabulary.
    pub entropy: f32,
    /// Mean of the row's logits.
    pub mean_logit: f32,
    /// log Σ p² over the vocabulary: the expectation of log p that WPO divides by.
    pub log_sum_squares: f32,
}

dispatch! {
    /// The score of `token` under the row `logits`.
    pub fn score, score_with(logits: &[f32], token: u32) -> TokenScore = score_kernel;

    /// `row`: logits become dL/dlogits = dlogp · (one-hot(token) − softmax).
    pub fn backward, backward_with(row: &mut [f32], token: u32, dlogp: f32) = backward_kernel;

    /// KL(softmax(policy) ‖ softmax(reference)) of one row of logits each, nats; exactly 0 for equal rows.
    pub fn kl, kl_with(policy: &[f32], reference: &[f32]) -> f32 = kl_kernel;
}

/// Elementary steps of one logit in a kernel, roughly (its exponential, mostly).
const WORK: usize = 16;

/// One score a token from its row of `logits`: (tokens, vocabulary).
pub fn scores(logits: &[f32], vocabulary: usize, tokens: &[u32]) -> Vec<TokenScore> {
    let mut scores = vec![TokenScore::default(); tokens.len()];
    if let Some(device) = device::active() {
        on_device::scores(device, logits, vocabulary, tokens, &mut scores);
        return scores;
    }
    for_each_with(&mut scores, WORK * vocabulary, |i| score(&logits[i * vocabulary..][..vocabulary], tokens[i]));
    scores
}

/// [`backward`] of each row of `logits`: (tokens, vocabulary).
pub fn backward_rows(logits: &mut [f32], vocabulary: usize, tokens: &[u32], dlogps: &[f32]) {
    if let Some(device) = device::active() {
        return on_device::backward(device, logits, vocabulary, tokens, dlogps);
    }
    for_each_rows(logits, vocabulary, WORK * vocabulary, |first, rows| {
        for (i, row) in rows.chunks_exact_mut(vocabulary).enumerate() {
            backward(row, tokens[first + i], dlogps[first + i]);
        }
    });
}

/// [`kl`] of each row of `policy` and of `reference`: (kls, vocabulary).
pub fn kls(policy: &[f32], reference: &[f32], vocabulary: usize, kls: &mut [f32]) {
    if let Some(device) = device::active() {
        return on_device::kls(device, policy, reference, vocabulary, kls);
    }
    for_each_with(kls, 2 * WORK * vocabulary, |i| {
        let row = i * vocabulary..(i + 1) * vocabulary;
        kl(&policy[row.clone()], &reference[row])
    });
}

/// A lane beyond the row's end: it is no maximum, and its exponential is 0.
const NOTHING: f32 = f32::NEG_INFINITY;

/// ln of one number, by the vector's own instructions.
#[inline(always)]
fn log<V: F32x16>(x: f32) -> f32 {
    lanes::log(V::splat(x)).to_array()[0]
}

#[inline(always)]
fn score_kernel<V: F32x16>(logits: &[f32], token: u32) -> TokenScore {
    let m = max::<V>(logits);
    let (mut total, mut weighted, mut squares) = (V::splat(0.0), V::splat(0.0), V::splat(0.0));
    for i in starts(logits.len()) {
        let shifted = load::<V>(logits, i, NOTHING) - V::splat(m);
        let e = exp(shifted);
        total = total + e;
        squares = e.fma(e, squares);
        // Beyond the end 0 · −∞ would be NaN.
        weighted = e.fma(load::<V>(logits, i, m) - V::splat(m), weighted);
    }
    let (total, weighted) = (total.tree_sum(), weighted.tree_sum());
    let log_total = log::<V>(total);
    TokenScore {
        logp: logits[token as usize] - (m + log_total),
        // −Σ p log p with log p = (logit − m) − log Σ.
        entropy: log_total - weighted / total,
        mean_logit: sum::<V>(logits) / logits.len() as f32,
        log_sum_squares: log::<V>(squares.tree_sum()) - 2.0 * log_total,
    }
}

#[inline(always)]
fn backward_kernel<V: F32x16>(row: &mut [f32], token: u32, dlogp: f32) {
    let m = V::splat(max::<V>(row));
    let mut total = V::splat(0.0);
    for i in starts(row.len()) {
        let e = exp(load::<V>(row, i, NOTHING) - m);
        total = total + e;
        store(e, row, i);
    }
    let factor = V::splat(-dlogp / total.tree_sum());
    for i in starts(row.len()) {
        store(load::<V>(row, i, 0.0) * factor, row, i);
    }
    row[token as usize] += dlogp;
}

#[inline(always)]
fn kl_kernel<V: F32x16>(policy: &[f32], reference: &[f32]) -> f32 {
    let (m, m_ref) = (max::<V>(policy), max::<V>(reference));
    let (mut total, mut total_ref, mut weighted) = (V::splat(0.0), V::splat(0.0), V::splat(0.0));
    for i in starts(policy.len()) {
        let e = exp(load::<V>(policy, i, NOTHING) - V::splat(m));
        total = total + e;
        total_ref = total_ref + exp(load::<V>(reference, i, NOTHING) - V::splat(m_ref));
        let difference = (load::<V>(policy, i, m) - V::splat(m)) - (load::<V>(reference, i, m_ref) - V::splat(m_ref));
        weighted = e.fma(difference, weighted);
    }
    let total = total.tree_sum();
    weighted.tree_sum() / total - (log::<V>(total) - log::<V>(total_ref.tree_sum()))
}
