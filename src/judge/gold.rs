//! The judge that knows the truth of the synthetic world: the side with the higher gold reward wins, exactly.

use crate::data::world::gold_reward;
use crate::error::Result;
use crate::judge::verdict::{Judge, Texts, Verdict};
use crate::watch::Watch;

/// There is no doubt in its verdicts: preferences are 0, ½ or 1.
pub struct Gold;

impl Judge for Gold {
    fn ask(&mut self, texts: &[Texts], _: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        let verdict = |[prompt, first, second]: &Texts| {
            let asked = first != second;
            Some(Verdict { asked, ..Verdict::of_truth(gold_reward(prompt, first), gold_reward(prompt, second)) })
        };
        Ok(texts.iter().map(verdict).collect())
    }

    fn scores(&mut self, texts: &[[&str; 2]], _: &dyn Watch) -> Result<Option<Vec<f64>>> {
        Ok(Some(texts.iter().map(|[prompt, text]| gold_reward(prompt, text)).collect()))
    }

    /// Identical texts too have their rewards.
    fn verdicts(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        self.ask(texts, watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::protocol::tests::completion;
    use crate::judge::protocol::{items, judgments};
    use crate::judge::{GOLD, Outcome};
    use crate::watch::Silent;

    #[test]
    fn gold_prefers_the_higher_reward_and_ties_on_equal_ones() {
        let good = " The desk lamp is bright and sturdy. I love it.";
        let texts = [(good, " lamp lamp lamp"), (" lamp lamp lamp", good), (good, good)];
        let side = |(i, (a, b)): (usize, &(&str, &str))| (completion("dpo", i, a), completion("reference", i, b));
        let (policy, reference): (Vec<_>, Vec<_>) = texts.iter().enumerate().map(side).unzip();
        let judgments = judgments(&mut Gold, GOLD, &items(&policy, &reference).unwrap(), &Silent).unwrap();
        let outcomes: Vec<Outcome> = judgments.iter().map(|j| j.outcome).collect();
        assert_eq!(outcomes, [Outcome::Win, Outcome::Loss, Outcome::Tie]);
        assert_eq!(judgments.iter().map(|j| j.preference).collect::<Vec<_>>(), [1.0, 0.0, 0.5]);
        assert_eq!(judgments[0].score_policy, judgments[1].score_reference);
        assert!(!judgments[2].asked);
    }
}
