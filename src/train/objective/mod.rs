//! Objectives: log-probabilities of a whole optimizer batch in, losses and their gradients out, all in binary64.
//!
//! An objective sees the optimizer batch undivided, so one that couples its examples (a sort over the batch, a mean KL)
//! doesn't depend on the micro-batch split. It returns the gradient of the *batch* loss with respect to each policy
//! log-probability: how examples are weighed into the batch loss is the objective's own affair.

mod sft;
mod sigmoid;

pub use sft::Sft;
pub use sigmoid::Sigmoid;

use crate::error::{Error, Result};
use crate::suite::settings::{LossType, TrainSettings};

/// One completion: its log-probabilities given the prompt, summed over its tokens, nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequenceLogps {
    pub policy: f64,
    pub reference: f64,
    /// Tokens of the completion.
    pub tokens: usize,
}

impl SequenceLogps {
    /// log π(y|x) − log π_ref(y|x): the implicit reward over β (Rafailov et al. 2023, eq. 5, without the partition function).
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLogps {
    pub chosen: SequenceLogps,
    pub rejected: SequenceLogps,
}

impl PairLogps {
    /// Log-ratio of chosen minus log-ratio of rejected, nats; β times it is the implicit reward margin.
    pub fn margin(&self) -> f64 {
        self.chosen.log_ratio() - self.rejected.log_ratio()
    }
}

/// d(batch loss) / d(policy log-probability) of the two sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairGradient {
    pub chosen: f64,
    pub rejected: f64,
}

/// What an objective makes of an optimizer batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation<G> {
    /// The loss of the batch, nats.
    pub loss: f64,
    /// The part of each example, before it is weighed into the batch loss.
    pub losses: Vec<f64>,
    /// Of the batch loss, one an example.
    pub gradients: Vec<G>,
}

/// A training objective over examples of one shape: pairs, or single completions.
pub trait Objective: Send + Sync {
    type Example;
    type Gradient;

    /// `batch`: the whole optimizer batch, in batch order, at least one example.
    fn evaluate(&self, batch: &[Self::Example]) -> Evaluation<Self::Gradient>;

    /// The loss where the policy equals the reference, if it is a constant.
    fn loss_at_reference(&self) -> Option<f64>;
}

pub type PairObjective = Box<dyn Objective<Example = PairLogps, Gradient = PairGradient>>;

/// The objective over pairs that `loss_type` names.
pub fn paired(settings: &TrainSettings) -> Result<PairObjective> {
    match settings.loss_type {
        LossType::Sigmoid => Ok(Box::new(Sigmoid::new(settings.beta, settings.label_smoothing)?)),
        LossType::Sft => Err(Error::usage("loss_type \"sft\" learns from demonstrations, not from preference pairs")
            .help("use loss_type = \"sigmoid\" for preference training")),
    }
}

/// log(1 + eˣ), without overflow. −log σ(x) = softplus(−x).
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// 1 / (1 + e⁻ˣ), without overflow.
pub(crate) fn logistic(x: f64) -> f64 {
    let small = libm::exp(-x.abs());
    if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;

    /// `../shared/reference/losses/pairs.json`, where it is there.
    fn golden() -> Option<Value> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference/losses/pairs.json");
        match std::fs::read_to_string(path) {
            Ok(text) => Some(serde_json::from_str(&text).unwrap()),
            Err(_) => {
                eprintln!("skipped: {path} isn't there");
                None
            }
        }
    }

    fn pairs(golden: &Value) -> Vec<PairLogps> {
        let side = |pair: &Value, s: &str| SequenceLogps {
            policy: pair[format!("pi_{s}")].as_f64().unwrap(),
            reference: pair[format!("ref_{s}")].as_f64().unwrap(),
            tokens: pair[format!("len_{s}")].as_u64().unwrap() as usize,
        };
        let rows = golden["inputs"]["pairs"].as_array().unwrap();
        rows.iter().map(|p| PairLogps { chosen: side(p, "w"), rejected: side(p, "l") }).collect()
    }

    fn assert_close(found: &[f64], expected: &Value, what: &str) {
        let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(found.len(), expected.len(), "{what}");
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-12, "{what}: {f} but {e}");
        }
    }

    /// Holds an objective against the recorded losses and gradients of `variant`, within 1e-12.
    pub(crate) fn agrees_with_golden<O>(objective: &O, variant: &str)
    where
        O: Objective<Example = PairLogps, Gradient = PairGradient> + ?Sized,
    {
        let Some(golden) = golden() else { return };
        let expected = &golden["losses"][variant];
        let found = objective.evaluate(&pairs(&golden));
        assert_close(&found.losses, &expected["per_item"], variant);
        assert!((found.loss - expected["mean"].as_f64().unwrap()).abs() <= 1e-12, "{variant}: {}", found.loss);
        let gradients: Vec<f64> = found.gradients.iter().flat_map(|g| [g.chosen, g.rejected]).collect();
        assert_close(&gradients, &expected["grad_mean_wrt_[pi_w0,pi_l0,pi_w1,...]"], variant);
    }

    #[test]
    fn softplus_and_logistic_hold_at_the_ends() {
        assert_eq!(softplus(1e4), 1e4);
        assert_eq!(softplus(-1e4), 0.0);
        assert_eq!((logistic(1e4), logistic(-1e4), logistic(0.0)), (1.0, 0.0, 0.5));
        assert!(logistic(f64::NAN).is_nan() && softplus(f64::NAN).is_nan());
    }
}
