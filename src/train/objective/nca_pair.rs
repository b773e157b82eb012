//! Noise-contrastive alignment, for pairs.

use super::score::{PairLoss, PairValue};
use super::{logistic, softplus};

/// −log σ(βr_w) − ½ log σ(−βr_w) − ½ log σ(−βr_l) (Chen et al. 2024, arXiv 2402.05369, eq. 14 with two responses and hard labels).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NcaPair {
    pub beta: f64,
}

impl PairLoss for NcaPair {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue {
        let (w, l) = (self.beta * chosen, self.beta * rejected);
        PairValue {
            loss: softplus(-w) + 0.5 * softplus(w) + 0.5 * softplus(l),
            chosen: self.beta * (0.5 * logistic(w) - logistic(-w)),
            rejected: self.beta * 0.5 * logistic(l),
        }
    }
}
