//! Finished cells once more, under other thread counts, micro-batch splits and instruction sets, held bit by bit against what
//! the run recorded.
//!
//! Each cell is repeated by itself on the recorded outputs of its inputs, so a difference is named where it arises and not
//! again in everything that follows. Trainings are compared by their digest chains. Where one parts, the training is run again
//! up to that step on both sides, and the first tensor and element that differ are found in the weights.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde::{Serialize, Serializer};

use crate::data::files::read_jsonl;
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::model::{Adapter, Parameters};
use crate::numerics::device::{self, Device};
use crate::numerics::isa::{self, Isa};
use crate::run::execute::{Context, Event, Listener};
use crate::run::plan::Cell;
use crate::store::{Receipt, Store};
use crate::suite::Suite;
use crate::suite::settings::{JudgeSource, PolicySource, TrainSettings};
use crate::train::chain::{Link, first_difference};
use crate::train::weights_kept;
use crate::watch::Watch;

/// How a cell is computed, which must not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Setting {
    #[serde(serialize_with = "by_name")]
    pub isa: Isa,
    pub threads: usize,
    /// Examples that go through the model together in training, rounded down to a divisor of the optimizer batch; none: as the
    /// suite says.
    pub micro_batch: Option<usize>,
    /// In place of the instruction set.
    #[serde(serialize_with = "by_device_name", skip_serializing_if = "Option::is_none")]
    pub device: Option<&'static Device>,
}

fn by_device_name<S: Serializer>(device: &Option<&'static Device>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    device.map(Device::name).serialize(serializer)
}

fn by_name<S: Serializer>(isa: &Isa, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(isa.name())
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = self.device.map_or(self.isa.name(), Device::name);
        write!(f, "{on}, {} thread{}", self.threads, if self.threads == 1 { "" } else { "s" })?;
        self.micro_batch.map_or(Ok(()), |size| write!(f, ", micro-batch {size}"))
    }
}

/// As many settings as the longest list has values, so that every value of every list comes up: not their product, since each
/// of them is held against the recorded bits and so against all others.
pub fn settings(isas: &[Isa], threads: &[usize], micro_batches: &[usize]) -> Vec<Setting> {
    let count = isas.len().max(threads.len()).max(micro_batches.len());
    let setting = |i: usize| Setting {
        isa: isas[i % isas.len()],
        threads: threads[i % threads.len()],
        micro_batch: micro_batches.get(i % micro_batches.len().max(1)).copied(),
        device: None,
    };
    (0..count).map(setting).collect()
}

/// What a repetition of one cell under one setting showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub cell: String,
    pub setting: Setting,
    /// Optimizer steps that were compared, for cells that train.
    pub steps: Option<u64>,
    /// Files that were compared.
    pub files: usize,
    /// None: the same bits.
    pub difference: Option<Difference>,
}

/// Where a repetition first differs from the record.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// A file of a cell, or of a training whose chain is the same.
    File {
        name: String,
        /// Of a text file, from 1.
        line: Option<usize>,
    },
    Training(Box<Parting>),
}

/// Where a training's chain parts from the recorded one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parting {
    /// The first step whose link differs.
    pub step: u64,
    pub recorded: Link,
    pub found: Link,
    /// The setting whose weights the repetition's were compared with; none: the recorded checkpoint, since this machine doesn't
    /// give the recorded bits under the run's own setting either.
    pub compared_with: Option<Setting>,
    /// None: no weights differ up to that step (or, with the recorded ones, no checkpoint lies within the compared steps).
    pub weights: Option<WeightDifference>,
}

/// The first element, tensors in name order, that differs in two sets of weights.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightDifference {
    /// The weights after this step, the first of those compared to differ.
    pub step: u64,
    pub tensor: String,
    /// Row-major; none when names or shapes differ already.
    pub element: Option<Element>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Element {
    pub index: usize,
    pub expected: Value,
    pub found: Value,
}

/// A weight, with its bits for those who want to be sure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    pub value: f32,
    #[serde(serialize_with = "hexadecimal")]
    pub bits: u32,
}

fn hexadecimal<S: Serializer>(bits: &u32, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{bits:08x}"))
}

impl Value {
    fn of(value: f32) -> Self {
        Self { value, bits: value.to_bits() }
    }
}

/// What `stages::repeat_cell` is.
pub type Body<'a> = dyn Fn(&Suite, &Cell, &Context<'_>) -> Result<Vec<String>> + Sync + 'a;

/// A finished run and how to repeat its cells.
pub struct Repeater<'a> {
    pub suite: &'a Suite,
    pub store: &'a Store,
    /// Of all the run's cells, by id.
    pub receipts: &'a BTreeMap<String, Receipt>,
    /// What a cell does, for a suite whose batches are split as a setting says.
    pub body: &'a Body<'a>,
    /// The setting that the run is taken to have had, to find out where another one departs from it.
    pub own: Setting,
    /// Only the first steps of each training.
    pub steps: Option<u64>,
    /// An empty folder.
    pub scratch: &'a Path,
    pub jobs: usize,
    pub listener: &'a dyn Listener,
    pub interrupted: &'a AtomicBool,
}

/// The id under which a repetition is announced to the listener.
pub fn announced_id(cell: &Cell, setting: &Setting) -> String {
    format!("{} ({setting})", cell.id)
}

impl Repeater<'_> {
    /// Repeats every cell under every setting; comparisons come in that order.
    pub fn compare_all(&self, cells: &[Cell], settings: &[Setting]) -> Result<Vec<Comparison>> {
        let tasks: Vec<(&Setting, &Cell)> = settings.iter().flat_map(|s| cells.iter().map(move |c| (s, c))).collect();
        let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, tasks.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some((setting, cell)) = tasks.get(index) else { break };
                        let result = self.compare(cell, setting, &self.scratch.join(index.to_string()));
                        // After an error nothing that was not begun is worth beginning.
                        if result.is_err() {
                            next.store(tasks.len(), Ordering::Relaxed);
                        }
                        results.lock().unwrap_or_else(|e| e.into_inner()).insert(index, result);
                    }
                });
            }
        });
        results.into_inner().unwrap_or_else(|e| e.into_inner()).into_values().collect()
    }

    fn compare(&self, cell: &Cell, setting: &Setting, folder: &Path) -> Result<Comparison> {
        let announced = Cell { id: announced_id(cell, setting), ..cell.clone() };
        self.listener.on(Event::Started { cell: &announced, threads: setting.threads });
        let started = Instant::now();
        let receipt = self.receipt(&cell.id)?;
        let work = folder.join("whole");
        let outputs = self.repeat(cell, setting, &work, self.steps, &announced)?;
        let mut comparison = Comparison { cell: cell.id.clone(), setting: *setting, steps: None, files: 0, difference: None };
        if let Some(name) = receipt.chain() {
            let recorded: Vec<Link> = read_jsonl(&self.store.output(receipt, name)?)?;
            let found: Vec<Link> = read_jsonl(&work.join(name))?;
            comparison.steps = Some(recorded.len().min(found.len()) as u64);
            if let Some(at) = first_difference(&recorded, &found) {
                let parting = Side { repeater: self, cell, receipt, chain: name, announced: &announced, folder };
                let parting = parting.explain(setting, &recorded, found[at].clone(), at)?;
                comparison.difference = Some(Difference::Training(Box::new(parting)));
            }
        }
        if comparison.difference.is_none() {
            comparison.difference =
                outputs.iter().find_map(|name| self.file_difference(receipt, name, &work).transpose()).transpose()?;
            comparison.files = outputs.len();
        }
        remove(folder)?;
        self.listener.on(Event::Finished { cell: &announced, seconds: started.elapsed().as_secs_f64() });
        Ok(comparison)
    }

    fn receipt(&self, id: &str) -> Result<&Receipt> {
        self.receipts.get(id).ok_or_else(|| Error::unexpected(format!("the run has no cell `{id}`")))
    }

    /// Runs a cell in `work` as `setting` says, its training up to `last_step`. Returns the names of its outputs; none when it
    /// stopped there.
    fn repeat(
        &self,
        cell: &Cell,
        setting: &Setting,
        work: &Path,
        last_step: Option<u64>,
        announced: &Cell,
    ) -> Result<Vec<String>> {
        fs::create_dir_all(work).map_err(|e| Error::io("create", work, &e))?;
        let inputs = cell.inputs.iter().map(|id| Ok((id.clone(), self.receipt(id)?.clone()))).collect::<Result<_>>()?;
        let watch = RepeatWatch { repeater: self, announced, last_step };
        let threads = setting.threads;
        let context = Context { store: self.store, inputs, work: work.to_owned(), watch: &watch, threads };
        let suite = with_micro_batch(self.suite, setting.micro_batch);
        let pool = match setting.device {
            Some(device) => device::pool(Some(device), threads),
            None => isa::pool(setting.isa, threads),
        };
        let pool = pool.map_err(|e| Error::unexpected(format!("cannot start {threads} threads: {e}")))?;
        match pool.install(|| (self.body)(&suite, cell, &context)) {
            Err(error) if error.kind == Kind::Interrupted && last_step.is_some() && !watch.interrupted() => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    fn file_difference(&self, receipt: &Receipt, name: &str, work: &Path) -> Result<Option<Difference>> {
        let found = work.join(name);
        if receipt.outputs.get(name).map(|o| o.digest) == Some(Digest::of_file(&found)?) {
            return Ok(None);
        }
        let recorded = receipt.outputs.contains_key(name).then(|| self.store.output(receipt, name)).transpose()?;
        let line = recorded.map(|recorded| first_line(&recorded, &found)).transpose()?.flatten();
        Ok(Some(Difference::File { name: name.to_owned(), line }))
    }
}

/// The first line, from 1, in which two text files differ.
fn first_line(a: &Path, b: &Path) -> Result<Option<usize>> {
    let read = |path: &Path| fs::read(path).map_err(|e| Error::io("read", path, &e));
    let (a, b) = (read(a)?, read(b)?);
    let (Ok(a), Ok(b)) = (std::str::from_utf8(&a), std::str::from_utf8(&b)) else { return Ok(None) };
    let (mut a, mut b) = (a.split('\n'), b.split('\n'));
    Ok((1..)
        .find_map(|line| match (a.next(), b.next()) {
            (None, None) => Some(None),
            (a, b) => (a != b).then_some(Some(line)),
        })
        .flatten())
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).map_err(|e| Error::io("remove", folder, &e))
}

/// One cell whose repetition departed from the record.
struct Side<'a> {
    repeater: &'a Repeater<'a>,
    cell: &'a Cell,
    receipt: &'a Receipt,
    /// The name of the chain among the outputs; its folder is the training's.
    chain: &'a str,
    announced: &'a Cell,
    /// Where `whole` is the repetition and there is room for others.
    folder: &'a Path,
}

impl Side<'_> {
    /// `at`: the index of the first link that differs.
    fn explain(&self, setting: &Setting, recorded: &[Link], found: Link, at: usize) -> Result<Parting> {
        let (step, own) = (recorded[at].step, self.repeater.own);
        let mut parting = Parting { step, recorded: recorded[at].clone(), found, compared_with: None, weights: None };
        if *setting != own {
            let work = self.folder.join("own");
            self.repeater.repeat(self.cell, &own, &work, Some(step), self.announced)?;
            let links: Vec<Link> = read_jsonl(&work.join(self.chain))?;
            remove(&work)?;
            if links.get(..=at) == recorded.get(..=at) {
                parting.compared_with = Some(own);
                parting.weights = self.first_weights(&own, setting, step)?;
                return Ok(parting);
            }
        }
        parting.weights = self.recorded_weights(step)?;
        Ok(parting)
    }

    /// The recorded checkpoints from `step` on against those of the repetition.
    fn recorded_weights(&self, step: u64) -> Result<Option<WeightDifference>> {
        let checkpoint = |name: &str| {
            let (step, file) = name.strip_prefix("checkpoint-")?.split_once('/')?;
            ["model.safetensors", Adapter::WEIGHTS].contains(&file).then(|| step.parse().ok()).flatten()
        };
        let mut checkpoints: Vec<(u64, &String)> = self
            .receipt
            .outputs
            .keys()
            .filter_map(|name| Some((checkpoint(name)?, name)))
            .filter(|(at, _)| *at >= step)
            .collect();
        checkpoints.sort();
        for (step, name) in checkpoints {
            let found = self.folder.join("whole").join(name);
            if found.is_file() {
                let recorded = self.repeater.store.output(self.receipt, name)?;
                if let Some(difference) = first_element(step, &Parameters::read(&recorded)?, &Parameters::read(&found)?) {
                    return Ok(Some(difference));
                }
            }
        }
        Ok(None)
    }

    /// The first step up to `parted` after which the weights under two settings differ. Trainings that part stay apart, and
    /// the step itself is the likeliest, so that one and the one before are looked at first and then halves.
    fn first_weights(&self, own: &Setting, other: &Setting, parted: u64) -> Result<Option<WeightDifference>> {
        let after = |step: u64| -> Result<Option<WeightDifference>> {
            let weights = |setting: &Setting, name: &str| -> Result<Parameters> {
                let work = self.folder.join(name);
                self.repeater.repeat(self.cell, setting, &work, Some(step), self.announced)?;
                let (kept, weights) = weights_kept(&training_folder(&work, self.chain))?;
                remove(&work)?;
                match kept == step {
                    true => Ok(weights),
                    false => Err(Error::unexpected(format!("{} stopped after step {kept}, not {step}", self.cell.id))),
                }
            };
            Ok(first_element(step, &weights(own, "own")?, &weights(other, "other")?))
        };
        let Some(mut earliest) = after(parted)? else { return Ok(None) };
        // The weights are the same after `same` steps and differ after `earliest.step`.
        let (mut same, mut next) = (0, parted - 1);
        while same + 1 < earliest.step {
            match after(next)? {
                Some(difference) => earliest = difference,
                None => same = next,
            }
            next = same + (earliest.step - same) / 2;
        }
        Ok(Some(earliest))
    }
}

fn training_folder(work: &Path, chain: &str) -> PathBuf {
    work.join(chain).parent().expect("a chain stands in a folder").to_owned()
}

fn first_element(step: u64, expected: &Parameters, found: &Parameters) -> Option<WeightDifference> {
    let (mut a, mut b) = (expected.iter(), found.iter());
    loop {
        let (a, b) = match (a.next(), b.next()) {
            (None, None) => return None,
            (a, b) => (a, b),
        };
        let name = a.or(b).map(|(name, _)| name.to_owned()).unwrap_or_default();
        let differs = |element| Some(WeightDifference { step, tensor: name.clone(), element });
        match (a, b) {
            (Some((x, t)), Some((y, u))) if x == y && t.shape == u.shape => {
                let differing = |(x, y): (&f32, &f32)| x.to_bits() != y.to_bits();
                if let Some(index) = t.values.iter().zip(&u.values).position(differing) {
                    let (expected, found) = (Value::of(t.values[index]), Value::of(u.values[index]));
                    return differs(Some(Element { index, expected, found }));
                }
            }
            _ => return differs(None),
        }
    }
}

/// The suite with every optimizer batch cut into micro-batches of `size` examples, rounded down to a divisor of the batch.
fn with_micro_batch(suite: &Suite, size: Option<usize>) -> Suite {
    let mut suite = suite.clone();
    let Some(size) = size else { return suite };
    let split = |settings: &mut TrainSettings| {
        let batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps;
        let micro_batch = (1..=size.min(batch)).rev().find(|size| batch.is_multiple_of(*size)).unwrap_or(batch);
        settings.per_device_train_batch_size = micro_batch;
        settings.gradient_accumulation_steps = batch / micro_batch;
    };
    suite.sft.iter_mut().for_each(split);
    for variant in &mut suite.variants {
        if let PolicySource::Train(settings) = &mut variant.policy {
            split(settings);
        }
    }
    for judge in &mut suite.judges {
        if let JudgeSource::Train(settings) = &mut judge.source {
            split(settings);
        }
    }
    suite
}

struct RepeatWatch<'a> {
    repeater: &'a Repeater<'a>,
    announced: &'a Cell,
    last_step: Option<u64>,
}

impl Watch for RepeatWatch<'_> {
    fn advance(&self, done: u64, total: u64, note: &str) {
        self.repeater.listener.on(Event::Progress { cell: self.announced, done, total, note });
    }

    fn interrupted(&self) -> bool {
        self.repeater.interrupted.load(Ordering::Relaxed)
    }

    fn last_step(&self) -> Option<u64> {
        self.last_step
    }
}

#[cfg(test)]
mod tests;
