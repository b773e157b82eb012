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

use std::collections::BTreeMap;

use crate::data::field::{Field, Object};
use crate::data::rated::Rated;
use crate::data::source::Record;
use crate::error::{Error, Result};

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

/// One row as one form.
struct Reading<'a> {
    record: &'a Record<'a>,
    columns: &'a Columns,
    form: Form,
}

impl Reading<'_> {
    fn get(&self, name: &str) -> Option<&Field> {
        self.record.fields.get(self.columns.of(name))
    }

    fn present(&self, name: &str) -> Option<&Field> {
        self.record.fields.present(self.columns.of(name))
    }

    fn wrong(&self, name: &str, what: &str, expected: &str) -> Error {
        let name = self.columns.of(name);
        self.record.error(format!("\"{name}\" is {what}, and {expected} is expected")).help(self.help())
    }

    fn required(&self, name: &str) -> Result<&Field> {
        let missing = || self.record.error(format!("\"{}\" is missing", self.columns.of(name))).help(self.help());
        self.get(name).ok_or_else(missing)
    }

    /// What rows of the form hold; of a row that looks like one of another form, how that is read.
    fn help(&self) -> &'static str {
        let has = |name| self.get(name).is_some();
        match self.form {
            Form::Pairs | Form::Transcripts if has("completion") && has("label") => {
                "completions with a label are read with format = \"unpaired\" in [dataset]"
            }
            Form::Pairs | Form::Transcripts if matches!(self.get("chosen"), Some(Field::List(_))) => {
                "lists of messages are read with format = \"conversations\" in [dataset]"
            }
            Form::Labelled if has("chosen") && has("rejected") => {
                "pairs are read with format = \"explicit\" in [dataset], and \"kto\" takes them too"
            }
            form => form.help(),
        }
    }

    fn str(&self, name: &str) -> Result<&str> {
        let field = self.required(name)?;
        field.text().ok_or_else(|| self.wrong(name, field.kind(), "a text"))
    }

    fn text(&self, name: &str) -> Result<Content> {
        self.str(name).map(|text| Content::Text(text.to_owned()))
    }

    /// A text, or a list of messages.
    fn content(&self, name: &str) -> Result<Content> {
        match self.required(name)? {
            Field::Text(text) => Ok(Content::Text(text.clone())),
            Field::List(_) => self.messages(name).map(Content::Messages),
            other => Err(self.wrong(name, other.kind(), "a text or a list of messages")),
        }
    }

    fn id(&self) -> Result<String> {
        match self.get("id") {
            None | Some(Field::Null) => Ok(self.record.place.id()),
            Some(Field::Text(id)) => Ok(id.clone()),
            Some(Field::Number(id)) if id.is_u64() || id.is_i64() => Ok(id.to_string()),
            Some(other) => Err(self
                .record
                .error(format!("\"id\" is {}, and a text or a whole number is expected", other.kind()))
                .help("mend the id, or leave it out: pairs are then named by their lines")),
        }
    }

    fn label(&self) -> Result<bool> {
        match self.required("label")? {
            Field::Bool(label) => Ok(*label),
            // CSV knows texts only; pandas writes True and False.
            Field::Text(text) if self.record.untyped && text.eq_ignore_ascii_case("true") => Ok(true),
            Field::Text(text) if self.record.untyped && text.eq_ignore_ascii_case("false") => Ok(false),
            other => {
                let value = match other {
                    Field::Text(text) => format!(", {text:?}"),
                    Field::Number(number) => format!(", {number}"),
                    _ => String::new(),
                };
                let message = format!("\"label\" is {}{value}, and true or false is expected", other.kind());
                let marks = if self.record.untyped { "" } else { ", without quotation marks" };
                Err(self.record.error(message).help(format!("write true for a desirable completion, else false{marks}")))
            }
        }
    }

    /// Tools as a list of schemas, or as JSON in a text (Parquet can't hold schemas of different shapes).
    fn tools(&self) -> Result<Option<Field>> {
        let Some(field) = self.present("tools") else { return Ok(None) };
        let list = match field {
            Field::Text(text) if text.trim().is_empty() => return Ok(None),
            Field::Text(text) => serde_json::from_str(text).unwrap_or(Field::Null),
            other => other.clone(),
        };
        match list {
            Field::List(tools) if tools.is_empty() => Ok(None),
            Field::List(tools) => Ok(Some(Field::List(tools))),
            _ => Err(self.record.error(format!("\"tools\" is {}, and a list of schemas is expected", field.kind()))),
        }
    }

    /// One column's messages: a list of them, or one alone.
    fn messages(&self, name: &str) -> Result<Vec<Object>> {
        match self.required(name)? {
            Field::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| self.message(item, &format!("message {} of \"{name}\"", i + 1)))
                .collect(),
            one @ Field::Object(_) => Ok(vec![self.message(one, &format!("\"{name}\""))?]),
            other => Err(self.wrong(name, other.kind(), "a list of messages")),
        }
    }

    /// A message under the names "role" and "content"; ShareGPT's "from" and "value" are told apart by their own.
    fn message(&self, item: &Field, shown: &str) -> Result<Object> {
        let wrong = |what: String| Err(self.record.error(format!("{shown} {what}")).help(self.help()));
        let Field::Object(message) = item else { return wrong(format!("is {}, and an object is expected", item.kind())) };
        if let (None, Some(from), Some(value)) = (message.present("role"), message.present("from"), message.present("value")) {
            let role = match from.text() {
                Some("human" | "user") => "user",
                Some("gpt" | "assistant") => "assistant",
                Some("system") => "system",
                Some("observation" | "tool") => "tool",
                other => {
                    return wrong(format!(
                        "is from {:?}, and human, gpt, system or observation is expected",
                        other.unwrap_or("nobody")
                    ));
                }
            };
            if value.text().is_none() {
                return wrong(format!("has {} for a \"value\", and a text is expected", value.kind()));
            }
            return Ok(Object(vec![("role".to_owned(), role.into()), ("content".to_owned(), value.clone())]));
        }
        if message.present("role").and_then(Field::text).is_none() {
            return wrong("has no \"role\"".to_owned());
        }
        match message.get("content") {
            Some(Field::Text(_) | Field::List(_)) => Ok(message.clone()),
            // A call of tools may say nothing beside.
            None | Some(Field::Null) if message.present("tool_calls").is_some() => Ok(message.clone()),
            None => wrong("has no \"content\"".to_owned()),
            Some(other) => wrong(format!("has {} for \"content\", and a text is expected", other.kind())),
        }
    }

    fn transcripts(&self) -> Result<(Content, Said)> {
        let (chosen, rejected) = (self.str("chosen")?, self.str("rejected")?);
        let shared: usize = chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        // Identical transcripts share everything; their last turn is still the completion.
        let Some(at) = chosen[..shared].rfind(ASSISTANT) else {
            // Among the published ones a few are of two different conversations.
            if chosen.contains(ASSISTANT) && rejected.contains(ASSISTANT) {
                let reason = "they share no turn up to an answer of the assistant";
                return Ok((Content::Text(String::new()), Said::Unsplit(reason)));
            }
            let message = "chosen and rejected share no turn that ends with \"\\n\\nAssistant:\"";
            return Err(self.record.error(message).help(self.help()));
        };
        let end = at + ASSISTANT.len();
        let text = |text: &str| Content::Text(text.to_owned());
        Ok((text(&chosen[..end]), Said::Pair { chosen: text(&chosen[end..]), rejected: text(&rejected[end..]) }))
    }

    fn conversations(&self) -> Result<(Content, Said)> {
        let (chosen, rejected) = (self.messages("chosen")?, self.messages("rejected")?);
        if let Some(Field::List(_)) = self.present("prompt") {
            let prompt = Content::Messages(self.messages("prompt")?);
            return Ok((prompt, Said::Pair { chosen: Content::Messages(chosen), rejected: Content::Messages(rejected) }));
        }
        Ok(split(chosen, rejected))
    }

    fn ranking(&self) -> Result<(Content, Said)> {
        let mut prompt = self.system()?;
        prompt.extend(self.messages("conversations")?);
        let (chosen, rejected) = (self.messages("chosen")?, self.messages("rejected")?);
        Ok((Content::Messages(prompt), Said::Pair { chosen: Content::Messages(chosen), rejected: Content::Messages(rejected) }))
    }

    /// LLaMA-Factory's Alpaca style: the user says the instruction and, on a line of its own, the input.
    fn instructions(&self) -> Result<(Content, Said)> {
        let mut prompt = self.system()?;
        match self.present("history") {
            None => {}
            Some(Field::List(turns)) => {
                for turn in turns {
                    let said = |at: usize| if let Field::List(two) = turn { two.get(at).and_then(Field::text) } else { None };
                    let (Some(user), Some(assistant)) = (said(0), said(1)) else {
                        return Err(self.wrong("history", "no list of two texts a turn", "one"));
                    };
                    prompt.extend([message("user", user), message("assistant", assistant)]);
                }
            }
            Some(other) => return Err(self.wrong("history", other.kind(), "a list")),
        }
        let mut said = self.str("instruction")?.to_owned();
        if let Some(input) = self.present("input") {
            let input = input.text().ok_or_else(|| self.wrong("input", input.kind(), "a text"))?;
            if !input.is_empty() {
                said = format!("{said}\n{input}");
            }
        }
        prompt.push(message("user", &said));
        let answer = |name| Ok(Content::Messages(vec![message("assistant", self.str(name)?)]));
        Ok((Content::Messages(prompt), Said::Pair { chosen: answer("chosen")?, rejected: answer("rejected")? }))
    }

    fn rated(&self) -> Result<(Content, Said)> {
        let prompt = Content::Messages(vec![message("user", self.str("instruction")?)]);
        let Field::List(completions) = self.required("completions")? else {
            return Err(self.wrong("completions", self.required("completions")?.kind(), "a list"));
        };
        let one = |(number, field): (usize, &Field)| {
            let rated = if let Field::Object(completion) = field { Rated::of(completion) } else { None };
            let wrong = || self.record.error(format!("completion {} has no text \"response\"", number + 1)).help(self.help());
            rated.ok_or_else(wrong)
        };
        Ok((prompt, Said::Rated(completions.iter().enumerate().map(one).collect::<Result<_>>()?)))
    }

    fn system(&self) -> Result<Vec<Object>> {
        match self.present("system") {
            Some(Field::Text(text)) if text.is_empty() => Ok(Vec::new()),
            Some(Field::Text(text)) => Ok(vec![message("system", text)]),
            Some(other) => Err(self.wrong("system", other.kind(), "a text")),
            None => Ok(Vec::new()),
        }
    }

    fn explicit(&self) -> Result<(Content, Said)> {
        let prompt = self.content("prompt")?;
        if self.form == Form::Prompts {
            return Ok((prompt, Said::Nothing));
        }
        let completion = match prompt {
            Content::Text(_) => self.text("completion")?,
            Content::Messages(_) => Content::Messages(self.messages("completion")?),
        };
        let said = match self.form {
            Form::Labelled => Said::Labelled { completion, label: self.label()? },
            _ => Said::Completion(completion),
        };
        Ok((prompt, said))
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

/// Splits two conversations after the messages that both begin with; each side keeps one at least.
fn split(chosen: Vec<Object>, rejected: Vec<Object>) -> (Content, Said) {
    let most = chosen.len().min(rejected.len()).saturating_sub(1);
    let shared = chosen.iter().zip(&rejected).take(most).take_while(|(a, b)| a == b).count();
    let unsplit = |reason| (Content::Messages(chosen[..shared].to_vec()), Said::Unsplit(reason));
    if shared == 0 {
        return unsplit("they share no first message");
    }
    if [&chosen, &rejected].iter().any(|side| role(&side[shared]) != "assistant") {
        return unsplit("they part at a message that isn't the assistant's");
    }
    let said = Said::Pair {
        chosen: Content::Messages(chosen[shared..].to_vec()),
        rejected: Content::Messages(rejected[shared..].to_vec()),
    };
    (Content::Messages(chosen[..shared].to_vec()), said)
}

#[cfg(test)]
mod tests;
