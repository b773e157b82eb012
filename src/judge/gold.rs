//! The judge that knows the truth of the synthetic world: the side with the higher gold reward wins, exactly.

use crate::data::world::gold_reward;
use crate::judge::protocol::Item;
use crate::judge::{GOLD, Judgment, Outcome};

/// One judgment an item, in order. There is no doubt in them: preferences are 0, ½ or 1.
pub fn judgments(items: &[Item]) -> Vec<Judgment> {
    items.iter().map(judgment).collect()
}

fn judgment(item: &Item) -> Judgment {
    let Item { policy, reference } = item;
    let score = |text: &str| gold_reward(&policy.prompt, text);
    let (ours, theirs) = (score(&policy.text), score(&reference.text));
    let (preference, outcome) = if ours > theirs {
        (1.0, Outcome::Win)
    } else if ours < theirs {
        (0.0, Outcome::Loss)
    } else {
        (0.5, Outcome::Tie)
    };
    Judgment {
        judge: GOLD.to_owned(),
        variant: policy.variant.clone(),
        seed: policy.seed,
        checkpoint: policy.checkpoint,
        prompt_id: policy.prompt_id.clone(),
        sample: policy.sample,
        logit_policy_first: None,
        logit_reference_first: None,
        score_policy: Some(ours),
        score_reference: Some(theirs),
        preference,
        outcome,
        position_effect: None,
        asked: policy.text != reference.text,
        truncated: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::protocol::items;
    use crate::judge::protocol::tests::completion;

    #[test]
    fn gold_prefers_the_higher_reward_and_ties_on_equal_ones() {
        let good = " The desk lamp is bright and sturdy. I love it.";
        let texts = [(good, " lamp lamp lamp"), (" lamp lamp lamp", good), (good, good)];
        let side = |(i, (a, b)): (usize, &(&str, &str))| (completion("dpo", i, a), completion("reference", i, b));
        let (policy, reference): (Vec<_>, Vec<_>) = texts.iter().enumerate().map(side).unzip();
        let judgments = judgments(&items(&policy, &reference).unwrap());
        let outcomes: Vec<Outcome> = judgments.iter().map(|j| j.outcome).collect();
        assert_eq!(outcomes, [Outcome::Win, Outcome::Loss, Outcome::Tie]);
        assert_eq!(judgments.iter().map(|j| j.preference).collect::<Vec<_>>(), [1.0, 0.0, 0.5]);
        assert_eq!(judgments[0].score_policy, judgments[1].score_reference);
        assert!(!judgments[2].asked);
    }
}
