//! A model in training as tasks see it: what of it is trained, what identifies it, and where it stands among optimizer steps.

use super::sequence::PackedGroups;
use super::task::Learner;
use crate::digest::Digest;
use crate::model::{Adapter, Llama, Parameters, Tape};
use crate::rng::Stream;

/// The trained model. An adapter's dropout is on in the passes of optimizer steps and nowhere else.
pub struct Policy {
    pub(super) model: Llama,
    /// The state that the step's masks are derived from; none outside of steps and without dropout.
    step: Option<u64>,
}

impl Policy {
    pub(super) fn new(model: Llama) -> Self {
        Self { model, step: None }
    }

    /// The forward pass of these examples for a backward one.
    pub(super) fn forward(&self, groups: &PackedGroups, examples: &[usize]) -> Tape {
        match self.step {
            None => self.model.forward(&groups.packed, &groups.targets),
            Some(step) => {
                let states = groups.dropout_states(step, examples);
                self.model.forward_under_dropout(&groups.packed, &groups.targets, states)
            }
        }
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
        same_path && model.config == reference.config && same_weights
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
        self.step = drops.then(|| Stream::of(seed, "train/lora_dropout", step).next_u64());
    }

    fn leave_step(&mut self) {
        self.step = None;
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
