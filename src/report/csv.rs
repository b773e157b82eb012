//! The rows as CSV: a header, then one line a row; floats in the shortest form that reads back the same, nothing where
//! there is no value.

use serde::Serialize;

use crate::error::{Error, Result};

use super::ReportData;
use super::columns::{self, Table};

/// Every table with its rows, in the order of `columns::TABLES`.
pub(crate) fn render(data: &ReportData) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let gate = data.gate.as_ref().map_or(&[][..], |g| &g.rows);
    let (claims, points) = data.study.as_ref().map_or((&[][..], &[][..]), |study| (&study.claims[..], &study.points[..]));
    Ok(vec![
        (columns::CELLS.file, table(&columns::CELLS, &data.cells)?),
        (columns::TRAIN_LOG.file, table(&columns::TRAIN_LOG, &data.train_log)?),
        (columns::ONLINE_LOG.file, table(&columns::ONLINE_LOG, &data.online_log)?),
        (columns::EVAL_LOG.file, table(&columns::EVAL_LOG, &data.eval_log)?),
        (columns::COMPLETIONS.file, table(&columns::COMPLETIONS, &data.completions)?),
        (columns::JUDGMENTS.file, table(&columns::JUDGMENTS, &data.judgments)?),
        (columns::JUDGE_TRIALS.file, table(&columns::JUDGE_TRIALS, &data.judge_trials)?),
        (columns::JUDGE_PROBES.file, table(&columns::JUDGE_PROBES, &data.judge_probes)?),
        (columns::PAIR_SCORES.file, table(&columns::PAIR_SCORES, &data.pair_scores)?),
        (columns::TRAIN_SCORES.file, table(&columns::TRAIN_SCORES, &data.train_scores)?),
        (columns::OPPOSITE_SCORES.file, table(&columns::OPPOSITE_SCORES, &data.opposite_scores)?),
        (columns::SIMILARITIES.file, table(&columns::SIMILARITIES, &data.similarities)?),
        (columns::ESTIMATES.file, table(&columns::ESTIMATES, &data.estimates)?),
        (columns::CHECKS.file, table(&columns::CHECKS, &data.checks)?),
        (columns::FINDINGS.file, table(&columns::FINDINGS, &data.findings)?),
        (columns::CLAIMS.file, table(&columns::CLAIMS, claims)?),
        (columns::FRONTIER.file, table(&columns::FRONTIER, points)?),
        (columns::GATE.file, table(&columns::GATE, gate)?),
    ])
}

/// The header stands also above an empty table.
pub(crate) fn table<T: Serialize>(table: &Table, rows: &[T]) -> Result<Vec<u8>> {
    let broken = |e: csv::Error| Error::unexpected(format!("{} can't be written as CSV: {e}", table.file));
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(table.columns.iter().map(|c| c.name)).map_err(broken)?;
    for row in rows {
        writer.serialize(row).map_err(broken)?;
    }
    writer.into_inner().map_err(|e| Error::unexpected(format!("{} can't be written as CSV: {e}", table.file)))
}
