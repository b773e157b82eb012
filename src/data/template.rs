//! Chat templates: messages to text as `transformers` renders them (`apply_chat_template`, versions 4.43 to 5).
//!
//! Templates are Jinja. `transformers` renders them with Jinja2, `trim_blocks` and `lstrip_blocks` set, loop controls, and its own
//! `tojson`, `raise_exception`, `strftime_now` and `{% generation %}`; here they are rendered by minijinja with Python's methods of
//! strings, lists and dictionaries, and values printed as Python prints them. `strftime_now` gives the date that the suite states: a
//! template that asks for one where none is stated is an error, so that no result depends on the day.

mod python;

use std::path::Path;

use jiff::civil::Date;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, context};

use crate::data::field::{Field, Object};
use crate::data::tokenize::CHAT_TEMPLATE;
use crate::error::{Error, Result};
use crate::suite::Suite;
use crate::suite::settings::PairsSettings;

/// The names under which transformers takes a message's reasoning; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
const NAME: &str = "chat template";
/// Instructions after which a rendering counts as one that never ends; those of long conversations take thousands.
const FUEL: u64 = 5_000_000;

/// A compiled chat template with the special tokens of its tokenizer.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and so on, as texts.
    special_tokens: Vec<(String, String)>,
}

/// A prompt and a completion as the template writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub prompt: String,
    pub completion: String,
}

impl ChatTemplate {
    /// `date`: what `strftime_now` gives.
    pub fn new(source: &str, special_tokens: Vec<(String, String)>, date: Option<Date>) -> Result<Self> {
        let mut environment = Environment::new();
        let blocks = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(blocks.expect("the usual delimiters"));
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(python::print);
        environment.add_filter("tojson", python::tojson);
        environment.add_filter("string", |value: &Value| python::str(value));
        environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("the template says: {message}")))
        });
        environment.add_function("strftime_now", move |format: String| {
            let Some(date) = date else {
                let message = "the template asks for today's date: state one as chat_date = \"2026-01-31\" in [dataset]";
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
            };
            jiff::fmt::strtime::format(&format, date)
                .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
        });
        // Jinja2 reads every line ending as "\n".
        let text = without_generation(&source.replace("\r\n", "\n").replace('\r', "\n"));
        environment.add_template_owned(NAME, text).map_err(|e| {
            let line = e.line().map_or(String::new(), |line| format!("line {line} of "));
            Error::input(format!("{line}the chat template isn't understood: {}", words(&e)))
        })?;
        Ok(Self { environment, special_tokens })
    }

    /// Whether the text of a special token stands in what a message says.
    pub fn special_in(&self, message: &Object) -> bool {
        let said = message.get("content").and_then(Field::text).unwrap_or_default();
        self.special_tokens.iter().any(|(_, token)| !token.is_empty() && said.contains(token.as_str()))
    }

    /// Who speaks and what, line by line: for looking at conversations where no model is at hand.
    pub fn plain() -> Self {
        let source = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}\
                      {% if add_generation_prompt %}assistant: {% endif %}";
        Self::new(source, Vec::new(), None).expect("our own template is one")
    }

    /// The text of a conversation; with `add_generation_prompt` up to where the assistant's answer begins.
    pub fn render(&self, messages: &[Object], tools: Option<&Field>, add_generation_prompt: bool) -> Result<String> {
        let messages: Vec<Object> = messages.iter().map(with_reasoning).collect();
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            let special = Value::from_pairs(self.special_tokens.iter().map(|(name, text)| (name.clone(), text.clone())));
            template.render(context! {
                messages => messages.iter().map(python::object).collect::<Value>(),
                tools => tools.map_or(Value::from(()), python::value),
                documents => Value::from(()),
                add_generation_prompt,
                ..special
            })
        });
        rendered.map_err(|e| Error::input(format!("the chat template can't write this conversation: {}", words(&e))))
    }

    /// Prompt and completion as TRL cuts them: the prompt is written up to where the assistant's answer begins
    /// (`add_generation_prompt`), the whole conversation is written, and the completion is the rest of it. None if the whole doesn't
    /// begin with the prompt.
    pub fn cut(&self, prompt: &[Object], completion: &[Object], tools: Option<&Field>) -> Result<Option<Rendered>> {
        let start = self.render(prompt, tools, true)?;
        let whole: Vec<Object> = prompt.iter().chain(completion).cloned().collect();
        let whole = self.render(&whole, tools, false)?;
        Ok(whole.strip_prefix(&start).map(|rest| Rendered { completion: rest.to_owned(), prompt: start.clone() }))
    }
}

/// The template that a suite's conversations are written with: its own file, or that of the `model` folder. None where rows are texts.
pub fn of_suite(suite: &Suite, settings: &PairsSettings, model: &Path) -> Result<Option<ChatTemplate>> {
    if !settings.format.is_conversational() {
        return Ok(None);
    }
    let source = source(suite, settings, model)?;
    let date = settings.reading.chat_date.as_deref().and_then(|date| date.parse().ok());
    ChatTemplate::new(&source, special_tokens(model)?, date).map(Some)
}

/// The template that a model's folder brings.
pub fn of_model(folder: &Path) -> Result<ChatTemplate> {
    let none = || Error::input("the model folder has no chat template, and the data is conversations").in_file(folder);
    ChatTemplate::new(&of_folder(folder)?.ok_or_else(none)?, special_tokens(folder)?, None)
}

/// The text of that template.
pub fn source(suite: &Suite, settings: &PairsSettings, model: &Path) -> Result<String> {
    if let Some(source) = own(suite, settings)? {
        return Ok(source);
    }
    of_folder(model)?.ok_or_else(|| {
        Error::input("the model folder has no chat template, and the data is conversations")
            .in_file(model)
            .help("name a file with one as chat_template in [dataset]")
    })
}

/// The text of the template that the suite names itself.
pub fn own(suite: &Suite, settings: &PairsSettings) -> Result<Option<String>> {
    let Some(file) = &settings.reading.chat_template else { return Ok(None) };
    let path = suite.locate(&file.path);
    std::fs::read_to_string(&path).map(Some).map_err(|e| Error::io("read", &path, &e))
}

/// The template of a tokenizer's folder: `chat_template.jinja`, or else `chat_template` of `tokenizer_config.json` (if it is a list of
/// named ones, the one called "default").
pub fn of_folder(folder: &Path) -> Result<Option<String>> {
    let path = folder.join(CHAT_TEMPLATE);
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", &path, &e)),
    }
    let config = config(folder)?;
    let named = |value: &serde_json::Value| {
        let default = value.as_array()?.iter().find(|one| one["name"] == "default")?;
        default["template"].as_str().map(str::to_owned)
    };
    let written = &config["chat_template"];
    Ok(written.as_str().map(str::to_owned).or_else(|| named(written)))
}

/// The special tokens that `tokenizer_config.json` names, as texts.
pub fn special_tokens(folder: &Path) -> Result<Vec<(String, String)>> {
    let config = config(folder)?;
    let Some(entries) = config.as_object() else { return Ok(Vec::new()) };
    let text = |value: &serde_json::Value| value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned);
    let tokens = entries.iter().filter(|(name, _)| name.ends_with("_token"));
    Ok(tokens.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect())
}

fn config(folder: &Path) -> Result<serde_json::Value> {
    let path = folder.join("tokenizer_config.json");
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| Error::input(format!("this is no JSON: {e}")).at_line(&path, e.line()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(serde_json::Value::Null),
        Err(e) => Err(Error::io("read", &path, &e)),
    }
}

/// The crate's message without the name of our only template.
fn words(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// A message with its reasoning under every name that templates read, as transformers passes it.
fn with_reasoning(message: &Object) -> Object {
    let Some(reasoning) = REASONING.iter().find_map(|name| message.present(name)).cloned() else { return message.clone() };
    let mut fields = message.0.clone();
    if !message.has("thinking") {
        fields.insert(0, ("thinking".to_owned(), reasoning.clone()));
    }
    fields.retain(|(name, _)| name != REASONING[0]);
    fields.push((REASONING[0].to_owned(), reasoning));
    Object(fields)
}

/// `{% generation %}` marks what the assistant says, for masks that aren't made here; written as a condition that always holds, it
/// prints what is in it, with the white space around handled alike.
fn without_generation(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        // What ends a tag begins behind what begins it: `{%}` is neither.
        let Some(end) = rest[at + 2..].find("%}").map(|end| at + 2 + end) else { break };
        let inside = &rest[at + 2..end];
        let word = inside.trim_matches(['-', '+']).trim();
        let replaced = match word {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => inside.to_owned(),
        };
        text.push_str(&rest[..at + 2]);
        text.push_str(&replaced);
        text.push_str("%}");
        rest = &rest[end + 2..];
    }
    text + rest
}

#[cfg(test)]
mod tests;
