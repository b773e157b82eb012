//! Log-probabilities of tokens from rows of logits (NUMERICS 6), and the gradient of a row.

use super::interim::{dot, exp, log, max, sum};

/// What one target position says about its token. Natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// log p(token).
    pub logp: f32,
    /// −Σ p log p over the vocabulary.
    pub entropy: f32,
    /// Mean of the row's logits.
    pub mean_logit: f32,
}

/// `row` becomes logit − max; the maximum comes back.
fn shift(row: &mut [f32]) -> f32 {
    let m = max(row);
    row.iter_mut().for_each(|x| *x -= m);
    m
}

/// The score of `token` under the row `logits`, which is overwritten; `scratch` has the row's length.
pub(crate) fn score(logits: &mut [f32], token: u32, scratch: &mut [f32]) -> TokenScore {
    let mean_logit = sum(logits) / logits.len() as f32;
    let chosen = logits[token as usize];
    let m = shift(logits);
    scratch.copy_from_slice(logits);
    exp(scratch);
    let total = sum(scratch);
    let log_total = log(total);
    // −Σ p log p with log p = (logit − m) − log Σ.
    let entropy = log_total - dot(scratch, logits) / total;
    TokenScore { logp: chosen - (m + log_total), entropy, mean_logit }
}

/// `row`: logits become dL/dlogits = dlogp · (one-hot(token) − softmax).
pub(crate) fn backward(row: &mut [f32], token: u32, dlogp: f32) {
    shift(row);
    exp(row);
    let factor = -dlogp / sum(row);
    row.iter_mut().for_each(|x| *x *= factor);
    row[token as usize] += dlogp;
}

/// KL(softmax(policy) ‖ softmax(reference)) of one row, nats; exactly 0 for equal rows. Both rows are overwritten.
pub(crate) fn kl(policy: &mut [f32], reference: &mut [f32]) -> f32 {
    shift(policy);
    shift(reference);
    let differences: Vec<f32> = policy.iter().zip(reference.iter()).map(|(p, r)| p - r).collect();
    exp(policy);
    exp(reference);
    let (total, total_ref) = (sum(policy), sum(reference));
    dot(policy, &differences) / total - (log(total) - log(total_ref))
}
