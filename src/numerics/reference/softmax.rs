//! Softmax of one row of logits and what is read from it. Natural logarithms.

use super::{dot, exp, log, max, sum};
use crate::logprob::TokenScore;

/// A row less its maximum m, the exponentials of that, and their sum.
struct Shifted {
    m: f32,
    shifted: Vec<f32>,
    e: Vec<f32>,
    total: f32,
}

fn shift(logits: &[f32]) -> Shifted {
    let m = max(logits);
    let shifted: Vec<f32> = logits.iter().map(|l| l - m).collect();
    let e: Vec<f32> = shifted.iter().map(|s| exp(*s)).collect();
    let total = sum(&e);
    Shifted { m, shifted, e, total }
}

/// e^(l − m) / Σ e^(l − m).
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let Shifted { e, total, .. } = shift(logits);
    e.iter().map(|e| e / total).collect()
}

/// ln Σ e^l = m + ln Σ e^(l − m).
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    let Shifted { m, total, .. } = shift(logits);
    m + log(total)
}

/// log p(token), the entropy −Σ p log p, the mean logit and log Σ p².
pub fn token_score(logits: &[f32], token: u32) -> TokenScore {
    let Shifted { shifted, e, total, .. } = shift(logits);
    TokenScore {
        logp: logits[token as usize] - log_sum_exp(logits),
        // With log p = (l − m) − ln Σ.
        entropy: log(total) - dot(&e, &shifted) / total,
        mean_logit: sum(logits) / logits.len() as f32,
        log_sum_squares: log(dot(&e, &e)) - 2.0 * log(total),
    }
}

/// dL/dlogits of [`token_score`]'s log p: dlogp · (one-hot(token) − softmax).
pub fn token_score_backward(logits: &[f32], token: u32, dlogp: f32) -> Vec<f32> {
    let Shifted { e, total, .. } = shift(logits);
    let factor = -dlogp / total;
    let mut gradient: Vec<f32> = e.iter().map(|e| e * factor).collect();
    gradient[token as usize] += dlogp;
    gradient
}

/// KL(softmax(policy) ‖ softmax(reference)) = Σ p (log p − log q).
pub fn row_kl(policy: &[f32], reference: &[f32]) -> f32 {
    let (p, q) = (shift(policy), shift(reference));
    let differences: Vec<f32> = p.shifted.iter().zip(&q.shifted).map(|(p, q)| p - q).collect();
    dot(&p.e, &differences) / p.total - (log(p.total) - log(q.total))
}
