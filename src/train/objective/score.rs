//! Losses that are a mean over pairs of a function of the two sides' scores, and what those scores are.

use super::divergence::Divergence;
use super::{Evaluation, Objective, PairGradient, PairLogps, SequenceGradient, SequenceLogps};
use crate::suite::settings::ObjectiveSettings;

/// A loss of one pair and its slopes along the two scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PairValue {
    pub loss: f64,
    pub chosen: f64,
    pub rejected: f64,
}

impl PairValue {
    /// Of a loss of the difference chosen − rejected, from its slope along it.
    pub fn of_difference(loss: f64, slope: f64) -> Self {
        Self { loss, chosen: slope, rejected: -slope }
    }
}

/// A loss of one pair as a function of its scores.
pub(super) trait PairLoss: Send + Sync {
    fn at(&self, chosen: f64, rejected: f64) -> PairValue;
}

/// What stands for a completion in a `PairLoss`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    /// Without a reference it is the policy's log-probability.
    reference: bool,
    divergence: Divergence,
    /// Divided by the number of tokens.
    per_token: bool,
    /// R-DPO (Park et al. 2024, arXiv 2403.19159, eq. 9) adds α|y_w| − α|y_l| to β times the margin; this is α/β.
    per_length: f64,
    /// DPOP (Pal et al. 2024, arXiv 2402.13228, eq. 3) lowers the chosen score by λ max(0, log π_ref − log π).
    fall: f64,
}

impl Score {
    /// The log-ratio, seen through the divergence.
    pub fn of_ratios(o: &ObjectiveSettings) -> Self {
        Self { reference: true, divergence: Divergence::of(o), per_token: false, per_length: 0.0, fall: 0.0 }
    }

    /// The policy's log-probability.
    pub fn of_policy() -> Self {
        Self { reference: false, divergence: Divergence::ReverseKl, per_token: false, per_length: 0.0, fall: 0.0 }
    }

    pub fn per_token(self) -> Self {
        Self { per_token: true, ..self }
    }

    /// With R-DPO's and DPOP's terms.
    pub fn with_terms(self, o: &ObjectiveSettings) -> Self {
        Self { per_length: o.rdpo_alpha / o.beta, fall: o.dpop_lambda, ..self }
    }

    /// The score of a rejected side, and its derivative along the policy's log-probability.
    fn rejected(&self, side: &SequenceLogps) -> (f64, f64) {
        let (score, slope) = match self.reference {
            true => self.divergence.score(side.log_ratio()),
            false => (side.policy, 1.0),
        };
        let tokens = side.tokens as f64;
        let scale = if self.per_token { 1.0 / tokens } else { 1.0 };
        (score * scale + self.per_length * tokens, slope * scale)
    }

    fn chosen(&self, side: &SequenceLogps) -> (f64, f64) {
        let (score, slope) = self.rejected(side);
        let fall = (-side.log_ratio()).max(0.0);
        if self.fall > 0.0 && fall > 0.0 { (score - self.fall * fall, slope + self.fall) } else { (score, slope) }
    }
}

/// The mean over pairs of a loss of their scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Separable<L> {
    pub score: Score,
    pub loss: L,
}

impl<L: PairLoss> Objective for Separable<L> {
    type Example = PairLogps;
    type Gradient = PairGradient;

    fn evaluate(&self, batch: &[PairLogps]) -> Evaluation<PairGradient> {
        let n = batch.len() as f64;
        let mut losses = Vec::with_capacity(batch.len());
        let mut gradients = Vec::with_capacity(batch.len());
        for pair in batch {
            let (chosen, chosen_slope) = self.score.chosen(&pair.chosen);
            let (rejected, rejected_slope) = self.score.rejected(&pair.rejected);
            let value = self.loss.at(chosen, rejected);
            losses.push(value.loss);
            gradients.push(PairGradient {
                chosen: SequenceGradient::policy(value.chosen * chosen_slope / n),
                rejected: SequenceGradient::policy(value.rejected * rejected_slope / n),
                prompt: 0.0,
            });
        }
        Evaluation { loss: losses.iter().sum::<f64>() / n, losses, gradients, metrics: Vec::new() }
    }

    /// There every score is 0, unless lengths count.
    fn loss_at_reference(&self) -> Option<f64> {
        (self.score.reference && self.score.per_length == 0.0).then(|| self.loss.at(0.0, 0.0).loss)
    }
}
