//! What the last bits of a judge's scores rest on, written beside its trials.

use std::collections::BTreeMap;

use serde::Serialize;

use super::meaning::Meaning;
use super::model::{self, Padding};
use super::{Batching, OnnxJudge};
use crate::data::AuditItem;
use crate::digest::Digest;
use crate::error::Result;
use crate::judge::runtime;
use crate::suite::settings::{InputRole, Provider, Side};

/// How a judge was run. Two runs with equal records give equal scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionRecord {
    /// Of `model.onnx` and of the files of its weights.
    pub model: Digest,
    pub runtime_version: String,
    pub runtime_library: Digest,
    pub provider: Provider,
    pub graph_optimization: &'static str,
    /// Threads that compute one answer. How many answers are computed side by side changes no bit of any.
    pub threads: usize,
    /// What ONNX Runtime chooses its kernels by.
    pub cpu_features: Vec<&'static str>,
    /// The model's names for what it is given.
    inputs: BTreeMap<InputRole, String>,
    output: String,
    meaning: Meaning,
    pub max_length: usize,
    pub truncation_side: Side,
    padding: Padding,
    batching: Batching,
}

impl OnnxJudge {
    pub fn record(&self) -> Result<SessionRecord> {
        let runtime = runtime::ensure()?;
        let signature = &self.model.signature;
        Ok(SessionRecord {
            model: self.model.digest(),
            runtime_version: runtime.version,
            runtime_library: runtime.library,
            provider: self.settings.onnx.provider.unwrap_or(Provider::Cpu),
            graph_optimization: "all",
            threads: model::THREADS,
            cpu_features: runtime::cpu_features(),
            inputs: signature.inputs.iter().map(|input| (input.role, input.name.clone())).collect(),
            output: signature.output.clone(),
            meaning: self.model.meaning.clone(),
            max_length: self.limits.max_length,
            truncation_side: self.limits.side,
            padding: self.model.padding,
            batching: self.model.batching,
        })
    }

    /// What a reader of its scores should know of how it was asked.
    pub fn audit(&self) -> Option<AuditItem> {
        let name = &self.settings.name;
        let message = match self.model.batching {
            Batching::Padded => return None,
            Batching::EqualLengths => {
                format!("judge `{name}` gives other scores where texts are padded: it was asked in batches of one length")
            }
            Batching::Alone => {
                format!(
                    "judge `{name}` gives a text other scores beside other texts (as dynamic quantisation does): it was asked one by one"
                )
            }
        };
        Some(AuditItem { id: "judge-batch".to_owned(), count: 1, total: 1, must_be_zero: false, message })
    }
}
