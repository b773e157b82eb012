//! Preference training: a policy against a frozen reference on pairs of completions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::PairScore;
use super::completion::{CompletionScore, token_gradients};
use super::metrics::Metrics;
use super::objective::{PairGradient, PairLogps, PairObjective, Reward, Scoped, paired};
use super::policy::with_adapters;
use super::reference::Referenced;
use super::score_cache::ScoreCache;
use super::sequence::{Group, PackedGroups, SequenceScore, fit_pairs};
use super::task::{BatchLoss, Task};
use crate::data::TokenizedPair;
use crate::data::shelf::Shelf;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::model::{Causal, Gradients, Llama, Tape, TokenScore};
use crate::suite::settings::{Dialect, LossType, Numerics, TrainSettings};
use crate::watch::Watch;

/// Pairs scored together where nothing is trained. It bounds memory and has no influence on the bits.
const SCORED_TOGETHER: usize = 16;

/// How far equal weights may be apart at the first step in the fast arithmetic, whose bits depend on what is computed together:
/// nats a token, and the loss as a share of its known value (of 1 where that is less).
const FAST_LOGP: f64 = 1e-4;
const FAST_LOSS: f64 = 1e-3;

/// Both sides of a pair under one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairOutput {
    chosen: CompletionScore,
    rejected: CompletionScore,
    /// Σ log π of the prompt's tokens after the first and their number; 0 and 0 where the objective doesn't ask.
    prompt: (f64, usize),
}

impl PairOutput {
    pub(super) fn sides(&self) -> (&CompletionScore, &CompletionScore) {
        (&self.chosen, &self.rejected)
    }

    pub(super) fn of_sides(chosen: CompletionScore, rejected: CompletionScore) -> Self {
        Self { chosen, rejected, prompt: (0.0, 0) }
    }

    /// Log-probabilities of chosen and rejected, nats, summed over their tokens.
    pub fn logps(&self) -> (f64, f64) {
        (self.chosen.sum.logp, self.rejected.sum.logp)
    }
}

/// What a forward pass keeps for the backward pass.
pub struct PairPass {
    groups: PackedGroups,
    tape: Tape,
    tokens: Vec<TokenScore>,
}

pub struct PreferenceTask {
    learner: Referenced<PairOutput>,
    /// Those to learn from, then the held-out ones.
    pairs: Shelf<TokenizedPair>,
    learnt: Scoped<PairObjective>,
    /// Over the held-out pairs as one batch, if there are any.
    held_out: Option<Scoped<PairObjective>>,
    reward: Reward,
    /// Of policy and reference.
    ld_alpha: [Option<f64>; 2],
    /// Whether the objective asks for the prompts' own log-probabilities.
    prompts: bool,
    identity: Digest,
}

impl PreferenceTask {
    /// `policy`: what training starts from, commonly a copy of `reference`.
    ///
    /// With `precompute_ref_log_probs` every pair is scored under the reference here, once. Completions are cut at `max_length`; a
    /// prompt that leaves no room for a completion is an error.
    ///
    /// # Panics
    /// When the two models differ in their arithmetic.
    pub fn new(
        policy: Llama,
        reference: &Llama,
        pairs: impl Into<Shelf<TokenizedPair>>,
        settings: &TrainSettings,
        watch: &dyn Watch,
    ) -> Result<Self> {
        Self::with_cache(policy, reference, pairs, settings, None, watch)
    }

    /// [`Self::new`] with the reference's scores from `cache`, where they are kept.
    pub fn with_cache(
        policy: Llama,
        reference: &Llama,
        pairs: impl Into<Shelf<TokenizedPair>>,
        settings: &TrainSettings,
        cache: Option<&ScoreCache<'_>>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let o = &settings.objective;
        let pairs = fit_pairs(&policy.config, &pairs.into(), settings.max_length)?;
        let scores = || reference_scores(reference, &pairs, cache, watch);
        let (learner, models) = Referenced::new(policy, reference, settings, scores)?;
        let identity = Digest::of_value(&("preference", reference.numerics, models, pairs.digest()));
        Ok(Self {
            identity: with_adapters(identity, &[&learner.policy.model, reference]),
            learner,
            pairs,
            learnt: Scoped::of(settings, paired),
            held_out: None,
            reward: Reward::of(o),
            ld_alpha: [o.ld_alpha, o.ld_alpha.filter(|_| o.dialect != Dialect::LlamaFactory)],
            prompts: o.dialect == Dialect::Trl && o.loss_type.contains(&LossType::Orpo),
        })
    }

    /// Adds pairs that are measured every `eval_steps` and never learnt from; completions are cut as those of the training pairs.
    pub fn with_held_out(
        mut self,
        reference: &Llama,
        pairs: impl Into<Shelf<TokenizedPair>>,
        settings: &TrainSettings,
        cache: Option<&ScoreCache<'_>>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let pairs = fit_pairs(&self.learner.policy.model.config, &pairs.into(), settings.max_length)?;
        self.learner.reference.extend(|| reference_scores(reference, &pairs, cache, watch))?;
        self.identity = Digest::of_value(&(self.identity, "held out", pairs.digest()));
        self.held_out = Some(Scoped::undivided(settings, pairs.len(), paired));
        self.pairs.extend(&pairs)?;
        Ok(self)
    }

    /// The trained policy, after `run`.
    pub fn into_policy(self) -> Llama {
        self.learner.policy.model
    }

    /// What the reference says of some pairs.
    fn reference(&self, examples: &[usize]) -> Vec<PairOutput> {
        self.learner.reference.of(examples, |model| {
            let score = |part: &[usize]| {
                let groups = pack(&self.pairs.some(part), false);
                in_pairs(&groups, &model.score(&groups.packed, &groups.targets), false)
            };
            examples.chunks(SCORED_TOGETHER).flat_map(score).collect()
        })
    }

    fn logps(&self, examples: &[usize], outputs: &[PairOutput]) -> Vec<PairLogps> {
        let pair = |(output, reference): (&PairOutput, PairOutput)| PairLogps {
            chosen: output.chosen.logps(&reference.chosen, self.ld_alpha),
            rejected: output.rejected.logps(&reference.rejected, self.ld_alpha),
            prompt: output.prompt,
        };
        outputs.iter().zip(self.reference(examples)).map(pair).collect()
    }

    /// Metrics are means over the objective's scope, which are then averaged.
    fn batch_loss(&self, by: &Scoped<PairObjective>, examples: &[usize], outputs: &[PairOutput]) -> BatchLoss<PairGradient> {
        let logps = self.logps(examples, outputs);
        let tokens = examples
            .iter()
            .zip(outputs)
            .map(|(&i, o)| 2 * self.pairs.get(i).prompt.len() + o.chosen.sum.tokens + o.rejected.sum.tokens);
        let parts = logps.chunks(by.scope).zip(outputs.chunks(by.scope));
        let metrics = averaged(parts.map(|(logps, outputs)| metrics(&self.reward, logps, outputs)));
        BatchLoss::of(by.objective.evaluate(&logps), tokens.sum(), metrics)
    }
}

impl Task for PreferenceTask {
    type Learner = Referenced<PairOutput>;
    type Pass = PairPass;
    type Output = PairOutput;
    type Gradient = PairGradient;

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
        self.pairs.len() - self.held_out()
    }

    fn held_out(&self) -> usize {
        self.held_out.as_ref().map_or(0, |all| all.scope)
    }

    fn example_id(&self, example: usize) -> String {
        self.pairs.get(example).id.clone()
    }

    fn forward(&self, examples: &[usize]) -> (PairPass, Vec<PairOutput>) {
        let groups = pack(&self.pairs.some(examples), self.prompts);
        let tape = self.learner.policy.forward(&groups, examples);
        let tokens = self.learner.policy.model.token_scores(&tape, &groups.targets);
        let outputs = in_pairs(&groups, &tokens, self.prompts);
        (PairPass { groups, tape, tokens }, outputs)
    }

    fn loss(&self, examples: &[usize], outputs: &[PairOutput]) -> BatchLoss<PairGradient> {
        self.batch_loss(&self.learnt, examples, outputs)
    }

    fn held_out_loss(&self, examples: &[usize], outputs: &[PairOutput]) -> BatchLoss<PairGradient> {
        self.batch_loss(self.held_out.as_ref().expect("there are held-out pairs"), examples, outputs)
    }

    fn backward(&self, pass: PairPass, examples: &[usize], gradients: &[PairGradient], grads: &mut Gradients) {
        let mut dlogps = Vec::with_capacity(pass.tokens.len());
        let mut sequences = pass.groups.split(&pass.tokens);
        for (&i, gradient) in examples.iter().zip(gradients) {
            let shared = shared_length(&self.pairs.get(i));
            if self.prompts {
                let prompt = sequences.next().expect("one a pair");
                dlogps.extend(prompt.iter().map(|_| gradient.prompt as f32));
            }
            for side in [&gradient.chosen, &gradient.rejected] {
                let tokens = sequences.next().expect("two a pair");
                dlogps.extend(token_gradients(tokens, shared, self.ld_alpha[0], side));
            }
        }
        self.learner.policy.model.backward(pass.tape, &pass.groups.packed, &pass.groups.targets, &dlogps, grads);
    }

    fn recall(&mut self, last: &Metrics) {
        for by in std::iter::once(&mut self.learnt).chain(&mut self.held_out) {
            by.objective.recall(&last.values);
        }
    }

    fn check_first_step(&self, examples: &[usize], outputs: &[PairOutput], loss: f64) -> Result<()> {
        if !self.learner.starts_at_reference {
            return Ok(());
        }
        let numerics = self.learner.policy.model.numerics;
        for ((&i, output), reference) in examples.iter().zip(outputs).zip(self.reference(examples)) {
            for (side, policy, reference) in
                [("chosen", &output.chosen, &reference.chosen), ("rejected", &output.rejected, &reference.rejected)]
            {
                let what = format!("the {side} side of pair {}", self.pairs.get(i).id);
                same_at_first(numerics, &what, &policy.sum, &reference.sum)?;
            }
        }
        // LLaMA-Factory weighs the policy's tokens and not the reference's, so its loss is no constant even here.
        match self.ld_alpha[0] == self.ld_alpha[1] {
            true => constant_at_first(numerics, self.learnt.objective.loss_at_reference(), loss),
            false => Ok(()),
        }
    }
}

/// How many tokens both completions have.
fn shared_length(pair: &TokenizedPair) -> usize {
    pair.chosen.len().min(pair.rejected.len())
}

/// Before the first update policy and reference are the same model, so their log-probabilities have the same bits.
pub(super) fn same_at_first(numerics: Numerics, what: &str, policy: &SequenceScore, reference: &SequenceScore) -> Result<()> {
    let agree = match numerics {
        Numerics::Strict => policy.logp.to_bits() == reference.logp.to_bits(),
        Numerics::Fast => (policy.logp - reference.logp).abs() <= FAST_LOGP * policy.tokens as f64,
    };
    if agree {
        return Ok(());
    }
    Err(defect(format!(
        "before the first update the policy's log-probability of {what} is {}, the reference's {}, although their weights are equal",
        policy.logp, reference.logp
    )))
}

/// … and many losses are a known constant.
pub(super) fn constant_at_first(numerics: Numerics, expected: Option<f64>, loss: f64) -> Result<()> {
    let tolerance = match numerics {
        Numerics::Strict => 1e-6,
        Numerics::Fast => FAST_LOSS,
    };
    match expected {
        Some(expected) if (loss - expected).abs() > tolerance * expected.abs().max(1.0) => {
            Err(defect(format!("the loss of the first step is {loss}; with policy = reference it must be {expected}")))
        }
        _ => Ok(()),
    }
}

fn defect(message: String) -> Error {
    Error::unexpected(message).help("this is a defect of scoring or of the objective; please report it with the suite file")
}

/// A batch's metrics, under TRL's names where it has them.
fn metrics(reward: &Reward, logps: &[PairLogps], outputs: &[PairOutput]) -> BTreeMap<String, f64> {
    let mean = |value: &dyn Fn(&PairLogps) -> f64| logps.iter().map(value).sum::<f64>() / logps.len() as f64;
    let share = |holds: &dyn Fn(&PairLogps) -> bool| mean(&|p| f64::from(u8::from(holds(p))));
    let (chosen, rejected) = (|p: &PairLogps| reward.at(&p.chosen), |p: &PairLogps| reward.at(&p.rejected));
    let scores = |side: fn(&PairOutput) -> SequenceScore| outputs.iter().map(side).collect::<Vec<_>>();
    let (of_chosen, of_rejected) = (scores(|o| o.chosen.sum), scores(|o| o.rejected.sum));
    let both: Vec<SequenceScore> = of_chosen.iter().zip(&of_rejected).flat_map(|(c, r)| [*c, *r]).collect();
    let rows = [
        ("rewards/chosen", mean(&chosen)),
        ("rewards/rejected", mean(&rejected)),
        ("rewards/margins", mean(&|p| chosen(p) - rejected(p))),
        ("rewards/accuracies", share(&|p| chosen(p) > rejected(p))),
        ("rewards/ties", share(&|p| chosen(p) == rejected(p))),
        ("logps/chosen", mean(&|p| p.chosen.policy)),
        ("logps/rejected", mean(&|p| p.rejected.policy)),
        ("logps/chosen_fell", share(&|p| p.chosen.policy < p.chosen.reference)),
        ("kl/chosen", mean(&|p| p.chosen.log_ratio())),
        ("kl/rejected", mean(&|p| p.rejected.log_ratio())),
        ("logits/chosen", per_token(&of_chosen, |s| s.logits)),
        ("logits/rejected", per_token(&of_rejected, |s| s.logits)),
        ("entropy", per_token(&both, |s| s.entropy)),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The mean over all tokens of something that is summed over each completion's.
pub(super) fn per_token(scores: &[SequenceScore], value: fn(&SequenceScore) -> f64) -> f64 {
    scores.iter().map(value).sum::<f64>() / scores.iter().map(|s| s.tokens).sum::<usize>() as f64
}

/// The mean of each metric over the parts that have it.
pub(super) fn averaged(parts: impl Iterator<Item = BTreeMap<String, f64>>) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in parts.flatten() {
        all.entry(name).or_default().push(value);
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    all.into_iter().map(|(name, values)| (name, mean(values))).collect()
}

fn pack(pairs: &[Cow<'_, TokenizedPair>], prompts: bool) -> PackedGroups {
    let groups = pairs.iter().map(|p| Group { prompt: &p.prompt, completions: vec![&p.chosen, &p.rejected] });
    if prompts { PackedGroups::with_prompts(groups) } else { PackedGroups::of(groups) }
}

fn in_pairs(groups: &PackedGroups, tokens: &[TokenScore], prompts: bool) -> Vec<PairOutput> {
    let sequences: Vec<&[TokenScore]> = groups.split(tokens).collect();
    let pair = |sequences: &[&[TokenScore]]| {
        let (prompt, sides) = sequences.split_at(sequences.len() - 2);
        let shared = sides[0].len().min(sides[1].len());
        PairOutput {
            chosen: CompletionScore::of(sides[0], shared),
            rejected: CompletionScore::of(sides[1], shared),
            prompt: prompt.first().map_or((0.0, 0), |p| (SequenceScore::of(p).logp, p.len())),
        }
    };
    sequences.chunks_exact(2 + usize::from(prompts)).map(pair).collect()
}

/// What the reference says of pairs, from `cache` where it is kept there.
fn reference_scores(
    model: &dyn Causal,
    pairs: &Shelf<TokenizedPair>,
    cache: Option<&ScoreCache<'_>>,
    watch: &dyn Watch,
) -> Result<Vec<PairOutput>> {
    let score = || score_pairs(model, pairs, watch, "reference log-probabilities");
    match cache {
        Some(cache) => {
            let tokens = pairs.digest_of(|p| (p.prompt, p.chosen, p.rejected));
            cache.scores(model, (tokens, pairs.len()), watch, score)
        }
        None => score(),
    }
}

fn score_pairs(model: &dyn Causal, pairs: &Shelf<TokenizedPair>, watch: &dyn Watch, what: &str) -> Result<Vec<PairOutput>> {
    let mut outputs = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(SCORED_TOGETHER) {
        watch.check()?;
        let groups = pack(&chunk, false);
        outputs.extend(in_pairs(&groups, &model.score(&groups.packed, &groups.targets), false));
        watch.advance(outputs.len() as u64, pairs.len() as u64, what);
    }
    Ok(outputs)
}

/// Whose pair scores they are.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredPolicy<'a> {
    pub variant: &'a str,
    pub seed: Option<u64>,
    pub checkpoint: u64,
    pub beta: f64,
}

/// Log-probabilities of pairs under a policy and the reference: one row a pair, in order.
///
/// `max_length` cuts completions as in training. The reference's scores are those of `cache`, where they are kept.
pub fn pair_scores(
    of: &ScoredPolicy,
    policy: &dyn Causal,
    reference: &dyn Causal,
    pairs: impl Into<Shelf<TokenizedPair>>,
    max_length: Option<usize>,
    cache: Option<&ScoreCache<'_>>,
    watch: &dyn Watch,
) -> Result<Vec<PairScore>> {
    let pairs = fit_pairs(policy.limits(), &pairs.into(), max_length)?;
    let under_policy = score_pairs(policy, &pairs, watch, "policy log-probabilities")?;
    let under_reference = reference_scores(reference, &pairs, cache, watch)?;
    let row = |((pair, p), r): ((Cow<'_, TokenizedPair>, &PairOutput), &PairOutput)| PairScore {
        variant: of.variant.to_owned(),
        seed: of.seed,
        checkpoint: of.checkpoint,
        pair_id: pair.id.clone(),
        prompt_id: pair.prompt_id.clone(),
        beta: of.beta,
        policy_chosen: p.chosen.sum.logp,
        policy_rejected: p.rejected.sum.logp,
        reference_chosen: r.chosen.sum.logp,
        reference_rejected: r.rejected.sum.logp,
        chosen_tokens: p.chosen.sum.tokens as u32,
        rejected_tokens: p.rejected.sum.tokens as u32,
    };
    Ok(pairs.iter().zip(&under_policy).zip(&under_reference).map(row).collect())
}
