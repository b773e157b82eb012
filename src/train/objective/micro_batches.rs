//! Other trainers' way with gradient accumulation.

use super::{Evaluation, Gradient, Objective};

/// The mean over micro-batches of an objective that sees each by itself. Where micro-batches differ in size (the last of an
/// epoch), their examples weigh differently, as there.
pub(super) struct MicroBatches<E, G> {
    pub objective: Box<dyn Objective<Example = E, Gradient = G>>,
    /// Examples of a micro-batch.
    pub size: usize,
}

impl<E, G: Gradient> Objective for MicroBatches<E, G> {
    type Example = E;
    type Gradient = G;

    fn evaluate(&self, batch: &[E]) -> Evaluation<G> {
        let share = 1.0 / batch.len().div_ceil(self.size) as f64;
        let mut mean = Evaluation { loss: 0.0, losses: Vec::new(), gradients: Vec::new(), metrics: Vec::new() };
        for part in batch.chunks(self.size).map(|part| self.objective.evaluate(part)) {
            mean.loss += share * part.loss;
            mean.losses.extend(part.losses);
            mean.gradients.extend(part.gradients.into_iter().map(|gradient| gradient * share));
            match mean.metrics.is_empty() {
                true => mean.metrics = part.metrics.into_iter().map(|(name, value)| (name, share * value)).collect(),
                false => mean.metrics.iter_mut().zip(part.metrics).for_each(|(sum, own)| sum.1 += share * own.1),
            }
        }
        mean
    }

    fn loss_at_reference(&self) -> Option<f64> {
        self.objective.loss_at_reference()
    }
}
