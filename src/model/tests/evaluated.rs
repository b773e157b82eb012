//! Models that candle-transformers computes, held against transformers (`golden/evaluated/families.py`).

use std::path::{Path, PathBuf};

use super::random_tokens;
use crate::model::{Causal, Decoder, Evaluated, Limits, Llama, Packed, Parameters, Target, compare, evaluated_families};
use crate::numerics::logprob;
use crate::suite::settings::Numerics;

const NAMES: [&str; 12] = [
    "glm4",
    "helium",
    "mixtral",
    "olmo",
    "olmo2",
    "phi3",
    "phi3-partial",
    "qwen2_moe",
    "qwen3_moe",
    "smollm3",
    "stablelm",
    "starcoder2",
];

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/evaluated")).join(name)
}

fn load(name: &str) -> Evaluated {
    Evaluated::load(&folder(name)).unwrap()
}

/// A copy of a golden folder, of whose configuration `change` makes something else.
fn changed(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder(name).join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    copy
}

fn refusal(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
    match Evaluated::load(changed(name, change).path()) {
        Err(error) => error.message,
        Ok(_) => panic!("{name} is accepted"),
    }
}

#[test]
fn logits_and_log_probabilities_are_those_of_transformers() {
    for name in NAMES {
        let (model, file) = (load(name), std::fs::read(folder(name).join("expected.safetensors")).unwrap());
        let expected = Parameters::from_safetensors(&file).unwrap();
        let ids: Vec<u32> = expected.get("ids").values.iter().map(|id| *id as u32).collect();
        // Each position by itself: as the last of a prompt, and after a step.
        let prefixes: Vec<Vec<u32>> = (1..=ids.len()).map(|length| ids[..length].to_vec()).collect();
        let mut decoder = model.decoder();
        decoder.begin(&prefixes);
        near(decoder.logits(), &expected.get("logits").values, name);
        let mut decoder = model.decoder();
        decoder.begin(&[ids[..1].to_vec()]);
        for (row, next) in expected.get("logits").values.chunks_exact(32).zip(&ids[1..]) {
            near(decoder.logits(), row, name);
            decoder.step(&[*next], &[true]);
        }
        let mut packed = Packed::new();
        let whole = packed.push(&ids);
        let logps: Vec<f32> = model.score(&packed, &packed.targets_within(whole)).iter().map(|score| score.logp).collect();
        near(&logps, &expected.get("logps").values, name);
    }
}

#[track_caller]
fn near(found: &[f32], expected: &[f32], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let apart = found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(apart < 1e-4, "{name}: {apart} apart");
}

#[test]
fn every_family_that_is_named_has_a_golden_model() {
    for family in evaluated_families() {
        assert!(NAMES.contains(&family), "{family}");
    }
}

/// Completions of shared prompts, of many lengths, some of whose rows alone are read.
fn forest() -> (Packed, Vec<Target>) {
    let (mut packed, mut targets) = (Packed::new(), Vec::new());
    for (prompt, completions) in [(5, [4, 7]), (3, [1, 2]), (5, [6, 6])] {
        let tokens = |length: usize| random_tokens(length, 32, (prompt * 31 + length + packed.rows()) as u64);
        let (start, completions) = (tokens(prompt), completions.map(tokens));
        let parent = packed.push(&start);
        for completion in completions {
            let segment = packed.push_after(parent, &completion);
            targets.extend(packed.completion_targets(parent, segment));
        }
    }
    let alone = packed.push(&random_tokens(9, 32, 5));
    targets.extend(packed.targets_within(alone).into_iter().skip(3).step_by(2));
    (packed, targets)
}

#[test]
fn a_batch_says_what_its_sequences_say_alone() {
    let (packed, targets) = forest();
    for name in NAMES {
        let model = load(name);
        let together = model.score(&packed, &targets);
        for (target, score) in targets.iter().zip(&together) {
            let logits = alone(&model, &packed, target.row);
            let expected = logprob::score(&logits, target.token);
            assert!((score.logp - expected.logp).abs() < 1e-5 && (score.entropy - expected.entropy).abs() < 1e-5, "{name}");
        }
    }
}

/// The logits at a packed row, of its sequence by itself.
fn alone(model: &dyn Causal, packed: &Packed, row: usize) -> Vec<f32> {
    let segments = packed.segments();
    let own = segments.iter().position(|segment| segment.rows.contains(&row)).unwrap();
    let mut tokens = segments[own].parent.map_or(Vec::new(), |parent| packed.tokens()[segments[parent].rows.clone()].to_vec());
    tokens.extend(&packed.tokens()[segments[own].rows.start..=row]);
    let mut decoder = model.decoder();
    decoder.begin(&[tokens]);
    decoder.logits().to_vec()
}

#[test]
fn the_divergence_of_two_families_is_that_of_their_logits() {
    let (packed, targets) = forest();
    let other: Llama = super::families::load("qwen2").with_numerics(Numerics::Fast);
    let pairs: [(&dyn Causal, &dyn Causal); 3] =
        [(&load("mixtral"), &load("olmo2")), (&load("stablelm"), &other), (&other, &load("glm4"))];
    for (policy, reference) in pairs {
        let found = compare(policy, reference, &packed, &targets);
        assert_eq!(found.kl.len(), targets.len());
        for (i, target) in targets.iter().enumerate() {
            let [p, r] = [policy, reference].map(|model| alone(model, &packed, target.row));
            assert!((found.kl[i] - logprob::kl(&p, &r)).abs() < 1e-4, "{} {}", found.kl[i], logprob::kl(&p, &r));
            assert!((found.policy[i].logp - logprob::score(&p, target.token).logp).abs() < 1e-4);
            assert!((found.reference[i].logp - logprob::score(&r, target.token).logp).abs() < 1e-4);
        }
    }
    let same = load("phi3");
    assert!(compare(&same, &same, &packed, &targets).kl.iter().all(|kl| *kl == 0.0));
}

#[test]
fn sequences_that_end_early_leave_the_others_as_they_were() {
    for name in ["mixtral", "glm4", "stablelm"] {
        let model = load(name);
        let prompts: Vec<Vec<u32>> = [4, 4, 2].iter().map(|n| random_tokens(*n, 32, *n as u64)).collect();
        let mut decoder = model.decoder();
        decoder.begin(&prompts);
        let mut sequences = prompts.clone();
        for step in 0..6 {
            let alive = [step < 2, true, step < 4];
            let next = random_tokens(3, 32, 100 + step);
            let before = decoder.logits().to_vec();
            decoder.step(&next, &alive);
            for i in 0..3 {
                let row = i * 32..(i + 1) * 32;
                if !alive[i] {
                    assert_eq!(decoder.logits()[row.clone()], before[row]);
                    continue;
                }
                sequences[i].push(next[i]);
                let mut fresh: Decoder = model.decoder();
                fresh.begin(&sequences[i..=i]);
                near(&decoder.logits()[row], fresh.logits(), name);
                assert_eq!(decoder.len(i), sequences[i].len());
            }
        }
    }
}

#[test]
fn what_candle_would_pass_over_is_refused_by_name() {
    let cases: [(&str, &str, serde_json::Value); 12] = [
        ("mixtral", "head_dim", 6.into()),
        ("mixtral", "logit_scale", 2.0.into()),
        ("qwen2_moe", "mlp_only_layers", serde_json::json!([0])),
        ("qwen3_moe", "attention_logit_cap", 30.0.into()),
        ("stablelm", "use_parallel_residual", true.into()),
        ("stablelm", "qk_layernorm", true.into()),
        ("phi3", "rope_parameters", serde_json::json!({"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0]})),
        ("olmo2", "rope_parameters", serde_json::json!({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0})),
        ("olmo", "hidden_act", "gelu".into()),
        ("glm4", "head_dim", serde_json::Value::Null),
        ("helium", "rms_norm_eps", "small".into()),
        ("starcoder2", "norm_type", "rms".into()),
    ];
    for (name, key, value) in cases {
        let message = refusal(name, |config| config[key] = value);
        let said = if key == "rope_parameters" { "rope" } else { key };
        assert!(message.to_lowercase().contains(said), "{name} {key}: {message}");
    }
}

#[test]
fn tensors_that_dont_fit_are_listed_by_name() {
    let message = refusal("qwen2_moe", |config| config["shared_expert_intermediate_size"] = 24.into());
    assert!(message.contains("`model.layers.1.mlp.shared_expert.up_proj.weight` has shape [20, 16], not [24, 16]"), "{message}");
    let message = refusal("stablelm", |config| config["use_qkv_bias"] = false.into());
    assert!(message.contains("`model.layers.0.self_attn.q_proj.bias` is not expected"), "{message}");
    let message = refusal("olmo2", |config| config["num_hidden_layers"] = 3.into());
    assert!(message.contains("`model.layers.2.mlp.up_proj.weight` is missing"), "{message}");
    let message = refusal("mixtral", |config| config["tie_word_embeddings"] = true.into());
    assert!(message.contains("`lm_head.weight` differs from `model.embed_tokens.weight`"), "{message}");
}

#[test]
fn a_window_bounds_the_context() {
    let context = |name: &str, change: fn(&mut serde_json::Value)| Limits::load(changed(name, change).path()).unwrap().context;
    assert_eq!(context("mixtral", |_| ()), 64);
    assert_eq!(context("mixtral", |config| config["sliding_window"] = 10.into()), 10);
    assert_eq!(context("starcoder2", |config| config["sliding_window"] = 100.into()), 64);
    assert_eq!(context("qwen3_moe", |config| config["sliding_window"] = 10.into()), 64);
    let used = |config: &mut serde_json::Value| {
        config["sliding_window"] = 10.into();
        config["use_sliding_window"] = true.into();
    };
    assert_eq!(context("qwen3_moe", used), 10);
    assert_eq!(context("smollm3", used), 10);
}

#[test]
fn what_can_only_be_evaluated_is_no_model_to_train() {
    for name in NAMES {
        let error = Llama::load(&folder(name)).unwrap_err();
        assert!(error.message.contains("can only be evaluated"), "{}", error.message);
    }
    let error = Llama::load(changed("olmo", |config| config["model_type"] = "olmo9".into()).path()).unwrap_err();
    assert!(error.message.contains("\"olmo9\" is not supported") && error.help.unwrap().contains("mixtral"), "{}", error.message);
}
