//! The table of the checks O1 to O14: a row a measure, a column a variant; below it why some couldn't be made.

use serde::Serialize;

use crate::checks::{CheckOutcome, CheckRow};

use super::super::{ReportData, format};

#[derive(Serialize)]
pub(super) struct Section {
    columns: Vec<String>,
    rows: Vec<Row>,
    judges: Vec<JudgeRow>,
    /// `O11 Rise of self-BLEU`, and why, as many variants as it is so of.
    unchecked: Vec<Unchecked>,
}

#[derive(Serialize)]
struct Row {
    check: String,
    title: String,
    cells: Vec<Option<Cell>>,
}

#[derive(Serialize)]
struct JudgeRow {
    check: String,
    title: String,
    judge: String,
    cell: Cell,
}

#[derive(Serialize)]
struct Cell {
    symbol: &'static str,
    word: &'static str,
    number: String,
    about: String,
}

#[derive(Serialize)]
struct Unchecked {
    what: String,
    place: String,
    why: String,
}

pub(super) fn section(data: &ReportData) -> Section {
    let of_variants = || data.checks.iter().filter(|row| row.judge.is_none());
    let mut rows: Vec<(&str, &str, &str)> = Vec::new();
    for row in of_variants() {
        let place = (row.check.as_str(), row.id.as_str(), row.title.as_str());
        if !rows.contains(&place) {
            rows.push(place);
        }
    }
    let variants: Vec<&str> = data.suite.variants.iter().map(|v| v.name.as_str()).collect();
    let made = |(check, id, title): (&str, &str, &str)| {
        let found = |variant: &&str| of_variants().find(|row| row.id == id && row.title == title && row.variant == **variant);
        Row { check: check.to_owned(), title: title.to_owned(), cells: variants.iter().map(|v| found(v).map(cell)).collect() }
    };
    let judge = |row: &CheckRow| {
        let (check, title, judge) = (row.check.clone(), row.title.clone(), row.judge.clone()?);
        Some(JudgeRow { check, title, judge, cell: cell(row) })
    };
    Section {
        columns: variants.iter().map(|name| data.label(name).to_owned()).collect(),
        rows: rows.into_iter().map(made).collect(),
        judges: data.checks.iter().filter_map(judge).collect(),
        unchecked: unchecked(data),
    }
}

fn cell(row: &CheckRow) -> Cell {
    let (symbol, word) = format::check(row.outcome);
    let number = match (row.value, row.lower, row.upper) {
        (Some(value), Some(lower), Some(upper)) => format::with_interval(value, lower, upper, digits(value)),
        (Some(value), ..) => format::fixed(value, digits(value)),
        _ => String::new(),
    };
    let limit = row.threshold.map(|limit| format!("limit {}", format::fixed(limit, digits(limit))));
    let count = (row.n > 0).then(|| format!("n {}", row.n));
    let words = Some(row.message.clone()).filter(|words| !words.is_empty());
    Cell { symbol, word, number, about: [limit, count, words].into_iter().flatten().collect::<Vec<_>>().join(", ") }
}

/// Small numbers need their decimals, large ones don't.
fn digits(value: f64) -> usize {
    if value.abs() < 10.0 { 3 } else { 1 }
}

/// One line a measure and reason.
fn unchecked(data: &ReportData) -> Vec<Unchecked> {
    let mut lines: Vec<Unchecked> = Vec::new();
    for row in data.checks.iter().filter(|row| row.outcome == CheckOutcome::Unchecked) {
        let what = format!("{} {}", row.check, row.title);
        let place = row.judge.clone().unwrap_or_else(|| data.label(&row.variant).to_owned());
        match lines.iter_mut().find(|line| line.what == what && line.why == row.message) {
            Some(line) => line.place = format!("{}, {place}", line.place),
            None => lines.push(Unchecked { what, place, why: row.message.clone() }),
        }
    }
    lines
}
