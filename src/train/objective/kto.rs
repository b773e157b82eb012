//! Losses over single completions that are labelled desirable or not.

use super::{Evaluation, Objective, SequenceGradient, SequenceLogps, logistic};

/// A completion with its label, and the log-ratio of another example's completion after the same prompt, which says how far
/// the policy has moved as a whole. Losses without a KL take no notice of that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnpairedLogps {
    pub completion: SequenceLogps,
    pub desirable: bool,
    /// nats
    pub mismatched: f64,
}

/// λ (1 − σ(β(r − z))) for desirable examples, λ (1 − σ(β(z − r))) for undesirable ones; the batch loss is the mean.
///
/// - `kto` (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8): z = max(0, mean log-ratio of mismatched completions over the
///   batch), a constant to the gradient.
/// - `apo_zero_unpaired` (D'Oosterlinck et al. 2024, arXiv 2408.06266, eq. 7 by halves): z = 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kto {
    pub beta: f64,
    /// λ of undesirable and desirable examples.
    pub weights: [f64; 2],
    /// Whether z is estimated.
    pub kl: bool,
}

impl Objective for Kto {
    type Example = UnpairedLogps;
    type Gradient = SequenceGradient;

    fn evaluate(&self, batch: &[UnpairedLogps]) -> Evaluation<SequenceGradient> {
        let n = batch.len() as f64;
        let mean = if self.kl { batch.iter().map(|e| e.mismatched).sum::<f64>() / n } else { 0.0 };
        // Not `max`, which would turn NaN into 0.
        let z = if mean < 0.0 { 0.0 } else { mean };
        let mut losses = Vec::with_capacity(batch.len());
        let mut gradients = Vec::with_capacity(batch.len());
        for example in batch {
            let sign = if example.desirable { 1.0 } else { -1.0 };
            let weight = self.weights[usize::from(example.desirable)];
            let u = sign * self.beta * (example.completion.log_ratio() - z);
            losses.push(weight * logistic(-u));
            let slope = -weight * sign * self.beta * logistic(u) * logistic(-u);
            gradients.push(SequenceGradient::policy(slope / n));
        }
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients, metrics: vec![("kl", z)] }
    }

    /// With unequal weights it depends on the batch's labels.
    fn loss_at_reference(&self) -> Option<f64> {
        let [undesirable, desirable] = self.weights;
        (undesirable == desirable).then_some(0.5 * desirable)
    }
}
