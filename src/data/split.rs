//! Splits by prompt: a prompt's place depends on its own text alone, so rows added to a file move none of the others.

use std::collections::BTreeMap;

use crate::data::{PreferenceRow, Prompt};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::suite::settings::PairsSettings;

#[derive(Debug, Clone, PartialEq)]
pub struct Splits<R> {
    pub train: Vec<R>,
    /// For implicit-reward accuracy of policies.
    pub heldout: Vec<R>,
    /// For the judges' own training and trials.
    pub judge: Vec<R>,
    pub eval: Vec<Prompt>,
}

/// Splits rows by the SHA-256 of their normalised prompts; what the shares leave trains. Each split keeps the file's order.
/// Of the evaluation prompts those with the smallest digests are taken, whatever the order of the file.
pub fn split<R: PreferenceRow>(rows: Vec<R>, settings: &PairsSettings) -> Result<Splits<R>> {
    let PairsSettings { heldout_share, judge_share, eval_share, .. } = *settings;
    let shares = [eval_share, heldout_share, judge_share];
    if shares.iter().any(|share| !(0.0..1.0).contains(share)) || shares.iter().sum::<f64>() >= 1.0 {
        return Err(Error::usage(format!(
            "eval_share = {eval_share}, heldout_share = {heldout_share} and judge_share = {judge_share} leave nothing to train on"
        ))
        .help("each share lies in 0..1, and together they stay below 1"));
    }
    let mut splits = Splits { train: Vec::new(), heldout: Vec::new(), judge: Vec::new(), eval: Vec::new() };
    // By digest, so that the smallest come first; the position brings the file's order back.
    let mut eval: BTreeMap<Digest, (usize, Prompt)> = BTreeMap::new();
    for (position, row) in rows.into_iter().enumerate() {
        let digest = prompt_digest(row.prompt());
        let place = fraction(&digest);
        if place < eval_share {
            let prompt = || Prompt { id: row.prompt_id().to_owned(), text: row.prompt().to_owned() };
            eval.entry(digest).or_insert_with(|| (position, prompt()));
        } else if place < eval_share + heldout_share {
            splits.heldout.push(row);
        } else if place < eval_share + heldout_share + judge_share {
            splits.judge.push(row);
        } else {
            splits.train.push(row);
        }
    }
    let mut chosen: Vec<(usize, Prompt)> = eval.into_values().take(settings.eval_prompts).collect();
    chosen.sort_by_key(|(position, _)| *position);
    splits.eval = chosen.into_iter().map(|(_, prompt)| prompt).collect();
    splits.check(settings)?;
    Ok(splits)
}

impl<R> Splits<R> {
    /// A split that was asked for and got nothing would make its numbers vanish in silence.
    fn check(&self, settings: &PairsSettings) -> Result<()> {
        let sizes = [
            ("train", 1.0, self.train.len()),
            ("heldout", settings.heldout_share, self.heldout.len()),
            ("judge", settings.judge_share, self.judge.len()),
            ("eval", settings.eval_share, self.eval.len()),
        ];
        match sizes.iter().find(|(_, share, size)| *share > 0.0 && *size == 0) {
            None => Ok(()),
            Some((name, ..)) => Err(Error::input(format!("no prompt falls into the split `{name}`"))
                .in_file(&settings.path)
                .help(format!("give more data, or change the shares so that `{name}` gets some"))),
        }
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
mod tests {
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
