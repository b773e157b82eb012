//! An optimizer step of on-policy training: the policy writes completions of a batch of prompts, these are scored, and the policy is
//! updated on them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::coefficient;
use super::ppo::{self, Action};
use super::reward::Reward;
use super::rloo;
use crate::data::Prompt;
use crate::data::tokenize::TextTokenizer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::generate::{self, Drawn, Sampled};
use crate::model::{Adapter, Gradients, Llama, Parameters, Tape, VALUE_HEAD};
use crate::numerics::logprob;
use crate::rng::Stream;
use crate::suite::settings::{GenerateSettings, Numerics, OnlineSettings, PpoSettings};
use crate::train::{BatchLoss, Group, Learner, Metrics, PackedGroups, Task};
use crate::watch::Silent;

/// Prompts whose completions are measured together. It bounds memory and has no influence on the bits.
const MEASURED_TOGETHER: usize = 8;

/// β of a step, and its KL to the reference, among its metrics: what the next step's β follows from.
const COEFFICIENT: &str = "objective/kl_coef";
const KL: &str = "objective/kl";

/// The policy that writes and learns, perhaps with a value head.
pub struct Actor {
    model: Llama,
    /// Whether nothing that was written is worth more than the rest: then there is nothing to learn, and no gradient.
    rests: bool,
}

impl Learner for Actor {
    fn parameters(&self) -> &Parameters {
        self.model.trained()
    }

    fn parameters_mut(&mut self) -> &mut Parameters {
        self.model.trained_mut()
    }

    fn kept(&self) -> Cow<'_, Parameters> {
        let trained = self.model.trained();
        match trained.contains(VALUE_HEAD) {
            false => Cow::Borrowed(trained),
            true => Cow::Owned(
                trained.iter().filter(|(name, _)| *name != VALUE_HEAD).map(|(n, t)| (n.to_owned(), t.clone())).collect(),
            ),
        }
    }

    fn weights_file(&self) -> &'static str {
        if self.model.adapter.is_some() { Adapter::WEIGHTS } else { "model.safetensors" }
    }

    fn may_rest_at_first(&self, tensor: &str) -> bool {
        let neutral = self.model.adapter.as_ref().is_some_and(Adapter::is_neutral);
        self.rests || (neutral && tensor.contains("lora_A"))
    }
}

/// A completion that was written for the present step.
struct Written {
    ids: Vec<u32>,
    /// One a token.
    actions: Vec<Action>,
}

/// What the policy says of a token, now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    logp: f64,
    entropy: f64,
    /// 0 without a value head.
    value: f64,
}

/// For each completion what is said of its tokens, where that is known.
type OfCompletions = Option<Vec<Vec<Said>>>;

/// What is said of a completion's tokens, and log π − log π_ref of each, nats.
type Measured = (Vec<Said>, Vec<f64>);

/// What a forward pass keeps for the backward pass.
pub struct Pass {
    groups: PackedGroups,
    tape: Tape,
}

pub struct OnlineTask<'a> {
    actor: Actor,
    reference: Llama,
    tokenizer: &'a TextTokenizer,
    reward: Reward,
    prompts: Vec<Prompt>,
    encoded: Vec<Vec<u32>>,
    settings: OnlineSettings,
    sampling: GenerateSettings,
    beta: f64,
    /// The present step's completions, by the index of their prompt.
    written: BTreeMap<usize, Vec<Written>>,
    identity: Digest,
}

impl<'a> OnlineTask<'a> {
    /// `policy`: what training starts from, commonly a copy of `reference`. `max_new_tokens`: of a completion. `beta`: at the first step.
    #[allow(clippy::too_many_arguments, reason = "what an on-policy training consists of")]
    pub fn new(
        policy: Llama,
        reference: &Llama,
        tokenizer: &'a TextTokenizer,
        reward: Reward,
        prompts: Vec<Prompt>,
        settings: &OnlineSettings,
        beta: f64,
        max_new_tokens: usize,
    ) -> Self {
        let samples_per_prompt = settings.num_generations;
        let sampling = GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens, samples_per_prompt };
        let models = [&policy, reference].map(|m| (m.config.causal_json(), m.parameters.digest()));
        let adapter = policy.adapter.as_ref().map(|a| (&a.settings, a.parameters.digest()));
        let identity =
            Digest::of_value(&("online", reference.numerics, models, adapter, &prompts, reward.identity(), max_new_tokens));
        let model = if settings.ppo.is_some() { policy.with_value_head() } else { policy };
        Self {
            actor: Actor { model, rests: false },
            reference: reference.clone(),
            tokenizer,
            reward,
            encoded: prompts.iter().map(|prompt| tokenizer.prompt(&prompt.text)).collect(),
            prompts,
            settings: settings.clone(),
            sampling,
            beta,
            written: BTreeMap::new(),
            identity,
        }
    }

    fn groups(&self, examples: &[usize]) -> PackedGroups {
        PackedGroups::of(examples.iter().map(|i| Group {
            prompt: &self.encoded[*i],
            completions: self.written[i].iter().map(|written| &written.ids[..]).collect(),
        }))
    }

    /// Completions of some prompts, and what the policy says of each of their tokens as it draws it. None where the bits of a pass over whole
    /// texts are others than those of decoding.
    pub(super) fn write(&self, seed: u64, step: u64, prompts: &[Prompt]) -> Result<(Vec<Sampled>, OfCompletions)> {
        let (model, purpose) = (&self.actor.model, format!("train/written/{step}"));
        if model.numerics != Numerics::Strict {
            return Ok((generate::sample(model, self.tokenizer, prompts, &self.sampling, seed, &purpose, &Silent)?, None));
        }
        let say = |drawn: Drawn<'_>| {
            let score = logprob::score(drawn.logits, drawn.token);
            let value = self.settings.ppo.as_ref().map_or(0.0, |_| model.value_of(drawn.state));
            said(score.logp, score.entropy, value)
        };
        let all = generate::sample_saying(model, self.tokenizer, prompts, &self.sampling, seed, &purpose, &say, &Silent)?;
        let (samples, said) = all.into_iter().unzip();
        Ok((samples, Some(said)))
    }

    /// What the policy says of every token of some prompts' completions, and log π − log π_ref of it, nats. `written`: the first, where it is
    /// known.
    pub(super) fn measured(&self, examples: &[usize], written: OfCompletions) -> Vec<Measured> {
        let mut all = Vec::new();
        let mut written = written.map(Vec::into_iter);
        for chunk in examples.chunks(MEASURED_TOGETHER) {
            let groups = self.groups(chunk);
            let said: Vec<Said> = match &mut written {
                Some(written) => written.take(chunk.len() * self.settings.num_generations).flatten().collect(),
                None => self.said_by_pass(&groups),
            };
            let reference = self.reference.score(&groups.packed, &groups.targets);
            let ratios: Vec<f64> = said.iter().zip(&reference).map(|(s, r)| s.logp - f64::from(r.logp)).collect();
            all.extend(groups.split(&said).zip(groups.split(&ratios)).map(|(s, r)| (s.to_vec(), r.to_vec())));
        }
        all
    }

    fn said_by_pass(&self, groups: &PackedGroups) -> Vec<Said> {
        let model = &self.actor.model;
        let (scores, values) = match self.settings.ppo {
            Some(_) => model.score_valued(&groups.packed, &groups.targets),
            None => (model.score(&groups.packed, &groups.targets), vec![0.0; groups.targets.len()]),
        };
        scores.iter().zip(&values).map(|(s, &v)| said(s.logp, s.entropy, v)).collect()
    }

    /// What each token is worth: fills the actions of the completions, `batch` prompt by prompt.
    fn weigh(&mut self, batch: &[usize], measured: &[Measured], scores: &[f64]) {
        let worth = match &self.settings.ppo {
            Some(ppo) => by_token(ppo, self.beta, measured, scores),
            None => by_completion(self.settings.num_generations, self.beta, measured, scores),
        };
        self.actor.rests = worth.iter().flatten().all(|action| action.advantage == 0.0);
        let mut worth = worth.into_iter();
        for prompt in batch {
            let written = self.written.get_mut(prompt).expect("written for this step");
            written.iter_mut().for_each(|w| w.actions = worth.next().expect("one list a completion"));
        }
    }

    fn actions(&self, examples: &[usize]) -> impl Iterator<Item = &[Action]> {
        examples.iter().flat_map(|i| &self.written[i]).map(|written| &written.actions[..])
    }
}

fn said(logp: f32, entropy: f32, value: f32) -> Said {
    Said { logp: f64::from(logp), entropy: f64::from(entropy), value: f64::from(value) }
}

/// PPO's: each token pays for its KL, the last one has the score, and the value head says what was to be expected.
fn by_token(ppo: &PpoSettings, beta: f64, measured: &[Measured], scores: &[f64]) -> Vec<Vec<Action>> {
    let reward = |((_, ratios), score): (&Measured, &f64)| {
        let mut rewards: Vec<f64> = ratios.iter().map(|ratio| -beta * ratio).collect();
        *rewards.last_mut().expect("a completion has a token") += score;
        rewards
    };
    let mut rewards: Vec<Vec<f64>> = measured.iter().zip(scores).map(reward).collect();
    if ppo.whiten_rewards {
        whiten_all(&mut rewards, true);
    }
    let of = |((said, _), rewards): (&Measured, &Vec<f64>)| {
        let values: Vec<f64> = said.iter().map(|s| s.value).collect();
        ppo::advantages(rewards, &values, ppo.gamma, ppo.lam)
    };
    let raw: Vec<Vec<f64>> = measured.iter().zip(&rewards).map(of).collect();
    let mut whitened = raw.clone();
    whiten_all(&mut whitened, false);
    let action = |((said, _), (raw, whitened)): (&Measured, (&Vec<f64>, &Vec<f64>))| {
        let of = |((s, raw), &advantage): ((&Said, &f64), &f64)| Action {
            logp: s.logp,
            value: s.value,
            advantage,
            target: s.value + raw,
        };
        said.iter().zip(raw).zip(whitened).map(of).collect()
    };
    measured.iter().zip(raw.iter().zip(&whitened)).map(action).collect()
}

/// RLOO's: the completion as a whole is what is done.
fn by_completion(k: usize, beta: f64, measured: &[Measured], scores: &[f64]) -> Vec<Vec<Action>> {
    let reward = |((_, ratios), score): (&Measured, &f64)| score - beta * ratios.iter().sum::<f64>();
    let rewards: Vec<f64> = measured.iter().zip(scores).map(reward).collect();
    let advantages: Vec<f64> = rewards.chunks(k).flat_map(rloo::advantages).collect();
    let actions = |((said, _), &advantage): (&Measured, &f64)| {
        said.iter().map(|s| Action { logp: s.logp, value: 0.0, advantage, target: 0.0 }).collect()
    };
    measured.iter().zip(&advantages).map(actions).collect()
}

/// Over all tokens of a step.
fn whiten_all(of_completions: &mut [Vec<f64>], keep_mean: bool) {
    let mut all = of_completions.concat();
    ppo::whiten(&mut all, keep_mean);
    let mut all = all.into_iter();
    of_completions.iter_mut().flatten().for_each(|v| *v = all.next().expect("as many as before"));
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, n) = values.into_iter().fold((0.0, 0u64), |(sum, n), v| (sum + v, n + 1));
    sum / n as f64
}

impl Task for OnlineTask<'_> {
    type Learner = Actor;
    type Pass = Pass;
    /// For each completion of a prompt, what is said of each of its tokens.
    type Output = Vec<Vec<Said>>;
    /// For each token of a prompt's completions, the derivatives by its log-probability and by its value.
    type Gradient = Vec<[f32; 2]>;

    fn learner(&self) -> &Actor {
        &self.actor
    }

    fn learner_mut(&mut self) -> &mut Actor {
        &mut self.actor
    }

    fn identity(&self) -> Digest {
        self.identity
    }

    fn examples(&self) -> usize {
        self.prompts.len()
    }

    fn example_id(&self, example: usize) -> String {
        self.prompts[example].id.clone()
    }

    fn begin(&mut self, seed: u64, step: u64, batch: &[usize]) -> Result<BTreeMap<String, f64>> {
        let prompts: Vec<Prompt> = batch.iter().map(|&i| self.prompts[i].clone()).collect();
        let (samples, said) = self.write(seed, step, &prompts)?;
        let scores = self.reward.scores(&samples)?;
        let penalty = self.settings.missing_eos_penalty;
        let scores: Vec<f64> = samples.iter().zip(scores).map(|(s, r)| if s.finished { r } else { r - penalty }).collect();
        let of_prompts = samples.chunks(self.settings.num_generations);
        let written = |s: &Sampled| Written { ids: s.ids.clone(), actions: Vec::new() };
        self.written = batch.iter().zip(of_prompts).map(|(&i, of)| (i, of.iter().map(written).collect())).collect();
        let measured = self.measured(batch, said);
        self.weigh(batch, &measured, &scores);
        let kl = mean(measured.iter().map(|(_, ratios)| ratios.iter().sum()));
        let score = mean(scores.iter().copied());
        Ok(BTreeMap::from(
            [
                ("objective/scores", score),
                (KL, kl),
                ("objective/entropy", mean(measured.iter().map(|(said, _)| -said.iter().map(|s| s.logp).sum::<f64>()))),
                ("objective/non_score_reward", -self.beta * kl),
                ("objective/rlhf_reward", score - self.beta * kl),
                (COEFFICIENT, self.beta),
                ("completions/mean_length", mean(samples.iter().map(|s| s.ids.len() as f64))),
                ("completions/clipped_ratio", mean(samples.iter().map(|s| f64::from(u8::from(!s.finished))))),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        ))
    }

    fn updates(&self) -> usize {
        self.settings.updates()
    }

    /// PPO's mini-batches share out the prompts, in another order in each of its epochs.
    fn part(&self, seed: u64, step: u64, update: usize, batch: &[usize]) -> Vec<usize> {
        let Some(ppo) = &self.settings.ppo else { return batch.to_vec() };
        let (epoch, mini, n) = (update / ppo.num_mini_batches, update % ppo.num_mini_batches, ppo.num_mini_batches);
        let order = Stream::of(seed, &format!("train/ppo/{epoch}"), step).permutation(batch.len());
        let part = &order[mini * batch.len() / n..(mini + 1) * batch.len() / n];
        // An epoch's last batch may have fewer prompts than there are parts.
        if part.is_empty() { batch.to_vec() } else { part.iter().map(|&i| batch[i]).collect() }
    }

    fn forward(&self, examples: &[usize]) -> (Pass, Vec<Vec<Vec<Said>>>) {
        let groups = self.groups(examples);
        let tape = self.actor.model.forward(&groups.packed, &groups.targets);
        let scores = self.actor.model.token_scores(&tape, &groups.targets);
        let values = match self.settings.ppo {
            Some(_) => self.actor.model.values(&tape, &groups.targets),
            None => vec![0.0; scores.len()],
        };
        let said: Vec<Said> = scores.iter().zip(&values).map(|(s, &v)| said(s.logp, s.entropy, v)).collect();
        let completions: Vec<Vec<Said>> = groups.split(&said).map(<[Said]>::to_vec).collect();
        let outputs = completions.chunks(self.settings.num_generations).map(<[Vec<Said>]>::to_vec).collect();
        (Pass { groups, tape }, outputs)
    }

    fn loss(&self, examples: &[usize], outputs: &[Vec<Vec<Said>>]) -> BatchLoss<Vec<[f32; 2]>> {
        let tokens = |output: &Vec<Vec<Said>>| output.iter().map(Vec::len).sum::<usize>();
        let read: usize = examples.iter().zip(outputs).map(|(&i, o)| self.encoded[i].len() * o.len() + tokens(o)).sum();
        let entropy = mean(outputs.iter().flatten().flatten().map(|said| said.entropy));
        let actions: Vec<&[Action]> = self.actions(examples).collect();
        let said: Vec<&[Said]> = outputs.iter().flatten().map(Vec::as_slice).collect();
        let Losses { loss, of_completions, gradients, mut metrics } = match &self.settings.ppo {
            Some(ppo) => clipped(ppo, &actions, &said),
            None => reinforced(&actions, &said),
        };
        metrics.insert("entropy", entropy);
        let k = self.settings.num_generations;
        BatchLoss {
            loss,
            losses: of_completions.chunks(k).map(|of| of.iter().sum()).collect(),
            gradients: gradients.chunks(k).map(<[_]>::concat).collect(),
            tokens: read as u64,
            metrics: metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    fn backward(&self, pass: Pass, _: &[usize], gradients: &[Vec<[f32; 2]>], grads: &mut Gradients) {
        let [dlogps, dvalues] = [0, 1].map(|which| gradients.iter().flatten().map(|g| g[which]).collect::<Vec<f32>>());
        let Pass { groups, tape } = pass;
        let dvalues = self.settings.ppo.is_some().then_some(&dvalues[..]);
        self.actor.model.backward_valued(tape, &groups.packed, &groups.targets, &dlogps, dvalues, grads);
    }

    fn recall(&mut self, last: &Metrics) {
        if let Some(target) = self.settings.target_kl {
            self.beta = coefficient::next(last.values[COEFFICIENT], last.values[KL], target);
        }
    }

    /// Nothing was updated yet, so the policy is the one that wrote.
    fn check_first_step(&self, examples: &[usize], outputs: &[Vec<Vec<Said>>], _: f64) -> Result<()> {
        let said = outputs.iter().flatten().flatten().map(|said| said.logp);
        let wrote = self.actions(examples).flatten().map(|action| action.logp);
        let exact = self.actor.model.numerics == Numerics::Strict;
        match said.zip(wrote).find(|(a, b)| if exact { a != b } else { (a - b).abs() > 1e-4 }) {
            None => Ok(()),
            Some((now, then)) => Err(Error::unexpected(format!(
                "before the first update a token's log-probability is {now}, and was {then} when it was written"
            ))
            .help("this is a defect of the generator or of the model; please report it with the suite file")),
        }
    }
}

/// What an objective makes of a part of a batch: completions in order, their tokens in order.
struct Losses {
    loss: f64,
    of_completions: Vec<f64>,
    gradients: Vec<Vec<[f32; 2]>>,
    metrics: BTreeMap<&'static str, f64>,
}

/// PPO's: means over tokens.
fn clipped(ppo: &PpoSettings, actions: &[&[Action]], said: &[&[Said]]) -> Losses {
    let of = |(actions, said): (&&[Action], &&[Said])| -> Vec<ppo::TokenLoss> {
        actions.iter().zip(*said).map(|(action, now)| ppo::token_loss(ppo, action, now.logp, now.value)).collect()
    };
    let tokens: Vec<Vec<ppo::TokenLoss>> = actions.iter().zip(said).map(of).collect();
    let n = tokens.iter().map(Vec::len).sum::<usize>() as f64;
    let mean = |value: &dyn Fn(&ppo::TokenLoss) -> f64| tokens.iter().flatten().map(value).sum::<f64>() / n;
    let [policy, value] = [mean(&|t| t.policy), mean(&|t| t.value)];
    let share = |which: usize| mean(&|t: &ppo::TokenLoss| f64::from(u8::from(t.clipped[which])));
    let moved = |t: &ppo::TokenLoss| 0.5 * libm::pow(libm::log(t.ratio), 2.0);
    let gradient = |t: &ppo::TokenLoss| [(t.dlogp / n) as f32, (ppo.vf_coef * t.dvalue / n) as f32];
    Losses {
        loss: policy + ppo.vf_coef * value,
        of_completions: tokens.iter().map(|of| of.iter().map(|t| (t.policy + ppo.vf_coef * t.value) / n).sum()).collect(),
        gradients: tokens.iter().map(|of| of.iter().map(gradient).collect()).collect(),
        metrics: BTreeMap::from([
            ("loss/policy_avg", policy),
            ("loss/value_avg", value),
            ("policy/clipfrac_avg", share(0)),
            ("val/clipfrac_avg", share(1)),
            ("policy/approxkl_avg", mean(&moved)),
            ("val/ratio", mean(&|t| t.ratio)),
        ]),
    }
}

/// RLOO's: −A log π(y), a mean over completions.
fn reinforced(actions: &[&[Action]], said: &[&[Said]]) -> Losses {
    let n = said.len() as f64;
    let worth = |actions: &[Action]| actions.first().map_or(0.0, |action| action.advantage);
    let of_completions: Vec<f64> =
        actions.iter().zip(said).map(|(a, s)| -worth(a) * s.iter().map(|s| s.logp).sum::<f64>() / n).collect();
    let gradients = actions.iter().map(|a| vec![[(-worth(a) / n) as f32, 0.0]; a.len()]).collect();
    Losses { loss: of_completions.iter().sum(), of_completions, gradients, metrics: BTreeMap::new() }
}
