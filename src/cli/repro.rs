//! `dpo-eval repro`: a finished run's cells again, under other settings of the machine, compared bit by bit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use comfy_table::{Table, TableStyle};

use crate::cli::args::{Common, Format, ReproArguments};
use crate::cli::{Code, INTERRUPTED, display, print};
use crate::error::{Error, Kind, Result};
use crate::judge::runtime;
use crate::numerics::device::Device;
use crate::numerics::isa::{self, Isa};
use crate::report::plural;
use crate::run::plan::{Cell, Plan, Stage, plan, sequential_plan};
use crate::run::repro::{self, Comparison, Difference, Parting, Repeater, Setting, WeightDifference};
use crate::run::{cost, stages};
use crate::store::{Receipt, RunRecord, Store};
use crate::suite::settings::{Device as DeviceName, Numerics};
use crate::suite::{self, Suite};

/// What is tried unless the command line says otherwise, in this order, beside every instruction set of the machine.
const THREADS: [usize; 3] = [1, 2, 4];
const MICRO_BATCHES: [usize; 3] = [2, 1, 4];

pub fn run(arguments: &ReproArguments, common: &Common) -> Result<Code> {
    let mut settings = settings(arguments)?;
    let own = Setting { isa: isa::active(), threads: common.threads(), micro_batch: None, device: None };
    if let Some(written) = &arguments.device {
        settings.push(Setting { device: Some(device(written)?), ..own });
    }
    let store = if common.store.exists() { Some(Store::open(&common.store)?) } else { None };
    let Some((store, record)) = store.map(|s| find(&s, arguments.run.as_deref()).map(|record| (s, record))).transpose()? else {
        return Err(Error::new(Kind::NothingSelected, format!("{} holds no finished run", common.store.display()))
            .help("`dpo-eval suite run` makes one"));
    };
    let (suite, plan) = recorded_plan(&record)?;
    if suite.numerics == Numerics::Fast {
        let message = format!("run {} computed in the fast arithmetic, which promises no bits under other settings", record.id);
        return Err(Error::usage(message).help("run the suite with numerics = \"strict\" to have bits that can be repeated"));
    }
    let receipts = receipts(&store, &record, &plan)?;
    let (cells, left_out) = select(&suite, &plan, &arguments.cells)?;
    let scratch = Scratch::new(&store, &record)?;
    let rate = cost::measured_rate();
    let seconds = |s: &Setting, c: &Cell| (repro::announced_id(c, s), cost::expected_seconds(&suite, c, rate));
    let weights = settings.iter().flat_map(|s| cells.iter().map(move |c| (s, c))).map(|(s, c)| seconds(s, c)).collect();
    let bars = display::Bars::new(weights, common.quiet);
    let repeater = Repeater {
        suite: &suite,
        store: &store,
        receipts: &receipts,
        body: &stages::repeat_cell,
        own,
        steps: arguments.steps,
        scratch: &scratch.0,
        jobs: common.jobs(),
        listener: &bars,
        interrupted: &INTERRUPTED,
    };
    let comparisons = repeater.compare_all(&cells, &settings);
    bars.finish();
    let comparisons = comparisons?;
    match arguments.format {
        Format::Table => print(&table(&record, &comparisons, &left_out))?,
        Format::Json => {
            let value = serde_json::json!({"run": record.id, "comparisons": comparisons, "left_out": left_out});
            print(&format!("{}\n", serde_json::to_string_pretty(&value).expect("comparisons are plain data")))?;
        }
    }
    match comparisons.iter().filter(|c| c.difference.is_some()).count() {
        0 => Ok(Code::Pass),
        n => {
            let of = comparisons.len();
            Err(Error::new(Kind::NotReproducible, format!("{n} of {of} repetitions gave other bits than run {}", record.id)))
        }
    }
}

/// Where repetitions work; gone afterwards, however the command ends short of being killed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(store: &Store, record: &RunRecord) -> Result<Self> {
        let path = store.root().join("work").join(format!("repro-{}-{}", record.id, std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| Error::io("create", &path, &e))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The run of that id, the latest of that suite, or the latest of all.
fn find(store: &Store, name: Option<&str>) -> Result<RunRecord> {
    let runs = store.runs()?;
    let Some(name) = name else {
        return runs.into_iter().next_back().ok_or_else(|| {
            Error::new(Kind::NothingSelected, format!("{} holds no finished run", store.root().display()))
                .help("`dpo-eval suite run` makes one")
        });
    };
    if let Some(run) = runs.iter().rev().find(|run| run.suite == name) {
        return Ok(run.clone());
    }
    let matching: Vec<&RunRecord> = runs.iter().filter(|run| run.id.starts_with(name)).collect();
    match matching.as_slice() {
        [run] => Ok((*run).clone()),
        [] => Err(Error::new(Kind::NothingSelected, format!("there is no run `{name}`"))
            .help("`dpo-eval runs list` shows the recorded runs")),
        several => Err(Error::usage(format!("`{name}` could be {} runs", several.len())).help("give more of the id")),
    }
}

/// The suite as it was recorded, and its plan under the recorded keys. A key that isn't what it would be today means another
/// computation, which could only seem to be irreproducible.
fn recorded_plan(record: &RunRecord) -> Result<(Suite, Plan)> {
    let suite = suite::parse(&record.suite_text, &record.suite_file)?;
    let library = runtime::expected_library();
    // Where judging stopped rests on the golden of its time, which may be another today: these cells keep their recorded keys.
    let mut plan = if record.sequential { sequential_plan(&suite, library, &|_| None)? } else { plan(&suite, library)? };
    let through_judges: BTreeSet<String> = plan.through_judges().into_iter().map(str::to_owned).collect();
    let stops = |cell: &Cell| matches!(cell.stage, Stage::Sequential { .. } | Stage::Judgments { after: Some(_), .. });
    for cell in &mut plan.cells {
        let recorded = record.cells.get(&cell.id).copied();
        match recorded {
            // The runtime's digest is part of a judge's key, and repeating a judge's training doesn't take one.
            Some(key) if key == cell.key || through_judges.contains(&cell.id) || stops(cell) => cell.key = key,
            _ => {
                return Err(Error::input(format!(
                    "cell {} of run {} can't be repeated: the files that it read, or dpo-eval's way to compute it, changed since",
                    cell.id, record.id
                ))
                .help(format!("run the suite again: `dpo-eval suite run {}`", record.suite_file.display())));
            }
        }
    }
    Ok((suite, plan))
}

fn receipts(store: &Store, record: &RunRecord, plan: &Plan) -> Result<BTreeMap<String, Receipt>> {
    let receipt = |cell: &Cell| match store.receipt(cell.key)? {
        Some(receipt) => Ok((cell.id.clone(), receipt)),
        None => Err(Error::new(Kind::Incomplete, format!("cell {} of run {} is gone from the store", cell.id, record.id))
            .help(format!("run the suite again: `dpo-eval suite run {}`", record.suite_file.display()))),
    };
    plan.cells.iter().map(receipt).collect()
}

/// The cells to repeat, and the ids of those that were asked for and can't be.
fn select(suite: &Suite, plan: &Plan, patterns: &[String]) -> Result<(Vec<Cell>, Vec<String>)> {
    let wanted = |cell: &&Cell| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, &cell.id));
    let (cells, left_out): (Vec<&Cell>, Vec<&Cell>) =
        plan.cells.iter().filter(wanted).partition(|cell| stages::is_repeatable(suite, &cell.stage));
    if cells.is_empty() {
        let ids: Vec<&str> = plan.cells.iter().map(|c| c.id.as_str()).collect();
        return Err(Error::new(Kind::NothingSelected, format!("no cell that can be repeated matches {}", patterns.join(", ")))
            .help(format!("there are {}; judgments through ONNX Runtime are not repeated", ids.join(", "))));
    }
    Ok((cells.into_iter().cloned().collect(), left_out.into_iter().map(|c| c.id.clone()).collect()))
}

/// Whether `text` is what `pattern` says, `*` standing for any letters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text
            .strip_prefix(head)
            .is_some_and(|text| (0..=text.len()).filter(|&at| text.is_char_boundary(at)).any(|at| matches(rest, &text[at..]))),
    }
}

/// The CUDA device that is written so, opened.
fn device(written: &str) -> Result<&'static Device> {
    match DeviceName::named(written) {
        Some(DeviceName::Cuda(number)) => Device::open(number).map_err(|e| Error::usage(e.message).help(e.help)),
        _ => Err(Error::usage(format!("--device can't be `{written}`")).help("it takes `cuda` or, of several, `cuda:1`")),
    }
}

fn settings(arguments: &ReproArguments) -> Result<Vec<Setting>> {
    let mut available = isa::available();
    available.reverse();
    let named = |name: &String| -> Result<Isa> {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        let found = available.iter().find(|isa| isa.name() == name).copied();
        found.ok_or_else(|| {
            Error::usage(format!("this machine has no instruction set `{name}`")).help(format!("it has {}", names.join(", ")))
        })
    };
    let isas: Vec<Isa> = match arguments.isa.as_slice() {
        [] => isa::native().into_iter().rev().collect(),
        names => names.iter().map(named).collect::<Result<_>>()?,
    };
    let or = |given: &[u16], default: &[usize]| match given {
        [] => default.to_vec(),
        given => given.iter().map(|&n| usize::from(n)).collect(),
    };
    Ok(repro::settings(&isas, &or(&arguments.thread_counts, &THREADS), &or(&arguments.micro_batches, &MICRO_BATCHES)))
}

/// For people: a line a cell, then what each difference is.
fn table(record: &RunRecord, comparisons: &[Comparison], left_out: &[String]) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(["cell", "under", "result"]);
    for c in comparisons {
        table.add_row([c.cell.clone(), c.setting.to_string(), result(c)]);
    }
    let mut text = format!("{}\n\n", table.trim_fmt());
    for c in comparisons {
        if let Some(difference) = &c.difference {
            text += &format!("{} under {}\n{}\n", c.cell, c.setting, explained(difference));
        }
    }
    if !left_out.is_empty() {
        text += &format!(
            "{} left out: what ONNX Runtime says depends on its version and the CPU in the last bits\n",
            plural(left_out.len(), "cell")
        );
    }
    let (all, other) = (comparisons.len(), comparisons.iter().filter(|c| c.difference.is_some()).count());
    text + &match other {
        0 => format!("run {}: the same bits in all {}\n", record.id, plural(all, "repetition")),
        n => format!("run {}: other bits in {n} of {}\n", record.id, plural(all, "repetition")),
    }
}

fn result(comparison: &Comparison) -> String {
    match (&comparison.difference, comparison.steps, comparison.files) {
        (None, Some(steps), 0) => format!("same bits: {}", plural(steps as usize, "step")),
        (None, Some(steps), files) => format!("same bits: {}, {}", plural(steps as usize, "step"), plural(files, "file")),
        (None, None, files) => format!("same bits: {}", plural(files, "file")),
        (Some(Difference::File { name, .. }), ..) => format!("differs: {name}"),
        (Some(Difference::Training(parting)), ..) => format!("differs from step {}", parting.step),
    }
}

fn explained(difference: &Difference) -> String {
    match difference {
        Difference::File { name, line: Some(line) } => format!("  {name} first differs in line {line}\n"),
        Difference::File { name, line: None } => format!("  {name} differs\n"),
        Difference::Training(parting) => explained_training(parting),
    }
}

fn explained_training(parting: &Parting) -> String {
    let Parting { step, recorded, found, compared_with, weights } = parting;
    let mut text = format!("  step {step} is the first that differs\n");
    for (name, a, b) in [("loss", recorded.loss, found.loss), ("grad_norm", recorded.grad_norm, found.grad_norm)] {
        let same = if a == b { "same" } else { "other" };
        text += &format!("  {name:<10} {same}: {} ({a}) recorded, {} ({b}) found\n", a.value(), b.value());
    }
    let beside = match compared_with {
        Some(setting) => format!("under {setting}, which gives the recorded bits"),
        None => "recorded (this machine doesn't give the recorded bits under the run's own settings either)".to_owned(),
    };
    text + &match weights {
        None if compared_with.is_some() => {
            "  weights    the same up to that step: a metric differs and nothing else\n".to_owned()
        }
        None => "  weights    no recorded checkpoint within the compared steps differs\n".to_owned(),
        Some(WeightDifference { step, tensor, element: None }) => {
            format!(
                "  weights    after step {step} `{tensor}` is missing on one side or has another shape, beside those {beside}\n"
            )
        }
        Some(WeightDifference { step, tensor, element: Some(e) }) => format!(
            "  weights    first differ after step {step} in `{tensor}`, element {}:\n             {} ({:08x}) {beside},\n             {} ({:08x}) found\n",
            e.index, e.expected.value, e.expected.bits, e.found.value, e.found.bits
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_cell_pattern_stands_for_anything() {
        for (pattern, text, expected) in [
            ("train/*", "train/dpo/seed-1", true),
            ("*seed-1", "train/dpo/seed-1", true),
            ("t*/seed-*", "train/dpo/seed-1", true),
            ("train", "train/dpo/seed-1", false),
            ("*seed-2", "train/dpo/seed-1", false),
            ("reference", "reference", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
