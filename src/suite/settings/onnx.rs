//! What a suite says about an ONNX judge that was brought along, where the model's own files don't say it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Empty where the suite says nothing: everything is then found in the folder, or an error names the key to write.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OnnxSettings {
    /// Of a judge that reads three texts: the tokens that the first of them may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation_side: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding_side: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// The model's name for each input that isn't named as transformers names it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<InputRole, String>,
    /// The model's name for the output to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
    /// What each class means, in the order of the output's columns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
}

impl OnnxSettings {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An end of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Left,
    Right,
}

/// What a classifier is given, under transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputRole {
    InputIds,
    /// 1 for a token, 0 for padding.
    AttentionMask,
    /// 0 for the first text, 1 for the second.
    TokenTypeIds,
    PositionIds,
}

impl InputRole {
    pub const ALL: [Self; 4] = [Self::InputIds, Self::AttentionMask, Self::TokenTypeIds, Self::PositionIds];

    pub fn name(self) -> &'static str {
        match self {
            Self::InputIds => "input_ids",
            Self::AttentionMask => "attention_mask",
            Self::TokenTypeIds => "token_type_ids",
            Self::PositionIds => "position_ids",
        }
    }
}

/// What the numbers of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    Logits,
    /// After a sigmoid (one class) or a softmax (several).
    Probabilities,
}

/// What a class means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Pairwise: the first completion is better.
    First,
    /// Pairwise: the second is.
    Second,
    /// Pairwise: neither is.
    Tie,
    /// Reward model: the completion is good.
    Good,
    /// Reward model: it is bad.
    Bad,
}

impl Label {
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Tie => "tie",
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

/// What computes. Scores of different providers differ in the last bits, so it is part of what a judge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    Cpu,
    /// An NVIDIA GPU, by an ONNX Runtime that was built for it.
    Cuda,
}
