//! Supervised fine-tuning on demonstrations: the loss counts completion tokens only.

use std::collections::BTreeMap;

use super::objective::{Objective, Sft};
use super::packing::bins;
use super::policy::{Policy, with_adapters};
use super::sequence::{Group, PackedGroups, SequenceScore, fit};
use super::task::{BatchLoss, Task};
use crate::data::TokenizedExample;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Gradients, Llama, Tape};
use crate::suite::settings::TrainSettings;

/// What the loop calls an example is a bin of them: one demonstration, or with `packing` as many as fit into `max_length` tokens.
pub struct SftTask {
    policy: Policy,
    examples: Vec<TokenizedExample>,
    /// Numbers of `examples`: the bins to learn from, then the held-out examples, each alone.
    bins: Vec<Vec<usize>>,
    held_out: usize,
    identity: Digest,
}

impl SftTask {
    /// `model`: what training starts from. Completions are cut at `max_length`; a prompt that leaves no room is an error.
    ///
    /// # Panics
    /// With `packing` and without `max_length`.
    pub fn new(model: Llama, examples: &[TokenizedExample], settings: &TrainSettings) -> Result<Self> {
        let mut examples = examples.to_vec();
        for example in &mut examples {
            fit(&model.config, &example.prompt_id, &example.prompt, &mut example.completion, settings.max_length)?;
        }
        let bins = match settings.packing {
            true => {
                let lengths: Vec<usize> = examples.iter().map(|e| e.prompt.len() + e.completion.len()).collect();
                bins(&lengths, settings.max_length.expect("bins have a size"))
            }
            false => (0..examples.len()).map(|i| vec![i]).collect(),
        };
        let config = model.config.to_json("LlamaForCausalLM");
        let identity = Digest::of_value(&("sft", model.numerics, config, model.parameters.digest(), &examples));
        let identity = with_adapters(identity, &[&model]);
        Ok(Self { policy: Policy::new(model), examples, bins, held_out: 0, identity })
    }

    /// Adds examples that are measured every `eval_steps` and never learnt from; completions are cut as those of the others. They are
    /// measured as one batch, so that packing them would change nothing.
    pub fn with_held_out(mut self, examples: &[TokenizedExample], settings: &TrainSettings) -> Result<Self> {
        let mut examples = examples.to_vec();
        for example in &mut examples {
            fit(&self.policy.model.config, &example.prompt_id, &example.prompt, &mut example.completion, settings.max_length)?;
        }
        self.identity = Digest::of_value(&(self.identity, "held out", &examples));
        self.held_out = examples.len();
        self.bins.extend((0..examples.len()).map(|i| vec![self.examples.len() + i]));
        self.examples.extend(examples);
        Ok(self)
    }

    /// The examples of some bins, in order.
    fn of_bins<'a>(&'a self, bins: &'a [usize]) -> impl Iterator<Item = &'a TokenizedExample> {
        bins.iter().flat_map(|&bin| &self.bins[bin]).map(|&i| &self.examples[i])
    }

    /// The trained model, after `run`.
    pub fn into_model(self) -> Llama {
        self.policy.model
    }
}

impl Task for SftTask {
    type Learner = Policy;
    type Pass = (PackedGroups, Tape);
    type Output = Vec<SequenceScore>;
    type Gradient = Vec<f64>;

    fn learner(&self) -> &Self::Learner {
        &self.policy
    }

    fn learner_mut(&mut self) -> &mut Self::Learner {
        &mut self.policy
    }

    fn identity(&self) -> Digest {
        self.identity
    }

    fn examples(&self) -> usize {
        self.bins.len() - self.held_out
    }

    fn held_out(&self) -> usize {
        self.held_out
    }

    fn example_id(&self, example: usize) -> String {
        let ids: Vec<&str> = self.bins[example].iter().map(|&i| self.examples[i].prompt_id.as_str()).collect();
        ids.join(" + ")
    }

    fn forward(&self, bins: &[usize]) -> (Self::Pass, Vec<Vec<SequenceScore>>) {
        let examples: Vec<usize> = bins.iter().flat_map(|&bin| &self.bins[bin]).copied().collect();
        let groups = self.of_bins(bins).map(|e| Group { prompt: &e.prompt, completions: vec![&e.completion] });
        let groups = PackedGroups::of(groups);
        let tape = self.policy.forward(&groups, &examples);
        let mut scores = groups.sequences(&self.policy.model.token_scores(&tape, &groups.targets)).into_iter();
        let outputs = bins.iter().map(|&bin| scores.by_ref().take(self.bins[bin].len()).collect()).collect();
        ((groups, tape), outputs)
    }

    fn loss(&self, bins: &[usize], outputs: &[Vec<SequenceScore>]) -> BatchLoss<Vec<f64>> {
        let logps: Vec<(f64, usize)> = outputs.iter().flatten().map(|s| (s.logp, s.tokens)).collect();
        let result = Sft.evaluate(&logps);
        let completion_tokens: usize = outputs.iter().flatten().map(|s| s.tokens).sum();
        let entropy = outputs.iter().flatten().map(|s| s.entropy).sum::<f64>() / completion_tokens as f64;
        let prompt_tokens: usize = self.of_bins(bins).map(|e| e.prompt.len()).sum();
        let (mut losses, mut gradients) = (result.losses.into_iter(), result.gradients.into_iter());
        BatchLoss {
            loss: result.loss,
            losses: outputs.iter().map(|bin| losses.by_ref().take(bin.len()).sum()).collect(),
            gradients: outputs.iter().map(|bin| gradients.by_ref().take(bin.len()).collect()).collect(),
            tokens: (prompt_tokens + completion_tokens) as u64,
            metrics: BTreeMap::from([("entropy".to_owned(), entropy)]),
        }
    }

    fn backward(&self, (groups, tape): Self::Pass, _: &[usize], gradients: &[Vec<f64>], grads: &mut Gradients) {
        let dlogps = groups.spread(gradients.iter().flatten().copied());
        self.policy.model.backward(tape, &groups.packed, &groups.targets, &dlogps, grads);
    }
}
