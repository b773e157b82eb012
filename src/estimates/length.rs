//! The win rate that a judge would give if both completions were equally long, from a run's rows.

use std::collections::BTreeMap;

use crate::generate::{Completion, REFERENCE};
use crate::judge::Judgment;
use crate::statistics::length_control::{Data, Item, Recipe};
use crate::statistics::mean::Measured;

type Place<'a> = (&'a str, u64, Option<u64>, &'a str, u32);

/// Characters of every completion.
pub(super) struct Lengths<'a>(BTreeMap<Place<'a>, usize>);

impl<'a> Lengths<'a> {
    pub fn new(completions: &'a [Completion]) -> Self {
        let place = |c: &'a Completion| (c.variant.as_str(), c.checkpoint, c.seed, c.prompt_id.as_str(), c.sample);
        Self(completions.iter().map(|c| (place(c), c.text.chars().count())).collect())
    }

    /// Policy minus reference.
    fn difference(&self, judgment: &Judgment) -> Option<f64> {
        let Judgment { variant, checkpoint, seed, prompt_id, sample, .. } = judgment;
        let policy = self.0.get(&(variant.as_str(), *checkpoint, *seed, prompt_id.as_str(), *sample))?;
        let reference = self.0.get(&(REFERENCE, 0, None, prompt_id.as_str(), *sample))?;
        Some(*policy as f64 - *reference as f64)
    }
}

/// None where a judgment's completions aren't among the rows, or lengths never differ.
pub(super) fn length_controlled(rows: &[&Judgment], lengths: &Lengths<'_>, level: f64) -> Option<Measured> {
    let prompts: BTreeMap<&str, usize> = rows.iter().map(|j| (j.prompt_id.as_str(), 0)).collect();
    let prompts: BTreeMap<&str, usize> = prompts.into_keys().zip(0..).collect();
    let item = |judgment: &&Judgment| {
        Some(Item {
            prompt: prompts[judgment.prompt_id.as_str()],
            preference: Some(judgment.preference),
            differences: vec![lengths.difference(judgment)?],
            difficulty: 0.0,
        })
    };
    let items: Vec<Item> = rows.iter().map(item).collect::<Option<_>>()?;
    if items.iter().all(|item| item.differences[0] == items[0].differences[0]) {
        return None;
    }
    let (data, recipe) = (Data { items: &items, gamed: &[], prompts: prompts.len() }, Recipe::Ridge { saturating: true });
    data.measured(recipe, level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Outcome;
    use crate::statistics::logistic::logistic;

    fn completion(variant: &str, prompt: usize, characters: usize) -> Completion {
        Completion {
            variant: variant.to_owned(),
            seed: (variant != REFERENCE).then_some(1),
            checkpoint: if variant == REFERENCE { 0 } else { 9 },
            prompt_id: format!("p{prompt}"),
            sample: 0,
            prompt: String::new(),
            text: "é".repeat(characters),
            tokens: 1,
            finished: true,
            policy_logp: Some(0.0),
            reference_logp: 0.0,
            kl: Some(0.0),
            kl_k3: Some(0.0),
            entropy: Some(0.0),
            gold: None,
        }
    }

    fn judgment(prompt: usize, preference: f64) -> Judgment {
        Judgment {
            judge: "j".to_owned(),
            variant: "dpo".to_owned(),
            seed: Some(1),
            checkpoint: 9,
            prompt_id: format!("p{prompt}"),
            sample: 0,
            logit_policy_first: None,
            logit_reference_first: None,
            score_policy: None,
            score_reference: None,
            preference,
            outcome: Outcome::Tie,
            position_effect: None,
            asked: true,
            truncated: false,
        }
    }

    /// A judge that likes the longer text and nothing else, and a policy that mostly writes more.
    #[test]
    fn a_judge_of_length_alone_finds_no_winner_at_equal_length() {
        let gains: Vec<usize> = (0..60).map(|i| 30 + i * 37 % 50).collect();
        let mut completions: Vec<Completion> = (0..60).map(|i| completion(REFERENCE, i, 50)).collect();
        completions.extend(gains.iter().enumerate().map(|(i, gain)| completion("dpo", i, *gain)));
        // In the form that is fitted, with noise that no length explains.
        let mean = gains.iter().sum::<usize>() as f64 / 60.0;
        let deviation = (gains.iter().map(|g| (*g as f64 - mean).powi(2)).sum::<f64>() / 59.0).sqrt();
        let noise = |i: usize| if i.is_multiple_of(2) { 0.4 } else { -0.4 };
        let logit = |i: usize, gain: usize| 2.0 * ((gain as f64 - 50.0) / deviation).tanh() + noise(i);
        let judgments: Vec<Judgment> = gains.iter().enumerate().map(|(i, gain)| judgment(i, logistic(logit(i, *gain)))).collect();
        let rows: Vec<&Judgment> = judgments.iter().collect();
        let found = length_controlled(&rows, &Lengths::new(&completions), 0.95).unwrap();
        let raw = judgments.iter().map(|j| j.preference).sum::<f64>() / 60.0;
        assert!(raw > 0.53, "{raw}");
        assert!((found.value - 0.5).abs() < 0.02, "{found:?}");
        assert!(found.interval.lower < 0.5 && 0.5 < found.interval.upper && found.clusters == 60, "{found:?}");
        // Without a completion there is no length.
        assert_eq!(length_controlled(&rows, &Lengths::new(&completions[1..]), 0.95), None);
    }
}
