//! Hugging Face folders: `config.json` beside `model.safetensors` (or the shards that an index names).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::{LlamaConfig, Parameters};
use crate::store::{write_atomically, write_atomically_with};

pub(crate) fn read_config(folder: &Path) -> Result<LlamaConfig> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
    LlamaConfig::from_json(&text).map_err(|e| e.in_file(path))
}

/// Every tensor of the folder's weight files.
pub(crate) fn read_tensors(folder: &Path) -> Result<Parameters> {
    let index = folder.join("model.safetensors.index.json");
    // One file goes before shards, as in transformers: the hub's cache may hold both.
    if !index.exists() || folder.join("model.safetensors").exists() {
        return read_shard(folder, "model.safetensors");
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io("read", &index, &e))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::input(format!("not valid JSON: {e}")).in_file(&index))?;
    let names = value["weight_map"].as_object().ok_or_else(|| Error::input("`weight_map` is missing").in_file(&index))?;
    let shards: BTreeSet<&str> = names.values().filter_map(|v| v.as_str()).collect();
    let mut all = Parameters::new();
    for shard in shards {
        let part = read_shard(folder, shard)?;
        part.into_iter().for_each(|(name, tensor)| all.insert(name, tensor));
    }
    Ok(all)
}

fn read_shard(folder: &Path, name: &str) -> Result<Parameters> {
    let path = folder.join(name);
    let file = File::open(&path).map_err(|e| Error::io("read", &path, &e))?;
    let length = file.metadata().map_err(|e| Error::io("read", &path, &e))?.len();
    let tensors = Parameters::read_safetensors(&mut BufReader::new(file), length).map_err(|e| e.in_file(path))?;
    // Older files hold the rotary frequencies, which follow from the configuration; transformers passes over them too.
    Ok(tensors.into_iter().filter(|(name, _)| !name.ends_with(".rotary_emb.inv_freq")).collect())
}

pub(crate) fn write(folder: &Path, config: &str, parameters: &Parameters) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    write_atomically(&folder.join("config.json"), &[config.as_bytes()])?;
    write_atomically_with(&folder.join("model.safetensors"), |file| parameters.write_safetensors(file))
}
