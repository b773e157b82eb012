//! How long steps took: a file of its own, outside everything that digests cover, since no two runs take the same time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metrics::Lines;
use crate::error::Result;
use crate::store::TIMING;

/// How long one optimizer step took, evaluations and checkpoints aside. File form: one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Timing {
    /// From 1.
    pub step: u64,
    pub seconds: f64,
    /// Tokens of the step's batch, prompts counted once a sequence, over its seconds.
    pub tokens_per_second: f64,
}

impl Timing {
    pub fn of(step: u64, tokens: u64, took: Duration) -> Self {
        // A clock may stand still.
        let seconds = took.as_secs_f64().max(1e-9);
        Self { step, seconds, tokens_per_second: tokens as f64 / seconds }
    }
}

/// The file with the timings of the first `done` steps that it has: those of steps that will be taken again go away. What can't be
/// read is left out, since nothing depends on it.
pub(super) fn open(work: &Path, done: u64) -> Result<Lines> {
    let path = work.join(TIMING);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let kept: Vec<Timing> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(|t: &Timing| t.step <= done).collect();
    Lines::open(path, &kept)
}
