//! `[[judge]]`.

use super::training::{Surroundings, alone};
use super::{kinds, name_is_free, names_differ};
use crate::error::Result;
use crate::suite::defaults::{self, Purpose};
use crate::suite::document::{Document, Table};
use crate::suite::one_or_many::OneOrMany;
use crate::suite::rules;
use crate::suite::settings::{
    Attention, Dataset, EncodingSettings, JudgeKind, JudgeSettings, JudgeSource, OnnxSettings, Pooling,
};
use crate::suite::spec::{JudgeKindSpec, JudgeSpec, SuiteSpec};

pub(super) fn judges(
    spec: &SuiteSpec,
    dataset: &Dataset,
    surroundings: &Surroundings,
    document: &Document,
) -> Result<Vec<JudgeSettings>> {
    if spec.judge.is_empty() && matches!(dataset, Dataset::Pairs(_)) {
        let error = document.table("").at_header("the suite has no `[[judge]]`, so there is no win rate");
        let training = if dataset.has_pairs() { "; without `path` it is trained on your pairs" } else { ", and a `path`" };
        return Err(error.help(format!("add a [[judge]] with `name` and `kind`{training}")));
    }
    let names: Vec<&str> = spec.judge.iter().map(|judge| judge.name.as_str()).collect();
    names_differ(&names, "judge", document)?;
    let judge = |(index, written)| judge(written, dataset, surroundings, &format!("judge[{index}]"), document);
    let judges: Vec<JudgeSettings> = spec.judge.iter().enumerate().map(judge).collect::<Result<_>>()?;
    kinds::panels(&judges, document)?;
    Ok(judges)
}

fn judge(
    written: &JudgeSpec,
    dataset: &Dataset,
    surroundings: &Surroundings,
    path: &str,
    document: &Document,
) -> Result<JudgeSettings> {
    let table = document.table(path);
    name_is_free(&written.name, &table)?;
    keys_have_effect(written, &table)?;
    let kind = form(written.kind);
    let trained = written.path.is_none() && kinds::is_onnx(written.kind);
    let mut settings = JudgeSettings {
        name: written.name.clone(),
        kind,
        source: match written.kind {
            JudgeKindSpec::Pairwise | JudgeKindSpec::RewardModel => onnx(written, dataset, surroundings, path, document)?,
            _ => kinds::source(written, path, document)?,
        },
        template: if kinds::is_onnx(written.kind) { template(written, kind, &table)? } else { String::new().into() },
        max_length: match written.kind {
            JudgeKindSpec::Pairwise | JudgeKindSpec::RewardModel if trained => Some(surroundings.max_length()),
            JudgeKindSpec::Pairwise | JudgeKindSpec::RewardModel => None,
            _ => Some(defaults::MAX_LENGTH),
        },
        tie_width: defaults::TIE_WIDTH,
        min_accuracy: defaults::MIN_ACCURACY,
        encoding: encoding(written, &table)?,
        onnx: OnnxSettings::default(),
        fitness: kinds::fitness(written, &document.table(format!("{path}.fitness")))?,
    };
    if kinds::is_onnx(written.kind) {
        settings.onnx = super::onnx::onnx(written, kind, settings.template.0.len(), &table)?;
    }
    if let Some(mut length) = written.max_length {
        table.set(&mut length, "max_length", written.max_length, rules::TWO_OR_MORE)?;
        settings.max_length = Some(length);
    }
    if trained {
        surroundings.length_fits(settings.max_length, &table)?;
    }
    if let JudgeSource::Train(train) = &mut settings.source {
        train.max_length = settings.max_length;
    }
    table.set(&mut settings.tie_width, "tie_width", written.tie_width, rules::NOT_NEGATIVE)?;
    if !dataset.has_pairs() && table.has("min_accuracy") {
        let message = "`min_accuracy` has no effect: an unpaired file has no pairs to measure the judge on";
        return Err(table.at_key("min_accuracy", message).help("leave it out"));
    }
    table.set(&mut settings.min_accuracy, "min_accuracy", written.min_accuracy, rules::BELOW_ONE)?;
    Ok(settings)
}

fn encoding(written: &JudgeSpec, table: &Table<'_>) -> Result<EncodingSettings> {
    if let Some(key) = table.first_key(|key| ["attention", "pooling"].contains(&key)).filter(|_| written.path.is_some()) {
        let error = table.at_key(key, format!("`{key}` has no effect: `path` brings a judge that reads as it was exported"));
        return Err(error.help("leave it out; it is for a judge that is trained here"));
    }
    let attention = written.attention.unwrap_or_default();
    let usual = if attention == Attention::Bidirectional { Pooling::Mean } else { Pooling::Last };
    Ok(EncodingSettings { attention, pooling: written.pooling.unwrap_or(usual) })
}

/// The form of the judge's answers.
fn form(kind: JudgeKindSpec) -> JudgeKind {
    match kind {
        JudgeKindSpec::Pairwise | JudgeKindSpec::Replay | JudgeKindSpec::Panel => JudgeKind::Pairwise,
        JudgeKindSpec::RewardModel | JudgeKindSpec::Rubric | JudgeKindSpec::Implicit => JudgeKind::RewardModel,
    }
}

/// Refuses keys that a kind of judge doesn't look at.
fn keys_have_effect(written: &JudgeSpec, table: &Table<'_>) -> Result<()> {
    let own = kinds::keys(written.kind);
    let idle = |key: &str| !["name", "kind", "min_accuracy"].contains(&key) && !own.contains(&key);
    let Some(key) = table.first_key(idle) else { return Ok(()) };
    let error =
        table.at_key(key, format!("`{key}` has no effect: a judge of kind \"{}\" has no such thing", kinds::name(written.kind)));
    Err(error.help(format!("its keys are name, kind, min_accuracy, {}", own.join(", "))))
}

fn onnx(
    written: &JudgeSpec,
    dataset: &Dataset,
    surroundings: &Surroundings,
    path: &str,
    document: &Document,
) -> Result<JudgeSource> {
    let table = document.table(path);
    if let Some(folder) = &written.path {
        if written.train.is_some() {
            let error = table.at_key("train", "`[judge.train]` has no effect: `path` brings a judge that is trained already");
            return Err(error.help("leave out one of the two"));
        }
        return Ok(JudgeSource::Folder { path: folder.clone() });
    }
    if !dataset.has_pairs() {
        let message =
            format!("judge `{}` can't be trained here: it learns from pairs, and an unpaired file has none", written.name);
        return Err(table.at_header(message).help("give it a `path` with a judge that is trained already"));
    }
    if let Dataset::Pairs(pairs) = dataset
        && pairs.judge_share == 0.0
    {
        let error = document.table("dataset").at_value("judge_share", "judge_share = 0 leaves no pairs to train a judge on");
        return Err(error.help(format!("raise it, or give judge `{}` a `path`", written.name)));
    }
    let train = document.table(format!("{path}.train"));
    let spec = written.train.clone().unwrap_or_default();
    if train.has("max_length") {
        let error = train.at_key("max_length", "`max_length` has no effect in [judge.train]: the judge's own counts");
        return Err(error.help("write `max_length` in [[judge]]"));
    }
    alone(&spec, Purpose::Judge, surroundings, &train).map(|settings| JudgeSource::Train(Box::new(settings)))
}

/// Every placeholder must be one that the judge reads, and what is judged must be among them; the prompt may be left out.
fn template(written: &JudgeSpec, kind: JudgeKind, table: &Table<'_>) -> Result<OneOrMany<String>> {
    let Some(templates) = &written.template else { return Ok(defaults::template(kind).to_owned().into()) };
    let (judged, listed): (&[&str], _) = match kind {
        JudgeKind::Pairwise => (&["a", "b"], "{prompt}, {a}, {b}"),
        JudgeKind::RewardModel => (&["completion"], "{prompt}, {completion}"),
    };
    let wrong = |what: String| {
        let error = table.at_value("template", format!("the template {what}"));
        error.help(format!("this kind of judge reads {listed}"))
    };
    let most = match (&written.path, kind) {
        (None, _) => 1,
        (Some(_), JudgeKind::RewardModel) => 2,
        (Some(_), JudgeKind::Pairwise) => 3,
    };
    if templates.0.is_empty() || templates.0.len() > most {
        let error = table.at_value("template", format!("`template` lists {} texts", templates.0.len()));
        return Err(error.help(match most {
            1 => "a judge that is trained here reads one text",
            2 => "a reward model reads one text, or two as the tokenizer's pair",
            _ => "a pairwise judge reads one text, two as the tokenizer's pair, or three: of the prompt, of {a} and of {b}",
        }));
    }
    let whole = templates.0.concat();
    for after in templates.0.iter().flat_map(|template| template.split('{').skip(1)) {
        let Some((name, _)) = after.split_once('}') else { return Err(wrong("has a `{` without its `}`".to_owned())) };
        if name != "prompt" && !judged.contains(&name) {
            return Err(wrong(format!("names {{{name}}}")));
        }
    }
    if let Some(name) = judged.iter().find(|name| !whole.contains(&format!("{{{name}}}"))) {
        return Err(wrong(format!("lacks {{{name}}}")));
    }
    let ordered = |(template, name): (&String, &str)| template.matches('{').count() == 1 && template.contains(name);
    if templates.0.len() == 3 && !templates.0.iter().zip(["{prompt}", "{a}", "{b}"]).all(ordered) {
        return Err(wrong("lists three texts that aren't of {prompt}, of {a} and of {b}, in this order".to_owned()));
    }
    Ok(templates.clone())
}
