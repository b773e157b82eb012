//! Which files of a repository are needed. Nothing else of it is fetched, and nothing else is part of a key: what other programs put into
//! the same cache changes nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::{Error, Result};

/// What a repository is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// A model with its tokenizer.
    Model,
    /// The same without its weights.
    Tokenizer,
    /// A model, whose tokenizer is another's, or an adapter.
    Policy,
    Adapter,
    /// An ONNX model with its tokenizer.
    Judge,
    /// The file that the reference names.
    One,
}

/// What is known of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Here,
    /// The repository has it, and it isn't here yet.
    Listed,
    /// The repository doesn't have it.
    Absent,
    /// Nobody has asked.
    Unknown,
}

/// The names that are needed, as far as is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub required: Vec<String>,
    /// Used where the repository has them.
    pub optional: Vec<String>,
}

const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";
const ADAPTER: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Beside a policy, which may bring its own.
const ITS_TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];
const TOKENIZER: [&str; 2] = ["tokenizer_config.json", "chat_template.jinja"];

impl Files {
    /// `known`: of a name. `index`: what the index of the weights says, once it is here.
    pub(super) fn select(self, known: &dyn Fn(&str) -> Known, index: &dyn Fn() -> Result<String>) -> Result<Selection> {
        let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let there = |name: &str| matches!(known(name), Known::Here | Known::Listed);
        let mut selection = match self {
            Self::One => Selection::default(),
            Self::Model | Self::Tokenizer => {
                Selection { required: names(&["config.json", "tokenizer.json"]), optional: names(&TOKENIZER) }
            }
            Self::Policy if there(ADAPTER[0]) => {
                return Ok(Selection { required: names(&ADAPTER), optional: names(&ITS_TOKENIZER) });
            }
            Self::Policy => {
                let optional = [names(&ADAPTER[..1]), names(&ITS_TOKENIZER)].concat();
                Selection { required: names(&["config.json"]), optional }
            }
            Self::Adapter => Selection { required: names(&ADAPTER), optional: Vec::new() },
            // The data of a large ONNX model stands beside it, under one of these names.
            Self::Judge => Selection {
                required: names(&["model.onnx", "tokenizer.json"]),
                optional: names(&["tokenizer_config.json", "config.json", "model.onnx_data", "model.onnx.data"]),
            },
        };
        if matches!(self, Self::Model | Self::Policy) {
            match there(INDEX) && !there(WEIGHTS) {
                true => {
                    selection.required.push(INDEX.to_owned());
                    if known(INDEX) == Known::Here {
                        selection.required.extend(shards(&index()?)?);
                    }
                }
                false => selection.required.push(WEIGHTS.to_owned()),
            }
        }
        Ok(selection)
    }
}

/// The files that an index of weights names, in order.
fn shards(index: &str) -> Result<BTreeSet<String>> {
    let wrong = || Error::input(format!("{INDEX} isn't one: it has no map \"weight_map\" from tensors to files"));
    let index: Value = serde_json::from_str(index).map_err(|_| wrong())?;
    let map = index["weight_map"].as_object().ok_or_else(wrong)?;
    let file = |value: &Value| value.as_str().filter(|file| super::reference::is_file(file)).map(str::to_owned);
    map.values().map(|value| file(value).ok_or_else(wrong)).collect()
}
