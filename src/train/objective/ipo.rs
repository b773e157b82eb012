//! Identity preference optimization.

use super::score::{PairLoss, PairValue};

/// (Δ − 1/(2β))² (Azar et al. 2023, arXiv 2310.12036, eq. 17, where β is τ). Δ is the difference of log-ratios per token, as the
/// authors confirmed to TRL; the DPO paper's code and OpenRLHF take sums, which makes it larger by orders of magnitude.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ipo {
    pub beta: f64,
}

impl PairLoss for Ipo {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let error = chosen - rejected - 1.0 / (2.0 * self.beta);
        PairValue::of_difference(error * error, 2.0 * error)
    }
}
