//! The loss of Direct Preference Optimization, its conservative form for noisy labels, and others of its shape.

use super::score::{PairLoss, PairValue};
use super::{logistic, softplus};

/// −(1 − ε) log σ(u) − ε log σ(−u) with u = βΔ − γ, Δ the difference of the scores.
///
/// - `sigmoid` with ε = 0 is DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7); with ε = `label_smoothing` > 0
///   conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO", eq. 3): ε is the
///   assumed share of flipped labels. TRL 0.29 dropped ε from this loss without an error; here it counts.
/// - `sigmoid_norm` scores by log-ratios per token (Lambert et al. 2024, Tülu 3, arXiv 2411.15124, eq. 6).
/// - `simpo` and `cpo` stand in files of their own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sigmoid {
    pub beta: f64,
    pub label_smoothing: f64,
    /// γ, 0 but for SimPO.
    pub target: f64,
}

impl Sigmoid {
    pub fn new(beta: f64, label_smoothing: f64) -> Self {
        Self { beta, label_smoothing, target: 0.0 }
    }
}

impl PairLoss for Sigmoid {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let epsilon = self.label_smoothing;
        let u = self.beta * (chosen - rejected) - self.target;
        let loss = (1.0 - epsilon) * softplus(-u) + epsilon * softplus(u);
        // d/du: −(1 − ε) σ(−u) + ε σ(u).
        let slope = epsilon * logistic(u) - (1.0 - epsilon) * logistic(-u);
        PairValue::of_difference(loss, self.beta * slope)
    }
}
