//! From what was written to what it means: lays the suite file over the defaults, and refuses what is out of range, what
//! contradicts itself, and what would have no effect.

use std::path::PathBuf;

use super::defaults;
use super::document::{Document, Table};
use super::rules::{self, Rule};
use super::settings::{
    CheckSettings, CompareSettings, Dataset, Device, GateSettings, GenerateSettings, JudgeSettings, JudgeSource, LabelSettings,
    ModelSource, Numerics, ReportSettings, StatisticsSettings, Suite,
};
use super::spec::{JudgeKindSpec, SuiteSpec};
use super::study;
use crate::error::Result;

mod data;
mod decoding;
mod evaluation;
mod judges;
mod kinds;
mod lora;
mod objective;
mod online;
mod onnx;
mod rounds;
mod training;

pub(super) use onnx::fault as fault_of_labels;

pub(super) fn resolve(spec: &SuiteSpec, document: &Document, base: PathBuf) -> Result<Suite> {
    let top = document.table("");
    name_is_usable(&spec.name, &top)?;
    let dataset = data::dataset(&spec.dataset, document)?;
    let model = data::model(spec, &dataset, document)?;
    let context = match &model {
        ModelSource::Fresh(fresh) => Some(fresh.max_position_embeddings),
        ModelSource::Folder { .. } => None,
    };
    let generate = generate(spec, context, &document.table("generate"))?;
    let surroundings = training::Surroundings {
        sampling: sampling(&dataset),
        context,
        pairs: dataset.has_pairs(),
        held_out: !matches!(&dataset, Dataset::Pairs(pairs) if pairs.heldout_share == 0.0),
        labelling: labelling(spec, &dataset),
        reward_models: reward_models(spec, &dataset),
        generate: generate.clone(),
    };
    let sft = training::sft(spec, &model, &surroundings, document)?;
    let variants = training::variants(spec, &surroundings, document)?;
    lora::fits_numerics(spec.numerics.unwrap_or(defaults::NUMERICS), sft.as_ref(), &variants, document)?;
    let judges = judges::judges(spec, &dataset, &surroundings, document)?;
    let compare = compare(spec, &dataset, document)?;
    let seeds = seeds(spec, document)?;
    let ground = study::Ground { dataset: &dataset, variants: &variants, seeds: seeds.len(), judge: &compare.judge, gold: GOLD };
    let study = study::resolve(spec.study.as_ref(), &ground, document)?;
    Ok(Suite {
        name: spec.name.clone(),
        title: spec.title.clone().unwrap_or_else(|| spec.name.clone()),
        description: spec.description.clone().unwrap_or_default(),
        seed: spec.seed.unwrap_or(defaults::SEED),
        seeds,
        numerics: spec.numerics.unwrap_or(defaults::NUMERICS),
        device: device(spec, document)?,
        generate,
        statistics: statistics(spec, &dataset, &judges, &compare, &document.table("statistics"))?,
        compare,
        checks: checks(spec, &dataset, &document.table("checks"))?,
        study,
        gate: gate(spec, &document.table("gate"))?,
        report: report(spec, &document.table("report"))?,
        dataset,
        model,
        sft,
        variants,
        judges,
        base,
        text: document.text().to_owned(),
    })
}

fn device(spec: &SuiteSpec, document: &Document) -> Result<Device> {
    let (top, written) = (document.table(""), spec.device.as_deref());
    let device = written.map_or(Some(defaults::DEVICE), Device::named).ok_or_else(|| {
        let message = format!("`device` can't be \"{}\"", written.unwrap_or_default());
        top.at_value("device", message).help("it takes \"cpu\", \"cuda\" or, of several, \"cuda:1\"")
    })?;
    match (device, spec.numerics) {
        (Device::Cuda(_), Some(Numerics::Fast)) => Err(top
            .at_value("device", "numerics = \"fast\" is computed on the CPU alone")
            .help("leave `numerics` out: the strict arithmetic has kernels for CUDA devices, with the CPU's bits")),
        (device, _) => Ok(device),
    }
}

/// Who can label what policies write, and who does unless the suite says otherwise.
fn labelling(spec: &SuiteSpec, dataset: &Dataset) -> rounds::Labelling {
    let names: Vec<String> = spec.judge.iter().map(|judge| judge.name.clone()).collect();
    match dataset {
        Dataset::World(world) => rounds::Labelling {
            judge: Some(GOLD.to_owned()),
            judges: names.into_iter().chain([GOLD.to_owned()]).collect(),
            samples_per_prompt: world.samples_per_prompt,
            pairs_per_prompt: world.pairs_per_prompt,
            conversational: false,
        },
        Dataset::Pairs(_) => {
            let [samples_per_prompt, pairs_per_prompt] = defaults::ROUND_SAMPLES;
            let judge = match names.as_slice() {
                [only] => Some(only.clone()),
                _ => None,
            };
            let conversational = dataset.is_conversational();
            rounds::Labelling { judge, judges: names, samples_per_prompt, pairs_per_prompt, conversational }
        }
    }
}

/// Who can score what a policy writes.
fn reward_models(spec: &SuiteSpec, dataset: &Dataset) -> Vec<String> {
    let trained = spec.judge.iter().filter(|judge| judge.kind == JudgeKindSpec::RewardModel && judge.path.is_none());
    let gold = matches!(dataset, Dataset::World(_)).then(|| GOLD.to_owned());
    trained.map(|judge| judge.name.clone()).chain(gold).collect()
}

fn sampling(dataset: &Dataset) -> super::settings::Sampling {
    match dataset {
        Dataset::World(world) => world.sampling,
        Dataset::Pairs(pairs) => pairs.sampling,
    }
}

/// Names that mean something else where variants and judges stand in the results.
const TAKEN: [(&str, &str); 2] = [("reference", "the frozen reference model"), (GOLD, "the world's own reward")];
/// As `judge` names it.
const GOLD: &str = "gold";

fn name_is_free(name: &str, table: &Table<'_>) -> Result<()> {
    match TAKEN.iter().find(|(taken, _)| *taken == name) {
        Some((_, meaning)) => {
            Err(table.at_value("name", format!("the name `{name}` is taken: in the results it means {meaning}")))
        }
        None => name_is_usable(name, table),
    }
}

/// Names become folders, file names and columns.
pub(super) fn name_is_usable(name: &str, table: &Table<'_>) -> Result<()> {
    let usable = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if name.len() > 64 || !starts_well || !name.chars().all(usable) {
        let error = table.at_value("name", format!("\"{name}\" can't be a name"));
        return Err(error.help("a name has up to 64 letters, digits, `.`, `_` and `-`, and starts with a letter or digit"));
    }
    Ok(())
}

pub(super) fn names_differ(names: &[&str], list: &str, document: &Document) -> Result<()> {
    for (index, name) in names.iter().enumerate() {
        if let Some(first) = names[..index].iter().position(|earlier| earlier == name) {
            let line = document.table(format!("{list}[{first}]")).line("name");
            let table = document.table(format!("{list}[{index}]"));
            return Err(table
                .at_value("name", format!("the name `{name}` is used twice"))
                .help(format!("line {line} has it already; each [[{list}]] needs a name of its own")));
        }
    }
    Ok(())
}

fn seeds(spec: &SuiteSpec, document: &Document) -> Result<Vec<u64>> {
    let Some(seeds) = &spec.seeds else { return Ok(vec![defaults::SEED]) };
    if seeds.is_empty() {
        return Err(document.table("").at_value("seeds", "`seeds` is empty, so nothing would be trained"));
    }
    for (index, seed) in seeds.iter().enumerate() {
        if seeds[..index].contains(seed) {
            let error = document.table("seeds").at_value(&format!("[{index}]"), format!("seed {seed} is given twice"));
            return Err(error.help("a seed repeated gives the same run, not another sample; leave it out"));
        }
    }
    Ok(seeds.clone())
}

fn generate(spec: &SuiteSpec, context: Option<usize>, table: &Table<'_>) -> Result<GenerateSettings> {
    let written = spec.generate.clone().unwrap_or_default();
    let mut settings = defaults::generate();
    table.set(&mut settings.temperature, "temperature", written.temperature, rules::NOT_NEGATIVE)?;
    table.set(&mut settings.top_p, "top_p", written.top_p, rules::PROBABILITY)?;
    table.set_or_none(&mut settings.top_k, "top_k", written.top_k, rules::any())?;
    table.set(&mut settings.max_new_tokens, "max_new_tokens", written.max_new_tokens, rules::AT_LEAST_ONE)?;
    table.set(&mut settings.samples_per_prompt, "samples_per_prompt", written.samples_per_prompt, rules::AT_LEAST_ONE)?;
    if settings.temperature == 0.0 {
        let sampled = ["top_p", "top_k", "samples_per_prompt"];
        if let Some(key) = table.first_key(|key| sampled.contains(&key)) {
            let message = format!("`{key}` has no effect: with temperature 0 decoding is greedy");
            return Err(table.at_key(key, message).help(format!("leave `{key}` out, or set a temperature above 0")));
        }
    }
    if let Some(context) = context.filter(|&context| settings.max_new_tokens >= context) {
        let message =
            format!("max_new_tokens = {} leaves no room for a prompt: the model reads {context} tokens", settings.max_new_tokens);
        return Err(table.at_value("max_new_tokens", message).help("lower it, or raise max_position_embeddings in [model]"));
    }
    Ok(settings)
}

fn compare(spec: &SuiteSpec, dataset: &Dataset, document: &Document) -> Result<CompareSettings> {
    let table = document.table("compare");
    let gold = matches!(dataset, Dataset::World(_)).then(|| GOLD.to_owned());
    let names: Vec<String> = spec.judge.iter().map(|judge| judge.name.clone()).chain(gold).collect();
    let written = spec.compare.as_ref().and_then(|compare| compare.judge.clone());
    let judge = match (written, spec.judge.as_slice()) {
        (Some(name), _) if names.contains(&name) => name,
        (Some(name), _) => {
            let error = table.at_value("judge", format!("there is no judge `{name}`"));
            return Err(error.help(super::translate::with_suggestion(&name, &names, "the judges are ")));
        }
        (None, [only]) => only.name.clone(),
        (None, []) => GOLD.to_owned(),
        (None, _) => {
            let listed = super::translate::with_suggestion("", &names, "write `[compare]` with `judge` one of ");
            let second = document.table("judge[1]");
            return Err(second.at_header("with several judges the suite must say whose win rate decides").help(listed));
        }
    };
    Ok(CompareSettings { judge })
}

fn statistics(
    spec: &SuiteSpec,
    dataset: &Dataset,
    judges: &[JudgeSettings],
    compare: &CompareSettings,
    table: &Table<'_>,
) -> Result<StatisticsSettings> {
    let written = spec.statistics.clone().unwrap_or_default();
    let mut settings = defaults::statistics();
    table.set(&mut settings.level, "level", written.level, rules::LEVEL)?;
    let Some(labels) = written.labels else {
        return match table.has("labels_share") {
            true => Err(table
                .at_key("labels_share", "`labels_share` has no effect: no `labels` correct the win rates")
                .help("leave it out, or say in `labels` who labels")),
            false => Ok(settings),
        };
    };
    let gold = matches!(dataset, Dataset::World(_)).then(|| GOLD.to_owned());
    let names: Vec<String> = judges.iter().map(|judge| judge.name.clone()).chain(gold).collect();
    if !names.contains(&labels) {
        let error = table.at_value("labels", format!("there is no judge `{labels}`"));
        return Err(error.help(super::translate::with_suggestion(&labels, &names, "the judges are ")));
    }
    if labels == compare.judge {
        let error = table.at_value("labels", format!("judge `{labels}` decides, and can't correct itself"));
        return Err(error.help("let a cheaper judge decide (`[compare] judge`) and this one correct it, or leave `labels` out"));
    }
    let mut share = 1.0;
    table.set(&mut share, "labels_share", written.labels_share, rules::PROBABILITY)?;
    let partial = judges.iter().any(|judge| judge.name == labels && matches!(judge.source, JudgeSource::Replay { .. }));
    if share == 1.0 && !partial {
        let message = format!("`{labels}` labels every prompt, so that nothing is left to correct");
        return Err(table
            .at_value("labels", message)
            .help("set `labels_share` to the share of prompts whose labels are to be used"));
    }
    settings.labels = Some(LabelSettings { judge: labels, share });
    Ok(settings)
}

/// Thresholds of what is measured on pairs.
const ON_PAIRS: [&str; 11] = [
    "displacement_warn",
    "displacement_fail",
    "position_warn",
    "chosen_fell_warn",
    "accuracy_gap_warn",
    "accuracy_gap_fail",
    "saturation_warn",
    "decoupling_warn",
    "beyond_chosen_warn",
    "beyond_chosen_fail",
    "opposite_rise_fail",
];

fn checks(spec: &SuiteSpec, dataset: &Dataset, table: &Table<'_>) -> Result<CheckSettings> {
    let coupling = |key: &str| key.starts_with("length_coupling");
    if let Some(key) = table.first_key(|key| ON_PAIRS.contains(&key) || coupling(key)).filter(|_| !dataset.has_pairs()) {
        let message = format!("`{key}` has no effect: it is measured on held-out pairs, and an unpaired file has none");
        return Err(table.at_key(key, message).help("leave it out"));
    }
    let written = spec.checks.clone().unwrap_or_default();
    let mut c = CheckSettings::default();
    c.overlay(&written, table)?;
    c.opposites = written.opposites;
    if c.opposites.is_some() && matches!(dataset, Dataset::World(_)) {
        let message = "`opposites` has no effect: a world makes its own, from the words that it is made of";
        return Err(table.at_key("opposites", message).help("leave it out"));
    }
    if c.opposites.is_none() && table.has("opposite_rise_fail") && matches!(dataset, Dataset::Pairs(_)) {
        let message = "`opposite_rise_fail` has no effect: there are no `opposites` to measure";
        return Err(table.at_key("opposite_rise_fail", message).help("leave it out, or name a file of `opposites`"));
    }
    let thresholds = c.thresholds();
    for (key, warn) in &thresholds {
        let Some(name) = key.strip_suffix("_warn") else { continue };
        let fail = thresholds.iter().find(|(other, _)| other.strip_suffix("_fail") == Some(name));
        if let Some((_, fail)) = fail.filter(|(_, fail)| warn > fail) {
            let written = if table.has(&format!("{name}_warn")) { "warn" } else { "fail" };
            let message = format!("{name}_warn = {warn} is above {name}_fail = {fail}, so it would never warn");
            return Err(table.at_value(&format!("{name}_{written}"), message));
        }
    }
    Ok(c)
}

fn gate(spec: &SuiteSpec, table: &Table<'_>) -> Result<GateSettings> {
    let written = spec.gate.clone().unwrap_or_default();
    let golden = written.golden.unwrap_or_else(|| PathBuf::from(format!("golden/{}.json", spec.name)));
    let mut settings = GateSettings {
        golden,
        margin: defaults::GATE_MARGIN,
        curve_tolerance: defaults::CURVE_TOLERANCE,
        on_inconclusive: defaults::ON_INCONCLUSIVE,
    };
    table.set(&mut settings.margin, "margin", written.margin, rules::SHARE)?;
    table.set(&mut settings.curve_tolerance, "curve_tolerance", written.curve_tolerance, rules::NOT_NEGATIVE)?;
    table.set(&mut settings.on_inconclusive, "on_inconclusive", written.on_inconclusive, rules::any())?;
    Ok(settings)
}

fn report(spec: &SuiteSpec, table: &Table<'_>) -> Result<ReportSettings> {
    let written = spec.report.clone().unwrap_or_default();
    let mut samples = defaults::REPORT_SAMPLES;
    table.set(&mut samples, "samples", written.samples, Rule { words: "at most 1000", holds: |n| n <= 1000 })?;
    Ok(ReportSettings { samples })
}
