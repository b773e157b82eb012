//! Trainings of models that are built otherwise than Llama: what may not matter doesn't matter there either.

use super::invariance::{Kind, split, train};
use super::models::{VOCABULARY, pairs};
use crate::model::{Llama, LlamaConfig, Parameters};
use crate::suite::settings::TrainSettings;
use crate::watch::Silent;

const LAYERS: &str = r#""initializer_range": 0.3, "tie_word_embeddings": true, "hidden_size": 16, "intermediate_size": 20,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6"#;

pub(super) fn models() -> Vec<Llama> {
    let gpt = r#""initializer_range": 0.3, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2"#;
    let configs = [
        r#""model_type": "gpt2", "initializer_range": 0.3, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 20"#.to_owned(),
        format!(r#""model_type": "gpt_neox", {gpt}, "rotary_pct": 0.5"#),
        format!(r#""model_type": "phi", {gpt}"#),
        format!(
            r#""model_type": "gemma2", {LAYERS}, "sliding_window": 4, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 9"#
        ),
        format!(r#""model_type": "gemma3_text", {LAYERS}, "sliding_window": 4, "sliding_window_pattern": 2"#),
    ];
    let model =
        |keys: String| Llama::random(LlamaConfig::from_json(&format!("{{{keys}, \"vocab_size\": {VOCABULARY}}}")).unwrap(), 3);
    configs.into_iter().map(model).collect()
}

#[test]
fn no_family_is_trained_otherwise_in_micro_batches_of_one() {
    for model in models() {
        for kind in [Kind::Preferences, Kind::Lora, Kind::Dropout] {
            let bits = [8, 1].map(|micro_batch| {
                let (settings, work) = (TrainSettings { max_steps: Some(4), ..split(micro_batch) }, tempfile::tempdir().unwrap());
                train(kind, &model, &pairs(12), &settings, work.path(), &Silent).unwrap()
            });
            assert_eq!(bits[0], bits[1], "{} {kind:?}", model.config.family.name());
        }
    }
}

#[test]
fn no_family_is_trained_otherwise_where_layers_are_computed_again() {
    for model in models() {
        let bits = [false, true].map(|gradient_checkpointing| {
            let settings = TrainSettings { max_steps: Some(3), gradient_checkpointing, ..split(8) };
            let work = tempfile::tempdir().unwrap();
            train(Kind::Dropout, &model, &pairs(12), &settings, work.path(), &Silent).unwrap()
        });
        assert_eq!(bits[0], bits[1], "{}", model.config.family.name());
    }
}

#[test]
fn training_moves_every_tensor_of_every_family() {
    for model in models() {
        let (settings, work) = (TrainSettings { max_steps: Some(3), ..split(8) }, tempfile::tempdir().unwrap());
        train(Kind::Preferences, &model, &pairs(8), &settings, work.path(), &Silent).unwrap();
        let weights = std::fs::read(work.path().join("checkpoint-3/model.safetensors")).unwrap();
        let moved = Parameters::from_safetensors(&weights).unwrap();
        for ((name, before), (_, after)) in model.parameters.iter().zip(moved.iter()) {
            assert_ne!(before.values, after.values, "{name} of {} stays as it was", model.config.family.name());
        }
    }
}
