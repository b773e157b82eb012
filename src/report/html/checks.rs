//! The checks O1 to O14: a picture a measure, with each variant's number beside the limit; all of it as a table, a row a measure and a
//! column a variant; and why some couldn't be made.

use serde::Serialize;

use crate::checks::{CheckOutcome, CheckRow};

use super::super::chart::{self, Axis, ForestRow, Layout};
use super::super::{ReportData, format};
use super::{Figure, many, safe};

#[derive(Serialize)]
pub(super) struct Section {
    figures: Vec<Figure>,
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

/// Limits that are drawn, at most.
const LINES: usize = 3;

/// What one measure came to: for each variant, in the suite's order, its row.
struct Made<'a> {
    check: &'a str,
    title: &'a str,
    of: Vec<Option<&'a CheckRow>>,
}

fn measures(data: &ReportData) -> Vec<Made<'_>> {
    let mut rows: Vec<&CheckRow> = data.checks.iter().filter(|row| row.judge.is_none()).collect();
    let mut made = Vec::new();
    while let Some(first) = rows.first().copied() {
        let (of_it, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.id == first.id && row.title == first.title);
        let of = data.suite.variants.iter().map(|v| of_it.iter().find(|row| row.variant == v.name).copied()).collect();
        made.push(Made { check: &first.check, title: &first.title, of });
        rows = rest;
    }
    made
}

pub(super) fn section(data: &ReportData) -> Section {
    let measures = measures(data);
    let row = |made: &Made| Row {
        check: made.check.to_owned(),
        title: made.title.to_owned(),
        cells: made.of.iter().map(|row| row.map(cell)).collect(),
    };
    let judge = |row: &CheckRow| {
        let (check, title, judge) = (row.check.clone(), row.title.clone(), row.judge.clone()?);
        Some(JudgeRow { check, title, judge, cell: cell(row) })
    };
    Section {
        figures: measures.iter().enumerate().filter_map(|(i, made)| figure(data, i, made)).collect(),
        columns: data.suite.variants.iter().map(|v| data.label(&v.name).to_owned()).collect(),
        rows: measures.iter().map(row).collect(),
        judges: data.checks.iter().filter_map(judge).collect(),
        unchecked: unchecked(data),
    }
}

/// The numbers of one measure beside its limit; none where it could be made for no variant.
fn figure(data: &ReportData, index: usize, made: &Made) -> Option<Figure> {
    let shown = |(series, row): (usize, &Option<&CheckRow>)| {
        let (row, value) = row.and_then(|row| Some((row, row.value?)))?;
        let (lower, upper) = (row.lower.unwrap_or(value), row.upper.unwrap_or(value));
        let text = format!("{} {}", format::check(row.outcome).0, number(row));
        let label = format::cut(data.label(&row.variant), 20);
        Some(ForestRow { heading: None, label, value, lower, upper, series, strong: true, text })
    };
    let rows: Vec<ForestRow> = made.of.iter().enumerate().filter_map(shown).collect();
    let mut limits: Vec<f64> =
        made.of.iter().flatten().filter(|row| row.value.is_some()).filter_map(|row| row.threshold).collect();
    limits.sort_by(f64::total_cmp);
    limits.dedup();
    let title = format!("{} {}", made.check, made.title);
    let said: Vec<String> = limits.iter().map(|limit| format::fixed(*limit, digits(*limit))).collect();
    let caption = match said.as_slice() {
        [] => "It has no limit.".to_owned(),
        [limit] => format!("The line is the limit, {limit}."),
        limits if limits.len() <= LINES => format!("The lines are the limits, {}.", limits.join(" and ")),
        _ => "Each variant has a limit of its own, which the table tells.".to_owned(),
    };
    if limits.len() > LINES {
        limits.clear();
    }
    let ends = rows.iter().flat_map(|r| [r.lower, r.value, r.upper]).chain(limits.iter().copied());
    let axis = Axis::fit("", ends, 4);
    let about = format!("{} with intervals. {caption}", format::plural(rows.len(), "variant"));
    let layout = if many(data) { &Layout::DENSE } else { &Layout::NARROW };
    let svg = safe(chart::forest(&format!("check-{index}"), [&title, &about], &axis, &limits, &rows, layout));
    (!rows.is_empty()).then_some(Figure { title, svg, narrow: None, caption })
}

fn number(row: &CheckRow) -> String {
    match (row.value, row.lower, row.upper) {
        (Some(value), Some(lower), Some(upper)) => format::with_interval(value, lower, upper, digits(value)),
        (Some(value), ..) => format::fixed(value, digits(value)),
        _ => String::new(),
    }
}

fn cell(row: &CheckRow) -> Cell {
    let (symbol, word) = format::check(row.outcome);
    let limit = row.threshold.map(|limit| format!("limit {}", format::fixed(limit, digits(limit))));
    let count = (row.n > 0).then(|| format!("n {}", row.n));
    let words = Some(row.message.clone()).filter(|words| !words.is_empty());
    Cell { symbol, word, number: number(row), about: [limit, count, words].into_iter().flatten().collect::<Vec<_>>().join(", ") }
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
