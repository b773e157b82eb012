//! What must not change a bit of a training: threads, micro-batches, instruction sets, interruptions. Each test trains for real,
//! and compares SHA-256 digests of the weights and of the steps' metrics.

use std::path::Path;
use std::sync::OnceLock;

use super::models::{demonstrations, model, pairs};
use super::settings;
use crate::data::TokenizedPair;
use crate::digest::Digest;
use crate::model::{Adapter, Family, Llama, Parameters};
use crate::numerics::isa::{self, Isa};
use crate::rng::Stream;
use crate::store::CHAIN;
use crate::suite::settings::{FreshModel, Linear, LoraSettings, LossType, ObjectiveSettings, TrainSettings};
use crate::train::{Feedback, Learner, PreferenceTask, SftTask, Task, UnpairedTask, run};
use crate::watch::{Silent, Watch};

const STEPS: u64 = 20;
const BRIEF: u64 = 7;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Sft,
    Preferences,
    /// Preferences under an adapter with dropout, all of them or of single completions.
    Lora,
    LoraUnpaired,
    LoraSft,
    /// Preferences with dropout in the residual stream.
    Dropout,
}

pub(super) const KINDS: [Kind; 6] = [Kind::Sft, Kind::Preferences, Kind::Lora, Kind::LoraUnpaired, Kind::LoraSft, Kind::Dropout];

pub(super) fn adapted(model: &Llama) -> Llama {
    let target_modules = match model.config.family {
        Family::Llama => vec![Linear::QProj, Linear::VProj, Linear::OProj, Linear::UpProj, Linear::DownProj],
        _ => Linear::ALL.to_vec(),
    };
    let lora = LoraSettings { r: 4, lora_alpha: 8.0, lora_dropout: 0.2, target_modules, use_rslora: false };
    model.clone().with_adapter(Adapter::fresh(&model.config, &lora, 1)).unwrap()
}

/// Twenty steps of eight examples, cut into micro-batches of `micro_batch`.
pub(super) fn split(micro_batch: usize) -> TrainSettings {
    TrainSettings {
        max_steps: Some(STEPS),
        save_steps: Some(6),
        per_device_train_batch_size: micro_batch,
        gradient_accumulation_steps: 8 / micro_batch,
        ..settings()
    }
}

/// As few steps as reach the third epoch, with checkpoints within epochs and at their ends: for what is trained many times.
pub(super) fn brief(micro_batch: usize) -> TrainSettings {
    TrainSettings { max_steps: Some(BRIEF), save_steps: Some(2), ..split(micro_batch) }
}

/// SHA-256 of the weights, of the metrics of every step, and of the digest chain.
type Bits = [Digest; 3];

fn bits_in(work: &Path, weights: &Parameters) -> Bits {
    let file = |name: &str| Digest::of_file(&work.join(name)).unwrap();
    [Digest::of_bytes(&weights.to_safetensors()), file("train_log.jsonl"), file(CHAIN)]
}

/// Trains from `model` in `work`; none when `watch` broke it off.
pub(super) fn train(
    kind: Kind,
    model: &Llama,
    pairs: &[TokenizedPair],
    settings: &TrainSettings,
    work: &Path,
    watch: &dyn Watch,
) -> Option<Bits> {
    let weights = match kind {
        Kind::Sft | Kind::LoraSft => {
            let objective = ObjectiveSettings { loss_type: vec![LossType::Sft], ..settings.objective.clone() };
            let settings = TrainSettings { objective, ..settings.clone() };
            let start = if kind == Kind::Sft { model.clone() } else { adapted(model) };
            let mut task = SftTask::new(start, demonstrations(pairs), &settings).unwrap();
            run(&mut task, &settings, 1, work, watch).ok()?;
            task.into_model().trained().clone()
        }
        Kind::Preferences | Kind::Dropout => {
            let resid_pdrop = if kind == Kind::Dropout { 0.2 } else { 0.0 };
            let settings = TrainSettings { resid_pdrop, ..settings.clone() };
            let mut task = PreferenceTask::new(model.clone(), model, pairs, &settings, &Silent).unwrap();
            run(&mut task, &settings, 1, work, watch).ok()?;
            task.into_policy().parameters
        }
        Kind::Lora => {
            let mut task = PreferenceTask::new(adapted(model), model, pairs, settings, &Silent).unwrap();
            run(&mut task, settings, 1, work, watch).ok()?;
            let trained = task.into_policy();
            assert_eq!(trained.parameters, model.parameters, "the base stays as it was");
            trained.trained().clone()
        }
        Kind::LoraUnpaired => {
            let objective = ObjectiveSettings { loss_type: vec![LossType::Kto], ..settings.objective.clone() };
            let settings = TrainSettings { objective, ..settings.clone() };
            let examples = Feedback::of_pairs(pairs);
            let mut task = UnpairedTask::new(adapted(model), model, &examples, &settings, &Silent).unwrap();
            run(&mut task, &settings, 1, work, watch).ok()?;
            task.into_policy().trained().clone()
        }
    };
    Some(bits_in(work, &weights))
}

/// An unbroken training of a tiny model.
fn trained(kind: Kind, tied: bool, settings: &TrainSettings) -> Bits {
    let work = tempfile::tempdir().unwrap();
    train(kind, &model(3, tied), &pairs(18), settings, work.path(), &Silent).unwrap()
}

fn under<T: Send>(isa: Isa, threads: usize, work: impl FnOnce() -> T + Send) -> T {
    isa::pool(isa, threads).unwrap().install(work)
}

#[test]
fn micro_batches_of_1_2_and_8_give_the_same_bits() {
    let untied = [(Kind::Sft, false), (Kind::Preferences, false)];
    for (kind, tied) in KINDS.into_iter().map(|kind| (kind, true)).chain(untied) {
        let whole = trained(kind, tied, &brief(8));
        for micro_batch in [1, 2] {
            let found = trained(kind, tied, &brief(micro_batch));
            assert_eq!(found, whole, "{kind:?}, micro-batches of {micro_batch}, tied embeddings: {tied}");
        }
    }
}

#[test]
fn layers_that_are_computed_again_in_the_backward_pass_have_the_same_bits() {
    for kind in KINDS {
        let again = TrainSettings { gradient_checkpointing: true, ..brief(2) };
        assert_eq!(trained(kind, true, &again), trained(kind, true, &brief(2)), "{kind:?}");
    }
}

/// Large enough that every product and every loop over rows is worth several threads.
fn roomy() -> &'static (Llama, Vec<TokenizedPair>) {
    const VOCABULARY: usize = 300;
    static MADE: OnceLock<(Llama, Vec<TokenizedPair>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let shape = FreshModel {
            hidden_size: 64,
            intermediate_size: 96,
            num_hidden_layers: 1,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 64,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            initializer_range: 0.1,
            tie_word_embeddings: true,
        };
        let mut stream = Stream::of(6, "test/pairs", 0);
        let mut ids = |n: usize| (0..n).map(|_| 3 + stream.index(VOCABULARY - 3) as u32).collect::<Vec<u32>>();
        let pair = |i: usize| TokenizedPair {
            id: format!("pair-{i}"),
            prompt_id: format!("prompt-{i}"),
            prompt: ids(9 + i % 5),
            chosen: ids(12 + i % 7),
            rejected: ids(10 + i % 11),
        };
        (Llama::fresh(&shape, VOCABULARY, 1, 2, 3), (0..18).map(pair).collect())
    })
}

#[test]
fn one_two_and_four_threads_give_the_same_bits() {
    let (model, pairs) = roomy();
    for kind in KINDS {
        let bits = |threads| {
            let work = tempfile::tempdir().unwrap();
            under(isa::active(), threads, || train(kind, model, pairs, &split(8), work.path(), &Silent).unwrap())
        };
        let one = bits(1);
        for threads in [2, 4] {
            assert_eq!(bits(threads), one, "{kind:?}, {threads} threads");
        }
    }
}

#[test]
fn every_instruction_set_of_the_machine_gives_the_same_bits() {
    for kind in KINDS {
        let expected = trained(kind, true, &split(8));
        for isa in isa::native() {
            assert_eq!(under(isa, 1, || trained(kind, true, &split(8))), expected, "{kind:?}, {isa}");
        }
    }
}

/// Biases, norms of queries and keys, sliding windows (`families` has those that are built otherwise): 20 steps of full training and of an adapter.
#[test]
fn every_family_trains_to_the_same_bits_in_any_micro_batches_and_under_every_instruction_set() {
    let mut pairs = pairs(18);
    for ids in pairs.iter_mut().flat_map(|p| [&mut p.prompt, &mut p.chosen, &mut p.rejected]) {
        ids.iter_mut().for_each(|id| *id %= 32);
    }
    for name in ["llama-linear-biases-sharded", "mistral-window", "qwen2-windows", "qwen3-biases"] {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/models")).join(name);
        let model = Llama::load(&folder).unwrap();
        for kind in [Kind::Preferences, Kind::Lora] {
            let bits = |isa: Isa, micro_batch: usize| {
                let work = tempfile::tempdir().unwrap();
                under(isa, 1, || train(kind, &model, &pairs, &split(micro_batch), work.path(), &Silent).unwrap())
            };
            let expected = bits(isa::active(), 8);
            assert_eq!(bits(isa::active(), 2), expected, "{name}, {kind:?}");
            for isa in isa::native() {
                assert_eq!(bits(isa, 8), expected, "{name}, {kind:?}, {isa}");
            }
        }
    }
}

#[test]
fn a_reference_that_scores_before_training_or_within_each_step_gives_the_same_bits() {
    for micro_batch in [8, 2] {
        let at_once = split(micro_batch);
        let objective = ObjectiveSettings { precompute_ref_log_probs: false, ..at_once.objective.clone() };
        let live = TrainSettings { objective, ..at_once.clone() };
        for kind in [Kind::Preferences, Kind::Lora] {
            assert_eq!(trained(kind, true, &live), trained(kind, true, &at_once), "{kind:?}");
        }
    }
}

/// Breaks a training off after some step.
struct Until(u64);

impl Watch for Until {
    fn advance(&self, _: u64, _: u64, _: &str) {}
    fn last_step(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[test]
fn a_training_interrupted_after_any_step_and_resumed_has_the_bits_of_an_unbroken_one() {
    let (model, pairs) = (model(3, false), pairs(18));
    for kind in KINDS {
        let expected = trained(kind, false, &brief(8));
        for at in 0..BRIEF {
            let work = tempfile::tempdir().unwrap();
            let train = |watch: &dyn Watch| train(kind, &model, &pairs, &brief(8), work.path(), watch);
            assert_eq!(train(&Until(at)), None);
            assert_eq!(train(&Silent), Some(expected), "{kind:?}, interrupted after step {at}");
        }
    }
}

#[test]
fn dropout_depends_on_the_seed_and_is_off_outside_of_steps() {
    let (model, pairs) = (model(3, false), pairs(18));
    let dropout = TrainSettings { resid_pdrop: 0.2, ..split(8) };
    for (policy, settings) in [(adapted(&model), split(8)), (model.clone(), dropout.clone()), (adapted(&model), dropout)] {
        let weights = |seed| {
            let mut task = PreferenceTask::new(policy.clone(), &model, &pairs, &settings, &Silent).unwrap();
            run(&mut task, &settings, seed, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
            let scores = |task: &PreferenceTask| task.forward(&[0, 1, 2]).1;
            let after = scores(&task);
            task.learner_mut().enter_step(seed, 21);
            let within = scores(&task);
            assert_ne!(within, after);
            task.learner_mut().enter_step(seed, 22);
            assert_ne!(scores(&task), within);
            task.learner_mut().leave_step();
            assert_eq!(scores(&task), after);
            task.into_policy().trained().clone()
        };
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}

#[test]
fn an_adapter_that_is_trained_on_starts_from_a_frozen_copy_as_its_reference() {
    let (model, pairs, settings) = (model(3, false), pairs(18), split(8));
    let mut first = PreferenceTask::new(adapted(&model), &model, &pairs, &settings, &Silent).unwrap();
    run(&mut first, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    let mut reference = first.into_policy();
    reference.adapter.as_mut().unwrap().settings.lora_dropout = 0.0;
    let mut task = PreferenceTask::new(reference.clone(), &reference, &pairs, &settings, &Silent).unwrap();
    let log = run(&mut task, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    assert_eq!(log[0].values["rewards/margins"], 0.0);
    assert!((log[0].loss - std::f64::consts::LN_2).abs() < 1e-7);
    assert!(log[19].values["rewards/margins"] > 0.0);
    assert_ne!(task.into_policy().trained(), reference.trained());
}

#[test]
fn examples_score_alone_as_they_do_in_a_batch_after_twenty_steps() {
    let (settings, pairs) = (split(8), pairs(18));
    let reference = model(3, true);
    let mut task = PreferenceTask::new(reference.clone(), &reference, &pairs, &settings, &Silent).unwrap();
    run(&mut task, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    let all: Vec<usize> = (0..pairs.len()).collect();
    let bits = |outputs: &[crate::train::PairOutput]| -> Vec<[u64; 2]> {
        outputs.iter().map(|o| [o.logps().0.to_bits(), o.logps().1.to_bits()]).collect()
    };
    let together = bits(&task.forward(&all).1);
    let alone: Vec<[u64; 2]> = all.iter().flat_map(|&i| bits(&task.forward(&[i]).1)).collect();
    assert_eq!(alone, together);
}
