//! Verdicts that were recorded elsewhere, as a judge: those of people, of a large model, of an earlier run ([`recorded`](super::recorded)
//! reads them).
//!
//! A verdict is found by the texts that it is about, white space around them aside, in either order; where the record has a prompt, it must
//! be the item's own, or be part of it (a template may stand around it). A record without texts is found by the names that `judgments.csv`
//! uses: prompt_id, variant, seed, checkpoint and sample. Several verdicts on one item (raters, both orders) are averaged, each as often as
//! its strength says. Of texts that nobody judged, the judge says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Result;
use crate::judge::recorded::{self, Reading, RecordedPreference};
use crate::judge::verdict::{Item, Judge, Outcome, Texts, Verdict};
use crate::watch::Watch;

pub struct Replay {
    /// By both completions, the policy's first.
    by_texts: BTreeMap<[String; 2], Vec<Recorded>>,
    /// By prompt, variant, checkpoint and sample.
    by_names: BTreeMap<Names, Vec<Recorded>>,
    tie_width: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Names {
    prompt_id: String,
    /// None: whichever.
    variant: Option<String>,
    checkpoint: u64,
    sample: String,
}

#[derive(Debug, Clone)]
struct Recorded {
    prompt: Option<String>,
    /// Of the side that the file calls the policy.
    preference: f64,
    outcome: Option<Outcome>,
    strength: u32,
}

impl Recorded {
    fn is_about(&self, prompt: &str) -> bool {
        self.prompt.as_ref().is_none_or(|own| prompt.contains(own.trim()))
    }

    fn turned(&self) -> Self {
        let outcome = self.outcome.map(Outcome::turned);
        Self { preference: 1.0 - self.preference, outcome, ..self.clone() }
    }
}

impl Replay {
    /// `tie_width`: for verdicts whose outcome the file doesn't state.
    pub fn open(file: &Path, tie_width: f64) -> Result<Self> {
        Ok(Self::new(recorded::read(file, &Reading::default())?, tie_width))
    }

    pub fn new(rows: Vec<RecordedPreference>, tie_width: f64) -> Self {
        let mut replay = Self { by_texts: BTreeMap::new(), by_names: BTreeMap::new(), tie_width };
        for row in rows {
            // The judge was asked and gave no verdict that could be read.
            let Some(preference) = row.preference else { continue };
            let (outcome, strength) = (row.outcome, row.strength);
            match row.text {
                Some(texts) => {
                    let sides = [&texts.policy, &texts.baseline].map(|text| text.trim().to_owned());
                    let recorded = Recorded { prompt: texts.prompt, preference, outcome, strength };
                    replay.by_texts.entry(sides).or_default().push(recorded);
                }
                None => {
                    let sample = if row.sample.is_empty() { "0".to_owned() } else { row.sample };
                    let checkpoint = row.checkpoint.unwrap_or_default();
                    let names = Names { prompt_id: row.prompt_id, variant: row.policy, checkpoint, sample };
                    let recorded = Recorded { prompt: None, preference, outcome, strength };
                    replay.by_names.entry(names).or_default().push(recorded);
                }
            }
        }
        replay
    }

    fn of_texts(&self, [prompt, first, second]: Texts) -> Option<Verdict> {
        let found = |sides: [&str; 2]| self.by_texts.get(&sides.map(|text| text.trim().to_owned())).into_iter().flatten();
        let straight = found([first, second]).cloned();
        let turned = found([second, first]).map(Recorded::turned);
        let all: Vec<Recorded> = straight.chain(turned).filter(|recorded| recorded.is_about(prompt)).collect();
        self.together(&all)
    }

    fn of_names(&self, item: &Item) -> Option<Verdict> {
        let policy = item.policy;
        let sample = policy.seed.map_or_else(|| policy.sample.to_string(), |seed| format!("seed {seed}, {}", policy.sample));
        let names = |variant: Option<String>| Names {
            prompt_id: policy.prompt_id.clone(),
            variant,
            checkpoint: policy.checkpoint,
            sample: sample.clone(),
        };
        let named = [Some(policy.variant.clone()), None].map(|variant| self.by_names.get(&names(variant)));
        self.together(&named.into_iter().flatten().flatten().cloned().collect::<Vec<_>>())
    }

    fn together(&self, recorded: &[Recorded]) -> Option<Verdict> {
        let total: u32 = recorded.iter().map(|r| r.strength).sum();
        if total == 0 {
            return None;
        }
        let preference = recorded.iter().map(|r| f64::from(r.strength) * r.preference).sum::<f64>() / f64::from(total);
        let stated = recorded[0].outcome.filter(|&outcome| recorded.iter().all(|r| r.outcome == Some(outcome)));
        Some(match stated {
            Some(outcome) => Verdict::of_preference(preference, outcome),
            None => Verdict::of_probability(preference, self.tie_width),
        })
    }
}

impl Judge for Replay {
    fn ask(&mut self, texts: &[Texts], _: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        Ok(texts.iter().map(|&texts| self.of_texts(texts)).collect())
    }

    fn of_items(&mut self, items: &[Item], _: &dyn Watch) -> Result<Vec<Option<Verdict>>> {
        let of_item = |item: &Item| match item.policy.text == item.reference.text {
            true => Some(Verdict::IDENTICAL),
            false => self.of_texts(item.texts()).or_else(|| self.of_names(item)),
        };
        let found: Vec<Option<Verdict>> = items.iter().map(of_item).collect();
        // Identical texts tie without a record where the file covers the policy at all.
        let policy = |item: &Item| (item.policy.variant.clone(), item.policy.seed, item.policy.checkpoint);
        let asked = items.iter().zip(&found).filter(|(_, verdict)| verdict.is_some_and(|v| v.asked));
        let covered: BTreeSet<_> = asked.map(|(item, _)| policy(item)).collect();
        let kept = |(item, verdict): (&Item, Option<Verdict>)| verdict.filter(|v| v.asked || covered.contains(&policy(item)));
        Ok(items.iter().zip(found).map(kept).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::protocol::tests::completion;
    use crate::judge::protocol::{items, judgments};
    use crate::watch::Silent;

    fn replay(name: &str, text: &str) -> Replay {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        Replay::open(&file, 0.0).unwrap()
    }

    const LABELS: &str = "prompt_id,prompt,policy_output,baseline_output,preference,judge\n\
        x,a lamp,Bright.,Dull.,1,ann\n\
        x,a lamp,Bright.,Dull.,0.25,bob\n\
        y,a kettle,One.,Two.,0,ann\n";

    #[test]
    fn a_verdict_is_found_by_its_texts_in_either_order_and_raters_are_averaged() {
        let mut judge = replay("labels.csv", LABELS);
        let asked = [
            ["Tell of a lamp.", " Bright.", "Dull. "],
            ["Tell of a lamp.", "Dull.", "Bright."],
            ["Tell of a kettle.", "Bright.", "Dull."],
            ["a kettle", "One.", "Two."],
            ["a kettle", "Two.", "Three."],
        ];
        let said = judge.verdicts(&asked, &Silent).unwrap();
        let preferences: Vec<Option<f64>> = said.iter().map(|v| v.map(|v| v.preference)).collect();
        assert_eq!(preferences, [Some(0.625), Some(0.375), None, Some(0.0), None]);
        assert_eq!(said[1].unwrap().outcome, Outcome::Loss);
    }

    #[test]
    fn a_record_without_texts_is_found_by_the_names_of_judgments() {
        let mut judge = replay(
            "judgments.csv",
            "judge,variant,seed,checkpoint,prompt_id,sample,preference,outcome\n\
             large,dpo,1,10,p0,0,0.75,tie\n\
             large,dpo,2,10,p1,0,0.75,win\n\
             large,dpo,1,20,p2,0,0.75,win\n",
        );
        let side = |name: &str, text: &str| (0..3).map(|i| completion(name, i, text)).collect::<Vec<_>>();
        let (policy, reference) = (side("dpo", "One."), side("reference", "Two."));
        let rows = judgments(&mut judge, "large", &items(&policy, &reference).unwrap(), &Silent).unwrap();
        // The others are of another seed or checkpoint. What the file calls a tie stays one.
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].prompt_id.as_str(), rows[0].preference, rows[0].outcome), ("p0", 0.75, Outcome::Tie));
    }

    #[test]
    fn identical_texts_tie_only_where_the_file_knows_the_policy() {
        let (policy, reference) = (vec![completion("dpo", 0, "Same.")], vec![completion("reference", 0, "Same.")]);
        let mut judge = replay("labels.csv", LABELS);
        assert!(judgments(&mut judge, "people", &items(&policy, &reference).unwrap(), &Silent).unwrap().is_empty());
    }
}
