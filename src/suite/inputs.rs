//! Whether the files and folders that a suite names are there.

use std::path::Path;

use super::document::{Document, Table};
use super::settings::{AdapterSource, Dataset, JudgeSource, ModelSource, PolicySource, Suite};
use crate::error::{Error, Kind, Result};

pub(super) fn check(suite: &Suite, document: &Document) -> Result<()> {
    if let Dataset::Pairs(pairs) = &suite.dataset {
        let path = suite.locate(&pairs.path);
        if !path.is_file() {
            return Err(missing(&document.table("dataset"), "path", "file", &path));
        }
        if let Some(template) = &pairs.reading.chat_template {
            let path = suite.locate(&template.path);
            if !path.is_file() {
                return Err(missing(&document.table("dataset"), "chat_template", "file", &path));
            }
        }
    }
    let folder = |written: &Path, table: Table<'_>, key: &str, holds: &[&str]| {
        let path = suite.locate(written);
        if !path.is_dir() {
            return Err(missing(&table, key, "folder", &path));
        }
        match holds.iter().find(|name| !path.join(name).is_file()) {
            Some(name) => Err(incomplete(&table, key, &path, name, holds)),
            None => Ok(()),
        }
    };
    if let ModelSource::Folder { path } = &suite.model {
        folder(path, document.table("model"), "path", &["config.json", "tokenizer.json"])?;
    }
    for (index, variant) in suite.variants.iter().enumerate() {
        let table = document.table(format!("variant[{index}]"));
        match &variant.policy {
            PolicySource::Checkpoint { path, .. } => {
                let adapter = suite.locate(path).join(ADAPTER[0]).is_file();
                folder(path, table, "checkpoint", if adapter { &ADAPTER } else { &["config.json"] })?;
            }
            PolicySource::Train(settings) => {
                if let Some(AdapterSource::Folder { path, .. }) = &settings.lora {
                    let table = if table.has("lora_adapter") { table } else { document.table("train") };
                    folder(path, table, "lora_adapter", &ADAPTER)?;
                }
            }
        }
    }
    if let Some(AdapterSource::Folder { path, .. }) = suite.sft.as_ref().and_then(|sft| sft.lora.as_ref()) {
        folder(path, document.table("sft"), "lora_adapter", &ADAPTER)?;
    }
    for (index, judge) in suite.judges.iter().enumerate() {
        let table = || document.table(format!("judge[{index}]"));
        match &judge.source {
            JudgeSource::Folder { path } => folder(path, table(), "path", &["model.onnx", "tokenizer.json"])?,
            JudgeSource::Replay { path } => {
                let path = suite.locate(path);
                if !path.is_file() {
                    return Err(missing(&table(), "path", "file", &path));
                }
            }
            JudgeSource::Implicit(implicit) => {
                let adapter = suite.locate(&implicit.path).join(ADAPTER[0]).is_file();
                folder(&implicit.path, table(), "path", if adapter { &ADAPTER } else { &["config.json"] })?;
                if let Some(reference) = &implicit.reference {
                    folder(&reference.path, table(), "reference", &["config.json"])?;
                }
            }
            JudgeSource::Train(_) | JudgeSource::Rubric { .. } | JudgeSource::Panel(_) => {}
        }
    }
    Ok(())
}

/// The files of a PEFT folder.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

fn missing(table: &Table<'_>, key: &str, what: &str, path: &Path) -> Error {
    let problem = if path.exists() { format!("is no {what}") } else { "does not exist".to_owned() };
    let error = table.at_value(key, format!("{} {problem}", path.display()));
    Error { kind: Kind::Input, ..error }.help(format!("`{key}` names a {what}, relative to the suite file"))
}

fn incomplete(table: &Table<'_>, key: &str, path: &Path, name: &str, holds: &[&str]) -> Error {
    let error = table.at_value(key, format!("{} has no {name}", path.display()));
    Error { kind: Kind::Input, ..error }.help(format!("`{key}` names a folder that holds {}", holds.join(" and ")))
}
