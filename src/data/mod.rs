//! Preference data: rows, file formats, tokenisation, splits, audit, and the synthetic world.

pub mod audit;
pub mod convert;
pub mod field;
pub mod files;
pub mod forms;
pub mod label;
pub mod parts;
pub mod rated;
pub mod shelf;
mod sorter;
pub mod source;
pub mod sources;
pub mod split;
pub mod template;
pub mod tokenize;
pub mod world;

use serde::{Deserialize, Serialize};

/// One preference pair, as text. File form: JSONL, one object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Unique within its file.
    pub id: String,
    /// Pairs of one prompt share it: splits and intervals go by prompt.
    pub prompt_id: String,
    pub prompt: String,
    pub chosen: String,
    pub rejected: String,
    /// Gold rewards of the two sides, where the truth is known (synthetic world).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<GoldPair>,
}

/// A prompt with one completion and whether it is desirable, under TRL's names. File form: JSONL, one object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelledCompletion {
    /// Unique within its file.
    pub id: String,
    /// As a pair's.
    pub prompt_id: String,
    pub prompt: String,
    pub completion: String,
    pub label: bool,
}

/// A row of preferences: a prompt, and what it says about completions of it.
pub trait PreferenceRow {
    /// What messages call one.
    const UNIT: &str;

    fn id(&self) -> &str;
    fn prompt_id(&self) -> &str;
    fn prompt(&self) -> &str;
    /// The completion that is to be imitated, if any.
    fn imitated(&self) -> Option<&str>;

    /// The same after its prompt.
    fn demonstration(&self) -> Option<Demonstration> {
        let (prompt_id, prompt) = (self.prompt_id().to_owned(), self.prompt().to_owned());
        self.imitated().map(|completion| Demonstration { prompt_id, prompt, completion: completion.to_owned() })
    }
}

impl PreferenceRow for Pair {
    const UNIT: &str = "pair";

    fn id(&self) -> &str {
        &self.id
    }

    fn prompt_id(&self) -> &str {
        &self.prompt_id
    }

    fn prompt(&self) -> &str {
        &self.prompt
    }

    fn imitated(&self) -> Option<&str> {
        Some(&self.chosen)
    }
}

impl PreferenceRow for LabelledCompletion {
    const UNIT: &str = "row";

    fn id(&self) -> &str {
        &self.id
    }

    fn prompt_id(&self) -> &str {
        &self.prompt_id
    }

    fn prompt(&self) -> &str {
        &self.prompt
    }

    fn imitated(&self) -> Option<&str> {
        self.label.then_some(&self.completion)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GoldPair {
    pub chosen: f64,
    pub rejected: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    pub id: String,
    pub text: String,
}

/// A prompt with a completion to imitate (SFT).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Demonstration {
    pub prompt_id: String,
    pub prompt: String,
    pub completion: String,
}

/// A pair as token ids. The prompt's ids begin with BOS where the tokenizer has one; each completion ends with EOS unless
/// it was truncated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenizedPair {
    pub id: String,
    pub prompt_id: String,
    pub prompt: Vec<u32>,
    pub chosen: Vec<u32>,
    pub rejected: Vec<u32>,
}

/// A prompt and one completion as token ids, by the same rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenizedExample {
    pub prompt_id: String,
    pub prompt: Vec<u32>,
    pub completion: Vec<u32>,
}

/// One count of the data audit, `train-eval-overlap` say. Checks turn it into a finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditItem {
    pub id: String,
    pub count: u64,
    pub total: u64,
    /// Whether anything but zero makes the run's claims invalid (overlap of train and evaluation, say).
    pub must_be_zero: bool,
    /// One sentence: what was counted, and the first case.
    pub message: String,
}

impl AuditItem {
    pub fn share(&self) -> f64 {
        self.count as f64 / self.total.max(1) as f64
    }
}
