//! How far annotators agree whose verdicts were recorded: by pairs (percent, Cohen's κ, Gwet's AC1), all together (Krippendorff's α), and
//! held against people as AlpacaEval's `analyze.py` does it (METHODS, 1.5): agreement, bias, variance, and what an annotator likes.
//!
//! A verdict is a win, a tie or a loss of the policy's side. Intervals are percentiles of prompts drawn with replacement.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::judge::Outcome;
use crate::judge::recorded::{RecordedPreference, Side};
use crate::statistics::agreement::{Confusion, Weights};
use crate::statistics::bootstrap::{Bootstrap, Resampling};
use crate::statistics::krippendorff::{Metric, Reliability};

const RESAMPLES: usize = 1000;
const LEVEL: f64 = 0.95;
/// AlpacaEval's: lengths that are closer than this are about the same, in characters.
const CLOSE_LENGTHS: u64 = 30;

/// The verdicts of one file: one annotator, or several that the file names.
pub struct Group {
    pub name: String,
    pub rows: Vec<RecordedPreference>,
}

/// A measure of an annotator, of two, or of all. The field order is the column order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    pub measure: &'static str,
    pub first: String,
    pub second: String,
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
    pub level: f64,
    /// Items that it rests on, and their prompts.
    pub items: usize,
    pub prompts: usize,
}

/// What is judged: prompt, sample, both sides, checkpoint.
type Item = (String, String, Option<String>, Option<String>, Option<u64>);

fn item(row: &RecordedPreference) -> Item {
    (row.prompt_id.clone(), row.sample.clone(), row.policy.clone(), row.baseline.clone(), row.checkpoint)
}

/// An annotator's verdict on an item: both orders together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Vote(usize);

fn outcome(preference: f64, stated: Option<Outcome>) -> usize {
    match stated {
        Some(outcome) => (2.0 * outcome.points()) as usize,
        None if preference == 0.5 => 1,
        None => 2 * usize::from(preference > 0.5),
    }
}

/// The name of each annotator with its verdicts by item; of several rows on an item the mean preference counts.
fn annotators(groups: &[Group]) -> Vec<(String, usize, BTreeMap<Item, Vote>)> {
    let mut found = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let mut names: BTreeSet<Option<&str>> = BTreeSet::new();
        names.extend(group.rows.iter().map(|row| row.judge.as_deref()));
        for name in &names {
            let mut rows: BTreeMap<Item, Vec<(f64, Option<Outcome>)>> = BTreeMap::new();
            for row in group.rows.iter().filter(|row| row.judge.as_deref() == *name) {
                if let Some(preference) = row.preference {
                    rows.entry(item(row)).or_default().push((preference, row.outcome));
                }
            }
            let vote = |said: Vec<(f64, Option<Outcome>)>| match said.as_slice() {
                [(preference, stated)] => Vote(outcome(*preference, *stated)),
                several => Vote(outcome(several.iter().map(|(p, _)| p).sum::<f64>() / several.len() as f64, None)),
            };
            let votes = rows.into_iter().map(|(item, said)| (item, vote(said))).collect();
            let shown = match (name, names.len()) {
                (Some(name), 2..) => format!("{} ({name})", group.name),
                _ => group.name.clone(),
            };
            found.push((shown, number, votes));
        }
    }
    found
}

/// Pairs of annotators, then all of them.
pub fn agreements(groups: &[Group]) -> Vec<Agreement> {
    let annotators = annotators(groups);
    let mut found = Vec::new();
    for (second, (b, _, of_b)) in annotators.iter().enumerate() {
        for (a, _, of_a) in &annotators[..second] {
            let shared = of_a.iter().filter_map(|(item, x)| Some((item.0.clone(), (x.0, of_b.get(item)?.0))));
            let prompts = by_prompt(shared);
            let both = |rows: &[&(usize, usize)]| -> Option<Confusion> {
                let (first, second): (Vec<usize>, Vec<usize>) = rows.iter().map(|row| **row).unzip();
                (!first.is_empty()).then(|| Confusion::new(&first, &second, 3))
            };
            let mut push = |measure, value: Option<Measured>| found.extend(value.map(|v| v.named(measure, a, b)));
            push("percent", resampled(&prompts, |rows| Some(both(rows)?.percent())));
            push("cohen_kappa", resampled(&prompts, |rows| Some(both(rows)?.cohen(Weights::Nominal)?.value)));
            push("gwet_ac1", resampled(&prompts, |rows| both(rows)?.gwet()));
        }
    }
    let mut ratings: BTreeMap<&Item, Vec<f64>> = BTreeMap::new();
    for (_, _, votes) in &annotators {
        votes.iter().for_each(|(item, vote)| ratings.entry(item).or_default().push(vote.0 as f64));
    }
    let prompts = by_prompt(ratings.into_iter().filter(|(_, r)| r.len() > 1).map(|(item, r)| (item.0.clone(), r)));
    for (measure, metric) in [("krippendorff_alpha_nominal", Metric::Nominal), ("krippendorff_alpha_ordinal", Metric::Ordinal)] {
        let alpha =
            resampled(&prompts, |rows| Reliability::new(&rows.iter().map(|r| (*r).clone()).collect::<Vec<_>>(), metric).alpha());
        found.extend(alpha.map(|v| v.named(measure, "all", "")));
    }
    found
}

/// AlpacaEval's measures. `humans`: the group whose annotators are people; each of the other groups is held against them.
pub fn against_humans(groups: &[Group], humans: usize) -> Vec<Agreement> {
    let annotators = annotators(groups);
    let votes_of = |group: usize| {
        let mut votes: BTreeMap<&Item, Vec<usize>> = BTreeMap::new();
        for (_, _, of) in annotators.iter().filter(|(_, g, _)| *g == group) {
            of.iter().for_each(|(item, vote)| votes.entry(item).or_default().push(vote.0));
        }
        votes
    };
    let people = votes_of(humans);
    let name = |group: usize| groups[group].name.as_str();
    let mut found = Vec::new();
    #[allow(clippy::needless_range_loop, reason = "groups are named by their numbers throughout")]
    for group in 0..groups.len() {
        let own = votes_of(group);
        let mean = |values: Vec<(String, f64)>| resampled(&by_prompt(values.into_iter()), average);
        let mut push =
            |measure, value: Option<Measured>| found.extend(value.map(|v| v.named(measure, name(group), name(humans))));
        // One vote against the mode of the others, each in turn: of people among themselves, and of others against people.
        let of_item = |item: &Item, votes: &Vec<usize>| -> Option<f64> {
            match group == humans {
                true => leave_one_out(votes),
                false => {
                    let theirs = people.get(item)?;
                    Some(votes.iter().map(|&vote| agrees(vote, theirs)).sum::<f64>() / votes.len() as f64)
                }
            }
        };
        let values = own.iter().filter_map(|(item, votes)| Some((item.0.clone(), of_item(item, votes)?)));
        push("human_agreement", mean(values.collect()));
        if group != humans {
            let error =
                |(item, votes): (&&Item, &Vec<usize>)| Some((item.0.clone(), 1.0 - modes_agree(votes, people.get(*item)?)));
            push("bias", mean(own.iter().filter_map(error).collect()));
        }
        let variance = |(item, votes): (&&Item, &Vec<usize>)| Some((item.0.clone(), 1.0 - leave_one_out(votes)?));
        push("variance", mean(own.iter().filter_map(variance).collect()));
        let longer = groups[group].rows.iter().filter_map(|row| Some((row.prompt_id.clone(), prefers_longer(row)?)));
        push("prefers_longer", mean(longer.collect()));
        let first = groups[group].rows.iter().filter_map(|row| Some((row.prompt_id.clone(), prefers_first(row)?)));
        push("prefers_first", mean(first.collect()));
        let lists = groups[group].rows.iter().filter_map(|row| Some((row.prompt_id.clone(), prefers_lists(row)?)));
        push("prefers_lists", mean(lists.collect()));
    }
    found
}

/// The most frequent votes; several where they are as frequent.
fn modes(votes: &[usize]) -> Vec<usize> {
    let count = |vote| votes.iter().filter(|&&v| v == vote).count();
    let most = (0..3).map(count).max().unwrap_or_default();
    (0..3).filter(|&vote| most > 0 && count(vote) == most).collect()
}

/// How often a vote is the mode of others, where one of several modes is drawn.
fn agrees(vote: usize, others: &[usize]) -> f64 {
    let modes = modes(others);
    if modes.contains(&vote) { 1.0 / modes.len() as f64 } else { 0.0 }
}

fn modes_agree(first: &[usize], second: &[usize]) -> f64 {
    let first = modes(first);
    first.iter().map(|&vote| agrees(vote, second)).sum::<f64>() / first.len().max(1) as f64
}

/// Mean agreement of each vote with the mode of the others; none of a single vote.
fn leave_one_out(votes: &[usize]) -> Option<f64> {
    let without = |i: usize| [&votes[..i], &votes[i + 1..]].concat();
    (votes.len() > 1).then(|| (0..votes.len()).map(|i| agrees(votes[i], &without(i))).sum::<f64>() / votes.len() as f64)
}

fn decided(row: &RecordedPreference) -> Option<f64> {
    row.preference.filter(|&p| p != 0.5).map(|p| f64::from(u8::from(p > 0.5)))
}

/// Of decided verdicts on lengths that are clearly apart.
fn prefers_longer(row: &RecordedPreference) -> Option<f64> {
    let lengths = row.length?;
    (lengths.policy.abs_diff(lengths.baseline) > CLOSE_LENGTHS).then_some(())?;
    let policy = decided(row)?;
    Some(if lengths.policy > lengths.baseline { policy } else { 1.0 - policy })
}

fn prefers_first(row: &RecordedPreference) -> Option<f64> {
    let policy = decided(row)?;
    Some(if row.first? == Side::Policy { policy } else { 1.0 - policy })
}

/// Of decided verdicts where exactly one side has a list.
fn prefers_lists(row: &RecordedPreference) -> Option<f64> {
    let texts = row.text.as_ref()?;
    let [policy, baseline] = [&texts.policy, &texts.baseline].map(|text| crate::judge::rubric::has_list(text));
    (policy != baseline).then_some(())?;
    let preferred = decided(row)?;
    Some(if policy { preferred } else { 1.0 - preferred })
}

fn average(rows: &[&f64]) -> Option<f64> {
    (!rows.is_empty()).then(|| rows.iter().copied().sum::<f64>() / rows.len() as f64)
}

fn by_prompt<T>(rows: impl Iterator<Item = (String, T)>) -> Vec<Vec<T>> {
    let mut groups: BTreeMap<String, Vec<T>> = BTreeMap::new();
    rows.for_each(|(prompt, row)| groups.entry(prompt).or_default().push(row));
    groups.into_values().collect()
}

struct Measured {
    value: f64,
    lower: f64,
    upper: f64,
    items: usize,
    prompts: usize,
}

impl Measured {
    fn named(self, measure: &'static str, first: &str, second: &str) -> Agreement {
        let Self { value, lower, upper, items, prompts } = self;
        let (first, second) = (first.to_owned(), second.to_owned());
        Agreement { measure, first, second, value, lower, upper, level: LEVEL, items, prompts }
    }
}

/// None where the statistic doesn't exist: no shared items, say, or a κ of annotators who always say one thing.
fn resampled<T: Sync>(groups: &[Vec<T>], statistic: impl Fn(&[&T]) -> Option<f64> + Sync) -> Option<Measured> {
    let all: Vec<&T> = groups.iter().flatten().collect();
    let value = statistic(&all)?;
    let resampling = Resampling { resamples: RESAMPLES, seed: 0, purpose: "agreement" };
    let replicates = resampling.replicates(groups.len(), |drawn| {
        let rows: Vec<&T> = drawn.iter().flat_map(|&group| &groups[group as usize]).collect();
        statistic(&rows).unwrap_or(value)
    });
    let interval = Bootstrap::new(value, replicates)?.percentile(LEVEL);
    Some(Measured { value, lower: interval.lower, upper: interval.upper, items: all.len(), prompts: groups.len() })
}

#[cfg(test)]
mod tests;
