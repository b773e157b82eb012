//! Implicit rewards, as logs show them.

use super::SequenceLogps;
use crate::suite::settings::{LossType, ObjectiveSettings};

/// β times the log-ratio to the reference, whatever the loss. Of losses without a reference: β times the policy's
/// log-probability, per token where the loss takes it so, as TRL's trainers for them log it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reward {
    beta: f64,
    reference: bool,
    per_token: bool,
}

impl Reward {
    pub fn of(o: &ObjectiveSettings) -> Self {
        let free = o.loss_type.iter().find(|loss| loss.is_reference_free());
        let on_ratios = o.loss_type.iter().any(|loss| !loss.is_reference_free() && *loss != LossType::Sft);
        Self { beta: o.beta, reference: free.is_none() || on_ratios, per_token: free.is_some_and(|&loss| loss != LossType::Cpo) }
    }

    pub fn at(&self, side: &SequenceLogps) -> f64 {
        match (self.reference, self.per_token) {
            (true, _) => self.beta * side.log_ratio(),
            (false, true) => self.beta * side.policy / side.tokens as f64,
            (false, false) => self.beta * side.policy,
        }
    }
}
