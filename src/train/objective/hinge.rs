//! The hinge of SLiC and RSO.

use super::score::{PairLoss, PairValue};

/// max(0, 1 − βΔ) (Zhao et al. 2023, arXiv 2305.10425, eq. 2; with log-ratios Liu et al. 2023, arXiv 2309.06657, eq. 8). At the
/// corner the slope is that of the flat side, as in TRL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hinge {
    pub beta: f64,
}

impl PairLoss for Hinge {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let room = 1.0 - self.beta * (chosen - rejected);
        // Not `max`, which would turn NaN into 0.
        if room <= 0.0 { PairValue::of_difference(0.0, 0.0) } else { PairValue::of_difference(room, -self.beta) }
    }
}
