//! One `ReportData`, several renderers, byte-deterministic. A renderer never computes: what it shows stands here.

use serde::{Deserialize, Serialize};

use crate::checks::{Conclusion, Finding};
use crate::digest::Digest;
use crate::generate::Completion;
use crate::judge::{JudgeTrial, Judgment};
use crate::statistics::Estimate;
use crate::train::{PairScore, TrainStep};

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
    pub gate: Option<GateReport>,
    pub cells: Vec<CellRow>,
    /// Names and values: digests of inputs and models, versions, modes.
    pub provenance: Vec<Fact>,
    pub train_log: Vec<TrainStep>,
    pub pair_scores: Vec<PairScore>,
    pub completions: Vec<Completion>,
    pub judgments: Vec<Judgment>,
    pub judge_trials: Vec<JudgeTrial>,
    /// How many prompts the report shows side by side.
    pub samples_shown: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuiteInfo {
    pub name: String,
    pub title: String,
    pub description: String,
    pub digest: Digest,
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
    /// `digest`, `win-rate`, `curve` or `finding`.
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
