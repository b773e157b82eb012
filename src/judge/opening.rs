//! What makes an ONNX judge the judge that it is.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::judge::runtime;
use crate::suite::settings::JudgeSettings;

/// Everything that can change an answer: the library, the model with its external weights, the tokenizer, and how both are used. Not the
/// judge's name, nor what is made of its answers, nor where it came from.
pub fn identity(folder: &Path, settings: &JudgeSettings) -> Result<Value> {
    let mut used = serde_json::to_value(settings).expect("settings are plain data");
    let map = used.as_object_mut().expect("settings are a struct");
    ["name", "source", "tie_width", "min_accuracy", "fitness"].iter().for_each(|&key| drop(map.remove(key)));
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read the folder", folder, &e))?;
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read the folder", folder, &e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Descriptions beside the model aren't read, nor are the weights that it was exported from.
        let read = name == crate::judge::session::TOKENIZER_FILE || !(name.ends_with(".json") || name.ends_with(".safetensors"));
        if path.is_file() && read {
            files.insert(name, Digest::of_file(&path)?);
        }
    }
    Ok(json!({"kind": "onnx", "runtime": runtime::ensure()?.library, "settings": used, "files": files}))
}
