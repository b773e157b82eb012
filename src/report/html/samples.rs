//! Completions side by side with what every judge said of them, in both orders.

use serde::Serialize;

use crate::generate::{Completion, REFERENCE};
use crate::judge::{Judgment, Outcome};

use super::super::{ReportData, format};

/// Longer texts are cut, so that the page stays small; `completions.csv` has them whole.
const MOST_CHARACTERS: usize = 1500;

#[derive(Serialize)]
pub(super) struct Sample {
    prompt_id: String,
    prompt: String,
    reference: Side,
    policies: Vec<Side>,
}

#[derive(Serialize)]
struct Side {
    name: String,
    /// `step 60, seed 11`.
    place: String,
    /// The number of its colour.
    series: usize,
    text: String,
    left_out: usize,
    facts: String,
    verdicts: Vec<Verdict>,
}

#[derive(Serialize)]
struct Verdict {
    judge: String,
    outcome: &'static str,
    symbol: &'static str,
    preference: String,
    /// The two logits, or the two scores.
    details: Vec<(&'static str, String)>,
}

/// Prompts spread evenly over the order of their ids.
pub(super) fn samples(data: &ReportData) -> Vec<Sample> {
    let mut references: Vec<&Completion> = data.completions.iter().filter(|c| c.variant == REFERENCE).collect();
    references.sort_by(|a, b| (&a.prompt_id, a.sample).cmp(&(&b.prompt_id, b.sample)));
    references.dedup_by(|a, b| a.prompt_id == b.prompt_id);
    let shown = data.samples_shown.min(references.len());
    (0..shown).map(|i| sample(data, references[i * references.len() / shown])).collect()
}

fn sample(data: &ReportData, reference: &Completion) -> Sample {
    let policies = data.suite.variants.iter().enumerate().filter_map(|(series, variant)| {
        let last = data.last_checkpoint(&variant.name);
        let matches = |c: &&Completion| {
            c.variant == variant.name
                && Some(c.checkpoint) == last
                && c.prompt_id == reference.prompt_id
                && c.sample == reference.sample
        };
        let policy = data.completions.iter().filter(matches).min_by_key(|c| c.seed)?;
        Some(side(data, policy, series))
    });
    Sample {
        prompt_id: reference.prompt_id.clone(),
        prompt: reference.prompt.clone(),
        policies: policies.collect(),
        reference: side(data, reference, 0),
    }
}

fn side(data: &ReportData, c: &Completion, series: usize) -> Side {
    let finished = if c.finished { "" } else { ", cut off" };
    let gold = c.gold.map_or_else(String::new, |g| format!(", gold reward {}", format::fixed(g, 3)));
    let seed = c.seed.map_or_else(String::new, |s| format!(", seed {s}"));
    let is_reference = c.variant == REFERENCE;
    let verdicts = data.judges().into_iter().filter_map(|judge| {
        let same = |j: &&Judgment| {
            j.judge == judge
                && j.variant == c.variant
                && j.seed == c.seed
                && j.checkpoint == c.checkpoint
                && j.prompt_id == c.prompt_id
                && j.sample == c.sample
        };
        data.judgments.iter().find(same).map(verdict)
    });
    let length = c.text.chars().count();
    Side {
        name: data.label(&c.variant).to_owned(),
        place: if is_reference { String::new() } else { format!("{}{seed}", data.place(&c.variant, c.checkpoint)) },
        series: series % super::super::chart::SERIES,
        text: c.text.chars().take(MOST_CHARACTERS).collect(),
        left_out: length.saturating_sub(MOST_CHARACTERS),
        facts: format!("{}{finished}{gold}", format::plural(c.tokens as usize, "token")),
        verdicts: verdicts.collect(),
    }
}

fn verdict(j: &Judgment) -> Verdict {
    let (symbol, outcome) = match j.outcome {
        Outcome::Win => ("▲", "policy wins"),
        Outcome::Tie => ("=", "tie"),
        Outcome::Loss => ("▼", "reference wins"),
    };
    let details = [
        ("policy first", j.logit_policy_first),
        ("reference first", j.logit_reference_first),
        ("policy", j.score_policy),
        ("reference", j.score_reference),
    ];
    let mut details: Vec<_> = details.into_iter().filter_map(|(n, v)| Some((n, format::fixed(v?, 2)))).collect();
    if !j.asked {
        details.push(("same text", "not asked".to_owned()));
    }
    if j.truncated {
        details.push(("input", "truncated".to_owned()));
    }
    Verdict { judge: j.judge.clone(), outcome, symbol, preference: format::fixed(j.preference, 3), details }
}
