//! What the loop trains: the seams between "how steps go" (`run`), "what is trained" (`Learner`) and "what is learnt" (`Task`: SFT,
//! preferences, judges).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::metrics::Metrics;
use super::objective::Evaluation;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Gradients, Parameters};

/// What is trained: tensors, and where they stand among optimizer steps.
pub trait Learner {
    fn parameters(&self) -> &Parameters;

    fn parameters_mut(&mut self) -> &mut Parameters;

    /// What of them a checkpoint keeps: all but what only training needs.
    fn kept(&self) -> Cow<'_, Parameters> {
        Cow::Borrowed(self.parameters())
    }

    /// The file name of the weights in a checkpoint.
    fn weights_file(&self) -> &'static str {
        "model.safetensors"
    }

    /// The passes from here to `leave_step` are those of optimizer step `step`, from 1: what is random in a pass is addressed by both
    /// numbers. Outside of steps nothing is random.
    fn enter_step(&mut self, _seed: u64, _step: u64) {}

    fn leave_step(&mut self) {}

    /// Whether the gradient of a tensor is zero at the first step by the model's definition.
    fn may_rest_at_first(&self, _tensor: &str) -> bool {
        false
    }

    /// Called after the update that ends `step`, from 1.
    fn updated(&mut self, _step: u64) {}

    /// Weights beside `parameters` that move during training: a reference that follows the policy. They are part of the resume state.
    fn moving_reference(&self) -> Option<&Parameters> {
        None
    }

    fn moving_reference_mut(&mut self) -> Option<&mut Parameters> {
        None
    }
}

/// Tensors and nothing else.
impl Learner for Parameters {
    fn parameters(&self) -> &Parameters {
        self
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self
    }
}

/// A learner with its examples and its loss. The loop calls, for every optimizer batch,
///
/// 1. `forward` on each micro-batch, in order, for the examples' outputs (log-probabilities, scores);
/// 2. `loss` once, on the outputs of the whole batch: objectives may couple examples;
/// 3. `backward` on each micro-batch, in order, which adds to the gradients.
///
/// If a micro-batch is not the whole batch, its `forward` runs a second time before its `backward` rather than keeping
/// every micro-batch's activations. Results don't depend on the split, provided that an example's output has the same
/// bits in any batch, and that `backward` carries the sums over examples on in example order (NUMERICS 2 and 5).
pub trait Task {
    type Learner: Learner;
    /// What `forward` keeps for `backward`: activations, the packed batch.
    type Pass;
    /// What the model says on one example.
    type Output;
    /// d(batch loss) / d(output) of one example.
    type Gradient;

    fn learner(&self) -> &Self::Learner;

    fn learner_mut(&mut self) -> &mut Self::Learner;

    /// Whatever else determines the result, beside the training settings and the seed: data, initial weights, frozen
    /// models. A run resumes only from a state of the same identity.
    fn identity(&self) -> Digest;

    /// How many training examples there are.
    fn examples(&self) -> usize;

    /// How many held-out examples there are: the indices from `examples()` on. They are measured and never learnt from.
    fn held_out(&self) -> usize {
        0
    }

    /// How error messages call an example.
    fn example_id(&self, example: usize) -> String;

    /// Called before optimizer step `step`, from 1, with its examples: what the policy of this moment writes for them, say. Returns
    /// metrics of the step.
    fn begin(&mut self, _seed: u64, _step: u64, _batch: &[usize]) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }

    /// How many updates a step makes; each has a part of the batch, see [`Self::part`].
    fn updates(&self) -> usize {
        1
    }

    /// The examples of an update, from 0, of step `step`.
    fn part(&self, _seed: u64, _step: u64, _update: usize, batch: &[usize]) -> Vec<usize> {
        batch.to_vec()
    }

    /// `examples`: indices into the training set. Returns one output an example, in order.
    fn forward(&self, examples: &[usize]) -> (Self::Pass, Vec<Self::Output>);

    /// The loss of the whole optimizer batch.
    fn loss(&self, examples: &[usize], outputs: &[Self::Output]) -> BatchLoss<Self::Gradient>;

    /// Loss and metrics of all held-out examples as one batch, whatever batches the training has.
    fn held_out_loss(&self, examples: &[usize], outputs: &[Self::Output]) -> BatchLoss<Self::Gradient> {
        self.loss(examples, outputs)
    }

    /// Adds d(loss)/d(parameters) of a micro-batch to `grads`, which has the shapes of the learner's parameters.
    fn backward(&self, pass: Self::Pass, examples: &[usize], gradients: &[Self::Gradient], grads: &mut Gradients);

    /// Whether the loss doesn't depend on a tensor of the learner by its definition: its gradient is then zero.
    fn is_free_of(&self, _tensor: &str) -> bool {
        false
    }

    /// `last`: the step before the next one. Called after every step and when a run resumes: what the objective keeps of earlier batches
    /// stands in the steps' metrics.
    fn recall(&mut self, _last: &Metrics) {}

    /// Called once, before the first update, on its examples: what must hold then (the loss is a known constant, the policy equals the
    /// reference bit for bit, …) is an error if it doesn't. The loop itself checks that every tensor got a gradient.
    fn check_first_step(&self, _examples: &[usize], _outputs: &[Self::Output], _loss: f64) -> Result<()> {
        Ok(())
    }
}

/// What a task makes of an optimizer batch. Means are binary64, in example order.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLoss<G> {
    /// nats
    pub loss: f64,
    /// One an example, to find the example that went wrong.
    pub losses: Vec<f64>,
    pub gradients: Vec<G>,
    /// Tokens of the batch, counted as TRL does: every sequence with its prompt.
    pub tokens: u64,
    /// Further metrics under TRL's names (`rewards/margins`, `entropy`, …).
    pub metrics: BTreeMap<String, f64>,
}

impl<G> BatchLoss<G> {
    /// From what an objective made of the batch, and what was measured beside it.
    pub(super) fn of(result: Evaluation<G>, tokens: usize, mut metrics: BTreeMap<String, f64>) -> Self {
        metrics.extend(result.metrics.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Self { loss: result.loss, losses: result.losses, gradients: result.gradients, tokens: tokens as u64, metrics }
    }
}
