//! What a suite means: every default filled, every value in range. Stages take these and nothing else; their digests are
//! part of the cells' keys, so a field stands here only if it can change a number (or says where an input lies). Paths are
//! kept as written, so that digests don't depend on where the checkout lies; `Suite::locate` gives the place.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod encoding;
mod judging;
mod online;
mod onnx;
mod rounds;
mod verdict;

pub use encoding::{Attention, EncodingSettings, Pooling};
pub use judging::{
    Combine, FitnessSettings, Folder, ImplicitReward, ImplicitSettings, LabelSettings, PanelSettings, RuleSettings, RuleTest,
    TextFormat,
};
pub use online::{OnlineSettings, PpoSettings};
pub use onnx::{InputRole, Label, OnnxSettings, Provider, Side, Values};
pub use rounds::{RoundReference, RoundSettings};
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

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Variant {
    pub name: String,
    pub policy: PolicySource,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "policy", rename_all = "lowercase")]
pub enum PolicySource {
    Train(Box<TrainSettings>),
    /// A policy trained elsewhere: a Hugging Face folder. `beta` scales its implicit rewards.
    Checkpoint {
        path: PathBuf,
        beta: f64,
    },
}

/// A loss to train with. Formulas and sources stand in `train::objective`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// DPO; with `label_smoothing` > 0 conservative DPO.
    Sigmoid,
    /// DPO on log-ratios averaged over tokens.
    SigmoidNorm,
    /// Robust DPO: unbiased under labels flipped with probability `label_smoothing`.
    Robust,
    /// Identity preference optimization.
    Ipo,
    /// SLiC's and RSO's hinge.
    Hinge,
    /// EXO; needs `label_smoothing`.
    ExoPair,
    /// Noise-contrastive alignment.
    NcaPair,
    /// Binary classifier optimization.
    BcoPair,
    /// SPPO with hard labels.
    SppoHard,
    /// Alignment by optimal transport, within pairs.
    Aot,
    /// Alignment by optimal transport, between all chosen and all rejected sides.
    AotUnpaired,
    /// Anchored preference optimization: chosen up, rejected down.
    ApoZero,
    /// Anchored preference optimization: chosen down, rejected further down.
    ApoDown,
    /// The loss that a language model discovered.
    Discopop,
    /// Without a reference: average log-probabilities with a target margin.
    Simpo,
    /// Without a reference: cross-entropy plus the log odds ratio.
    Orpo,
    /// Without a reference: contrastive preference optimization.
    Cpo,
    /// Cross-entropy on the completions' tokens: of pairs on the chosen sides.
    Sft,
    /// Cross-entropy on chosen sides, unlikelihood on rejected ones.
    Unlikelihood,
    /// Kahneman–Tversky optimization; pairs are split into a desirable and an undesirable example.
    Kto,
    /// `apo_zero` on single examples; pairs are split likewise.
    ApoZeroUnpaired,
    /// On what the policy itself writes, scored by a reward model: proximal policy optimization.
    Ppo,
    /// The same by REINFORCE with a leave-one-out baseline.
    Rloo,
}

impl LossType {
    /// Learns from single completions with a label, not from pairs.
    pub fn is_unpaired(self) -> bool {
        matches!(self, Self::Kto | Self::ApoZeroUnpaired)
    }

    /// Learns from what the policy writes, and from no data but prompts.
    pub fn is_online(self) -> bool {
        matches!(self, Self::Ppo | Self::Rloo)
    }

    /// Doesn't look at the reference.
    pub fn is_reference_free(self) -> bool {
        matches!(self, Self::Simpo | Self::Orpo | Self::Cpo)
    }

    /// As it stands in a suite file.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => unreachable!("a loss is a name"),
        }
    }
}

/// Whose definition counts where trainers differ under one name; `train::objective` lists the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Ours: nothing depends on the micro-batch, nothing is dropped.
    DpoEval,
    /// TRL 1.16.
    Trl,
    /// The DPO paper's code.
    Original,
    Openrlhf,
    LlamaFactory,
}

impl Dialect {
    /// As it stands in a suite file.
    pub fn name(self) -> &'static str {
        match self {
            Self::DpoEval => "dpo-eval",
            Self::Trl => "trl",
            Self::Original => "original",
            Self::Openrlhf => "openrlhf",
            Self::LlamaFactory => "llama-factory",
        }
    }
}

/// What keeps the policy near the reference (f-DPO).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FDivergence {
    ReverseKl,
    ForwardKl,
    JsDivergence,
    AlphaDivergence,
}

/// What `bco_pair` subtracts from the rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BcoShift {
    /// Nothing, as TRL since 0.29.
    None,
    /// Their mean over the optimizer batch.
    Batch,
}

/// What is learnt from preferences: losses and their constants, under TRL's names where TRL has them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectiveSettings {
    /// Their weighted sum is minimised; at least one.
    pub loss_type: Vec<LossType>,
    /// One a loss.
    pub loss_weights: Vec<f64>,
    pub dialect: Dialect,
    pub beta: f64,
    pub label_smoothing: f64,
    pub f_divergence_type: FDivergence,
    pub f_alpha_divergence_coef: f64,
    /// Weight of the tokens beyond the shorter completion's length (LD-DPO).
    pub ld_alpha: Option<f64>,
    /// WPO: weigh pairs by how likely the policy is to write them.
    pub use_weighting: bool,
    /// R-DPO: α of the length term; 0: none.
    pub rdpo_alpha: f64,
    /// DPOP: λ of the penalty on a fall of the chosen log-probability; 0: none.
    pub dpop_lambda: f64,
    /// Weight of an explicit KL penalty; 0: none.
    pub kl_coef: f64,
    pub discopop_tau: f64,
    pub bco_shift: BcoShift,
    pub simpo_gamma: f64,
    /// CPO: weight of the cross-entropy.
    pub cpo_alpha: f64,
    pub unlikelihood_alpha: f64,
    pub desirable_weight: f64,
    pub undesirable_weight: f64,
    /// Whether the reference scores all data once, before training, and is then let go; else it stays in memory and scores each
    /// step's examples. The bits are the same.
    pub precompute_ref_log_probs: bool,
    /// TR-DPO: whether the reference follows the policy.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sync_ref_model: bool,
    /// α of reference ← α · policy + (1 − α) · reference.
    #[serde(skip_serializing_if = "is_usual_mixup")]
    pub ref_model_mixup_alpha: f64,
    /// After every so many steps.
    #[serde(skip_serializing_if = "is_usual_sync")]
    pub ref_model_sync_steps: u64,
}

impl ObjectiveSettings {
    pub const REF_MODEL_MIXUP_ALPHA: f64 = 0.6;
    pub const REF_MODEL_SYNC_STEPS: u64 = 512;
}

fn is_usual_mixup(alpha: &f64) -> bool {
    *alpha == ObjectiveSettings::REF_MODEL_MIXUP_ALPHA
}

fn is_usual_sync(steps: &u64) -> bool {
    *steps == ObjectiveSettings::REF_MODEL_SYNC_STEPS
}

impl ObjectiveSettings {
    pub fn is_unpaired(&self) -> bool {
        self.loss_type.iter().any(|loss| loss.is_unpaired())
    }
}

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
