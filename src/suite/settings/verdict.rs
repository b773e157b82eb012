//! From trained policies to a verdict: what they complete, who judges it, by which thresholds, against which golden.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::judging::{FitnessSettings, ImplicitSettings, LabelSettings, PanelSettings, RuleSettings};
use super::{EncodingSettings, OnnxSettings, TrainSettings};
use crate::suite::one_or_many::OneOrMany;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerateSettings {
    /// 0: greedy.
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: Option<usize>,
    pub max_new_tokens: usize,
    /// Completions of each evaluation prompt, policy and reference alike.
    pub samples_per_prompt: usize,
}

/// The form of a judge's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// Reads prompt, A and B; gives the logit of "A is better".
    Pairwise,
    /// Reads prompt and one completion; gives a scalar.
    RewardModel,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgeSettings {
    pub name: String,
    pub kind: JudgeKind,
    pub source: JudgeSource,
    /// ONNX models: text template with `{prompt}`, `{a}`, `{b}` (pairwise) or `{prompt}`, `{completion}` (reward model). Several are the
    /// texts of one question: two are given to the tokenizer as a pair, three are encoded each by itself.
    pub template: OneOrMany<String>,
    /// Tokens that an ONNX model or a policy reads, none: as many as the model that was brought along takes; other judges read whole texts.
    pub max_length: Option<usize>,
    /// Debiased |logit| up to this is a tie.
    pub tie_width: f64,
    /// Below this held-out accuracy the judge's win rates are void.
    pub min_accuracy: f64,
    /// Of a judge that is trained here.
    #[serde(skip_serializing_if = "EncodingSettings::is_default")]
    pub encoding: EncodingSettings,
    #[serde(skip_serializing_if = "OnnxSettings::is_default")]
    pub onnx: OnnxSettings,
    #[serde(skip_serializing_if = "FitnessSettings::is_default")]
    pub fitness: FitnessSettings,
}

impl JudgeSettings {
    /// Whether ONNX Runtime answers for it.
    pub fn is_onnx(&self) -> bool {
        matches!(self.source, JudgeSource::Train(_) | JudgeSource::Folder { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum JudgeSource {
    /// Trained here on the judges' own labelled pairs, from the reference's weights, and exported to ONNX.
    Train(Box<TrainSettings>),
    /// `model.onnx` and `tokenizer.json` in a folder.
    Folder { path: PathBuf },
    /// Verdicts recorded elsewhere, in a file.
    Replay { path: PathBuf },
    /// Text rules.
    Rubric { rules: Vec<RuleSettings> },
    /// The rewards that a policy implies.
    Implicit(ImplicitSettings),
    /// Other judges of the suite together.
    Panel(PanelSettings),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompareSettings {
    /// The judge whose win rate decides.
    pub judge: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatisticsSettings {
    pub level: f64,
    /// What corrects the win rates; none: nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelSettings>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateSettings {
    /// The golden file, as written; `Suite::locate` resolves it.
    pub golden: PathBuf,
    /// Loss of win rate that is still acceptable, as a fraction.
    pub margin: f64,
    /// Relative tolerance of training curves.
    pub curve_tolerance: f64,
    pub on_inconclusive: OnInconclusive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnInconclusive {
    Pass,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportSettings {
    /// Prompts whose completions are shown side by side.
    pub samples: usize,
}
