//! `report.json`: the whole of [`ReportData`], in the order of its fields.

use std::path::Path;

use crate::error::{Error, Result};

use crate::estimates::Estimate;

use super::ReportData;

/// Above this many bytes the file is written without indentation.
const PRETTY_LIMIT: usize = 2 << 20;
/// The version of the form that this program writes and reads.
pub const SCHEMA: u32 = 2;

pub(crate) fn render(data: &ReportData) -> Result<Vec<u8>> {
    let broken = |e: serde_json::Error| Error::unexpected(format!("the report can't be written as JSON: {e}"));
    let mut bytes = serde_json::to_vec_pretty(data).map_err(broken)?;
    if bytes.len() > PRETTY_LIMIT {
        bytes = serde_json::to_vec(data).map_err(broken)?;
    }
    bytes.push(b'\n');
    // JSON has no NaN and no infinity; what can't be read back the same is not written at all.
    match serde_json::from_slice::<ReportData>(&bytes) {
        Ok(back) if back == *data => Ok(bytes),
        _ => Err(Error::unexpected(format!("the report holds a number that isn't finite: {}", not_finite(data)))),
    }
}

fn not_finite(data: &ReportData) -> String {
    let odd = |e: &&Estimate| ![e.value, e.lower, e.upper, e.level].iter().all(|v| v.is_finite());
    if let Some(e) = data.estimates.iter().find(odd) {
        let of = if e.variant.is_empty() { e.judge.as_deref().unwrap_or_default() } else { &e.variant };
        return format!("the estimate {} of {of} is {} [{}, {}]", e.metric, e.value, e.lower, e.upper);
    }
    "in the training log, the pair scores, the completions or the judgments".to_owned()
}

/// Reads a `report.json` back.
///
/// # Errors
/// When the file is missing, is no report, or has another schema version.
pub fn load_json(path: &Path) -> Result<ReportData> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, &e))?;
    let help = "give a report.json that `dpo-eval suite run` or `dpo-eval report` wrote";
    let version: Version = serde_json::from_slice(&text).map_err(|e| malformed(path, &e).help(help))?;
    if version.schema != SCHEMA {
        let message = format!("the report has schema {}, and this program reads schema {SCHEMA}", version.schema);
        return Err(Error::input(message).help("run the suite again with this version of dpo-eval").in_file(path));
    }
    serde_json::from_slice(&text).map_err(|e| malformed(path, &e).help(help))
}

#[derive(serde::Deserialize)]
struct Version {
    schema: u32,
}

fn malformed(path: &Path, error: &serde_json::Error) -> Error {
    Error::input(format!("this is no report: {error}")).at_line(path, error.line())
}
