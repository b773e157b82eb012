//! Files of rows: JSONL, plain or gzipped, read line by line; and the forms of preference data.
//!
//! * Explicit: `{"prompt", "chosen", "rejected"}` a line, `"id"` if wanted.
//! * HH-RLHF: `{"chosen", "rejected"}` a line, whole transcripts. The prompt is what both share up to and including the last
//!   "\n\nAssistant:" in it. A side may then hold further turns; such pairs are counted.
//! * Unpaired, as TRL's `KTOTrainer` takes it: `{"prompt", "completion", "label"}` a line, the label true or false.
//!
//! A pair with identical sides says nothing. In an explicit file it is an error, because its author can mend it; published
//! transcripts can't be mended, so there it is left out and counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::data::label::Count;
use crate::data::{AuditItem, LabelledCompletion, Pair, PreferenceRow};
use crate::digest::Digest;
use crate::error::{Error, Place, Result};
use crate::suite::settings::PairsFormat;

/// A longer line is no row of text but a damaged file.
const LONGEST_LINE: u64 = 16 << 20;
const ASSISTANT: &str = "\n\nAssistant:";

/// Pairs, and what was left out or looks odd.
#[derive(Debug, Clone, PartialEq)]
pub struct PairFile {
    pub pairs: Vec<Pair>,
    pub audit: Vec<AuditItem>,
}

/// Reads preference pairs; `limit` takes the first ones of the file.
pub fn read_pairs(path: &Path, format: PairsFormat, limit: Option<usize>) -> Result<PairFile> {
    let (mut identical, mut further) = (Count::default(), Count::default());
    let read = |row: &Row<'_>| match format {
        PairsFormat::Explicit => row.explicit(),
        PairsFormat::Hh => row.transcripts(),
        PairsFormat::Unpaired => Err(row.error("labelled completions are no pairs")),
    };
    let pairs = read_rows(path, format, limit, read, |row, pair: &Pair| {
        let number = row.number;
        if pair.chosen == pair.rejected {
            if format == PairsFormat::Explicit {
                return Err(row
                    .error("chosen and rejected are identical, so the pair prefers nothing")
                    .help("correct or delete this line"));
            }
            identical.add(1, &format!("line {number}"));
            return Ok(false);
        }
        let turns = [&pair.chosen, &pair.rejected].iter().any(|side| side.contains(ASSISTANT));
        further.add(u64::from(turns), &format!("line {number}"));
        Ok(true)
    })?;
    let read = pairs.len() as u64;
    let audit = match format {
        PairsFormat::Explicit | PairsFormat::Unpaired => Vec::new(),
        PairsFormat::Hh => {
            let rows = read + identical.count();
            vec![
                identical.item("identical-sides-left-out", rows, "pairs have identical sides and are left out"),
                further.item("further-turns", read, "pairs part before the last turn, so a side holds further turns"),
            ]
        }
    };
    Ok(PairFile { pairs, audit })
}

/// Reads completions with their labels, of which both must occur; `limit` takes the first ones of the file.
pub fn read_labelled(path: &Path, limit: Option<usize>) -> Result<Vec<LabelledCompletion>> {
    let rows = read_rows(path, PairsFormat::Unpaired, limit, |row| row.labelled(), |_, _| Ok(true))?;
    both_labels(&rows, "rows that are read").map_err(|e| e.in_file(path))?;
    Ok(rows)
}

/// Refuses rows of one label only: losses on single completions hold the desirable ones against the others.
pub fn both_labels(rows: &[LabelledCompletion], what: &str) -> Result<()> {
    match rows {
        [first, others @ ..] if others.iter().all(|row| row.label == first.label) => {
            Err(Error::input(format!("none of the {what} has \"label\": {}", !first.label)).help(
                "both labels are needed: \"kto\" and \"apo_zero_unpaired\" hold desirable completions (true) against undesirable \
                 ones (false)",
            ))
        }
        _ => Ok(()),
    }
}

/// Reads the rows of one format: those that `keep` wants, `limit` at most.
fn read_rows<R: PreferenceRow>(
    path: &Path,
    format: PairsFormat,
    limit: Option<usize>,
    read: impl Fn(&Row<'_>) -> Result<R>,
    mut keep: impl FnMut(&Row<'_>, &R) -> Result<bool>,
) -> Result<Vec<R>> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    let mut lines_of_ids: BTreeMap<String, usize> = BTreeMap::new();
    for_each_line(path, |number, line| {
        let row = Row { path, number, fields: object(path, number, line)? };
        let found = read(&row)?;
        if let Some(first) = lines_of_ids.insert(found.id().to_owned(), number) {
            let message = format!("the id \"{}\" stands in line {first} already", found.id());
            return Err(row.error(message).help(format!("give every {} an id of its own, or none", R::UNIT)));
        }
        if keep(&row, &found)? {
            rows.push(found);
        }
        Ok(rows.len() < limit)
    })?;
    if rows.is_empty() {
        return Err(Error::input(format!("the file holds no {}s", R::UNIT)).in_file(path).help(format_help(format)));
    }
    Ok(rows)
}

fn format_help(format: PairsFormat) -> &'static str {
    match format {
        PairsFormat::Unpaired => "every line needs the texts \"prompt\" and \"completion\", and \"label\": true or false",
        PairsFormat::Explicit => "every line needs the texts \"prompt\", \"chosen\" and \"rejected\"",
        PairsFormat::Hh => {
            "every line needs the transcripts \"chosen\" and \"rejected\", with turns \"\\n\\nHuman:\" and \"\\n\\nAssistant:\""
        }
    }
}

/// One line's object, with the place for errors.
struct Row<'a> {
    path: &'a Path,
    number: usize,
    fields: Map<String, Value>,
}

impl Row<'_> {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::input(message).at_line(self.path, self.number)
    }

    fn text(&self, field: &str, format: PairsFormat) -> Result<&str> {
        let help = || self.format_help(format);
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.error(format!("\"{field}\" is {}, and a text is expected", kind(other))).help(help())),
            None => Err(self.error(format!("\"{field}\" is missing")).help(help())),
        }
    }

    /// What the lines of `format` hold; of a line that looks like one of another format, that format.
    fn format_help(&self, format: PairsFormat) -> &'static str {
        let has = |field| self.fields.contains_key(field);
        match format {
            PairsFormat::Explicit | PairsFormat::Hh if has("completion") && has("label") => {
                "completions with a label are read with format = \"unpaired\" in [dataset]"
            }
            PairsFormat::Unpaired if has("chosen") && has("rejected") => {
                "pairs are read with format = \"explicit\" in [dataset], and \"kto\" takes them too"
            }
            _ => format_help(format),
        }
    }

    fn id(&self) -> Result<String> {
        match self.fields.get("id") {
            None | Some(Value::Null) => Ok(format!("line-{:06}", self.number)),
            Some(Value::String(id)) => Ok(id.clone()),
            Some(Value::Number(id)) if id.is_u64() || id.is_i64() => Ok(id.to_string()),
            Some(other) => Err(self
                .error(format!("\"id\" is {}, and a text or a whole number is expected", kind(other)))
                .help("mend the id, or leave it out: pairs are then named by their lines")),
        }
    }

    fn pair(&self, prompt: &str, chosen: &str, rejected: &str) -> Result<Pair> {
        Ok(Pair {
            id: self.id()?,
            prompt_id: prompt_id(prompt),
            prompt: prompt.to_owned(),
            chosen: chosen.to_owned(),
            rejected: rejected.to_owned(),
            gold: None,
        })
    }

    fn explicit(&self) -> Result<Pair> {
        let text = |field| self.text(field, PairsFormat::Explicit);
        self.pair(text("prompt")?, text("chosen")?, text("rejected")?)
    }

    fn labelled(&self) -> Result<LabelledCompletion> {
        let text = |field| self.text(field, PairsFormat::Unpaired);
        let (prompt, completion) = (text("prompt")?, text("completion")?);
        let label = match self.fields.get("label") {
            Some(Value::Bool(label)) => *label,
            Some(other) => {
                let value =
                    if matches!(other, Value::String(_) | Value::Number(_)) { format!(", {other}") } else { String::new() };
                let message = format!("\"label\" is {}{value}, and true or false is expected", kind(other));
                return Err(self
                    .error(message)
                    .help("write true for a desirable completion, else false, without quotation marks"));
            }
            None => return Err(self.error("\"label\" is missing").help(format_help(PairsFormat::Unpaired))),
        };
        Ok(LabelledCompletion {
            id: self.id()?,
            prompt_id: prompt_id(prompt),
            prompt: prompt.to_owned(),
            completion: completion.to_owned(),
            label,
        })
    }

    fn transcripts(&self) -> Result<Pair> {
        let text = |field| self.text(field, PairsFormat::Hh);
        let (chosen, rejected) = (text("chosen")?, text("rejected")?);
        let shared: usize = chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        // Identical transcripts share everything; their last turn is still the completion.
        let Some(at) = chosen[..shared].rfind(ASSISTANT) else {
            return Err(self
                .error("chosen and rejected share no turn that ends with \"\\n\\nAssistant:\"")
                .help(format_help(PairsFormat::Hh)));
        };
        let end = at + ASSISTANT.len();
        self.pair(&chosen[..end], &chosen[end..], &rejected[end..])
    }
}

/// The identity of a prompt: the first sixteen digits of its text's SHA-256.
pub fn prompt_id(prompt: &str) -> String {
    Digest::of_bytes(prompt.as_bytes()).to_string()[..16].to_owned()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn object(path: &Path, number: usize, line: &str) -> Result<Map<String, Value>> {
    match parse(path, number, line)? {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::input(format!("the line is {}, and a JSON object is expected", kind(&other)))
            .at_line(path, number)
            .help("JSONL holds one {…} a line")),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, number: usize, line: &str) -> Result<T> {
    serde_json::from_str(line).map_err(|e| {
        let full = e.to_string();
        let reason = full.rsplit_once(" at line ").map_or(full.as_str(), |(reason, _)| reason);
        let mut error = if e.is_data() {
            Error::input(format!("the row isn't as expected: {reason}"))
        } else {
            Error::input(format!("the line is no JSON: {reason}")).help("JSONL holds one complete JSON value a line")
        };
        let column = (e.column() > 0).then_some(e.column());
        error.place = Some(Box::new(Place { file: path.to_owned(), line: Some(number), column, excerpt: None }));
        error
    })
}

/// Reads the rows of a JSONL file, plain or gzipped.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    for_each_line(path, |number, line| {
        rows.push(parse(path, number, line)?);
        Ok(true)
    })?;
    Ok(rows)
}

/// Rows as JSONL: one object a line, fields in the order of their struct.
pub fn to_jsonl<T: Serialize>(rows: &[T]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, row).map_err(|e| Error::unexpected(format!("a row can't be written as JSON: {e}")))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

pub fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let io = |e: std::io::Error| Error::io("write", path, &e);
    let mut file = File::create(path).map_err(io)?;
    file.write_all(&to_jsonl(rows)?).map_err(io)
}

/// Calls `row` with each line that isn't blank and its number (from 1), until it says false.
fn for_each_line(path: &Path, mut row: impl FnMut(usize, &str) -> Result<bool>) -> Result<()> {
    let mut reader = open(path)?;
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let read = (&mut reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut bytes);
        let read = read.map_err(|e| read_error(path, number, &e))?;
        if read == 0 {
            break;
        }
        if read as u64 > LONGEST_LINE {
            return Err(Error::input(format!("the line is longer than {} MiB", LONGEST_LINE >> 20))
                .at_line(path, number)
                .help("JSONL holds one row a line: is this another format, or one list of all rows?"));
        }
        let line = std::str::from_utf8(&bytes).map_err(|e| {
            Error::input(format!("the line is no UTF-8 text from its byte {} on", e.valid_up_to() + 1))
                .at_line(path, number)
                .help("convert the file to UTF-8")
        })?;
        // A byte order mark is no part of the text.
        let line = if number == 1 { line.trim_start_matches('\u{feff}') } else { line };
        if !line.trim().is_empty() && !row(number, line)? {
            break;
        }
    }
    Ok(())
}

/// A reader of the file's text; gzip is known by its first two bytes, whatever the name.
fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let io = |e: std::io::Error| Error::io("read", path, &e);
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(io)?);
    if file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))))
    } else {
        Ok(Box::new(file))
    }
}

fn read_error(path: &Path, number: usize, error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    let again = "fetch the file again";
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::input("the gzip file is truncated").at_line(path, number).help(again),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            Error::input(format!("the gzip file is damaged: {error}")).at_line(path, number).help(again)
        }
        _ => Error::io("read", path, error),
    }
}

#[cfg(test)]
mod tests;
