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
use crate::model::{Causal, Llama, TokenScore};
use crate::suite::settings::{ImplicitReward, JudgeKind, Numerics};
use crate::train::{Group, PackedGroups};
use crate::watch::Watch;

/// Sequences that go through the model together; which ones changes no bit.
const TOGETHER: usize = 32;

pub struct Implicit {
    policy: Box<dyn Causal>,
    /// Of `log_ratio` alone.
    reference: Option<Box<dyn Causal>>,
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
        policy: Box<dyn Causal>,
        reference: Option<Box<dyn Causal>>,
        tokenizer: TextTokenizer,
        reward: ImplicitReward,
        beta: f64,
        max_length: usize,
    ) -> Result<Self> {
        let limits = policy.limits();
        if let Some(reference) = &reference
            && reference.limits().vocab_size != limits.vocab_size
        {
            return Err(Error::input(format!(
                "the judging policy has a vocabulary of {} tokens, its reference of {}",
                limits.vocab_size,
                reference.limits().vocab_size
            ))
            .help("both must share a tokenizer: their token log-probabilities are compared"));
        }
        let models = std::iter::once(&policy).chain(&reference);
        let context = models.map(|model| model.limits().context).min().unwrap_or(max_length);
        Ok(Self { policy, reference, tokenizer, reward, beta, max_length: max_length.min(context) })
    }

    /// # Panics
    /// Where a model isn't computed here: what such a one says depends on the machine too, and isn't kept.
    pub fn identity(&self) -> Identity {
        let config = |model: &Llama| serde_json::to_value(model.config.causal_json()).expect("a configuration is plain data");
        let own = |model: &'_ dyn Causal| {
            let model = model.own().expect("a model that is computed here");
            (config(model), model.parameters.digest(), model.numerics)
        };
        let (policy_config, policy, numerics) = own(self.policy.as_ref());
        Identity {
            kind: "implicit",
            numerics,
            config: policy_config,
            policy,
            reference: self
                .reference
                .as_ref()
                .map(|reference| own(reference.as_ref()))
                .map(|(config, digest, _)| (config, digest)),
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
        let size = self.policy.limits().vocab_size;
        if let Some(id) = prompt.iter().chain(&completion).find(|&&id| id as usize >= size) {
            return Err(Error::input(format!("token {id} is outside the judging policy's vocabulary of {size}")));
        }
        Ok(Read { prompt, completion, truncated: excess > 0 })
    }

    /// The reward of each completion.
    fn rewards(&self, read: &[Read]) -> Vec<f64> {
        let packed = PackedGroups::of(read.iter().map(|r| Group { prompt: &r.prompt, completions: vec![&r.completion] }));
        let scores = |model: &dyn Causal| model.score(&packed.packed, &packed.targets);
        let policy = scores(self.policy.as_ref());
        let sum = |tokens: &[TokenScore]| tokens.iter().map(|t| f64::from(t.logp)).sum::<f64>();
        match (&self.reference, self.reward) {
            (Some(reference), _) => {
                let reference = scores(reference.as_ref());
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::judge::asking::Asking;
    use crate::judge::verdict::Judge;
    use crate::model::Parameters;
    use crate::watch::Silent;

    /// A model that TRL trained, and the one that it started from; none, said aloud, where the shared folder is absent.
    fn models() -> Option<(Llama, Llama, TextTokenizer)> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference/trl_parity"));
        if !folder.exists() {
            eprintln!("skipped: {} is absent", folder.display());
            return None;
        }
        let trained = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("model/config.json"), trained.path().join("config.json")).unwrap();
        std::fs::copy(folder.join("sigmoid_adamw/final.safetensors"), trained.path().join("model.safetensors")).unwrap();
        let load = |folder: &std::path::Path| Llama::load(folder).unwrap();
        let tokenizer = TextTokenizer::load(&folder.join("model")).unwrap();
        Some((load(trained.path()), load(&folder.join("model")), tokenizer))
    }

    fn boxed(model: &Llama) -> Box<dyn Causal> {
        Box::new(model.clone())
    }

    fn recorded() -> Vec<Value> {
        let text = include_str!("../../golden/judges/implicit.json");
        serde_json::from_str::<Value>(text).unwrap()["rows"].as_array().unwrap().clone()
    }

    #[test]
    fn rewards_are_those_of_rewardbench() {
        let Some((policy, reference, tokenizer)) = models() else { return };
        let rows = recorded();
        let texts: Vec<[&str; 2]> =
            rows.iter().map(|row| [row["prompt"].as_str().unwrap(), row["completion"].as_str().unwrap()]).collect();
        for (reward, name) in [
            (ImplicitReward::LogRatio, "log_ratio"),
            (ImplicitReward::Sum, "sum"),
            (ImplicitReward::Avg, "avg"),
            (ImplicitReward::Norm, "norm"),
        ] {
            let reference = (reward == ImplicitReward::LogRatio).then(|| boxed(&reference));
            let judge = Implicit::new(boxed(&policy), reference, tokenizer.clone(), reward, 0.5, 512).unwrap();
            let scores = Asking::new("own", judge, 0.0, None).scores(&texts, &Silent).unwrap().unwrap();
            for (row, score) in rows.iter().zip(scores) {
                let expected = 0.5 * row[name].as_f64().unwrap();
                assert!((score - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name}: {score} for {expected}");
            }
        }
    }

    #[test]
    fn a_question_beyond_the_length_loses_its_prompts_beginning_and_is_counted() {
        let Some((policy, _, tokenizer)) = models() else { return };
        let row = recorded().remove(0);
        let question = vec![row["prompt"].as_str().unwrap(), row["completion"].as_str().unwrap()];
        let read = |max_length| {
            let (policy, tokenizer) = (boxed(&policy), tokenizer.clone());
            Implicit::new(policy, None, tokenizer, ImplicitReward::Sum, 1.0, max_length).unwrap().read(&question).unwrap()
        };
        let whole = read(512);
        let length = whole.prompt.len() + whole.completion.len();
        assert!(!whole.truncated && !read(length).truncated);
        let cut = read(length - 3);
        assert!(cut.truncated);
        assert_eq!((cut.prompt[0], &cut.prompt[1..]), (whole.prompt[0], &whole.prompt[4..]));
        assert_eq!(cut.completion, whole.completion);
        let short = read(5);
        assert_eq!((short.prompt.len(), short.completion), (1, whole.completion[..4].to_vec()));
    }

    #[test]
    fn a_judges_identity_is_its_weights_and_how_they_are_read() {
        let Some((policy, reference, tokenizer)) = models() else { return };
        let of = |policy: &Llama, reference: Option<&Llama>, reward, beta| {
            let (policy, reference) = (boxed(policy), reference.map(boxed));
            let judge = Implicit::new(policy, reference, tokenizer.clone(), reward, beta, 512).unwrap();
            Digest::of_value(&judge.identity())
        };
        let mut other = policy.clone();
        let parameters: &mut Parameters = &mut other.parameters;
        parameters.get_mut("model.norm.weight").values[0] += 1.0;
        let identities = [
            of(&policy, Some(&reference), ImplicitReward::LogRatio, 0.1),
            of(&other, Some(&reference), ImplicitReward::LogRatio, 0.1),
            of(&policy, Some(&policy), ImplicitReward::LogRatio, 0.1),
            of(&policy, Some(&reference), ImplicitReward::LogRatio, 0.2),
            of(&policy, None, ImplicitReward::Sum, 0.1),
            of(&policy, None, ImplicitReward::Avg, 0.1),
        ];
        let distinct: std::collections::BTreeSet<String> = identities.iter().map(Digest::to_string).collect();
        assert_eq!(distinct.len(), identities.len());
        assert_eq!(identities[0], of(&policy, Some(&reference), ImplicitReward::LogRatio, 0.1));
    }
}
