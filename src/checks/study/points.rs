//! What was measured at every checkpoint of every run, prompt by prompt: the same prompts in the same order everywhere.

use std::collections::BTreeMap;

use crate::estimates::summary::Evidence;
use crate::generate::{Completion, REFERENCE};
use crate::judge::GOLD;
use crate::suite::Suite;
use crate::suite::settings::Dataset;

/// A checkpoint; a value a prompt, or nothing where a prompt has none.
pub(super) struct Stop {
    pub checkpoint: u64,
    pub kl: Vec<f64>,
    /// Above the reference's.
    pub reward: Vec<f64>,
    /// The deciding judge's preferences, and gold's.
    pub win_rate: Vec<f64>,
    pub gold_win_rate: Vec<f64>,
    /// `win_rate` − `gold_win_rate`.
    pub overrated: Vec<f64>,
}

/// A variant under a seed.
pub(super) struct Run<'a> {
    pub variant: &'a str,
    pub seed: Option<u64>,
    /// Ascending.
    pub stops: Vec<Stop>,
}

pub(super) struct Table<'a> {
    /// What `reward` is, and what there is more or less of.
    pub reward: String,
    pub unit: &'static str,
    pub prompts: usize,
    /// In the order of the suite's variants.
    pub runs: Vec<Run<'a>>,
}

type Place<'a> = (&'a str, Option<u64>, u64);

/// Sums and counts by place and prompt.
struct Means<'a> {
    prompts: &'a BTreeMap<&'a str, usize>,
    sums: BTreeMap<Place<'a>, Vec<(f64, usize)>>,
}

impl<'a> Means<'a> {
    fn new(prompts: &'a BTreeMap<&'a str, usize>) -> Self {
        Self { prompts, sums: BTreeMap::new() }
    }

    fn add(&mut self, place: Place<'a>, prompt: &str, value: f64) {
        let Some(&prompt) = self.prompts.get(prompt) else { return };
        let sums = self.sums.entry(place).or_insert_with(|| vec![(0.0, 0); self.prompts.len()]);
        sums[prompt].0 += value;
        sums[prompt].1 += 1;
    }

    /// Nothing where a prompt has no value.
    fn at(&self, place: Place) -> Vec<f64> {
        let Some(sums) = self.sums.get(&place) else { return Vec::new() };
        if sums.iter().any(|(_, count)| *count == 0) {
            return Vec::new();
        }
        sums.iter().map(|(sum, count)| sum / *count as f64).collect()
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// One minus the other, prompt by prompt; nothing where either has nothing.
fn less(a: &[f64], b: &[f64]) -> Vec<f64> {
    if a.len() == b.len() { a.iter().zip(b).map(|(a, b)| a - b).collect() } else { Vec::new() }
}

impl<'a> Table<'a> {
    pub fn new(suite: &'a Suite, evidence: &Evidence<'a>) -> Self {
        let reference = evidence.completions.iter().filter(|c| c.variant == REFERENCE);
        let mut prompts: BTreeMap<&str, usize> = reference.map(|c| (c.prompt_id.as_str(), 0)).collect();
        prompts.values_mut().enumerate().for_each(|(number, slot)| *slot = number);
        let (mut kl, mut gold) = (Means::new(&prompts), Means::new(&prompts));
        for c in evidence.completions {
            if let Some(known) = c.kl {
                kl.add(place(c), &c.prompt_id, known);
            }
            gold.add(place(c), &c.prompt_id, c.gold.unwrap_or(f64::NAN));
        }
        let by = |judge: &str| {
            let mut means = Means::new(&prompts);
            for j in evidence.judgments.iter().filter(|j| j.judge == judge) {
                means.add((&j.variant, j.seed, j.checkpoint), &j.prompt_id, j.preference);
            }
            means
        };
        let (deciding, by_gold) = (by(&suite.compare.judge), by(GOLD));
        let of_reference = gold.at((REFERENCE, None, 0));
        let world = matches!(suite.dataset, Dataset::World(_));
        let stop = |place: Place| {
            let (win_rate, gold_win_rate) = (deciding.at(place), by_gold.at(place));
            let reward = match world {
                true => less(&gold.at(place), &of_reference),
                false => win_rate.iter().map(|rate| rate - 0.5).collect(),
            };
            let overrated = less(&win_rate, &gold_win_rate);
            let found = Stop { checkpoint: place.2, kl: kl.at(place), reward, win_rate, gold_win_rate, overrated };
            (!found.kl.is_empty() && !found.reward.is_empty()).then_some(found)
        };
        let mut runs = Vec::new();
        for variant in &suite.variants {
            let mut own: BTreeMap<Option<u64>, Vec<Stop>> = BTreeMap::new();
            for &at in kl.sums.keys().filter(|(name, ..)| *name == variant.name) {
                own.entry(at.1).or_default().extend(stop(at));
            }
            let run = |(seed, stops)| Run { variant: variant.name.as_str(), seed, stops };
            runs.extend(own.into_iter().map(run).filter(|run| !run.stops.is_empty()));
        }
        let (reward, unit) = match world {
            true => ("gold reward above the reference's".to_owned(), "gold reward"),
            false => (format!("win rate by {} above one half", suite.compare.judge), "win rate"),
        };
        Self { reward, unit, prompts: prompts.len(), runs }
    }
}

fn place(c: &Completion) -> Place<'_> {
    (&c.variant, c.seed, c.checkpoint)
}
