//! CSV with a header (RFC 4180), and the same with tabs.

use std::path::Path;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::text::Text;
use super::{Position, Record};
use crate::data::field::{Field, Object};
use crate::error::{Error, Result};

/// What separates the values of a file of this name: none if it is no CSV.
pub(super) fn delimiter(path: &Path) -> Option<u8> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "csv" => Some(b','),
        "tsv" => Some(b'\t'),
        _ => None,
    }
}

pub(super) fn for_each(
    path: &Path,
    mut text: Text<'_>,
    delimiter: u8,
    row: &mut impl FnMut(Record<'_>) -> Result<bool>,
) -> Result<()> {
    let renew = text.allowance();
    let failure = {
        let mut reader = ReaderBuilder::new().delimiter(delimiter).has_headers(false).from_reader(text.reader());
        let (mut header, mut record) = (None, ByteRecord::new());
        let mut number = 0;
        loop {
            renew();
            let line = reader.position().line() as usize;
            let place = Position::RowAtLine { row: number, line };
            match reader.read_byte_record(&mut record) {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(error) => break (place, error),
            }
            number += 1;
            let line = record.position().map_or(line, |p| p.line() as usize);
            let Some(names) = &header else {
                let names = texts(&record, |what| Error::input(format!("the header {what}")).at_line(path, line))?;
                if let Some(twice) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
                    return Err(Error::input(format!("the header names the column \"{twice}\" twice")).at_line(path, line));
                }
                (header, number) = (Some(names), 1);
                continue;
            };
            let place = Position::RowAtLine { row: number - 1, line };
            let values = texts(&record, |what| place.error(path, &format!("it {what}")))?.into_iter().map(Field::Text);
            let fields = Object(names.iter().cloned().zip(values).collect());
            if !row(Record { path, place, untyped: true, fields })? {
                return Ok(());
            }
        }
    };
    let (place, error) = failure;
    Err(match error.into_kind() {
        ErrorKind::Io(error) => text.error(place, &error),
        ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.map_or(0, |p| p.line() as usize);
            let Position::RowAtLine { row, .. } = place else { unreachable!("rows of CSV have both") };
            Position::RowAtLine { row, line }
                .error(path, &format!("it has {len} values, and the header names {expected_len} columns"))
                .help("values with commas, quotation marks or line breaks must stand in quotation marks")
        }
        other => place.error(path, &format!("this is no CSV: {other:?}")),
    })
}

fn texts(record: &ByteRecord, error: impl Fn(&str) -> Error) -> Result<Vec<String>> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
    let column = |index: usize| format!("is no UTF-8 text in column {}", index + 1);
    record
        .iter()
        .enumerate()
        .map(|(index, bytes)| text(bytes).map_err(|_| error(&column(index)).help("convert the file to UTF-8")))
        .collect()
}
