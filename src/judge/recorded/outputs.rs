//! What the models wrote, where the verdicts don't hold it: AlpacaEval's `model_outputs.json`, `completions.csv` of a report.

use std::collections::BTreeMap;
use std::path::Path;

use super::fields::Fields;
use super::{Columns, RecordedPreference, Sides};
use crate::data::source::for_each_row;
use crate::error::{Error, Result};
use crate::generate::REFERENCE;

/// A model's answers, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    /// Instruction and output.
    pub rows: Vec<(String, String)>,
    pub generator: Option<String>,
}

impl Outputs {
    /// Reads `instruction` and `output` of each row.
    ///
    /// # Errors
    /// A file that can't be read or lacks one of the two, an instruction with two outputs.
    pub fn read(path: &Path) -> Result<Self> {
        let mut outputs = Self::default();
        let mut seen = BTreeMap::new();
        for_each_row(path, |record| {
            let fields = Fields { record: &record, columns: &Columns::default(), lenient: false };
            let text = |name: &str| fields.text(name)?.map(str::to_owned).ok_or_else(|| fields.missing(name));
            let (instruction, output) = (text("instruction")?, text("output")?);
            if let Some(earlier) = seen.insert(instruction.clone(), record.place) {
                let message = format!("a second output for the instruction of {}", earlier.shown());
                return Err(record.error(message).help("leave one of them out"));
            }
            outputs.generator = outputs.generator.take().or(fields.name("generator")?);
            outputs.rows.push((instruction, output));
            Ok(true)
        })?;
        match outputs.rows.is_empty() {
            true => Err(Error::input("there are no outputs in it").in_file(path)),
            false => Ok(outputs),
        }
    }

    /// ⌊mean length in code points⌋ over all of them, as AlpacaEval's leaderboard has it (`avg_length`).
    pub fn average_length(&self) -> u64 {
        let total: u64 = self.rows.iter().map(|(_, output)| output.chars().count() as u64).sum();
        total / self.rows.len().max(1) as u64
    }
}

/// Gives verdicts the texts of both sides, joined by instruction. `files`: where the outputs come from, `verdicts`: the rows' own file.
///
/// # Errors
/// A verdict whose instruction has no output.
pub fn join(rows: &mut [RecordedPreference], verdicts: &Path, files: Sides<&Path>, outputs: Sides<&Outputs>) -> Result<()> {
    let by_instruction = |outputs: &'_ Outputs| -> BTreeMap<String, String> { outputs.rows.iter().cloned().collect() };
    let (policy, baseline) = (by_instruction(outputs.policy), by_instruction(outputs.baseline));
    for row in rows {
        let output = |of: &BTreeMap<String, String>, file: &Path| {
            of.get(&row.prompt_id).cloned().ok_or_else(|| {
                let shown: String = row.prompt_id.chars().take(60).collect();
                let message = format!("{} has no output for the instruction \"{shown}\"", file.display());
                row.place.error(verdicts, &message).help("verdicts and outputs are joined by the instruction's text")
            })
        };
        let texts = (output(&policy, files.policy)?, output(&baseline, files.baseline)?);
        let prompt = row.prompt_id.clone();
        row.set_text(Some(&prompt), &texts.0, &texts.1);
    }
    Ok(())
}

/// Gives the judgments of a report the completions that they are about (`completions.csv`).
///
/// # Errors
/// A judgment whose completions aren't there.
pub fn join_completions(rows: &mut [RecordedPreference], completions: &Path, judgments: &Path) -> Result<()> {
    let mut texts: BTreeMap<(String, u64, String, String), (String, String)> = BTreeMap::new();
    for_each_row(completions, |record| {
        let fields = Fields { record: &record, columns: &Columns::default(), lenient: false };
        let name = |name: &str| fields.name(name)?.ok_or_else(|| fields.missing(name));
        let (seed, sample) = (fields.name("seed")?, name("sample")?);
        let sample = seed.map_or_else(|| sample.clone(), |seed| format!("seed {seed}, {sample}"));
        let text = fields.text("text")?.ok_or_else(|| fields.missing("text"))?.to_owned();
        let prompt = fields.text("prompt")?.unwrap_or_default().to_owned();
        let checkpoint = fields.count("checkpoint")?.ok_or_else(|| fields.missing("checkpoint"))?;
        texts.insert((name("variant")?, checkpoint, name("prompt_id")?, sample), (prompt, text));
        Ok(true)
    })?;
    for row in rows {
        let policy = row.policy.clone().unwrap_or_default();
        let own = texts.get(&(policy, row.checkpoint.unwrap_or(0), row.prompt_id.clone(), row.sample.clone()));
        let sample = row.sample.rsplit(", ").next().unwrap_or_default().to_owned();
        let reference = texts.get(&(REFERENCE.to_owned(), 0, row.prompt_id.clone(), sample));
        let (Some((prompt, policy)), Some((_, baseline))) = (own, reference) else {
            let message = format!("{} lacks the completions that it judges", completions.display());
            return Err(row.place.error(judgments, &message).help("both files come from one report"));
        };
        row.set_text(Some(prompt), policy, baseline);
    }
    Ok(())
}
