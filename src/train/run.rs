//! The one training loop: SFT, preferences and judges all go through it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::chain::Chain;
use super::evaluation::{Evaluation, evaluate, verdict};
use super::metrics::{Lines, Metrics};
use super::optimizer::{self, Optimizer};
use super::schedule::{Plan, learning_rate};
use super::state;
use super::task::{BatchLoss, Learner, Task};
use super::tensorboard::Events;
use super::timing::{self, Timing};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::model::{Adapter, Gradients, Parameters};
use crate::store::write_atomically_with;
use crate::suite::settings::TrainSettings;
use crate::watch::Watch;

/// A killed run loses at most this many steps.
const STATE_EVERY: u64 = 50;

/// How many example ids an error message names.
const IDS_SHOWN: usize = 8;

/// The folder of the weights that training came to, in its work folder, where it ends with better ones from before.
pub const LAST: &str = "last";

/// The file name of the evaluations' log, in the work folder of a training that has them.
pub const EVAL_LOG: &str = "eval_log.jsonl";

/// Trains `task` to the end and returns the metrics of every step.
///
/// In the folder `work` stand, afterwards and in between:
/// - `train_log.jsonl`: a line a step;
/// - `eval_log.jsonl`: a line an evaluation, where `eval_steps` asks for them;
/// - `chain.jsonl`: the digest chain, a link a step;
/// - `timing.jsonl` and `tensorboard`: seconds and tokens a second of each step, and an event file that TensorBoard shows: outside
///   everything that digests cover;
/// - `checkpoint-<step>/model.safetensors` (`adapter_model.safetensors` where an adapter is trained): the weights after every
///   `save_steps` steps and after the last (of these the latest `save_total_limit`); where evaluations decide which weights training
///   ends with, those alone (`checkpoint_steps`);
/// - `last`: the weights after the last step, where the best ones are others (`load_best_model_at_end`);
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
    let mut optimizer = Optimizer::new(settings, task.learner().parameters());
    let (mut past, mut checkpoints) = (Past::default(), BTreeMap::new());
    if let Some(state) = state::load(work, identity, watch)? {
        past = Past { metrics: state.metrics, evaluations: state.evaluations };
        checkpoints = state.checkpoints;
        restore(task, &mut optimizer, state.tensors, work)?;
        past.metrics.last().into_iter().for_each(|last| task.recall(last));
    }
    let mut log = Lines::open(work.join("train_log.jsonl"), &past.metrics)?;
    let mut eval_log = settings.evaluation.eval_steps.map(|_| Lines::open(work.join(EVAL_LOG), &past.evaluations)).transpose()?;
    let mut events = Events::open(work, &past.metrics, &past.evaluations)?;
    let mut timings = timing::open(work, past.steps())?;
    let mut chain = Chain::open(work, &past.metrics, checkpoints)?;
    let mut grads = Gradients::of(task.learner().parameters());
    while !past.is_over(settings, &plan) {
        let enough = watch.last_step().is_some_and(|last| past.steps() >= last);
        if enough || watch.interrupted() {
            save_state(work, identity, &past, &chain, task, &optimizer)?;
            watch.check()?;
            return Err(Error::new(Kind::Interrupted, format!("stopped after step {}, as asked", past.steps())));
        }
        let started = Instant::now();
        task.learner_mut().enter_step(seed, past.metrics.len() as u64 + 1);
        let row = step(task, settings, &plan, &mut optimizer, &mut grads, &past.metrics)?;
        task.learner_mut().leave_step();
        let tokens = row.num_tokens - past.metrics.last().map_or(0, |m| m.num_tokens);
        let timing = Timing::of(row.step, tokens, started.elapsed());
        log.append(&row)?;
        timings.append(&timing)?;
        events.step(&row)?;
        watch.advance(row.step, plan.total, &row.note(timing.tokens_per_second));
        task.recall(&row);
        past.metrics.push(row.clone());
        if let Some(eval_log) = eval_log.as_mut().filter(|_| is_due(settings, &plan, row.step)) {
            let together = settings.per_device_train_batch_size;
            let evaluation = evaluate(task, &settings.evaluation, together, row.step, row.epoch)?;
            eval_log.append(&evaluation)?;
            events.evaluation(&evaluation)?;
            past.evaluations.push(evaluation);
        }
        let checkpoint = past.checkpoint(settings, &plan).map(|step| checkpoint_folder(work, step));
        let save = |folder: PathBuf| save_checkpoint(&folder, row.step, task.learner().weights_file(), &task.learner().kept());
        let weights = checkpoint.map(save).transpose()?;
        chain.extend(&row, weights)?;
        if weights.is_some() || past.is_over(settings, &plan) || row.step.is_multiple_of(STATE_EVERY) {
            save_state(work, identity, &past, &chain, task, &optimizer)?;
            past.drop_old_checkpoints(settings, work, chain.checkpoints())?;
        }
    }
    if settings.evaluation.load_best_model_at_end {
        let best = verdict(&settings.evaluation, &past.evaluations).best.expect("the last step is evaluated");
        if best != past.steps() {
            let learner = task.learner();
            save_checkpoint(&work.join(LAST), past.steps(), learner.weights_file(), &learner.kept())?;
        }
        restore_best(task, work, best, plan.total, chain.checkpoints()[&best])?;
    }
    Ok(past.metrics)
}

/// What a training has behind it.
#[derive(Default)]
struct Past {
    metrics: Vec<Metrics>,
    evaluations: Vec<Evaluation>,
}

impl Past {
    fn steps(&self) -> u64 {
        self.metrics.len() as u64
    }

    fn is_over(&self, settings: &TrainSettings, plan: &Plan) -> bool {
        self.steps() >= plan.total || verdict(&settings.evaluation, &self.evaluations).ends
    }

    /// The step whose name the present weights are kept under, if they are.
    fn checkpoint(&self, settings: &TrainSettings, plan: &Plan) -> Option<u64> {
        let (done, over) = (self.steps(), self.is_over(settings, plan));
        if settings.evaluation.load_best_model_at_end {
            return (verdict(&settings.evaluation, &self.evaluations).best == Some(done)).then_some(done);
        }
        if settings.evaluation.selects() {
            return over.then_some(plan.total);
        }
        let regular = settings.save_steps.is_some_and(|every| every > 0 && done.is_multiple_of(every));
        (over || regular).then_some(done)
    }

    /// Removes checkpoints that are neither among the latest `save_total_limit` nor the best. Called when the state that goes on
    /// without them is on disk.
    fn drop_old_checkpoints(&self, settings: &TrainSettings, work: &Path, saved: &BTreeMap<u64, Digest>) -> Result<()> {
        let e = &settings.evaluation;
        let limit = if e.load_best_model_at_end { Some(1) } else { e.save_total_limit };
        let Some(limit) = limit else { return Ok(()) };
        // With `load_best_model_at_end` only a best one is saved, so that the latest is the best.
        for &step in saved.keys().rev().skip(limit) {
            let folder = checkpoint_folder(work, step);
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(|e| Error::io("remove", &folder, &e))?;
            }
        }
        Ok(())
    }
}

/// Whether held-out examples are measured after the step that was just taken.
fn is_due(settings: &TrainSettings, plan: &Plan, done: u64) -> bool {
    settings.evaluation.eval_steps.is_some_and(|every| done.is_multiple_of(every) || done == plan.total)
}

/// Ends training with the weights of its best evaluation, under the name of the plan's last step.
fn restore_best<T: Task>(task: &mut T, work: &Path, best: u64, last: u64, digest: Digest) -> Result<()> {
    let (from, to) = (checkpoint_folder(work, best), checkpoint_folder(work, last));
    // A run that was finished before has moved it already.
    if from != to && from.exists() {
        if to.exists() {
            fs::remove_dir_all(&to).map_err(|e| Error::io("remove", &to, &e))?;
        }
        fs::rename(&from, &to).map_err(|e| Error::io("rename", &from, &e))?;
    }
    let path = to.join(task.learner().weights_file());
    let bytes = fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    let damaged = || {
        Error::input(format!("these are not the weights that the best evaluation, after step {best}, was made with"))
            .in_file(&path)
            .help(format!("the file was damaged; remove the folder {} to train from the start", work.display()))
    };
    if Digest::of_bytes(&bytes) != digest {
        return Err(damaged());
    }
    match copy(&Parameters::from_safetensors(&bytes)?, task.learner_mut().parameters_mut()) {
        true => Ok(()),
        false => Err(damaged()),
    }
}

/// The steps by which `run` names the checkpoints that it leaves, ascending. Where evaluations decide which weights training ends with,
/// there is one, named by the last step of the plan.
pub fn checkpoint_steps(settings: &TrainSettings, examples: usize) -> Result<Vec<u64>> {
    let total = Plan::of(settings, examples, 0)?.total;
    if settings.evaluation.selects() {
        return Ok(vec![total]);
    }
    let mut steps: Vec<u64> = match settings.save_steps {
        Some(every) if every > 0 => (1..=total / every).map(|i| i * every).collect(),
        _ => Vec::new(),
    };
    if steps.last() != Some(&total) {
        steps.push(total);
    }
    let kept = settings.evaluation.save_total_limit.unwrap_or(steps.len());
    Ok(steps.split_off(steps.len().saturating_sub(kept)))
}

/// Where `run` puts the checkpoint of a step.
pub fn checkpoint_folder(work: &Path, step: u64) -> PathBuf {
    work.join(format!("checkpoint-{step}"))
}

/// The weights that `run` left after `step`.
pub fn checkpoint(work: &Path, step: u64) -> Result<Parameters> {
    let folder = checkpoint_folder(work, step);
    let file = if Adapter::is_in(&folder) { Adapter::WEIGHTS } else { "model.safetensors" };
    Parameters::read(&folder.join(file))
}

/// One step: an update, or several on parts of what was begun, whose metrics are averaged.
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
    let begun = task.begin(plan.seed, done + 1, &batch)?;
    let updates = task.updates();
    let mut rows = Vec::with_capacity(updates);
    for update in 0..updates {
        let part = task.part(plan.seed, done + 1, update, &batch);
        grads.clear();
        let first = done == 0 && update == 0;
        let result = gradients(task, &part, plan.micro_batch, first, grads)?;
        let grads = grads.total();
        let row = Metrics {
            step: done + 1,
            epoch: plan.epoch(done + 1),
            loss: result.loss,
            grad_norm: optimizer::grad_norm(grads),
            learning_rate: learning_rate(settings, done, plan.total),
            num_tokens: result.tokens,
            values: result.metrics,
        };
        if let Some(name) = row.not_finite() {
            return Err(diverged(task, &row, name, &part, &result.losses, metrics.last()));
        }
        if first {
            check_every_gradient(task, grads)?;
        }
        let number = done * updates as u64 + update as u64 + 1;
        optimizer.update(task.learner_mut().parameters_mut(), grads, row.learning_rate, row.grad_norm, number);
        rows.push(row);
    }
    task.learner_mut().updated(done + 1);
    let mut row = Metrics::mean(rows);
    row.num_tokens += metrics.last().map_or(0, |m| m.num_tokens);
    row.values.extend(begun);
    match row.not_finite() {
        None => Ok(row),
        Some(name) => Err(diverged(task, &row, name, &batch, &[], metrics.last())),
    }
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
fn check_every_gradient<T: Task>(task: &T, grads: &Parameters) -> Result<()> {
    let may_rest = |name: &str| task.learner().may_rest_at_first(name) || task.is_free_of(name);
    let rests = |name: &str, values: &[f32]| values.iter().all(|&g| g == 0.0) && !may_rest(name);
    match grads.iter().find(|(name, tensor)| rests(name, &tensor.values)) {
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

fn save_state<T: Task>(work: &Path, identity: Digest, past: &Past, chain: &Chain, task: &T, optimizer: &Optimizer) -> Result<()> {
    let weights = std::iter::once(task.learner().parameters());
    let tensors: Vec<&Parameters> = weights.chain(optimizer.moments()).chain(task.learner().moving_reference()).collect();
    state::save(work, identity, &past.metrics, &past.evaluations, chain.checkpoints(), &tensors)
}

/// Returns the digest of the file. `step`: after which the weights stand.
fn save_checkpoint(folder: &Path, step: u64, file: &str, weights: &Parameters) -> Result<Digest> {
    if let Some((name, _)) = weights.iter().find(|(_, tensor)| tensor.values.iter().any(|w| !w.is_finite())) {
        return Err(Error::unexpected(format!("after step {step} the tensor `{name}` has values that are not finite"))
            .help("lower learning_rate or set max_grad_norm"));
    }
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    write_atomically_with(&folder.join(file), |file| Digest::of_written(file, |file| weights.write_safetensors(file)))
}

fn restore<T: Task>(task: &mut T, optimizer: &mut Optimizer, tensors: Vec<Parameters>, work: &Path) -> Result<()> {
    let mut tensors = tensors.into_iter();
    let fits = tensors.next().is_some_and(|weights| copy(&weights, task.learner_mut().parameters_mut()))
        && optimizer.moments_mut().all(|moment| tensors.next().is_some_and(|saved| copy(&saved, moment)))
        && task
            .learner_mut()
            .moving_reference_mut()
            .is_none_or(|moving| tensors.next().is_some_and(|saved| copy(&saved, moving)))
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
