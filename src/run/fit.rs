//! Whether the models that a suite names can do what it asks of them, said before any work.

use crate::error::{Error, Result};
use crate::judge;
use crate::model::{Adapter, Family, LlamaConfig, check_targets};
use crate::suite::Suite;
use crate::suite::settings::{AdapterSource, JudgeSource, ModelSource, PolicySource, TrainSettings};

/// Reads configurations only. A model whose folder isn't there yet is asked when it is.
pub(super) fn check(suite: &Suite) -> Result<()> {
    let base = match &suite.model {
        ModelSource::Fresh(_) => None,
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
                if !Adapter::is_in(&folder) && folder.join("config.json").is_file() {
                    LlamaConfig::load(&folder)?;
                }
            }
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
