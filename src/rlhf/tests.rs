use std::path::Path;

use super::*;
use crate::data::Prompt;
use crate::data::tokenize::TextTokenizer;
use crate::error::Result;
use crate::generate::tests::{model, tokenizer};
use crate::generate::{Sampled, Writer};
use crate::model::{Llama, VALUE_HEAD};
use crate::suite::settings::{GenerateSettings, Numerics, OnlineSettings, PpoSettings, TrainSettings};
use crate::train::{Metrics, Task, checkpoint, run};
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

const TEXTS: [&str; 6] = ["a house", "the sea", "a large lake is", "by the", "calm", "small"];

fn task<'a>(tokenizer: &'a TextTokenizer, online: &OnlineSettings, beta: f64, numerics: Numerics) -> OnlineTask<'a> {
    let prompts = TEXTS.iter().enumerate().map(|(i, text)| Prompt { id: format!("p{i}"), text: (*text).to_owned() }).collect();
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

fn six() -> (TextTokenizer, Vec<Prompt>) {
    let texts = ["a house", "the sea", "a large lake is", "by the", "calm", "small"];
    let prompt = |(i, text): (usize, &&str)| Prompt { id: format!("p{i}"), text: (*text).to_owned() };
    (tokenizer(), texts.iter().enumerate().map(prompt).collect())
}

fn decoding(samples_per_prompt: usize) -> GenerateSettings {
    GenerateSettings { temperature: 1.0, top_p: 1.0, top_k: None, max_new_tokens: 8, samples_per_prompt }
}

fn best(counts: &[u64], reward: &Reward, together: usize) -> Vec<Vec<Sampled>> {
    let (tokenizer, prompts) = six();
    let (model, settings) = (reference(&tokenizer), decoding(2));
    let writer = Writer::new(&model, &tokenizer, &prompts, &settings).unwrap();
    let choice = Choice { reward, counts, seed: 3, purpose: "test" };
    best_of::chosen(writer, prompts.len(), &settings, &choice, together, &Silent).unwrap()
}

#[test]
fn the_best_of_one_is_a_plain_sample_and_more_to_choose_from_is_never_worse() {
    let (tokenizer, prompts) = six();
    let plain = crate::generate::sample(&reference(&tokenizer), &tokenizer, &prompts, &decoding(2), 3, "test", &Silent).unwrap();
    let counts = [1, 2, 3, 8, 20];
    let chosen = best(&counts, &Reward::Gold(vowels), 64);
    assert_eq!(chosen[0], plain);
    let score = |s: &Sampled| vowels(&s.prompt, &s.text);
    for two in chosen.windows(2) {
        assert!(two[0].iter().zip(&two[1]).all(|(fewer, more)| score(fewer) <= score(more)));
    }
    let total = |all: &[Sampled]| all.iter().map(score).sum::<f64>();
    assert!(total(&chosen[4]) > total(&chosen[0]));
    // Each by itself, from all that was written.
    let same = |s: &Sampled, t: &Sampled| (&s.prompt_id, s.sample) == (&t.prompt_id, t.sample);
    assert!(chosen.iter().all(|all| all.iter().zip(&plain).all(|(s, t)| same(s, t))));
    let alone = best(&[3], &Reward::Gold(vowels), 64);
    assert_eq!(alone[0], chosen[2], "other numbers change nothing");
    // Where all are equally good the first stays.
    assert_eq!(best(&[20], &Reward::Gold(|_, _| 0.0), 64)[0], plain);
}

#[test]
fn the_best_are_the_same_however_many_are_written_together_and_on_any_number_of_threads() {
    let whole = best(&[1, 4, 9], &Reward::Gold(vowels), 64);
    for together in [1, 7, 1000] {
        assert_eq!(best(&[1, 4, 9], &Reward::Gold(vowels), together), whole, "{together} together");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| best(&[1, 4, 9], &Reward::Gold(vowels), 64)), whole);
}

#[test]
fn what_is_said_of_a_token_as_it_is_drawn_has_the_bits_of_a_pass_over_the_text() {
    let tokenizer = tokenizer();
    for ppo in [Some(PpoSettings::default()), None] {
        let online = OnlineSettings { ppo, ..rloo() };
        // Trained, so that policy, reference and values differ.
        let mut task = task(&tokenizer, &online, 0.05, Numerics::Strict);
        run(&mut task, &training(3), 1, tempfile::tempdir().unwrap().path(), &Silent).unwrap();
        let batch = [4, 1, 5, 0];
        task.begin(1, 7, &batch).unwrap();
        let prompts: Vec<Prompt> = batch.iter().map(|&i| Prompt { id: task.example_id(i), text: TEXTS[i].to_owned() }).collect();
        let (samples, said) = task.write(1, 7, &prompts).unwrap();
        assert_eq!(samples.len(), batch.len() * online.num_generations);
        let (drawn, passed) = (task.measured(&batch, said), task.measured(&batch, None));
        assert!(drawn.iter().map(|(said, _)| said.len()).sum::<usize>() > 20);
        assert_eq!(drawn, passed);
    }
}
