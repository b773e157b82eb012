//! `judge score`, `judge fitness`, `judge agree`: judges by themselves, on files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::checks;
use crate::cli::args::{Common, JudgeChoice, JudgeCommand, ModelForm, RowFormat};
use crate::cli::input::Input;
use crate::cli::suite::execute_plan;
use crate::cli::{Code, display, print};
use crate::data::Pair;
use crate::data::convert::format_of;
use crate::data::field::Field;
use crate::data::files::RowFile;
use crate::data::source::{Record, for_each_row};
use crate::data::template::ChatTemplate;
use crate::error::{Error, Kind, Result};
use crate::estimates::agreement::{self, Group};
use crate::estimates::judges::{self, Scheme};
use crate::estimates::summary::{self, Evidence};
use crate::judge::asking::Asking;
use crate::judge::gold::Gold;
use crate::judge::journal::Journal;
use crate::judge::probes::{self, Answered};
use crate::judge::recorded::{self, Reading};
use crate::judge::session::OnnxJudge;
use crate::judge::{self, GOLD, Judge, protocol, runtime};
use crate::report::judging::{FitnessReport, JudgedRow, agreement_table, csv, json_lines, judged_table};
use crate::run::execute::Context;
use crate::run::plan::{plan, through_onnx};
use crate::run::stages::{cells_of_judge, use_judge};
use crate::store::Store;
use crate::suite::one_or_many::OneOrMany;
use crate::suite::settings::{Dataset, JudgeKind, JudgeSettings};
use crate::suite::{self, Suite};

pub fn run(command: &JudgeCommand, common: &Common) -> Result<Code> {
    match command {
        JudgeCommand::Score { judge, file, format } => score(judge, file, *format, common),
        JudgeCommand::Fitness { judge, file, format } => fitness(judge, file, *format, common),
        JudgeCommand::Agree { files, humans, format } => {
            let all: Vec<&Path> = files.iter().map(|file| file.as_path()).chain(humans.as_deref()).collect();
            agree(&all, humans.is_some(), *format)
        }
    }
}

/// What a judge is asked of a row: one completion, or two.
enum Asked {
    One([String; 2]),
    Two([String; 3]),
}

/// Names of two completions, and of prompts.
const TWO: [[&str; 2]; 4] = [["chosen", "rejected"], ["a", "b"], ["first", "second"], ["output_1", "output_2"]];
const ONE: [&str; 2] = ["completion", "output"];
const PROMPT: [&str; 2] = ["prompt", "instruction"];

impl Asked {
    fn read(record: &Record<'_>) -> Result<Self> {
        let text = |name: &str| match record.fields.present(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text.clone())),
            Some(other) => Err(record
                .error(format!("\"{name}\" is {}, and a text is expected", other.kind()))
                .help("`data convert` makes texts of conversations")),
        };
        let first = |names: &[&str]| names.iter().find_map(|name| text(name).transpose()).transpose();
        let prompt = first(&PROMPT)?.unwrap_or_default();
        for [a, b] in TWO {
            if let (Some(first), Some(second)) = (text(a)?, text(b)?) {
                return Ok(Self::Two([prompt, first, second]));
            }
        }
        first(&ONE)?.map(|completion| Self::One([prompt, completion])).ok_or_else(|| {
            record.error("there is no completion to judge").help(
                "rows have `prompt` and `completion`, or two completions: `chosen` and `rejected`, `a` and `b`, `first` and `second`, \
                 `output_1` and `output_2`",
            )
        })
    }
}

fn score(choice: &JudgeChoice, file: &Path, format: RowFormat, common: &Common) -> Result<Code> {
    let (mut rows, mut asked) = (Vec::new(), Vec::new());
    for_each_row(file, |record| {
        let id = record.fields.present("id").and_then(Field::text).map_or_else(|| record.place.id(), str::to_owned);
        rows.push(id);
        asked.push(Asked::read(&record)?);
        Ok(true)
    })?;
    if asked.is_empty() {
        return Err(Error::input("the file holds no rows").in_file(file));
    }
    let ones: Vec<[&str; 2]> =
        asked.iter().filter_map(|a| if let Asked::One([p, c]) = a { Some([p.as_str(), c.as_str()]) } else { None }).collect();
    let twos: Vec<[&str; 3]> =
        asked.iter().filter_map(|a| if let Asked::Two([p, a, b]) = a { Some([p.as_str(), a, b]) } else { None }).collect();
    if !ones.is_empty() && !twos.is_empty() {
        return Err(Error::input("some rows have one completion, others two").in_file(file).help("split the file"));
    }
    let judged = chosen(choice)?.ask(common, |judge| {
        let watch = display::Bar::new("judging", common.quiet);
        if !ones.is_empty() {
            let scores = judge.scores(&ones, &watch)?.ok_or_else(|| {
                Error::usage("this judge compares two completions, and the rows have one each")
                    .help("give rows with `chosen` and `rejected`, or another judge")
            })?;
            return Ok(rows.into_iter().zip(scores).map(|(row, score)| JudgedRow::Score { row, score }).collect::<Vec<_>>());
        }
        let verdicts = judge.verdicts(&twos, &watch)?;
        let row = |(row, verdict): (String, Option<judge::verdict::Verdict>)| JudgedRow::Preference {
            row,
            preference: verdict.map(|v| v.preference),
            outcome: verdict.map(|v| v.outcome),
            logit_first_first: verdict.and_then(|v| v.logits).map(|l| l.0),
            logit_second_first: verdict.and_then(|v| v.logits).map(|l| l.1),
            score_first: verdict.and_then(|v| v.scores).map(|s| s.0),
            score_second: verdict.and_then(|v| v.scores).map(|s| s.1),
            truncated: verdict.is_some_and(|v| v.truncated),
        };
        Ok(rows.into_iter().zip(verdicts).map(row).collect())
    })?;
    print(&match format {
        RowFormat::Table => judged_table(&judged, display::width()),
        RowFormat::Json => json_lines(&judged),
        RowFormat::Csv => csv(&judged)?,
    })?;
    Ok(Code::Pass)
}

fn fitness(choice: &JudgeChoice, file: &Path, format: RowFormat, common: &Common) -> Result<Code> {
    let layout = format_of(file)?;
    if layout.is_unpaired() {
        return Err(Error::input("completions with a label don't say which of two is better").in_file(file).help("give pairs"));
    }
    let template = layout.is_conversational().then(ChatTemplate::plain);
    let pairs = RowFile { template: template.as_ref(), ..RowFile::new(file, layout) }.pairs()?.rows;
    let chosen = chosen(choice)?;
    let settings = chosen.settings().cloned().ok_or_else(|| {
        Error::usage("gold is the truth of the synthetic world, and fit by definition").help("name another judge with --judge")
    })?;
    let (trials, probed) = chosen.ask(common, |judge| {
        let watch = display::Bar::new("judging", common.quiet);
        let trials = protocol::trials(judge, &settings.name, &pairs, &watch)?;
        let shown = probes::make(&answers(&pairs), settings.fitness.probes);
        Ok((trials, probes::run(judge, &settings.name, &shown, &watch)?))
    })?;
    let evidence = Evidence { judge_trials: &trials, judge_probes: &probed, ..Evidence::default() };
    let (level, position_warn) = (chosen.level(), chosen.position_warn());
    let mut estimates = summary::summarise(&evidence, level);
    estimates.extend(judges::estimates(&evidence, &Scheme { level, ..Scheme::default() }));
    let (reason, findings) = checks::judge_fitness(&settings, position_warn, &estimates);
    let report = FitnessReport { judge: settings.name.clone(), fit: reason.is_none(), reason, findings, estimates };
    print(&match format {
        RowFormat::Table => report.terminal(display::width()),
        RowFormat::Json => serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n",
        RowFormat::Csv => csv(&report.estimates)?,
    })?;
    Ok(if report.fit { Code::Pass } else { Code::GateFailed })
}

/// The chosen sides, one a prompt: what the probes dress up.
fn answers(pairs: &[Pair]) -> Vec<Answered<'_>> {
    let mut seen = BTreeSet::new();
    let first = pairs.iter().filter(|pair| seen.insert(pair.prompt_id.as_str()));
    first.map(|p| Answered { prompt_id: &p.prompt_id, prompt: &p.prompt, text: &p.chosen }).collect()
}

fn agree(files: &[&Path], humans: bool, format: RowFormat) -> Result<Code> {
    let group = |file: &&Path| {
        let input = Input::of(file)?;
        let rows = recorded::read(&input.file, &Reading::default())?;
        Ok(Group { name: Path::new(&input.shown()).file_name().unwrap_or_default().to_string_lossy().into_owned(), rows })
    };
    let groups = files.iter().map(group).collect::<Result<Vec<_>>>()?;
    let mut rows = agreement::agreements(&groups);
    if humans {
        rows.extend(agreement::against_humans(&groups, groups.len() - 1));
    }
    if rows.is_empty() {
        return Err(Error::new(Kind::NothingSelected, "no two annotators judged the same item").help(
            "items are told by prompt_id, sample and the names of both sides; one file with a `judge` column, or several files, name the annotators",
        ));
    }
    print(&match format {
        RowFormat::Table => agreement_table(&rows, display::width()),
        RowFormat::Json => json_lines(&rows),
        RowFormat::Csv => csv(&rows)?,
    })?;
    Ok(Code::Pass)
}

/// A judge that was named on the command line.
enum Chosen {
    Folder { settings: Box<JudgeSettings>, path: std::path::PathBuf },
    OfSuite { suite: Box<Suite>, name: String },
}

/// What `judge.json` says, as far as it is needed.
#[derive(Deserialize)]
struct Description {
    kind: JudgeKind,
    template: OneOrMany<String>,
    max_length: usize,
}

fn chosen(choice: &JudgeChoice) -> Result<Chosen> {
    let is_suite = choice.source.extension().is_some_and(|extension| extension == "toml");
    if !is_suite {
        return folder(choice);
    }
    if choice.kind.is_some() || choice.max_length.is_some() || !(choice.template.is_empty() && choice.labels.is_empty()) {
        return Err(Error::usage("a suite says itself how its judges are asked")
            .help("leave --kind, --template, --max-length and --labels out"));
    }
    let suite = suite::load(&choice.source)?;
    let name = choice.judge.clone().unwrap_or_else(|| suite.compare.judge.clone());
    let gold = matches!(suite.dataset, Dataset::World(_)).then(|| GOLD.to_owned());
    let names: Vec<String> = suite.judges.iter().map(|judge| judge.name.clone()).chain(gold).collect();
    if !names.contains(&name) {
        return Err(Error::new(Kind::NothingSelected, format!("the suite has no judge `{name}`"))
            .help(format!("it has {}", names.join(", "))));
    }
    Ok(Chosen::OfSuite { suite: Box::new(suite), name })
}

fn folder(choice: &JudgeChoice) -> Result<Chosen> {
    if choice.judge.is_some() {
        return Err(Error::usage("--judge names a judge of a suite, and a folder holds one judge").help("leave it out"));
    }
    let path = choice.source.join("judge.json");
    let described: Option<Description> = match std::fs::read(&path) {
        Err(_) => None,
        Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|e| {
            Error::input(format!("a judge's description can't be read: {e}"))
                .in_file(&path)
                .help("it has kind, template and max_length")
        })?),
    };
    let kind = choice.kind.map(|kind| match kind {
        ModelForm::Pairwise => JudgeKind::Pairwise,
        ModelForm::RewardModel => JudgeKind::RewardModel,
    });
    let kind = kind.or(described.as_ref().map(|d| d.kind)).ok_or_else(|| {
        Error::usage(format!("{} doesn't say what its model answers: there is no judge.json", choice.source.display()))
            .help("say --kind pairwise or --kind reward-model, or name a suite whose [[judge]] has this folder as its path")
    })?;
    let described = described.filter(|d| d.kind == kind);
    let template = match choice.template.is_empty() {
        true => described.as_ref().map(|d| d.template.clone()),
        false => Some(OneOrMany(choice.template.clone())),
    };
    let max_length = choice.max_length.or(described.as_ref().map(|d| d.max_length));
    let name = choice.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let settings = suite::judge_of_folder(&name, kind, choice.source.clone(), template, max_length, &choice.labels)?;
    Ok(Chosen::Folder { settings: Box::new(settings), path: choice.source.clone() })
}

impl Chosen {
    /// None: gold.
    fn settings(&self) -> Option<&JudgeSettings> {
        match self {
            Self::Folder { settings, .. } => Some(settings),
            Self::OfSuite { suite, name } => suite.judges.iter().find(|judge| &judge.name == name),
        }
    }

    fn level(&self) -> f64 {
        match self {
            Self::Folder { .. } => suite::default_level(),
            Self::OfSuite { suite, .. } => suite.statistics.level,
        }
    }

    fn position_warn(&self) -> f64 {
        match self {
            Self::Folder { .. } => suite::default_position_warn(),
            Self::OfSuite { suite, .. } => suite.checks.position_warn,
        }
    }

    /// Opens the judge, training it first where the suite says so, and does something with it.
    fn ask<T>(&self, common: &Common, ask: impl FnOnce(&mut dyn Judge) -> Result<T>) -> Result<T> {
        let store = Store::open(&common.store)?;
        match self {
            Self::Folder { settings, path } => {
                let onnx = OnnxJudge::open(path, settings, common.threads())?;
                let journal = Journal::open(&store, &judge::identity(path, settings)?)?;
                ask(&mut Asking::new(&settings.name, onnx, settings.tie_width, Some(journal)))
            }
            Self::OfSuite { name, .. } if name == GOLD => ask(&mut Gold),
            Self::OfSuite { suite, name } => {
                let library = match through_onnx(suite, name) {
                    true => runtime::ensure()?.library,
                    false => runtime::expected_library(),
                };
                let wanted = cells_of_judge(suite, name);
                let inputs = match wanted.is_empty() {
                    true => BTreeMap::new(),
                    false => execute_plan(suite, &plan(suite, library)?.restricted_to(&wanted), &store, common)?,
                };
                let watch = display::Bar::new("opening", common.quiet);
                let work = store.root().to_owned();
                let context = Context { store: &store, inputs, work, watch: &watch, threads: common.threads() };
                use_judge(suite, name, &context, ask)
            }
        }
    }
}
