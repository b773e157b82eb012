//! Supervised fine-tuning on demonstrations: the loss counts completion tokens only.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objective::{Objective, Sft};
use super::packing::{self, Part};
use super::policy::{Policy, with_adapters};
use super::sequence::{Group, PackedGroups, SequenceScore, check, fit, not_empty};
use super::task::{BatchLoss, Task};
use crate::data::TokenizedExample;
use crate::data::shelf::Shelf;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Gradients, Llama, LlamaConfig, Tape};
use crate::suite::settings::{PackingStrategy, TrainSettings};

/// What the loop calls an example is a bin: one demonstration, or with `packing` what `packing_strategy` puts into `max_length` tokens.
pub struct SftTask {
    policy: Policy,
    sequences: Shelf<Sequence>,
    /// Numbers of `sequences`: the bins to learn from, then the held-out demonstrations, each alone.
    bins: Vec<Vec<usize>>,
    held_out: usize,
    identity: Digest,
}

/// Tokens that see each other and nothing else.
#[derive(Clone, Serialize, Deserialize)]
struct Sequence {
    id: String,
    /// All before the first token that is learnt.
    prompt: Vec<u32>,
    /// The tokens from there on, and which of them are learnt: of a part of a demonstration there may be none.
    completion: Vec<u32>,
    learnt: Vec<bool>,
}

impl Sequence {
    /// One after another. As in TRL a sequence's first token is never learnt, also where it is one of a completion.
    fn of(parts: &[Part], examples: &Shelf<TokenizedExample>) -> Self {
        let (mut ids, mut tokens, mut learnt): (Vec<String>, Vec<u32>, Vec<bool>) = Default::default();
        for part in parts {
            let example = examples.get(part.sequence);
            ids.push(example.prompt_id.clone());
            tokens.extend(&[&example.prompt[..], &example.completion].concat()[part.tokens.clone()]);
            learnt.extend(part.tokens.clone().map(|place| place >= example.prompt.len()));
        }
        learnt[0] = false;
        let first = learnt.iter().position(|learnt| *learnt).unwrap_or(learnt.len());
        let (completion, learnt) = (tokens.split_off(first), learnt.split_off(first));
        Self { id: ids.join(" + "), prompt: tokens, completion, learnt }
    }

    fn alone(example: &TokenizedExample) -> Self {
        Self {
            id: example.prompt_id.clone(),
            prompt: example.prompt.clone(),
            completion: example.completion.clone(),
            learnt: vec![true; example.completion.len()],
        }
    }

    fn teaches(&self) -> bool {
        !self.completion.is_empty()
    }

    fn tokens(&self) -> usize {
        self.prompt.len() + self.completion.len()
    }
}

impl SftTask {
    /// `model`: what training starts from. Completions are cut at `max_length`, and a prompt that leaves no room is an error; demonstrations
    /// that `packing_strategy` splits are not cut.
    ///
    /// # Panics
    /// With `packing` and without `max_length`.
    pub fn new(model: Llama, examples: impl Into<Shelf<TokenizedExample>>, settings: &TrainSettings) -> Result<Self> {
        let splits = settings.packing && settings.packing_strategy != PackingStrategy::Bfd;
        let examples = examples.into();
        let examples = if splits { whole(examples)? } else { cut(&model.config, &examples, settings.max_length)? };
        let (sequences, bins) = match settings.packing {
            true => packed(&examples, settings.packing_strategy, settings.max_length.expect("bins have a size"))?,
            false => (alone(&examples)?, (0..examples.len()).map(|i| vec![i]).collect()),
        };
        for sequence in sequences.iter().filter(|_| splits) {
            check(&model.config, &sequence.id, &[&sequence.prompt[..], &sequence.completion].concat())?;
        }
        let config = model.config.causal_json();
        let identity = Digest::of_value(&("sft", model.numerics, config, model.parameters.digest(), examples.digest()));
        let identity = with_adapters(identity, &[&model]);
        Ok(Self { policy: Policy::new(model, settings), sequences, bins, held_out: 0, identity })
    }

    /// Adds examples that are measured every `eval_steps` and never learnt from; completions are cut at `max_length`. They are measured as
    /// one batch and never packed.
    pub fn with_held_out(mut self, examples: impl Into<Shelf<TokenizedExample>>, settings: &TrainSettings) -> Result<Self> {
        let examples = cut(&self.policy.model.config, &examples.into(), settings.max_length)?;
        self.identity = Digest::of_value(&(self.identity, "held out", examples.digest()));
        self.held_out = examples.len();
        self.bins.extend((0..examples.len()).map(|i| vec![self.sequences.len() + i]));
        self.sequences.extend(&alone(&examples)?)?;
        Ok(self)
    }

    /// The sequences of some bins, in order.
    fn of_bins<'a>(&'a self, bins: &'a [usize]) -> impl Iterator<Item = Cow<'a, Sequence>> {
        bins.iter().flat_map(|&bin| &self.bins[bin]).map(|&i| self.sequences.get(i))
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
        let ids: Vec<String> = self.of_bins(&[example]).map(|sequence| sequence.id.clone()).collect();
        ids.join(" + ")
    }

    fn forward(&self, bins: &[usize]) -> (Self::Pass, Vec<Vec<SequenceScore>>) {
        let teaching = |&bin: &usize| -> Vec<(usize, Cow<'_, Sequence>)> {
            self.bins[bin].iter().map(|&i| (i, self.sequences.get(i))).filter(|(_, s)| s.teaches()).collect()
        };
        let of_bins: Vec<Vec<(usize, Cow<'_, Sequence>)>> = bins.iter().map(teaching).collect();
        let numbers: Vec<usize> = of_bins.iter().flatten().map(|(i, _)| *i).collect();
        let sequences = || of_bins.iter().flatten().map(|(_, sequence)| sequence);
        let groups = PackedGroups::of(sequences().map(|s| Group { prompt: &s.prompt, completions: vec![&s.completion] }));
        let groups = groups.only(&sequences().flat_map(|s| &s.learnt).copied().collect::<Vec<_>>());
        let tape = self.policy.forward(&groups, &numbers);
        let mut scores = groups.sequences(&self.policy.model.token_scores(&tape, &groups.targets)).into_iter();
        let outputs = of_bins.iter().map(|bin| scores.by_ref().take(bin.len()).collect()).collect();
        ((groups, tape), outputs)
    }

    fn loss(&self, bins: &[usize], outputs: &[Vec<SequenceScore>]) -> BatchLoss<Vec<f64>> {
        let logps: Vec<(f64, usize)> = outputs.iter().flatten().map(|s| (s.logp, s.tokens)).collect();
        let result = Sft.evaluate(&logps);
        let learnt_tokens: usize = outputs.iter().flatten().map(|s| s.tokens).sum();
        let entropy = outputs.iter().flatten().map(|s| s.entropy).sum::<f64>() / learnt_tokens as f64;
        let (mut losses, mut gradients) = (result.losses.into_iter(), result.gradients.into_iter());
        BatchLoss {
            loss: result.loss,
            losses: outputs.iter().map(|bin| losses.by_ref().take(bin.len()).sum()).collect(),
            gradients: outputs.iter().map(|bin| gradients.by_ref().take(bin.len()).collect()).collect(),
            tokens: self.of_bins(bins).map(|sequence| sequence.tokens()).sum::<usize>() as u64,
            metrics: BTreeMap::from([("entropy".to_owned(), entropy)]),
        }
    }

    fn backward(&self, (groups, tape): Self::Pass, _: &[usize], gradients: &[Vec<f64>], grads: &mut Gradients) {
        let dlogps = groups.spread(gradients.iter().flatten().copied());
        self.policy.model.backward(tape, &groups.packed, &groups.targets, &dlogps, grads);
    }
}

/// Completions cut so that prompt and completion have at most `max_length` tokens.
fn cut(config: &LlamaConfig, examples: &Shelf<TokenizedExample>, max_length: Option<usize>) -> Result<Shelf<TokenizedExample>> {
    let mut fitted = examples.like()?;
    for example in examples.iter() {
        let mut example = example.into_owned();
        fit(config, &example.prompt_id, &example.prompt, &mut example.completion, max_length)?;
        fitted.add(example)?;
    }
    Ok(fitted)
}

/// Nothing is cut, but nothing may be empty.
fn whole(examples: Shelf<TokenizedExample>) -> Result<Shelf<TokenizedExample>> {
    examples.iter().try_for_each(|e| not_empty(&e.prompt_id, &e.prompt, &e.completion))?;
    Ok(examples)
}

/// Each example as a sequence.
fn alone(examples: &Shelf<TokenizedExample>) -> Result<Shelf<Sequence>> {
    let mut sequences = examples.like()?;
    examples.iter().try_for_each(|example| sequences.add(Sequence::alone(&example)))?;
    Ok(sequences)
}

/// The sequences in bins of at most `capacity` tokens, and which of them each bin holds.
fn packed(
    examples: &Shelf<TokenizedExample>,
    strategy: PackingStrategy,
    capacity: usize,
) -> Result<(Shelf<Sequence>, Vec<Vec<usize>>)> {
    let lengths: Vec<usize> = examples.iter().map(|e| e.prompt.len() + e.completion.len()).collect();
    let bins = packing::bins(strategy, &lengths, capacity);
    match strategy {
        PackingStrategy::Bfd => {
            let numbers = bins.iter().map(|bin| bin.iter().map(|part| part.sequence).collect()).collect();
            Ok((alone(examples)?, numbers))
        }
        PackingStrategy::BfdSplit => {
            let (mut sequences, mut numbers) = (examples.like()?, 0usize..);
            for part in bins.iter().flatten() {
                sequences.add(Sequence::of(std::slice::from_ref(part), examples))?;
            }
            Ok((sequences, bins.iter().map(|bin| numbers.by_ref().take(bin.len()).collect()).collect()))
        }
        PackingStrategy::Wrapped => {
            let mut sequences = examples.like()?;
            bins.iter().try_for_each(|parts| sequences.add(Sequence::of(parts, examples)))?;
            Ok((sequences, (0..bins.len()).map(|bin| vec![bin]).collect()))
        }
    }
}
