//! Which files and folders a suite names, and whether those of this machine are there.

use std::path::Path;

use super::document::{Document, Table};
use super::settings::{AdapterSource, Dataset, JudgeSource, ModelSource, PolicySource, Suite};
use crate::error::{Error, Kind, Result};
use crate::hub::{Files, Repo, Written};

/// A file or folder that a suite names.
pub(super) struct Input<'a> {
    /// The table and the key that name it.
    table: String,
    key: &'static str,
    pub path: &'a Path,
    /// What of it is needed.
    pub files: Files,
    /// Whether it is preference data, which the hub keeps apart from models.
    data: bool,
}

impl Input<'_> {
    pub fn repo(&self) -> Repo {
        if self.data { Repo::Dataset } else { Repo::Model }
    }
}

/// In the order of the suite's tables.
pub(super) fn inputs(suite: &Suite) -> Vec<Input<'_>> {
    let mut all = Vec::new();
    let mut add = |table: String, key, path, files, data| all.push(Input { table, key, path, files, data });
    if let Dataset::Pairs(pairs) = &suite.dataset {
        match pairs.sources.as_slice() {
            [] => add("dataset".to_owned(), "path", pairs.path.as_path(), Files::One, true),
            sources => {
                for (index, source) in sources.iter().enumerate() {
                    add(format!("dataset.source[{index}]"), "path", source.path.as_path(), Files::One, true);
                }
            }
        }
        if let Some(template) = &pairs.reading.chat_template {
            add("dataset".to_owned(), "chat_template", template.path.as_path(), Files::One, false);
        }
    }
    if let ModelSource::Folder { path } = &suite.model {
        add("model".to_owned(), "path", path.as_path(), Files::Model, false);
    }
    if let Some(AdapterSource::Folder { path, .. }) = suite.sft.as_ref().and_then(|sft| sft.lora.as_ref()) {
        add("sft".to_owned(), "lora_adapter", path.as_path(), Files::Adapter, false);
    }
    for (index, variant) in suite.variants.iter().enumerate() {
        let table = format!("variant[{index}]");
        match &variant.policy {
            PolicySource::Checkpoint { path, .. } => add(table, "checkpoint", path.as_path(), Files::Policy, false),
            PolicySource::Decoded(_) | PolicySource::BestOfN(_) => {}
            PolicySource::Train(settings) => {
                if let Some(AdapterSource::Folder { path, .. }) = &settings.lora {
                    add(table, "lora_adapter", path.as_path(), Files::Adapter, false);
                }
            }
        }
    }
    for (index, judge) in suite.judges.iter().enumerate() {
        let table = format!("judge[{index}]");
        match &judge.source {
            JudgeSource::Folder { path } => add(table, "path", path.as_path(), Files::Judge, false),
            JudgeSource::Replay { path } => add(table, "path", path.as_path(), Files::One, true),
            JudgeSource::Implicit(implicit) => {
                add(table.clone(), "path", implicit.path.as_path(), Files::Policy, false);
                if let Some(reference) = &implicit.reference {
                    add(table, "reference", reference.path.as_path(), Files::Policy, false);
                }
            }
            JudgeSource::Train(_) | JudgeSource::Rubric { .. } | JudgeSource::Panel(_) => {}
        }
    }
    if let Some(opposites) = &suite.checks.opposites {
        add("checks".to_owned(), "opposites", opposites.as_path(), Files::One, true);
    }
    all
}

/// What is on this machine must be there; what is on the hub must be named properly.
pub(super) fn check(suite: &Suite, document: &Document) -> Result<()> {
    for input in inputs(suite) {
        let own = document.table(&input.table);
        // What a variant doesn't say stands in the table that it starts from.
        let table = if own.has(input.key) { own } else { document.table("train") };
        let is_file = input.files == Files::One;
        match Written::of(input.repo(), input.path) {
            Written::Hub(reference) => match (is_file, &reference.file) {
                (true, None) => {
                    let error = table.at_value(input.key, format!("`{}` names a repository of the hub, not a file", input.key));
                    return Err(error.help("name the file after a colon: org/name@<commit>:folder/file.jsonl"));
                }
                (false, Some(_)) => {
                    let error = table.at_value(input.key, format!("`{}` names a file of the hub, not a model", input.key));
                    return Err(error.help("leave out the colon and what follows it"));
                }
                _ => continue,
            },
            Written::Wrong(message, help) if !suite.locate(input.path).exists() => {
                return Err(table.at_value(input.key, message).help(help));
            }
            Written::Local | Written::Wrong(..) => on_this_machine(suite, &input, &table)?,
        }
    }
    Ok(())
}

fn on_this_machine(suite: &Suite, input: &Input<'_>, table: &Table<'_>) -> Result<()> {
    let path = suite.locate(input.path);
    let what = if input.files == Files::One { "file" } else { "folder" };
    if (what == "file" && !path.is_file()) || (what == "folder" && !path.is_dir()) {
        return Err(missing(table, input, what, &path));
    }
    let holds: &[&str] = match input.files {
        Files::One => &[],
        Files::Model | Files::Tokenizer => &["config.json", "tokenizer.json"],
        Files::Policy if path.join(ADAPTER[0]).is_file() => &ADAPTER,
        Files::Policy => &["config.json"],
        Files::Adapter => &ADAPTER,
        Files::Judge => &["model.onnx", "tokenizer.json"],
    };
    match holds.iter().find(|name| !path.join(name).is_file()) {
        Some(name) => Err(incomplete(table, input.key, &path, name, holds)),
        None => Ok(()),
    }
}

/// The files of a PEFT folder.
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

fn missing(table: &Table<'_>, input: &Input<'_>, what: &str, path: &Path) -> Error {
    let key = input.key;
    let problem = if path.exists() { format!("is no {what}") } else { "does not exist".to_owned() };
    let error = table.at_value(key, format!("{} {problem}", path.display()));
    let looks_like_the_hubs = !path.exists() && input.path.is_relative() && input.path.components().count() == 2;
    let hub = match (looks_like_the_hubs, what) {
        (true, "folder") => "; what lies on the Hugging Face hub is named with its commit, org/name@<40 digits>",
        _ => "",
    };
    Error { kind: Kind::Input, ..error }.help(format!("`{key}` names a {what}, relative to the suite file{hub}"))
}

fn incomplete(table: &Table<'_>, key: &str, path: &Path, name: &str, holds: &[&str]) -> Error {
    let error = table.at_value(key, format!("{} has no {name}", path.display()));
    Error { kind: Kind::Input, ..error }.help(format!("`{key}` names a folder that holds {}", holds.join(" and ")))
}
