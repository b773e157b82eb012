//! Files of preference data, read and checked, whole or row by row: pairs, or single completions with a label. `source` knows the file formats, `forms`
//! the forms of rows, `template` makes texts of conversations.
//!
//! A pair with identical sides says nothing. In an explicit file it is an error, because its author can mend it; published
//! transcripts and conversations can't be mended, so there it is left out and counted.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::forms::{ASSISTANT, Columns, Content, Form, FormRow, Said};
use crate::data::label::Count;
use crate::data::rated;
use crate::data::sorter::Sorter;
use crate::data::source::{Record, for_each_line, for_each_row, parse_line};
use crate::data::template::{ChatTemplate, Rendered};
use crate::data::{AuditItem, LabelledCompletion, Pair, PreferenceRow};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::suite::settings::{PairsFormat, PairsSettings, RatingSettings};

/// A file to be read.
#[derive(Debug, Clone)]
pub struct RowFile<'a> {
    pub path: &'a Path,
    pub format: PairsFormat,
    /// Only the first rows of the file that aren't left out.
    pub limit: Option<usize>,
    pub columns: Columns,
    /// How pairs are made of rated completions.
    pub ratings: RatingSettings,
    /// What writes conversations; a file of texts needs none.
    pub template: Option<&'a ChatTemplate>,
}

/// Rows, and what was left out or looks odd.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<R> {
    pub rows: Vec<R>,
    pub audit: Vec<AuditItem>,
}

/// Reads preference pairs of texts under their usual names; `limit` takes the first ones of the file.
pub fn read_pairs(path: &Path, format: PairsFormat, limit: Option<usize>) -> Result<Rows<Pair>> {
    RowFile { limit, ..RowFile::new(path, format) }.pairs()
}

/// Which labels rows have.
#[derive(Default)]
pub struct Labels {
    pub no: bool,
    pub yes: bool,
}

impl Labels {
    pub fn add(&mut self, label: bool) {
        *(if label { &mut self.yes } else { &mut self.no }) = true;
    }

    /// Refuses rows of one label only: losses on single completions hold the desirable ones against the others.
    pub fn both(&self, what: &str) -> Result<()> {
        if self.yes == self.no {
            return Ok(());
        }
        Err(Error::input(format!("none of the {what} has \"label\": {}", !self.yes)).help(
            "both labels are needed: \"kto\" and \"apo_zero_unpaired\" hold desirable completions (true) against undesirable \
             ones (false)",
        ))
    }
}

/// The one count whose rows are kept.
const SPECIAL: &str = "special-tokens-in-messages";

/// Rows that are left out, by reason.
#[derive(Default)]
struct LeftOut {
    identical: Count,
    unsplit: Count,
    unlike: Count,
    unrated: Count,
    /// Not left out: rows with a special token's text in a message.
    special: Count,
}

impl LeftOut {
    /// What is counted of a format; `kept` rows were not left out.
    fn items(self, format: PairsFormat, kept: u64) -> Vec<AuditItem> {
        let total = kept + self.identical.count() + self.unsplit.count() + self.unlike.count() + self.unrated.count();
        let identical = self.identical.item("identical-sides-left-out", total, "pairs have identical sides and are left out");
        let unsplit = "pairs share no prompt that ends before an answer of the assistant, and are left out";
        let unlike =
            "conversations are written by the chat template so that they don't begin with their prompt, and are left out";
        let unlike = self.unlike.item("prompt-not-in-conversation", total, unlike);
        let special = "rows have a special token's text in a message, which the tokenizer takes for the token";
        let special = self.special.item(SPECIAL, total, special);
        match format {
            PairsFormat::Explicit | PairsFormat::Unpaired => Vec::new(),
            PairsFormat::Hh => vec![identical, self.unsplit.item("unsplit-left-out", total, unsplit)],
            PairsFormat::Conversations => {
                vec![identical, self.unsplit.item("unsplit-left-out", total, unsplit), unlike, special]
            }
            PairsFormat::UnpairedConversations => vec![unlike, special],
            PairsFormat::Ultrafeedback => {
                let unrated = "prompts have no completion that is rated below their best, and are left out";
                vec![identical, self.unrated.item("unrated-left-out", total, unrated), unlike, special]
            }
        }
    }
}

impl<'a> RowFile<'a> {
    /// All of a file, with its columns under their usual names.
    pub fn new(path: &'a Path, format: PairsFormat) -> Self {
        Self { path, format, limit: None, columns: Columns::default(), ratings: RatingSettings::default(), template: None }
    }

    /// `path`: where the settings' own path lies.
    pub fn of_settings(path: &'a Path, settings: &PairsSettings, template: Option<&'a ChatTemplate>) -> Self {
        let columns = Columns(settings.reading.columns.clone());
        Self { path, format: settings.format, limit: settings.limit, columns, ratings: settings.reading.ratings, template }
    }

    /// Reads preference pairs.
    pub fn pairs(&self) -> Result<Rows<Pair>> {
        collected(|give| self.each_pair(give))
    }

    /// Reads completions with their labels.
    pub fn labelled(&self) -> Result<Rows<LabelledCompletion>> {
        collected(|give| self.each_labelled(give))
    }

    /// Gives one pair after the other; returns what was left out or looks odd.
    pub fn each_pair(&self, give: &mut dyn FnMut(Pair) -> Result<()>) -> Result<Vec<AuditItem>> {
        let (mut left_out, mut further) = (LeftOut::default(), Count::default());
        let pairs = self.rows(give, |record, row| {
            let at = record.place.shown();
            let row = rated::opposed(row, &self.ratings);
            let (chosen, rejected) = match &row.said {
                Said::Pair { chosen, rejected } => {
                    left_out.special.add(u64::from(self.has_special(&[&row.prompt, chosen, rejected])), &at);
                    (chosen, rejected)
                }
                Said::Unsplit(reason) => {
                    left_out.unsplit.add(1, &format!("{at}, {reason}"));
                    return Ok(None);
                }
                Said::Unrated(reason) => {
                    left_out.unrated.add(1, &format!("{at}, {reason}"));
                    return Ok(None);
                }
                _ => return Err(record.error("labelled completions are no pairs")),
            };
            let sides = (self.text(record, &row, chosen)?, self.text(record, &row, rejected)?);
            let (Some(chosen), Some(rejected)) = sides else {
                left_out.unlike.add(1, &at);
                return Ok(None);
            };
            if chosen.completion == rejected.completion {
                if self.format == PairsFormat::Explicit {
                    return Err(record
                        .error("chosen and rejected are identical, so the pair prefers nothing")
                        .help("correct or delete this line"));
                }
                left_out.identical.add(1, &at);
                return Ok(None);
            }
            let turns = [&chosen, &rejected].iter().any(|side| side.completion.contains(ASSISTANT));
            further.add(u64::from(turns), &at);
            Ok(Some(Pair {
                id: row.id,
                prompt_id: prompt_id(&chosen.prompt),
                prompt: chosen.prompt,
                chosen: chosen.completion,
                rejected: rejected.completion,
                gold: None,
            }))
        })?;
        let mut audit = left_out.items(self.format, pairs);
        if self.format == PairsFormat::Hh {
            let what = "pairs part before the last turn, so a side holds further turns";
            audit.push(further.item("further-turns", pairs, what));
        }
        self.filled::<Pair>(pairs, audit)
    }

    /// The same of completions with their labels.
    pub fn each_labelled(&self, give: &mut dyn FnMut(LabelledCompletion) -> Result<()>) -> Result<Vec<AuditItem>> {
        let mut left_out = LeftOut::default();
        let rows = self.rows(give, |record, row| {
            let Said::Labelled { completion, label } = &row.said else {
                return Err(record.error("pairs are no labelled completions"));
            };
            left_out.special.add(u64::from(self.has_special(&[&row.prompt, completion])), &record.place.shown());
            let Some(Rendered { prompt, completion }) = self.text(record, &row, completion)? else {
                left_out.unlike.add(1, &record.place.shown());
                return Ok(None);
            };
            Ok(Some(LabelledCompletion { id: row.id, prompt_id: prompt_id(&prompt), prompt, completion, label: *label }))
        })?;
        let audit = left_out.items(self.format, rows);
        self.filled::<LabelledCompletion>(rows, audit)
    }

    fn filled<R: PreferenceRow>(&self, rows: u64, audit: Vec<AuditItem>) -> Result<Vec<AuditItem>> {
        if rows > 0 {
            return Ok(audit);
        }
        let help = match audit.iter().filter(|item| item.id != SPECIAL && item.count > 0).max_by_key(|item| item.count) {
            Some(reason) => format!("all are left out, most for this reason: {}", reason.message),
            None => form_of(self.format).map_or("every row needs its columns", Form::help).to_owned(),
        };
        Err(Error::input(format!("the file holds no {}s", R::UNIT)).in_file(self.path).help(help))
    }

    fn has_special(&self, contents: &[&Content]) -> bool {
        contents.iter().any(|content| match (content, self.template) {
            (Content::Messages(messages), Some(template)) => messages.iter().any(|message| template.special_in(message)),
            _ => false,
        })
    }

    /// Prompt and completion as texts; none where the template's whole doesn't begin with its prompt.
    fn text(&self, record: &Record<'_>, row: &FormRow, completion: &Content) -> Result<Option<Rendered>> {
        match (&row.prompt, completion) {
            (Content::Text(prompt), Content::Text(completion)) => {
                Ok(Some(Rendered { prompt: prompt.clone(), completion: completion.clone() }))
            }
            (Content::Messages(prompt), Content::Messages(completion)) => {
                let template = self.template.ok_or_else(|| {
                    record
                        .error("the row is a conversation, and there is no chat template to write it with")
                        .help("take a model folder with a chat template, or name a file as chat_template in [dataset]")
                })?;
                let rendered = template.cut(prompt, completion, row.tools.as_ref());
                rendered.map_err(|e| record.place.error(self.path, &e.message))
            }
            _ => Err(record.error("one of prompt and completion is a text and the other a list of messages")),
        }
    }

    /// Gives the rows that `take` makes of those of the file, `limit` at most; returns how many.
    fn rows<R: PreferenceRow>(
        &self,
        give: &mut dyn FnMut(R) -> Result<()>,
        mut take: impl FnMut(&Record<'_>, FormRow) -> Result<Option<R>>,
    ) -> Result<u64> {
        let limit = self.limit.map_or(u64::MAX, |limit| limit as u64);
        let mut rows = 0;
        // Each with its place. By hash: a million ids share one with a chance of 3 in 10⁸.
        let mut ids = Sorter::<2>::default();
        for_each_row(self.path, |record| {
            let form = form_of(self.format).map_or_else(|| Form::of(&record, &self.columns), Ok)?;
            let row = form.read(&record, &self.columns)?;
            self.check_content(&record, &row, form)?;
            ids.add([id_hash(&row.id), u64::from(record.place.number())])?;
            if let Some(row) = take(&record, row)? {
                give(row)?;
                rows += 1;
            }
            Ok(rows < limit)
        })?;
        let mut repeated: Option<[u64; 2]> = None;
        ids.each_group(|same| {
            if let [[_, first], [_, second], ..] = same
                && repeated.is_none_or(|[earliest, _]| *second < earliest)
            {
                repeated = Some([*second, *first]);
            }
        })?;
        match repeated {
            Some([place, first]) => self.refuse_id::<R>(place, first),
            None => Ok(rows),
        }
    }

    /// The error of the row at `place`, whose id an earlier one has: read again for the id's words.
    fn refuse_id<R: PreferenceRow>(&self, place: u64, first: u64) -> Result<u64> {
        for_each_row(self.path, |record| {
            if u64::from(record.place.number()) < place {
                return Ok(true);
            }
            let form = form_of(self.format).map_or_else(|| Form::of(&record, &self.columns), Ok)?;
            let (id, first) = (form.read(&record, &self.columns)?.id, record.place.at(first as u32).shown());
            let message = format!("the id \"{id}\" stands in {first} already");
            Err(record.error(message).help(format!("give every {} an id of its own, or none", R::UNIT)))
        })?;
        Err(Error::input("the file has fewer rows than a moment ago: something changes it while it is read").in_file(self.path))
    }

    /// Refuses conversations where the format says texts, and the other way round: which of them is read decides what is added at the
    /// start and end of the token ids.
    fn check_content(&self, record: &Record<'_>, row: &FormRow, form: Form) -> Result<()> {
        let conversational = self.format.is_conversational();
        match &row.prompt {
            Content::Text(_) if conversational => Err(record
                .error(format!(
                    "the row is of the form \"{}\", whose prompt is a text, and a conversation is expected",
                    form.name()
                ))
                .help("texts are read with format = \"explicit\", \"hh\" or \"unpaired\" in [dataset]")),
            Content::Messages(_) if !conversational => Err(record
                .error("\"prompt\" is a list, and a text is expected")
                .help("lists of messages are read with format = \"unpaired_conversations\" in [dataset]")),
            _ => Ok(()),
        }
    }
}

fn collected<R>(read: impl FnOnce(&mut dyn FnMut(R) -> Result<()>) -> Result<Vec<AuditItem>>) -> Result<Rows<R>> {
    let mut rows = Vec::new();
    let audit = read(&mut |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(Rows { rows, audit })
}

fn id_hash(id: &str) -> u64 {
    let digest = Digest::of_bytes(id.as_bytes());
    u64::from_be_bytes(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
}

/// The form that a format stands for; none where the columns tell.
fn form_of(format: PairsFormat) -> Option<Form> {
    match format {
        PairsFormat::Explicit => Some(Form::Pairs),
        PairsFormat::Hh => Some(Form::Transcripts),
        PairsFormat::Unpaired | PairsFormat::UnpairedConversations => Some(Form::Labelled),
        PairsFormat::Conversations => None,
        PairsFormat::Ultrafeedback => Some(Form::Rated),
    }
}

/// The identity of a prompt: the first sixteen digits of its text's SHA-256.
pub fn prompt_id(prompt: &str) -> String {
    Digest::of_bytes(prompt.as_bytes()).to_string()[..16].to_owned()
}

/// Reads the rows of a JSONL file, plain or gzipped.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    each_jsonl(path, |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

/// Gives one row after the other.
pub fn each_jsonl<T: DeserializeOwned>(path: &Path, mut give: impl FnMut(T) -> Result<()>) -> Result<()> {
    for_each_line(path, |number, line| {
        give(parse_line(path, number, line)?)?;
        Ok(true)
    })
}

/// Rows as JSONL: one object a line, fields in the order of their struct.
pub fn to_jsonl<T: Serialize>(rows: &[T]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    rows.iter().try_for_each(|row| append(&mut bytes, row))?;
    Ok(bytes)
}

fn append(bytes: &mut Vec<u8>, row: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *bytes, row).map_err(|e| Error::unexpected(format!("a row can't be written as JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(())
}

pub fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut file = JsonlFile::create(path)?;
    rows.iter().try_for_each(|row| file.add(row))?;
    file.finish()
}

/// A JSONL file that is being written row by row.
pub struct JsonlFile {
    path: PathBuf,
    file: BufWriter<File>,
    line: Vec<u8>,
}

impl JsonlFile {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io("write", path, &e))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), line: Vec::new() })
    }

    pub fn add(&mut self, row: &impl Serialize) -> Result<()> {
        self.line.clear();
        append(&mut self.line, row)?;
        self.file.write_all(&self.line).map_err(|e| Error::io("write", &self.path, &e))
    }

    /// What has been added is in the file after this, and not before.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::io("write", &self.path, &e))
    }
}

#[cfg(test)]
mod tests;
