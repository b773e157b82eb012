//! The text of a suite file and where each of its keys stands, so that errors point to them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::rules::Rule;
use super::spec::SuiteSpec;
use super::translate;
use crate::error::{Error, Place, Result};

pub(super) struct Document {
    file: PathBuf,
    text: String,
    entries: Vec<Entry>,
}

/// A key with its value, or an element of a list (whose key is the element itself).
pub(super) struct Entry {
    /// The table or list it stands in: `train`, `variant[1]`, empty for the top level.
    pub(super) parent: String,
    pub(super) name: String,
    /// Bytes of the text.
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    pub(super) is_list: bool,
}

impl Entry {
    /// As messages name it: `beta`, `seeds[1]`, `loss_type[1]`.
    pub(super) fn shown(&self) -> String {
        let list = self.parent.rsplit('.').next().unwrap_or_default();
        if self.name.starts_with('[') { format!("{list}{}", self.name) } else { self.name.clone() }
    }

    /// Whether it holds keys: serde would read a list as a table's values in order.
    fn is_table_by_right(&self) -> bool {
        match self.parent.as_str() {
            "" => TABLES.contains(&self.name.as_str()),
            "variant" | "judge" => true,
            "dataset" => self.name == "columns" || self.name == "audit",
            parent if parent.starts_with("judge[") => {
                parent.ends_with(".rule") || ["train", "fitness"].contains(&self.name.as_str())
            }
            _ => false,
        }
    }
}

const TABLES: [&str; 10] = ["dataset", "model", "sft", "train", "generate", "compare", "statistics", "checks", "gate", "report"];

impl Document {
    pub(super) fn parse(text: String, file: &Path) -> Result<Self> {
        let mut document = Self { file: file.to_path_buf(), text, entries: Vec::new() };
        let mut entries = Vec::new();
        match DeTable::parse(&document.text) {
            Ok(table) => collect(table.get_ref(), "", &mut entries),
            Err(error) => return Err(document.at(error.span(), translate::syntax(error.message()))),
        }
        document.entries = entries;
        Ok(document)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn spec(&self) -> Result<SuiteSpec> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.is_list && entry.is_table_by_right()) {
            let error = Error::usage(format!("`{}` must be a table, not a list", entry.shown()));
            return Err(self.at(Some(entry.value.clone()), error));
        }
        toml::from_str(&self.text).map_err(|error| {
            // The top level has no header to point to.
            let span = error.span().filter(|span| !span.is_empty() && *span != (0..self.text.len()));
            let around = span.as_ref().and_then(|span| self.around(span));
            self.at(span.clone(), translate::mismatch(error.message(), around))
        })
    }

    pub(super) fn table(&self, path: impl Into<String>) -> Table<'_> {
        Table { document: self, path: path.into() }
    }

    /// Points `error` to the first byte of `span`.
    pub(super) fn at(&self, span: Option<Range<usize>>, error: Error) -> Error {
        let Some(span) = span else { return error.in_file(&self.file) };
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let begin = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + self.text[..begin].matches('\n').count();
        let excerpt = self.text[begin..].lines().next().unwrap_or("").replace('\t', " ");
        let column = 1 + self.text[begin..start].chars().count();
        Error {
            place: Some(Box::new(Place {
                file: self.file.clone(),
                line: Some(line),
                column: Some(column),
                excerpt: Some(excerpt),
            })),
            ..error
        }
    }

    /// The innermost entry whose value (or key) holds `span`.
    fn around(&self, span: &Range<usize>) -> Option<&Entry> {
        let holds = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
        // From the last, so that of a list and its only element the element is taken.
        let found = self.entries.iter().rev().filter(|entry| holds(&entry.value) || holds(&entry.key));
        found.min_by_key(|entry| entry.value.len())
    }

    fn entry(&self, parent: &str, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.parent == parent && entry.name == name)
    }

    /// The line that a path's own header or key stands in.
    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text[..span.start].matches('\n').count()
    }
}

fn collect(table: &DeTable<'_>, path: &str, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let (name, key) = (name.get_ref().to_string(), name.span());
        let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_list = matches!(value.get_ref(), DeValue::Array(_));
        entries.push(Entry { parent: path.to_owned(), name, key, value: value.span(), is_list });
        match value.get_ref() {
            DeValue::Table(table) => collect(table, &inner, entries),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let name = format!("[{index}]");
                    let element = format!("{inner}{name}");
                    let is_list = matches!(item.get_ref(), DeValue::Array(_));
                    entries.push(Entry { parent: inner.clone(), name, key: item.span(), value: item.span(), is_list });
                    if let DeValue::Table(table) = item.get_ref() {
                        collect(table, &element, entries);
                    }
                }
            }
            _ => {}
        }
    }
}

/// One table of the document, by its path; it may be absent from the file.
pub(super) struct Table<'a> {
    document: &'a Document,
    path: String,
}

impl<'a> Table<'a> {
    /// As its header is written: `[train]`, `[[variant]]`, `[judge.train]`.
    pub(super) fn title(&self) -> String {
        title(&self.path)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.document.entry(&self.path, key).is_some()
    }

    /// The first of its keys, in the file's order, that `wanted` picks.
    pub(super) fn first_key(&self, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
        let own = self.document.entries.iter().filter(|entry| entry.parent == self.path && wanted(&entry.name));
        own.min_by_key(|entry| entry.key.start).map(|entry| entry.name.as_str())
    }

    /// An error that points to a key, or to the table where the key isn't written.
    pub(super) fn at_key(&self, key: &str, message: impl Into<String>) -> Error {
        let span = self.document.entry(&self.path, key).map(|entry| entry.key.clone()).or_else(|| self.own_span());
        self.document.at(span, Error::usage(message))
    }

    /// An error that points to the value of a key, or to the table where the key isn't written.
    pub(super) fn at_value(&self, key: &str, message: impl Into<String>) -> Error {
        let span = self.document.entry(&self.path, key).map(|entry| entry.value.clone()).or_else(|| self.own_span());
        self.document.at(span, Error::usage(message))
    }

    /// An error about the table as a whole.
    pub(super) fn at_header(&self, message: impl Into<String>) -> Error {
        self.document.at(self.own_span(), Error::usage(message))
    }

    /// The line of a key's value; 0 where it isn't written.
    pub(super) fn line(&self, key: &str) -> usize {
        self.document.entry(&self.path, key).map_or(0, |entry| self.document.line(&entry.value))
    }

    fn own_span(&self) -> Option<Range<usize>> {
        let split = if self.path.ends_with(']') { self.path.rfind('[') } else { self.path.rfind('.') };
        let (parent, name) = match split {
            Some(at) if self.path.ends_with(']') => self.path.split_at(at),
            Some(at) => (&self.path[..at], &self.path[at + 1..]),
            None => ("", self.path.as_str()),
        };
        self.document.entry(parent, name).map(|entry| entry.key.clone())
    }

    /// Overwrites `slot` with what is written, if anything is and `rule` allows it.
    pub(super) fn set<T>(&self, slot: &mut T, key: &str, written: Option<T>, rule: Rule<T>) -> Result<()>
    where
        T: Copy,
    {
        let Some(value) = written else { return Ok(()) };
        if !(rule.holds)(value) {
            let shown = self.document.entry(&self.path, key).map_or("that", |entry| &self.document.text[entry.value.clone()]);
            return Err(self.at_value(key, format!("`{key}` must be {}, not {shown}", rule.words)));
        }
        *slot = value;
        Ok(())
    }

    /// Like `set` for a key where 0 means "none".
    pub(super) fn set_or_none<T>(&self, slot: &mut Option<T>, key: &str, written: Option<T>, rule: Rule<T>) -> Result<()>
    where
        T: Copy + Default + PartialEq,
    {
        let Some(value) = written else { return Ok(()) };
        if value == T::default() {
            *slot = None;
            return Ok(());
        }
        let mut inner = value;
        self.set(&mut inner, key, written, rule)?;
        *slot = Some(inner);
        Ok(())
    }
}

/// A table's header from its path: elements of lists stand under double brackets.
pub(super) fn title(path: &str) -> String {
    if path.is_empty() {
        return "the top level".to_owned();
    }
    let mut plain = String::new();
    let mut inside = false;
    for letter in path.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            _ if !inside => plain.push(letter),
            _ => {}
        }
    }
    if path.ends_with(']') { format!("[[{plain}]]") } else { format!("[{plain}]") }
}
