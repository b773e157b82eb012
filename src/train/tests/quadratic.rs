//! The loop around a task without a model: the squared distance of a vector to points.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::settings;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::model::{Gradients, Parameters, Tensor};
use crate::store::CHAIN;
use crate::suite::settings::TrainSettings;
use crate::train::chain::Link;
use crate::train::{BatchLoss, Metrics, Task, checkpoint, checkpoint_folder, checkpoint_steps, run};
use crate::watch::{Silent, Watch};

pub(super) struct Quadratic {
    pub parameters: Parameters,
    points: Vec<f32>,
    /// The last so many points are measured only.
    pub held_out: usize,
    identity: Digest,
    /// This tensor is left without a gradient.
    forgotten: Option<&'static str>,
    /// What the check of the first step says.
    first_step: Result<()>,
}

impl Quadratic {
    pub fn new() -> Self {
        let mut parameters = Parameters::new();
        parameters.insert("a", Tensor { shape: vec![3], values: vec![0.0, 1.0, -1.0].into() });
        parameters.insert("b", Tensor { shape: vec![2, 1], values: vec![0.5, 2.0].into() });
        let points: Vec<f32> = (0..10).map(|i| (i * 7 % 10) as f32 / 3.0).collect();
        Self { parameters, identity: Digest::of_floats(&points), points, held_out: 0, forgotten: None, first_step: Ok(()) }
    }
}

impl Task for Quadratic {
    type Learner = Parameters;
    type Pass = ();
    type Output = f64;
    type Gradient = f64;

    fn identity(&self) -> Digest {
        self.identity
    }
    fn examples(&self) -> usize {
        self.points.len() - self.held_out
    }
    fn held_out(&self) -> usize {
        self.held_out
    }
    fn example_id(&self, example: usize) -> String {
        format!("point-{example}")
    }
    fn learner(&self) -> &Parameters {
        &self.parameters
    }
    fn learner_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }
    fn forward(&self, examples: &[usize]) -> ((), Vec<f64>) {
        let distance = |point: f32| {
            let all = self.parameters.iter().flat_map(|(_, t)| &t.values);
            all.map(|&x| f64::from(x - point).powi(2)).sum::<f64>()
        };
        ((), examples.iter().map(|&i| distance(self.points[i])).collect())
    }
    fn loss(&self, examples: &[usize], outputs: &[f64]) -> BatchLoss<f64> {
        let n = outputs.len() as f64;
        BatchLoss {
            loss: outputs.iter().sum::<f64>() / n,
            losses: outputs.to_vec(),
            gradients: vec![1.0 / n; outputs.len()],
            tokens: examples.len() as u64,
            metrics: BTreeMap::from([("farthest".to_owned(), outputs.iter().copied().fold(0.0, f64::max))]),
        }
    }
    fn backward(&self, (): (), examples: &[usize], gradients: &[f64], grads: &mut Gradients) {
        for (&i, &gradient) in examples.iter().zip(gradients) {
            for (name, tensor) in self.parameters.iter() {
                for (g, x) in grads.get_mut(name).iter_mut().zip(&tensor.values) {
                    if self.forgotten != Some(name) {
                        *g += 2.0 * (x - self.points[i]) * gradient as f32;
                    }
                }
            }
        }
    }
    fn check_first_step(&self, _: &[usize], _: &[f64], _: f64) -> Result<()> {
        self.first_step.clone()
    }
}

/// Stops the run before step `at + 1`, as Ctrl-C would.
pub(super) struct StopAfter {
    at: u64,
    seen: AtomicU64,
}

impl StopAfter {
    pub fn steps(at: u64) -> Self {
        Self { at, seen: AtomicU64::new(0) }
    }
}

impl Watch for StopAfter {
    fn advance(&self, done: u64, _: u64, _: &str) {
        self.seen.store(done, Ordering::Relaxed);
    }
    fn interrupted(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.at
    }
}

fn eight_steps() -> TrainSettings {
    TrainSettings { max_steps: Some(8), save_steps: Some(3), ..settings() }
}

fn train(settings: &TrainSettings, seed: u64, work: &Path, watch: &dyn Watch) -> Result<(Vec<Metrics>, Parameters)> {
    let mut task = Quadratic::new();
    let metrics = run(&mut task, settings, seed, work, watch)?;
    Ok((metrics, task.parameters))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Everything a finished run leaves behind, by name.
fn files(work: &Path) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    for name in ["train_log.jsonl", CHAIN] {
        found.insert(name.to_owned(), Digest::of_file(&work.join(name)).unwrap());
    }
    for step in checkpoint_steps(&eight_steps(), 10).unwrap() {
        let file = checkpoint_folder(work, step).join("model.safetensors");
        found.insert(format!("checkpoint-{step}"), Digest::of_file(&file).unwrap());
    }
    found
}

#[test]
fn training_lowers_the_loss_and_logs_every_step() {
    let work = folder();
    let (metrics, weights) = train(&eight_steps(), 1, work.path(), &Silent).unwrap();
    assert_eq!(checkpoint(work.path(), 8).unwrap(), weights);
    assert_ne!(checkpoint(work.path(), 6).unwrap(), weights);
    assert!(metrics[7].loss < metrics[0].loss);
    let log = fs::read_to_string(work.path().join("train_log.jsonl")).unwrap();
    let rows: Vec<Metrics> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows, metrics);
    assert_eq!(rows.iter().map(|r| r.num_tokens).collect::<Vec<_>>(), [4, 8, 10, 14, 18, 20, 24, 28]);
}

#[test]
fn a_run_interrupted_at_any_step_resumes_with_the_same_bits() {
    let unbroken = folder();
    let expected = train(&eight_steps(), 1, unbroken.path(), &Silent).unwrap();
    for at in 0..8 {
        let work = folder();
        let stopped = train(&eight_steps(), 1, work.path(), &StopAfter::steps(at)).unwrap_err();
        assert_eq!(stopped.kind, Kind::Interrupted);
        assert_eq!(train(&eight_steps(), 1, work.path(), &Silent).unwrap(), expected, "interrupted after step {at}");
        assert_eq!(files(work.path()), files(unbroken.path()), "interrupted after step {at}");
    }
}

#[test]
fn a_run_killed_without_notice_resumes_from_the_last_state_with_the_same_bits() {
    let unbroken = folder();
    let expected = train(&eight_steps(), 1, unbroken.path(), &Silent).unwrap();
    let work = folder();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(4)).unwrap_err();
    let at_four = fs::read(work.path().join("state")).unwrap();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(5)).unwrap_err();
    // The state of step 4 beside a log, half a line of it unfinished, and checkpoints that went further.
    fs::write(work.path().join("state"), at_four).unwrap();
    let mut log = fs::read_to_string(work.path().join("train_log.jsonl")).unwrap();
    log.push_str("{\"step\":6,\"epo");
    fs::write(work.path().join("train_log.jsonl"), log).unwrap();
    assert_eq!(train(&eight_steps(), 1, work.path(), &Silent).unwrap(), expected);
    assert_eq!(files(work.path()), files(unbroken.path()));
}

#[test]
fn a_finished_run_is_restored_without_training_again() {
    let work = folder();
    let expected = train(&eight_steps(), 1, work.path(), &Silent).unwrap();
    assert_eq!(train(&eight_steps(), 1, work.path(), &StopAfter::steps(0)).unwrap(), expected);
}

#[test]
fn micro_batches_give_the_bits_of_the_whole_batch() {
    let split = |micro, accumulation| {
        let settings =
            TrainSettings { per_device_train_batch_size: micro, gradient_accumulation_steps: accumulation, ..eight_steps() };
        train(&settings, 1, folder().path(), &Silent).unwrap()
    };
    let whole = split(4, 1);
    assert_eq!(split(2, 2), whole);
    assert_eq!(split(1, 4), whole);
}

#[test]
fn another_seed_gives_another_run() {
    let weights = |seed| train(&eight_steps(), seed, folder().path(), &Silent).unwrap().1;
    assert_ne!(weights(1), weights(2));
}

#[test]
fn the_chain_holds_the_digest_of_every_checkpoint_file() {
    let work = folder();
    let (metrics, _) = train(&eight_steps(), 1, work.path(), &Silent).unwrap();
    let text = fs::read_to_string(work.path().join(CHAIN)).unwrap();
    let links: Vec<Link> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let files = files(work.path());
    for (link, row) in links.iter().zip(&metrics) {
        assert_eq!((link.step, link.loss.value(), link.grad_norm.value()), (row.step, row.loss, row.grad_norm));
        assert_eq!(link.weights.as_ref(), files.get(&format!("checkpoint-{}", link.step)));
    }
    assert_eq!(links.iter().filter(|l| l.weights.is_some()).count(), 3);
}

#[test]
fn a_watcher_may_see_the_first_steps_only_and_the_rest_goes_on_from_them() {
    struct First(u64);
    impl Watch for First {
        fn advance(&self, _: u64, _: u64, _: &str) {}
        fn last_step(&self) -> Option<u64> {
            Some(self.0)
        }
    }
    let unbroken = folder();
    let expected = train(&eight_steps(), 1, unbroken.path(), &Silent).unwrap();
    let work = folder();
    assert_eq!(train(&eight_steps(), 1, work.path(), &First(5)).unwrap_err().kind, Kind::Interrupted);
    assert_eq!(fs::read_to_string(work.path().join(CHAIN)).unwrap().lines().count(), 5);
    let (step, weights) = crate::train::weights_kept(work.path()).unwrap();
    assert_eq!(step, 5);
    assert_ne!(weights, expected.1);
    assert_eq!(train(&eight_steps(), 1, work.path(), &First(8)).unwrap(), expected);
    assert_eq!(files(work.path()), files(unbroken.path()));
}

#[test]
fn a_damaged_state_falls_back_to_the_one_before_it() {
    let unbroken = folder();
    let expected = train(&eight_steps(), 1, unbroken.path(), &Silent).unwrap();
    let work = folder();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(2)).unwrap_err();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(4)).unwrap_err();
    let path = work.path().join("state");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &whole[..5], &[], &flipped] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(train(&eight_steps(), 1, work.path(), &Silent).unwrap(), expected);
        assert_eq!(files(work.path()), files(unbroken.path()));
    }
}

#[test]
fn a_state_without_an_intact_predecessor_is_an_error_and_never_garbage() {
    let work = folder();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(2)).unwrap_err();
    let path = work.path().join("state");
    fs::write(&path, &fs::read(&path).unwrap()[..100]).unwrap();
    let error = train(&eight_steps(), 1, work.path(), &Silent).unwrap_err();
    assert_eq!(error.kind, Kind::Input);
    assert!(error.message.contains("damaged") && error.help.is_some(), "{error}");
}

#[test]
fn a_state_of_another_run_is_refused() {
    let work = folder();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(2)).unwrap_err();
    let error = train(&eight_steps(), 2, work.path(), &Silent).unwrap_err();
    assert!(error.message.contains("another run"), "{error}");
}

#[test]
fn a_number_that_is_not_finite_stops_the_run_and_overwrites_nothing() {
    let work = folder();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(3)).unwrap_err();
    let before = Digest::of_file(&work.path().join("state")).unwrap();
    let mut task = Quadratic::new();
    let bad = crate::train::schedule::Plan::of(&eight_steps(), 10, 1).unwrap().batch(4)[1];
    // The identity stays: the data went bad after the run began.
    task.points[bad] = f32::NAN;
    let error = run(&mut task, &eight_steps(), 1, work.path(), &Silent).unwrap_err();
    for part in ["step 5", "loss is not finite", &format!("(examples point-{bad})"), "the last finite step was 4"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert_eq!(Digest::of_file(&work.path().join("state")).unwrap(), before);
}

#[test]
fn a_tensor_without_a_gradient_is_an_error() {
    let mut task = Quadratic { forgotten: Some("b"), ..Quadratic::new() };
    let error = run(&mut task, &eight_steps(), 1, folder().path(), &Silent).unwrap_err();
    assert!(error.message.contains("`b` received no gradient"), "{error}");
}

#[test]
fn a_broken_first_step_invariant_stops_the_run() {
    let work = folder();
    let mut task = Quadratic { first_step: Err(Error::unexpected("not the constant")), ..Quadratic::new() };
    assert_eq!(run(&mut task, &eight_steps(), 1, work.path(), &Silent), Err(Error::unexpected("not the constant")));
    assert_eq!(task.parameters, Quadratic::new().parameters);
    assert!(!work.path().join("state").exists());
}

#[test]
fn a_place_that_cannot_be_written_stops_the_run_and_what_was_saved_before_goes_on() {
    let unbroken = folder();
    let expected = train(&eight_steps(), 1, unbroken.path(), &Silent).unwrap();
    let work = folder();
    // A file stands where the folder of the second checkpoint belongs.
    let obstacle = checkpoint_folder(work.path(), 6);
    fs::write(&obstacle, "").unwrap();
    let error = train(&eight_steps(), 1, work.path(), &Silent).unwrap_err();
    assert!(error.message.contains("checkpoint-6"), "{error}");
    assert_eq!(
        Digest::of_file(&checkpoint_folder(work.path(), 3).join("model.safetensors")).unwrap(),
        files(unbroken.path())["checkpoint-3"]
    );
    assert_eq!(crate::train::weights_kept(work.path()).unwrap().0, 3);
    fs::remove_file(&obstacle).unwrap();
    assert_eq!(train(&eight_steps(), 1, work.path(), &Silent).unwrap(), expected);
    assert_eq!(files(work.path()), files(unbroken.path()));
    let error = train(&eight_steps(), 1, &checkpoint_folder(work.path(), 3).join("model.safetensors/work"), &Silent).unwrap_err();
    assert!(error.message.contains("model.safetensors/work"), "{error}");
}

/// What a full disk leaves when it refuses the new state: the one before it, under its name as predecessor.
#[test]
fn a_state_that_could_not_be_written_leaves_its_predecessor_to_go_on_from() {
    let unbroken = folder();
    let expected = train(&eight_steps(), 1, unbroken.path(), &Silent).unwrap();
    let work = folder();
    train(&eight_steps(), 1, work.path(), &StopAfter::steps(5)).unwrap_err();
    fs::remove_file(work.path().join("state")).unwrap();
    assert!(work.path().join("state.previous").exists());
    assert_eq!(train(&eight_steps(), 1, work.path(), &Silent).unwrap(), expected);
    assert_eq!(files(work.path()), files(unbroken.path()));
}

#[test]
fn a_checkpoint_that_was_cut_off_is_an_error_that_names_the_file() {
    let work = folder();
    train(&eight_steps(), 1, work.path(), &Silent).unwrap();
    let path = checkpoint_folder(work.path(), 8).join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = checkpoint(work.path(), 8).unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.to_string().contains("checkpoint-8/model.safetensors"), "{error}");
    }
}
