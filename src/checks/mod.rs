//! Rows and estimates in, findings out.

use serde::{Deserialize, Serialize};

use crate::statistics::Estimate;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warn,
    Fail,
}

/// Something a reader must know before trusting a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable identifier, `kl-budget` say.
    pub id: String,
    pub severity: Severity,
    pub variant: String,
    pub checkpoint: Option<u64>,
    pub seed: Option<u64>,
    /// One sentence: what was seen, with its numbers.
    pub message: String,
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub threshold: Option<f64>,
    pub n: usize,
    /// What it rests on: prompts, checkpoints.
    pub evidence: String,
    /// What to do.
    pub hint: String,
}

/// Is this variant better than the reference, by the deciding judge, at its last checkpoint?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    pub variant: String,
    pub answer: Answer,
    pub win_rate: Estimate,
    /// The same by gold, where the truth is known.
    pub gold_win_rate: Option<Estimate>,
    /// One sentence for people.
    pub sentence: String,
    /// When undecided: about how many prompts would decide it.
    pub prompts_needed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Better,
    Worse,
    Undecided,
    /// The judge is unfit: its win rate says nothing.
    Void,
}
