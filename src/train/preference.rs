//! Preference training: a policy against a frozen reference on pairs of completions.

use std::collections::BTreeMap;

use super::PairScore;
use super::objective::{PairGradient, PairLogps, PairObjective, SequenceLogps, paired};
use super::sequence::{Group, PackedGroups, SequenceScore, fit_pairs};
use super::task::{BatchLoss, Task};
use crate::data::TokenizedPair;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::model::{Llama, Parameters, Tape};
use crate::suite::settings::{Numerics, TrainSettings};
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
    chosen: SequenceScore,
    rejected: SequenceScore,
}

impl PairOutput {
    /// Log-probabilities of chosen and rejected, nats, summed over their tokens.
    pub fn logps(&self) -> (f64, f64) {
        (self.chosen.logp, self.rejected.logp)
    }
}

pub struct PreferenceTask {
    policy: Llama,
    pairs: Vec<TokenizedPair>,
    /// Log-probabilities of chosen and rejected under the reference, nats, one entry a pair.
    reference: Vec<(f64, f64)>,
    /// Whether the policy starts as the reference, so that the first step must see no difference.
    starts_at_reference: bool,
    objective: PairObjective,
    beta: f64,
    identity: Digest,
}

impl PreferenceTask {
    /// `policy`: what training starts from, commonly a copy of `reference`.
    ///
    /// Scores every pair under the reference once, here: with the same function as the policy later, so the bits are those
    /// that scoring within each step would give. Completions are cut at `max_length`; a prompt that leaves no room for a
    /// completion is an error.
    ///
    /// # Panics
    /// When the two models differ in their arithmetic.
    pub fn new(
        policy: Llama,
        reference: &Llama,
        pairs: &[TokenizedPair],
        settings: &TrainSettings,
        watch: &dyn Watch,
    ) -> Result<Self> {
        assert_eq!(policy.numerics, reference.numerics, "policy and reference compute alike");
        let objective = paired(settings)?;
        let pairs = fit_pairs(&policy.config, pairs, settings.max_length)?;
        let scores = score_pairs(reference, &pairs, watch, "reference log-probabilities")?;
        let reference_digest = reference.parameters.digest();
        let policy_digest = policy.parameters.digest();
        let starts_at_reference = policy_digest == reference_digest && policy.config == reference.config;
        let config = |model: &Llama| model.config.to_json("LlamaForCausalLM");
        let models = (config(&policy), policy_digest, config(reference), reference_digest);
        let identity = Digest::of_value(&("preference", policy.numerics, models, &pairs));
        let reference = scores.iter().map(|s| (s.chosen.logp, s.rejected.logp)).collect();
        Ok(Self { policy, pairs, reference, starts_at_reference, objective, beta: settings.beta, identity })
    }

    /// The trained policy, after `run`.
    pub fn into_policy(self) -> Llama {
        self.policy
    }

    fn logps(&self, examples: &[usize], outputs: &[PairOutput]) -> Vec<PairLogps> {
        let side = |score: &SequenceScore, reference| SequenceLogps { policy: score.logp, reference, tokens: score.tokens };
        let pair = |(&i, output): (&usize, &PairOutput)| {
            let (chosen, rejected) = self.reference[i];
            PairLogps { chosen: side(&output.chosen, chosen), rejected: side(&output.rejected, rejected) }
        };
        examples.iter().zip(outputs).map(pair).collect()
    }
}

impl Task for PreferenceTask {
    type Pass = (PackedGroups, Tape);
    type Output = PairOutput;
    type Gradient = PairGradient;

    fn identity(&self) -> Digest {
        self.identity
    }

    fn examples(&self) -> usize {
        self.pairs.len()
    }

    fn example_id(&self, example: usize) -> String {
        self.pairs[example].id.clone()
    }

    fn parameters(&self) -> &Parameters {
        &self.policy.parameters
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.policy.parameters
    }

    fn forward(&self, examples: &[usize]) -> (Self::Pass, Vec<PairOutput>) {
        let groups = pack(examples.iter().map(|&i| &self.pairs[i]));
        let tape = self.policy.forward(&groups.packed);
        let scores = groups.sequences(&self.policy.token_scores(&tape, &groups.targets));
        ((groups, tape), in_pairs(&scores))
    }

    fn loss(&self, examples: &[usize], outputs: &[PairOutput]) -> BatchLoss<PairGradient> {
        let logps = self.logps(examples, outputs);
        let result = self.objective.evaluate(&logps);
        let tokens =
            examples.iter().zip(outputs).map(|(&i, o)| 2 * self.pairs[i].prompt.len() + o.chosen.tokens + o.rejected.tokens);
        BatchLoss {
            loss: result.loss,
            losses: result.losses,
            gradients: result.gradients,
            tokens: tokens.sum::<usize>() as u64,
            metrics: metrics(self.beta, &logps, outputs),
        }
    }

    fn backward(&self, (groups, tape): Self::Pass, _: &[usize], gradients: &[PairGradient], grads: &mut Parameters) {
        let dlogps = groups.spread(gradients.iter().flat_map(|g| [g.chosen, g.rejected]));
        self.policy.backward(tape, &groups.packed, &groups.targets, &dlogps, grads);
    }

    fn check_first_step(&self, examples: &[usize], outputs: &[PairOutput], loss: f64) -> Result<()> {
        if !self.starts_at_reference {
            return Ok(());
        }
        for (&i, pair) in examples.iter().zip(self.logps(examples, outputs)) {
            for (side, logps) in [("chosen", pair.chosen), ("rejected", pair.rejected)] {
                let agree = match self.policy.numerics {
                    Numerics::Strict => logps.policy.to_bits() == logps.reference.to_bits(),
                    Numerics::Fast => (logps.policy - logps.reference).abs() <= FAST_LOGP * logps.tokens as f64,
                };
                if !agree {
                    return Err(defect(format!(
                        "before the first update the policy's log-probability of the {side} side of pair {} is {}, the reference's {}, although their weights are equal",
                        self.pairs[i].id, logps.policy, logps.reference
                    )));
                }
            }
        }
        let apart = |expected: f64| match self.policy.numerics {
            Numerics::Strict => 1e-6,
            Numerics::Fast => FAST_LOSS * expected.abs().max(1.0),
        };
        match self.objective.loss_at_reference() {
            Some(expected) if (loss - expected).abs() > apart(expected) => {
                Err(defect(format!("the loss of the first step is {loss}; with policy = reference it must be {expected}")))
            }
            _ => Ok(()),
        }
    }
}

fn defect(message: String) -> Error {
    Error::unexpected(message).help("this is a defect of scoring or of the objective; please report it with the suite file")
}

/// The batch's metrics under TRL's names. Rewards are β times the log-ratio, whatever the objective.
fn metrics(beta: f64, logps: &[PairLogps], outputs: &[PairOutput]) -> BTreeMap<String, f64> {
    let mean = |value: &dyn Fn(&PairLogps) -> f64| logps.iter().map(value).sum::<f64>() / logps.len() as f64;
    let per_token = |value: fn(&SequenceScore) -> f64, sides: &[fn(&PairOutput) -> &SequenceScore]| {
        let scores = || outputs.iter().flat_map(|o| sides.iter().map(move |side| side(o)));
        scores().map(value).sum::<f64>() / scores().map(|s| s.tokens).sum::<usize>() as f64
    };
    let [chosen, rejected]: [fn(&PairOutput) -> &SequenceScore; 2] = [|o| &o.chosen, |o| &o.rejected];
    let accuracy = |p: &PairLogps| f64::from(u8::from(p.chosen.log_ratio() > p.rejected.log_ratio()));
    let rows = [
        ("rewards/chosen", mean(&|p| beta * p.chosen.log_ratio())),
        ("rewards/rejected", mean(&|p| beta * p.rejected.log_ratio())),
        ("rewards/margins", mean(&|p| beta * p.margin())),
        ("rewards/accuracies", mean(&accuracy)),
        ("logps/chosen", mean(&|p| p.chosen.policy)),
        ("logps/rejected", mean(&|p| p.rejected.policy)),
        ("logits/chosen", per_token(|s| s.logits, &[chosen])),
        ("logits/rejected", per_token(|s| s.logits, &[rejected])),
        ("entropy", per_token(|s| s.entropy, &[chosen, rejected])),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn pack<'a>(pairs: impl IntoIterator<Item = &'a TokenizedPair>) -> PackedGroups {
    PackedGroups::of(pairs.into_iter().map(|p| Group { prompt: &p.prompt, completions: vec![&p.chosen, &p.rejected] }))
}

fn in_pairs(scores: &[SequenceScore]) -> Vec<PairOutput> {
    scores.chunks_exact(2).map(|s| PairOutput { chosen: s[0], rejected: s[1] }).collect()
}

fn score_pairs(model: &Llama, pairs: &[TokenizedPair], watch: &dyn Watch, what: &str) -> Result<Vec<PairOutput>> {
    let mut outputs = Vec::with_capacity(pairs.len());
    for chunk in pairs.chunks(SCORED_TOGETHER) {
        watch.check()?;
        let groups = pack(chunk);
        outputs.extend(in_pairs(&groups.sequences(&model.score(&groups.packed, &groups.targets))));
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
/// `max_length` cuts completions as in training.
pub fn pair_scores(
    of: &ScoredPolicy,
    policy: &Llama,
    reference: &Llama,
    pairs: &[TokenizedPair],
    max_length: Option<usize>,
    watch: &dyn Watch,
) -> Result<Vec<PairScore>> {
    let pairs = fit_pairs(&policy.config, pairs, max_length)?;
    let under_policy = score_pairs(policy, &pairs, watch, "policy log-probabilities")?;
    let under_reference = score_pairs(reference, &pairs, watch, "reference log-probabilities")?;
    let row = |((pair, p), r): ((&TokenizedPair, &PairOutput), &PairOutput)| PairScore {
        variant: of.variant.to_owned(),
        seed: of.seed,
        checkpoint: of.checkpoint,
        pair_id: pair.id.clone(),
        prompt_id: pair.prompt_id.clone(),
        beta: of.beta,
        policy_chosen: p.chosen.logp,
        policy_rejected: p.rejected.logp,
        reference_chosen: r.chosen.logp,
        reference_rejected: r.rejected.logp,
        chosen_tokens: p.chosen.tokens as u32,
        rejected_tokens: p.rejected.tokens as u32,
    };
    Ok(pairs.iter().zip(&under_policy).zip(&under_reference).map(row).collect())
}
