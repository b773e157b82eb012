//! Preference training on single completions that are labelled desirable or not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::completion::{CompletionScore, token_gradients};
use super::objective::{Reward, Scoped, SequenceGradient, UnpairedLogps, UnpairedObjective, unpaired};
use super::policy::with_adapters;
use super::preference::{averaged, constant_at_first, per_token, same_at_first};
use super::reference::{Reference, Referenced};
use super::score_cache::ScoreCache;
use super::sequence::{Group, PackedGroups, SequenceScore, fit};
use super::task::{BatchLoss, Task};
use crate::data::TokenizedPair;
use crate::data::shelf::Shelf;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Gradients, Llama, LlamaConfig, Tape, TokenScore};
use crate::suite::settings::{Dialect, LossType, TrainSettings};
use crate::watch::Watch;
use serde::{Deserialize, Serialize};

/// Completions scored together where nothing is trained. It bounds memory and has no influence on the bits.
const SCORED_TOGETHER: usize = 16;
/// Rows of the file that LLaMA-Factory prepares together: mismatched completions come from the same ones.
const LLAMA_FACTORY_ROWS: usize = 1000;

/// A prompt and a completion with its label, as token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    pub id: String,
    pub prompt: Vec<u32>,
    pub completion: Vec<u32>,
    pub desirable: bool,
}

impl Feedback {
    /// A pair as a desirable and an undesirable example, in this order.
    pub fn of_pair(pair: &TokenizedPair) -> [Self; 2] {
        let side = |name: &str, completion: &[u32], desirable| Self {
            id: format!("{}/{name}", pair.id),
            prompt: pair.prompt.clone(),
            completion: completion.to_vec(),
            desirable,
        };
        [side("chosen", &pair.chosen, true), side("rejected", &pair.rejected, false)]
    }

    pub fn of_pairs(pairs: &[TokenizedPair]) -> Vec<Self> {
        pairs.iter().flat_map(Self::of_pair).collect()
    }
}

/// What a forward pass keeps for the backward pass.
pub struct UnpairedPass {
    groups: PackedGroups,
    tape: Tape,
    tokens: Vec<TokenScore>,
}

/// What the policy says of one completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnpairedOutput(CompletionScore);

impl UnpairedOutput {
    /// Its log-probability, nats, summed over its tokens.
    pub fn logp(&self) -> f64 {
        self.0.sum.logp
    }
}

pub struct UnpairedTask {
    learner: Referenced<CompletionScore>,
    asks_kl: bool,
    /// Scores mismatched completions, which differ from epoch to epoch, where the objective asks for a KL and `reference` is recorded.
    kl_reference: Option<Llama>,
    /// Those to learn from, then the held-out ones.
    examples: Shelf<Feedback>,
    learnt: Scoped<UnpairedObjective>,
    /// Over the held-out examples as one batch, if there are any.
    held_out: Option<Scoped<UnpairedObjective>>,
    /// Before they were cut for their own prompts.
    whole_completions: Shelf<Vec<u32>>,
    max_length: usize,
    reward: Reward,
    dialect: Dialect,
    identity: Digest,
}

impl UnpairedTask {
    /// `policy`: what training starts from, commonly a copy of `reference`. Completions are cut at `max_length`.
    ///
    /// # Panics
    /// When the two models differ in their arithmetic.
    pub fn new(
        policy: Llama,
        reference: &Llama,
        examples: impl Into<Shelf<Feedback>>,
        settings: &TrainSettings,
        watch: &dyn Watch,
    ) -> Result<Self> {
        Self::with_cache(policy, reference, examples, settings, None, watch)
    }

    /// [`Self::new`] with the reference's scores from `cache`, where they are kept.
    pub fn with_cache(
        policy: Llama,
        reference: &Llama,
        examples: impl Into<Shelf<Feedback>>,
        settings: &TrainSettings,
        cache: Option<&ScoreCache<'_>>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let o = &settings.objective;
        let (examples, whole_completions) = fitted(&policy.config, &examples.into(), settings.max_length)?;
        let context = policy.config.max_position_embeddings;
        let scores = || reference_scores(reference, &examples, cache, watch);
        let (learner, models) = Referenced::new(policy, reference, settings, scores)?;
        let identity = Digest::of_value(&("unpaired", reference.numerics, models, examples.digest(), whole_completions.digest()));
        Ok(Self {
            identity: with_adapters(identity, &[&learner.policy.model, reference]),
            learner,
            asks_kl: o.loss_type.contains(&LossType::Kto),
            kl_reference: (o.loss_type.contains(&LossType::Kto) && o.precompute_ref_log_probs).then(|| reference.clone()),
            whole_completions,
            max_length: settings.max_length.map_or(context, |length| length.min(context)),
            learnt: Scoped::of(settings, unpaired),
            held_out: None,
            reward: Reward::of(o),
            dialect: o.dialect,
            examples,
        })
    }

    /// Adds examples that are measured every `eval_steps` and never learnt from; completions are cut as those of the training examples.
    pub fn with_held_out(
        mut self,
        reference: &Llama,
        examples: impl Into<Shelf<Feedback>>,
        settings: &TrainSettings,
        cache: Option<&ScoreCache<'_>>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let examples = examples.into();
        self.identity = Digest::of_value(&(self.identity, "held out", examples.digest()));
        let (examples, whole_completions) = fitted(&self.learner.policy.model.config, &examples, settings.max_length)?;
        self.whole_completions.extend(&whole_completions)?;
        self.learner.reference.extend(|| reference_scores(reference, &examples, cache, watch))?;
        self.held_out = Some(Scoped::undivided(settings, examples.len(), unpaired));
        self.examples.extend(&examples)?;
        Ok(self)
    }

    /// The trained policy, after `run`.
    pub fn into_policy(self) -> Llama {
        self.learner.policy.model
    }

    /// What the reference says of some examples.
    fn reference(&self, examples: &[usize]) -> Vec<CompletionScore> {
        self.learner.reference.of(examples, |model| {
            let parts = examples.chunks(SCORED_TOGETHER);
            parts.flat_map(|part| score(model, &items(&self.examples.some(part)))).collect()
        })
    }

    /// For each example of an optimizer batch, the one whose completion is tried after its prompt: the one before it in the
    /// `scope` of the objective's means, the last for the first.
    fn mismatched(&self, batch: &[usize], scope: usize) -> Vec<usize> {
        if self.dialect == Dialect::LlamaFactory {
            let learnt = self.examples();
            let before = |&i: &usize| {
                // Held-out examples are a file of their own.
                let (start, end) = if i < learnt { (0, learnt) } else { (learnt, self.examples.len()) };
                let first = i - (i - start) % LLAMA_FACTORY_ROWS;
                if i > first { i - 1 } else { (first + LLAMA_FACTORY_ROWS).min(end) - 1 }
            };
            return batch.iter().map(before).collect();
        }
        let rotated = |part: &[usize]| [&part[part.len() - 1..], &part[..part.len() - 1]].concat();
        batch.chunks(scope).flat_map(rotated).collect()
    }

    /// The log-ratios of the mismatched completions, nats; zeros where the objective asks for no KL. No gradient flows here.
    fn mismatched_ratios(&self, batch: &[usize], scope: usize) -> Vec<f64> {
        let reference = match (&self.learner.reference, &self.kl_reference) {
            _ if !self.asks_kl => return vec![0.0; batch.len()],
            (Reference::Live(model, _), _) => model,
            (Reference::Recorded(_), model) => model.as_ref().expect("kept where the objective asks for a KL"),
        };
        let (examples, completions) = (self.examples.some(batch), self.whole_completions.some(&self.mismatched(batch, scope)));
        let longest = |example: &Feedback| self.max_length - example.prompt.len();
        let sequences = examples.iter().zip(&completions);
        let items: Vec<(&[u32], &[u32])> = sequences.map(|(e, c)| (&e.prompt[..], &c[..c.len().min(longest(e))])).collect();
        let logps = |model: &Llama| -> Vec<f64> {
            items.chunks(SCORED_TOGETHER).flat_map(|chunk| score(model, chunk)).map(|s| s.sum.logp).collect()
        };
        logps(&self.learner.policy.model).iter().zip(logps(reference)).map(|(policy, reference)| policy - reference).collect()
    }

    /// Metrics are means over the objective's scope, which are then averaged.
    fn batch_loss(
        &self,
        by: &Scoped<UnpairedObjective>,
        examples: &[usize],
        outputs: &[UnpairedOutput],
    ) -> BatchLoss<SequenceGradient> {
        let ratios = self.mismatched_ratios(examples, by.scope);
        let logps: Vec<UnpairedLogps> = examples
            .iter()
            .zip(outputs)
            .zip(self.reference(examples))
            .zip(ratios)
            .map(|(((&i, output), reference), mismatched)| UnpairedLogps {
                completion: output.0.logps(&reference, [None; 2]),
                desirable: self.examples.get(i).desirable,
                mismatched,
            })
            .collect();
        let parts = logps.chunks(by.scope).zip(outputs.chunks(by.scope));
        let metrics = averaged(parts.map(|(logps, outputs)| metrics(&self.reward, logps, outputs)));
        let tokens = examples.iter().zip(outputs).map(|(&i, o)| self.examples.get(i).prompt.len() + o.0.sum.tokens);
        BatchLoss::of(by.objective.evaluate(&logps), tokens.sum(), metrics)
    }
}

impl Task for UnpairedTask {
    type Learner = Referenced<CompletionScore>;
    type Pass = UnpairedPass;
    type Output = UnpairedOutput;
    type Gradient = SequenceGradient;

    fn learner(&self) -> &Self::Learner {
        &self.learner
    }

    fn learner_mut(&mut self) -> &mut Self::Learner {
        &mut self.learner
    }

    fn identity(&self) -> Digest {
        self.identity
    }

    fn examples(&self) -> usize {
        self.examples.len() - self.held_out()
    }

    fn held_out(&self) -> usize {
        self.held_out.as_ref().map_or(0, |all| all.scope)
    }

    fn example_id(&self, example: usize) -> String {
        self.examples.get(example).id.clone()
    }

    fn forward(&self, examples: &[usize]) -> (UnpairedPass, Vec<UnpairedOutput>) {
        let groups = pack(items(&self.examples.some(examples)));
        let tape = self.learner.policy.forward(&groups, examples);
        let tokens = self.learner.policy.model.token_scores(&tape, &groups.targets);
        let outputs = completions(&groups, &tokens).map(UnpairedOutput).collect();
        (UnpairedPass { groups, tape, tokens }, outputs)
    }

    fn loss(&self, examples: &[usize], outputs: &[UnpairedOutput]) -> BatchLoss<SequenceGradient> {
        self.batch_loss(&self.learnt, examples, outputs)
    }

    fn held_out_loss(&self, examples: &[usize], outputs: &[UnpairedOutput]) -> BatchLoss<SequenceGradient> {
        self.batch_loss(self.held_out.as_ref().expect("there are held-out examples"), examples, outputs)
    }

    fn backward(&self, pass: UnpairedPass, _: &[usize], gradients: &[SequenceGradient], grads: &mut Gradients) {
        let sequences = pass.groups.split(&pass.tokens).zip(gradients);
        let dlogps: Vec<f32> = sequences.flat_map(|(tokens, g)| token_gradients(tokens, tokens.len(), None, g)).collect();
        self.learner.policy.model.backward(pass.tape, &pass.groups.packed, &pass.groups.targets, &dlogps, grads);
    }

    fn check_first_step(&self, examples: &[usize], outputs: &[UnpairedOutput], loss: f64) -> Result<()> {
        if !self.learner.starts_at_reference {
            return Ok(());
        }
        let numerics = self.learner.policy.model.numerics;
        for ((&i, output), reference) in examples.iter().zip(outputs).zip(self.reference(examples)) {
            let what = format!("example {}", self.examples.get(i).id);
            same_at_first(numerics, &what, &output.0.sum, &reference.sum)?;
        }
        constant_at_first(numerics, self.learnt.objective.loss_at_reference(), loss)
    }
}

/// A batch's metrics under the names of TRL's `KTOTrainer`: means over desirable and undesirable examples as "chosen" and
/// "rejected", left out where a batch has none.
fn metrics(reward: &Reward, logps: &[UnpairedLogps], outputs: &[UnpairedOutput]) -> BTreeMap<String, f64> {
    let scores: Vec<SequenceScore> = outputs.iter().map(|o| o.0.sum).collect();
    let mut rows = BTreeMap::from([("entropy".to_owned(), per_token(&scores, |s| s.entropy))]);
    for (desirable, name) in [(true, "chosen"), (false, "rejected")] {
        let (examples, scores): (Vec<&UnpairedLogps>, Vec<SequenceScore>) =
            logps.iter().zip(&scores).filter(|(e, _)| e.desirable == desirable).unzip();
        if examples.is_empty() {
            continue;
        }
        let mean = |value: &dyn Fn(&UnpairedLogps) -> f64| examples.iter().map(|e| value(e)).sum::<f64>() / examples.len() as f64;
        rows.insert(format!("rewards/{name}"), mean(&|e| reward.at(&e.completion)));
        rows.insert(format!("logps/{name}"), mean(&|e| e.completion.policy));
        rows.insert(format!("logits/{name}"), per_token(&scores, |s| s.logits));
        rows.insert(format!("kl/{name}"), mean(&|e| e.completion.log_ratio()));
        if desirable {
            let fell = mean(&|e| f64::from(u8::from(e.completion.policy < e.completion.reference)));
            rows.insert("logps/chosen_fell".to_owned(), fell);
        }
    }
    if let (Some(chosen), Some(rejected)) = (rows.get("rewards/chosen"), rows.get("rewards/rejected")) {
        rows.insert("rewards/margins".to_owned(), chosen - rejected);
    }
    rows
}

fn pack<'a>(items: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> PackedGroups {
    PackedGroups::of(items.into_iter().map(|(prompt, completion)| Group { prompt, completions: vec![completion] }))
}

fn completions<'a>(groups: &'a PackedGroups, tokens: &'a [TokenScore]) -> impl Iterator<Item = CompletionScore> + 'a {
    groups.split(tokens).map(|tokens| CompletionScore::of(tokens, tokens.len()))
}

/// What the reference says of examples, from `cache` where it is kept there.
fn reference_scores(
    model: &Llama,
    examples: &Shelf<Feedback>,
    cache: Option<&ScoreCache<'_>>,
    watch: &dyn Watch,
) -> Result<Vec<CompletionScore>> {
    match cache {
        Some(cache) => {
            let tokens = examples.digest_of(|e| (e.prompt, e.completion));
            cache.scores(model, (tokens, examples.len()), watch, || score_all(model, examples, watch))
        }
        None => score_all(model, examples, watch),
    }
}

/// Every example's scores under the reference, with progress.
fn score_all(model: &Llama, examples: &Shelf<Feedback>, watch: &dyn Watch) -> Result<Vec<CompletionScore>> {
    let mut scores = Vec::with_capacity(examples.len());
    for chunk in examples.chunks(SCORED_TOGETHER) {
        watch.check()?;
        scores.extend(score(model, &items(&chunk)));
        watch.advance(scores.len() as u64, examples.len() as u64, "reference log-probabilities");
    }
    Ok(scores)
}

/// The examples cut at `max_length`, and their whole completions.
fn fitted(
    config: &LlamaConfig,
    examples: &Shelf<Feedback>,
    max_length: Option<usize>,
) -> Result<(Shelf<Feedback>, Shelf<Vec<u32>>)> {
    let (mut fitted, mut whole) = (examples.like()?, examples.like()?);
    for example in examples.iter() {
        let mut example = example.into_owned();
        whole.add(example.completion.clone())?;
        fit(config, &example.id, &example.prompt, &mut example.completion, max_length)?;
        fitted.add(example)?;
    }
    Ok((fitted, whole))
}

/// Prompts with their completions.
fn items<'a>(examples: &'a [Cow<'_, Feedback>]) -> Vec<(&'a [u32], &'a [u32])> {
    examples.iter().map(|e| (&e.prompt[..], &e.completion[..])).collect()
}

/// Scores of completions after prompts.
fn score(model: &Llama, items: &[(&[u32], &[u32])]) -> Vec<CompletionScore> {
    let groups = pack(items.iter().copied());
    completions(&groups, &model.score(&groups.packed, &groups.targets)).collect()
}
