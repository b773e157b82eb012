//! Hugging Face folders: `config.json` beside `model.safetensors` (or the shards that an index names).

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::model::{Family, LlamaConfig, Parameters};
use crate::store::{write_atomically, write_atomically_with};

pub(crate) const CONFIG: &str = "config.json";

pub(crate) fn read_config(folder: &Path) -> Result<LlamaConfig> {
    LlamaConfig::from_json(&config_text(folder)?).map_err(|e| e.in_file(folder.join(CONFIG)))
}

pub(crate) fn config_text(folder: &Path) -> Result<String> {
    let path = folder.join(CONFIG);
    std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))
}

/// Every tensor of the folder's weight files that says something, under the names that transformers saves.
pub(crate) fn read_tensors(folder: &Path, family: Family) -> Result<Parameters> {
    read_named(folder, &|name| usual_name(name, family))
}

/// Every tensor of the folder's weight files that `named` has a name for.
pub(crate) fn read_named(folder: &Path, named: &dyn Fn(&str) -> Option<String>) -> Result<Parameters> {
    let index = folder.join("model.safetensors.index.json");
    // One file goes before shards, as in transformers: the hub's cache may hold both.
    if !index.exists() || folder.join("model.safetensors").exists() {
        return Parameters::read_named(&folder.join("model.safetensors"), named);
    }
    let text = std::fs::read_to_string(&index).map_err(|e| Error::io("read", &index, &e))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| Error::input(format!("not valid JSON: {e}")).in_file(&index))?;
    let names = value["weight_map"].as_object().ok_or_else(|| Error::input("`weight_map` is missing").in_file(&index))?;
    let shards: BTreeSet<&str> = names.values().filter_map(|v| v.as_str()).collect();
    let mut all = Parameters::new();
    for shard in shards {
        let part = Parameters::read_named(&folder.join(shard), named)?;
        part.into_iter().for_each(|(name, tensor)| all.insert(name, tensor));
    }
    Ok(all)
}

/// What transformers calls a tensor of an older file; none of one that follows from the configuration, which it passes over too: rotary
/// frequencies and causal masks.
fn usual_name(name: &str, family: Family) -> Option<String> {
    let buffers: &[&str] = match family {
        Family::Gpt2 => &[".attn.bias", ".attn.masked_bias"],
        Family::GptNeoX => &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
        _ => &[".rotary_emb.inv_freq"],
    };
    if buffers.iter().any(|buffer| name.ends_with(buffer)) {
        return None;
    }
    // What transformers 5 calls GPT-NeoX's head in memory.
    if family == Family::GptNeoX && name == "lm_head.weight" {
        return Some("embed_out.weight".to_owned());
    }
    // OpenAI's files begin below `transformer`.
    let whole = family != Family::Gpt2 || ["transformer.", "lm_head.", "score."].iter().any(|start| name.starts_with(start));
    Some(if whole { name.to_owned() } else { format!("transformer.{name}") })
}

pub(crate) fn write(folder: &Path, config: &str, parameters: &Parameters) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
    write_atomically(&folder.join(CONFIG), &[config.as_bytes()])?;
    write_atomically_with(&folder.join("model.safetensors"), |file| parameters.write_safetensors(file))
}
