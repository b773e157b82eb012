//! What a suite means: every default filled, every value in range. Stages take these and nothing else; their digests are
//! part of the cells' keys, so a field stands here only if it can change a number (or says where an input lies). Paths are
//! kept as written, so that digests don't depend on where the checkout lies; `Suite::locate` gives the place.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod encoding;
mod judging;
mod objective;
mod online;
mod onnx;
mod policy;
mod rounds;
mod training;
mod verdict;

pub use encoding::{Attention, EncodingSettings, Pooling};
pub use judging::{
    Combine, FitnessSettings, Folder, ImplicitReward, ImplicitSettings, LabelSettings, PanelSettings, RuleSettings, RuleTest,
    TextFormat,
};
pub use objective::{BcoShift, Dialect, FDivergence, LossType, ObjectiveSettings};
pub use online::{OnlineSettings, PpoSettings};
pub use onnx::{InputRole, Label, OnnxSettings, Provider, Side, Values};
pub use policy::{BestOfSettings, DecodedSettings, PolicySource, Variant};
pub use rounds::{RoundReference, RoundSettings};
pub use training::{
    AdapterSource, EvaluationSettings, Linear, LoraSettings, Optimizer, PackingStrategy, Scheduler, TrainSettings,
};
pub use verdict::{
    CompareSettings, GateSettings, GenerateSettings, JudgeKind, JudgeSettings, JudgeSource, OnInconclusive, ReportSettings,
    StatisticsSettings,
};

pub use super::limits::{CheckLimits, CheckSettings};
pub use super::reading::{AuditLimits, RatedBy, RatingSettings, ReadingSettings, RejectedBy, SourceSettings, Tokenization};
pub use super::study::{ClaimKind, ClaimSettings, MethodSettings, StudySettings};

/// The arithmetic that models are trained, scored and decoded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// The order of every sum is fixed: the same bits on every machine.
    Strict,
    /// The products and autograd of candle: the same bits for the same run on the same machine only.
    Fast,
}

impl Numerics {
    /// As it is written in a suite.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Fast => "fast",
        }
    }

    /// What it promises, for reports.
    pub fn promise(self) -> &'static str {
        match self {
            Self::Strict => "strict (f32, fixed order of every sum: the same bits on every machine)",
            Self::Fast => "fast (f32, candle's operations: the same bits on one machine only)",
        }
    }
}

/// What models are trained, scored and decoded on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl Device {
    /// The one that is written so.
    pub fn named(written: &str) -> Option<Self> {
        match written {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => written.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suite {
    pub name: String,
    pub title: String,
    pub description: String,
    /// Seeds everything made once: the world, the tokenizer, SFT, the judges, sampling.
    pub seed: u64,
    /// One training run a variant and seed.
    pub seeds: Vec<u64>,
    pub numerics: Numerics,
    /// No part of any digest: the bits are the same on each.
    #[serde(skip)]
    pub device: Device,
    pub dataset: Dataset,
    pub model: ModelSource,
    /// Supervised fine-tuning before the preference training; its result is the frozen reference.
    pub sft: Option<TrainSettings>,
    pub variants: Vec<Variant>,
    pub generate: GenerateSettings,
    pub judges: Vec<JudgeSettings>,
    pub compare: CompareSettings,
    pub statistics: StatisticsSettings,
    pub checks: CheckSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub study: Option<StudySettings>,
    pub gate: GateSettings,
    pub report: ReportSettings,
    /// The suite file's folder, where relative paths start (`Suite::locate`). No part of any digest.
    #[serde(skip)]
    pub base: PathBuf,
    /// The suite file as written, which a run's record keeps. No part of any digest.
    #[serde(skip)]
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Dataset {
    World(WorldSettings),
    Pairs(PairsSettings),
}

/// The synthetic world: demonstrations and prompts are made, pairs are sampled from the SFT policy and labelled by
/// Bradley–Terry on the gold reward.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorldSettings {
    pub demonstrations: usize,
    pub vocab_size: usize,
    /// Prompts for preference training, for held-out pairs, for the judges' own pairs, and for evaluation: all disjoint.
    pub train_prompts: usize,
    pub heldout_prompts: usize,
    pub judge_prompts: usize,
    pub eval_prompts: usize,
    /// Samples drawn from the SFT policy for each prompt that needs pairs.
    pub samples_per_prompt: usize,
    /// Pairs made from the samples of one prompt.
    pub pairs_per_prompt: usize,
    /// Bradley–Terry: P(a preferred) = σ((gold(a) − gold(b)) / label_temperature).
    pub label_temperature: f64,
    /// Share of training labels flipped after labelling.
    pub label_noise: f64,
    pub sampling: Sampling,
}

/// Preference pairs from a file, split by prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairsSettings {
    /// As written; `Suite::locate_data` resolves it. Empty where there are several sources.
    pub path: PathBuf,
    /// Where there are several sources, that of the first: all are pairs or none is, and conversations or not.
    pub format: PairsFormat,
    /// Use only the first pairs of the file.
    pub limit: Option<usize>,
    /// In place of the one file: several, each with its weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceSettings>,
    /// Pairs with a longer prompt (tokens, BOS included) are left out and counted.
    pub max_prompt_length: Option<usize>,
    /// Shares of prompts, hash-based; what is left trains.
    pub heldout_share: f64,
    pub judge_share: f64,
    pub eval_share: f64,
    /// At most this many prompts are evaluated.
    pub eval_prompts: usize,
    pub sampling: Sampling,
    #[serde(flatten)]
    pub reading: ReadingSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PairsFormat {
    /// `{"prompt", "chosen", "rejected"}` a line.
    Explicit,
    /// HH-RLHF: `{"chosen", "rejected"}` whole transcripts, prompt up to the last "\n\nAssistant:".
    Hh,
    /// No pairs but `{"prompt", "completion", "label"}` a line: a completion and whether it is desirable.
    Unpaired,
    /// Pairs of conversations: lists of messages, in any of the forms that `data::forms` knows, written by a chat template.
    Conversations,
    /// Like `Unpaired`, with lists of messages.
    #[serde(rename = "unpaired_conversations")]
    UnpairedConversations,
    /// UltraFeedback as it was collected: an `instruction` and rated `completions`, of which pairs are made.
    Ultrafeedback,
}

impl PairsFormat {
    /// Whether the rows are single completions with a label.
    pub fn is_unpaired(self) -> bool {
        matches!(self, Self::Unpaired | Self::UnpairedConversations)
    }

    /// Whether the rows are lists of messages, whose template writes every special token.
    pub fn is_conversational(self) -> bool {
        matches!(self, Self::Conversations | Self::UnpairedConversations | Self::Ultrafeedback)
    }
}

impl PairsSettings {
    /// Whether the rows are single completions with a label.
    pub fn is_unpaired(&self) -> bool {
        self.format.is_unpaired()
    }
}

impl Dataset {
    /// What its audit may find; none: the short audit is made.
    pub fn audit_limits(&self) -> Option<&AuditLimits> {
        match self {
            Self::World(_) => None,
            Self::Pairs(settings) => settings.reading.audit.as_ref(),
        }
    }

    /// Whether a chat template writes its texts.
    pub fn is_conversational(&self) -> bool {
        matches!(self, Self::Pairs(settings) if settings.format.is_conversational())
    }

    /// How policies and reference read its texts.
    pub fn tokenization(&self) -> Tokenization {
        match self {
            Self::Pairs(settings) => settings.reading.tokenization,
            Self::World(_) => Tokenization::Joint,
        }
    }

    /// Whether there are pairs: to learn from, to measure implicit rewards on, and to train and measure judges with.
    pub fn has_pairs(&self) -> bool {
        !matches!(self, Self::Pairs(settings) if settings.is_unpaired())
    }
}

/// The order in which examples are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    Shuffle,
    Sequential,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum ModelSource {
    /// A Llama-shaped model with random weights, under Hugging Face's names.
    Fresh(FreshModel),
    /// A Hugging Face folder (config.json, model.safetensors, tokenizer.json).
    Folder { path: PathBuf },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FreshModel {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub max_position_embeddings: usize,
    pub rope_theta: f64,
    pub rms_norm_eps: f64,
    pub initializer_range: f64,
    pub tie_word_embeddings: bool,
}
