//! Splits by prompt: a prompt's place depends on its own text alone, so rows added to a file move none of the others.

use std::collections::BTreeMap;

use crate::data::{PreferenceRow, Prompt};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::suite::settings::PairsSettings;

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Train,
    /// For implicit-reward accuracy of policies.
    Heldout,
    /// For the judges' own training and trials.
    Judge,
    /// Its prompt is one to evaluate on; the row itself isn't used.
    Eval,
}

/// Splits rows by the SHA-256 of their normalised prompts; what the shares leave trains. Of the evaluation prompts those with the smallest
/// digests are taken, whatever the order of the file.
pub struct Splitter<'a> {
    settings: &'a PairsSettings,
    rows: usize,
    sizes: BTreeMap<Place, usize>,
    /// By digest, so that the smallest come first; the position brings the file's order back.
    eval: BTreeMap<Digest, (usize, Prompt)>,
}

impl<'a> Splitter<'a> {
    pub fn new(settings: &'a PairsSettings) -> Result<Self> {
        let PairsSettings { heldout_share, judge_share, eval_share, .. } = *settings;
        let shares = [eval_share, heldout_share, judge_share];
        if shares.iter().any(|share| !(0.0..1.0).contains(share)) || shares.iter().sum::<f64>() >= 1.0 {
            return Err(Error::usage(format!(
                "eval_share = {eval_share}, heldout_share = {heldout_share} and judge_share = {judge_share} leave nothing to train on"
            ))
            .help("each share lies in 0..1, and together they stay below 1"));
        }
        Ok(Self { settings, rows: 0, sizes: BTreeMap::new(), eval: BTreeMap::new() })
    }

    /// Where the next row belongs.
    pub fn place<R: PreferenceRow>(&mut self, row: &R) -> Place {
        let PairsSettings { heldout_share, judge_share, eval_share, eval_prompts, .. } = *self.settings;
        let digest = prompt_digest(row.prompt());
        let part = fraction(&digest);
        let place = match () {
            () if part < eval_share => Place::Eval,
            () if part < eval_share + heldout_share => Place::Heldout,
            () if part < eval_share + heldout_share + judge_share => Place::Judge,
            () => Place::Train,
        };
        if place == Place::Eval {
            let prompt = || Prompt { id: row.prompt_id().to_owned(), text: row.prompt().to_owned() };
            self.eval.entry(digest).or_insert_with(|| (self.rows, prompt()));
            if self.eval.len() > eval_prompts {
                self.eval.pop_last();
            }
        }
        self.rows += 1;
        *self.sizes.entry(place).or_default() += 1;
        place
    }

    /// The evaluation prompts, in the file's order. A split that was asked for and got nothing would make its numbers vanish in silence: that
    /// is an error.
    pub fn finish(self) -> Result<Vec<Prompt>> {
        let settings = self.settings;
        let asked = [
            ("train", 1.0, Place::Train),
            ("heldout", settings.heldout_share, Place::Heldout),
            ("judge", settings.judge_share, Place::Judge),
            ("eval", settings.eval_share, Place::Eval),
        ];
        if let Some((name, ..)) = asked.iter().find(|(_, share, place)| *share > 0.0 && !self.sizes.contains_key(place)) {
            return Err(Error::input(format!("no prompt falls into the split `{name}`"))
                .in_file(&settings.path)
                .help(format!("give more data, or change the shares so that `{name}` gets some")));
        }
        let mut chosen: Vec<(usize, Prompt)> = self.eval.into_values().collect();
        chosen.sort_by_key(|(position, _)| *position);
        Ok(chosen.into_iter().map(|(_, prompt)| prompt).collect())
    }
}

/// A prompt's text with white space and case made one: prompts that differ in these alone count as the same.
pub(super) fn normalised(prompt: &str) -> String {
    prompt.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Two prompts of a million share one with a chance of 3 in 10⁸.
pub(super) fn prompt_hash(prompt: &str) -> u64 {
    let digest = prompt_digest(prompt);
    u64::from_be_bytes(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
}

fn prompt_digest(prompt: &str) -> Digest {
    Digest::of_bytes(format!("dpo-eval split v1\n{}", normalised(prompt)).as_bytes())
}

/// A digest's first 53 bits as a number in [0, 1).
pub(super) fn fraction(digest: &Digest) -> f64 {
    let (head, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
    (u64::from_be_bytes(*head) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::data::Pair;
    use crate::data::files::prompt_id;
    use crate::suite::settings::{PairsFormat, ReadingSettings, Sampling};

    fn settings() -> PairsSettings {
        PairsSettings {
            path: "pairs.jsonl".into(),
            format: PairsFormat::Explicit,
            limit: None,
            sources: Vec::new(),
            max_prompt_length: None,
            heldout_share: 0.1,
            judge_share: 0.2,
            eval_share: 0.1,
            eval_prompts: 1000,
            sampling: Sampling::Shuffle,
            reading: ReadingSettings::default(),
        }
    }

    fn pairs(prompts: impl IntoIterator<Item = String>) -> Vec<Pair> {
        let pair = |(i, prompt): (usize, String)| Pair {
            id: i.to_string(),
            prompt_id: prompt_id(&prompt),
            prompt,
            chosen: "a".into(),
            rejected: "b".into(),
            gold: None,
        };
        prompts.into_iter().enumerate().map(pair).collect()
    }

    #[derive(Debug)]
    pub struct Splits {
        pub train: Vec<Pair>,
        pub heldout: Vec<Pair>,
        pub judge: Vec<Pair>,
        pub eval: Vec<Prompt>,
    }

    /// Each split keeps the order of the rows.
    pub fn split(rows: Vec<Pair>, settings: &PairsSettings) -> Result<Splits> {
        let mut splitter = Splitter::new(settings)?;
        let [mut train, mut heldout, mut judge] = [(); 3].map(|()| Vec::new());
        for row in rows {
            match splitter.place(&row) {
                Place::Train => train.push(row),
                Place::Heldout => heldout.push(row),
                Place::Judge => judge.push(row),
                Place::Eval => {}
            }
        }
        Ok(Splits { train, heldout, judge, eval: splitter.finish()? })
    }

    fn texts(pairs: &[Pair]) -> BTreeSet<&str> {
        pairs.iter().map(|p| p.prompt.as_str()).collect()
    }

    #[test]
    fn shares_are_met_and_added_rows_move_nothing() {
        let few = split(pairs((0..4000).map(|i| format!("prompt {i}"))), &settings()).unwrap();
        for (size, share) in [(few.heldout.len(), 0.1), (few.judge.len(), 0.2), (few.eval.len(), 0.1), (few.train.len(), 0.6)] {
            assert!((size as f64 / 4000.0 - share).abs() < 0.03, "{size} {share}");
        }
        let many = split(pairs((0..8000).rev().map(|i| format!("prompt {i}"))), &settings()).unwrap();
        assert!(texts(&many.train).is_superset(&texts(&few.train)));
        assert!(texts(&many.judge).is_superset(&texts(&few.judge)));
        assert!(texts(&many.heldout).is_superset(&texts(&few.heldout)));
    }

    #[test]
    fn evaluation_prompts_are_those_of_the_smallest_digests_in_the_order_of_the_file() {
        let few = PairsSettings { eval_prompts: 10, ..settings() };
        let names = |range: &mut dyn Iterator<Item = usize>| {
            let splits = split(pairs(range.map(|i| format!("prompt {i}"))), &few).unwrap();
            splits.eval.into_iter().map(|p| p.text).collect::<Vec<_>>()
        };
        let mut backwards = names(&mut (0..2000).rev());
        backwards.reverse();
        assert_eq!(names(&mut (0..2000)), backwards);
        assert_eq!(backwards.len(), 10);
    }

    #[test]
    fn empty_splits_and_impossible_shares_are_errors() {
        let one = split(pairs(["a prompt".to_owned()]), &settings()).unwrap_err();
        assert!(one.to_string().contains("no prompt falls into the split"), "{one}");
        let greedy = PairsSettings { eval_share: 0.8, ..settings() };
        assert!(split(pairs(["p".to_owned()]), &greedy).unwrap_err().to_string().contains("leave nothing to train on"));
        let trained = PairsSettings { heldout_share: 0.0, judge_share: 0.0, eval_share: 0.0, ..settings() };
        assert_eq!(split(pairs(["p".to_owned()]), &trained).unwrap().train.len(), 1);
    }

    proptest! {
        #[test]
        fn no_prompt_stands_in_two_splits(prompts in proptest::collection::vec("[abAB ]{1,6}", 1..300)) {
            let Ok(splits) = split(pairs(prompts), &settings()) else { return Ok(()) };
            let of = |pairs: &[Pair]| pairs.iter().map(|p| normalised(&p.prompt)).collect::<BTreeSet<_>>();
            let eval: BTreeSet<String> = splits.eval.iter().map(|p| normalised(&p.text)).collect();
            let all = [of(&splits.train), of(&splits.heldout), of(&splits.judge), eval];
            let union: BTreeSet<&String> = all.iter().flatten().collect();
            prop_assert_eq!(union.len(), all.iter().map(BTreeSet::len).sum::<usize>());
        }
    }
}
