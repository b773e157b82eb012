//! Training: objectives, optimizer, schedule, loop, checkpoints, metrics.
//!
//! `run` is the one loop; what it trains is a `Task` (SFT, preferences, judges). `objective` holds the losses.

pub mod chain;
mod completion;
mod evaluation;
mod metrics;
pub mod objective;
mod optimizer;
mod packing;
mod policy;
mod preference;
mod reference;
mod rows;
mod run;
mod schedule;
mod score_cache;
pub(crate) mod sequence;
mod sft;
mod similarity;
mod state;
mod task;
mod tensorboard;
mod timing;
mod unpaired;

pub use evaluation::Evaluation;
pub use metrics::Metrics;
pub use preference::{PairOutput, PreferenceTask, ScoredPolicy, pair_scores};
pub use rows::{EvalStep, TrainStep};
pub use run::{EVAL_LOG, LAST, checkpoint, checkpoint_folder, checkpoint_steps, run};
pub use schedule::learning_rate;
pub use score_cache::ScoreCache;
pub(crate) use sequence::{Group, PackedGroups};
pub use sft::SftTask;
pub use similarity::{PairSimilarity, pair_similarities};
pub(crate) use state::weights_kept;
pub use task::{BatchLoss, Learner, Task};
pub use unpaired::{Feedback, UnpairedTask};

use serde::{Deserialize, Serialize};

/// Log-probabilities (nats, summed over the completion's tokens) of one pair under a checkpoint and the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairScore {
    pub variant: String,
    /// None for policies trained elsewhere.
    pub seed: Option<u64>,
    pub checkpoint: u64,
    pub pair_id: String,
    pub prompt_id: String,
    pub beta: f64,
    pub policy_chosen: f64,
    pub policy_rejected: f64,
    pub reference_chosen: f64,
    pub reference_rejected: f64,
    pub chosen_tokens: u32,
    pub rejected_tokens: u32,
}

#[cfg(test)]
pub(crate) mod tests;
