//! Tests of the loop, first with a task small enough to think through, then with real models.

mod device;
mod evaluation;
mod families;
mod invariance;
mod models;
mod packing;
mod parity;
mod quadratic;
mod score_cache;

use crate::suite::settings::{
    EvaluationSettings, ObjectiveSettings, Optimizer, PackingStrategy, Sampling, Scheduler, TrainSettings,
};

/// Four examples a step, shuffled, AdamW.
pub(crate) fn settings() -> TrainSettings {
    TrainSettings {
        objective: ObjectiveSettings::default(),
        learning_rate: 0.01,
        lr_scheduler_type: Scheduler::Linear,
        warmup_steps: 1,
        optim: Optimizer::Adamw,
        adam_beta1: 0.9,
        adam_beta2: 0.999,
        adam_epsilon: 1e-8,
        momentum: 0.0,
        weight_decay: 0.01,
        max_grad_norm: Some(1.0),
        per_device_train_batch_size: 4,
        gradient_accumulation_steps: 1,
        num_train_epochs: 1.0,
        max_steps: None,
        max_length: None,
        packing: false,
        packing_strategy: PackingStrategy::Bfd,
        resid_pdrop: 0.0,
        gradient_checkpointing: false,
        save_steps: None,
        sampling: Sampling::Shuffle,
        lora: None,
        rounds: None,
        online: None,
        evaluation: EvaluationSettings::default(),
    }
}

/// What `golden/train/optimizers.py` recorded of torch and transformers.
pub(crate) fn golden_optimizers() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../golden/train/optimizers.json")).unwrap()
}
