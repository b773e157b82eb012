//! Self-play preference optimization with hard labels.

use super::score::{PairLoss, PairValue};

/// (r_w − 1/(2β))² + (r_l + 1/(2β))² (Wu et al. 2024, arXiv 2405.00675, eq. 4.7 with a win probability of 1 for the chosen side and
/// 0 for the rejected one; β is their 1/η).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SppoHard {
    pub beta: f64,
}

impl PairLoss for SppoHard {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let target = 0.5 / self.beta;
        let (w, l) = (chosen - target, rejected + target);
        PairValue { loss: w * w + l * l, chosen: 2.0 * w, rejected: 2.0 * l }
    }
}
