//! An explicit pull to the reference, beside the one that preference losses imply.
//!
//! The estimator of KL(π ‖ π_ref), in nats a completion, is the mean over the batch's completions (of pairs: over both sides)
//! of ½ r², r the log-ratio (Schulman 2020, "Approximating KL divergence", k2). On the policy's own samples its gradient is the
//! KL's; the batch's completions come from the data, so here it is exact to second order around the reference only. It
//! is never negative, and 0 with a gradient of 0 at the reference.

use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient, SequenceLogps, UnpairedLogps};

fn penalty(side: &SequenceLogps) -> f64 {
    0.5 * side.log_ratio() * side.log_ratio()
}

pub(super) struct OfPairs;

impl Objective for OfPairs {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let n = batch.len() as f64;
        let losses: Vec<f64> = batch.iter().map(|p| 0.5 * (penalty(&p.chosen) + penalty(&p.rejected))).collect();
        let along = |side: &SequenceLogps| SequenceGradient::policy(0.5 * side.log_ratio() / n);
        let gradient = |p: &PairLogps| PairGradient { chosen: along(&p.chosen), rejected: along(&p.rejected), prompt: 0.0 };
        let gradients = batch.iter().map(gradient).collect();
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients, metrics: Vec::new() }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(0.0)
    }
}

pub(super) struct OfCompletions;

impl Objective for OfCompletions {
    type Example = UnpairedLogps;
    type Gradient = SequenceGradient;

    fn evaluate(&self, batch: &[UnpairedLogps]) -> Evaluation<SequenceGradient> {
        let n = batch.len() as f64;
        let losses: Vec<f64> = batch.iter().map(|e| penalty(&e.completion)).collect();
        let gradients = batch.iter().map(|e| SequenceGradient::policy(e.completion.log_ratio() / n)).collect();
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients, metrics: Vec::new() }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(0.0)
    }
}
