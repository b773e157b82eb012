//! The judging protocol: a policy's completion against the reference's for the same prompt and sample.
//!
//! A pairwise judge is always asked in both presentation orders. With l_pf the logit of "the first is better" when the
//! policy stands first and l_rf when the reference does, the debiased preference is σ((l_pf − l_rf) / 2) and the position
//! effect (l_pf + l_rf) / 2: a judge that only likes the first place gives ½ and a large effect (LLM-Blender, Jiang et al.
//! 2023, averages its two orders so). A reward model gives σ(s_policy − s_reference) (Bradley–Terry). Identical texts are a
//! tie without asking, and logits up to the judge's `tie_width` are ties.

use std::collections::BTreeMap;

use crate::data::Pair;
use crate::error::{Error, Result};
use crate::generate::Completion;
use crate::judge::reader::Question;
use crate::judge::session::OnnxJudge;
use crate::judge::{JudgeTrial, Judgment, Outcome};
use crate::suite::settings::JudgeKind;
use crate::train::objective::logistic;
use crate::watch::Watch;

/// Two completions of one prompt and sample index.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    pub policy: &'a Completion,
    pub reference: &'a Completion,
}

/// Joins completions of policies with the reference's by prompt and sample index, in the policies' order.
pub fn items<'a>(policies: &'a [Completion], references: &'a [Completion]) -> Result<Vec<Item<'a>>> {
    let by_place: BTreeMap<(&str, u32), &Completion> = references.iter().map(|c| ((c.prompt_id.as_str(), c.sample), c)).collect();
    let join = |policy: &'a Completion| {
        let reference = by_place.get(&(policy.prompt_id.as_str(), policy.sample)).copied().ok_or_else(|| {
            let (prompt, sample) = (&policy.prompt_id, policy.sample);
            Error::input(format!("the reference has no completion of prompt {prompt}, sample {sample}, to compare with"))
        })?;
        if policy.prompt != reference.prompt {
            let prompt = &policy.prompt_id;
            return Err(Error::input(format!("policy and reference completed different texts under the prompt id {prompt}")));
        }
        Ok(Item { policy, reference })
    };
    policies.iter().map(join).collect()
}

/// Which of two completions a judge prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Of the first.
    pub outcome: Outcome,
    /// Whether they were too long for the judge to read as a whole.
    pub truncated: bool,
}

/// What a judge says of two texts, first against second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Verdict {
    /// (first shown first, second shown first) for pairwise judges.
    logits: Option<(f64, f64)>,
    /// (first, second) for reward models.
    scores: Option<(f64, f64)>,
    truncated: bool,
    asked: bool,
}

impl Verdict {
    const IDENTICAL: Self = Self { logits: None, scores: None, truncated: false, asked: false };

    /// The debiased logit that the first is better; 0 for identical texts.
    fn logit(&self) -> f64 {
        match (self.logits, self.scores) {
            (Some((first_first, second_first)), _) => (first_first - second_first) / 2.0,
            (None, Some((first, second))) => first - second,
            (None, None) => 0.0,
        }
    }

    fn position_effect(&self) -> Option<f64> {
        self.logits.map(|(first_first, second_first)| (first_first + second_first) / 2.0)
    }

    fn outcome(&self, tie_width: f64) -> Outcome {
        let logit = self.logit();
        if logit.abs() <= tie_width {
            Outcome::Tie
        } else if logit > 0.0 {
            Outcome::Win
        } else {
            Outcome::Loss
        }
    }
}

impl OnnxJudge {
    /// One judgment an item, in order.
    pub fn judge(&mut self, items: &[Item], watch: &dyn Watch) -> Result<Vec<Judgment>> {
        let texts: Vec<[&str; 3]> = items.iter().map(|i| [i.policy.prompt.as_str(), &i.policy.text, &i.reference.text]).collect();
        let verdicts = self.verdicts(&texts, watch)?;
        let settings = &self.settings;
        let judgment = |(item, verdict): (&Item, Verdict)| Judgment {
            judge: settings.name.clone(),
            variant: item.policy.variant.clone(),
            seed: item.policy.seed,
            checkpoint: item.policy.checkpoint,
            prompt_id: item.policy.prompt_id.clone(),
            sample: item.policy.sample,
            logit_policy_first: verdict.logits.map(|l| l.0),
            logit_reference_first: verdict.logits.map(|l| l.1),
            score_policy: verdict.scores.map(|s| s.0),
            score_reference: verdict.scores.map(|s| s.1),
            preference: logistic(verdict.logit()),
            outcome: verdict.outcome(settings.tie_width),
            position_effect: verdict.position_effect(),
            asked: verdict.asked,
            truncated: verdict.truncated,
        };
        Ok(items.iter().zip(verdicts).map(judgment).collect())
    }

    /// What the judge says of `[prompt, first, second]`, in order, by the same protocol.
    pub fn compare(&mut self, texts: &[[&str; 3]], watch: &dyn Watch) -> Result<Vec<Comparison>> {
        let tie_width = self.settings.tie_width;
        let comparison = |verdict: Verdict| Comparison { outcome: verdict.outcome(tie_width), truncated: verdict.truncated };
        Ok(self.verdicts(texts, watch)?.into_iter().map(comparison).collect())
    }

    /// The judge's answers on labelled pairs, from which its fitness is measured. The better side is that of the higher
    /// gold reward where the truth is known (and differs), else the chosen one.
    pub fn trials(&mut self, pairs: &[Pair], watch: &dyn Watch) -> Result<Vec<JudgeTrial>> {
        let sides: Vec<_> = pairs.iter().map(better_and_worse).collect();
        let texts: Vec<[&str; 3]> =
            pairs.iter().zip(&sides).map(|(p, (better, worse, _))| [p.prompt.as_str(), *better, *worse]).collect();
        let verdicts = self.verdicts(&texts, watch)?;
        let length = |text: &str| text.chars().count() as i64;
        let trial = |((pair, (better, worse, gold)), verdict): ((&Pair, &Sides), Verdict)| JudgeTrial {
            judge: self.settings.name.clone(),
            pair_id: pair.id.clone(),
            prompt_id: pair.prompt_id.clone(),
            preference: logistic(verdict.logit()),
            position_effect: verdict.position_effect(),
            gold_better: gold.map(|g| g.0),
            gold_worse: gold.map(|g| g.1),
            length_difference: length(better) - length(worse),
        };
        Ok(pairs.iter().zip(&sides).zip(verdicts).map(trial).collect())
    }

    /// Verdicts on `[prompt, first, second]`, in order.
    fn verdicts(&mut self, texts: &[[&str; 3]], watch: &dyn Watch) -> Result<Vec<Verdict>> {
        let kind = self.settings.kind;
        let asked: Vec<bool> = texts.iter().map(|[_, first, second]| first != second).collect();
        let mut questions: Vec<Question> = Vec::new();
        for [prompt, first, second] in texts.iter().zip(&asked).filter(|(_, asked)| **asked).map(|(t, _)| *t) {
            match kind {
                JudgeKind::Pairwise => {
                    questions.push(self.reader.read(&[prompt, first, second])?);
                    questions.push(self.reader.read(&[prompt, second, first])?);
                }
                JudgeKind::RewardModel => {
                    questions.push(self.reader.read(&[prompt, first])?);
                    questions.push(self.reader.read(&[prompt, second])?);
                }
            }
        }
        let answers = self.ask(&questions, watch)?;
        let mut answered = questions.chunks_exact(2).zip(answers.chunks_exact(2)).map(|(questions, answers)| {
            let both = Some((answers[0], answers[1]));
            let truncated = questions.iter().any(|q| q.truncated);
            match kind {
                JudgeKind::Pairwise => Verdict { logits: both, scores: None, truncated, asked: true },
                JudgeKind::RewardModel => Verdict { logits: None, scores: both, truncated, asked: true },
            }
        });
        Ok(asked.iter().map(|&a| if a { answered.next() } else { None }.unwrap_or(Verdict::IDENTICAL)).collect())
    }
}

/// The better text, the worse, and their gold rewards.
type Sides<'a> = (&'a str, &'a str, Option<(f64, f64)>);

fn better_and_worse(pair: &Pair) -> Sides<'_> {
    let (chosen, rejected) = (pair.chosen.as_str(), pair.rejected.as_str());
    match pair.gold {
        Some(gold) if gold.rejected > gold.chosen => (rejected, chosen, Some((gold.rejected, gold.chosen))),
        Some(gold) => (chosen, rejected, Some((gold.chosen, gold.rejected))),
        None => (chosen, rejected, None),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::data::GoldPair;
    use crate::judge::onnx::llama::tests::{bytes, config, random};
    use crate::judge::reader::tests::{PAIRWISE, REWARD, tokenizer};
    use crate::judge::session::MODEL_FILE;
    use crate::suite::settings::{JudgeSettings, JudgeSource, OnnxSettings};
    use crate::watch::Silent;

    pub(crate) fn completion(variant: &str, prompt: usize, text: &str) -> Completion {
        Completion {
            variant: variant.to_owned(),
            seed: (variant != crate::generate::REFERENCE).then_some(1),
            checkpoint: 10,
            prompt_id: format!("p{prompt}"),
            sample: 0,
            prompt: format!("Say something about lamp {prompt}."),
            text: text.to_owned(),
            tokens: 5,
            finished: true,
            policy_logp: 0.0,
            reference_logp: 0.0,
            kl: 0.0,
            gold: None,
        }
    }

    fn judge(kind: JudgeKind, tie_width: f64) -> (tempfile::TempDir, OnnxJudge) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MODEL_FILE), bytes(&random())).unwrap();
        tokenizer().save(folder.path()).unwrap();
        let template = if kind == JudgeKind::Pairwise { PAIRWISE } else { REWARD };
        let settings = JudgeSettings {
            name: "j".to_owned(),
            kind,
            source: JudgeSource::Folder { path: folder.path().to_owned() },
            template: template.to_owned().into(),
            max_length: Some(config().max_position_embeddings),
            tie_width,
            min_accuracy: 0.5,
            onnx: OnnxSettings::default(),
        };
        let judge = OnnxJudge::open(folder.path(), &settings, 2).unwrap();
        (folder, judge)
    }

    const TEXTS: [(&str, &str); 3] = [("It is bright.", "It is dull."), ("Same.", "Same."), ("Good", "The kettle is 3.")];

    fn sides(swap: bool) -> (Vec<Completion>, Vec<Completion>) {
        let side = |i: usize, a: &str, b: &str| (completion("dpo", i, a), completion("reference", i, b));
        TEXTS.iter().enumerate().map(|(i, (a, b))| if swap { side(i, b, a) } else { side(i, a, b) }).unzip()
    }

    #[test]
    fn swapping_policy_and_reference_turns_every_verdict_around() {
        for kind in [JudgeKind::Pairwise, JudgeKind::RewardModel] {
            let (_folder, mut judge) = judge(kind, 0.0);
            let (policy, reference) = sides(false);
            let straight = judge.judge(&items(&policy, &reference).unwrap(), &Silent).unwrap();
            let (policy, reference) = sides(true);
            let swapped = judge.judge(&items(&policy, &reference).unwrap(), &Silent).unwrap();
            for (a, b) in straight.iter().zip(&swapped) {
                assert!((a.preference + b.preference - 1.0).abs() < 1e-15);
                assert_eq!(a.logit_policy_first, b.logit_reference_first);
                assert_eq!(a.score_policy, b.score_reference);
                assert_eq!(a.position_effect, b.position_effect);
                let turned = match a.outcome {
                    Outcome::Win => Outcome::Loss,
                    Outcome::Tie => Outcome::Tie,
                    Outcome::Loss => Outcome::Win,
                };
                assert_eq!(b.outcome, turned);
            }
            assert!(straight[0].asked && straight[0].outcome != Outcome::Tie);
            assert_eq!(straight[0].logit_policy_first.is_some(), kind == JudgeKind::Pairwise);
        }
    }

    #[test]
    fn identical_texts_tie_without_asking() {
        let (_folder, mut judge) = judge(JudgeKind::Pairwise, 0.0);
        let (policy, reference) = sides(false);
        let judgment = &judge.judge(&items(&policy, &reference).unwrap(), &Silent).unwrap()[1];
        assert_eq!((judgment.asked, judgment.outcome, judgment.preference), (false, Outcome::Tie, 0.5));
        assert_eq!(judgment.logit_policy_first, None);
    }

    #[test]
    fn logits_within_the_tie_width_are_ties_and_keep_their_preference() {
        let (_folder, mut judge) = judge(JudgeKind::Pairwise, 1e6);
        let (policy, reference) = sides(false);
        let judgment = &judge.judge(&items(&policy, &reference).unwrap(), &Silent).unwrap()[0];
        assert_eq!(judgment.outcome, Outcome::Tie);
        assert_ne!(judgment.preference, 0.5);
    }

    #[test]
    fn questions_beyond_the_maximum_length_are_judged_and_counted() {
        let (_folder, mut judge) = judge(JudgeKind::Pairwise, 0.0);
        let (mut policy, reference) = sides(false);
        policy[0].text = "very ".repeat(60);
        let judgments = judge.judge(&items(&policy, &reference).unwrap(), &Silent).unwrap();
        assert!(judgments[0].truncated && !judgments[1].truncated);
    }

    #[test]
    fn a_completion_without_its_counterpart_is_an_error() {
        let (policy, mut reference) = sides(false);
        reference.remove(2);
        let error = items(&policy, &reference).unwrap_err();
        assert!(error.message.contains("prompt p2, sample 0"), "{error}");
    }

    #[test]
    fn trials_take_the_better_side_from_gold_and_else_from_the_label() {
        let pair = |gold| Pair {
            id: "1".to_owned(),
            prompt_id: "p".to_owned(),
            prompt: "Say.".to_owned(),
            chosen: "It is bright.".to_owned(),
            rejected: "No.".to_owned(),
            gold,
        };
        let flipped = pair(Some(GoldPair { chosen: -1.0, rejected: 2.0 }));
        let (_folder, mut judge) = judge(JudgeKind::RewardModel, 0.0);
        let trials = judge.trials(&[pair(None), flipped], &Silent).unwrap();
        assert!((trials[0].preference + trials[1].preference - 1.0).abs() < 1e-15);
        assert_eq!((trials[0].length_difference, trials[1].length_difference), (10, -10));
        assert_eq!((trials[0].gold_better, trials[1].gold_better), (None, Some(2.0)));
    }
}
