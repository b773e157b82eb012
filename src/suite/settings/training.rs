//! How a model is trained: optimizer, schedule, adapters, evaluations on the way.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ObjectiveSettings, OnlineSettings, RoundSettings, Sampling};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    Constant,
    ConstantWithWarmup,
    Linear,
    Cosine,
    InverseSqrt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    Adamw,
    Rmsprop,
    Sgd,
}

/// A linear layer of a transformer layer, as Hugging Face and PEFT name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Linear {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
    /// GPT-2's.
    CAttn,
    /// After attention, and at the MLP's end.
    CProj,
    CFc,
    /// GPT-NeoX's.
    QueryKeyValue,
    /// After attention; Phi's too.
    Dense,
    #[serde(rename = "dense_h_to_4h")]
    DenseHTo4h,
    #[serde(rename = "dense_4h_to_h")]
    Dense4hToH,
    /// Phi's.
    Fc1,
    Fc2,
}

impl Linear {
    /// Llama's, and so of all who are built like it.
    pub const ALL: [Self; 7] = [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// Every family's.
    pub const EVERY: [Self; 16] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
        Self::CAttn,
        Self::CProj,
        Self::CFc,
        Self::QueryKeyValue,
        Self::Dense,
        Self::DenseHTo4h,
        Self::Dense4hToH,
        Self::Fc1,
        Self::Fc2,
    ];

    /// Whether its weight is stored as (inputs, outputs): GPT-2's `Conv1D`.
    pub fn inputs_first(self) -> bool {
        matches!(self, Self::CAttn | Self::CProj | Self::CFc)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
            Self::CAttn => "c_attn",
            Self::CProj => "c_proj",
            Self::CFc => "c_fc",
            Self::QueryKeyValue => "query_key_value",
            Self::Dense => "dense",
            Self::DenseHTo4h => "dense_h_to_4h",
            Self::Dense4hToH => "dense_4h_to_h",
            Self::Fc1 => "fc1",
            Self::Fc2 => "fc2",
        }
    }
}

/// A low-rank adapter; `model::Adapter` has the formulas. Names and meanings as in PEFT's `LoraConfig`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraSettings {
    pub r: usize,
    pub lora_alpha: f64,
    pub lora_dropout: f64,
    /// In the order of the layer, each once. None: those that PEFT adapts in a model of the family, which is written as Llama's.
    #[serde(serialize_with = "targets_as_written")]
    pub target_modules: Vec<Linear>,
    pub use_rslora: bool,
}

fn targets_as_written<S: serde::Serializer>(targets: &[Linear], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let usual = [Linear::QProj, Linear::VProj];
    if targets.is_empty() { usual.serialize(serializer) } else { targets.serialize(serializer) }
}

/// The adapter that is trained instead of the model's own weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum AdapterSource {
    /// One that changes nothing at first: the reference is the base alone.
    Fresh(LoraSettings),
    /// A PEFT folder, which is trained on: the reference is the base under a frozen copy of it.
    Folder { path: PathBuf, lora_dropout: f64 },
}

/// Options that came later stand in digests only where they are used: what suites without them gave keeps its name.
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// How demonstrations are put into bins: TRL's names and definitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackingStrategy {
    /// Best-fit decreasing; what is longer than a bin is cut at the end.
    #[default]
    Bfd,
    /// Best-fit decreasing; what is longer than a bin is split, and its parts are packed as texts of their own.
    BfdSplit,
    /// One text after another, cut wherever a bin is full: texts in a bin see those before them.
    Wrapped,
}

impl PackingStrategy {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Names and meanings as in TRL / transformers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainSettings {
    #[serde(flatten)]
    pub objective: ObjectiveSettings,
    pub learning_rate: f64,
    pub lr_scheduler_type: Scheduler,
    pub warmup_steps: u64,
    pub optim: Optimizer,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    /// Of "sgd"; 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub momentum: f64,
    pub weight_decay: f64,
    /// None: no clipping.
    pub max_grad_norm: Option<f64>,
    pub per_device_train_batch_size: usize,
    pub gradient_accumulation_steps: usize,
    pub num_train_epochs: f64,
    /// Overrides `num_train_epochs`.
    pub max_steps: Option<u64>,
    /// Prompt and completion together; what is longer is cut at the end.
    pub max_length: Option<usize>,
    /// Fine-tuning: a batch counts bins of `max_length` tokens, not demonstrations.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub packing: bool,
    #[serde(skip_serializing_if = "PackingStrategy::is_usual")]
    pub packing_strategy: PackingStrategy,
    /// A checkpoint every so many steps, and always one at the end.
    pub save_steps: Option<u64>,
    pub sampling: Sampling,
    /// Share of what attention and MLP add to the residual stream that a training step drops; 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub resid_pdrop: f64,
    /// Whether layers are computed again in the backward pass rather than kept. No part of any digest: the bits are the same.
    #[serde(skip)]
    pub gradient_checkpointing: bool,
    /// None: all weights are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<AdapterSource>,
    /// None: there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<RoundSettings>,
    /// None: it learns from data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<OnlineSettings>,
    #[serde(flatten)]
    pub evaluation: EvaluationSettings,
}

impl TrainSettings {
    /// How often the policy is trained.
    pub fn rounds(&self) -> u64 {
        self.rounds.as_ref().map_or(1, |rounds| rounds.rounds)
    }

    /// The training of a round by itself: `steps` of its own, or as many as these settings give.
    pub fn of_one_round(&self, steps: Option<u64>) -> Self {
        Self { rounds: None, max_steps: steps.or(self.max_steps), ..self.clone() }
    }
}

/// When held-out examples are measured, and what follows from it: names as in transformers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EvaluationSettings {
    /// Every so many steps, and always at the end; none: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_steps: Option<u64>,
    /// Training ends after so many evaluations in a row that brought no better one; none: it takes all its steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<u64>,
    /// By how much an evaluation must beat the best one to count as better for the patience.
    #[serde(skip_serializing_if = "is_zero")]
    pub early_stopping_threshold: f64,
    /// Without its `eval_`; none: `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_for_best_model: Option<String>,
    /// None: unless the metric is a loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub greater_is_better: Option<bool>,
    /// Whether training ends with the weights of its best evaluation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub load_best_model_at_end: bool,
    /// Of the checkpoints, only so many of the latest are kept; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_total_limit: Option<usize>,
}

impl EvaluationSettings {
    pub fn metric(&self) -> &str {
        self.metric_for_best_model.as_deref().unwrap_or("loss")
    }

    pub fn greater_is_better(&self) -> bool {
        self.greater_is_better.unwrap_or(!self.metric().ends_with("loss"))
    }

    /// Whether evaluations decide which weights training ends with. One checkpoint is then left, named by the last step of the plan
    /// whatever step its weights are of: seeds that end at different steps must stand under one name where they are compared.
    pub fn selects(&self) -> bool {
        self.early_stopping_patience.is_some() || self.load_best_model_at_end
    }
}
