//! `dpo-eval runs …`: what the store holds.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::args::{Common, RunsCommand};
use crate::cli::{Code, print};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::store::{RunRecord, Store};

pub fn run(command: &RunsCommand, common: &Common) -> Result<Code> {
    let store = Store::open(&common.store)?;
    let runs = store.runs()?;
    match command {
        RunsCommand::List => {
            if runs.is_empty() {
                return Err(Error::new(Kind::NothingSelected, format!("{} holds no finished run", common.store.display())));
            }
            let line = |r: &RunRecord| format!("{}\t{}\t{:.1} s\t{}\n", r.id, r.finished, r.seconds, r.report.display());
            print(&runs.iter().map(line).collect::<String>())?;
        }
        RunsCommand::Show { id } => {
            let found = runs.iter().find(|r| r.id.starts_with(id.as_str()));
            let run = found.ok_or_else(|| {
                Error::new(Kind::NothingSelected, format!("there is no run `{id}`")).help("`dpo-eval runs list` shows them")
            })?;
            for (cell, key) in &run.cells {
                let line = match store.receipt(*key)? {
                    Some(r) => format!(
                        "{cell}\t{}\t{:.1} s\t{} threads\t{}\n",
                        key.short(),
                        r.clock.seconds,
                        r.clock.threads,
                        r.clock.finished
                    ),
                    None => format!("{cell}\t{}\tgone\n", key.short()),
                };
                print(&line)?;
            }
        }
        RunsCommand::Prune { keep } => prune(&store, &runs, *keep)?,
    }
    Ok(Code::Pass)
}

fn prune(store: &Store, runs: &[RunRecord], keep: usize) -> Result<()> {
    let mut by_suite: BTreeMap<&str, Vec<&RunRecord>> = BTreeMap::new();
    runs.iter().rev().for_each(|run| by_suite.entry(&run.suite).or_default().push(run));
    let kept: BTreeSet<Digest> =
        by_suite.values().flat_map(|runs| runs.iter().take(keep)).flat_map(|run| run.cells.values().copied()).collect();
    let freed = store.prune(&|key| kept.contains(&key))?;
    anstream::eprintln!("freed {:.1} MB", freed as f64 / 1e6);
    Ok(())
}
