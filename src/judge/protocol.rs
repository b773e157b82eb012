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
use crate::judge::verdict::{Item, Judge, Texts, Verdict};
use crate::judge::{JudgeTrial, Judgment, Outcome};
use crate::watch::Watch;

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

/// One judgment an item, in order; items of which the judge has nothing to say are left out.
pub fn judgments(judge: &mut dyn Judge, name: &str, items: &[Item], watch: &dyn Watch) -> Result<Vec<Judgment>> {
    let judgment = |(item, verdict): (&Item, Option<Verdict>)| {
        verdict.map(|verdict| Judgment {
            judge: name.to_owned(),
            variant: item.policy.variant.clone(),
            seed: item.policy.seed,
            checkpoint: item.policy.checkpoint,
            prompt_id: item.policy.prompt_id.clone(),
            sample: item.policy.sample,
            logit_policy_first: verdict.logits.map(|l| l.0),
            logit_reference_first: verdict.logits.map(|l| l.1),
            score_policy: verdict.scores.map(|s| s.0),
            score_reference: verdict.scores.map(|s| s.1),
            preference: verdict.preference,
            outcome: verdict.outcome,
            position_effect: verdict.position_effect(),
            asked: verdict.asked,
            truncated: verdict.truncated,
        })
    };
    Ok(items.iter().zip(judge.of_items(items, watch)?).filter_map(judgment).collect())
}

/// What the judge says of each of `texts`, in order; none where it has nothing to say.
pub fn compare(judge: &mut dyn Judge, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Comparison>>> {
    let comparison = |verdict: Verdict| Comparison { outcome: verdict.outcome, truncated: verdict.truncated };
    Ok(judge.verdicts(texts, watch)?.into_iter().map(|verdict| verdict.map(comparison)).collect())
}

/// The judge's answers on labelled pairs, from which its fitness is measured. The better side is that of the higher
/// gold reward where the truth is known (and differs), else the chosen one.
pub fn trials(judge: &mut dyn Judge, name: &str, pairs: &[Pair], watch: &dyn Watch) -> Result<Vec<JudgeTrial>> {
    let sides: Vec<_> = pairs.iter().map(better_and_worse).collect();
    let texts: Vec<Texts> =
        pairs.iter().zip(&sides).map(|(p, (better, worse, _))| [p.prompt.as_str(), *better, *worse]).collect();
    let length = |text: &str| text.chars().count() as i64;
    let trial = |((pair, (better, worse, gold)), verdict): ((&Pair, &Sides), Option<Verdict>)| {
        verdict.map(|verdict| JudgeTrial {
            judge: name.to_owned(),
            pair_id: pair.id.clone(),
            prompt_id: pair.prompt_id.clone(),
            preference: verdict.preference,
            position_effect: verdict.position_effect(),
            gold_better: gold.map(|g| g.0),
            gold_worse: gold.map(|g| g.1),
            length_difference: length(better) - length(worse),
        })
    };
    let verdicts = judge.verdicts(&texts, watch)?;
    Ok(pairs.iter().zip(&sides).zip(verdicts).filter_map(trial).collect())
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
    use crate::judge::asking::Asking;
    use crate::judge::onnx::classifier::tests::{bytes, config, random};
    use crate::judge::reader::tests::{PAIRWISE, REWARD, tokenizer};
    use crate::judge::session::{MODEL_FILE, OnnxJudge};
    use crate::suite::settings::{EncodingSettings, FitnessSettings, JudgeKind, JudgeSettings, JudgeSource, OnnxSettings};
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
            policy_logp: Some(0.0),
            reference_logp: 0.0,
            kl: Some(0.0),
            kl_k3: Some(0.0),
            entropy: Some(0.0),
            gold: None,
        }
    }

    pub(crate) fn judge(kind: JudgeKind, tie_width: f64) -> (tempfile::TempDir, Asking<'static, OnnxJudge>) {
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
            encoding: EncodingSettings::default(),
            onnx: OnnxSettings::default(),
            fitness: FitnessSettings::default(),
        };
        let judge = OnnxJudge::open(folder.path(), &settings, 2).unwrap();
        (folder, Asking::new("j", judge, tie_width, None))
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
            let straight = judgments(&mut judge, "j", &items(&policy, &reference).unwrap(), &Silent).unwrap();
            let (policy, reference) = sides(true);
            let swapped = judgments(&mut judge, "j", &items(&policy, &reference).unwrap(), &Silent).unwrap();
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
        let judgment = &judgments(&mut judge, "j", &items(&policy, &reference).unwrap(), &Silent).unwrap()[1];
        assert_eq!((judgment.asked, judgment.outcome, judgment.preference), (false, Outcome::Tie, 0.5));
        assert_eq!(judgment.logit_policy_first, None);
    }

    #[test]
    fn logits_within_the_tie_width_are_ties_and_keep_their_preference() {
        let (_folder, mut judge) = judge(JudgeKind::Pairwise, 1e6);
        let (policy, reference) = sides(false);
        let judgment = &judgments(&mut judge, "j", &items(&policy, &reference).unwrap(), &Silent).unwrap()[0];
        assert_eq!(judgment.outcome, Outcome::Tie);
        assert_ne!(judgment.preference, 0.5);
    }

    #[test]
    fn questions_beyond_the_maximum_length_are_judged_and_counted() {
        let (_folder, mut judge) = judge(JudgeKind::Pairwise, 0.0);
        let (mut policy, reference) = sides(false);
        policy[0].text = "very ".repeat(60);
        let judgments = super::judgments(&mut judge, "j", &items(&policy, &reference).unwrap(), &Silent).unwrap();
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
        let trials = super::trials(&mut judge, "j", &[pair(None), flipped], &Silent).unwrap();
        assert!((trials[0].preference + trials[1].preference - 1.0).abs() < 1e-15);
        assert_eq!((trials[0].length_difference, trials[1].length_difference), (10, -10));
        assert_eq!((trials[0].gold_better, trials[1].gold_better), (None, Some(2.0)));
    }
}
