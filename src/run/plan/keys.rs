//! What goes into keys: settings without the places where inputs lie, and the digests of these.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hub::{self, Files};
use crate::suite::Suite;
use crate::suite::settings::{AdapterSource, Dataset, TrainSettings};

/// What cells of a file's rows depend on: that the audit is whole, not what it may find (that is asked when findings are made).
pub(super) fn rows_settings(dataset: &Dataset) -> Value {
    let mut value = without_paths(dataset);
    if let Some(audit) = value.as_object_mut().and_then(|map| map.get_mut("audit")) {
        *audit = Value::Bool(true);
    }
    value
}

/// What the data cell depends on. How a world's samples are labelled later is no part of it: the SFT needn't run again.
pub(super) fn data_settings(dataset: &Dataset) -> Value {
    let mut value = without_paths(dataset);
    let later: &[&str] = match dataset {
        Dataset::World(_) => &["samples_per_prompt", "pairs_per_prompt", "label_temperature", "label_noise", "sampling"],
        Dataset::Pairs(_) => &["audit"],
    };
    if let Some(map) = value.as_object_mut() {
        later.iter().for_each(|&name| drop(map.remove(name)));
    }
    value
}

/// Settings as JSON without the places where inputs lie: their contents are in the key, their paths must not be.
pub(super) fn without_paths<T: Serialize>(settings: &T) -> Value {
    let mut value = serde_json::to_value(settings).expect("settings are plain data");
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("path");
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}

/// Settings of a training as JSON, with the contents of an adapter that is trained on in place of its path.
pub(super) fn without_adapter_path(suite: &Suite, settings: &TrainSettings) -> Result<Value> {
    let mut value = without_paths(settings);
    if let Some(AdapterSource::Folder { path, .. }) = &settings.lora {
        value["lora"]["files"] = folder_digests(suite, path, Files::Adapter)?;
    }
    Ok(value)
}

/// The digest of a file of preference data.
pub(super) fn file_digest(suite: &Suite, written: &Path) -> Result<Digest> {
    hub::verified_digest(&suite.locate_data(written))
}

/// Digests of the files in a model or judge folder that can change a number, wherever it lies: those of the hub's cache that are needed,
/// each held against its name there, or all of a folder of this machine.
pub(super) fn folder_digests(suite: &Suite, written: &Path, files: Files) -> Result<Value> {
    if let Some(reference) = Suite::model_on_hub(written) {
        return Ok(json!(hub::digests(&reference, files)?));
    }
    let folder = &suite.locate(written);
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, &e))?;
    let mut digests = std::collections::BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read the folder", folder, &e))?.path();
        let relevant = path
            .extension()
            .is_some_and(|e| ["json", "jinja", "safetensors", "onnx", "data", "onnx_data"].iter().any(|x| e == *x));
        if relevant && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            digests.insert(name, Digest::of_file(&path)?);
        }
    }
    if digests.is_empty() {
        return Err(Error::input(format!("{} holds no model: no .json, .safetensors or .onnx file is in it", folder.display())));
    }
    Ok(json!(digests))
}
