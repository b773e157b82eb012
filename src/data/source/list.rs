//! One JSON list of objects, read object by object.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::text::Text;
use super::{Position, Record, object, reason};
use crate::data::field::Field;
use crate::error::{Error, Place, Result};

/// Takes the list's elements as they are parsed.
struct Elements<'a, F> {
    path: &'a Path,
    renew: &'a dyn Fn(),
    row: F,
    read: &'a Cell<usize>,
    /// What ended the reading early, if it was no fault of the JSON.
    ended: &'a Cell<Option<Result<()>>>,
}

impl<'de, F: FnMut(Record<'_>) -> Result<bool>> Visitor<'de> for Elements<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> std::result::Result<(), A::Error> {
        (self.renew)();
        while let Some(field) = elements.next_element::<Field>()? {
            (self.renew)();
            self.read.set(self.read.get() + 1);
            let place = Position::Row(self.read.get());
            let taken = object(field, self.path, place)
                .and_then(|fields| (self.row)(Record { path: self.path, place, untyped: false, fields }));
            match taken {
                Ok(true) => {}
                end => {
                    self.ended.set(Some(end.map(drop)));
                    return Err(A::Error::custom("ended"));
                }
            }
        }
        Ok(())
    }
}

pub(super) fn for_each(path: &Path, mut text: Text<'_>, row: &mut impl FnMut(Record<'_>) -> Result<bool>) -> Result<()> {
    let (read, ended) = (Cell::new(0), Cell::new(None));
    let renew = text.allowance();
    let outcome = {
        let mut json = serde_json::Deserializer::from_reader(text.reader());
        let elements = Elements { path, renew: &renew, row, read: &read, ended: &ended };
        json.deserialize_seq(elements).and_then(|()| json.end())
    };
    if let Some(end) = ended.take() {
        return end;
    }
    outcome.map_err(|e| {
        let place = Position::Row(read.get() + 1);
        if e.is_io() {
            return text.error(place, &e.into());
        }
        let mut error = if e.is_eof() {
            Error::input(format!("row {}: the list ends in the middle of it", read.get() + 1)).help("fetch the file again")
        } else {
            Error::input(format!("row {}: this is no JSON: {}", read.get() + 1, reason(&e)))
                .help("a JSON file holds a list of objects, [{…}, {…}]")
        };
        let column = (e.column() > 0).then_some(e.column());
        error.place = Some(Box::new(Place { file: path.to_owned(), line: Some(e.line()), column, excerpt: None }));
        error
    })
}
