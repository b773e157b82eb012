//! Repetitions of a small training with differences planted in it: step, tensor and element must be named.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::model::{Gradients, Tensor};
use crate::run::plan::Stage;
use crate::store::{CHAIN, Clock};
use crate::suite::settings::Sampling;
use crate::train::tests::settings as train_settings;
use crate::train::{BatchLoss, Learner, Task, run};

/// Twenty steps on the squared distance of two vectors to points; only step 7 looks at the last element of `b`.
struct Distance {
    parameters: Parameters,
    /// Losses computed so far: the step in progress.
    step: AtomicU64,
    /// After that many steps this element of `b` moves by itself.
    planted: Option<(u64, usize)>,
}

const SEEN_FROM: u64 = 7;

impl Distance {
    fn new(planted: Option<(u64, usize)>) -> Self {
        let mut parameters = Parameters::new();
        parameters.insert("a", Tensor { shape: vec![2], values: vec![0.5, -0.5].into() });
        parameters.insert("b", Tensor { shape: vec![3], values: vec![1.0, 2.0, 3.0].into() });
        Self { parameters, step: AtomicU64::new(0), planted }
    }
}

impl Learner for Distance {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }
    /// The optimizer takes these once a step, after the loss.
    fn parameters_mut(&mut self) -> &mut Parameters {
        let step = self.step.load(Ordering::Relaxed);
        if let Some((_, index)) = self.planted.filter(|(planted, _)| *planted == step) {
            self.parameters.get_mut("b").values[index] += 0.25;
        }
        &mut self.parameters
    }
}

impl Task for Distance {
    type Learner = Self;
    type Pass = ();
    type Output = f64;
    type Gradient = f64;

    fn identity(&self) -> Digest {
        Digest::of_bytes(b"distance")
    }
    fn examples(&self) -> usize {
        4
    }
    fn example_id(&self, example: usize) -> String {
        example.to_string()
    }
    fn learner(&self) -> &Self {
        self
    }
    fn learner_mut(&mut self) -> &mut Self {
        self
    }
    fn forward(&self, examples: &[usize]) -> ((), Vec<f64>) {
        let seen = if self.step.load(Ordering::Relaxed) + 1 >= SEEN_FROM { 5 } else { 4 };
        let values: Vec<f32> = self.parameters.iter().flat_map(|(_, t)| t.values.to_vec()).take(seen).collect();
        ((), examples.iter().map(|&i| values.iter().map(|x| f64::from(x - i as f32).powi(2)).sum()).collect())
    }
    fn loss(&self, _: &[usize], outputs: &[f64]) -> BatchLoss<f64> {
        self.step.fetch_add(1, Ordering::Relaxed);
        let n = outputs.len() as f64;
        BatchLoss {
            loss: outputs.iter().sum::<f64>() / n,
            losses: outputs.to_vec(),
            gradients: vec![1.0 / n; outputs.len()],
            tokens: outputs.len() as u64,
            metrics: BTreeMap::new(),
        }
    }
    fn backward(&self, (): (), examples: &[usize], _: &[f64], grads: &mut Gradients) {
        for (name, tensor) in self.parameters.iter() {
            for (g, x) in grads.get_mut(name).iter_mut().zip(&tensor.values).take(2) {
                *g += examples.iter().map(|&i| x - i as f32).sum::<f32>();
            }
        }
    }
}

fn settings_of_training() -> TrainSettings {
    let sampling = Sampling::Sequential;
    TrainSettings {
        max_steps: Some(20),
        save_steps: Some(8),
        sampling,
        max_grad_norm: None,
        weight_decay: 0.0,
        ..train_settings()
    }
}

/// A body whose training has a difference planted where `planted` says so.
fn body(planted: impl Fn(&Context<'_>) -> Option<(u64, usize)>, context: &Context<'_>) -> Result<Vec<String>> {
    let mut task = Distance::new(planted(context));
    run(&mut task, &settings_of_training(), 1, &context.work, context.watch)?;
    let checkpoints = [8, 16, 20].map(|step| format!("checkpoint-{step}/model.safetensors"));
    Ok([CHAIN.to_owned(), "train_log.jsonl".into()].into_iter().chain(checkpoints).collect())
}

struct Quiet;

impl Listener for Quiet {
    fn on(&self, _: Event<'_>) {}
}

impl Watch for Quiet {
    fn advance(&self, _: u64, _: u64, _: &str) {}
}

fn own() -> Setting {
    Setting { isa: isa::active(), threads: 1, micro_batch: None, device: None }
}

/// Records a run of one cell, `recorded` saying what was planted then, and repeats it on two threads, `repeated` saying what is now.
fn compared(
    recorded: Option<(u64, usize)>,
    repeated: impl Fn(&Context<'_>) -> Option<(u64, usize)> + Sync,
    steps: Option<u64>,
) -> Comparison {
    compared_under(Setting { threads: 2, ..own() }, recorded, repeated, steps)
}

fn compared_under(
    other: Setting,
    recorded: Option<(u64, usize)>,
    repeated: impl Fn(&Context<'_>) -> Option<(u64, usize)> + Sync,
    steps: Option<u64>,
) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let cell = Cell { id: "train/x".into(), stage: Stage::Data, inputs: vec![], key: Digest::of_bytes(b"x") };
    let work = store.work_folder(cell.key).unwrap();
    let context = Context { store: &store, inputs: BTreeMap::new(), work, watch: &Quiet, threads: 1 };
    let outputs = body(|_| recorded, &context).unwrap();
    let clock = Clock { finished: String::new(), seconds: 0.0, threads: 1, device: None };
    let receipt = store.publish(&cell.id, "train", cell.key, &outputs, clock).unwrap();
    let repeater = Repeater {
        suite: &crate::suite::parse(include_str!("../../../suites/smoke.toml"), Path::new("smoke.toml")).unwrap(),
        store: &store,
        receipts: &[(cell.id.clone(), receipt)].into(),
        body: &|_, _, context| body(&repeated, context),
        own: own(),
        steps,
        scratch: &folder.path().join("scratch"),
        jobs: 2,
        listener: &Quiet,
        interrupted: &AtomicBool::new(false),
    };
    let mut comparisons = repeater.compare_all(std::slice::from_ref(&cell), &[other]).unwrap();
    assert_eq!(comparisons[0].setting, other);
    comparisons.remove(0)
}

fn parting(comparison: Comparison) -> Parting {
    match comparison.difference {
        Some(Difference::Training(parting)) => *parting,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_bits_are_no_difference() {
    let found = compared(None, |_| None, None);
    assert_eq!((found.steps, found.files, found.difference), (Some(20), 5, None));
    let found = compared(None, |_| None, Some(6));
    assert_eq!((found.steps, found.files, found.difference), (Some(6), 0, None));
}

#[test]
fn a_device_repeats_where_a_setting_says_so() {
    use crate::numerics::device::{self, Device};
    let Some(device) = Device::for_tests() else { return };
    let on_device = Setting { device: Some(device), ..own() };
    let planted_there = |_: &Context<'_>| device::active().is_some().then_some((3, 0));
    assert_eq!(compared(None, planted_there, None).difference, None);
    assert_eq!(compared_under(on_device, None, |_| None, None).difference, None);
    assert!(compared_under(on_device, None, planted_there, None).difference.is_some());
    assert!(on_device.to_string().starts_with(device.name()), "{on_device}");
}

#[test]
fn a_planted_difference_is_named_by_step_tensor_and_element() {
    // `b[0]` is seen by every loss: the weights part after step 4, the metrics at step 5.
    let found = parting(compared(None, |context| (context.threads == 2).then_some((4, 0)), None));
    assert_eq!((found.step, found.compared_with), (5, Some(own())));
    assert_ne!(found.recorded.loss, found.found.loss);
    let weights = found.weights.unwrap();
    let element = weights.element.unwrap();
    assert_eq!((weights.step, weights.tensor.as_str(), element.index), (4, "b", 0));
    assert!((element.found.value - element.expected.value - 0.25).abs() < 1e-3, "{element:?}");
}

#[test]
fn weights_that_part_long_before_any_metric_shows_it_are_found() {
    for planted in 1..SEEN_FROM {
        let found = parting(compared(None, |context| (context.threads == 2).then_some((planted, 2)), None));
        assert_eq!(found.step, SEEN_FROM);
        let weights = found.weights.unwrap();
        assert_eq!((weights.step, weights.tensor.as_str(), weights.element.unwrap().index), (planted, "b", 2));
    }
}

#[test]
fn a_record_that_this_machine_cannot_repeat_is_held_against_its_checkpoints() {
    let found = parting(compared(Some((9, 1)), |_| None, None));
    assert_eq!((found.step, found.compared_with), (10, None));
    let weights = found.weights.unwrap();
    assert_eq!((weights.step, weights.tensor.as_str(), weights.element.unwrap().index), (16, "b", 1));
}

#[test]
fn every_value_of_every_list_comes_up_and_not_their_product() {
    let isas = isa::native();
    let all = settings(&isas, &[1, 2, 4, 8, 16], &[2, 1]);
    assert_eq!(all.len(), 5);
    assert!(isas.iter().all(|isa| all.iter().any(|s| s.isa == *isa)));
    assert_eq!(all.iter().map(|s| s.threads).collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
    assert_eq!(all.iter().map(|s| s.micro_batch).collect::<Vec<_>>(), [2, 1, 2, 1, 2].map(Some));
}

#[test]
fn micro_batches_keep_the_optimizer_batch() {
    let text = include_str!("../../../suites/quickstart.toml");
    let suite = crate::suite::parse(text, Path::new("quickstart.toml")).unwrap();
    let sft = |size| {
        let settings = with_micro_batch(&suite, size).sft.unwrap();
        (settings.per_device_train_batch_size, settings.gradient_accumulation_steps)
    };
    assert_eq!([None, Some(1), Some(3), Some(8), Some(100)].map(sft), [(16, 1), (1, 16), (2, 8), (8, 2), (16, 1)]);
}
