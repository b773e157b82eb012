//! A policy as a judge: the reward that it implies. DPO's is β (log π(y|x) − log π_ref(y|x)) (Rafailov et al. 2023, eq. 5); RewardBench
//! (Lambert et al. 2024, arXiv 2403.13787, §4.1 and `rewardbench/dpo.py`) ranks policies by it, and without a reference by the sum, the mean
//! or minus the norm of the tokens' log-probabilities. Tokens are the completion's, end of text included.
//!
//! What is longer than `max_length` loses the beginning of its prompt, all but its first token, and then the end of its completion.

use serde::Serialize;

use crate::data::tokenize::TextTokenizer;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::asking::{Answer, Question, Respondent};
use crate::model::{Llama, TokenScore};
use crate::suite::settings::{ImplicitReward, JudgeKind, Numerics};
use crate::train::{Group, PackedGroups};
use crate::watch::Watch;

/// Sequences that go through the model together; which ones changes no bit.
const TOGETHER: usize = 32;

pub struct Implicit {
    policy: Llama,
    /// Of `log_ratio` alone.
    reference: Option<Llama>,
    tokenizer: TextTokenizer,
    reward: ImplicitReward,
    beta: f64,
    max_length: usize,
}

/// Everything that can change an answer.
#[derive(Serialize)]
pub struct Identity {
    kind: &'static str,
    numerics: Numerics,
    config: serde_json::Value,
    policy: Digest,
    reference: Option<(serde_json::Value, Digest)>,
    tokenizer: Digest,
    templated: bool,
    reward: ImplicitReward,
    beta: f64,
    max_length: usize,
}

impl Implicit {
    /// `max_length` is lowered to what the models read.
    pub fn new(
        policy: Llama,
        reference: Option<Llama>,
        tokenizer: TextTokenizer,
        reward: ImplicitReward,
        beta: f64,
        max_length: usize,
    ) -> Result<Self> {
        if let Some(reference) = &reference
            && reference.config.vocab_size != policy.config.vocab_size
        {
            return Err(Error::input(format!(
                "the judging policy has a vocabulary of {} tokens, its reference of {}",
                policy.config.vocab_size, reference.config.vocab_size
            ))
            .help("both must share a tokenizer: their token log-probabilities are compared"));
        }
        let models = std::iter::once(&policy).chain(&reference);
        let context = models.map(|model| model.config.max_position_embeddings).min().unwrap_or(max_length);
        Ok(Self { policy, reference, tokenizer, reward, beta, max_length: max_length.min(context) })
    }

    pub fn identity(&self) -> Identity {
        let config = |model: &Llama| serde_json::to_value(model.config.causal_json()).expect("a configuration is plain data");
        Identity {
            kind: "implicit",
            numerics: self.policy.numerics,
            config: config(&self.policy),
            policy: self.policy.parameters.digest(),
            reference: self.reference.as_ref().map(|r| (config(r), r.parameters.digest())),
            tokenizer: self.tokenizer.digest(),
            templated: self.tokenizer.is_templated(),
            reward: self.reward,
            beta: self.beta,
            max_length: self.max_length,
        }
    }

    fn read(&self, question: &Question) -> Result<Read> {
        let (text, completion) = (question[0], question[1]);
        let mut prompt = self.tokenizer.prompt(text);
        let mut completion = self.tokenizer.completion(text, &prompt, completion).ids;
        if prompt.is_empty() || completion.is_empty() {
            let part = if prompt.is_empty() { "prompt" } else { "completion" };
            return Err(Error::input(format!("the {part} of {text:?} has no tokens for the judging policy to read")));
        }
        let excess = (prompt.len() + completion.len()).saturating_sub(self.max_length);
        let of_prompt = excess.min(prompt.len() - 1);
        prompt.drain(1..1 + of_prompt);
        completion.truncate(completion.len() - (excess - of_prompt).min(completion.len() - 1));
        if let Some(id) = prompt.iter().chain(&completion).find(|&&id| id as usize >= self.policy.config.vocab_size) {
            let size = self.policy.config.vocab_size;
            return Err(Error::input(format!("token {id} is outside the judging policy's vocabulary of {size}")));
        }
        Ok(Read { prompt, completion, truncated: excess > 0 })
    }

    /// The reward of each completion.
    fn rewards(&self, read: &[Read]) -> Vec<f64> {
        let packed = PackedGroups::of(read.iter().map(|r| Group { prompt: &r.prompt, completions: vec![&r.completion] }));
        let scores = |model: &Llama| model.score(&packed.packed, &packed.targets);
        let policy = scores(&self.policy);
        let sum = |tokens: &[TokenScore]| tokens.iter().map(|t| f64::from(t.logp)).sum::<f64>();
        match (&self.reference, self.reward) {
            (Some(reference), _) => {
                let reference = scores(reference);
                packed.split(&policy).zip(packed.split(&reference)).map(|(p, r)| sum(p) - sum(r)).collect()
            }
            (None, ImplicitReward::LogRatio | ImplicitReward::Sum) => packed.split(&policy).map(sum).collect(),
            (None, ImplicitReward::Avg) => packed.split(&policy).map(|tokens| sum(tokens) / tokens.len() as f64).collect(),
            (None, ImplicitReward::Norm) => packed.split(&policy).map(|tokens| -norm(tokens)).collect(),
        }
    }
}

fn norm(tokens: &[TokenScore]) -> f64 {
    tokens.iter().map(|t| f64::from(t.logp) * f64::from(t.logp)).sum::<f64>().sqrt()
}

/// A question as token ids.
struct Read {
    prompt: Vec<u32>,
    completion: Vec<u32>,
    truncated: bool,
}

impl Respondent for Implicit {
    fn form(&self) -> JudgeKind {
        JudgeKind::RewardModel
    }

    fn answers(&mut self, questions: &[&Question], watch: &dyn Watch) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(questions.len());
        for chunk in questions.chunks(TOGETHER) {
            watch.check()?;
            let read = chunk.iter().map(|question| self.read(question)).collect::<Result<Vec<_>>>()?;
            let rewards = self.rewards(&read);
            answers.extend(
                read.iter().zip(rewards).map(|(read, reward)| Answer { value: self.beta * reward, truncated: read.truncated }),
            );
            watch.advance(answers.len() as u64, questions.len() as u64, "completions");
        }
        Ok(answers)
    }
}
