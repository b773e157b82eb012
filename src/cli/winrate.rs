//! `winrate`: recorded preferences in, honest numbers out.

use std::path::{Path, PathBuf};

use super::args::{Common, CompatName, RecordedLayout, RowFormat, WinrateArguments};
use super::exit::Code;
use super::input::Input;
use super::{display, print};
use crate::error::{Error, Result};
use crate::estimates::winrate::control::{self, Control, Join};
use crate::estimates::winrate::{Choice, Compat, Subject, WinRate, anytime, compare, labels, rates, subjects};
use crate::judge::recorded::covariates::{Difficulty, Gamed};
use crate::judge::recorded::outputs::{self, Outputs};
use crate::judge::recorded::{self, Columns, Layout, NAMES, Reading, RecordedPreference, Sides};
use crate::report::WinRates;
use crate::statistics::length_control::Recipe;
use crate::suite::with_suggestion;

pub fn run(arguments: &WinrateArguments, common: &Common) -> Result<Code> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(common.threads())
        .build()
        .map_err(|e| Error::unexpected(format!("cannot start threads: {e}")))?;
    let found = pool.install(|| win_rates(arguments))?;
    print(&match arguments.format {
        RowFormat::Table => found.terminal(display::width()),
        RowFormat::Json => found.json(),
        RowFormat::Csv => found.csv()?,
    })?;
    Ok(Code::Pass)
}

/// A file with what it holds.
struct Source {
    shown: String,
    subjects: Vec<Subject>,
    /// ⌊mean length⌋ over all of the policy's outputs.
    average_length: Option<u64>,
}

fn win_rates(arguments: &WinrateArguments) -> Result<WinRates> {
    check(arguments)?;
    let compat = arguments.compat.map(|name| match name {
        CompatName::AlpacaEval => Compat::AlpacaEval { c: arguments.c },
        CompatName::ArenaHard => Compat::ArenaHard,
        CompatName::MtBench => Compat::MtBench,
    });
    let baseline = arguments.baseline_outputs.as_ref().map(|path| Ok((path, Outputs::read(path)?))).transpose()?;
    let sources: Vec<Source> = arguments
        .files
        .iter()
        .enumerate()
        .map(|(i, path)| source(arguments, i, path, baseline.as_ref()))
        .collect::<Result<_>>()?;
    let trusted = arguments.labels.as_ref().map(|path| Ok((path, trusted(arguments, path)?))).transpose()?;
    let mut difficulty = arguments.difficulty.as_ref().map(|path| Difficulty::read(path)).transpose()?;
    let mut gamed = arguments.gamed.as_ref().map(|path| Gamed::read(path)).transpose()?.unwrap_or_default();
    if let Some((_, outputs)) = &baseline {
        difficulty = difficulty.map(|d| if d.by_index { d.named(outputs) } else { d });
        gamed = gamed.into_iter().map(|g| g.named(outputs)).collect();
    }
    let control = Control {
        difficulty: arguments.difficulty.as_deref().zip(difficulty.as_ref()),
        gamed: &gamed,
        join: Join::Instruction,
        resamples: usize::from(arguments.resamples),
        seed: arguments.seed,
        level: arguments.level,
    };
    let mut found = WinRates { level: arguments.level, rates: Vec::new(), differences: Vec::new() };
    for source in &sources {
        for subject in &source.subjects {
            let mut rate = win_rate(compat, &source.shown, subject, &control)?;
            if arguments.sequential {
                anytime::add(&mut rate, subject, control.level);
            }
            if let Some((path, all)) = &trusted {
                labels::add(&mut rate, subject, labels::of(path, all, subject)?, path, control.level)?;
            }
            if let Some(length) = source.average_length {
                rate.facts.retain(|(name, _)| *name != "avg_length");
                rate.facts.push(("avg_length", length as f64));
            }
            found.rates.push(rate);
        }
    }
    found.differences = differences(&sources, compat, &found.rates, &control)?;
    Ok(found)
}

fn win_rate(compat: Option<Compat>, file: &str, subject: &Subject, control: &Control<'_>) -> Result<WinRate> {
    match compat {
        Some(compat) => compat.win_rate(file, subject, control),
        None => {
            let mut rate = rates::win_rate(file, subject, control.level)?;
            control::add(&mut rate, subject, control)?;
            Ok(rate)
        }
    }
}

/// Each policy minus the first, where the same judge compared both.
fn differences(
    sources: &[Source],
    compat: Option<Compat>,
    rates: &[WinRate],
    control: &Control<'_>,
) -> Result<Vec<compare::PairedDifference>> {
    let all: Vec<(&str, &Subject)> =
        sources.iter().flat_map(|source| source.subjects.iter().map(|subject| (source.shown.as_str(), subject))).collect();
    let mut found = Vec::new();
    for (i, (file, subject)) in all.iter().enumerate() {
        let first = all[..i].iter().position(|(_, earlier)| earlier.judge == subject.judge);
        let Some(first) = first else { continue };
        let (first_file, earlier) = all[first];
        // AlpacaEval's fits have a C each, and none without --difficulty and --gamed.
        let c = |place: usize| rates[place].fact("c").map(|c| Recipe::AlpacaEval { c });
        let recipes = match compat {
            Some(Compat::AlpacaEval { .. }) => c(i).zip(c(first)).map(|(a, b)| [a, b]),
            Some(_) => None,
            None => Some([control::RIDGE; 2]),
        };
        let join = if compat.is_some() { Join::Position } else { control.join };
        let control = Control { join, ..*control };
        found.extend(compare::difference([file, first_file], [subject, earlier], recipes, &control)?);
    }
    Ok(found)
}

/// What would have no effect is an error.
fn check(arguments: &WinrateArguments) -> Result<()> {
    let alpaca = arguments.compat == Some(CompatName::AlpacaEval);
    if arguments.c.is_some() && !alpaca {
        return Err(Error::usage("--c is a setting of AlpacaEval's fit").help("say --compat alpaca-eval, or leave it out"));
    }
    if arguments.compat.is_some() && !alpaca && (arguments.difficulty.is_some() || arguments.gamed.is_some()) {
        return Err(Error::usage(
            "--difficulty and --gamed have no effect here: only AlpacaEval's numbers and our own control length",
        ));
    }
    if arguments.c.is_some() && (arguments.difficulty.is_none() || arguments.gamed.is_none()) {
        return Err(Error::usage("--c has no effect without --difficulty and --gamed, which AlpacaEval's fit needs"));
    }
    if !arguments.outputs.is_empty() && arguments.outputs.len() != arguments.files.len() {
        let (outputs, files) = (arguments.outputs.len(), arguments.files.len());
        return Err(
            Error::usage(format!("{outputs} --outputs for {files} files")).help("give one for each file, in the same order")
        );
    }
    Ok(())
}

/// How the arguments say that a file is read.
pub fn reading(layout: Option<RecordedLayout>, columns: &[(String, String)], lenient: bool) -> Result<Reading> {
    for (name, _) in columns {
        if !NAMES.contains(&name.as_str()) {
            let names: Vec<String> = NAMES.map(str::to_owned).to_vec();
            return Err(Error::usage(format!("--columns knows no `{name}`")).help(with_suggestion(name, &names, "it knows ")));
        }
    }
    let layout = layout.map(|layout| match layout {
        RecordedLayout::AlpacaEval => Layout::AlpacaEval,
        RecordedLayout::ArenaHard => Layout::ArenaHard,
        RecordedLayout::MtBench => Layout::MtBench,
        RecordedLayout::Judgments => Layout::Judgments,
        RecordedLayout::Comparisons => Layout::Comparisons,
        RecordedLayout::Labels => Layout::Labels,
    });
    Ok(Reading { layout, columns: Columns(columns.to_vec()), lenient })
}

fn source(arguments: &WinrateArguments, place: usize, path: &Path, baseline: Option<&(&PathBuf, Outputs)>) -> Result<Source> {
    let alpaca = arguments.compat == Some(CompatName::AlpacaEval);
    let input = Input::of(path)?;
    let (file, completions) = (&input.file, &input.completions);
    let mut rows = recorded::read(file, &reading(arguments.layout, &arguments.columns, alpaca)?)?;
    if let Some(completions) = completions {
        outputs::join_completions(&mut rows, completions, file)?;
    }
    let average_length = match arguments.outputs.get(place) {
        None => None,
        Some(own) => {
            let outputs = Outputs::read(own)?;
            join(&mut rows, file, (own, &outputs), baseline)?;
            name(&mut rows, &outputs, baseline.map(|(_, outputs)| outputs));
            Some(outputs.average_length())
        }
    };
    let choice = Choice { policy: arguments.policy.clone(), baseline: arguments.baseline.clone() };
    // AlpacaEval knows rows, not items.
    let subjects = subjects::subjects(Path::new(&input.shown()), rows, &choice, !alpaca)?;
    Ok(Source { shown: input.shown(), subjects, average_length })
}

/// Labels, several raters of an item averaged.
fn trusted(arguments: &WinrateArguments, path: &Path) -> Result<Vec<Subject>> {
    let input = Input::of(path)?;
    let mut rows = recorded::read(&input.file, &reading(None, &arguments.columns, false)?)?;
    rows.iter_mut().for_each(|row| row.judge = None);
    let choice = Choice { policy: arguments.policy.clone(), baseline: arguments.baseline.clone() };
    let is_named = rows.iter().any(|row| row.policy.is_some());
    subjects::subjects(path, rows, &if is_named { choice } else { Choice::default() }, true)
}

/// Texts of the outputs for verdicts that have none.
fn join(
    rows: &mut [RecordedPreference],
    file: &Path,
    (path, own): (&Path, &Outputs),
    baseline: Option<&(&PathBuf, Outputs)>,
) -> Result<()> {
    if rows.iter().all(|row| row.text.is_some() || row.length.is_some()) {
        return Ok(());
    }
    let Some((baseline_path, baseline)) = baseline else {
        return Err(
            Error::usage("lengths are compared with the baseline's").help("give its outputs too: --baseline-outputs FILE")
        );
    };
    let files = Sides { policy: path, baseline: baseline_path.as_path() };
    outputs::join(rows, file, files, Sides { policy: own, baseline })
}

/// The generators' names for verdicts that have none.
fn name(rows: &mut [RecordedPreference], own: &Outputs, baseline: Option<&Outputs>) {
    for row in rows {
        row.policy = row.policy.take().or_else(|| own.generator.clone());
        row.baseline = row.baseline.take().or_else(|| baseline?.generator.clone());
    }
}
