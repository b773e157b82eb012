//! One `ReportData`, several renderers, byte-deterministic. A renderer never computes a result: it selects, sorts and rounds
//! what stands here, and counts rows into tables and histograms.

mod chart;
mod columns;
mod comparison;
mod csv;
#[cfg(test)]
mod fixture;
mod format;
mod html;
mod json;
pub mod judging;
mod junit;
mod markdown;
mod metrics;
mod publish;
pub mod ratings;
mod select;
mod terminal;
#[cfg(test)]
mod tests;
mod winrate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checks::{CheckRow, Conclusion, Finding, HumpFit, Study};
use crate::data::AuditItem;
use crate::digest::Digest;
use crate::error::Result;
use crate::estimates::Estimate;
use crate::estimates::sequential::Stopped;
use crate::generate::Completion;
use crate::judge::{JudgeProbe, JudgeTrial, Judgment};
use crate::rlhf::OnlineStep;
use crate::suite::settings::{GateSettings, Numerics};
use crate::train::chain::Abridged;
use crate::train::{EvalStep, PairScore, PairSimilarity, TrainStep};

pub use comparison::{Comparison, ComparisonRow, RunName};
pub(crate) use format::plural;
pub use json::{SCHEMA, load_json};
pub use terminal::terminal;
pub use winrate::WinRates;

/// Writes the report's files into `dir`, which is made if it isn't there. The same data gives the same bytes; each file
/// appears whole or not at all.
///
/// # Errors
/// When a file can't be written, or a number isn't finite.
pub fn write(data: &ReportData, dir: &Path) -> Result<()> {
    let mut files: Vec<(&str, Vec<u8>)> = csv::render(data)?;
    files.push(("report.json", json::render(data)?));
    files.push(("COLUMNS.md", columns::markdown().into_bytes()));
    files.push(("index.html", html::render(data)?.into_bytes()));
    files.push(("summary.md", markdown::render(data).into_bytes()));
    files.push(("junit.xml", junit::render(data)?.into_bytes()));
    publish::all(dir, &files)
}

impl GateRow {
    /// Win rates are always of interest, and so is everything that doesn't pass or says what isn't compared; the rest is counted
    /// or folded away.
    fn is_worth_a_line(&self) -> bool {
        ["win-rate", "numerics"].contains(&self.kind.as_str()) || self.verdict != Verdict::Pass
    }
}

/// Writes `train_log.csv` alone, and `online_log.csv` and `eval_log.csv` where they have rows.
pub fn write_logs(dir: &Path, steps: &[TrainStep], online: &[OnlineStep], evaluations: &[EvalStep]) -> Result<()> {
    let mut files = vec![(columns::TRAIN_LOG.file, csv::table(&columns::TRAIN_LOG, steps)?)];
    if !online.is_empty() {
        files.push((columns::ONLINE_LOG.file, csv::table(&columns::ONLINE_LOG, online)?));
    }
    if !evaluations.is_empty() {
        files.push((columns::EVAL_LOG.file, csv::table(&columns::EVAL_LOG, evaluations)?));
    }
    publish::all(dir, &files)
}

/// `−0.018 [−0.052, 0.016]` and the margin it is held against, for rows that have a difference.
fn gate_difference(row: &GateRow) -> String {
    let (Some(difference), Some(lower), Some(upper)) = (row.difference, row.lower, row.upper) else {
        return row.difference.map_or_else(|| format::NONE.to_owned(), |d| format::fixed(d, 3));
    };
    let margin = row.margin.map_or_else(String::new, |m| format!(", margin {}", format::fixed(m, 3)));
    let needed =
        row.prompts_needed.map_or_else(String::new, |n| format!(", about {} would decide", format::plural(n as usize, "prompt")));
    format!("{}{margin}{needed}", format::with_interval(difference, lower, upper, 3))
}

/// Everything a report shows. No clock times, no machine names, no absolute paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportData {
    /// Version of this form.
    pub schema: u32,
    pub suite: SuiteInfo,
    /// The judge whose win rates decide.
    pub judge: String,
    /// One conclusion a variant, in suite order.
    pub conclusions: Vec<Conclusion>,
    pub estimates: Vec<Estimate>,
    pub findings: Vec<Finding>,
    /// Every measure of the checks O1 to O14, found or not, or why it couldn't be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckRow>,
    /// The win rate over the distance from the reference, fitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub humps: Vec<HumpFit>,
    /// Methods compared and claims decided, where the suite has a `[study]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<Study>,
    /// What the audit of a file's rows counted, zeros included. A world's is empty: what is odd in it stands in the findings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<AuditItem>,
    /// Where policies are decoded at several temperatures: which variant is which policy at which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decodings: Vec<Decoding>,
    pub gate: Option<GateReport>,
    /// How the gate decides: `gate RUN` needs nothing but the report and a golden file.
    pub gate_settings: GateSettings,
    pub cells: Vec<CellRow>,
    /// Names and values: digests of inputs and models, versions, modes.
    pub provenance: Vec<Fact>,
    pub train_log: Vec<TrainStep>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub online_log: Vec<OnlineStep>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eval_log: Vec<EvalStep>,
    /// Digest chains of the cells that train, by cell id.
    #[serde(default)]
    pub chains: BTreeMap<String, Abridged>,
    /// Cells beside the judges' own whose bits rest on what a judge said, by id: later rounds that a judge labelled.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub judged: BTreeSet<String>,
    pub pair_scores: Vec<PairScore>,
    /// Of some of the pairs that were learnt from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub train_scores: Vec<PairScore>,
    /// Of pairs whose rejected side means the opposite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opposite_scores: Vec<PairScore>,
    /// CHES of training pairs, before training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub similarities: Vec<PairSimilarity>,
    pub completions: Vec<Completion>,
    pub judgments: Vec<Judgment>,
    pub judge_trials: Vec<JudgeTrial>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judge_probes: Vec<JudgeProbe>,
    /// Whose labels corrected the win rates, where the suite has labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled: Option<Labelled>,
    /// Where judging might stop early: which prompts were judged, a row a variant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequential: Vec<Stopped>,
    /// How many prompts the report shows side by side.
    pub samples_shown: usize,
}

/// Who labelled, and the prompts whose labels were used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    pub judge: String,
    pub prompts: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuiteInfo {
    pub name: String,
    pub title: String,
    pub description: String,
    pub digest: Digest,
    /// The arithmetic that made every number that isn't a judge's.
    pub numerics: Numerics,
    /// Variant names in suite order, with the seeds and checkpoints (optimizer steps) each has.
    pub variants: Vec<VariantInfo>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantInfo {
    pub name: String,
    /// What distinguishes it, for people: "DPO, β = 0.1".
    pub label: String,
    pub seeds: Vec<u64>,
    pub checkpoints: Vec<u64>,
    /// Whether checkpoints are numbers of completions that one is chosen from, not optimizer steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub best_of_n: bool,
}

/// A policy at a sampling temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decoding {
    /// The variant whose weights they are, or `reference`.
    pub policy: String,
    pub temperature: f64,
    /// The variant under which it was judged.
    pub variant: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRow {
    pub id: String,
    pub stage: String,
    pub key: Digest,
    /// Digest over the names and digests of its outputs.
    pub output: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
    Inconclusive,
}

/// One comparison of the gate. The field order is the column order of `gate.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateRow {
    /// `digest`, `chain`, `numerics`, `win-rate`, `curve` or `finding`.
    pub kind: String,
    pub name: String,
    pub verdict: Verdict,
    pub golden: String,
    pub found: String,
    /// New minus golden, with its interval, for win rates.
    pub difference: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub margin: Option<f64>,
    /// Prompts that would decide an inconclusive comparison.
    pub prompts_needed: Option<u64>,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    pub golden: String,
    pub golden_reason: String,
    pub verdict: Verdict,
    pub rows: Vec<GateRow>,
}
