//! What is learnt from preferences: losses, whose definitions count, and their constants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
