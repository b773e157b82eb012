//! Anchored preference optimization (D'Oosterlinck et al. 2024, arXiv 2408.06266). Its unpaired form stands in `kto`.

use super::logistic;
use super::score::{PairLoss, PairValue};

/// σ′ from the argument.
fn bell(x: f64) -> f64 {
    logistic(x) * logistic(-x)
}

/// −σ(βr_w) + σ(βr_l) (eq. 7), raised by 1 as in TRL: for chosen sides that are better than the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ApoZero {
    pub beta: f64,
}

impl PairLoss for ApoZero {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let (w, l) = (self.beta * chosen, self.beta * rejected);
        PairValue { loss: logistic(-w) + logistic(l), chosen: -self.beta * bell(w), rejected: self.beta * bell(l) }
    }
}

/// σ(βr_w) − σ(β(r_w − r_l)) (eq. 8), raised by 1 as in TRL: for chosen sides that are worse than the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ApoDown {
    pub beta: f64,
}

impl PairLoss for ApoDown {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let (w, u) = (self.beta * chosen, self.beta * (chosen - rejected));
        PairValue { loss: logistic(w) + logistic(-u), chosen: self.beta * (bell(w) - bell(u)), rejected: self.beta * bell(u) }
    }
}
