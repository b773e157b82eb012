//! Every default of a suite, and the only home of them. Where a field is TRL's or transformers', so is the default
//! (TRL 1.10: `DPOConfig`, `SFTConfig`, `RewardConfig`); the thresholds of the checks come from the literature cited in
//! `checks`.

use super::settings::{
    BcoShift, Device, Dialect, EvaluationSettings, FDivergence, FreshModel, GenerateSettings, ImplicitReward, JudgeKind,
    LoraSettings, LossType, Numerics, ObjectiveSettings, OnInconclusive, Optimizer, PackingStrategy, PairsFormat, RoundReference,
    Sampling, Scheduler, StatisticsSettings, TrainSettings, WorldSettings,
};

pub(super) const SEED: u64 = 42;
pub(super) const NUMERICS: Numerics = Numerics::Strict;
pub(super) const DEVICE: Device = Device::Cpu;
pub(super) const SAMPLING: Sampling = Sampling::Shuffle;
pub(super) const EVAL_PROMPTS: usize = 200;
pub(super) const PAIRS_FORMAT: PairsFormat = PairsFormat::Explicit;
/// Shares of prompts in a pairs file: held out, for the judges, for evaluation.
pub(super) const SHARES: [f64; 3] = [0.1, 0.2, 0.2];

/// What is trained; the learning rate's default is that of TRL's trainer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Preference,
    Sft,
    Judge,
}

/// TRL's `DPOConfig`, `KTOConfig` and `CPOConfig`.
impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            loss_type: vec![LossType::Sigmoid],
            loss_weights: vec![1.0],
            dialect: Dialect::DpoEval,
            beta: 0.1,
            label_smoothing: 0.0,
            f_divergence_type: FDivergence::ReverseKl,
            f_alpha_divergence_coef: 0.5,
            ld_alpha: None,
            use_weighting: false,
            rdpo_alpha: 0.0,
            dpop_lambda: 0.0,
            kl_coef: 0.0,
            discopop_tau: 0.05,
            bco_shift: BcoShift::None,
            simpo_gamma: 0.5,
            cpo_alpha: 1.0,
            unlikelihood_alpha: 1.0,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            precompute_ref_log_probs: true,
            sync_ref_model: false,
            ref_model_mixup_alpha: Self::REF_MODEL_MIXUP_ALPHA,
            ref_model_sync_steps: Self::REF_MODEL_SYNC_STEPS,
        }
    }
}

pub(super) fn training(purpose: Purpose, sampling: Sampling) -> TrainSettings {
    TrainSettings {
        objective: ObjectiveSettings {
            loss_type: match purpose {
                Purpose::Sft => vec![LossType::Sft],
                Purpose::Preference | Purpose::Judge => vec![LossType::Sigmoid],
            },
            ..ObjectiveSettings::default()
        },
        learning_rate: match purpose {
            Purpose::Preference => 1e-6,
            Purpose::Sft => 2e-5,
            Purpose::Judge => 1e-4,
        },
        lr_scheduler_type: Scheduler::Linear,
        warmup_steps: 0,
        optim: Optimizer::Adamw,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        momentum: 0.0,
        weight_decay: 0.0,
        max_grad_norm: Some(1.0),
        per_device_train_batch_size: 8,
        gradient_accumulation_steps: 1,
        num_train_epochs: 3.0,
        max_steps: None,
        max_length: Some(MAX_LENGTH),
        packing: false,
        packing_strategy: PackingStrategy::Bfd,
        resid_pdrop: 0.0,
        gradient_checkpointing: false,
        save_steps: None,
        sampling,
        lora: None,
        rounds: None,
        online: None,
        evaluation: EvaluationSettings::default(),
    }
}

/// Tokens that training and judges read; a fresh model that reads less lowers it to what it reads.
pub(super) const MAX_LENGTH: usize = 1024;

/// In rounds after the first, where the data say nothing: samples of each prompt, and pairs made of them.
pub(super) const ROUND_SAMPLES: [usize; 2] = [2, 1];
pub(super) const ROUND_REFERENCE: RoundReference = RoundReference::Previous;

/// TRL's `lora_alpha` (`ModelConfig`) and PEFT's modules for the model's family. Dropout is off; TRL's is 0.05.
pub(super) fn lora(r: usize) -> LoraSettings {
    LoraSettings { r, lora_alpha: 32.0, lora_dropout: 0.0, target_modules: Vec::new(), use_rslora: false }
}

pub(super) fn world() -> WorldSettings {
    WorldSettings {
        demonstrations: 4000,
        vocab_size: 800,
        train_prompts: 400,
        heldout_prompts: 100,
        judge_prompts: 400,
        eval_prompts: EVAL_PROMPTS,
        samples_per_prompt: 4,
        pairs_per_prompt: 2,
        label_temperature: 1.0,
        label_noise: 0.0,
        sampling: SAMPLING,
    }
}

pub(super) fn fresh_model() -> FreshModel {
    FreshModel {
        hidden_size: 128,
        intermediate_size: intermediate_size(128),
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 256,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        initializer_range: 0.02,
        tie_word_embeddings: true,
    }
}

/// 8/3 of the hidden size, rounded up to a multiple of 8: a gated MLP with the parameters of a plain one four times as wide
/// as the model (Shazeer 2020, "GLU variants improve Transformer").
pub(super) fn intermediate_size(hidden_size: usize) -> usize {
    hidden_size.saturating_mul(8).div_ceil(3).next_multiple_of(8)
}

pub(super) fn generate() -> GenerateSettings {
    GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 128, samples_per_prompt: 1 }
}

pub(super) fn template(kind: JudgeKind) -> &'static str {
    match kind {
        JudgeKind::Pairwise => "{prompt}{a}\n{prompt}{b}",
        JudgeKind::RewardModel => "{prompt}{completion}",
    }
}

/// An implicit judge's β: that of `DPOConfig` where there is a reference; log-probabilities alone are taken as they are.
pub(super) fn implicit_beta(reward: ImplicitReward) -> f64 {
    if reward == ImplicitReward::LogRatio { 0.1 } else { 1.0 }
}

pub(super) const TIE_WIDTH: f64 = 0.0;
pub(super) const MIN_ACCURACY: f64 = 0.6;

pub(super) fn statistics() -> StatisticsSettings {
    StatisticsSettings { level: 0.95, labels: None }
}

pub(super) const GATE_MARGIN: f64 = 0.02;
pub(super) const CURVE_TOLERANCE: f64 = 0.01;
pub(super) const ON_INCONCLUSIVE: OnInconclusive = OnInconclusive::Fail;
pub(super) const REPORT_SAMPLES: usize = 8;
