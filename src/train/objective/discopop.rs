//! The log-ratio modulated loss that a language model proposed.

use super::score::{PairLoss, PairValue};
use super::{logistic, softplus};

/// −log σ(u)(1 − m) + e⁻ᵘ m with u = βΔ, m = σ(u/τ) (Lu et al. 2024, arXiv 2406.08414, eq. 5; τ = 0.05 there).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Discopop {
    pub beta: f64,
    pub tau: f64,
}

impl PairLoss for Discopop {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let u = self.beta * (chosen - rejected);
        let (m, rest) = (logistic(u / self.tau), logistic(-u / self.tau));
        let (log_loss, exp_loss) = (softplus(-u), libm::exp(-u));
        // Far below zero e⁻ᵘ overflows while m vanishes: their product e^(u/τ − u), in the limit, does so too.
        let mixed = if m == 0.0 { 0.0 } else { exp_loss * m };
        let turn = if m == 0.0 { 0.0 } else { m * rest / self.tau * (exp_loss - log_loss) };
        let slope = -logistic(-u) * rest - mixed + turn;
        PairValue::of_difference(log_loss * rest + mixed, self.beta * slope)
    }
}
