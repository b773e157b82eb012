//! A completion under a model, as objectives see it, and the way back: from an objective's gradient to its tokens.

use super::objective::{SequenceGradient, SequenceLogps};
use super::score_cache::Numbers;
use super::sequence::SequenceScore;
use crate::model::TokenScore;

/// What objectives ask of one completion under one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompletionScore {
    pub(super) sum: SequenceScore,
    /// log π of the tokens up to the length of the pair's shorter completion, nats.
    shared: f64,
    /// −Σ log(1 − π(token)), nats.
    unlikelihood: f64,
    /// Mean over tokens of log π(token) − log Σ π², nats.
    alignment: f64,
}

impl Numbers for CompletionScore {
    const COUNT: usize = 7;

    fn write(&self, numbers: &mut Vec<f64>) {
        let SequenceScore { logp, entropy, logits, tokens } = self.sum;
        numbers.extend([logp, entropy, logits, tokens as f64, self.shared, self.unlikelihood, self.alignment]);
    }

    fn read(numbers: &[f64]) -> Self {
        let sum = SequenceScore { logp: numbers[0], entropy: numbers[1], logits: numbers[2], tokens: numbers[3] as usize };
        Self { sum, shared: numbers[4], unlikelihood: numbers[5], alignment: numbers[6] }
    }
}

/// As in the authors' code, unlikelihood takes no token to be more certain than this.
const LEAST_DOUBT: f64 = 1e-5;

/// 1 − π(token), and whether it is more than the least that counts.
fn doubt(token: &TokenScore) -> (f64, bool) {
    let doubt = -libm::expm1(f64::from(token.logp));
    (doubt.max(LEAST_DOUBT), doubt > LEAST_DOUBT)
}

impl CompletionScore {
    /// `shared`: how many of the tokens a pair's shorter completion has too.
    pub fn of(tokens: &[TokenScore], shared: usize) -> Self {
        let sum = |value: &dyn Fn(&TokenScore) -> f64, tokens: &[TokenScore]| tokens.iter().map(value).sum::<f64>();
        Self {
            sum: SequenceScore::of(tokens),
            shared: sum(&|t| f64::from(t.logp), &tokens[..shared]),
            unlikelihood: sum(&|t| -libm::log(doubt(t).0), tokens),
            alignment: sum(&|t| f64::from(t.logp) - f64::from(t.log_sum_squares), tokens) / tokens.len() as f64,
        }
    }

    /// LD-DPO (Liu et al. 2024, arXiv 2409.06411, eq. 9): tokens beyond the shared length weigh `ld_alpha`.
    fn weighed(&self, ld_alpha: Option<f64>) -> f64 {
        match ld_alpha {
            None => self.sum.logp,
            Some(alpha) => self.shared + alpha * (self.sum.logp - self.shared),
        }
    }

    /// The objective's view of this completion under the policy. `ld_alpha`: of policy and reference.
    pub fn logps(&self, reference: &Self, ld_alpha: [Option<f64>; 2]) -> SequenceLogps {
        SequenceLogps {
            policy: self.weighed(ld_alpha[0]),
            reference: reference.weighed(ld_alpha[1]),
            tokens: self.sum.tokens,
            plain: self.sum.logp,
            unlikelihood: self.unlikelihood,
            alignment: self.alignment,
        }
    }
}

/// d(loss)/d(log π(token)) of each token of a completion. `shared` and `ld_alpha` as above, of the policy.
pub(super) fn token_gradients(
    tokens: &[TokenScore],
    shared: usize,
    ld_alpha: Option<f64>,
    gradient: &SequenceGradient,
) -> impl Iterator<Item = f32> {
    tokens.iter().enumerate().map(move |(position, token)| {
        let weight = if position < shared { 1.0 } else { ld_alpha.unwrap_or(1.0) };
        let mut along = gradient.policy * weight + gradient.plain;
        if gradient.unlikelihood != 0.0
            && let (doubt, true) = doubt(token)
        {
            // d(−log(1 − p))/d log p = p/(1 − p).
            along += gradient.unlikelihood * (1.0 - doubt) / doubt;
        }
        along as f32
    })
}
