//! Alignment by optimal transport: margins are made larger as a distribution, not pair by pair.

use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient, logistic, softplus};

/// What is sorted before it is compared (Melnyk et al. 2024, arXiv 2406.05882).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Between {
    /// log π(y_w) − log π(y_l) against log π_ref(y_w) − log π_ref(y_l) (`aot`, their paired form, eq. 9).
    Pairs,
    /// Log-ratios of chosen against log-ratios of rejected (`aot_unpaired`, eq. 7).
    Sides,
}

/// Mean over ranks k of −(1 − ε) log σ(βδ_k) − ε log σ(−βδ_k), δ_k the difference of the k-th smallest values.
///
/// The sort runs over the whole optimizer batch. Equal values keep batch order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Aot {
    pub beta: f64,
    pub label_smoothing: f64,
    pub between: Between,
}

/// The indices of `values` in ascending order of value. NaN goes last, and into the loss.
fn ranks(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

impl Objective for Aot {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let of = |value: fn(&PairLogps) -> f64| batch.iter().map(value).collect::<Vec<f64>>();
        let (upper, lower) = match self.between {
            Between::Pairs => (of(|p| p.chosen.policy - p.rejected.policy), of(|p| p.chosen.reference - p.rejected.reference)),
            Between::Sides => (of(|p| p.chosen.log_ratio()), of(|p| p.rejected.log_ratio())),
        };
        let (n, epsilon) = (batch.len() as f64, self.label_smoothing);
        let mut losses = vec![0.0; batch.len()];
        let mut gradients = vec![PairGradient::default(); batch.len()];
        for (high, low) in ranks(&upper).into_iter().zip(ranks(&lower)) {
            let u = self.beta * (upper[high] - lower[low]);
            losses[high] = (1.0 - epsilon) * softplus(-u) + epsilon * softplus(u);
            let slope = self.beta * (epsilon * logistic(u) - (1.0 - epsilon) * logistic(-u)) / n;
            gradients[high].chosen = SequenceGradient::policy(slope);
            let falls = match self.between {
                Between::Pairs => high,
                Between::Sides => low,
            };
            gradients[falls].rejected = SequenceGradient::policy(-slope);
        }
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients, metrics: Vec::new() }
    }

    fn loss_at_reference(&self) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }
}
