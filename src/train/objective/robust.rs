//! Robust DPO: what label noise adds on average is taken off.

use super::score::{PairLoss, PairValue};
use super::{logistic, softplus};

/// (−(1 − ε) log σ(u) + ε log σ(−u)) / (1 − 2ε) with u = βΔ (Chowdhury et al. 2024, arXiv 2403.00409, eq. 12): its mean over
/// labels flipped with probability ε is DPO's loss on the true labels. A single pair's loss has no lower bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Robust {
    pub beta: f64,
    pub label_smoothing: f64,
}

impl PairLoss for Robust {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let (epsilon, scale) = (self.label_smoothing, 1.0 - 2.0 * self.label_smoothing);
        let u = self.beta * (chosen - rejected);
        let loss = ((1.0 - epsilon) * softplus(-u) - epsilon * softplus(u)) / scale;
        let slope = -((1.0 - epsilon) * logistic(-u) + epsilon * logistic(u)) / scale;
        PairValue::of_difference(loss, self.beta * slope)
    }
}
