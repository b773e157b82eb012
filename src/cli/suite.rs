//! `dpo-eval suite …`: the main job.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use comfy_table::{CellAlignment, ContentArrangement, Table, TableStyle};

use crate::cli::args::{Common, Format, SuiteCommand, SuiteInit, SuitePlan, SuiteRun};
use crate::cli::{Code, INTERRUPTED, display, hub, print};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gate::{self, Golden};
use crate::judge::runtime;
use crate::report::{self, Fact, ReportData};
use crate::run::execute::{Options, execute};
use crate::run::plan::{Cell, Plan, plan, sequential_plan};
use crate::run::power::{self, DISTANCES, Power};
use crate::run::{collect, cost, device, fit, stages};
use crate::store::{Receipt, RunRecord, Store, write_atomically};
use crate::suite::{self, Suite};

pub fn run(command: &SuiteCommand, common: &Common) -> Result<Code> {
    match command {
        SuiteCommand::Run(arguments) => run_suite(arguments, common),
        SuiteCommand::Plan(arguments) => show_plan(arguments, common),
        SuiteCommand::Check { suite } => check(suite),
        SuiteCommand::List { folder } => list(folder),
        SuiteCommand::Init(arguments) => init(arguments),
        SuiteCommand::Schema => {
            print(&suite::schema())?;
            Ok(Code::Pass)
        }
    }
}

/// A loaded suite with its plan and what the plan rests on.
pub struct Prepared {
    pub suite: Suite,
    pub plan: Plan,
    pub versions: Vec<Fact>,
}

/// Makes sure that a suite's inputs are there and its judges can run, before any work. `plan` gets the ONNX Runtime library's digest.
fn prepare(suite: Suite, common: &Common, plan: &dyn Fn(&Suite, Digest) -> Result<Plan>) -> Result<Prepared> {
    hub::fetch(&suite, common.quiet)?;
    let fact = |name: &str, value: String| Fact { name: name.into(), value };
    let mut versions =
        vec![fact("dpo-eval", env!("CARGO_PKG_VERSION").into()), fact("numerics", suite.numerics.promise().into())];
    let mut library = Digest::of_bytes(b"");
    if !suite.judges.is_empty() {
        let info = runtime::ensure()?;
        library = info.library;
        versions.push(fact("ONNX Runtime", info.version.clone()));
        versions.push(fact("ONNX Runtime library", info.library.to_string()));
    }
    let plan = plan(&suite, library)?;
    if let Some(models) = through_candle(&suite)? {
        versions.push(fact(CANDLE, models));
    }
    Ok(Prepared { suite, plan, versions })
}

/// What computes models that can only be evaluated, as `Cargo.toml` pins it.
pub(super) const CANDLE: &str = "candle-transformers 0.11.1 (fast, evaluation alone)";

/// Which models of the suite it computes; none: all are computed here.
fn through_candle(suite: &Suite) -> Result<Option<String>> {
    let models = fit::evaluated(suite)?;
    let named: Vec<String> = models.iter().map(|(what, family)| format!("{what}: {family}")).collect();
    Ok((!named.is_empty()).then(|| named.join("; ")))
}

/// Runs the cells of a plan with progress on stderr.
pub fn execute_plan(suite: &Suite, plan: &Plan, store: &Store, common: &Common) -> Result<BTreeMap<String, Receipt>> {
    let rate = cost::measured_rate();
    let weights = plan.cells.iter().map(|c| (c.id.clone(), cost::expected_seconds(suite, c, rate))).collect();
    let bars = display::Bars::new(weights, common.quiet);
    // What a device computed is served where there is none.
    let finished = plan.cells.iter().try_fold(true, |all, cell| Ok::<_, Error>(all && store.receipt(cell.key)?.is_some()))?;
    let device = if finished { None } else { device::open(suite)? };
    let options = Options { threads: common.threads(), jobs: common.jobs(), device };
    let receipts = execute(plan, store, &options, &|cell, context| stages::run_cell(suite, cell, context), &bars, &INTERRUPTED);
    bars.finish();
    receipts
}

fn run_suite(arguments: &SuiteRun, common: &Common) -> Result<Code> {
    let started = Instant::now();
    let suite = suite::load(&arguments.suite)?;
    // A missing golden file is known before the work, not after it.
    let golden = arguments.gate.then(|| Golden::load(&suite.locate(&suite.gate.golden), &suite.name)).transpose()?;
    let planned = |suite: &Suite, library: Digest| {
        let rule = |variant: &str| golden.as_ref()?.sequential_rule(variant, &suite.compare.judge, suite.gate.margin);
        if arguments.sequential { sequential_plan(suite, library, &rule) } else { plan(suite, library) }
    };
    let Prepared { suite, plan, versions } = prepare(suite, common, &planned)?;
    let store = Store::open(&common.store)?;
    let receipts = execute_plan(&suite, &plan, &store, common)?;
    let mut data = collect::collect(&suite, &plan, &store, &receipts, versions)?;
    if let Some(golden) = &golden {
        data.gate = Some(gate::compare(&data, golden, &suite.gate));
    }
    let folder = arguments.report_dir.clone().unwrap_or_else(|| Path::new("reports").join(&suite.name));
    report::write(&data, &folder)?;
    let record = RunRecord {
        id: format!("{}-{}", suite.name, run_digest(&plan).short()),
        suite: suite.name.clone(),
        suite_digest: suite.digest(),
        suite_text: suite.text.clone(),
        suite_file: std::path::absolute(&arguments.suite).unwrap_or_else(|_| arguments.suite.clone()),
        finished: jiff::Timestamp::now().to_string(),
        seconds: started.elapsed().as_secs_f64(),
        sequential: arguments.sequential,
        cells: plan.cells.iter().map(|c| (c.id.clone(), c.key)).collect(),
        report: std::path::absolute(&folder).unwrap_or_else(|_| folder.clone()),
    };
    store.record_run(&record)?;
    print_result(&data, arguments.format)?;
    if !common.quiet {
        anstream::eprintln!("report: {}  run: {}  {:.1} s", folder.join("index.html").display(), record.id, record.seconds);
    }
    Ok(match &data.gate {
        Some(gate) => Code::of_verdict(gate.verdict, suite.gate.on_inconclusive),
        None => Code::Pass,
    })
}

fn run_digest(plan: &Plan) -> Digest {
    Digest::of_value(&plan.cells.iter().map(|c| c.key).collect::<Vec<_>>())
}

/// Prints what people read, or what machines read: conclusions, findings, the gate and every estimate.
pub fn print_result(data: &ReportData, format: Format) -> Result<()> {
    match format {
        Format::Table => print(&report::terminal(data, display::width(), display::stdout_colour())),
        Format::Json => {
            let value = serde_json::json!({
                "suite": data.suite, "judge": data.judge, "conclusions": data.conclusions, "gate": data.gate,
                "findings": data.findings, "estimates": data.estimates,
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&value).expect("report data is plain data")))
        }
    }
}

fn show_plan(arguments: &SuitePlan, common: &Common) -> Result<Code> {
    let suite = suite::load(&arguments.suite)?;
    hub::fetch(&suite, common.quiet)?;
    let library = runtime::expected_library();
    let plan = plan(&suite, library)?;
    let finished = |cell: &Cell| -> bool {
        common.store.exists() && Store::open(&common.store).and_then(|s| s.receipt(cell.key)).is_ok_and(|r| r.is_some())
    };
    let rate = cost::measured_rate();
    let open = cost::open_cells(&plan.cells, &finished);
    let total = cost::expected_total(&suite, &open, rate, common.threads(), common.jobs());
    // A golden that can't be read is the gate's matter.
    let golden = Golden::load(&suite.locate(&suite.gate.golden), &suite.name).ok();
    let power = power::power(&suite, golden.as_ref());
    let state = |cell: &Cell| if open.iter().any(|c| c.id == cell.id) { "to run" } else { "finished" };
    match arguments.format {
        Format::Json => {
            let cells: Vec<_> = plan
                .cells
                .iter()
                .map(|c| {
                    serde_json::json!({
                        "id": c.id, "stage": c.stage.name(), "key": c.key, "inputs": c.inputs, "state": state(c),
                        "expected_seconds": cost::expected_seconds(&suite, c, rate),
                    })
                })
                .collect();
            let value = serde_json::json!({
                "suite": suite.name, "digest": suite.digest(), "cells": cells, "expected_seconds": total, "power": power,
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&value).expect("a plan is plain data")))?;
        }
        Format::Table => {
            let mut table = Table::new();
            table.load_style(TableStyle::new()).set_header(["cell", "key", "state", "expected"]);
            for cell in &plan.cells {
                let seconds = cost::expected_seconds(&suite, cell, rate);
                table.add_row([cell.id.clone(), cell.key.short(), state(cell).into(), format!("{seconds:.1} s")]);
            }
            if let Some(column) = table.column_mut(3) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            let (cells, runs) = (plan.cells.len(), cost::training_runs(&suite));
            let work = match open.len() {
                0 => "all finished".to_owned(),
                open => format!("{open} to run; about {total:.0} s on {} threads", common.threads()),
            };
            let by = through_candle(&suite)?.map_or(String::new(), |models| format!("by {CANDLE}: {models}\n"));
            let (table, power) = (table.trim_fmt(), shown(&power));
            print(&format!("{table}\n\n{cells} cells ({runs} training runs), {work}\n{by}\n{power}"))?;
        }
    }
    Ok(Code::Pass)
}

/// What the prompts of the plan can show, for people.
fn shown(power: &Power) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Dynamic).set_width(display::width() as u16);
    let needed = DISTANCES.map(|distance| format!("prompts for {distance}"));
    let head = ["preferences".to_owned(), "spread".into(), "shows from 0.5".into()];
    let gate = [format!("prompts for the gate's {}", power.gate_margin)];
    table.set_header(head.into_iter().chain(needed).chain(gate));
    for expected in &power.expected {
        let (name, most) = match &expected.variant {
            Some(variant) => (format!("{variant}, as in the golden"), ""),
            None => ("whatever the judge".to_owned(), "≤ "),
        };
        let numbers = [format!("{most}{:.3}", expected.spread), format!("{most}{:.3}", expected.detectable)];
        let needed = expected.prompts_needed.iter().map(|needed| needed.prompts).chain([expected.gate_prompts]);
        table.add_row(std::iter::once(name).chain(numbers).chain(needed.map(|prompts| format!("{most}{prompts}"))));
    }
    (1..6).filter_map(|i| table.column_mut(i).map(|c| c.set_cell_alignment(CellAlignment::Right))).for_each(drop);
    format!(
        "With {} evaluation prompts, {:.0} % intervals and a chance of {:.0} % to decide:\n\n{}\n",
        power.prompts,
        100.0 * power.level,
        100.0 * power.power,
        table.trim_fmt()
    )
}

fn check(path: &Path) -> Result<Code> {
    let suite = suite::load(path)?;
    let missing = hub::missing(&suite)?;
    // Keys are digests of contents, which aren't here yet.
    let cells = match missing.is_empty() {
        true => format!("{} cells, ", plan(&suite, runtime::expected_library())?.cells.len()),
        false => String::new(),
    };
    print(&format!(
        "{}: suite `{}`, {} variants, {} seeds, {} judges, {cells}digest {}\n",
        path.display(),
        suite.name,
        suite.variants.len(),
        suite.seeds.len(),
        suite.judges.len(),
        suite.digest().short()
    ))?;
    print(&missing.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(Code::Pass)
}

fn list(folder: &Path) -> Result<Code> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("list", folder, &e))?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::new(crate::error::Kind::NothingSelected, format!("{} holds no suite file", folder.display()))
            .help("write one with `dpo-eval suite init`"));
    }
    for file in files {
        let line = match suite::load(&file) {
            Ok(suite) => format!("{}\t{}\t{}\n", file.display(), suite.name, suite.title),
            Err(error) => format!("{}\tinvalid\t{}\n", file.display(), error.message),
        };
        print(&line)?;
    }
    Ok(Code::Pass)
}

fn init(arguments: &SuiteInit) -> Result<Code> {
    let template = suite::templates::template(&arguments.template).ok_or_else(|| {
        let names: Vec<String> = suite::templates::TEMPLATES.iter().map(|t| format!("{} ({})", t.name, t.summary)).collect();
        Error::usage(format!("there is no template `{}`", arguments.template)).help(format!("there are {}", names.join(", ")))
    })?;
    if arguments.file.exists() {
        return Err(Error::usage(format!("{} exists already", arguments.file.display())).help("name another file"));
    }
    write_atomically(&arguments.file, &[template.text.as_bytes()])?;
    anstream::eprintln!("wrote {}; next: dpo-eval suite plan {}", arguments.file.display(), arguments.file.display());
    Ok(Code::Pass)
}
