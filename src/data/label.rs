//! Preference labels on the synthetic world: Bradley–Terry on the gold reward.

use crate::data::world::gold_reward;
use crate::data::{AuditItem, GoldPair, Pair, Prompt};
use crate::rng::Stream;

/// Labelled pairs, and what could not become one.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    pub pairs: Vec<Pair>,
    pub audit: Vec<AuditItem>,
}

/// Two samples of a prompt that are to be labelled.
#[derive(Debug, Clone, PartialEq)]
pub struct Opposed<'a> {
    pub prompt: &'a Prompt,
    /// Its position among all prompts.
    position: usize,
    /// Among those of its prompt, from 0.
    number: usize,
    pub sides: [&'a str; 2],
}

impl Opposed<'_> {
    fn labelled(&self, first_preferred: bool, gold: Option<[f64; 2]>) -> Pair {
        let (chosen, rejected) = if first_preferred { (0, 1) } else { (1, 0) };
        Pair {
            id: format!("{}/{}", self.prompt.id, self.number),
            prompt_id: self.prompt.id.clone(),
            prompt: self.prompt.text.clone(),
            chosen: self.sides[chosen].to_owned(),
            rejected: self.sides[rejected].to_owned(),
            gold: gold.map(|gold| GoldPair { chosen: gold[chosen], rejected: gold[rejected] }),
        }
    }

    fn gold(&self) -> [f64; 2] {
        self.sides.map(|text| gold_reward(&self.prompt.text, text))
    }
}

/// Sets up to `pairs_per_prompt` pairs of the distinct texts among each prompt's samples against each other, and counts what fell
/// short. Which ones is drawn from the stream `purpose/choose` at the prompt's position.
///
/// `samples`: the texts of each prompt.
///
/// # Panics
/// When there are not as many lists of samples as prompts.
pub fn opposed<'a>(
    prompts: &'a [Prompt],
    samples: &'a [Vec<String>],
    pairs_per_prompt: usize,
    seed: u64,
    purpose: &str,
) -> (Vec<Opposed<'a>>, Vec<AuditItem>) {
    assert_eq!(prompts.len(), samples.len(), "each prompt has its samples");
    let mut all = Vec::with_capacity(prompts.len() * pairs_per_prompt);
    let (mut identical, mut short) = (Count::default(), Count::default());
    for (position, (prompt, texts)) in prompts.iter().zip(samples).enumerate() {
        let distinct = distinct(texts);
        identical.add((texts.len() - distinct.len()) as u64, &prompt.id);
        let mut sides: Vec<(usize, usize)> = (0..distinct.len()).flat_map(|b| (0..b).map(move |a| (a, b))).collect();
        Stream::of(seed, &format!("{purpose}/choose"), position as u64).shuffle(&mut sides);
        sides.truncate(pairs_per_prompt);
        short.add(u64::from(sides.len() < pairs_per_prompt), &prompt.id);
        let opposed = |(number, (a, b))| Opposed { prompt, position, number, sides: [distinct[a], distinct[b]] };
        all.extend(sides.into_iter().enumerate().map(opposed));
    }
    let drawn: usize = samples.iter().map(Vec::len).sum();
    let audit = vec![
        identical.item("identical-samples", drawn as u64, "samples equal another of their prompt and make no pair"),
        short.item("short-of-pairs", prompts.len() as u64, "prompts have too few distinct samples for all their pairs"),
    ];
    (all, audit)
}

/// Pairs of the samples as [`opposed`] chooses them, labelled with
/// P(a preferred) = σ((gold(a) − gold(b)) / `label_temperature`) (Bradley and Terry 1952); then a share `label_noise` of the labels is
/// flipped. Temperature 0 is its limit: the better side, or a coin for equals.
///
/// Labels are drawn from the stream `purpose/label` at the prompt's position, so no prompt's labels depend on another's texts.
pub fn pairs(
    prompts: &[Prompt],
    samples: &[Vec<String>],
    pairs_per_prompt: usize,
    label_temperature: f64,
    label_noise: f64,
    seed: u64,
    purpose: &str,
) -> Labelled {
    let (opposed, audit) = opposed(prompts, samples, pairs_per_prompt, seed, purpose);
    let mut pairs = Vec::with_capacity(opposed.len());
    for of_prompt in opposed.chunk_by(|a, b| a.position == b.position) {
        let mut stream = Stream::of(seed, &format!("{purpose}/label"), of_prompt[0].position as u64);
        for pair in of_prompt {
            let gold = pair.gold();
            let first_preferred = stream.bernoulli(preference(gold[0] - gold[1], label_temperature));
            let flipped = stream.bernoulli(label_noise);
            pairs.push(pair.labelled(first_preferred != flipped, Some(gold)));
        }
    }
    Labelled { pairs, audit }
}

/// Pairs with a judge's labels. Ties are left out and counted.
///
/// `first_preferred`: what the judge says of each; none: a tie. `gold`: whether the truth is known and kept beside them.
pub fn by_judge(opposed: &[Opposed], first_preferred: &[Option<bool>], gold: bool) -> Labelled {
    let mut ties = Count::default();
    let mut pairs = Vec::with_capacity(opposed.len());
    for (pair, label) in opposed.iter().zip(first_preferred) {
        ties.add(u64::from(label.is_none()), &pair.prompt.id);
        pairs.extend(label.map(|first_preferred| pair.labelled(first_preferred, gold.then(|| pair.gold()))));
    }
    let audit =
        vec![ties.item("ties-left-out", opposed.len() as u64, "pairs are ties to the judge that labels and are left out")];
    Labelled { pairs, audit }
}

/// P(a preferred) for a difference of gold rewards.
fn preference(difference: f64, temperature: f64) -> f64 {
    if difference == 0.0 {
        0.5
    } else if temperature == 0.0 {
        f64::from(u8::from(difference > 0.0))
    } else {
        1.0 / (1.0 + libm::exp(-difference / temperature))
    }
}

/// The texts without repetitions, in order of first appearance.
fn distinct(texts: &[String]) -> Vec<&str> {
    let mut seen = std::collections::BTreeSet::new();
    texts.iter().map(String::as_str).filter(|text| seen.insert(*text)).collect()
}

/// A count that remembers its first case.
#[derive(Default)]
pub struct Count {
    count: u64,
    first: Option<String>,
}

impl Count {
    pub fn add(&mut self, count: u64, case: &str) {
        if count > 0 {
            self.count += count;
            self.first.get_or_insert_with(|| case.to_owned());
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The item's message: count and total, what they are, and the first case.
    pub fn item(self, id: &str, total: u64, what: &str) -> AuditItem {
        let first = self.first.map_or_else(String::new, |first| format!("; the first: {first}"));
        let message = format!("{} of {total} {what}{first}", self.count);
        AuditItem { id: id.to_owned(), count: self.count, total, must_be_zero: false, message }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::data::world;
    use crate::suite::settings::{Sampling, WorldSettings};

    /// Prompts with four demonstrations each as samples.
    fn world(prompts: usize, seed: u64) -> (Vec<Prompt>, Vec<Vec<String>>) {
        let settings = WorldSettings {
            demonstrations: 4 * prompts,
            vocab_size: 800,
            train_prompts: world_size() - prompts,
            heldout_prompts: 0,
            judge_prompts: 0,
            eval_prompts: 0,
            samples_per_prompt: 4,
            pairs_per_prompt: 2,
            label_temperature: 0.5,
            label_noise: 0.0,
            sampling: Sampling::Shuffle,
        };
        let data = world::make(&settings, seed).unwrap();
        let row = |d: &crate::data::Demonstration| Prompt { id: d.prompt_id.clone(), text: d.prompt.clone() };
        let texts = |i: usize| (0..4).map(|k| data.demonstrations[i + k * prompts].completion.clone()).collect();
        (data.demonstrations[..prompts].iter().map(row).collect(), (0..prompts).map(texts).collect())
    }

    fn world_size() -> usize {
        4608
    }

    #[test]
    fn labels_follow_bradley_terry() {
        let (prompts, samples) = world(300, 1);
        let labelled = pairs(&prompts, &samples, 6, 0.5, 0.0, 3, "label/test").pairs;
        // Among pairs whose difference d is near a value, the share that agrees with gold is σ(d / 0.5).
        for (low, high) in [(0.1, 0.3), (0.5, 0.7), (1.0, 1.3)] {
            let sides = labelled.iter().map(|p| p.gold.unwrap()).map(|g| g.chosen - g.rejected);
            let near: Vec<f64> = sides.filter(|d| (low..high).contains(&d.abs())).collect();
            let agree = near.iter().filter(|&&d| d > 0.0).count() as f64 / near.len() as f64;
            let expected = near.iter().map(|d| 1.0 / (1.0 + (-d.abs() / 0.5).exp())).sum::<f64>() / near.len() as f64;
            let error = (expected * (1.0 - expected) / near.len() as f64).sqrt();
            assert!((agree - expected).abs() < 4.0 * error, "{agree} {expected} ± {error}");
        }
    }

    #[test]
    fn temperature_zero_takes_the_better_side_and_noise_flips_its_share() {
        let (prompts, samples) = world(250, 2);
        let wrong = |noise: f64| {
            let labelled = pairs(&prompts, &samples, 2, 0.0, noise, 3, "label/test").pairs;
            let differ: Vec<_> = labelled.iter().map(|p| p.gold.unwrap()).filter(|g| g.chosen != g.rejected).collect();
            differ.iter().filter(|g| g.chosen < g.rejected).count() as f64 / differ.len() as f64
        };
        assert_eq!(wrong(0.0), 0.0);
        assert_eq!(wrong(1.0), 1.0);
        // Up to 500 pairs: four standard errors.
        assert!((wrong(0.2) - 0.2).abs() < 4.0 * (0.16f64 / 500.0).sqrt());
    }

    #[test]
    fn identical_samples_make_no_pair_and_are_counted() {
        let prompts = [Prompt { id: "a".into(), text: "How is the red mug?".into() }];
        let text = |t: &str| t.to_owned();
        let same = pairs(&prompts, &[vec![text(" It is good."); 4]], 2, 1.0, 0.0, 1, "p");
        assert_eq!((same.pairs.len(), same.audit[0].count, same.audit[1].count), (0, 3, 1));
        let two = pairs(&prompts, &[vec![text(" It is good."), text(" It is bad."), text(" It is bad.")]], 2, 1.0, 0.0, 1, "p");
        assert_eq!((two.pairs.len(), two.audit[0].count), (1, 1));
        assert!(two.audit[0].message.contains("1 of 3") && two.audit[0].message.ends_with("first: a"));
    }

    #[test]
    fn a_judges_labels_stand_on_the_same_pairs_and_its_ties_are_left_out_and_counted() {
        let (prompts, samples) = world(40, 6);
        let (opposed, audit) = opposed(&prompts, &samples, 2, 9, "p");
        let by_gold = pairs(&prompts, &samples, 2, 0.0, 0.0, 9, "p");
        assert_eq!(audit, by_gold.audit);
        // A judge that says what gold says, and of every seventh pair nothing.
        let gold = |o: &Opposed| gold_reward(&o.prompt.text, o.sides[0]) - gold_reward(&o.prompt.text, o.sides[1]);
        let said: Vec<Option<bool>> = opposed.iter().enumerate().map(|(i, o)| (i % 7 != 3).then(|| gold(o) > 0.0)).collect();
        let judged = by_judge(&opposed, &said, true);
        let differs = |p: &&Pair| p.gold.unwrap().chosen != p.gold.unwrap().rejected;
        let expected: Vec<&Pair> = by_gold.pairs.iter().enumerate().filter(|(i, _)| i % 7 != 3).map(|(_, p)| p).collect();
        assert_eq!(judged.pairs.len(), expected.len());
        assert!(judged.pairs.iter().zip(&expected).filter(|(_, p)| differs(p)).all(|(found, p)| found == *p));
        assert_eq!((judged.audit[0].count, judged.audit[0].total), (11, opposed.len() as u64), "{:?}", judged.audit[0]);
        assert!(by_judge(&opposed, &said, false).pairs.iter().all(|p| p.gold.is_none()));
    }

    #[test]
    fn pairs_are_distinct_repeatable_and_seeded() {
        let (prompts, samples) = world(100, 4);
        let make = |seed| pairs(&prompts, &samples, 3, 0.5, 0.1, seed, "label/test");
        let labelled = make(9);
        assert_eq!(labelled, make(9));
        assert_ne!(labelled, make(10));
        let ids: BTreeSet<&str> = labelled.pairs.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids.len(), labelled.pairs.len());
        for pair in &labelled.pairs {
            assert_ne!(pair.chosen, pair.rejected);
            assert_eq!(pair.gold.unwrap().chosen, gold_reward(&pair.prompt, &pair.chosen));
        }
    }

    /// A judge that only counts words (logistic regression on the difference of word counts, plain SGD) must find the truth
    /// from noisy labels, or no small transformer could.
    #[test]
    fn counting_words_learns_to_judge_most_pairs() {
        let (prompts, samples) = world(1000, 5);
        let labelled = pairs(&prompts, &samples, 2, 0.5, 0.0, 3, "label/test").pairs;
        let words = |text: &str| text.split(' ').map(|w| w.trim_matches(['.', ',', '!']).to_lowercase()).collect::<Vec<_>>();
        let mut weights: BTreeMap<String, f64> = BTreeMap::new();
        let (train, test) = labelled.split_at(labelled.len() / 2);
        let score = |weights: &BTreeMap<String, f64>, text: &str| -> f64 {
            words(text).iter().map(|w| weights.get(w).copied().unwrap_or(0.0)).sum()
        };
        for _ in 0..10 {
            for pair in train {
                let margin = score(&weights, &pair.chosen) - score(&weights, &pair.rejected);
                let step = 0.01 / (1.0 + margin.exp());
                words(&pair.chosen).into_iter().for_each(|w| *weights.entry(w).or_default() += step);
                words(&pair.rejected).into_iter().for_each(|w| *weights.entry(w).or_default() -= step);
            }
        }
        let right = test.iter().filter(|p| {
            let gold = p.gold.unwrap();
            (score(&weights, &p.chosen) > score(&weights, &p.rejected)) == (gold.chosen > gold.rejected)
        });
        let accuracy = right.count() as f64 / test.len() as f64;
        assert!(accuracy > 0.75, "{accuracy}");
    }
}
