use std::path::Path;

use super::*;
use crate::data::Prompt;
use crate::data::tokenize::TextTokenizer;
use crate::error::Result;
use crate::generate::tests::{model, tokenizer};
use crate::model::{Llama, VALUE_HEAD};
use crate::suite::settings::{Numerics, OnlineSettings, PpoSettings, TrainSettings};
use crate::train::{Metrics, checkpoint, run};
use crate::watch::{Silent, Watch};

fn reference(tokenizer: &TextTokenizer) -> Llama {
    model(tokenizer, 5)
}

fn ppo() -> OnlineSettings {
    let ppo = PpoSettings { num_mini_batches: 2, num_ppo_epochs: 2, ..PpoSettings::default() };
    OnlineSettings { ppo: Some(ppo), num_generations: 2, ..rloo() }
}

fn rloo() -> OnlineSettings {
    OnlineSettings { reward_model: "gold".into(), num_generations: 4, missing_eos_penalty: 0.0, target_kl: None, ppo: None }
}

/// How many letters of a completion are an `e`, less half the others: something to learn.
fn vowels(_: &str, text: &str) -> f64 {
    let e = text.chars().filter(|c| *c == 'e').count() as f64;
    (e - 0.5 * (text.chars().count() as f64 - e)) / 4.0
}

fn training(steps: u64) -> TrainSettings {
    TrainSettings {
        max_steps: Some(steps),
        learning_rate: 5e-3,
        warmup_steps: 0,
        weight_decay: 0.0,
        ..crate::train::tests::settings()
    }
}

fn task<'a>(tokenizer: &'a TextTokenizer, online: &OnlineSettings, beta: f64, numerics: Numerics) -> OnlineTask<'a> {
    let texts = ["a house", "the sea", "a large lake is", "by the", "calm", "small"];
    let prompts = texts.iter().enumerate().map(|(i, text)| Prompt { id: format!("p{i}"), text: (*text).to_owned() }).collect();
    let reference = reference(tokenizer).with_numerics(numerics);
    OnlineTask::new(reference.clone(), &reference, tokenizer, Reward::Gold(vowels), prompts, online, beta, 8)
}

fn trained(online: &OnlineSettings, settings: &TrainSettings, beta: f64, work: &Path, watch: &dyn Watch) -> Result<Vec<Metrics>> {
    let tokenizer = tokenizer();
    run(&mut task(&tokenizer, online, beta, Numerics::Strict), settings, 1, work, watch)
}

/// Ends a run after its third step, as if it had been interrupted.
struct ThreeSteps;

impl Watch for ThreeSteps {
    fn advance(&self, _: u64, _: u64, _: &str) {}

    fn last_step(&self) -> Option<u64> {
        Some(3)
    }
}

fn mean(rows: &[Metrics], name: &str) -> f64 {
    rows.iter().map(|row| row.values[name]).sum::<f64>() / rows.len() as f64
}

#[test]
fn what_is_rewarded_is_written_more_often_and_a_nat_that_costs_more_is_spent_less() {
    for online in [ppo(), rloo()] {
        let runs: Vec<Vec<Metrics>> = [0.01, 1.0]
            .iter()
            .map(|&beta| trained(&online, &training(30), beta, tempfile::tempdir().unwrap().path(), &Silent).unwrap())
            .collect();
        let [early, late] = [&runs[0][..5], &runs[0][25..]];
        assert!(mean(late, "objective/scores") > mean(early, "objective/scores") + 0.2, "{online:?}");
        assert_eq!(runs[0][0].values["objective/kl"], 0.0, "the policy starts as the reference");
        let [cheap, dear] = [&runs[0], &runs[1]].map(|rows| mean(&rows[25..], "objective/kl"));
        assert!(cheap > 2.0 * dear && dear > 0.0, "{cheap} {dear}");
    }
}

#[test]
fn beta_follows_the_kl_that_is_aimed_at() {
    let online = OnlineSettings { target_kl: Some(1e-3), ..rloo() };
    let rows = trained(&online, &training(6), 0.01, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    let betas: Vec<f64> = rows.iter().map(|row| row.values["objective/kl_coef"]).collect();
    assert_eq!(betas[0], 0.01);
    assert!(betas[1] < betas[0] && betas[5] > betas[2], "below the target at first, beyond it later: {betas:?}");
}

#[test]
fn micro_batches_and_an_interruption_change_no_bit() {
    for online in [ppo(), rloo()] {
        let whole = tempfile::tempdir().unwrap();
        let rows = trained(&online, &training(5), 0.05, whole.path(), &Silent).unwrap();
        let expected = checkpoint(whole.path(), 5).unwrap().digest();
        let micro = TrainSettings { per_device_train_batch_size: 1, gradient_accumulation_steps: 4, ..training(5) };
        let cut = tempfile::tempdir().unwrap();
        assert_eq!(trained(&online, &micro, 0.05, cut.path(), &Silent).unwrap(), rows);
        assert_eq!(checkpoint(cut.path(), 5).unwrap().digest(), expected);
        let broken = tempfile::tempdir().unwrap();
        trained(&online, &training(5), 0.05, broken.path(), &ThreeSteps).unwrap_err();
        assert_eq!(trained(&online, &training(5), 0.05, broken.path(), &Silent).unwrap(), rows);
        assert_eq!(checkpoint(broken.path(), 5).unwrap().digest(), expected);
        let seed = {
            let tokenizer = tokenizer();
            let mut other = task(&tokenizer, &online, 0.05, Numerics::Strict);
            run(&mut other, &training(5), 2, tempfile::tempdir().unwrap().path(), &Silent).unwrap()
        };
        assert_ne!(seed, rows, "another seed writes other texts");
    }
}

#[test]
fn a_checkpoint_is_the_policy_without_its_value_head() {
    let work = tempfile::tempdir().unwrap();
    trained(&ppo(), &training(2), 0.05, work.path(), &Silent).unwrap();
    let tokenizer = tokenizer();
    let weights = checkpoint(work.path(), 2).unwrap();
    assert!(!weights.contains(VALUE_HEAD));
    let names = |p: &crate::model::Parameters| p.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&weights), names(&reference(&tokenizer).parameters));
    assert_ne!(weights.digest(), reference(&tokenizer).parameters.digest(), "something was learnt");
}

#[test]
fn rloo_learns_in_the_fast_arithmetic_too() {
    let tokenizer = tokenizer();
    let mut task = task(&tokenizer, &rloo(), 0.05, Numerics::Fast);
    let rows = run(&mut task, &training(30), 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    assert!(mean(&rows[25..], "objective/scores") > mean(&rows[..5], "objective/scores") + 0.2);
}

#[test]
fn equal_rewards_teach_nothing_and_are_no_defect() {
    let tokenizer = tokenizer();
    let reference = reference(&tokenizer);
    let prompts = vec![Prompt { id: "p".into(), text: "the sea".into() }];
    let same = Reward::Gold(|_, _| 1.0);
    let mut task = OnlineTask::new(reference.clone(), &reference, &tokenizer, same, prompts, &rloo(), 0.05, 8);
    run(&mut task, &training(2), 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
    assert_eq!(crate::train::Learner::parameters(crate::train::Task::learner(&task)).digest(), reference.parameters.digest());
}
