//! Turns the messages of the TOML parser and of serde into sentences about the suite file: which key, what it takes, and what
//! was probably meant.

use super::document::{Entry, title};
use crate::error::Error;

/// The text is no TOML.
pub(super) fn syntax(message: &str) -> Error {
    if message.starts_with("duplicate key") {
        return Error::usage("this key is written twice").help("keep one of the two");
    }
    let help = match message.contains("invalid boolean") || message.contains("must be quoted") {
        true => "texts need quotes: name = \"quickstart\"",
        false => "see https://toml.io for the syntax",
    };
    Error::usage(format!("this is not TOML: {message}")).help(help)
}

/// The text is TOML, but no suite. `around` is the key that the message is about, where one is known.
pub(super) fn mismatch(message: &str, around: Option<&Entry>) -> Error {
    if let Some((name, accepted)) = unknown(message, "unknown field `") {
        let table = title(around.map_or("", |entry| &entry.parent));
        let preposition = if around.is_some_and(|entry| !entry.parent.is_empty()) { "in" } else { "at" };
        let error = Error::usage(format!("unknown key `{name}` {preposition} {table}"));
        return error.help(with_suggestion(&name, &accepted, &format!("{table} takes ")));
    }
    let key = around.map_or_else(|| "the suite".to_owned(), Entry::shown);
    if let Some((name, accepted)) = unknown(message, "unknown variant `") {
        let error = Error::usage(format!("`{key}` can't be \"{name}\""));
        return error.help(with_suggestion(&name, &accepted, &format!("`{key}` takes ")));
    }
    if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let table = around.map_or_else(|| "the suite".to_owned(), owner);
        let what = match field {
            "dataset" => "`[dataset]`: a `kind`, \"world\" or \"pairs\", at least".to_owned(),
            _ => format!("`{field}`"),
        };
        return Error::usage(format!("{table} needs {what}"));
    }
    if let Some((found, expected)) = invalid(message) {
        return Error::usage(format!("`{key}` must be {}, not {}", wanted(expected), given(found)));
    }
    if message.starts_with("wanted string") {
        return Error::usage(format!("`{key}` must be one of its names, in quotes"));
    }
    Error::usage(format!("`{key}` can't be read: {message}"))
}

/// The header of the table that an entry is.
fn owner(entry: &Entry) -> String {
    match entry.name.starts_with('[') {
        true => title(&format!("{}{}", entry.parent, entry.name)),
        false if entry.parent.is_empty() => title(&entry.name),
        false => title(&format!("{}.{}", entry.parent, entry.name)),
    }
}

/// The name and the accepted names of serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown(message: &str, prefix: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = message.strip_prefix(prefix)?.split_once("`, ")?;
    let accepted = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), accepted))
}

fn invalid(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    rest.split_once(", expected ")
}

fn wanted(expected: &str) -> &str {
    match expected {
        "f64" => "a number",
        "usize" | "u64" => "a whole number, 0 or more",
        "a string" | "path string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// serde's words for what it found, in TOML's.
fn given(found: &str) -> String {
    let kinds = [("string ", "the text "), ("floating point ", ""), ("integer ", ""), ("boolean ", "")];
    for (kind, ours) in kinds {
        if let Some(value) = found.strip_prefix(kind) {
            // Large integers come as "`99…` as i128".
            return format!("{ours}{}", value.trim_end_matches(" as i128").trim_matches('`'));
        }
    }
    match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        other => other.to_owned(),
    }
}

/// "did you mean …?" where a name comes close, then all accepted names.
pub(crate) fn with_suggestion(name: &str, accepted: &[String], lead: &str) -> String {
    let all = accepted.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match nearest(name, accepted) {
        Some(near) => format!("did you mean `{near}`? {lead}{all}"),
        None => format!("{lead}{all}"),
    }
}

/// The accepted name that is the fewest edits away, if they are at most a third of its letters.
fn nearest<'a>(name: &str, accepted: &'a [String]) -> Option<&'a str> {
    let near = accepted.iter().map(|candidate| (distance(name, candidate), candidate)).min()?;
    (near.0 <= near.1.chars().count().div_ceil(3)).then_some(near.1.as_str())
}

/// Levenshtein's distance, with a swap of neighbours as one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("btea", "beta"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_far_name_is_not_suggested() {
        let accepted = vec!["beta".to_owned(), "optim".to_owned()];
        assert_eq!(nearest("betta", &accepted), Some("beta"));
        assert_eq!(nearest("gamma", &accepted), None);
    }
}
