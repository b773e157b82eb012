//! The loop around small language models: bits, invariants, errors.

use std::path::Path;

use super::settings;
use crate::data::{TokenizedExample, TokenizedPair};
use crate::error::Result;
use crate::model::{Gradients, Llama, Packed};
use crate::rng::Stream;
use crate::suite::settings::{
    BcoShift, Dialect, EvaluationSettings, FreshModel, LossType, Numerics, ObjectiveSettings, TrainSettings,
};
use crate::train::{Feedback, Learner, Metrics, PreferenceTask, ScoredPolicy, SftTask, Task, UnpairedTask, pair_scores, run};
use crate::watch::{Silent, Watch};

pub(super) const VOCABULARY: usize = 40;

pub(super) fn model(seed: u64, tie_word_embeddings: bool) -> Llama {
    let shape = FreshModel {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        initializer_range: 0.2,
        tie_word_embeddings,
    };
    Llama::fresh(&shape, VOCABULARY, 1, 2, seed)
}

fn ids(stream: &mut Stream, at_most: usize) -> Vec<u32> {
    (0..=stream.index(at_most)).map(|_| 3 + stream.index(VOCABULARY - 3) as u32).collect()
}

pub(super) fn pairs(n: usize) -> Vec<TokenizedPair> {
    let mut stream = Stream::of(4, "test/pairs", 0);
    let pair = |i| TokenizedPair {
        id: format!("pair-{i}"),
        prompt_id: format!("prompt-{i}"),
        prompt: ids(&mut stream, 9),
        chosen: [ids(&mut stream, 12), vec![2]].concat(),
        rejected: [ids(&mut stream, 12), vec![2]].concat(),
    };
    (0..n).map(pair).collect()
}

/// The chosen sides, to be imitated.
pub(super) fn demonstrations(pairs: &[TokenizedPair]) -> Vec<TokenizedExample> {
    let example = |p: &TokenizedPair| TokenizedExample {
        prompt_id: p.prompt_id.clone(),
        prompt: p.prompt.clone(),
        completion: p.chosen.clone(),
    };
    pairs.iter().map(example).collect()
}

fn preference_task(pairs: &[TokenizedPair], settings: &TrainSettings) -> Result<PreferenceTask> {
    let reference = model(3, false);
    PreferenceTask::new(reference.clone(), &reference, pairs, settings, &Silent)
}

pub(super) fn six_steps() -> TrainSettings {
    TrainSettings { max_steps: Some(6), warmup_steps: 0, ..settings() }
}

/// Bits of everything that a preference training results in.
fn train(settings: &TrainSettings, seed: u64, work: &Path, watch: &dyn Watch) -> Result<(String, String)> {
    let mut task = preference_task(&pairs(18), settings)?;
    let metrics = run(&mut task, settings, seed, work, watch)?;
    Ok((serde_json::to_string(&metrics).unwrap(), task.into_policy().parameters.digest().to_string()))
}

fn afresh(settings: &TrainSettings, seed: u64) -> (String, String) {
    train(settings, seed, tempfile::tempdir().unwrap().path(), &Silent).unwrap()
}

/// Stops the run after so many steps, as Ctrl-C would.
pub(super) struct Stop(pub u64, pub std::sync::atomic::AtomicU64);

impl Watch for Stop {
    fn advance(&self, done: u64, _: u64, note: &str) {
        if note.starts_with("loss") {
            self.1.store(done, std::sync::atomic::Ordering::Relaxed);
        }
    }
    fn interrupted(&self) -> bool {
        let done = self.1.load(std::sync::atomic::Ordering::Relaxed);
        done > 0 && done >= self.0
    }
}

#[test]
fn preference_training_widens_the_margins() {
    let settings = TrainSettings { max_steps: Some(30), ..settings() };
    let mut task = preference_task(&pairs(18), &settings).unwrap();
    let metrics = run(&mut task, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    assert_eq!(metrics[0].values["rewards/margins"], 0.0);
    assert!(metrics[29].values["rewards/margins"] > 0.5, "{:?}", metrics[29]);
    assert_eq!(metrics[29].train_step("dpo", 1).unwrap().rewards_margins, Some(metrics[29].values["rewards/margins"]));
}

fn objectives() -> Vec<ObjectiveSettings> {
    use LossType::*;
    let plain = |loss| ObjectiveSettings { loss_type: vec![loss], ..ObjectiveSettings::default() };
    let mut all: Vec<ObjectiveSettings> = [
        SigmoidNorm,
        Robust,
        Ipo,
        Hinge,
        NcaPair,
        BcoPair,
        SppoHard,
        Aot,
        AotUnpaired,
        ApoZero,
        ApoDown,
        Discopop,
        Simpo,
        Orpo,
        Cpo,
        Sft,
        Unlikelihood,
        Kto,
        ApoZeroUnpaired,
    ]
    .map(plain)
    .to_vec();
    all.push(ObjectiveSettings { label_smoothing: 1e-3, ..plain(ExoPair) });
    all.push(ObjectiveSettings { ld_alpha: Some(0.5), use_weighting: true, kl_coef: 0.1, ..plain(Sigmoid) });
    all.push(ObjectiveSettings { bco_shift: BcoShift::Batch, ..plain(BcoPair) });
    all.push(ObjectiveSettings {
        loss_type: vec![Sigmoid, BcoPair, Sft],
        loss_weights: vec![0.8, 0.2, 1.0],
        ..ObjectiveSettings::default()
    });
    all
}

/// Bits of everything that training with any objective results in; of single completions for those that learn from them.
fn train_any(settings: &TrainSettings, seed: u64, work: &Path, watch: &dyn Watch) -> Result<(String, String)> {
    if !settings.objective.is_unpaired() {
        return train(settings, seed, work, watch);
    }
    let reference = model(3, false);
    let mut task = UnpairedTask::new(reference.clone(), &reference, Feedback::of_pairs(&pairs(9)), settings, &Silent)?;
    let metrics = run(&mut task, settings, seed, work, watch)?;
    Ok((serde_json::to_string(&metrics).unwrap(), task.into_policy().parameters.digest().to_string()))
}

#[test]
fn no_objective_depends_on_micro_batches_interruptions_or_when_the_reference_scores_but_each_on_the_seed() {
    for objective in objectives() {
        let settings = TrainSettings { objective, per_device_train_batch_size: 8, max_steps: Some(3), ..six_steps() };
        let split = |micro, accumulation, seed| {
            let settings = TrainSettings {
                per_device_train_batch_size: micro,
                gradient_accumulation_steps: accumulation,
                ..settings.clone()
            };
            train_any(&settings, seed, tempfile::tempdir().unwrap().path(), &Silent).unwrap()
        };
        let whole = split(8, 1, 1);
        assert_eq!(split(2, 4, 1), whole, "{:?}", settings.objective);
        assert_eq!(split(1, 8, 1), whole, "{:?}", settings.objective);
        assert_ne!(split(8, 1, 2), whole, "{:?}", settings.objective);
        let work = tempfile::tempdir().unwrap();
        assert!(train_any(&settings, 1, work.path(), &Stop(2, 0.into())).is_err());
        assert_eq!(train_any(&settings, 1, work.path(), &Silent).unwrap(), whole, "{:?}", settings.objective);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| split(8, 1, 1)), whole, "{:?}", settings.objective);
        let objective = ObjectiveSettings { precompute_ref_log_probs: false, ..settings.objective.clone() };
        let live = train_any(&TrainSettings { objective, ..settings.clone() }, 1, tempfile::tempdir().unwrap().path(), &Silent);
        assert_eq!(live.unwrap(), whole, "{:?}", settings.objective);
    }
}

#[test]
fn a_shift_that_follows_the_rewards_goes_on_in_a_resumed_run_and_an_evaluation_leaves_it_alone() {
    let objective = ObjectiveSettings {
        loss_type: vec![LossType::Sigmoid, LossType::BcoPair],
        loss_weights: vec![0.5, 0.5],
        dialect: Dialect::LlamaFactory,
        ..ObjectiveSettings::default()
    };
    let settings = TrainSettings {
        objective,
        per_device_train_batch_size: 2,
        gradient_accumulation_steps: 2,
        learning_rate: 0.05,
        ..six_steps()
    };
    let whole = afresh(&settings, 1);
    let log: Vec<Metrics> = serde_json::from_str(&whole.0).unwrap();
    let rewards = |m: &Metrics| (m.values["rewards/chosen"] + m.values["rewards/rejected"]) / 2.0;
    let mean = log[..4].iter().map(rewards).sum::<f64>() / 4.0;
    assert!((log[3].values["bco/shift"] - mean).abs() < 1e-12 && mean != 0.0, "{} {mean}", log[3].values["bco/shift"]);
    for at in 1..6 {
        let work = tempfile::tempdir().unwrap();
        assert!(train(&settings, 1, work.path(), &Stop(at, 0.into())).is_err());
        assert_eq!(train(&settings, 1, work.path(), &Silent).unwrap(), whole, "interrupted after step {at}");
    }
    let reference = model(3, false);
    let (pairs, evaluation) = (pairs(24), EvaluationSettings { eval_steps: Some(2), ..EvaluationSettings::default() });
    let task = PreferenceTask::new(reference.clone(), &reference, &pairs[..18], &settings, &Silent).unwrap();
    let mut task = task.with_held_out(&reference, &pairs[18..], &settings, None, &Silent).unwrap();
    let settings = TrainSettings { evaluation, ..settings };
    assert_eq!(run(&mut task, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap(), log);
}

fn following(loss: LossType, alpha: f64, every: u64) -> TrainSettings {
    let objective = ObjectiveSettings {
        loss_type: vec![loss],
        precompute_ref_log_probs: false,
        sync_ref_model: true,
        ref_model_mixup_alpha: alpha,
        ref_model_sync_steps: every,
        ..ObjectiveSettings::default()
    };
    TrainSettings { objective, ..six_steps() }
}

#[test]
fn a_reference_that_follows_is_part_of_the_resume_state() {
    for loss in [LossType::Sigmoid, LossType::Kto] {
        let settings = following(loss, 0.6, 2);
        let whole = train_any(&settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
        let still = ObjectiveSettings { sync_ref_model: false, ..settings.objective.clone() };
        let still = TrainSettings { objective: still, ..settings.clone() };
        assert_ne!(train_any(&still, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap(), whole);
        for at in 1..6 {
            let work = tempfile::tempdir().unwrap();
            assert!(train_any(&settings, 1, work.path(), &Stop(at, 0.into())).is_err());
            assert_eq!(train_any(&settings, 1, work.path(), &Silent).unwrap(), whole, "{loss:?} interrupted after step {at}");
        }
    }
}

/// With α = 1 the reference is the policy after every update, so every step sees what the first one sees.
#[test]
fn a_reference_that_becomes_the_policy_leaves_no_margin_at_any_step() {
    let work = tempfile::tempdir().unwrap();
    let metrics = train(&following(LossType::Sigmoid, 1.0, 1), 1, work.path(), &Silent).unwrap().0;
    for row in serde_json::from_str::<Vec<Metrics>>(&metrics).unwrap() {
        assert_eq!((row.values["rewards/margins"], row.values["kl/chosen"]), (0.0, 0.0), "{row:?}");
        assert!((row.loss - std::f64::consts::LN_2).abs() < 1e-12);
    }
}

#[test]
fn every_objective_lowers_its_loss() {
    // WPO's weights rise with the likelihoods, and the weighted loss with them.
    for objective in objectives().into_iter().filter(|o| !o.use_weighting) {
        let settings = TrainSettings { objective, per_device_train_batch_size: 18, max_steps: Some(12), ..six_steps() };
        let log = train_any(&settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap().0;
        let log: Vec<Metrics> = serde_json::from_str(&log).unwrap();
        assert!(log[11].loss < log[0].loss, "{:?}: {} {}", settings.objective, log[0].loss, log[11].loss);
        log[11].train_step("any", 1).unwrap();
    }
}

/// The weights' own slope: what the objective's gradients become behind the model.
#[test]
fn gradients_of_token_weights_reach_the_weights() {
    use LossType::{Orpo, Sigmoid, Unlikelihood};
    let plain = |loss| ObjectiveSettings { loss_type: vec![loss], ..ObjectiveSettings::default() };
    for objective in [
        ObjectiveSettings { ld_alpha: Some(0.3), ..plain(Sigmoid) },
        ObjectiveSettings { beta: 1.0, ..plain(Unlikelihood) },
        ObjectiveSettings { dialect: Dialect::Trl, ..plain(Orpo) },
    ] {
        let mut task = preference_task(&pairs(4), &TrainSettings { objective, ..settings() }).unwrap();
        let all = [0, 1, 2, 3];
        let (pass, outputs) = task.forward(&all);
        let gradients = task.loss(&all, &outputs).gradients;
        let mut grads = Gradients::of(task.learner().parameters());
        task.backward(pass, &all, &gradients, &mut grads);
        let grads = grads.total().clone();
        let name = "model.layers.1.mlp.down_proj.weight";
        // Along the gradient itself, where the slope is its squared norm.
        let direction = grads.get(name).values.to_vec();
        let norm: f64 = direction.iter().map(|&d| f64::from(d).powi(2)).sum();
        let mut at = |h: f32| {
            let before = task.learner().parameters().get(name).values.to_vec();
            let moved = before.iter().zip(&direction).map(|(w, d)| w + h * d).collect::<Vec<f32>>();
            task.learner_mut().parameters_mut().get_mut(name).values.copy_from_slice(&moved);
            let outputs = task.forward(&all).1;
            let loss = task.loss(&all, &outputs).loss;
            task.learner_mut().parameters_mut().get_mut(name).values.copy_from_slice(&before);
            loss
        };
        let h = 1e-2 / norm.sqrt() as f32;
        let slope = (at(h) - at(-h)) / (2.0 * f64::from(h));
        assert!((slope / norm - 1.0).abs() < 1e-2, "{slope} {norm}");
    }
}

#[test]
fn ktos_kl_is_the_mean_log_ratio_of_the_batchs_completions_each_after_the_prompt_before() {
    let (policy, reference, pairs) = (model(4, false), model(3, false), pairs(4));
    let objective = ObjectiveSettings { loss_type: vec![LossType::Kto], ..ObjectiveSettings::default() };
    let examples = Feedback::of_pairs(&pairs);
    let kl = |settings: &TrainSettings, batch: &[usize]| {
        let task = UnpairedTask::new(policy.clone(), &reference, &examples, settings, &Silent).unwrap();
        task.loss(batch, &task.forward(batch).1).metrics["kl"]
    };
    let ratio = |prompt: usize, completion: usize| {
        let sum = |model: &Llama| {
            let mut packed = Packed::new();
            let whole = packed.push(&[&examples[prompt].prompt[..], &examples[completion].completion].concat());
            let scores = model.score(&packed, &packed.targets_within(whole));
            scores[examples[prompt].prompt.len() - 1..].iter().map(|s| f64::from(s.logp)).sum::<f64>()
        };
        sum(&policy) - sum(&reference)
    };
    let mean = |of: &[(usize, usize)]| of.iter().map(|&(p, c)| ratio(p, c)).sum::<f64>() / of.len() as f64;
    let ours = TrainSettings { objective: objective.clone(), ..settings() };
    for batch in [[0, 5, 2, 7], [1, 0, 4, 6]] {
        let [a, b, c, d] = batch;
        let expected = mean(&[(a, d), (b, a), (c, b), (d, c)]).max(0.0);
        assert!((kl(&ours, &batch) - expected).abs() < 1e-12);
    }
    // TRL: within micro-batches; the metric is the mean over them.
    let trl = ObjectiveSettings { dialect: Dialect::Trl, ..objective };
    let trl = TrainSettings { objective: trl, per_device_train_batch_size: 2, gradient_accumulation_steps: 2, ..settings() };
    let expected = 0.5 * (mean(&[(0, 1), (1, 0)]).max(0.0) + mean(&[(2, 3), (3, 2)]).max(0.0));
    assert!((kl(&trl, &[0, 1, 2, 3]) - expected).abs() < 1e-12);
}

#[test]
fn fast_training_repeats_itself_and_a_state_of_the_other_arithmetic_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let train = |numerics, micro_batch, work: &Path| {
        let reference = model(3, true).with_numerics(numerics);
        let settings = TrainSettings {
            per_device_train_batch_size: micro_batch,
            gradient_accumulation_steps: 4 / micro_batch,
            ..six_steps()
        };
        let mut task = PreferenceTask::new(reference.clone(), &reference, pairs(18), &settings, &Silent).unwrap();
        let metrics = run(&mut task, &settings, 1, work, &Silent)?;
        Ok::<_, crate::Error>((metrics, task.into_policy().parameters))
    };
    let (metrics, weights) = train(Numerics::Fast, 4, work.path()).unwrap();
    let again = train(Numerics::Fast, 4, tempfile::tempdir().unwrap().path()).unwrap();
    assert_eq!((again.0, again.1.digest()), (metrics.clone(), weights.digest()));
    let split = train(Numerics::Fast, 2, tempfile::tempdir().unwrap().path()).unwrap();
    let strict = train(Numerics::Strict, 4, tempfile::tempdir().unwrap().path()).unwrap();
    assert_ne!(strict.1.digest(), weights.digest());
    for other in [split, strict] {
        assert!(metrics.iter().zip(&other.0).all(|(a, b)| (a.loss - b.loss).abs() < 1e-4), "{metrics:?} {:?}", other.0);
    }
    let error = train(Numerics::Strict, 4, work.path()).unwrap_err();
    assert!(error.message.contains("belongs to another run"), "{error}");
}

#[test]
fn training_on_single_completions_refuses_a_state_of_the_other_arithmetic() {
    let objective = ObjectiveSettings { loss_type: vec![LossType::Kto], ..ObjectiveSettings::default() };
    let (settings, work) = (TrainSettings { objective, ..six_steps() }, tempfile::tempdir().unwrap());
    let train = |numerics| {
        let reference = model(3, true).with_numerics(numerics);
        let examples = Feedback::of_pairs(&pairs(9));
        let mut task = UnpairedTask::new(reference.clone(), &reference, &examples, &settings, &Silent).unwrap();
        run(&mut task, &settings, 1, work.path(), &Silent)
    };
    let fast = train(Numerics::Fast).unwrap();
    let error = train(Numerics::Strict).unwrap_err();
    assert!(error.message.contains("belongs to another run"), "{error}");
    assert_eq!(train(Numerics::Fast).unwrap(), fast);
}

#[test]
fn another_seed_gives_other_weights() {
    assert_ne!(afresh(&six_steps(), 1), afresh(&six_steps(), 2));
}

#[test]
fn sft_lowers_the_loss_for_tied_and_untied_embeddings() {
    let settings = TrainSettings { max_steps: Some(40), ..settings() };
    for tied in [false, true] {
        let mut task = SftTask::new(model(3, tied), demonstrations(&pairs(18)), &settings).unwrap();
        let metrics = run(&mut task, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
        assert!(metrics[39].loss < 0.8 * metrics[0].loss, "{} {}", metrics[0].loss, metrics[39].loss);
    }
}

#[test]
fn the_sft_loss_is_the_mean_over_completion_tokens_of_scoring() {
    let settings = TrainSettings { max_steps: Some(1), ..settings() };
    let pairs = pairs(4);
    let examples = demonstrations(&pairs);
    let model = model(3, false);
    let (mut sum, mut tokens) = (0.0, 0);
    for e in &examples {
        let mut packed = Packed::new();
        let whole = packed.push(&[e.prompt.clone(), e.completion.clone()].concat());
        let scores = model.score(&packed, &packed.targets_within(whole));
        sum -= scores[e.prompt.len() - 1..].iter().map(|s| f64::from(s.logp)).sum::<f64>();
        tokens += e.completion.len();
    }
    let mut task = SftTask::new(model, &examples, &settings).unwrap();
    let metrics: Vec<Metrics> = run(&mut task, &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    assert!((metrics[0].loss - sum / tokens as f64).abs() < 1e-12);
}

#[test]
fn pair_scores_are_the_reference_log_probabilities_of_training() {
    let (policy, reference, pairs) = (model(4, false), model(3, false), pairs(18));
    let of = ScoredPolicy { variant: "dpo", seed: Some(1), checkpoint: 6, beta: 0.1 };
    let rows = pair_scores(&of, &policy, &reference, &pairs, None, None, &Silent).unwrap();
    let task = preference_task(&pairs, &settings()).unwrap();
    let all: Vec<usize> = (0..pairs.len()).collect();
    let (_, outputs) = task.forward(&all);
    for (row, output) in rows.iter().zip(outputs) {
        let (chosen, rejected) = output.logps();
        assert_eq!((row.reference_chosen.to_bits(), row.reference_rejected.to_bits()), (chosen.to_bits(), rejected.to_bits()));
        assert_ne!(row.policy_chosen, row.reference_chosen);
    }
}

#[test]
fn completions_are_cut_at_max_length_and_prompts_without_room_are_errors() {
    let pairs = pairs(18);
    let longest = pairs.iter().map(|p| p.prompt.len()).max().unwrap();
    let cut = TrainSettings { max_length: Some(longest + 1), ..settings() };
    let task = preference_task(&pairs, &cut).unwrap();
    let all: Vec<usize> = (0..pairs.len()).collect();
    let (_, outputs) = task.forward(&all);
    let expected: usize = pairs
        .iter()
        .map(|p| {
            let room = longest + 1 - p.prompt.len();
            2 * p.prompt.len() + p.chosen.len().min(room) + p.rejected.len().min(room)
        })
        .sum();
    assert_eq!(task.loss(&all, &outputs).tokens as usize, expected);
    let error = preference_task(&pairs, &TrainSettings { max_length: Some(longest), ..settings() }).err().unwrap();
    assert!(error.message.contains("leaves no room"), "{error}");
}

#[test]
fn tokens_outside_the_vocabulary_and_sequences_beyond_the_context_are_errors() {
    let mut foreign = pairs(3);
    foreign[1].chosen[0] = VOCABULARY as u32;
    let error = preference_task(&foreign, &settings()).err().unwrap();
    assert!(error.message.contains("pair-1"), "{error}");
    let mut long = pairs(3);
    long[2].rejected = vec![3; 64];
    assert!(preference_task(&long, &settings()).err().unwrap().message.contains("pair-2"));
}

#[test]
fn a_reference_that_scores_otherwise_than_the_policy_is_caught_at_the_first_step() {
    for (numerics, change) in [(Numerics::Strict, 1e-3), (Numerics::Fast, 1e-2)] {
        let reference = model(3, false).with_numerics(numerics);
        let mut task = PreferenceTask::new(reference.clone(), &reference, pairs(18), &settings(), &Silent).unwrap();
        task.learner_mut().parameters_mut().get_mut("model.norm.weight").values[0] += change;
        let work = tempfile::tempdir().unwrap();
        let error = run(&mut task, &six_steps(), 1, work.path(), &Silent).unwrap_err();
        assert!(error.message.contains("before the first update"), "{error}");
    }
}

#[test]
fn a_weight_that_is_not_a_number_stops_the_run_and_names_the_pairs() {
    let reference = model(3, false);
    let mut policy = reference.clone();
    policy.parameters.get_mut("model.norm.weight").values[0] = f32::NAN;
    let mut task = PreferenceTask::new(policy, &reference, pairs(18), &settings(), &Silent).unwrap();
    let work = tempfile::tempdir().unwrap();
    let error = run(&mut task, &six_steps(), 1, work.path(), &Silent).unwrap_err();
    assert!(error.message.contains("step 1") && error.message.contains("pair-"), "{error}");
    assert!(!work.path().join("state").exists());
}
