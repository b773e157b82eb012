//! What the reference says of the training examples.

use crate::model::{Llama, Parameters};
use crate::suite::settings::ObjectiveSettings;

/// Its scores of every example, or the model itself, which is then asked at every step: the same bits, as an example's scores don't
/// depend on what is scored beside it.
pub(super) enum Reference<S> {
    Recorded(Vec<S>),
    Live(Box<Llama>, Option<Sync>),
}

impl<S: Copy> Reference<S> {
    pub fn live(model: &Llama, settings: &ObjectiveSettings) -> Self {
        Self::Live(Box::new(model.clone()), Sync::of(settings))
    }

    /// The scores of some examples, in order; `score` asks the model for them.
    pub fn of(&self, examples: &[usize], score: impl FnOnce(&Llama) -> Vec<S>) -> Vec<S> {
        match self {
            Self::Recorded(all) => examples.iter().map(|&i| all[i]).collect(),
            Self::Live(model, _) => score(model),
        }
    }

    /// Follows the policy, if it does and if it is time.
    pub fn updated(&mut self, policy: &Parameters, step: u64) {
        if let Self::Live(model, Some(sync)) = self
            && step.is_multiple_of(sync.every)
        {
            sync.mix(policy, &mut model.parameters);
        }
    }

    /// Its weights, if they move.
    pub fn moving(&self) -> Option<&Parameters> {
        match self {
            Self::Live(model, Some(_)) => Some(&model.parameters),
            _ => None,
        }
    }

    pub fn moving_mut(&mut self) -> Option<&mut Parameters> {
        match self {
            Self::Live(model, Some(_)) => Some(&mut model.parameters),
            _ => None,
        }
    }
}

/// How a reference follows the policy: TR-DPO's soft update (Gorbatovski et al. 2024, arXiv 2404.09656, eq. 5) as TRL does it,
/// π_ref ← α π + (1 − α) π_ref after every so many steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sync {
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
