//! A policy beside its reference, and what that says of the training examples.

use super::policy::Policy;
use super::task::Learner;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Llama, Parameters};
use crate::suite::settings::{ObjectiveSettings, TrainSettings};

/// A policy in training against a reference that gives scores of the kind `S`.
pub struct Referenced<S> {
    pub(super) policy: Policy,
    pub(super) reference: Reference<S>,
    /// Whether the policy starts as the reference, so that the first step must see no difference.
    pub(super) starts_at_reference: bool,
}

/// Configuration and weights of policy and reference, adapters aside.
type Models = (String, Digest, String, Digest);

impl<S: Copy> Referenced<S> {
    /// `score`: what the reference says of every example, asked here and once where `settings` want it recorded. Beside it what identifies
    /// the two models.
    ///
    /// # Panics
    /// When the two models differ in their arithmetic.
    pub fn new(
        policy: Llama,
        reference: &Llama,
        settings: &TrainSettings,
        score: impl FnOnce() -> Result<Vec<S>>,
    ) -> Result<(Self, Models)> {
        assert_eq!(policy.numerics, reference.numerics, "policy and reference compute alike");
        let config = |model: &Llama| model.config.causal_json();
        let (policy_digest, reference_digest) = (policy.parameters.digest(), reference.parameters.digest());
        let models = (config(&policy), policy_digest, config(reference), reference_digest);
        let policy = Policy::new(policy, settings);
        let starts_at_reference = policy.starts_as(reference, policy_digest == reference_digest);
        let reference = match settings.objective.precompute_ref_log_probs {
            true => Reference::Recorded(score()?),
            false => Reference::Live(Box::new(reference.clone()), Sync::of(&settings.objective)),
        };
        Ok((Self { policy, reference, starts_at_reference }, models))
    }
}

impl<S: Copy> Learner for Referenced<S> {
    fn parameters(&self) -> &Parameters {
        self.policy.parameters()
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.policy.parameters_mut()
    }

    fn weights_file(&self) -> &'static str {
        self.policy.weights_file()
    }

    fn enter_step(&mut self, seed: u64, step: u64) {
        self.policy.enter_step(seed, step);
    }

    fn leave_step(&mut self) {
        self.policy.leave_step();
    }

    fn may_rest_at_first(&self, tensor: &str) -> bool {
        self.policy.may_rest_at_first(tensor)
    }

    /// The reference follows the policy, if it does and if it is time.
    fn updated(&mut self, step: u64) {
        if let Reference::Live(model, Some(sync)) = &mut self.reference
            && step.is_multiple_of(sync.every)
        {
            sync.mix(self.policy.parameters(), &mut model.parameters);
        }
    }

    fn moving_reference(&self) -> Option<&Parameters> {
        match &self.reference {
            Reference::Live(model, Some(_)) => Some(&model.parameters),
            _ => None,
        }
    }

    fn moving_reference_mut(&mut self) -> Option<&mut Parameters> {
        match &mut self.reference {
            Reference::Live(model, Some(_)) => Some(&mut model.parameters),
            _ => None,
        }
    }
}

/// Its scores of every example, or the model itself, which is then asked at every step: the same bits, as an example's scores don't
/// depend on what is scored beside it.
pub enum Reference<S> {
    Recorded(Vec<S>),
    Live(Box<Llama>, Option<Sync>),
}

impl<S: Copy> Reference<S> {
    /// The scores of some examples, in order; `score` asks the model for them.
    pub fn of(&self, examples: &[usize], score: impl FnOnce(&Llama) -> Vec<S>) -> Vec<S> {
        match self {
            Self::Recorded(all) => examples.iter().map(|&i| all[i]).collect(),
            Self::Live(model, _) => score(model),
        }
    }

    /// Records further scores, which `score` asks for, where they are recorded.
    pub fn extend(&mut self, score: impl FnOnce() -> Result<Vec<S>>) -> Result<()> {
        if let Self::Recorded(all) = self {
            all.extend(score()?);
        }
        Ok(())
    }
}

/// How a reference follows the policy: TR-DPO's soft update (Gorbatovski et al. 2024, arXiv 2404.09656, eq. 5) as TRL does it,
/// π_ref ← α π + (1 − α) π_ref after every so many steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sync {
    alpha: f64,
    every: u64,
}

impl Sync {
    /// None: the reference stays.
    fn of(settings: &ObjectiveSettings) -> Option<Self> {
        let (alpha, every) = (settings.ref_model_mixup_alpha, settings.ref_model_sync_steps);
        settings.sync_ref_model.then_some(Self { alpha, every })
    }

    /// Two products and a sum an element, each rounded: no contraction, so that the bits are those of every machine.
    fn mix(&self, policy: &Parameters, reference: &mut Parameters) {
        let (alpha, rest) = (self.alpha as f32, (1.0 - self.alpha) as f32);
        for ((_, reference), (_, policy)) in reference.iter_mut().zip(policy.iter()) {
            for (r, &p) in reference.values.iter_mut().zip(&policy.values) {
                *r = rest * *r + alpha * p;
            }
        }
    }
}
