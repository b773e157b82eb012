//! Whether the models that a suite names can do what it asks of them, said before any work.

use crate::error::{Error, Result};
use crate::judge;
use crate::model::{Adapter, Family, LlamaConfig, check_targets, evaluated_only};
use crate::suite::Suite;
use crate::suite::settings::{AdapterSource, JudgeSource, ModelSource, Numerics, PolicySource, TrainSettings};

/// Reads configurations only. A model whose folder isn't there yet is asked when it is.
pub(super) fn check(suite: &Suite) -> Result<()> {
    let through_candle = evaluated(suite)?;
    if let Some((what, family)) = through_candle.first()
        && suite.numerics == Numerics::Strict
    {
        return Err(Error::usage(format!(
            "{what} is a model of type \"{family}\", which candle-transformers computes: its sums have no fixed order"
        ))
        .help("set numerics = \"fast\" at the top of the suite: it can be evaluated there, and the report says so"));
    }
    let evaluated_base = through_candle.iter().find(|(what, _)| what == BASE);
    if let Some((_, family)) = evaluated_base {
        over_evaluated(suite, family)?;
    }
    let base = match &suite.model {
        ModelSource::Fresh(_) => None,
        ModelSource::Folder { .. } if evaluated_base.is_some() => None,
        ModelSource::Folder { path } if suite.locate(path).join("config.json").is_file() => {
            Some(LlamaConfig::load(&suite.locate(path))?)
        }
        ModelSource::Folder { .. } => return Ok(()),
    };
    let family = base.as_ref().map_or(Family::Llama, |config| config.family);
    let mut trainings: Vec<(String, &TrainSettings)> = Vec::new();
    trainings.extend(suite.sft.iter().map(|sft| ("[sft]".to_owned(), sft)));
    for variant in &suite.variants {
        match &variant.policy {
            PolicySource::Train(settings) => trainings.push((format!("variant `{}`", variant.name), settings)),
            PolicySource::Checkpoint { path, .. } => {
                let folder = suite.locate(path);
                if !Adapter::is_in(&folder) && folder.join("config.json").is_file() && evaluated_only(&folder)?.is_none() {
                    LlamaConfig::load(&folder)?;
                }
            }
            PolicySource::Decoded(_) | PolicySource::BestOfN(_) => {}
        }
    }
    for (what, settings) in trainings {
        if let Some(AdapterSource::Fresh(lora)) = &settings.lora {
            let named = |error: Error| Error { message: format!("{what}: {}", error.message), ..error };
            check_targets(family, &lora.target_modules).map_err(named)?;
        }
    }
    let trained = suite.judges.iter().filter(|judge| matches!(judge.source, JudgeSource::Train(_)));
    base.iter().flat_map(|base| trained.clone().map(move |judge| judge::train::check_length(judge, base))).collect()
}

const BASE: &str = "[model]";

/// The models of a suite that candle-transformers computes, each with its `model_type`.
pub fn evaluated(suite: &Suite) -> Result<Vec<(String, &'static str)>> {
    let mut folders = Vec::new();
    if let ModelSource::Folder { path } = &suite.model {
        folders.push((BASE.to_owned(), path));
    }
    for variant in &suite.variants {
        if let PolicySource::Checkpoint { path, .. } = &variant.policy {
            folders.push((format!("variant `{}`", variant.name), path));
        }
    }
    for judge in &suite.judges {
        if let JudgeSource::Implicit(implicit) = &judge.source {
            let reference = implicit.reference.as_ref().map(|folder| &folder.path);
            folders
                .extend(std::iter::once(&implicit.path).chain(reference).map(|path| (format!("judge `{}`", judge.name), path)));
        }
    }
    let mut found = Vec::new();
    for (what, path) in folders {
        let folder = suite.locate(path);
        if !Adapter::is_in(&folder)
            && folder.join("config.json").is_file()
            && let Some(family) = evaluated_only(&folder)?
        {
            found.push((what, family));
        }
    }
    Ok(found)
}

/// An error where something would be trained over a reference that has no gradients.
fn over_evaluated(suite: &Suite, family: &str) -> Result<()> {
    let trained = suite.variants.iter().find(|variant| matches!(variant.policy, PolicySource::Train(_)));
    let judge = suite.judges.iter().find(|judge| matches!(judge.source, JudgeSource::Train(_)));
    let what = match (&suite.sft, trained, judge) {
        (Some(_), ..) => "[sft] trains".to_owned(),
        (_, Some(variant), _) => format!("variant `{}` is trained", variant.name),
        (.., Some(judge)) => format!("judge `{}` is trained", judge.name),
        _ => return Ok(()),
    };
    Err(Error::usage(format!(
        "{what} over a model of type \"{family}\", which can only be evaluated: candle-transformers computes it, without gradients"
    ))
    .help("train it elsewhere and name what came out as a variant's `checkpoint`; judges can be brought along"))
}
