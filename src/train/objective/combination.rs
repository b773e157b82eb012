//! Several objectives at once.

use std::collections::BTreeMap;

use super::{Evaluation, Gradient, Objective};

/// Σ weight · loss. MPO (Wang et al. 2024, arXiv 2411.10442, eq. 2) is `["sigmoid", "bco_pair", "sft"]` with 0.8, 0.2 and 1.
pub(super) struct Combination<E, G> {
    /// At least one.
    pub terms: Vec<(f64, Box<dyn Objective<Example = E, Gradient = G>>)>,
}

impl<E, G: Gradient> Objective for Combination<E, G> {
    type Example = E;
    type Gradient = G;

    fn evaluate(&self, batch: &[E]) -> Evaluation<G> {
        let mut sum = Evaluation {
            loss: 0.0,
            losses: vec![0.0; batch.len()],
            gradients: vec![G::default(); batch.len()],
            metrics: Vec::new(),
        };
        for (weight, objective) in &self.terms {
            let term = objective.evaluate(batch);
            sum.loss += weight * term.loss;
            sum.losses.iter_mut().zip(term.losses).for_each(|(all, own)| *all += weight * own);
            sum.gradients.iter_mut().zip(term.gradients).for_each(|(all, own)| *all = *all + own * *weight);
            sum.metrics.extend(term.metrics);
        }
        sum
    }

    fn loss_at_reference(&self) -> Option<f64> {
        self.terms.iter().map(|(weight, objective)| objective.loss_at_reference().map(|loss| weight * loss)).sum()
    }

    fn recall(&mut self, metrics: &BTreeMap<String, f64>) {
        self.terms.iter_mut().for_each(|(_, objective)| objective.recall(metrics));
    }
}
