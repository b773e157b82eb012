//! Binary classifier optimization, for pairs.

use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient, logistic, softplus};
use crate::suite::settings::BcoShift;

/// −log σ(βr_w − δ) − log σ(−(βr_l − δ)) (Jung et al. 2024, arXiv 2404.04656, eq. 8). The paper's reward shift δ is a running mean
/// of rewards; TRL has δ = 0 since 0.29, which is the default here. With `BcoShift::Batch` δ is the mean reward of both
/// sides over the batch, a constant to the gradient: the loss then depends on nothing but the batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BcoPair {
    pub beta: f64,
    pub shift: BcoShift,
}

impl Objective for BcoPair {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let n = batch.len() as f64;
        let shift = match self.shift {
            BcoShift::None => 0.0,
            BcoShift::Batch => {
                self.beta * batch.iter().map(|p| p.chosen.log_ratio() + p.rejected.log_ratio()).sum::<f64>() / (2.0 * n)
            }
        };
        let rewards = |p: &PairLogps| (self.beta * p.chosen.log_ratio() - shift, self.beta * p.rejected.log_ratio() - shift);
        let losses: Vec<f64> = batch.iter().map(rewards).map(|(w, l)| softplus(-w) + softplus(l)).collect();
        let gradient = |(w, l): (f64, f64)| PairGradient {
            chosen: SequenceGradient::policy(-self.beta * logistic(-w) / n),
            rejected: SequenceGradient::policy(self.beta * logistic(l) / n),
            prompt: 0.0,
        };
        let gradients = batch.iter().map(rewards).map(gradient).collect();
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients, metrics: Vec::new() }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(2.0 * std::f64::consts::LN_2)
    }
}
