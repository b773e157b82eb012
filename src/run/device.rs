//! The device that a suite's cells run on, opened before any work, with a rough estimate of the memory that they take there.

use crate::error::{Error, Result};
use crate::model::{Llama, LlamaConfig};
use crate::numerics::device;
use crate::suite::Suite;
use crate::suite::settings::{Dataset, Device, JudgeSource, ModelSource, Optimizer, TrainSettings, Variant};

const GIBIBYTE: f64 = (1u64 << 30) as f64;
/// Tokens of a text where no `max_length` bounds them, unless the model's context is shorter.
const TYPICAL_LENGTH: usize = 1024;
/// Sequences that are decoded together, and rows of logits that exist at one time (`generate`, `model`).
const DECODED_TOGETHER: usize = 64;
const ROWS_OF_LOGITS: usize = 256;

/// The suite's device, opened; none: the CPU. An error where it isn't there, or has too little memory for what the suite asks.
pub fn open(suite: &Suite) -> Result<Option<&'static device::Device>> {
    let Device::Cuda(number) = suite.device else { return Ok(None) };
    let opened = device::Device::open(number).map_err(|e| Error::usage(e.message).help(e.help))?;
    if let Some(config) = config(suite)? {
        let (free, total) = opened.memory();
        let (what, need) = largest(suite, &config);
        if need > free {
            let [need, free, total] = [need, free, total].map(|bytes| bytes as f64 / GIBIBYTE);
            let message = format!(
                "{what} needs about {need:.1} GiB of the device's memory, and {free:.1} of its {total:.1} GiB are free ({})",
                opened.name()
            );
            return Err(Error::usage(message)
                .help("lower per_device_train_batch_size (gradient_accumulation_steps keeps the batch, and the bits), set gradient_checkpointing, or train an adapter (lora_r)"));
        }
    }
    Ok(Some(opened))
}

/// The shape of the suite's models, where it is known before any work: the vocabulary of a fresh model over pairs isn't.
fn config(suite: &Suite) -> Result<Option<LlamaConfig>> {
    match (&suite.model, &suite.dataset) {
        (ModelSource::Folder { path }, _) => LlamaConfig::load(&suite.locate(path)).map(Some),
        (ModelSource::Fresh(fresh), Dataset::World(world)) => Ok(Some(LlamaConfig::fresh(fresh, world.vocab_size, 0, 0))),
        (ModelSource::Fresh(_), Dataset::Pairs(_)) => Ok(None),
    }
}

/// What takes the most memory, and how many bytes.
fn largest(suite: &Suite, config: &LlamaConfig) -> (String, u64) {
    let sft = suite.sft.iter().map(|settings| ("[sft]".to_owned(), training(config, settings, 1, 1)));
    let of_variant = |variant: &Variant| {
        let settings = variant.training()?;
        let texts = if settings.objective.is_unpaired() { 1 } else { 2 };
        Some((format!("variant `{}`", variant.name), training(config, settings, 2, texts)))
    };
    let judges = suite.judges.iter().filter_map(|judge| match &judge.source {
        JudgeSource::Train(settings) => Some((format!("judge `{}`", judge.name), training(config, settings, 1, 2))),
        _ => None,
    });
    let all = sft.chain(suite.variants.iter().filter_map(of_variant)).chain(judges);
    all.chain([("evaluation".to_owned(), evaluation(config))]).max_by_key(|(_, bytes)| *bytes).expect("an evaluation at least")
}

/// Bytes that training takes with so many models of which the first is trained, and so many texts an example.
fn training(config: &LlamaConfig, settings: &TrainSettings, models: usize, texts: usize) -> u64 {
    let weights = Llama::size(config);
    let moments = match settings.optim {
        Optimizer::Adamw => 2,
        Optimizer::Rmsprop => 1,
        Optimizer::Sgd => usize::from(settings.momentum > 0.0),
    };
    let kept = match settings.lora {
        // One base for both; an adapter is small beside it.
        Some(_) => weights + weights / 20,
        None => weights * (models + 1 + moments),
    };
    let length = settings.max_length.unwrap_or(TYPICAL_LENGTH).min(config.max_position_embeddings);
    let tokens = settings.per_device_train_batch_size * texts * length;
    bytes(kept + tokens * activations(config, settings.gradient_checkpointing) + ROWS_OF_LOGITS * 2 * config.vocab_size)
}

/// f32s a token that a forward pass keeps for the backward pass, and that this works with. One that `recomputes` keeps one layer and the
/// inputs of the others.
fn activations(config: &LlamaConfig, recomputes: bool) -> usize {
    let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.heads());
    let layer = 2 * hidden + 2 * heads.query_width() + 2 * heads.key_width() + 2 * inner;
    let layers = if recomputes { 2 * layer + config.num_hidden_layers * hidden } else { config.num_hidden_layers * layer };
    layers + 4 * hidden + 3 * inner + 2 * heads.query_width()
}

/// Bytes that policy and reference and the keys and values of decoding take.
fn evaluation(config: &LlamaConfig) -> u64 {
    let length = TYPICAL_LENGTH.min(config.max_position_embeddings);
    let cached = DECODED_TOGETHER * length * config.num_hidden_layers * 2 * config.heads().key_width();
    bytes(2 * Llama::size(config) + cached + DECODED_TOGETHER * config.vocab_size)
}

fn bytes(f32s: usize) -> u64 {
    (f32s * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::digest::Digest;
    use crate::run::execute::{Event, Listener, Options, execute};
    use crate::run::{plan, stages};
    use crate::store::Store;

    fn suite(change: impl Fn(String) -> String) -> Suite {
        let text = change(include_str!("../suite/templates/world.toml").to_owned());
        crate::suite::parse(&text, std::path::Path::new("suite.toml")).unwrap()
    }

    #[test]
    fn a_device_that_this_build_or_machine_lacks_is_named_before_any_work() {
        assert!(open(&suite(|text| text)).unwrap().is_none());
        let error = open(&suite(|text| text.replace("#device = \"cpu\"", "device = \"cuda:977\""))).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::Usage);
        assert!(error.help.is_some(), "{error}");
    }

    struct Silent;

    impl Listener for Silent {
        fn on(&self, _: Event<'_>) {}
    }

    /// Digests of what a training, its inputs and the evaluation of its policy leave.
    fn computed(device: Option<&'static device::Device>) -> BTreeMap<String, Digest> {
        let smaller = [
            ("max_steps = 40", "max_steps = 6"),
            ("samples_per_prompt = 4\npairs_per_prompt = 2", "samples_per_prompt = 2\npairs_per_prompt = 1"),
            ("max_new_tokens = 24", "max_new_tokens = 8"),
        ];
        let text = include_str!("../../suites/smoke.toml").to_owned();
        let text = smaller.iter().fold(text, |text, (from, to)| text.replacen(from, to, 1));
        let suite = crate::suite::parse(&text, Path::new("smoke.toml")).unwrap();
        let plan = plan::plan(&suite, Digest::of_bytes(b"no runtime")).unwrap();
        let plan = plan.restricted_to(&["evaluate/dpo-b0.1/seed-1".to_owned(), "evaluate/reference".to_owned()]);
        let folder = tempfile::tempdir().unwrap();
        let (store, never) = (Store::open(folder.path()).unwrap(), AtomicBool::new(false));
        let options = Options { threads: 2, jobs: 1, device };
        let receipts =
            execute(&plan, &store, &options, &|cell, context| stages::run_cell(&suite, cell, context), &Silent, &never).unwrap();
        assert!(receipts.len() > 4);
        for receipt in receipts.values() {
            assert_eq!(receipt.clock.device.as_deref(), device.map(device::Device::name));
        }
        receipts.into_iter().map(|(id, receipt)| (id, receipt.output_digest())).collect()
    }

    #[test]
    fn the_cells_of_a_suite_have_the_same_digests_on_a_device_whose_receipts_name_it() {
        let Some(device) = device::Device::for_tests() else { return };
        assert_eq!(computed(Some(device)), computed(None));
    }

    #[test]
    fn full_training_of_a_billion_weights_is_expected_to_take_what_weights_moments_and_activations_do() {
        // Llama 3.2 1B, 64 pairs of 512 tokens.
        let config = LlamaConfig::from_json(
            r#"{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": true}"#,
        )
        .unwrap();
        let size = Llama::size(&config);
        assert_eq!(size, 1_235_814_400);
        let suite = suite(|text| text);
        let settings = suite.variants[0].training().unwrap();
        let of = |examples: usize| {
            let settings =
                TrainSettings { per_device_train_batch_size: examples, max_length: Some(512), lora: None, ..settings.clone() };
            training(&config, &settings, 2, 2)
        };
        // Policy, reference, gradients, two moments.
        let fixed = bytes(5 * size + ROWS_OF_LOGITS * 2 * config.vocab_size);
        assert_eq!(of(0), fixed);
        // What one pair adds is what 1024 tokens keep: 16 layers of 2 · 2048 + 2 · 2048 + 2 · 512 + 2 · 8192 f32s, and the rest.
        assert_eq!(of(1) - fixed, 4 * 1024 * (16 * 25600 + 4 * 2048 + 3 * 8192 + 2 * 2048));
        assert_eq!(activations(&config, true), 2 * 25600 + 16 * 2048 + 4 * 2048 + 3 * 8192 + 2 * 2048);
    }
}
