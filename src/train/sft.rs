//! Supervised fine-tuning on demonstrations: the loss counts completion tokens only.

use std::collections::BTreeMap;

use super::objective::{Objective, Sft};
use super::policy::{Policy, with_adapters};
use super::sequence::{Group, PackedGroups, SequenceScore, fit};
use super::task::{BatchLoss, Task};
use crate::data::TokenizedExample;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Gradients, Llama, Parameters, Tape};
use crate::suite::settings::TrainSettings;

pub struct SftTask {
    policy: Policy,
    /// Those to learn from, then the held-out ones.
    examples: Vec<TokenizedExample>,
    held_out: usize,
    identity: Digest,
}

impl SftTask {
    /// `model`: what training starts from. Completions are cut at `max_length`; a prompt that leaves no room is an error.
    pub fn new(model: Llama, examples: &[TokenizedExample], settings: &TrainSettings) -> Result<Self> {
        let mut examples = examples.to_vec();
        for example in &mut examples {
            fit(&model.config, &example.prompt_id, &example.prompt, &mut example.completion, settings.max_length)?;
        }
        let config = model.config.to_json("LlamaForCausalLM");
        let identity = Digest::of_value(&("sft", model.numerics, config, model.parameters.digest(), &examples));
        let identity = with_adapters(identity, &[&model]);
        Ok(Self { policy: Policy::new(model), examples, held_out: 0, identity })
    }

    /// Adds examples that are measured every `eval_steps` and never learnt from; completions are cut as those of the others.
    pub fn with_held_out(mut self, examples: &[TokenizedExample], settings: &TrainSettings) -> Result<Self> {
        let mut examples = examples.to_vec();
        for example in &mut examples {
            fit(&self.policy.model.config, &example.prompt_id, &example.prompt, &mut example.completion, settings.max_length)?;
        }
        self.identity = Digest::of_value(&(self.identity, "held out", &examples));
        self.held_out = examples.len();
        self.examples.extend(examples);
        Ok(self)
    }

    /// The trained model, after `run`.
    pub fn into_model(self) -> Llama {
        self.policy.model
    }
}

impl Task for SftTask {
    type Pass = (PackedGroups, Tape);
    type Output = SequenceScore;
    type Gradient = f64;

    fn identity(&self) -> Digest {
        self.identity
    }

    fn examples(&self) -> usize {
        self.examples.len() - self.held_out
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn example_id(&self, example: usize) -> String {
        self.examples[example].prompt_id.clone()
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

    fn parameters(&self) -> &Parameters {
        self.policy.parameters()
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.policy.parameters_mut()
    }

    fn forward(&self, examples: &[usize]) -> (Self::Pass, Vec<SequenceScore>) {
        let groups = PackedGroups::of(examples.iter().map(|&i| {
            let example = &self.examples[i];
            Group { prompt: &example.prompt, completions: vec![&example.completion] }
        }));
        let tape = self.policy.forward(&groups, examples);
        let outputs = groups.sequences(&self.policy.model.token_scores(&tape, &groups.targets));
        ((groups, tape), outputs)
    }

    fn loss(&self, examples: &[usize], outputs: &[SequenceScore]) -> BatchLoss<f64> {
        let logps: Vec<(f64, usize)> = outputs.iter().map(|s| (s.logp, s.tokens)).collect();
        let result = Sft.evaluate(&logps);
        let completion_tokens: usize = outputs.iter().map(|s| s.tokens).sum();
        let entropy = outputs.iter().map(|s| s.entropy).sum::<f64>() / completion_tokens as f64;
        let prompt_tokens: usize = examples.iter().map(|&i| self.examples[i].prompt.len()).sum();
        BatchLoss {
            loss: result.loss,
            losses: result.losses,
            gradients: result.gradients,
            tokens: (prompt_tokens + completion_tokens) as u64,
            metrics: BTreeMap::from([("entropy".to_owned(), entropy)]),
        }
    }

    fn backward(&self, (groups, tape): Self::Pass, _: &[usize], gradients: &[f64], grads: &mut Gradients) {
        let dlogps = groups.spread(gradients.iter().copied());
        self.policy.model.backward(tape, &groups.packed, &groups.targets, &dlogps, grads);
    }
}
