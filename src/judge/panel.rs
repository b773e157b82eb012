//! Several judges as one. A panel speaks where all its members do; how far they agree is measured beside its win rates.

use crate::error::Result;
use crate::judge::verdict::{Item, Judge, Outcome, Texts, Verdict};
use crate::suite::settings::Combine;
use crate::watch::Watch;

pub struct Panel<'a> {
    members: Vec<Box<dyn Judge + 'a>>,
    combine: Combine,
    tie_width: f64,
}

impl<'a> Panel<'a> {
    pub fn new(members: Vec<Box<dyn Judge + 'a>>, combine: Combine, tie_width: f64) -> Self {
        Self { members, combine, tie_width }
    }

    /// `said`: the verdicts of each member.
    fn of_all(&self, said: &[Vec<Option<Verdict>>], item: usize) -> Option<Verdict> {
        let verdicts: Option<Vec<Verdict>> = said.iter().map(|verdicts| verdicts[item]).collect();
        verdicts.map(|verdicts| self.combined(&verdicts))
    }

    fn combined(&self, verdicts: &[Verdict]) -> Verdict {
        let truncated = verdicts.iter().any(|v| v.truncated);
        let together = match self.combine {
            Combine::Mean => {
                let mean = verdicts.iter().map(|v| v.preference).sum::<f64>() / verdicts.len() as f64;
                Verdict::of_probability(mean, self.tie_width)
            }
            Combine::Majority => {
                let votes = |outcome| verdicts.iter().filter(|v| v.outcome == outcome).count();
                let outcome = match votes(Outcome::Win).cmp(&votes(Outcome::Loss)) {
                    std::cmp::Ordering::Greater => Outcome::Win,
                    std::cmp::Ordering::Equal => Outcome::Tie,
                    std::cmp::Ordering::Less => Outcome::Loss,
                };
                Verdict::of_preference(outcome.points(), outcome)
            }
        };
        Verdict { truncated, ..together }
    }
}

impl Judge for Panel<'_> {
    fn ask(&mut self, texts: &[Texts], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        let said = self.members.iter_mut().map(|member| member.ask(texts, watch)).collect::<Result<Vec<_>>>()?;
        Ok((0..texts.len()).map(|item| self.of_all(&said, item)).collect())
    }

    fn of_items(&mut self, items: &[Item], watch: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        let said = self.members.iter_mut().map(|member| member.of_items(items, watch)).collect::<Result<Vec<_>>>()?;
        let same = |item: &Item| item.policy.text == item.reference.text;
        let verdict = |(number, item)| if same(item) { Some(Verdict::IDENTICAL) } else { self.of_all(&said, number) };
        Ok(items.iter().enumerate().map(verdict).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Silent;

    /// Says the same of all texts.
    struct Says(Option<Verdict>);

    impl Judge for Says {
        fn ask(&mut self, texts: &[Texts], _: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
            Ok(texts.iter().map(|_| self.0).collect())
        }
    }

    fn panel(probabilities: &[Option<f64>], combine: Combine, tie_width: f64) -> Option<Verdict> {
        let member = |p: &Option<f64>| Box::new(Says(p.map(|p| Verdict::of_probability(p, 0.0)))) as Box<dyn Judge>;
        let mut panel = Panel::new(probabilities.iter().map(member).collect(), combine, tie_width);
        panel.verdicts(&[["q", "a", "b"]], &Silent).unwrap()[0]
    }

    #[test]
    fn the_mean_weighs_how_sure_members_are_and_the_majority_does_not() {
        let members = [Some(0.95), Some(0.4), Some(0.45)];
        let mean = panel(&members, Combine::Mean, 0.0).unwrap();
        assert!((mean.preference - 0.6).abs() < 1e-15);
        assert_eq!(mean.outcome, Outcome::Win);
        let majority = panel(&members, Combine::Majority, 0.0).unwrap();
        assert_eq!((majority.preference, majority.outcome), (0.0, Outcome::Loss));
    }

    #[test]
    fn a_split_vote_is_a_tie_and_so_is_a_mean_within_the_tie_width() {
        assert_eq!(panel(&[Some(0.9), Some(0.2)], Combine::Majority, 0.0).unwrap().outcome, Outcome::Tie);
        assert_eq!(panel(&[Some(0.9), Some(0.2), Some(0.5)], Combine::Majority, 0.0).unwrap().preference, 0.5);
        // logit(0.55) = 0.2007
        assert_eq!(panel(&[Some(0.9), Some(0.2)], Combine::Mean, 0.21).unwrap().outcome, Outcome::Tie);
        assert_eq!(panel(&[Some(0.9), Some(0.2)], Combine::Mean, 0.20).unwrap().outcome, Outcome::Win);
    }

    #[test]
    fn a_panel_says_nothing_where_a_member_does_not() {
        assert_eq!(panel(&[Some(0.9), None], Combine::Mean, 0.0), None);
    }
}
