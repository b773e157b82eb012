//! Training in rounds: train, sample the policy, have the samples labelled, train on.
//!
//! A round is a training of its own: it starts from the weights that the one before it ended with, with a fresh optimizer and the
//! learning rate's schedule from its beginning (so do Yuan et al. 2024, arXiv 2401.10020, and Dong et al. 2024, arXiv 2405.07863).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the rounds after the first do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RoundSettings {
    /// All of them, the first included: two or more.
    pub rounds: u64,
    pub reference: RoundReference,
    /// Who labels: a judge by its name, or `gold`, the world's own reward.
    pub judge: String,
    /// Completions that the policy writes of each training prompt.
    pub samples_per_prompt: usize,
    /// Pairs made of those of one prompt.
    pub pairs_per_prompt: usize,
}

/// What the policy is compared with after the first round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoundReference {
    /// The policy that the round starts from, as in iterative DPO (Xu et al. 2023, arXiv 2312.16682) and self-rewarding language
    /// models (Yuan et al. 2024, arXiv 2401.10020).
    Previous,
    /// What the first round was compared with, so that all rounds stay near it (Xiong et al. 2024, arXiv 2312.11456).
    Original,
}

impl RoundReference {
    /// As it is written in a suite.
    pub fn name(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Original => "original",
        }
    }
}
