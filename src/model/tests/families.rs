//! Every family held against transformers (`golden/models/families.py`), and against the identities that hold for a plain Llama.

use std::path::{Path, PathBuf};

use super::*;
use crate::model::{LlamaConfig, Parameters};

const NAMES: [&str; 19] = [
    "llama-plain-bf16",
    "llama-linear-biases-sharded",
    "llama-llama3",
    "mistral-window",
    "mistral-whole",
    "qwen2",
    "qwen2-windows",
    "qwen3",
    "qwen3-biases",
    "gpt2",
    "gpt2-untied",
    "gpt-neox",
    "gpt-neox-sequential",
    "phi",
    "gemma",
    "gemma2",
    "gemma2-uncapped",
    "gemma3",
    "gemma3-sliding",
];

pub(super) fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/models")).join(name)
}

pub(super) fn load(name: &str) -> Llama {
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
pub(super) fn assert_near(found: &[f32], expected: &[f32], allowed: f32, what: &str) {
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
        let hidden = model.trunk().forward(&expected.packed, 0..rows, Keep::Nothing).hidden;
        let logits = model.logits(&model.trunk().final_normed(&hidden).0);
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
        let recorded = expected.tensors.iter().filter(|(tensor, _)| tensor.starts_with("grad.")).count();
        assert_eq!(found.len(), recorded, "{name}: every tensor has a gradient");
    }
}

#[test]
fn ten_steps_of_sgd_lose_what_they_lose_in_pytorch() {
    for name in NAMES {
        let (mut model, expected) = (load(name), Expected::of(name));
        let share = 1.0 / expected.targets.len() as f32;
        let rate = expected.tensors.find("rate").map_or(0.1, |rate| rate.values[0]);
        for (step, loss) in expected.values("losses").iter().enumerate() {
            let found = -model.score(&expected.packed, &expected.targets).iter().map(|s| s.logp).sum::<f32>() * share;
            assert!((found - loss).abs() < 1e-4, "{name}, step {step}: {found} {loss}");
            let gradients = expected.gradients(&model, &vec![-share; expected.targets.len()]);
            for ((_, tensor), (_, gradient)) in model.parameters.iter_mut().zip(gradients.iter()) {
                tensor.values.iter_mut().zip(&gradient.values).for_each(|(w, g)| *w -= rate * g);
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
    for mut model in families() {
        // Gemma's padding token has an embedding of zeros, where a norm is too steep for differences in binary32.
        let embedding = format!("{}.weight", model.config.family.names().embedding);
        let values = &mut model.parameters.get_mut(&embedding).values;
        values.iter_mut().zip(weights_of(32)).filter(|(w, _)| **w == 0.0).for_each(|(w, value)| *w = 0.2 * value);
        check_central_differences(&model, model.config.family.name(), Llama::forward);
    }
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
        (GPT2, 124_439_808),
        (PYTHIA_70M, 70_426_624),
        (PYTHIA_2_8B, 2_775_208_960),
        (PHI_2, 2_779_683_840),
        (GEMMA_2B, 2_506_172_416),
        (GEMMA_2_2B, 2_614_341_888),
        (GEMMA_3_1B, 999_885_952),
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

const GPT2: &str = r#"{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
    "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1,
    "summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
    "summary_use_proj": true, "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}},
    "vocab_size": 50257}"#;

const PYTHIA_70M: &str = r#"{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 6,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": true, "use_parallel_residual": true, "vocab_size": 50304}"#;

const PYTHIA_2_8B: &str = r#"{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 10240, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 32, "num_hidden_layers": 32,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": true, "use_parallel_residual": true, "vocab_size": 50304}"#;

const PHI_2: &str = r#"{"architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 50256, "embd_pdrop": 0.0,
    "eos_token_id": 50256, "hidden_act": "gelu_new", "hidden_size": 2560, "initializer_range": 0.02, "intermediate_size": 10240,
    "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "qk_layernorm": false, "resid_pdrop": 0.1,
    "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float16",
    "transformers_version": "4.37.0", "use_cache": true, "vocab_size": 51200}"#;

const GEMMA_2B: &str = r#"{"architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 16384, "max_position_embeddings": 8192,
    "model_type": "gemma", "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
    "transformers_version": "4.38.0.dev0", "use_cache": true, "vocab_size": 256000}"#;

const GEMMA_2_2B: &str = r#"{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
    "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304, "initializer_range": 0.02, "intermediate_size": 9216, "max_position_embeddings": 8192,
    "model_type": "gemma2", "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float32",
    "transformers_version": "4.42.4", "use_cache": true, "vocab_size": 256000}"#;

const GEMMA_3_1B: &str = r#"{"architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
    "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
    "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
    "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512,
    "sliding_window_pattern": 6, "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": true,
    "vocab_size": 262144}"#;

#[test]
fn published_layers_alternate_as_their_models_were_trained() {
    let gemma2 = LlamaConfig::from_json(GEMMA_2_2B).unwrap();
    assert_eq!([0, 1, 24, 25].map(|layer| gemma2.window(layer)), [Some(4096), None, Some(4096), None]);
    let gemma3 = LlamaConfig::from_json(GEMMA_3_1B).unwrap();
    assert_eq!([0, 4, 5, 6, 11, 25].map(|layer| gemma3.window(layer).is_some()), [true, true, false, true, false, true]);
    for (windowed, theta) in [(true, 1e4f64), (false, 1e6)] {
        assert!((gemma3.frequencies(windowed)[1] / theta.powf(-2.0 / 256.0) - 1.0).abs() < 1e-12);
    }
    let pythia = LlamaConfig::from_json(PYTHIA_70M).unwrap();
    assert_eq!((pythia.head_dim, pythia.turned(), pythia.frequencies(false).len()), (64, 16, 8));
    assert_eq!(LlamaConfig::from_json(PHI_2).unwrap().turned(), 32);
    assert_eq!(LlamaConfig::from_json(GPT2).unwrap().turned(), 0);
}

/// candle-transformers' own models; within the first window, which its Gemma 2 and 3 don't take as transformers does.
#[test]
fn logits_of_phi_and_gemma_are_those_of_candle_transformers() {
    for (name, tokens) in [("phi", 20), ("gemma", 20), ("gemma2", 5), ("gemma3-sliding", 3)] {
        let mut model = load(name);
        // candle divides scores by the root of head_dim whatever a configuration says.
        model.config.block.query_pre_attn_scalar = model.config.block.query_pre_attn_scalar.map(|_| model.config.head_dim as f64);
        let ids = random_tokens(tokens, model.config.vocab_size, 5);
        let mut packed = Packed::new();
        packed.push(&ids);
        let hidden = model.trunk().forward(&packed, 0..tokens, Keep::Nothing).hidden;
        let logits = model.logits(&model.trunk().final_normed(&hidden).0);
        assert_near(&logits, &oracle::candle_logits_of_others(&model, &ids), 1e-4, name);
    }
}

/// OpenAI's GPT-2 begins below `transformer` and holds causal masks; EleutherAI's models hold masks too, not all of them numbers of a kind
/// that weights have.
#[test]
fn older_files_of_gpt2_and_neox_are_read_under_their_own_names() {
    for (name, strip, buffers) in [
        ("gpt2", "transformer.", ["h.0.attn.bias", "h.1.attn.masked_bias"]),
        ("gpt-neox", "", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.1.attention.rotary_emb.inv_freq"]),
    ] {
        let (model, written) = (load(name), tempfile::tempdir().unwrap());
        model.save(written.path()).unwrap();
        let older = model.parameters.iter().map(|(name, t)| (name.strip_prefix(strip).unwrap_or(name).to_owned(), t.clone()));
        let mut older: Parameters = older.collect();
        for buffer in buffers {
            older.insert(buffer, crate::model::Tensor::filled(&[1, 1, 4, 4], 1.0));
        }
        let mut bytes = older.to_safetensors();
        if name == "gpt-neox" {
            // The masks as integers.
            let at = String::from_utf8_lossy(&bytes).find("attention.bias").unwrap();
            let at = at + String::from_utf8_lossy(&bytes[at..]).find("F32").unwrap();
            bytes[at..at + 3].copy_from_slice(b"I32");
        }
        std::fs::write(written.path().join("model.safetensors"), bytes).unwrap();
        assert_eq!(Llama::load(written.path()).unwrap().parameters, model.parameters, "{name}");
    }
}

#[test]
fn misfits_of_every_layout_are_named() {
    for (name, tensor, shape) in [
        ("gpt2", "transformer.h.1.attn.c_attn.weight", "[48, 16], not [16, 48]"),
        ("gpt-neox", "gpt_neox.layers.0.mlp.dense_4h_to_h.weight", "[20, 16], not [16, 20]"),
    ] {
        let (mut model, written) = (load(name), tempfile::tempdir().unwrap());
        model.parameters.get_mut(tensor).shape.reverse();
        model.parameters.remove(&tensor.replace(".weight", ".bias"));
        model.save(written.path()).unwrap();
        let message = Llama::load(written.path()).unwrap_err().message;
        assert!(message.contains(&format!("`{tensor}` has shape {shape}")), "{message}");
        assert!(message.contains(&format!("`{}` is missing", tensor.replace(".weight", ".bias"))), "{message}");
    }
}

/// As Llama 2's weight files have it.
#[test]
fn stored_rotary_frequencies_are_passed_over() {
    let (mut model, written) = (load("mistral-whole"), tempfile::tempdir().unwrap());
    let plain = model.parameters.clone();
    model.parameters.insert("model.layers.0.self_attn.rotary_emb.inv_freq", crate::model::Tensor::filled(&[2], 1.0));
    model.save(written.path()).unwrap();
    assert_eq!(Llama::load(written.path()).unwrap().parameters, plain);
}
