//! Adapters held against PEFT (golden/lora), against differences of the loss, and against the base they leave alone.

use std::path::{Path, PathBuf};

use super::families::{families, load};
use super::{bits, check_central_differences, tiny, trees, weights_of};
use crate::model::{Adapter, Gradients, Llama, Packed, Parameters};
use crate::suite::settings::{Linear, LoraSettings};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/lora")).join(name)
}

fn tensors(path: &Path) -> Parameters {
    Parameters::from_safetensors(&std::fs::read(path).unwrap()).unwrap()
}

fn settings(target_modules: &[Linear]) -> LoraSettings {
    let target_modules = target_modules.to_vec();
    LoraSettings { r: 3, lora_alpha: 5.0, lora_dropout: 0.0, target_modules, use_rslora: false }
}

/// `base` under an adapter whose A and B are both at work.
fn at_work(base: Llama, settings: &LoraSettings) -> Llama {
    let mut adapter = Adapter::fresh(&base.config, settings, 5);
    for (i, (name, tensor)) in adapter.parameters.iter_mut().enumerate() {
        if name.contains("lora_B") {
            let values = weights_of(tensor.values.len() + i);
            tensor.values.iter_mut().zip(&values[i..]).for_each(|(b, v)| *b = 0.3 * v);
        }
    }
    base.with_adapter(adapter).unwrap()
}

#[test]
fn scores_gradients_and_merged_weights_are_those_of_peft() {
    let expected = tensors(&golden("expected.safetensors"));
    let base = Llama::load(&golden("base")).unwrap();
    let adapter = Adapter::load(&golden("adapter")).unwrap();
    let ids: Vec<u32> = expected.get("ids").values.iter().map(|id| *id as u32).collect();
    let mut packed = Packed::new();
    let whole = packed.push(&ids);
    let targets = packed.targets_within(whole);
    let close = |model: &Llama, name: &str| {
        for (found, expected) in model.score(&packed, &targets).iter().zip(&expected.get(name).values) {
            assert!((found.logp - expected).abs() < 2e-5, "{name}: {} {expected}", found.logp);
        }
    };
    let model = base.clone().with_adapter(adapter.clone()).unwrap();
    close(&model, "logps");
    close(&model.clone().merged(), "logps");
    let rslora = LoraSettings { use_rslora: true, ..adapter.settings.clone() };
    close(&base.with_adapter(Adapter { settings: rslora, ..adapter }).unwrap(), "rslora.logps");

    let mut grads = Gradients::of(model.trained());
    model.backward(model.forward(&packed, &targets), &packed, &targets, &expected.get("weights").values, &mut grads);
    for (name, grad) in grads.total().iter() {
        let expected = &expected.get(&format!("grad.{name}")).values;
        let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (a, b) in grad.values.iter().zip(expected) {
            assert!((a - b).abs() < 2e-5 * largest.max(1.0), "{name}: {a} {b}");
        }
    }
    assert_merged(model.merged(), |name| expected.get(&format!("merged.{name}")).values.to_vec());
}

fn assert_merged(found: Llama, expected: impl Fn(&str) -> Vec<f32>) {
    for (name, tensor) in found.parameters.iter() {
        for (a, b) in tensor.values.iter().zip(expected(name)) {
            assert!((a - b).abs() < 1e-6, "{name}: {a} {b}");
        }
    }
}

/// `golden/lora/families.py`: GPT-2's matrices are stored the other way round, and one name stands for two layers; GPT-NeoX projects
/// queries, keys and values at once.
#[test]
fn adapters_of_other_families_are_those_of_peft() {
    for name in ["gpt2", "gpt-neox", "phi"] {
        let expected = tensors(&golden(name).join("expected.safetensors"));
        let adapter = Adapter::load(&golden(name)).unwrap();
        let ours = golden(name).join("ours");
        if std::env::var_os("DPO_EVAL_WRITE_ADAPTER").is_some() {
            adapter.save(&ours).unwrap();
        }
        assert_eq!(adapter.config_json(), std::fs::read_to_string(ours.join(Adapter::CONFIG)).unwrap(), "{name}");
        assert_eq!(Adapter::load(&ours).unwrap(), adapter, "{name}");
        let model = load(name).with_adapter(adapter).unwrap();
        let mut packed = Packed::new();
        let whole = packed.push(&expected.get("ids").values.iter().map(|id| *id as u32).collect::<Vec<u32>>());
        let targets = packed.targets_within(whole);
        for model in [&model, &model.clone().merged()] {
            for (found, expected) in model.score(&packed, &targets).iter().zip(&expected.get("logps").values) {
                assert!((found.logp - expected).abs() < 2e-5, "{name}: {} {expected}", found.logp);
            }
        }
        let mut grads = Gradients::of(model.trained());
        model.backward(model.forward(&packed, &targets), &packed, &targets, &expected.get("weights").values, &mut grads);
        for (tensor, grad) in grads.total().iter() {
            let expected = &expected.get(&format!("grad.{tensor}")).values;
            let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (a, b) in grad.values.iter().zip(expected) {
                assert!((a - b).abs() < 2e-5 * largest.max(1.0), "{name} {tensor}: {a} {b}");
            }
        }
        assert_merged(model.merged(), |tensor| expected.get(&format!("merged.{tensor}")).values.to_vec());
    }
}

#[test]
fn what_is_adapted_without_a_word_and_by_all_linear_follows_the_family() {
    let targets =
        |name: &str, modules: &[Linear]| Adapter::fresh(&load(name).config, &settings(modules), 1).settings.target_modules;
    assert_eq!(targets("qwen3", &[]), [Linear::QProj, Linear::VProj]);
    assert_eq!(targets("gpt2", &[]), [Linear::CAttn]);
    assert_eq!(targets("gpt-neox", &[]), [Linear::QueryKeyValue]);
    assert_eq!(targets("gemma2", &Linear::ALL), Linear::ALL);
    assert_eq!(targets("gpt2", &Linear::ALL), [Linear::CAttn, Linear::CProj, Linear::CFc]);
    let all = [Linear::QueryKeyValue, Linear::Dense, Linear::DenseHTo4h, Linear::Dense4hToH];
    assert_eq!(targets("gpt-neox", &Linear::ALL), all);
    let base = load("gpt2");
    let adapter = Adapter::fresh(&base.config, &settings(&[Linear::CAttn, Linear::QProj]), 1);
    let error = base.with_adapter(adapter).unwrap_err();
    assert!(error.message.contains("\"gpt2\" has no linear layer q_proj"), "{error}");
}

/// `golden/lora/ours` is what PEFT loaded and merged; the same adapter is made and written again here.
#[test]
fn an_adapter_written_here_is_the_one_that_peft_merged() {
    let settings = LoraSettings { use_rslora: true, ..settings(&Linear::ALL) };
    let model = at_work(Llama::load(&golden("base")).unwrap(), &settings);
    let adapter = model.adapter.clone().unwrap();
    if std::env::var_os("DPO_EVAL_WRITE_ADAPTER").is_some() {
        adapter.save(&golden("ours")).unwrap();
    }
    let written = tempfile::tempdir().unwrap();
    adapter.save(written.path()).unwrap();
    for file in [Adapter::CONFIG, Adapter::WEIGHTS] {
        assert_eq!(
            std::fs::read(written.path().join(file)).unwrap(),
            std::fs::read(golden("ours").join(file)).unwrap(),
            "{file}"
        );
    }
    assert_eq!(Adapter::load(written.path()).unwrap(), adapter);
    let expected = tensors(&golden("ours/merged.safetensors"));
    assert_merged(model.merged(), |name| expected.get(name).values.to_vec());
}

#[test]
fn gradients_of_a_and_b_are_those_of_central_differences_with_and_without_dropout() {
    for (lora_dropout, modules) in [(0.0, &Linear::ALL[..]), (0.3, &Linear::ALL), (0.3, &[Linear::QProj, Linear::DownProj])] {
        check_adapters_gradients(&tiny(true), lora_dropout, modules);
    }
    for base in families() {
        check_adapters_gradients(&base, 0.0, &Linear::ALL);
    }
}

fn check_adapters_gradients(base: &Llama, lora_dropout: f64, modules: &[Linear]) {
    let model = at_work(base.clone(), &LoraSettings { lora_dropout, ..settings(modules) });
    check_central_differences(&model, &format!("dropout {lora_dropout}"), |model, packed, targets| match lora_dropout > 0.0 {
        true => model.forward_under_dropout(packed, targets, Some((0..packed.rows() as u64).collect()), None),
        false => model.forward(packed, targets),
    });
}

#[test]
fn a_fresh_adapter_gives_the_bits_of_its_base_and_starts_within_kaimings_bounds() {
    let base = tiny(false);
    let (packed, targets) = trees(base.config.vocab_size);
    let adapter = Adapter::fresh(&base.config, &settings(&Linear::ALL), 1);
    assert!(adapter.is_neutral());
    for (name, tensor) in adapter.parameters.iter().filter(|(name, _)| name.contains("lora_A")) {
        let bound = 1.0 / (tensor.shape[1] as f32).sqrt();
        let (least, most) = tensor.values.iter().fold((f32::MAX, f32::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
        assert!(-bound <= least && least < -0.8 * bound && 0.8 * bound < most && most <= bound, "{name}: {least} {most}");
    }
    let expected = bits(&base.score(&packed, &targets));
    assert_eq!(bits(&base.clone().with_adapter(adapter).unwrap().score(&packed, &targets)), expected);
    assert_ne!(bits(&at_work(base, &settings(&[Linear::VProj])).score(&packed, &targets)), expected);
}

#[test]
fn dropout_drops_its_share_and_keeps_the_mean() {
    let model = at_work(tiny(false), &LoraSettings { lora_dropout: 0.25, ..settings(&[Linear::QProj]) });
    let (packed, targets) = trees(model.config.vocab_size);
    let scores = |offset: u64| {
        let states = (0..packed.rows() as u64).map(|r| 1000 * offset + r).collect();
        model.token_scores(&model.forward_under_dropout(&packed, &targets, Some(states), None), &targets)
    };
    assert_eq!(bits(&scores(1)), bits(&scores(1)));
    assert_ne!(bits(&scores(1)), bits(&scores(2)));
    // Ones under the mask have the mean 1 and a share of zeros as asked, within four standard errors.
    let (kept, sum) = crate::model::dropout::tests::masked_ones(0.25, 4000, 24);
    let n = 4000.0 * 24.0;
    assert!((kept / n - 0.75).abs() < 4.0 * (0.25f64 * 0.75 / n).sqrt(), "{kept}");
    assert!((sum / n - 1.0).abs() < 4.0 * (0.25f64 / 0.75 / n).sqrt(), "{sum}");
}

#[test]
fn an_adapter_that_does_not_fit_names_its_tensors() {
    let adapter = Adapter::load(&golden("adapter")).unwrap();
    let error = tiny(false).with_adapter(adapter.clone()).unwrap_err();
    let shape = "`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` has shape [3, 16], not [3, 24]";
    assert!(error.message.contains(shape), "{error}");
    let mut short = adapter;
    short.parameters.remove("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight");
    let error = Llama::load(&golden("base")).unwrap().with_adapter(short).unwrap_err();
    assert!(error.message.contains("layers.1.mlp.down_proj.lora_B.weight` is missing"), "{error}");
}

#[test]
fn features_of_peft_that_are_not_computed_are_refused_by_name() {
    let text = std::fs::read_to_string(golden("adapter").join(Adapter::CONFIG)).unwrap();
    let plain: serde_json::Value = serde_json::from_str(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = |key: &str, value: serde_json::Value| {
        let mut config = plain.clone();
        config[key] = value;
        std::fs::write(folder.path().join(Adapter::CONFIG), config.to_string()).unwrap();
        let error = Adapter::load(folder.path()).unwrap_err();
        assert!(error.message.contains(&format!("`{key}`")), "{key}: {error}");
    };
    refused("use_dora", true.into());
    refused("bias", "all".into());
    refused("modules_to_save", vec!["lm_head"].into());
    refused("rank_pattern", serde_json::json!({"q_proj": 8}));
    refused("alpha_pattern", serde_json::json!({"q_proj": 8}));
    refused("layers_to_transform", vec![0].into());
    refused("init_lora_weights", "pissa".into());
    refused("peft_type", "IA3".into());
    refused("target_modules", vec!["q_proj", "lm_head"].into());
    refused("target_modules", ".*_proj".into());
    refused("r", 0.into());
    refused("lora_dropout", 1.5.into());
}
