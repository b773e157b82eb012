//! How a file of preference data is read: names of columns and the chat template. Every part stands in digests only where it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::PairsFormat;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReadingSettings {
    /// What the file calls a column, by the name that the format gives it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// None: the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<TemplateFile>,
    /// The day that a chat template's `strftime_now` takes for today: YYYY-MM-DD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_date: Option<String>,
    /// Some: the whole audit is made, and what goes beyond these shares fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditLimits>,
    /// How pairs are made of rated completions.
    #[serde(skip_serializing_if = "RatingSettings::is_usual")]
    pub ratings: RatingSettings,
    #[serde(skip_serializing_if = "Tokenization::is_joint")]
    pub tokenization: Tokenization,
}

/// How prompt and completion become tokens: what TRL's trainers have done over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tokenization {
    /// Both as one text, cut where the prompt's own tokens end (`DPOTrainer` from 0.29 on).
    #[default]
    Joint,
    /// Each by itself, without BOS, and EOS after every completion (0.12 to 0.28).
    Separate,
    /// Both as one text; where a token reaches over the boundary, the completion begins with it (until 0.11, `CPOTrainer` and `ORPOTrainer`
    /// still).
    WalkBack,
}

impl Tokenization {
    fn is_joint(&self) -> bool {
        *self == Self::Joint
    }

    /// As suites name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joint => "joint",
            Self::Separate => "separate",
            Self::WalkBack => "walk_back",
        }
    }
}

/// How a pair is made of several rated completions: the best one is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RatingSettings {
    pub by: RatedBy,
    pub rejected: RejectedBy,
}

impl RatingSettings {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What of UltraFeedback's annotations ranks completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RatedBy {
    /// The mean of the ratings of the four aspects.
    #[default]
    Ratings,
    /// `overall_score`, which contradicts the ratings of some rows (a best score of 1 read as 10).
    OverallScore,
}

/// Which of the worse completions is rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectedBy {
    /// One of them by chance, the same one in every run.
    #[default]
    Random,
    /// The one with the lowest rating.
    Worst,
}

/// One of several files that a suite reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceSettings {
    /// Its rows' ids begin with it.
    pub name: String,
    /// As written; `Suite::locate_data` resolves it.
    pub path: PathBuf,
    pub format: PairsFormat,
    pub limit: Option<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// How often an epoch sees each row that is trained on: 2 twice, 0.5 half of the rows.
    pub weight: f64,
}

/// One of several files, with its own form and weight.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Names the source in ids, audit and report: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The file, relative to the suite file, or of a data set on the Hugging Face hub: `org/name@<commit>:file`.
    pub path: PathBuf,
    /// As `format` of `[dataset]`. All sources are pairs or all are single completions, and all are texts or all are conversations.
    pub format: Option<PairsFormat>,
    /// What this file calls its columns.
    pub columns: Option<ColumnsSpec>,
    /// Use only the first rows of this file.
    pub limit: Option<usize>,
    /// How often an epoch sees each training row of this source, 1 if not given: 2 is twice, 0.5 half of its rows (by hash, always the
    /// same). Held-out, judges' and evaluation rows are taken once.
    pub weight: Option<f64>,
}

/// The largest share of cases that is accepted, by the id of the audit's item.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AuditLimits(pub BTreeMap<String, f64>);

/// A file by its place, which keys leave out; its contents are part of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TemplateFile {
    /// As written; `Suite::locate` resolves it.
    pub path: PathBuf,
}

/// Declares a table of optional keys of one type, from one list of them.
macro_rules! table {
    ($(#[$about:meta])* $table:ident of $type:ty { $($(#[$doc:meta])* $name:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $table {
            $($(#[$doc])* pub $name: Option<$type>,)*
        }

        impl $table {
            /// What is written, by the keys' names.
            pub(super) fn written(&self) -> BTreeMap<&'static str, $type> {
                let keys = [$((stringify!($name), &self.$name),)*];
                keys.into_iter().filter_map(|(name, written)| Some((name, written.clone()?))).collect()
            }
        }
    };
}

table! {
    /// What the file calls the columns of the format, where it isn't what the format calls them.
    ColumnsSpec of String {
    /// Names a row.
    id,
    prompt,
    chosen,
    rejected,
    completion,
    /// true for a desirable completion.
    label,
    /// Conversations: what the prompt's tools look like.
    tools,
    /// Conversations: the messages before `chosen` and `rejected` (LLaMA-Factory's ranking form).
    conversations,
    /// Conversations: what the user says (LLaMA-Factory's Alpaca form).
    instruction,
    /// Conversations: what the user says on a second line.
    input,
    /// Conversations: the system message.
    system,
    /// Conversations: turns before, each a list of two texts.
    history,
}}

table! {
    /// The whole audit of the data, near-duplicates and shared n-grams included, and for each of its counts the largest share that is
    /// accepted (0: none; what isn't named may be any). A run with more has a finding that fails its gate, and `data audit` ends with
    /// an error.
    AuditSpec of f64 {
    /// Completions whose first token begins within their prompt.
    boundary_mismatch,
    /// Tokens for what the vocabulary lacks.
    unknown_tokens,
    /// Texts: tokens of the texts themselves that are special ones.
    special_tokens_in_text,
    /// Conversations: rows with a special token's text in a message.
    special_tokens_in_messages,
    /// Completions that max_length cuts.
    truncated,
    truncated_chosen,
    truncated_rejected,
    truncated_completion,
    /// Completions that max_length leaves no token of.
    emptied_by_truncation,
    missing_bos,
    double_bos,
    missing_eos,
    double_eos,
    /// Completions without a text.
    empty_completions,
    /// Rows that are nearly another.
    near_duplicates,
    /// Evaluation prompts that share 13 words in a row with a training text.
    ngram_overlap_train_eval,
    duplicate_pairs,
    duplicate_rows,
    contradictory_pairs,
    contradictory_labels,
    /// Pairs whose chosen side is the longer one.
    chosen_longer,
    /// Pairs with the same text on both sides, which are left out.
    identical_sides_left_out,
    /// Conversations whose sides share no prompt, which are left out.
    unsplit_left_out,
    /// Conversations whose text doesn't begin with their prompt's, which are left out.
    prompt_not_in_conversation,
    /// Rated completions without a worse one, which are left out.
    unrated_left_out,
    /// Labels that contradict others on the same texts, so that one of them is wrong: the least share of wrong labels.
    label_noise_at_least,
    /// Labels that a simple cross-validated classifier doesn't predict: the largest share of wrong labels.
    label_noise_at_most,
}}
