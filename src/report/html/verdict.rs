//! The verdict's cards, and the table of measures at the last checkpoint.

use minijinja::Value;
use serde::Serialize;

use crate::checks::{Conclusion, Severity};
use crate::generate::REFERENCE;
use crate::judge::GOLD;

use super::super::metrics;
use super::super::{ReportData, format};
use super::Number;

#[derive(Serialize)]
pub(super) struct Section {
    gate: Option<Gate>,
    cards: Vec<Card>,
    /// `1 fail · 2 warn`, empty when there is nothing above info.
    findings: String,
    place: String,
}

#[derive(Serialize)]
struct Gate {
    symbol: &'static str,
    word: &'static str,
    counts: String,
}

#[derive(Serialize)]
struct Card {
    symbol: &'static str,
    word: &'static str,
    name: String,
    label: String,
    sentence: Value,
    numbers: Vec<(String, Option<Number>)>,
}

pub(super) fn section(data: &ReportData) -> Section {
    Section {
        gate: data.gate.as_ref().map(|g| {
            let (symbol, word) = format::verdict(g.verdict);
            Gate { symbol, word, counts: super::records::gate_counts(g) }
        }),
        cards: data.conclusions.iter().map(|c| card(data, c)).collect(),
        findings: severities(data),
        place: place(data),
    }
}

fn card(data: &ReportData, c: &Conclusion) -> Card {
    let (symbol, word) = format::answer(c.answer);
    let mut numbers =
        vec![(format!("Win rate by {}{}", data.judge, format::correction(&c.win_rate)), Some(Number::of(&c.win_rate)))];
    if data.has_gold() && data.judge != GOLD {
        numbers.push((format!("Win rate by {GOLD}"), c.gold_win_rate.as_ref().map(Number::of)));
    }
    for metric in ["implicit_reward_accuracy", "kl_per_token", "length_ratio"] {
        numbers.push((label(metric), data.headline(metric, &c.variant, None).map(Number::of)));
    }
    let named = data.label(&c.variant);
    Card {
        symbol,
        word,
        name: c.variant.clone(),
        label: if named == c.variant { String::new() } else { named.to_owned() },
        sentence: super::prose(&c.sentence),
        numbers,
    }
}

fn label(metric: &str) -> String {
    metrics::find(metric).map_or(metric, |m| m.label).to_owned()
}

fn severities(data: &ReportData) -> String {
    let count = |severity| data.findings.iter().filter(|f| f.severity == severity).count();
    let counts = [(Severity::Fail, "that fails", "that fail"), (Severity::Warn, "that warns", "that warn")];
    let shown = counts.into_iter().filter_map(|(severity, one, many)| match count(severity) {
        0 => None,
        1 => Some(format!("1 finding {one}")),
        n => Some(format!("{n} findings {many}")),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Where the numbers were taken, in words.
fn place(data: &ReportData) -> String {
    let Some(first) = data.conclusions.first() else { return String::new() };
    let at = |c: &Conclusion| c.win_rate.checkpoint.map(|checkpoint| data.place(&c.variant, checkpoint));
    let same = data.conclusions.iter().all(|c| at(c) == at(first));
    let step = match at(first) {
        Some(place) if same => format!("At {place}"),
        _ => "At each variant's last checkpoint".to_owned(),
    };
    let seeds = data.suite.variants.iter().map(|v| v.seeds.len()).max().unwrap_or(0);
    let pooled = if seeds > 1 { ", pooled over seeds" } else { "" };
    format!("{step}{pooled}, with {} intervals clustered by prompt.", format::percent(first.win_rate.level))
}

/// Metrics that belong to a policy, in the order of their table. Judges have a section of their own.
const POLICY_METRICS: [&str; 13] = [
    "implicit_reward_accuracy",
    "implicit_reward_tie_rate",
    "implicit_reward_margin",
    "kl_per_token",
    "kl_per_sequence",
    "kl_k1_per_sequence",
    "chosen_logp_change",
    "chosen_logp_change_per_token",
    "rejected_logp_change",
    "length_ratio",
    "gold_reward",
    "no_eos_rate",
    "repetition_rate",
];

#[derive(Serialize)]
pub(super) struct Measures {
    columns: Vec<String>,
    rows: Vec<Measure>,
}

#[derive(Serialize)]
struct Measure {
    label: String,
    unit: String,
    about: String,
    numbers: Vec<Option<Number>>,
}

/// A row a metric, a column a variant; the reference's own column where it has any of them.
pub(super) fn measures(data: &ReportData) -> Measures {
    let mut variants: Vec<(&str, &str)> = data.suite.variants.iter().map(|v| (v.name.as_str(), data.label(&v.name))).collect();
    if data.estimates.iter().any(|e| e.variant == REFERENCE && POLICY_METRICS.contains(&e.metric.as_str())) {
        variants.insert(0, (REFERENCE, REFERENCE));
    }
    let rows = POLICY_METRICS.iter().filter_map(|metric| {
        let known = metrics::find(metric)?;
        let numbers: Vec<_> = variants.iter().map(|(v, _)| data.headline(metric, v, None).map(Number::of)).collect();
        let (label, unit, about) = (known.label.to_owned(), known.unit.to_owned(), known.about.to_owned());
        numbers.iter().any(Option::is_some).then_some(Measure { label, unit, about, numbers })
    });
    Measures { rows: rows.collect(), columns: variants.into_iter().map(|(_, label)| label.to_owned()).collect() }
}
