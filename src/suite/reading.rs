//! How a file of preference data is read: names of columns and the chat template. Every part stands in digests only where it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}}
