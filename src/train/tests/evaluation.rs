//! Held-out examples beside training: what is measured, that nothing else changes, and what follows from it.

use std::fs;
use std::path::Path;

use super::invariance::adapted;
use super::models::{demonstrations, model, pairs};
use super::quadratic::{Quadratic, StopAfter};
use super::settings;
use crate::digest::Digest;
use crate::error::Result;
use crate::model::{Adapter, Parameters};
use crate::store::TIMING;
use crate::suite::settings::{Dialect, EvaluationSettings, LossType, ObjectiveSettings, TrainSettings};
use crate::train::{
    EVAL_LOG, Evaluation, Feedback, LAST, Learner, Metrics, PreferenceTask, ScoredPolicy, SftTask, Task, UnpairedTask,
    checkpoint, checkpoint_folder, checkpoint_steps, pair_scores, run,
};
use crate::watch::{Silent, Watch};

fn evaluations(work: &Path) -> Vec<Evaluation> {
    let text = fs::read_to_string(work.join(EVAL_LOG)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn every(steps: u64) -> EvaluationSettings {
    EvaluationSettings { eval_steps: Some(steps), ..EvaluationSettings::default() }
}

/// Trains on the first 12 of 18 pairs.
fn train(settings: &TrainSettings, held_out: bool) -> (Vec<Metrics>, Digest, Vec<Evaluation>) {
    let work = tempfile::tempdir().unwrap();
    let (reference, pairs) = (model(3, false), pairs(18));
    let (learnt, others) = pairs.split_at(12);
    let (metrics, weights) = if settings.objective.is_unpaired() {
        let task = UnpairedTask::new(reference.clone(), &reference, Feedback::of_pairs(learnt), settings, &Silent).unwrap();
        let mut task = match held_out {
            true => task.with_held_out(&reference, Feedback::of_pairs(others), settings, None, &Silent).unwrap(),
            false => task,
        };
        (run(&mut task, settings, 1, work.path(), &Silent).unwrap(), task.learner().parameters().digest())
    } else {
        let task = PreferenceTask::new(reference.clone(), &reference, learnt, settings, &Silent).unwrap();
        let mut task = match held_out {
            true => task.with_held_out(&reference, others, settings, None, &Silent).unwrap(),
            false => task,
        };
        (run(&mut task, settings, 1, work.path(), &Silent).unwrap(), task.learner().parameters().digest())
    };
    let rows = if held_out { evaluations(work.path()) } else { Vec::new() };
    (metrics, weights, rows)
}

fn objectives() -> Vec<ObjectiveSettings> {
    let plain = |loss| ObjectiveSettings { loss_type: vec![loss], ..ObjectiveSettings::default() };
    let of_trl = |loss| ObjectiveSettings { dialect: Dialect::Trl, ..plain(loss) };
    let live = ObjectiveSettings { precompute_ref_log_probs: false, ..ObjectiveSettings::default() };
    vec![
        plain(LossType::Sigmoid),
        live,
        of_trl(LossType::Aot),
        plain(LossType::Orpo),
        plain(LossType::Kto),
        of_trl(LossType::Kto),
    ]
}

#[test]
fn evaluating_changes_no_bit_of_the_training() {
    for objective in objectives() {
        let settings = TrainSettings { objective, max_steps: Some(5), ..settings() };
        let without = train(&settings, false);
        let with = train(&TrainSettings { evaluation: every(2), ..settings.clone() }, true);
        assert_eq!((with.0, with.1), (without.0, without.1), "{:?}", settings.objective);
        assert_eq!(with.2.iter().map(|e| e.step).collect::<Vec<_>>(), [2, 4, 5]);
    }
}

#[test]
fn the_same_weights_are_measured_alike_whatever_the_batch() {
    for objective in objectives() {
        let measured = |micro, accumulation| {
            let settings = TrainSettings {
                // Nothing moves, so that dialects whose steps depend on the micro-batch stand at the same weights.
                learning_rate: 1e-30,
                objective: objective.clone(),
                per_device_train_batch_size: micro,
                gradient_accumulation_steps: accumulation,
                evaluation: every(1),
                max_steps: Some(1),
                weight_decay: 0.0,
                ..settings()
            };
            train(&settings, true).2.remove(0).values
        };
        let whole = measured(12, 1);
        assert_eq!(measured(2, 6), whole, "{objective:?}");
        assert_eq!(measured(5, 1), whole, "{objective:?}");
    }
}

/// The definition again, from the log-probabilities that scoring gives: every pair weighs the same.
#[test]
fn dpo_is_measured_by_its_definition_over_all_held_out_pairs() {
    let settings = TrainSettings { max_steps: Some(3), evaluation: every(3), ..settings() };
    let work = tempfile::tempdir().unwrap();
    let (reference, pairs) = (model(3, false), pairs(19));
    let (learnt, held_out) = pairs.split_at(12);
    let task = PreferenceTask::new(reference.clone(), &reference, learnt, &settings, &Silent).unwrap();
    let mut task = task.with_held_out(&reference, held_out, &settings, None, &Silent).unwrap();
    run(&mut task, &settings, 1, work.path(), &Silent).unwrap();
    let of = ScoredPolicy { variant: "dpo", seed: Some(1), checkpoint: 3, beta: 0.1 };
    let rows = pair_scores(&of, &task.into_policy(), &reference, held_out, None, None, &Silent).unwrap();
    let margins: Vec<f64> = rows
        .iter()
        .map(|r| 0.1 * ((r.policy_chosen - r.reference_chosen) - (r.policy_rejected - r.reference_rejected)))
        .collect();
    let mean = |value: fn(f64) -> f64| margins.iter().map(|&m| value(m)).sum::<f64>() / 7.0;
    let found = &evaluations(work.path())[0].values;
    for (name, expected) in [
        ("eval_loss", mean(|m| (1.0 + (-m).exp()).ln())),
        ("eval_rewards/margins", mean(|m| m)),
        ("eval_rewards/accuracies", mean(|m| f64::from(u8::from(m > 0.0)))),
    ] {
        assert!((found[name] - expected).abs() < 1e-12, "{name}: {} but {expected}", found[name]);
    }
}

#[test]
fn fine_tuning_is_measured_by_the_mean_over_all_held_out_tokens() {
    let settings = TrainSettings { max_steps: Some(2), evaluation: every(2), ..settings() };
    let work = tempfile::tempdir().unwrap();
    let examples = demonstrations(&pairs(9));
    let mut task =
        SftTask::new(model(3, false), &examples[..6], &settings).unwrap().with_held_out(&examples[6..], &settings).unwrap();
    run(&mut task, &settings, 1, work.path(), &Silent).unwrap();
    // The loss of the same weights on a first step over the same examples as one batch.
    let alone = TrainSettings { max_steps: Some(1), evaluation: EvaluationSettings::default(), ..settings };
    let mut task = SftTask::new(task.into_model(), &examples[6..], &alone).unwrap();
    let metrics = run(&mut task, &alone, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    assert!((evaluations(work.path())[0].values["eval_loss"] - metrics[0].loss).abs() < 1e-12);
}

#[test]
fn an_adapter_too_ends_with_its_best_weights() {
    let evaluation = EvaluationSettings { load_best_model_at_end: true, ..every(2) };
    let settings = TrainSettings { max_steps: Some(6), evaluation, ..settings() };
    let work = tempfile::tempdir().unwrap();
    let (base, pairs) = (model(3, false), pairs(18));
    let task = PreferenceTask::new(adapted(&base), &base, &pairs[..12], &settings, &Silent).unwrap();
    let mut task = task.with_held_out(&base, &pairs[12..], &settings, None, &Silent).unwrap();
    run(&mut task, &settings, 1, work.path(), &Silent).unwrap();
    let best = fs::read(checkpoint_folder(work.path(), 6).join(Adapter::WEIGHTS)).unwrap();
    assert_eq!(Parameters::from_safetensors(&best).unwrap(), *task.learner().parameters());
}

#[test]
fn asking_for_evaluations_without_held_out_examples_is_an_error() {
    let settings = TrainSettings { evaluation: every(2), ..settings() };
    let error = run(&mut Quadratic::new(), &settings, 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap_err();
    assert!(error.message.contains("no held-out examples"), "{error}");
}

/// Overshoots at this learning rate, so that the held-out loss falls and rises again.
fn overshooting(evaluation: EvaluationSettings) -> TrainSettings {
    TrainSettings { learning_rate: 0.4, warmup_steps: 0, max_steps: Some(30), evaluation, ..settings() }
}

fn quadratic(settings: &TrainSettings, work: &Path, watch: &dyn Watch) -> Result<(usize, Parameters)> {
    let mut task = Quadratic::new();
    task.held_out = 3;
    let metrics = run(&mut task, settings, 1, work, watch)?;
    Ok((metrics.len(), task.parameters))
}

/// Names and digests of what a finished run leaves, its resume state and its timings aside.
fn left(work: &Path) -> Vec<(String, Digest)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(work).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => {
                let inside = fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
                files.push((name, Digest::of_file(&inside).unwrap()));
            }
            false if name.starts_with("state") || name == TIMING => {}
            false => files.push((name, Digest::of_file(&path).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn a_training_ends_early_and_with_its_best_weights_wherever_it_was_interrupted() {
    let patient = EvaluationSettings { early_stopping_patience: Some(2), ..every(2) };
    let best = EvaluationSettings { load_best_model_at_end: true, ..patient.clone() };
    for evaluation in [patient, best] {
        let settings = overshooting(evaluation.clone());
        let unbroken = tempfile::tempdir().unwrap();
        let (steps, weights) = quadratic(&settings, unbroken.path(), &Silent).unwrap();
        let rows = evaluations(unbroken.path());
        let lowest = rows.iter().min_by(|a, b| a.values["eval_loss"].total_cmp(&b.values["eval_loss"])).unwrap().step;
        assert!(steps < 30 && lowest + 4 == steps as u64, "{rows:?}");
        // By the name of the plan's last step, whatever step it is of.
        assert_eq!(checkpoint_steps(&settings, 7).unwrap(), [30]);
        assert_eq!(checkpoint(unbroken.path(), 30).unwrap(), weights);
        let at = if evaluation.load_best_model_at_end { lowest } else { steps as u64 };
        let plain = TrainSettings { evaluation: every(2), save_steps: Some(at), ..settings.clone() };
        let folder = tempfile::tempdir().unwrap();
        quadratic(&plain, folder.path(), &Silent).unwrap();
        assert_eq!(checkpoint(folder.path(), at).unwrap(), weights);
        assert_eq!(unbroken.path().join(LAST).exists(), evaluation.load_best_model_at_end);
        if evaluation.load_best_model_at_end {
            let longest = TrainSettings { save_steps: Some(steps as u64), ..plain };
            let folder = tempfile::tempdir().unwrap();
            quadratic(&longest, folder.path(), &Silent).unwrap();
            let [last, expected] = [unbroken.path().join(LAST), checkpoint_folder(folder.path(), steps as u64)];
            assert_eq!(fs::read(last.join("model.safetensors")).unwrap(), fs::read(expected.join("model.safetensors")).unwrap());
        }
        for at in 0..steps as u64 {
            let work = tempfile::tempdir().unwrap();
            quadratic(&settings, work.path(), &StopAfter::steps(at)).unwrap_err();
            assert_eq!(quadratic(&settings, work.path(), &Silent).unwrap(), (steps, weights.clone()), "after {at}");
            assert_eq!(left(work.path()), left(unbroken.path()), "after {at}");
        }
        assert_eq!(quadratic(&settings, unbroken.path(), &Silent).unwrap(), (steps, weights), "once more");
    }
}

#[test]
fn damaged_best_weights_are_an_error() {
    let settings = overshooting(EvaluationSettings { load_best_model_at_end: true, ..every(2) });
    let work = tempfile::tempdir().unwrap();
    quadratic(&settings, work.path(), &Silent).unwrap();
    let path = checkpoint_folder(work.path(), 30).join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = quadratic(&settings, work.path(), &Silent).unwrap_err();
    assert!(error.message.contains("best evaluation") && error.help.is_some(), "{error}");
}

#[test]
fn only_the_latest_checkpoints_within_the_limit_are_left() {
    let limit = EvaluationSettings { save_total_limit: Some(2), ..EvaluationSettings::default() };
    let settings = TrainSettings { save_steps: Some(2), ..overshooting(limit) };
    let unbroken = tempfile::tempdir().unwrap();
    quadratic(&settings, unbroken.path(), &Silent).unwrap();
    assert_eq!(checkpoint_steps(&settings, 7).unwrap(), [28, 30]);
    let folders =
        |work: &Path| left(work).into_iter().map(|(name, _)| name).filter(|n| n.starts_with("check")).collect::<Vec<_>>();
    assert_eq!(folders(unbroken.path()), ["checkpoint-28", "checkpoint-30"]);
    for at in [3, 9, 19] {
        let work = tempfile::tempdir().unwrap();
        quadratic(&settings, work.path(), &StopAfter::steps(at)).unwrap_err();
        quadratic(&settings, work.path(), &Silent).unwrap();
        assert_eq!(left(work.path()), left(unbroken.path()), "interrupted after {at}");
    }
}

#[test]
fn every_step_has_its_time_once_also_after_an_interruption() {
    let settings = overshooting(every(2));
    let work = tempfile::tempdir().unwrap();
    quadratic(&settings, work.path(), &StopAfter::steps(11)).unwrap_err();
    quadratic(&settings, work.path(), &Silent).unwrap();
    let text = fs::read_to_string(work.path().join(TIMING)).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|r| r["step"].as_u64().unwrap()).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    assert!(rows.iter().all(|r| r["seconds"].as_f64().unwrap() > 0.0 && r["tokens_per_second"].as_f64().unwrap() > 0.0));
}
