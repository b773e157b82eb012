//! Judges: ONNX sessions, the pairwise protocol, judge training and export, judge fitness.

pub mod asking;
pub mod gold;
pub mod implicit;
pub mod journal;
pub(crate) mod onnx;
mod opening;
pub mod panel;
pub mod probes;
pub mod protocol;
pub(crate) mod reader;
pub mod recorded;
pub mod replay;
pub mod rubric;
pub mod runtime;
pub mod session;
pub mod train;
pub mod verdict;

use serde::{Deserialize, Serialize};

pub use opening::identity;
pub use probes::JudgeProbe;
pub use verdict::{Judge, Outcome};

/// The name of the judge that knows the truth in the synthetic world.
pub const GOLD: &str = "gold";

/// One item judged: a policy's completion against the reference's for the same prompt and sample index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgment {
    pub judge: String,
    pub variant: String,
    pub seed: Option<u64>,
    pub checkpoint: u64,
    pub prompt_id: String,
    pub sample: u32,
    /// Logit of "the first is better" with the policy shown first (pairwise judges).
    pub logit_policy_first: Option<f64>,
    /// Logit of "the first is better" with the reference shown first (pairwise judges).
    pub logit_reference_first: Option<f64>,
    /// Scores of the two sides (reward models and gold).
    pub score_policy: Option<f64>,
    pub score_reference: Option<f64>,
    /// Debiased probability that the policy's side is better: σ((l_pf − l_rf) / 2), or σ(score difference), or 0, ½, 1 for gold.
    pub preference: f64,
    pub outcome: Outcome,
    /// (l_pf + l_rf) / 2: what being shown first is worth, in logits.
    pub position_effect: Option<f64>,
    /// False when the texts are identical: a tie without asking.
    pub asked: bool,
    pub truncated: bool,
}

/// A judge's answer on a held-out labelled pair: its fitness is measured on these before any win rate counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgeTrial {
    pub judge: String,
    pub pair_id: String,
    pub prompt_id: String,
    /// Debiased probability given to the better side: by gold where it is known, else by label.
    pub preference: f64,
    pub position_effect: Option<f64>,
    /// Gold rewards of the better and the worse side, where the truth is known.
    pub gold_better: Option<f64>,
    pub gold_worse: Option<f64>,
    /// Length difference in characters, better minus worse.
    pub length_difference: i64,
}
