//! A row's fields as a form needs them, with errors that name the column and what the form's rows hold.

use super::{ASSISTANT, Columns, Content, Form, Said, message, role};
use crate::data::field::{Field, Object};
use crate::data::rated::Rated;
use crate::data::source::Record;
use crate::error::{Error, Result};

/// One row as one form.
pub(super) struct Reading<'a> {
    pub record: &'a Record<'a>,
    pub columns: &'a Columns,
    pub form: Form,
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

    pub fn text(&self, name: &str) -> Result<Content> {
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

    pub fn id(&self) -> Result<String> {
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
    pub fn tools(&self) -> Result<Option<Field>> {
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

    pub fn transcripts(&self) -> Result<(Content, Said)> {
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

    pub fn conversations(&self) -> Result<(Content, Said)> {
        let (chosen, rejected) = (self.messages("chosen")?, self.messages("rejected")?);
        if let Some(Field::List(_)) = self.present("prompt") {
            let prompt = Content::Messages(self.messages("prompt")?);
            return Ok((prompt, Said::Pair { chosen: Content::Messages(chosen), rejected: Content::Messages(rejected) }));
        }
        Ok(split(chosen, rejected))
    }

    pub fn ranking(&self) -> Result<(Content, Said)> {
        let mut prompt = self.system()?;
        prompt.extend(self.messages("conversations")?);
        let (chosen, rejected) = (self.messages("chosen")?, self.messages("rejected")?);
        Ok((Content::Messages(prompt), Said::Pair { chosen: Content::Messages(chosen), rejected: Content::Messages(rejected) }))
    }

    /// LLaMA-Factory's Alpaca style: the user says the instruction and, on a line of its own, the input.
    pub fn instructions(&self) -> Result<(Content, Said)> {
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

    pub fn rated(&self) -> Result<(Content, Said)> {
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

    pub fn explicit(&self) -> Result<(Content, Said)> {
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
