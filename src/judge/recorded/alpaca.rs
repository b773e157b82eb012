//! AlpacaEval's annotations, as it writes them or reduced to numbers.
//!
//! `output_1` is the baseline's and `output_2` the model's, in which order the judge saw them is undone already (one order, drawn at
//! random for each item). 1.5 is a tie, 0 an older tie (alpaca_eval 0.6, `metrics/winrate.py`).

use super::RecordedPreference;
use super::Sides;
use super::fields::Fields;
use crate::error::Result;

pub(super) fn read(fields: &Fields<'_>, row: usize) -> Result<RecordedPreference> {
    let prompt = fields.first_name(&["prompt_id", "instruction_index", "instruction"])?;
    let prompt = prompt.ok_or_else(|| fields.missing("instruction"))?;
    let mut found = RecordedPreference::new(fields.record.place, row, prompt);
    // The numbers without texts say which row of annotations.json they are.
    found.row = fields.count("row")?.map_or(row, |row| row as usize);
    if !fields.has("preference") {
        return Err(fields.missing("preference").help("AlpacaEval writes null where its judge gave no verdict"));
    }
    found.preference = match fields.number("preference")? {
        Some(0.0) => Some(0.5),
        _ => fields
            .within("preference", [1.0, 2.0], "AlpacaEval's preferences are 1 (baseline) to 2 (model), or 0")?
            .map(|p| p - 1.0),
    };
    found.policy = fields.first_name(&["policy", "generator_2"])?;
    found.baseline = fields.first_name(&["baseline", "generator_1"])?;
    found.judge = fields.first_name(&["judge", "annotator"])?;
    match (fields.text("output_2")?, fields.text("output_1")?) {
        (Some(policy), Some(baseline)) => found.set_text(fields.text("instruction")?, policy, baseline),
        _ => found.length = lengths(fields, "len_output_2", "len_output_1")?,
    }
    Ok(found)
}

/// Both lengths, or none.
pub(super) fn lengths(fields: &Fields<'_>, policy: &str, baseline: &str) -> Result<Option<Sides<u64>>> {
    match (fields.count(policy)?, fields.count(baseline)?) {
        (Some(policy), Some(baseline)) => Ok(Some(Sides { policy, baseline })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(fields.missing(policy).help("lengths are of both sides")),
        (Some(_), None) => Err(fields.missing(baseline).help("lengths are of both sides")),
    }
}
