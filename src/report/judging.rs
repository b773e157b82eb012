//! What `judge score`, `judge fitness` and `judge agree` show.

use serde::Serialize;

use super::format::{self, visible_line};
use super::{metrics, terminal};
use crate::checks::Finding;
use crate::error::{Error, Result};
use crate::estimates::Estimate;
use crate::estimates::agreement::Agreement;
use crate::judge::Outcome;

/// A row of a file, as a judge sees it. The field order is the column order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum JudgedRow {
    Score {
        row: String,
        score: f64,
    },
    Preference {
        row: String,
        /// Debiased probability that the first completion is better; none where the judge has nothing to say.
        preference: Option<f64>,
        outcome: Option<Outcome>,
        logit_first_first: Option<f64>,
        logit_second_first: Option<f64>,
        score_first: Option<f64>,
        score_second: Option<f64>,
        truncated: bool,
    },
}

/// As lines of JSON.
pub fn json_lines<T: Serialize>(rows: &[T]) -> String {
    rows.iter().map(|row| serde_json::to_string(row).expect("rows are plain data") + "\n").collect()
}

pub fn csv<T: Serialize>(rows: &[T]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let broken = |e: String| Error::unexpected(format!("the rows can't be written as CSV: {e}"));
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(|e| broken(e.to_string()))?;
    let bytes = writer.into_inner().map_err(|e| broken(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
}

pub fn judged_table(rows: &[JudgedRow], width: usize) -> String {
    let number = |x: Option<f64>| x.map_or_else(|| format::NONE.to_owned(), |x| format::fixed(x, 4));
    match rows.first() {
        Some(JudgedRow::Score { .. }) => {
            let cells = rows.iter().filter_map(|row| match row {
                JudgedRow::Score { row, score } => Some([visible_line(row), format::fixed(*score, 4)]),
                JudgedRow::Preference { .. } => None,
            });
            terminal::plain_table(["row", "score"], cells, width)
        }
        _ => {
            let cells = rows.iter().filter_map(|row| match row {
                JudgedRow::Preference { row, preference, outcome, truncated, .. } => {
                    let outcome = match outcome {
                        Some(Outcome::Win) => "first",
                        Some(Outcome::Tie) => "tie",
                        Some(Outcome::Loss) => "second",
                        None => "nothing said",
                    };
                    let cut = if *truncated { "cut" } else { "" };
                    Some([visible_line(row), number(*preference), outcome.to_owned(), cut.to_owned()])
                }
                JudgedRow::Score { .. } => None,
            });
            terminal::plain_table(["row", "P(first better)", "better", ""], cells, width)
        }
    }
}

/// Whether a judge is fit, and what that rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitnessReport {
    pub judge: String,
    pub fit: bool,
    /// Why it isn't.
    pub reason: Option<String>,
    pub findings: Vec<Finding>,
    pub estimates: Vec<Estimate>,
}

impl FitnessReport {
    pub fn terminal(&self, width: usize) -> String {
        let label = |e: &Estimate| {
            let label = metrics::find(&e.metric).map_or(e.metric.as_str(), |m| m.label);
            e.slice.as_ref().map_or_else(|| label.to_owned(), |slice| format!("{label}, {slice}"))
        };
        let row = |e: &Estimate| {
            let digits = metrics::digits(&e.metric);
            [label(e), format::with_interval(e.value, e.lower, e.upper, digits), e.n.to_string()]
        };
        let mut out = terminal::plain_table(["", "", "n"], self.estimates.iter().map(row), width);
        for finding in &self.findings {
            let (symbol, word) = format::severity(finding.severity);
            for line in terminal::wrap(&format!("{symbol} {word} {}", visible_line(&finding.message)), width) {
                out += &line;
                out.push('\n');
            }
        }
        let said = match &self.reason {
            None => format!("✓ judge `{}` is fit\n", self.judge),
            Some(reason) => format!("✗ judge `{}` is unfit: it {reason}\n", self.judge),
        };
        out + &said
    }
}

pub fn agreement_table(rows: &[Agreement], width: usize) -> String {
    let cells = rows.iter().map(|a| {
        let who =
            if a.second.is_empty() || a.second == a.first { a.first.clone() } else { format!("{} · {}", a.first, a.second) };
        [
            a.measure.replace('_', " "),
            visible_line(&who),
            format::with_interval(a.value, a.lower, a.upper, 3),
            a.items.to_string(),
        ]
    });
    terminal::plain_table(["", "", "", "items"], cells, width)
}
