//! Values as Python writes them: `str`, `repr` and `json.dumps`.

use std::fmt::Write;

use crate::data::field::{Field, Object};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

type Result<T> = std::result::Result<T, Error>;

/// A row's value as a template sees it.
pub(super) fn value(field: &Field) -> Value {
    match field {
        Field::Null | Field::Other(_) => Value::from(()),
        Field::Bool(value) => Value::from(*value),
        Field::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(integer)) => Value::from(integer),
            (None, None) => Value::from(number.as_f64()),
        },
        Field::Text(text) => Value::from(text.as_str()),
        Field::List(items) => items.iter().map(value).collect(),
        Field::Object(entries) => object(entries),
    }
}

pub(super) fn object(object: &Object) -> Value {
    Value::from_pairs(object.0.iter().map(|(name, field)| (name.clone(), value(field))))
}

/// What `{{ value }}` prints.
pub(super) fn print(out: &mut Output<'_>, _state: &mut State<'_, '_>, value: &Value) -> Result<()> {
    out.write_str(&str(value)).map_err(|_| Error::new(ErrorKind::WriteFailure, "the text can't be written"))
}

/// Python's `str`; nothing for what is undefined, as in Jinja2.
pub(super) fn str(value: &Value) -> String {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => text.to_owned(),
        (ValueKind::Undefined, _) => String::new(),
        _ => repr(value),
    }
}

fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number => number(value),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq => format!("[{}]", items(value).iter().map(repr).collect::<Vec<_>>().join(", ")),
        ValueKind::Map => {
            let entry = |key: &Value| format!("{}: {}", repr(key), repr(&value.get_item(key).unwrap_or_default()));
            format!("{{{}}}", items(value).iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn items(value: &Value) -> Vec<Value> {
    value.try_iter().map(Iterator::collect).unwrap_or_default()
}

/// A text in Python's quotation marks: single ones, unless it holds such and no double ones.
fn quoted(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(mark);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter == mark => out.extend(['\\', letter]),
            letter if letter.is_ascii_control() => _ = write!(out, "\\x{:02x}", u32::from(letter)),
            letter => out.push(letter),
        }
    }
    out.push(mark);
    out
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => real(float),
        _ => value.to_string(),
    }
}

/// Python's `repr` of a float: the shortest digits that read back the same, with an exponent of two digits at least.
fn real(value: f64) -> String {
    if value.is_nan() || value.is_infinite() {
        return if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let shortest = format!("{value:?}");
    let Some((digits, exponent)) = shortest.split_once('e') else { return shortest };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |positive| ('-', positive));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// transformers' `tojson`: Python's `json.dumps`, with the options that templates use.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let json = Json {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        separators: match separators.as_deref() {
            Some([item, key]) => (item.clone(), key.clone()),
            Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators are two texts")),
            None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        },
    };
    options.assert_all_used()?;
    let mut out = String::new();
    json.write(value, 0, &mut out)?;
    Ok(out)
}

struct Json {
    ascii: bool,
    sort: bool,
    indent: Option<usize>,
    /// Between items, and after keys.
    separators: (String, String),
}

impl Json {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<()> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&match number(value).as_str() {
                "nan" => "NaN".to_owned(),
                "inf" => "Infinity".to_owned(),
                "-inf" => "-Infinity".to_owned(),
                finite => finite.to_owned(),
            }),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                self.block(['[', ']'], &items(value), depth, out, |item, out| self.write(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys = items(value);
                if self.sort {
                    keys.sort();
                }
                self.block(['{', '}'], &keys, depth, out, |key, out| {
                    self.text(&str(key), out);
                    out.push_str(&self.separators.1);
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            other => {
                return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: JSON has no type for {other}")));
            }
        }
        Ok(())
    }

    fn block(
        &self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(&Value, &mut String) -> Result<()>,
    ) -> Result<()> {
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(&self.separators.0);
            }
            self.line(depth + 1, out);
            write(item, out)?;
        }
        if !items.is_empty() {
            self.line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                letter if letter < ' ' => _ = write!(out, "\\u{:04x}", u32::from(letter)),
                letter if self.ascii && !letter.is_ascii() => {
                    letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(out, "\\u{unit:04x}"));
                }
                letter => out.push(letter),
            }
        }
        out.push('"');
    }
}
