//! What the files beside a judge's model say of it, as transformers saved them: `config.json` and `tokenizer_config.json`. Both may be absent.

use std::path::Path;

use serde_json::Value;
use tokenizers::{PaddingDirection, Tokenizer};

use super::TOKENIZER_FILE;
use crate::error::{Error, Result};
use crate::suite::settings::Side;

/// transformers writes 10³⁰ where a tokenizer has no limit.
const NO_LIMIT: f64 = 1e9;

/// Families that count positions from the padding token's id on, so that many fewer are left.
const SHIFTED: [&str; 8] =
    ["roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "longformer", "data2vec-text", "mpnet"];

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Card {
    /// `model_max_length`, tokens.
    pub tokenizer_limit: Option<usize>,
    /// How many positions the model was made with, tokens.
    pub positions: Option<usize>,
    pub truncation_side: Option<Side>,
    pub padding_side: Option<Side>,
    pub pad_token_id: Option<u32>,
    /// The names of the classes, in order; empty where they have none.
    pub labels: Vec<String>,
    pub vocab_size: Option<usize>,
}

impl Card {
    pub fn read(folder: &Path) -> Result<Self> {
        let (config, tokenizer_config) = (json(&folder.join("config.json"))?, json(&folder.join("tokenizer_config.json"))?);
        // What can't be read is told by the reader, with more to say.
        let tokenizer = Tokenizer::from_file(folder.join(TOKENIZER_FILE)).ok();
        let number = |value: &Value| value.as_f64().filter(|&n| (1.0..NO_LIMIT).contains(&n)).map(|n| n as usize);
        let padding = tokenizer.as_ref().and_then(|tokenizer| tokenizer.get_padding());
        let named = || {
            let token = &tokenizer_config["pad_token"];
            let token = token.as_str().or_else(|| token["content"].as_str())?;
            tokenizer.as_ref()?.token_to_id(token)
        };
        let pad_token_id = config["pad_token_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let pad_token_id = pad_token_id.or_else(named).or_else(|| padding.map(|padding| padding.pad_id));
        let positions = number(&config["max_position_embeddings"]).or_else(|| number(&config["n_positions"]));
        let shift = match config["model_type"].as_str() {
            Some(family) if SHIFTED.contains(&family) => pad_token_id.map_or(0, |id| id as usize + 1),
            _ => 0,
        };
        // transformers leaves out what is its default, and cuts on the right by default.
        let default_side = tokenizer_config.is_object().then_some(Side::Right);
        let padded = padding.map(|padding| match padding.direction {
            PaddingDirection::Left => Side::Left,
            PaddingDirection::Right => Side::Right,
        });
        Ok(Self {
            tokenizer_limit: number(&tokenizer_config["model_max_length"]),
            positions: positions.map(|n| n.saturating_sub(shift)),
            truncation_side: side(&tokenizer_config["truncation_side"]).or(default_side),
            padding_side: side(&tokenizer_config["padding_side"]).or(padded),
            pad_token_id,
            labels: labels(&config["id2label"]),
            vocab_size: number(&config["vocab_size"]),
        })
    }
}

fn side(value: &Value) -> Option<Side> {
    match value.as_str()? {
        "left" => Some(Side::Left),
        "right" => Some(Side::Right),
        _ => None,
    }
}

/// `{"0": "A", "1": "B"}` in the order of its numbers.
fn labels(id2label: &Value) -> Vec<String> {
    let Some(map) = id2label.as_object() else { return Vec::new() };
    (0..map.len()).map_while(|id| map.get(&id.to_string())?.as_str().map(str::to_owned)).collect()
}

fn json(path: &Path) -> Result<Value> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(e) => return Err(Error::io("read", path, &e)),
    };
    serde_json::from_str(&text).map_err(|e| Error::input(format!("this is no JSON: {e}")).at_line(path, e.line()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(config: &str, tokenizer_config: &str) -> Result<Card> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("config.json", config), ("tokenizer_config.json", tokenizer_config)] {
            if !text.is_empty() {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
        }
        let tokenizer = crate::judge::reader::tests::tokenizer();
        std::fs::write(folder.path().join(TOKENIZER_FILE), tokenizer.json()).unwrap();
        Card::read(folder.path())
    }

    #[test]
    fn a_folder_without_configurations_says_nothing_and_a_damaged_one_is_an_error_with_its_line() {
        assert_eq!(card("", "").unwrap(), Card::default());
        let error = card("{\n\"a\" 1}", "").unwrap_err();
        assert!(error.to_string().contains("config.json:2"), "{error}");
    }

    #[test]
    fn limits_sides_and_the_padding_token_are_read_as_transformers_writes_them() {
        let card = card(
            r#"{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1, "id2label": {"0": "A", "1": "B"}}"#,
            r#"{"model_max_length": 1000000000000000019884624838656, "truncation_side": "left", "padding_side": "right"}"#,
        )
        .unwrap();
        assert_eq!((card.positions, card.tokenizer_limit, card.pad_token_id), (Some(512), None, Some(1)));
        assert_eq!((card.truncation_side, card.padding_side), (Some(Side::Left), Some(Side::Right)));
        assert_eq!(card.labels, ["A", "B"]);
    }

    #[test]
    fn a_padding_token_is_found_by_its_name() {
        let pad = card("", r#"{"pad_token": "<pad>"}"#).unwrap().pad_token_id;
        let expected = crate::judge::reader::tests::tokenizer();
        assert_eq!(pad, Tokenizer::from_bytes(expected.json()).unwrap().token_to_id("<pad>"));
        assert!(pad.is_some());
        assert_eq!(card("", "{}").unwrap().truncation_side, Some(Side::Right));
        assert_eq!(card("", r#"{"pad_token": {"content": "<pad>"}}"#).unwrap().pad_token_id, pad);
    }
}
