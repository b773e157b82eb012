//! Unlikelihood training, a baseline of the DPO paper.

use super::sft::{Mean, OnChosen};
use super::{Evaluation, Objective, PairGradient, PairLogps};

/// −Σ log π(y_w) / Σ |y_w| − α Σ log(1 − π(token of y_l)) / Σ |y_l| over the batch: likelihood of the chosen tokens, unlikelihood
/// of the rejected ones (Welleck et al. 2019, arXiv 1908.04319, eqs. 1 and 5, each rejected token being its position's
/// negative candidate). The token's probability is kept at most 1 − 1e-5, as in the authors' code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unlikelihood {
    pub alpha: f64,
}

impl Objective for Unlikelihood {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let mut found = OnChosen(Mean::Tokens).evaluate(batch);
        let tokens = batch.iter().map(|p| p.rejected.tokens).sum::<usize>() as f64;
        found.loss += self.alpha * batch.iter().map(|p| p.rejected.unlikelihood).sum::<f64>() / tokens;
        for ((pair, loss), gradient) in batch.iter().zip(&mut found.losses).zip(&mut found.gradients) {
            *loss += self.alpha * pair.rejected.unlikelihood / pair.rejected.tokens as f64;
            gradient.rejected.unlikelihood = self.alpha / tokens;
        }
        found
    }

    fn loss_at_reference(&self) -> Option<f64> {
        None
    }
}
