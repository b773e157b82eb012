//! Preference data from one form to another, row by row: memory doesn't grow with the file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::data::field::{Field, Object};
use crate::data::forms::{Columns, Content, Form, FormRow, Said, message, turns};
use crate::data::rated;
use crate::data::source::for_each_row;
use crate::error::{Error, Result};
use crate::suite::settings::{PairsFormat, RatingSettings};

/// TRL's types, by what a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Pairs,
    Unpaired,
    Completions,
    Prompts,
}

/// What became of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Converted {
    pub written: usize,
    /// Rows that no pair can be made of: their implicit prompt can't be told from their sides, or no completion is rated below the best.
    pub left_out: usize,
    pub first_left_out: Option<String>,
}

/// The format that a suite would read a file with, told by its first row.
pub fn format_of(path: &Path) -> Result<PairsFormat> {
    let columns = Columns::default();
    let mut found = None;
    for_each_row(path, |record| {
        let form = Form::of(&record, &columns)?;
        found = Some(match (form, form.read(&record, &columns)?.prompt) {
            (Form::Pairs, _) => PairsFormat::Explicit,
            (Form::Transcripts, _) => PairsFormat::Hh,
            (Form::Conversations | Form::Ranking | Form::Instructions, _) => PairsFormat::Conversations,
            (Form::Rated, _) => PairsFormat::Ultrafeedback,
            (Form::Labelled, Content::Text(_)) => PairsFormat::Unpaired,
            (Form::Labelled, Content::Messages(_)) => PairsFormat::UnpairedConversations,
            (Form::Completions | Form::Prompts, _) => {
                let message = format!("the row is of the form \"{}\", which prefers nothing", form.name());
                return Err(record.error(message).help("pairs, or completions with a label, are expected"));
            }
        });
        Ok(false)
    })?;
    found.ok_or_else(|| Error::input("the file holds no rows").in_file(path))
}

/// Reads `input` in whatever form and writes it to `output` as JSON Lines. `messages`: texts become messages.
pub fn convert(input: &Path, output: &Path, to: To, messages: bool) -> Result<Converted> {
    let columns = Columns::default();
    let mut done = Converted::default();
    let mut form = None;
    let mut lines = Lines::create(output)?;
    let read = for_each_row(input, |record| {
        let form = match form {
            Some(form) => form,
            None => *form.insert(Form::of(&record, &columns)?),
        };
        let mut row = rated::opposed(form.read(&record, &columns)?, &RatingSettings::default());
        if messages {
            row = as_messages(row, form);
        }
        if let Said::Unsplit(_) | Said::Unrated(_) = row.said {
            done.left_out += 1;
            done.first_left_out.get_or_insert_with(|| record.place.shown());
            return Ok(true);
        }
        let objects = objects(&row, to).map_err(|message| record.error(message))?;
        done.written += objects.len();
        for object in objects {
            lines.write(&object)?;
        }
        Ok(true)
    });
    match read.and_then(|()| if done.written == 0 { Err(Error::input("the file holds no rows").in_file(input)) } else { Ok(()) })
    {
        Ok(()) => lines.finish().map(|()| done),
        Err(error) => {
            lines.discard();
            Err(error)
        }
    }
}

/// The rows that one row becomes.
fn objects(row: &FormRow, to: To) -> std::result::Result<Vec<Object>, String> {
    let with = |fields: Vec<(&str, Field)>| {
        let mut all = vec![("prompt".to_owned(), field(&row.prompt))];
        all.extend(fields.into_iter().map(|(name, field)| (name.to_owned(), field)));
        all.extend(row.tools.clone().map(|tools| ("tools".to_owned(), tools)));
        Object(all)
    };
    let label = |completion: &Content, label: bool| with(vec![("completion", field(completion)), ("label", Field::Bool(label))]);
    let completion = |completion: &Content| with(vec![("completion", field(completion))]);
    Ok(match (to, &row.said) {
        (To::Prompts, _) => vec![with(Vec::new())],
        (To::Pairs, Said::Pair { chosen, rejected }) => {
            let mut object = with(vec![("chosen", field(chosen)), ("rejected", field(rejected))]);
            object.0.insert(0, ("id".to_owned(), Field::Text(row.id.clone())));
            vec![object]
        }
        (To::Unpaired, Said::Pair { chosen, rejected }) => vec![label(chosen, true), label(rejected, false)],
        (To::Unpaired, Said::Labelled { completion, label: desirable }) => vec![label(completion, *desirable)],
        (
            To::Completions,
            Said::Pair { chosen: said, .. } | Said::Labelled { completion: said, label: true } | Said::Completion(said),
        ) => {
            vec![completion(said)]
        }
        (To::Completions, Said::Labelled { label: false, .. }) => Vec::new(),
        (To::Pairs, _) => return Err("the row is no pair, and pairs can't be made of single completions".to_owned()),
        (To::Unpaired, _) => return Err("the row has no label, and says of nothing that it is undesirable".to_owned()),
        (To::Completions, _) => return Err("the row has no completion".to_owned()),
    })
}

fn field(content: &Content) -> Field {
    match content {
        Content::Text(text) => Field::Text(text.clone()),
        Content::Messages(messages) => Field::List(messages.iter().cloned().map(Field::Object).collect()),
    }
}

/// A row whose texts are messages: of a transcript its turns, else the prompt as the user's and completions as the assistant's.
fn as_messages(row: FormRow, form: Form) -> FormRow {
    let transcript = form == Form::Transcripts;
    let one = |content: Content, role: &str| match content {
        Content::Text(text) if transcript && role == "user" => Content::Messages(turns(&text)),
        // The completion goes on where the prompt's last turn begins.
        Content::Text(text) if transcript => Content::Messages(turns(&format!("{}{text}", super::forms::ASSISTANT))),
        Content::Text(text) => Content::Messages(vec![message(role, text.trim())]),
        messages => messages,
    };
    let said = match row.said {
        Said::Pair { chosen, rejected } => Said::Pair { chosen: one(chosen, "assistant"), rejected: one(rejected, "assistant") },
        Said::Labelled { completion, label } => Said::Labelled { completion: one(completion, "assistant"), label },
        Said::Completion(completion) => Said::Completion(one(completion, "assistant")),
        other => other,
    };
    FormRow { prompt: one(row.prompt, "user"), said, ..row }
}

/// JSON Lines that get their name when they are complete.
struct Lines {
    path: PathBuf,
    partial: PathBuf,
    writer: Writer,
}

enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstandard(zstd::Encoder<'static, BufWriter<File>>),
}

impl Lines {
    fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::usage(format!("{} names no file", path.display())))?.to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        let io = |e: std::io::Error| Error::io("write", path, &e);
        let file = BufWriter::new(File::create(&partial).map_err(io)?);
        let writer = if name.ends_with(".gz") {
            Writer::Gzip(GzEncoder::new(file, Compression::default()))
        } else if name.ends_with(".zst") {
            Writer::Zstandard(zstd::Encoder::new(file, 0).map_err(io)?)
        } else {
            Writer::Plain(file)
        };
        Ok(Self { path: path.to_owned(), partial, writer })
    }

    fn write(&mut self, object: &Object) -> Result<()> {
        let mut line = serde_json::to_vec(object).expect("rows serialise");
        line.push(b'\n');
        let written = match &mut self.writer {
            Writer::Plain(writer) => writer.write_all(&line),
            Writer::Gzip(writer) => writer.write_all(&line),
            Writer::Zstandard(writer) => writer.write_all(&line),
        };
        written.map_err(|e| Error::io("write", &self.path, &e))
    }

    fn finish(self) -> Result<()> {
        let finished = match self.writer {
            Writer::Plain(writer) => Ok(writer),
            Writer::Gzip(writer) => writer.finish(),
            Writer::Zstandard(writer) => writer.finish(),
        };
        let renamed = finished.and_then(|mut file| file.flush()).and_then(|()| std::fs::rename(&self.partial, &self.path));
        renamed.map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Leaves nothing behind.
    fn discard(self) {
        drop(self.writer);
        let _ = std::fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests;
