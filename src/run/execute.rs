//! Executes a plan: cells whose inputs are finished run side by side, each in a thread pool of its own.
//!
//! The runner emits events and never prints. Thread counts and the order of cells never change a bit, so cells take what
//! threads are free: all of them when a cell stands alone, a share when several can run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::numerics::device::{self, Device};
use crate::run::plan::{Cell, Plan};
use crate::store::{Clock, Receipt, Store};
use crate::watch::Watch;

/// What happens during a run, for displays.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The cell was finished before; nothing was done.
    Cached {
        cell: &'a Cell,
    },
    Started {
        cell: &'a Cell,
        threads: usize,
    },
    /// Another process works on the cell.
    Waiting {
        cell: &'a Cell,
    },
    Progress {
        cell: &'a Cell,
        done: u64,
        total: u64,
        note: &'a str,
    },
    Warning {
        cell: &'a Cell,
        message: &'a str,
    },
    Finished {
        cell: &'a Cell,
        seconds: f64,
    },
}

pub trait Listener: Sync {
    fn on(&self, event: Event<'_>);
}

/// Where and how fast, never what.
#[derive(Debug, Clone)]
pub struct Options {
    pub threads: usize,
    pub jobs: usize,
    /// What cells run on; none: the CPU. A device has one cell at a time.
    pub device: Option<&'static Device>,
}

impl Options {
    /// Cells that run side by side.
    fn side_by_side(&self) -> usize {
        if self.device.is_some() { 1 } else { self.jobs.clamp(1, self.threads.max(1)) }
    }
}

/// What a cell's body sees: its inputs' receipts and its scratch folder. It returns the names of its outputs there.
pub struct Context<'a> {
    pub store: &'a Store,
    pub inputs: BTreeMap<String, Receipt>,
    pub work: PathBuf,
    pub watch: &'a dyn Watch,
    pub threads: usize,
}

impl Context<'_> {
    /// The receipt of an input.
    pub fn input(&self, id: &str) -> Result<&Receipt> {
        self.inputs.get(id).ok_or_else(|| Error::unexpected(format!("the plan gives this cell no input `{id}`")))
    }

    /// The verified path of a file of an input.
    pub fn file(&self, id: &str, name: &str) -> Result<PathBuf> {
        self.store.output(self.input(id)?, name)
    }

    /// The verified folder of an input.
    pub fn folder(&self, id: &str) -> Result<PathBuf> {
        self.store.verified_folder(self.input(id)?)
    }
}

pub type Body<'a> = dyn Fn(&Cell, &Context<'_>) -> Result<Vec<String>> + Sync + 'a;

/// Runs every cell of the plan that is not finished yet; gives all receipts by cell id.
pub fn execute(
    plan: &Plan,
    store: &Store,
    options: &Options,
    body: &Body<'_>,
    listener: &dyn Listener,
    interrupted: &AtomicBool,
) -> Result<BTreeMap<String, Receipt>> {
    let runner = Runner { plan, store, options, body, listener, interrupted, state: Mutex::default(), changed: Condvar::new() };
    runner.take_finished()?;
    std::thread::scope(|scope| {
        for _ in 0..options.side_by_side() {
            scope.spawn(|| runner.work());
        }
    });
    let state = runner.state.into_inner().unwrap_or_else(|e| e.into_inner());
    match state.error {
        Some(error) => Err(error),
        None => Ok(state.receipts),
    }
}

#[derive(Default)]
struct State {
    receipts: BTreeMap<String, Receipt>,
    running: Vec<usize>,
    error: Option<Error>,
}

struct Runner<'a> {
    plan: &'a Plan,
    store: &'a Store,
    options: &'a Options,
    body: &'a Body<'a>,
    listener: &'a dyn Listener,
    interrupted: &'a AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Runner<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn take_finished(&self) -> Result<()> {
        for cell in &self.plan.cells {
            if let Some(receipt) = self.store.receipt(cell.key)? {
                self.listener.on(Event::Cached { cell });
                self.lock().receipts.insert(cell.id.clone(), receipt);
            }
        }
        Ok(())
    }

    /// One worker: takes ready cells until none is left.
    fn work(&self) {
        while let Some((index, threads)) = self.next() {
            let cell = &self.plan.cells[index];
            // A panic in one cell must not leave the other workers waiting for it.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run_cell(cell, threads)))
                .unwrap_or_else(|_| Err(Error::unexpected(format!("cell {} broke off; this is a defect of dpo-eval", cell.id))));
            let mut state = self.lock();
            state.running.retain(|&i| i != index);
            match outcome {
                Ok(receipt) => drop(state.receipts.insert(cell.id.clone(), receipt)),
                // The first error is the cause; later ones come from stopping.
                Err(error) => drop(state.error.get_or_insert(error)),
            }
            drop(state);
            self.changed.notify_all();
        }
        self.changed.notify_all();
    }

    /// Waits for a cell that can run, and decides how many threads it gets.
    fn next(&self) -> Option<(usize, usize)> {
        let mut state = self.lock();
        loop {
            if state.error.is_some() {
                return None;
            }
            let open: Vec<usize> = (0..self.plan.cells.len())
                .filter(|i| !state.running.contains(i) && !state.receipts.contains_key(&self.plan.cells[*i].id))
                .collect();
            if open.is_empty() {
                return None;
            }
            let ready = |i: &usize| self.plan.cells[*i].inputs.iter().all(|id| state.receipts.contains_key(id));
            let candidates: Vec<usize> = open.into_iter().filter(ready).collect();
            if let Some(&index) = candidates.first() {
                let alone = candidates.len() == 1 && state.running.is_empty();
                let share = self.options.threads / self.options.side_by_side();
                state.running.push(index);
                return Some((index, if alone { self.options.threads } else { share }.max(1)));
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn run_cell(&self, cell: &Cell, threads: usize) -> Result<Receipt> {
        let _lease = self.store.lease(cell.key, || self.listener.on(Event::Waiting { cell }))?;
        // Another process may have finished it while we waited.
        if let Some(receipt) = self.store.receipt(cell.key)? {
            self.listener.on(Event::Cached { cell });
            return Ok(receipt);
        }
        self.listener.on(Event::Started { cell, threads });
        let started = Instant::now();
        let watch = CellWatch { runner: self, cell };
        let inputs = {
            let state = self.lock();
            cell.inputs.iter().map(|id| (id.clone(), state.receipts[id].clone())).collect()
        };
        let context = Context { store: self.store, inputs, work: self.store.work_folder(cell.key)?, watch: &watch, threads };
        let pool = device::pool(self.options.device, threads)
            .map_err(|e| Error::unexpected(format!("cannot start {threads} threads: {e}")))?;
        let outputs = pool.install(|| (self.body)(cell, &context))?;
        let seconds = started.elapsed().as_secs_f64();
        let clock = Clock {
            finished: jiff::Timestamp::now().to_string(),
            seconds,
            threads,
            device: self.options.device.map(|device| device.name().to_owned()),
        };
        let receipt = self.store.publish(&cell.id, cell.stage.name(), cell.key, &outputs, clock)?;
        self.listener.on(Event::Finished { cell, seconds });
        Ok(receipt)
    }
}

struct CellWatch<'a> {
    runner: &'a Runner<'a>,
    cell: &'a Cell,
}

impl Watch for CellWatch<'_> {
    fn advance(&self, done: u64, total: u64, note: &str) {
        self.runner.listener.on(Event::Progress { cell: self.cell, done, total, note });
    }

    fn warn(&self, message: &str) {
        self.runner.listener.on(Event::Warning { cell: self.cell, message });
    }

    /// Cells also stop, keeping what they have, when another cell failed.
    fn interrupted(&self) -> bool {
        self.runner.interrupted.load(Ordering::Relaxed) || self.runner.lock().error.is_some()
    }
}
