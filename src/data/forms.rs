//! The forms in which preference data is published, read as one kind of row.
//!
//! | form | columns |
//! |---|---|
//! | pairs | `prompt`, `chosen`, `rejected` as texts (TRL: explicit, standard) |
//! | transcripts | `chosen`, `rejected`, whole transcripts with turns "\n\nHuman:" and "\n\nAssistant:" (HH-RLHF) |
//! | conversations | `chosen`, `rejected` as lists of messages, with `prompt` as one or without (TRL: conversational, explicit and implicit; UltraFeedback binarized, whose `prompt` repeats the first message) |
//! | ranking | `conversations`, and `chosen`, `rejected` as one message each (LLaMA-Factory, ShareGPT style) |
//! | instructions | `instruction`, `input`, `chosen`, `rejected` as texts (LLaMA-Factory, Alpaca style) |
//! | rated | `instruction`, and `completions` with their ratings (UltraFeedback as it was collected); `rated` makes pairs of them |
//! | labelled | `prompt`, `completion`, `label` (TRL: unpaired) |
//! | completions | `prompt`, `completion` (TRL: prompt–completion) |
//! | prompts | `prompt` (TRL: prompt-only) |
//!
//! An implicit prompt is what both sides share in whole messages, or transcripts up to a turn: never a part of a word, which is where a
//! common prefix of characters ends.

mod reading;

use std::collections::BTreeMap;

use self::reading::Reading;
use crate::data::field::{Field, Object};
use crate::data::rated::Rated;
use crate::data::source::Record;
use crate::error::Result;

pub const HUMAN: &str = "\n\nHuman:";
pub const ASSISTANT: &str = "\n\nAssistant:";

/// What the columns of a file are called, where that isn't what the forms call them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns(pub BTreeMap<String, String>);

impl Columns {
    fn of<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Pairs,
    Transcripts,
    Conversations,
    Ranking,
    Instructions,
    Rated,
    Labelled,
    Completions,
    Prompts,
}

/// A text, or messages that a chat template makes one of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Text(String),
    Messages(Vec<Object>),
}

/// What a row says about its prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Pair {
        chosen: Content,
        rejected: Content,
    },
    Labelled {
        completion: Content,
        label: bool,
    },
    Completion(Content),
    Nothing,
    /// A pair whose prompt is implicit and can't be told from its completions: the reason.
    Unsplit(&'static str),
    Rated(Vec<Rated>),
    /// Rated completions of which no pair can be made: the reason.
    Unrated(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
pub struct FormRow {
    pub id: String,
    pub prompt: Content,
    /// Schemas of the tools that the prompt offers.
    pub tools: Option<Field>,
    pub said: Said,
}

impl Form {
    /// The form of a row with these columns.
    pub fn of(record: &Record<'_>, columns: &Columns) -> Result<Self> {
        let fields = &record.fields;
        let present = |name: &str| fields.present(columns.of(name));
        let has = |name: &str| present(name).is_some();
        let is_text = |name: &str| matches!(present(name), Some(Field::Text(_)));
        if has("chosen") && has("rejected") {
            if has("conversations") {
                return Ok(Self::Ranking);
            }
            if !is_text("chosen") {
                return Ok(Self::Conversations);
            }
            if has("instruction") {
                return Ok(Self::Instructions);
            }
            if has("prompt") {
                return Ok(Self::Pairs);
            }
            let turns = |name| present(name).and_then(Field::text).is_some_and(|text| text.contains(ASSISTANT));
            if turns("chosen") && turns("rejected") {
                return Ok(Self::Transcripts);
            }
            let message = "\"chosen\" and \"rejected\" are texts without a \"prompt\", and hold no turns \"\\n\\nAssistant:\" to split them at";
            return Err(record.error(message).help("add the column \"prompt\", or give the sides as lists of messages"));
        }
        let seen: Vec<String> = fields.keys().map(|name| format!("\"{name}\"")).collect();
        let seen = if seen.is_empty() { "no column".to_owned() } else { seen.join(", ") };
        let half = [("chosen", "rejected"), ("rejected", "chosen")].into_iter().find(|(one, _)| has(one));
        if let Some((_, other)) = half {
            let message = format!("the row has {seen}, and \"{}\" is missing", columns.of(other));
            return Err(record
                .error(message)
                .help("a pair has a \"chosen\" side and a \"rejected\" one; [dataset.columns] tells what they are called"));
        }
        if has("instruction") && matches!(present("completions"), Some(Field::List(_))) {
            return Ok(Self::Rated);
        }
        match (has("prompt"), has("completion"), has("label")) {
            (true, true, true) => return Ok(Self::Labelled),
            (true, true, false) => return Ok(Self::Completions),
            (true, false, _) => return Ok(Self::Prompts),
            _ => {}
        }
        let help = if has("messages") {
            "a list of \"messages\" alone prefers nothing: split each into \"prompt\" and \"completion\""
        } else {
            "name your columns in [dataset.columns], say prompt = \"question\""
        };
        let known = "chosen and rejected, or prompt with or without completion and label";
        Err(record.error(format!("the row has {seen}, and a known form has {known}")).help(help))
    }

    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Transcripts => "transcripts",
            Self::Conversations => "conversations",
            Self::Ranking => "ranking",
            Self::Instructions => "instructions",
            Self::Rated => "rated",
            Self::Labelled => "labelled",
            Self::Completions => "completions",
            Self::Prompts => "prompts",
        }
    }

    /// What a row of it needs.
    pub fn help(self) -> &'static str {
        match self {
            Self::Pairs => "every line needs the texts \"prompt\", \"chosen\" and \"rejected\"",
            Self::Transcripts => {
                "every line needs the transcripts \"chosen\" and \"rejected\", with turns \"\\n\\nHuman:\" and \"\\n\\nAssistant:\""
            }
            Self::Conversations => {
                "\"chosen\" and \"rejected\" must be lists of messages, {\"role\": …, \"content\": …} each, and so must \"prompt\" where it isn't part of both"
            }
            Self::Ranking => {
                "every row needs \"conversations\", and \"chosen\" and \"rejected\" as one {\"from\": …, \"value\": …} each"
            }
            Self::Instructions => {
                "every row needs the texts \"instruction\", \"chosen\" and \"rejected\"; \"input\" may stand beside"
            }
            Self::Rated => {
                "every row needs the text \"instruction\" and the list \"completions\", {\"response\": …, \"annotations\": …, \"overall_score\": …} each"
            }
            Self::Labelled => "every line needs the texts \"prompt\" and \"completion\", and \"label\": true or false",
            Self::Completions => "every row needs \"prompt\" and \"completion\"",
            Self::Prompts => "every row needs \"prompt\"",
        }
    }

    pub fn read(self, record: &Record<'_>, columns: &Columns) -> Result<FormRow> {
        let reading = Reading { record, columns, form: self };
        let id = reading.id()?;
        let (prompt, said) = match self {
            Self::Pairs => {
                let prompt = reading.text("prompt")?;
                (prompt, Said::Pair { chosen: reading.text("chosen")?, rejected: reading.text("rejected")? })
            }
            Self::Transcripts => reading.transcripts()?,
            Self::Conversations => reading.conversations()?,
            Self::Ranking => reading.ranking()?,
            Self::Instructions => reading.instructions()?,
            Self::Rated => reading.rated()?,
            Self::Labelled | Self::Completions | Self::Prompts => reading.explicit()?,
        };
        Ok(FormRow { id, prompt, tools: reading.tools()?, said })
    }
}

/// The turns of a transcript as messages, without the white space around each. An answer that is still to come is none.
pub fn turns(transcript: &str) -> Vec<Object> {
    let mut messages = Vec::new();
    let mut rest = transcript;
    let mut speaker: Option<&str> = None;
    loop {
        let next = [("user", HUMAN), ("assistant", ASSISTANT)];
        let next = next.iter().filter_map(|(role, mark)| rest.find(mark).map(|at| (at, *role, *mark))).min_by_key(|(at, ..)| *at);
        let said = rest[..next.map_or(rest.len(), |(at, ..)| at)].trim();
        match speaker {
            Some(role) if next.is_some() || !said.is_empty() => messages.push(message(role, said)),
            // What stands before the first turn.
            None if !said.is_empty() => messages.push(message("system", said)),
            _ => {}
        }
        let Some((at, role, mark)) = next else { return messages };
        (speaker, rest) = (Some(role), &rest[at + mark.len()..]);
    }
}

pub fn message(role: &str, content: &str) -> Object {
    Object(vec![("role".to_owned(), role.into()), ("content".to_owned(), content.into())])
}

pub fn role(message: &Object) -> &str {
    message.present("role").and_then(Field::text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
