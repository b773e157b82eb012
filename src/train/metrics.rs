//! The metrics of optimizer steps, and the files that grow by a line a step while training runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::write_atomically;

/// One optimizer step of any task. File form: one JSON object a line, `values` flattened into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// From 1.
    pub step: u64,
    pub epoch: f64,
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub learning_rate: f64,
    /// Since step 1, prompts counted once a sequence.
    pub num_tokens: u64,
    /// What the task adds.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Of the updates of one step together: means, and the sum of tokens.
    ///
    /// # Panics
    /// Without an update.
    pub(crate) fn mean(rows: Vec<Self>) -> Self {
        let n = rows.len() as f64;
        let mut rows = rows.into_iter();
        let mut all = rows.next().expect("a step has an update");
        for row in rows {
            all.loss += row.loss;
            all.grad_norm += row.grad_norm;
            all.num_tokens += row.num_tokens;
            for (name, value) in row.values {
                *all.values.entry(name).or_default() += value;
            }
        }
        all.loss /= n;
        all.grad_norm /= n;
        all.values.values_mut().for_each(|value| *value /= n);
        all
    }

    /// The first of its numbers that is not finite.
    pub(crate) fn not_finite(&self) -> Option<&str> {
        let own = [("loss", self.loss), ("grad_norm", self.grad_norm), ("learning_rate", self.learning_rate)];
        let all = own.into_iter().chain(self.values.iter().map(|(name, value)| (name.as_str(), *value)));
        all.into_iter().find(|(_, value)| !value.is_finite()).map(|(name, _)| name)
    }

    /// A few words for a progress bar, the most telling first: `loss 0.6120 margin 0.35 acc 0.72 1834 tok/s`.
    pub(crate) fn note(&self, tokens_per_second: f64) -> String {
        let ends = |ends: [&str; 2]| self.values.iter().find(|(name, _)| ends.iter().any(|end| name.ends_with(end)));
        let mut note = format!("loss {:.4}", self.loss);
        for (name, value) in [("margin", ends(["margins", "margin"])), ("acc", ends(["accuracies", "accuracy"]))] {
            note += &value.map_or_else(String::new, |(_, value)| format!(" {name} {value:.2}"));
        }
        note + &format!(" {tokens_per_second:.0} tok/s")
    }
}

/// A file with a line of JSON a step: holds the steps taken so far, flushed after each.
pub(crate) struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Starts the file afresh with the steps that are already done: lines of steps that will be taken again go away.
    pub fn open<T: Serialize>(path: PathBuf, done: &[T]) -> Result<Self> {
        let text: String = done.iter().map(line).collect();
        write_atomically(&path, &[text.as_bytes()])?;
        let file = File::options().append(true).open(&path).map_err(|e| Error::io("write", &path, &e))?;
        Ok(Self { path, file })
    }

    pub fn append<T: Serialize>(&mut self, step: &T) -> Result<()> {
        self.file.write_all(line(step).as_bytes()).map_err(|e| Error::io("write", &self.path, &e))
    }
}

fn line<T: Serialize>(step: &T) -> String {
    serde_json::to_string(step).expect("a step is numbers under text keys") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_log_on_a_full_disk_says_so_and_that_trying_again_may_help() {
        let path = PathBuf::from("/dev/full");
        let file = File::options().append(true).open(&path).unwrap();
        let error = Lines { path, file }.append(&1).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::TryAgain);
        assert!(error.message.contains("the disk is full") && error.help.is_some(), "{error}");
    }
}
