//! `gate`, `report`, `baseline` and `compare`: finished runs against golden files and each other.

use std::path::{Path, PathBuf};

use crate::cli::args::{BaselineCommand, Common, CompareArguments, GateArguments, ReportArguments, RowFormat};
use crate::cli::suite::print_result;
use crate::cli::{Code, display, print};
use crate::error::{Error, Result};
use crate::gate::{self, Golden};
use crate::report::{self, ReportData};
use crate::store::{Store, write_atomically};

/// The report data of a run: by report folder, by suite name, or by the id (or its beginning) of a run in the store.
fn load(run: &str, common: &Common) -> Result<(ReportData, PathBuf)> {
    for folder in [PathBuf::from(run), Path::new("reports").join(run)] {
        let file = folder.join("report.json");
        if file.is_file() {
            return Ok((report::load_json(&file)?, folder));
        }
    }
    let recorded = if common.store.exists() { Store::open(&common.store)?.runs()? } else { Vec::new() };
    let matching: Vec<_> = recorded.iter().filter(|r| r.id.starts_with(run)).collect();
    match matching.as_slice() {
        [record] => Ok((report::load_json(&record.report.join("report.json"))?, record.report.clone())),
        [] => Err(Error::input(format!(
            "there is no run `{run}`: no folder of that name with a report.json, no such run in the store"
        ))
        .help("`dpo-eval runs list` shows the recorded runs; `dpo-eval suite run` makes one")),
        several => Err(Error::usage(format!("`{run}` could be {} runs", several.len())).help("give more of the id")),
    }
}

fn golden_path(stated: Option<&PathBuf>, suite: &str) -> PathBuf {
    stated.cloned().unwrap_or_else(|| Path::new("golden").join(format!("{suite}.json")))
}

pub fn gate(arguments: &GateArguments, common: &Common) -> Result<Code> {
    let (mut data, folder) = load(&arguments.run, common)?;
    let golden = Golden::load(&golden_path(arguments.golden.as_ref(), &data.suite.name), &data.suite.name)?;
    let settings = data.gate_settings.clone();
    let compared = gate::compare(&data, &golden, &settings);
    let verdict = compared.verdict;
    data.gate = Some(compared);
    // The report shows the verdict that the exit code states.
    report::write(&data, &folder)?;
    print_result(&data, arguments.format)?;
    Ok(Code::of_verdict(verdict, settings.on_inconclusive))
}

pub fn report(arguments: &ReportArguments, common: &Common) -> Result<Code> {
    let (data, _) = load(&arguments.run, common)?;
    report::write(&data, &arguments.report_dir)?;
    anstream::eprintln!("report: {}", arguments.report_dir.join("index.html").display());
    Ok(Code::Pass)
}

pub fn compare(arguments: &CompareArguments, common: &Common) -> Result<Code> {
    let ((old, _), (new, _)) = (load(&arguments.old, common)?, load(&arguments.new, common)?);
    let comparison = gate::compare_runs(&old, &new, &arguments.variant)?;
    print(&match arguments.format {
        RowFormat::Table => comparison.terminal(display::width()),
        RowFormat::Json => format!("{}\n", serde_json::to_string_pretty(&comparison).expect("a comparison is plain data")),
        RowFormat::Csv => comparison.csv()?,
    })?;
    Ok(Code::Pass)
}

pub fn run(command: &BaselineCommand, common: &Common) -> Result<Code> {
    match command {
        BaselineCommand::Accept { run, reason, golden } => accept(run, reason, golden.as_ref(), common),
        BaselineCommand::Show { golden } => {
            print(&gate::describe(&Golden::read(golden)?))?;
            Ok(Code::Pass)
        }
        BaselineCommand::Diff { run, golden } => {
            let (data, _) = load(run, common)?;
            let old = Golden::load(&golden_path(golden.as_ref(), &data.suite.name), &data.suite.name)?;
            let lines = gate::diff(&old, &Golden::from_report(&data, &old.reason)?);
            print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
            Ok(Code::Pass)
        }
    }
}

fn accept(run: &str, reason: &str, golden: Option<&PathBuf>, common: &Common) -> Result<Code> {
    let (data, _) = load(run, common)?;
    let path = golden_path(golden, &data.suite.name);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    let json = Golden::from_report(&data, reason)?.to_json();
    write_atomically(&path, &[json.as_bytes()])?;
    anstream::eprintln!("accepted as {}; review and commit it", path.display());
    Ok(Code::Pass)
}
