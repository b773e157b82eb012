//! How a judge that is trained here reads its text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A causal language model's by default: each token sees those before it, and the last one tells the score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EncodingSettings {
    pub attention: Attention,
    pub pooling: Pooling,
}

impl EncodingSettings {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a token sees of its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// The tokens before it, and itself.
    #[default]
    Causal,
    /// All of them: an encoder.
    Bidirectional,
}

/// Where a text's score is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// At its last token.
    #[default]
    Last,
    /// The mean over its tokens; the head is linear, so that of their states and that of their scores are one.
    Mean,
}
