//! The two arithmetics seen from outside: what a model computes with stands in it, and nothing changes it on the way.

use crate::model::{Llama, decode, evaluated, fast, trunk};
use crate::suite::settings::Numerics;

/// The state of a forward pass, for reading scores from it and for the backward pass.
pub enum Tape {
    Strict(trunk::Tape),
    Fast(fast::Pass),
}

/// Sequences being continued, one token a step.
pub enum Decoder<'a> {
    Strict(Box<decode::Decoder<'a>>),
    Fast(Box<fast::Decoder>),
    /// Of a model that is evaluated alone.
    Stepper(Box<evaluated::Stepper<'a>>),
}

impl<'a> Decoder<'a> {
    /// Without sequences so far; `begin` brings some.
    ///
    /// # Panics
    /// When the model has an adapter beside it: [`Llama::merged`] costs nothing for each token.
    pub fn of(model: &'a Llama) -> Self {
        assert!(model.adapter.is_none(), "a merged model decodes");
        match model.numerics {
            Numerics::Strict => Self::Strict(Box::new(decode::Decoder::of(model))),
            Numerics::Fast => Self::Fast(Box::new(fast::Decoder::of(&model.config, &model.parameters, &model.head_name()))),
        }
    }

    /// [`Self::of`] that has begun these.
    pub fn new(model: &'a Llama, prompts: &[Vec<u32>]) -> Self {
        let mut decoder = Self::of(model);
        decoder.begin(prompts);
        decoder
    }

    /// Lets go of all sequences and reads these prompts (each at least one token); equal ones are computed once.
    pub fn begin(&mut self, prompts: &[Vec<u32>]) {
        match self {
            Self::Strict(decoder) => decoder.begin(prompts),
            Self::Fast(decoder) => decoder.begin(prompts),
            Self::Stepper(decoder) => decoder.begin(prompts),
        }
    }

    /// (sequences, vocabulary). The rows of sequences that took no part in the last step keep their old values.
    pub fn logits(&self) -> &[f32] {
        match self {
            Self::Strict(decoder) => decoder.logits(),
            Self::Fast(decoder) => decoder.logits(),
            Self::Stepper(decoder) => decoder.logits(),
        }
    }

    /// (sequences, hidden): the last layer's states, after the final norm, that the logits come from; empty but in the strict arithmetic.
    pub fn states(&self) -> &[f32] {
        match self {
            Self::Strict(decoder) => decoder.states(),
            Self::Fast(_) | Self::Stepper(_) => &[],
        }
    }

    /// Number of tokens of a sequence so far.
    pub fn len(&self, sequence: usize) -> usize {
        match self {
            Self::Strict(decoder) => decoder.len(sequence),
            Self::Fast(decoder) => decoder.len(sequence),
            Self::Stepper(decoder) => decoder.len(sequence),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Strict(decoder) => decoder.is_empty(),
            Self::Fast(decoder) => decoder.is_empty(),
            Self::Stepper(decoder) => decoder.is_empty(),
        }
    }

    /// Appends `next[i]` to each sequence i that is `alive` and computes its logits; the others cost nothing, and must stay
    /// left out.
    pub fn step(&mut self, next: &[u32], alive: &[bool]) {
        match self {
            Self::Strict(decoder) => decoder.step(next, alive),
            Self::Fast(decoder) => decoder.step(next, alive),
            Self::Stepper(decoder) => decoder.step(next, alive),
        }
    }
}
