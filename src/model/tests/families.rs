//! Every family held against transformers (`golden/models/families.py`), and against the identities that hold for a plain Llama.

use std::path::{Path, PathBuf};

use super::*;
use crate::model::{LlamaConfig, Parameters};

const NAMES: [&str; 9] = [
    "llama-plain-bf16",
    "llama-linear-biases-sharded",
    "llama-llama3",
    "mistral-window",
    "mistral-whole",
    "qwen2",
    "qwen2-windows",
    "qwen3",
    "qwen3-biases",
];

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/models")).join(name)
}

fn load(name: &str) -> Llama {
    Llama::load(&folder(name)).unwrap()
}

/// The models of `golden/models`.
pub(super) fn families() -> Vec<Llama> {
    NAMES.iter().map(|name| load(name)).collect()
}

/// What transformers made of a model.
struct Expected {
    tensors: Parameters,
    packed: Packed,
    targets: Vec<Target>,
}

impl Expected {
    fn of(name: &str) -> Self {
        let tensors = Parameters::from_safetensors(&std::fs::read(folder(name).join("expected.safetensors")).unwrap()).unwrap();
        let mut packed = Packed::new();
        let whole = packed.push(&tensors.get("ids").values.iter().map(|id| *id as u32).collect::<Vec<_>>());
        let targets = packed.targets_within(whole);
        Self { tensors, packed, targets }
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.tensors.get(name).values
    }

    fn gradients(&self, model: &Llama, dlogps: &[f32]) -> Parameters {
        let mut grads = Gradients::of(&model.parameters);
        model.backward(model.forward(&self.packed, &self.targets), &self.packed, &self.targets, dlogps, &mut grads);
        grads.total().clone()
    }
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32], allowed: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < allowed, "{what}: {a} {b}");
    }
}

#[test]
fn logits_and_log_probabilities_are_those_of_transformers() {
    for name in NAMES {
        let (model, expected) = (load(name), Expected::of(name));
        let rows = expected.packed.rows();
        let hidden = model.trunk().forward(&expected.packed, 0..rows, false).hidden;
        let logits = model.logits(&model.trunk().normed("model.norm.weight", &hidden).0);
        assert_near(&logits, expected.values("logits"), 1e-4, name);
        let scores = model.score(&expected.packed, &expected.targets);
        assert_near(&scores.iter().map(|s| s.logp).collect::<Vec<_>>(), expected.values("logps"), 1e-4, name);
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    for name in NAMES {
        let (model, expected) = (load(name), Expected::of(name));
        let found = expected.gradients(&model, expected.values("weights"));
        for (tensor, gradient) in found.iter() {
            let expected = expected.values(&format!("grad.{tensor}"));
            let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert_near(&gradient.values, expected, 1e-3 * largest, &format!("{name} {tensor}"));
        }
        assert_eq!(found.len() + 5, expected.tensors.len(), "{name}: every tensor has a gradient");
    }
}

#[test]
fn ten_steps_of_sgd_lose_what_they_lose_in_pytorch() {
    for name in NAMES {
        let (mut model, expected) = (load(name), Expected::of(name));
        let share = 1.0 / expected.targets.len() as f32;
        for (step, loss) in expected.values("losses").iter().enumerate() {
            let found = -model.score(&expected.packed, &expected.targets).iter().map(|s| s.logp).sum::<f32>() * share;
            assert!((found - loss).abs() < 1e-4, "{name}, step {step}: {found} {loss}");
            let gradients = expected.gradients(&model, &vec![-share; expected.targets.len()]);
            for ((_, tensor), (_, gradient)) in model.parameters.iter_mut().zip(gradients.iter()) {
                tensor.values.iter_mut().zip(&gradient.values).for_each(|(w, g)| *w -= 0.1 * g);
            }
        }
    }
}

#[test]
fn a_saved_model_is_the_loaded_one() {
    for name in NAMES {
        let (model, written) = (load(name), tempfile::tempdir().unwrap());
        model.save(written.path()).unwrap();
        let back = Llama::load(written.path()).unwrap();
        assert_eq!((&back.config, &back.parameters), (&model.config, &model.parameters), "{name}");
    }
}

/// transformers reads what is written here, and finds the logits that it had found: `families.py ours` holds it to that.
#[test]
fn configurations_are_written_as_recorded() {
    for name in NAMES {
        let json = load(name).config.causal_json();
        let path = folder(name).join("ours.json");
        if std::env::var_os("DPO_EVAL_WRITE_CONFIGS").is_some() {
            std::fs::write(&path, &json).unwrap();
        }
        assert_eq!(json, std::fs::read_to_string(&path).unwrap(), "{name}");
    }
}

#[test]
fn every_family_has_the_gradients_of_central_differences() {
    families().iter().for_each(|model| check_central_differences(model, "plain", Llama::forward));
}

#[test]
fn shared_prompts_give_the_bits_of_unshared_sequences_in_every_family() {
    families().iter().for_each(check_shared_prompt);
}

#[test]
fn decoding_gives_the_bits_of_scoring_in_every_family() {
    families().iter().for_each(check_decoding);
}

#[test]
fn no_family_depends_on_micro_batches_wanted_rows_or_threads() {
    for model in families() {
        check_several_backward_calls(&model);
        check_wanted_rows(&model);
        check_threads(&model);
    }
}

#[test]
fn a_token_beyond_the_window_of_every_layer_changes_nothing() {
    let model = load("mistral-window");
    let reach = model.config.num_hidden_layers * (model.config.window(0).unwrap() - 1);
    let mut tokens = random_tokens(30, model.config.vocab_size, 0);
    let last = |tokens: &[u32]| {
        let mut packed = Packed::new();
        packed.push(tokens);
        bits(&model.score(&packed, &[Target { row: tokens.len() - 1, token: 5 }]))
    };
    let before = last(&tokens);
    tokens[29 - reach - 1] = (tokens[29 - reach - 1] + 1) % 32;
    assert_eq!(last(&tokens), before);
    tokens[29 - reach] = (tokens[29 - reach] + 1) % 32;
    assert_ne!(last(&tokens), before);
}

#[test]
fn a_head_with_a_bias_is_refused_by_name() {
    let mut model = load("qwen2");
    model.parameters.insert("lm_head.bias", crate::model::Tensor::filled(&[32], 0.1));
    let written = tempfile::tempdir().unwrap();
    model.save(written.path()).unwrap();
    let error = Llama::load(written.path()).unwrap_err();
    assert!(error.message.contains("`lm_head.bias` is not expected"), "{error}");
    assert!(LlamaConfig::load(written.path()).is_ok());
}

/// `config.json` as it was published, but for its comments on provenance, and the number of weights that its model card or its
/// weight files' index tell of.
#[test]
fn published_configurations_describe_models_of_the_published_sizes() {
    let cases = [
        (LLAMA_3_1_8B, 8_030_261_248usize),
        (MISTRAL_7B, 7_241_732_096),
        (SMOLLM2_135M, 134_515_008),
        (QWEN2_5_HALF_B, 494_032_768),
        (QWEN3_0_6_B, 596_049_920),
    ];
    for (json, weights) in cases {
        let config = LlamaConfig::from_json(json).unwrap();
        let found: usize = Llama::tensors(&config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(found, weights, "{json}");
    }
}

const LLAMA_3_1_8B: &str = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256}"#;

const MISTRAL_7B: &str = r#"{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
    "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}"#;

const SMOLLM2_135M: &str = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "model_type": "llama",
    "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true, "vocab_size": 49152}"#;

const QWEN2_5_HALF_B: &str = r#"{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": true,
    "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936}"#;

const QWEN3_0_6_B: &str = r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
    "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
    "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
    "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false, "vocab_size": 151936}"#;

/// As Llama 2's weight files have it.
#[test]
fn stored_rotary_frequencies_are_passed_over() {
    let (mut model, written) = (load("mistral-whole"), tempfile::tempdir().unwrap());
    let plain = model.parameters.clone();
    model.parameters.insert("model.layers.0.self_attn.rotary_emb.inv_freq", crate::model::Tensor::filled(&[2], 1.0));
    model.save(written.path()).unwrap();
    assert_eq!(Llama::load(written.path()).unwrap().parameters, plain);
}
