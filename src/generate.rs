//! Decoding with a KV cache; emits `Completion` rows.

use serde::{Deserialize, Serialize};

/// The name under which the reference's own completions are stored.
pub const REFERENCE: &str = "reference";

/// One sampled completion. Log-probabilities in nats, summed over its tokens (EOS included when `finished`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The policy's variant, or `reference`.
    pub variant: String,
    /// The training seed; none for the reference and for policies trained elsewhere.
    pub seed: Option<u64>,
    /// The optimizer step of the checkpoint; 0 for the reference.
    pub checkpoint: u64,
    pub prompt_id: String,
    pub sample: u32,
    pub prompt: String,
    pub text: String,
    pub tokens: u32,
    /// Whether it ended with EOS rather than at `max_new_tokens`.
    pub finished: bool,
    /// Under the policy at temperature 1.
    pub policy_logp: f64,
    pub reference_logp: f64,
    /// Σ over its positions of the full-vocabulary KL(policy ‖ reference), nats: the Rao–Blackwellised estimator.
    pub kl: f64,
    /// Gold reward, where the truth is known.
    pub gold: Option<f64>,
}
