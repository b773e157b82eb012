//! Supervised fine-tuning: cross-entropy on the completions' tokens.

use super::{Evaluation, Objective, SequenceLogps};

/// −Σ log π(y|x) / Σ |y| over the optimizer batch: every completion token weighs the same, however the batch is split.
/// (TRL averages within each micro-batch instead, unless told the number of items.)
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sft;

impl Objective for Sft {
    type Example = SequenceLogps;
    type Gradient = f64;

    fn evaluate(&self, batch: &[SequenceLogps]) -> Evaluation<f64> {
        let tokens = batch.iter().map(|s| s.tokens).sum::<usize>() as f64;
        let losses: Vec<f64> = batch.iter().map(|s| -s.policy / s.tokens as f64).collect();
        let loss = -batch.iter().map(|s| s.policy).sum::<f64>() / tokens;
        Evaluation { loss, losses, gradients: vec![-1.0 / tokens; batch.len()] }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_weighs_the_same() {
        let sequence = |policy, tokens| SequenceLogps { policy, reference: f64::NAN, tokens };
        let found = Sft.evaluate(&[sequence(-6.0, 2), sequence(-2.0, 6)]);
        assert_eq!(found.loss, 1.0);
        assert_eq!(found.losses, [3.0, 2.0 / 6.0]);
        assert_eq!(found.gradients, [-0.125, -0.125]);
    }
}
