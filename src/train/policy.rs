//! A model in training as tasks see it: what of it is trained, what identifies it, and where it stands among optimizer steps.

use super::sequence::PackedGroups;
use super::task::Learner;
use crate::digest::Digest;
use crate::model::{Adapter, Llama, Parameters, Tape};
use crate::rng::Stream;
use crate::suite::settings::TrainSettings;

/// The trained model. Dropout is on in the passes of optimizer steps and nowhere else.
pub struct Policy {
    pub(super) model: Llama,
    /// Share of what attention and MLP add to the residual stream that a step drops.
    resid_pdrop: f64,
    /// The states that a step's masks are derived from, of the adapter and of the residual stream; none outside of steps and without dropout.
    step: [Option<u64>; 2],
}

impl Policy {
    pub(super) fn new(model: Llama, settings: &TrainSettings) -> Self {
        let model = Llama { recomputes: settings.gradient_checkpointing, ..model };
        Self { model, resid_pdrop: settings.resid_pdrop, step: [None; 2] }
    }

    /// The forward pass of these examples for a backward one.
    pub(super) fn forward(&self, groups: &PackedGroups, examples: &[usize]) -> Tape {
        if self.step == [None; 2] {
            return self.model.forward(&groups.packed, &groups.targets);
        }
        let [adapter, residual] = self.step.map(|step| step.map(|step| groups.dropout_states(step, examples)));
        let residual = residual.map(|states| (self.resid_pdrop, states));
        self.model.forward_under_dropout(&groups.packed, &groups.targets, adapter, residual)
    }

    /// Whether it starts as `reference` and computes as it in the first step. `same_weights`: of the two, adapters aside.
    pub(super) fn starts_as(&self, reference: &Llama, same_weights: bool) -> bool {
        let model = &self.model;
        let same_path = match (&model.adapter, &reference.adapter) {
            (None, None) => true,
            (Some(own), None) => own.is_neutral(),
            (Some(own), Some(other)) => {
                own.settings.lora_dropout == 0.0 && own.parameters == other.parameters && own.scales_as(other)
            }
            (None, Some(_)) => false,
        };
        same_path && self.resid_pdrop == 0.0 && model.config == reference.config && same_weights
    }
}

impl Learner for Policy {
    fn parameters(&self) -> &Parameters {
        self.model.trained()
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.model.trained_mut()
    }

    fn weights_file(&self) -> &'static str {
        if self.model.adapter.is_some() { Adapter::WEIGHTS } else { "model.safetensors" }
    }

    /// While an adapter's B is zero, nothing reaches its A.
    fn may_rest_at_first(&self, tensor: &str) -> bool {
        self.model.adapter.as_ref().is_some_and(Adapter::is_neutral) && tensor.contains("lora_A")
    }

    fn enter_step(&mut self, seed: u64, step: u64) {
        let drops = self.model.adapter.as_ref().is_some_and(|adapter| adapter.settings.lora_dropout > 0.0);
        let state = |drops: bool, purpose| drops.then(|| Stream::of(seed, purpose, step).next_u64());
        self.step = [state(drops, "train/lora_dropout"), state(self.resid_pdrop > 0.0, "train/resid_dropout")];
    }

    fn leave_step(&mut self) {
        self.step = [None; 2];
    }
}

/// `identity` of a task with models that may have adapters: unchanged where none has.
pub(super) fn with_adapters(identity: Digest, models: &[&Llama]) -> Digest {
    let adapters: Vec<_> = models.iter().map(|m| m.adapter.as_ref().map(|a| (&a.settings, a.parameters.digest()))).collect();
    match adapters.iter().all(Option::is_none) {
        true => identity,
        false => Digest::of_value(&(identity, adapters)),
    }
}
