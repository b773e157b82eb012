//! Efficient exact optimization, for pairs.

use super::score::{PairLoss, PairValue};
use super::{logistic, softplus};

/// KL(q ‖ p) of q = (σ(u), σ(−u)), u = βΔ, to the smoothed label p = (1 − ε, ε) (Ji et al. 2024, arXiv 2402.00856, eq. 16). The
/// paper takes ε = 1e-3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ExoPair {
    pub beta: f64,
    pub label_smoothing: f64,
}

impl PairLoss for ExoPair {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let u = self.beta * (chosen - rejected);
        let (q_chosen, q_rejected) = (logistic(u), logistic(-u));
        let (p_chosen, p_rejected) = (libm::log1p(-self.label_smoothing), libm::log(self.label_smoothing));
        let loss = q_chosen * (-softplus(-u) - p_chosen) + q_rejected * (-softplus(u) - p_rejected);
        // log q_chosen − log q_rejected = u.
        let slope = q_chosen * q_rejected * (u - p_chosen + p_rejected);
        PairValue::of_difference(loss, self.beta * slope)
    }
}
