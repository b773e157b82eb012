//! The one training loop: SFT, preferences and judges all go through it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::chain::Chain;
use super::metrics::{Lines, Metrics};
use super::optimizer::{self, Optimizer};
use super::schedule::{Plan, learning_rate};
use super::state;
use super::task::{BatchLoss, Task};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::model::{Gradients, Parameters};
use crate::store::write_atomically_with;
use crate::suite::settings::TrainSettings;
use crate::watch::Watch;

/// A killed run loses at most this many steps.
const STATE_EVERY: u64 = 50;

/// How many example ids an error message names.
const IDS_SHOWN: usize = 8;

/// Trains `task` to the end and returns the metrics of every step.
///
/// In the folder `work` stand, afterwards and in between:
/// - `train_log.jsonl`: a line a step;
/// - `chain.jsonl`: the digest chain, a link a step;
/// - `checkpoint-<step>/model.safetensors`: the weights after every `save_steps` steps and after the last;
/// - `state`: what a run that was killed resumes from. The same call with the same folder goes on where it stopped and
///   ends with the same bits; a call on a finished folder only restores the weights.
///
/// Where `watch` wants the beginning only, the call ends after that step as if it had been interrupted.
///
/// A loss or gradient that is not finite is an error, and the files stay as they were.
pub fn run<T: Task>(task: &mut T, settings: &TrainSettings, seed: u64, work: &Path, watch: &dyn Watch) -> Result<Vec<Metrics>> {
    let plan = Plan::of(settings, task.examples(), seed)?;
    let identity = Digest::of_value(&(task.identity(), settings, seed));
    fs::create_dir_all(work).map_err(|e| Error::io("create", work, &e))?;
    let mut optimizer = Optimizer::new(settings, task.parameters());
    let (mut metrics, mut checkpoints) = (Vec::new(), BTreeMap::new());
    if let Some(state) = state::load(work, identity, watch)? {
        (metrics, checkpoints) = (state.metrics, state.checkpoints);
        restore(task, &mut optimizer, state.tensors, work)?;
    }
    let mut log = Lines::open(work.join("train_log.jsonl"), &metrics)?;
    let mut chain = Chain::open(work, &metrics, checkpoints)?;
    let mut grads = Gradients::of(task.parameters());
    while (metrics.len() as u64) < plan.total {
        let enough = watch.last_step().is_some_and(|last| metrics.len() as u64 >= last);
        if enough || watch.interrupted() {
            save_state(work, identity, &metrics, &chain, task.parameters(), &optimizer)?;
            watch.check()?;
            return Err(Error::new(Kind::Interrupted, format!("stopped after step {}, as asked", metrics.len())));
        }
        let row = step(task, settings, &plan, &mut optimizer, &mut grads, &metrics)?;
        log.append(&row)?;
        watch.advance(row.step, plan.total, &row.note());
        let done = row.step;
        let is_checkpoint =
            done == plan.total || settings.save_steps.is_some_and(|every| every > 0 && done.is_multiple_of(every));
        let weights = if is_checkpoint { Some(save_checkpoint(work, done, task.parameters())?) } else { None };
        chain.extend(&row, weights)?;
        metrics.push(row);
        if is_checkpoint || done.is_multiple_of(STATE_EVERY) {
            save_state(work, identity, &metrics, &chain, task.parameters(), &optimizer)?;
        }
    }
    Ok(metrics)
}

/// The steps after which `run` leaves a checkpoint, ascending.
pub fn checkpoint_steps(settings: &TrainSettings, examples: usize) -> Result<Vec<u64>> {
    let total = Plan::of(settings, examples, 0)?.total;
    let mut steps: Vec<u64> = match settings.save_steps {
        Some(every) if every > 0 => (1..=total / every).map(|i| i * every).collect(),
        _ => Vec::new(),
    };
    if steps.last() != Some(&total) {
        steps.push(total);
    }
    Ok(steps)
}

/// Where `run` puts the checkpoint of a step.
pub fn checkpoint_folder(work: &Path, step: u64) -> PathBuf {
    work.join(format!("checkpoint-{step}"))
}

/// The weights that `run` left after `step`.
pub fn checkpoint(work: &Path, step: u64) -> Result<Parameters> {
    let path = checkpoint_folder(work, step).join("model.safetensors");
    let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    Parameters::from_safetensors(&bytes).map_err(|e| e.in_file(path))
}

fn step<T: Task>(
    task: &mut T,
    settings: &TrainSettings,
    plan: &Plan,
    optimizer: &mut Optimizer,
    grads: &mut Gradients,
    metrics: &[Metrics],
) -> Result<Metrics> {
    let done = metrics.len() as u64;
    let batch = plan.batch(done);
    grads.clear();
    let result = gradients(task, &batch, plan.micro_batch, done == 0, grads)?;
    let grads = grads.total();
    let row = Metrics {
        step: done + 1,
        epoch: plan.epoch(done + 1),
        loss: result.loss,
        grad_norm: optimizer::grad_norm(grads),
        learning_rate: learning_rate(settings, done, plan.total),
        num_tokens: metrics.last().map_or(0, |m| m.num_tokens) + result.tokens,
        values: result.metrics,
    };
    if let Some(name) = row.not_finite() {
        return Err(diverged(task, &row, name, &batch, &result.losses, metrics.last()));
    }
    if done == 0 {
        check_every_gradient(grads)?;
    }
    optimizer.update(task.parameters_mut(), grads, row.learning_rate, row.grad_norm, row.step);
    Ok(row)
}

/// Loss and gradients of one optimizer batch (see `Task`). Adds to `grads`.
fn gradients<T: Task>(
    task: &T,
    batch: &[usize],
    micro_batch: usize,
    first: bool,
    grads: &mut Gradients,
) -> Result<BatchLoss<T::Gradient>> {
    let (mut outputs, mut kept) = (Vec::with_capacity(batch.len()), None);
    for examples in batch.chunks(micro_batch) {
        let (pass, found) = task.forward(examples);
        outputs.extend(found);
        kept = (examples.len() == batch.len()).then_some(pass);
    }
    let result = task.loss(batch, &outputs);
    if first {
        task.check_first_step(batch, &outputs, result.loss)?;
    }
    if !result.loss.is_finite() {
        return Ok(result);
    }
    for (examples, gradients) in batch.chunks(micro_batch).zip(result.gradients.chunks(micro_batch)) {
        let pass = kept.take().unwrap_or_else(|| task.forward(examples).0);
        task.backward(pass, examples, gradients, grads);
    }
    Ok(result)
}

/// A tensor without any gradient was forgotten in a backward pass, or cut off from the loss.
fn check_every_gradient(grads: &Parameters) -> Result<()> {
    match grads.iter().find(|(_, tensor)| tensor.values.iter().all(|&g| g == 0.0)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::unexpected(format!("the tensor `{name}` received no gradient at the first step"))
            .help("this is a defect of the model or of the objective; please report it with the suite file")),
    }
}

fn diverged<T: Task>(task: &T, row: &Metrics, name: &str, batch: &[usize], losses: &[f64], last: Option<&Metrics>) -> Error {
    let guilty: Vec<usize> = batch.iter().zip(losses).filter(|(_, loss)| !loss.is_finite()).map(|(&i, _)| i).collect();
    let blamed = if guilty.is_empty() { batch } else { &guilty };
    let mut ids: Vec<String> = blamed.iter().take(IDS_SHOWN).map(|&i| task.example_id(i)).collect();
    if blamed.len() > IDS_SHOWN {
        ids.push(format!("{} more", blamed.len() - IDS_SHOWN));
    }
    let last = match last {
        Some(m) => format!("the last finite step was {} with loss {} and grad_norm {}", m.step, m.loss, m.grad_norm),
        None => "no step before it was finite".to_owned(),
    };
    Error::new(Kind::Unexpected, format!("step {}: {name} is not finite (examples {}); {last}", row.step, ids.join(", ")))
        .help("lower learning_rate, set max_grad_norm, or look at these examples; the files up to the last finite step are kept")
}

fn save_state(
    work: &Path,
    identity: Digest,
    metrics: &[Metrics],
    chain: &Chain,
    weights: &Parameters,
    optimizer: &Optimizer,
) -> Result<()> {
    let tensors: Vec<&Parameters> = std::iter::once(weights).chain(optimizer.moments()).collect();
    state::save(work, identity, metrics, chain.checkpoints(), &tensors)
}

/// Returns the digest of the file.
fn save_checkpoint(work: &Path, step: u64, weights: &Parameters) -> Result<Digest> {
    if let Some((name, _)) = weights.iter().find(|(_, tensor)| tensor.values.iter().any(|w| !w.is_finite())) {
        return Err(Error::unexpected(format!("after step {step} the tensor `{name}` has values that are not finite"))
            .help("lower learning_rate or set max_grad_norm"));
    }
    let folder = checkpoint_folder(work, step);
    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
    write_atomically_with(&folder.join("model.safetensors"), |file| {
        Digest::of_written(file, |file| weights.write_safetensors(file))
    })
}

fn restore<T: Task>(task: &mut T, optimizer: &mut Optimizer, tensors: Vec<Parameters>, work: &Path) -> Result<()> {
    let mut tensors = tensors.into_iter();
    let fits = tensors.next().is_some_and(|weights| copy(&weights, task.parameters_mut()))
        && optimizer.moments_mut().all(|moment| tensors.next().is_some_and(|saved| copy(&saved, moment)))
        && tensors.next().is_none();
    if fits {
        Ok(())
    } else {
        Err(Error::input(format!("the training state in {} doesn't fit this model", work.display()))
            .help("remove that folder to train from the start"))
    }
}

/// False when names or shapes differ.
fn copy(from: &Parameters, to: &mut Parameters) -> bool {
    let same = from.iter().map(|(n, t)| (n, &t.shape)).eq(to.iter().map(|(n, t)| (n, &t.shape)));
    if same {
        *to = from.clone();
    }
    same
}
