//! The text of a file: plain, gzip or Zstandard, known by the first bytes whatever the name.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use super::{LONGEST_ROW, Position};
use crate::error::{Error, Result};

const BUFFER: usize = 1 << 16;
/// UTF-8's byte order mark, which is no part of a text.
const MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) struct Text<'a> {
    path: &'a Path,
    reader: BufReader<Allowance<Box<dyn Read>>>,
    left: Rc<Cell<u64>>,
    /// What wraps the text, for messages.
    wrapping: Option<&'static str>,
}

/// What is left to read before a row is too long. Readers of other crates would else take in a row of any length.
struct Allowance<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Allowance<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "the row is too long"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

impl<'a> Text<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("read", path, &e);
        let mut file = BufReader::with_capacity(BUFFER, File::open(path).map_err(io)?);
        let start = file.fill_buf().map_err(io)?;
        let (wrapping, inner): (_, Box<dyn Read>) = if start.starts_with(&[0x1f, 0x8b]) {
            (Some("gzip"), Box::new(MultiGzDecoder::new(file)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            (Some("Zstandard"), Box::new(zstd::Decoder::with_buffer(file).map_err(io)?))
        } else {
            (None, Box::new(file))
        };
        let left = Rc::new(Cell::new(LONGEST_ROW));
        let reader = BufReader::with_capacity(BUFFER, Allowance { inner, left: Rc::clone(&left) });
        Ok(Self { path, reader, left, wrapping })
    }

    /// Renews the allowance: to be called with each row.
    pub(super) fn allowance(&self) -> impl Fn() + use<> {
        let left = Rc::clone(&self.left);
        move || left.set(LONGEST_ROW + BUFFER as u64)
    }

    pub(super) fn reader(&mut self) -> impl Read + '_ {
        &mut self.reader
    }

    /// Whether the first sign that is no white space is `[`. A byte order mark before it is passed over.
    pub(super) fn starts_with_bracket(&mut self) -> bool {
        // Damage is told by whoever reads on.
        let Ok(start) = self.reader.fill_buf() else { return false };
        let text = start.strip_prefix(MARK).unwrap_or(start);
        let (mark, bracket) = (start.len() - text.len(), text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['));
        self.reader.consume(mark);
        bracket
    }

    /// Calls `row` with each line that isn't blank and its number (from 1), until it says false.
    pub(super) fn for_each_line(mut self, mut row: impl FnMut(usize, &str) -> Result<bool>) -> Result<()> {
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            self.left.set(u64::MAX);
            let read = (&mut self.reader).take(LONGEST_ROW + 1).read_until(b'\n', &mut bytes);
            let read = read.map_err(|e| self.error(Position::Line(number), &e))?;
            if read == 0 {
                break;
            }
            if read as u64 > LONGEST_ROW {
                return Err(too_long(self.path, Position::Line(number)));
            }
            let line = std::str::from_utf8(&bytes).map_err(|e| {
                Error::input(format!("the line is no UTF-8 text from its byte {} on", e.valid_up_to() + 1))
                    .at_line(self.path, number)
                    .help("convert the file to UTF-8")
            })?;
            if !line.trim().is_empty() && !row(number, line)? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn error(&self, place: Position, error: &std::io::Error) -> Error {
        use std::io::ErrorKind;
        let again = "fetch the file again";
        let wrapping = self.wrapping.unwrap_or("text");
        match error.kind() {
            ErrorKind::FileTooLarge => too_long(self.path, place),
            ErrorKind::UnexpectedEof => place.error(self.path, &format!("the {wrapping} file is truncated")).help(again),
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other if self.wrapping.is_some() => {
                place.error(self.path, &format!("the {wrapping} file is damaged: {error}")).help(again)
            }
            _ => Error::io("read", self.path, error),
        }
    }
}

fn too_long(path: &Path, place: Position) -> Error {
    let what = if matches!(place, Position::Line(_)) { "the line" } else { "it" };
    let help = match place {
        Position::Line(_) => "JSONL holds one row a line: is this another format, or one list of all rows?",
        Position::RowAtLine { .. } => "a quotation mark that is never closed takes in the rest of a CSV file",
        Position::Row(_) => "no row of text is that long: look at this one",
    };
    place.error(path, &format!("{what} is longer than {} MiB", LONGEST_ROW >> 20)).help(help)
}
