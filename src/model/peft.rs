//! Adapters as PEFT keeps them: a folder with `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::model::{Adapter, Llama, Parameters};
use crate::store::write_atomically;
use crate::suite::settings::{Linear, LoraSettings};

/// Keys of `adapter_config.json` that change results, with the values (as JSON) under which they change nothing.
const PLAIN: [(&str, &[&str]); 24] = [
    ("alora_invocation_tokens", &["null"]),
    ("alpha_pattern", &["{}", "null"]),
    ("arrow_config", &["null"]),
    ("bias", &["\"none\"", "null"]),
    ("corda_config", &["null"]),
    ("eva_config", &["null"]),
    ("exclude_modules", &["null", "[]"]),
    ("init_lora_weights", &["true", "false", "\"gaussian\"", "\"orthogonal\"", "null"]),
    ("kasa_config", &["null"]),
    ("layer_replication", &["null"]),
    ("layers_pattern", &["null"]),
    ("layers_to_transform", &["null"]),
    ("lora_bias", &["false", "null"]),
    ("lora_ga_config", &["null"]),
    ("megatron_config", &["null"]),
    ("modules_to_save", &["null", "[]"]),
    ("monteclora_config", &["null"]),
    ("rank_pattern", &["{}", "null"]),
    ("target_parameters", &["null", "[]"]),
    ("trainable_token_indices", &["null"]),
    ("use_bdlora", &["false", "null"]),
    ("use_dora", &["false", "null"]),
    ("use_qalora", &["false", "null"]),
    ("velora_config", &["null"]),
];

impl Adapter {
    pub const CONFIG: &str = "adapter_config.json";
    pub const WEIGHTS: &str = "adapter_model.safetensors";

    /// Whether a folder holds an adapter rather than a model.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(Self::CONFIG).exists()
    }

    /// A PEFT folder. Whether its tensors fit a base shows in [`Llama::with_adapter`].
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::CONFIG);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
        let settings = settings(&text).map_err(|e| e.in_file(&path))?;
        Ok(Self { settings, parameters: Parameters::read(&folder.join(Self::WEIGHTS))? })
    }

    /// Writes a folder that PEFT reads.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
        write_atomically(&folder.join(Self::CONFIG), &[self.config_json().as_bytes()])?;
        write_atomically(&folder.join(Self::WEIGHTS), &[&self.parameters.to_safetensors()])
    }

    /// `adapter_config.json`. It names no base: where that lies is no part of the adapter.
    pub fn config_json(&self) -> String {
        let s = &self.settings;
        let names: Vec<&str> = s.target_modules.iter().map(|linear| linear.name()).collect();
        let value = json!({
            "alpha_pattern": {},
            "base_model_name_or_path": null,
            "bias": "none",
            // How the base stores its matrices; where that is otherwise, PEFT corrects it.
            "fan_in_fan_out": s.target_modules.iter().any(|linear| linear.inputs_first()),
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": s.lora_alpha,
            "lora_dropout": s.lora_dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": s.r,
            "rank_pattern": {},
            "target_modules": names,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": s.use_rslora,
        });
        serde_json::to_string_pretty(&value).expect("JSON values serialise") + "\n"
    }
}

/// What `adapter_config.json` says; what is not computed here is refused by name.
fn settings(text: &str) -> Result<LoraSettings> {
    let value: Value = serde_json::from_str(text).map_err(|e| Error::input(format!("not valid JSON: {e}")))?;
    let keys = value.as_object().ok_or_else(|| Error::input("a JSON object is expected"))?;
    if keys.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        let found = keys.get("peft_type").map_or("missing".to_owned(), Value::to_string);
        return Err(Error::input(format!("`peft_type` is {found}; only adapters of type \"LORA\" are supported")));
    }
    for (key, plain) in PLAIN {
        if let Some(value) = keys.get(key)
            && !plain.contains(&value.to_string().as_str())
        {
            return Err(Error::input(format!(
                "`{key}` = {value} is not supported: LoRA on linear layers alone is computed here"
            ))
            .help("merge such an adapter with PEFT (`merge_and_unload`) and use the merged model"));
        }
    }
    let wrong = |key: &str, expected: &str| {
        let found = keys.get(key).map_or("missing".to_owned(), Value::to_string);
        Error::input(format!("`{key}` is {found}, but {expected} is expected"))
    };
    let r = keys.get("r").and_then(Value::as_u64).filter(|r| *r > 0).ok_or_else(|| wrong("r", "a positive whole number"))?;
    let lora_alpha = keys.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite() && *a > 0.0);
    let dropout = keys.get("lora_dropout").map_or(Some(0.0), Value::as_f64).filter(|p| (0.0..1.0).contains(p));
    Ok(LoraSettings {
        r: r as usize,
        lora_alpha: lora_alpha.ok_or_else(|| wrong("lora_alpha", "a positive number"))?,
        lora_dropout: dropout.ok_or_else(|| wrong("lora_dropout", "a number from 0 to below 1"))?,
        target_modules: target_modules(keys)?,
        use_rslora: keys.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// Names, or "all-linear", which is all of Llama's and so all of any family's; PEFT's other form, a pattern, is not read.
fn target_modules(keys: &Map<String, Value>) -> Result<Vec<Linear>> {
    let value = keys.get("target_modules").unwrap_or(&Value::Null);
    if value.as_str() == Some("all-linear") {
        return Ok(Linear::ALL.to_vec());
    }
    let refused = |found: String| {
        Error::input(format!("`target_modules` has {found}, which isn't adapted here"))
            .help(format!("the linear layers are {}", Linear::EVERY.map(Linear::name).join(", ")))
    };
    let names = value.as_array().filter(|names| !names.is_empty()).ok_or_else(|| refused(value.to_string()))?;
    let mut modules = Vec::new();
    for name in names {
        let found = Linear::EVERY.into_iter().find(|linear| name.as_str() == Some(linear.name()));
        modules.push(found.ok_or_else(|| refused(name.to_string()))?);
    }
    modules.sort_unstable();
    modules.dedup();
    Ok(modules)
}

impl Llama {
    /// A model folder, or a PEFT folder, which is then merged into `base`.
    pub fn load_policy(folder: &Path, base: impl FnOnce() -> Result<Self>) -> Result<Self> {
        if !Adapter::is_in(folder) {
            return Self::load(folder);
        }
        let adapter = Adapter::load(folder)?;
        Ok(base()?.with_adapter(adapter).map_err(|e| e.in_file(folder.join(Adapter::WEIGHTS)))?.merged())
    }
}
