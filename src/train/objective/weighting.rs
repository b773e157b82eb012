//! Weighted preference optimization: pairs count by how likely the policy is to write them.

use super::{Evaluation, Objective, PairGradient, PairLogps, PairObjective};

/// Each pair's loss times w(y_w) w(y_l), w(y) = exp(mean over tokens of log π(token) − log Σ π²) (Zhou et al. 2024, arXiv
/// 2406.11827, eq. 2 with the sampled alignment of section 3.3), constants to the gradient. Not capped at 1, as in TRL since 0.29.
pub(super) struct Weighted {
    pub objective: PairObjective,
    /// A loss that is no mean over pairs is multiplied by the mean weight, as in TRL.
    pub couples: bool,
}

impl Objective for Weighted {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let n = batch.len() as f64;
        let mut found = self.objective.evaluate(batch);
        let mut weights: Vec<f64> = batch.iter().map(|p| libm::exp(p.chosen.alignment + p.rejected.alignment)).collect();
        if self.couples {
            let mean = weights.iter().sum::<f64>() / n;
            weights.fill(mean);
            found.loss *= mean;
        }
        found.losses.iter_mut().zip(&weights).for_each(|(loss, weight)| *loss *= weight);
        found.gradients.iter_mut().zip(&weights).for_each(|(gradient, &weight)| *gradient = *gradient * weight);
        if !self.couples {
            found.loss = found.losses.iter().sum::<f64>() / n;
        }
        found
    }

    fn loss_at_reference(&self) -> Option<f64> {
        None
    }
}
