//! What a suite reads from files, split into files of its own: rows come and go one chunk at a time.

use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::data::audit::{LongPrompts, check_length, in_chunks};
use crate::data::files::{JsonlFile, Labels, write_jsonl};
use crate::data::sources::{self, FileRow};
use crate::data::split::{Place, Splitter};
use crate::data::template::ChatTemplate;
use crate::data::tokenize::TextTokenizer;
use crate::data::{AuditItem, Prompt};
use crate::error::{Error, Result};
use crate::suite::Suite;
use crate::suite::settings::PairsSettings;

/// What reading a suite's rows takes.
pub struct Reading<'a> {
    pub suite: &'a Suite,
    pub settings: &'a PairsSettings,
    pub template: Option<&'a ChatTemplate>,
    pub tokenizer: &'a TextTokenizer,
    /// Tokens that the model can hold; with none, long prompts are no error.
    pub context: Option<usize>,
}

/// Where the suite has an [sft] table it imitates these: the chosen sides of the training pairs, or their desirable completions.
pub const DEMONSTRATIONS: &str = "demonstrations.jsonl";
pub const TRAIN: &str = "train_pairs.jsonl";
pub const HELDOUT: &str = "heldout_pairs.jsonl";
pub const JUDGE: &str = "judge_pairs.jsonl";
pub const EVAL: &str = "eval_prompts.jsonl";
/// The names of all files.
pub const FILES: [&str; 5] = [DEMONSTRATIONS, TRAIN, HELDOUT, JUDGE, EVAL];

/// The files being written.
struct Writing<'a> {
    splitter: Splitter<'a>,
    demonstrations: JsonlFile,
    rows: [(Place, JsonlFile); 3],
    /// Of the training rows.
    labels: Labels,
}

impl<'a> Writing<'a> {
    fn into(folder: &Path, settings: &'a PairsSettings) -> Result<Self> {
        let create = |name: &str| JsonlFile::create(&folder.join(name));
        let rows = [(Place::Train, create(TRAIN)?), (Place::Heldout, create(HELDOUT)?), (Place::Judge, create(JUDGE)?)];
        let demonstrations = create(DEMONSTRATIONS)?;
        Ok(Self { splitter: Splitter::new(settings)?, demonstrations, rows, labels: Labels::default() })
    }

    fn add<R: FileRow + Serialize>(&mut self, row: &R) -> Result<()> {
        let place = self.splitter.place(row);
        if place == Place::Train {
            row.label().into_iter().for_each(|label| self.labels.add(label));
            row.demonstration().iter().try_for_each(|demonstration| self.demonstrations.add(demonstration))?;
        }
        let file = self.rows.iter_mut().find(|(of, _)| *of == place);
        file.map_or(Ok(()), |(_, file)| file.add(row))
    }

    fn finish(self) -> Result<(Vec<Prompt>, Labels)> {
        self.demonstrations.finish()?;
        self.rows.into_iter().try_for_each(|(_, file)| file.finish())?;
        Ok((self.splitter.finish()?, self.labels))
    }
}

impl Reading<'_> {
    /// Reads and splits all rows into files in `folder`. Returns what was left out or looks odd.
    pub fn split_into<R: FileRow + Serialize + Sync>(&self, folder: &Path) -> Result<Vec<AuditItem>> {
        let mut long = self.settings.max_prompt_length.map(|longest| LongPrompts::above(longest, R::UNIT));
        let mut writing = Writing::into(folder, self.settings)?;
        let mut put = |rows: &[R]| -> Result<()> {
            let lengths: Vec<usize> = rows.par_iter().map(|row| self.tokenizer.prompt(row.prompt()).len()).collect();
            for (row, length) in rows.iter().zip(lengths) {
                if long.as_mut().is_some_and(|long| !long.keeps(row.id(), length)) {
                    continue;
                }
                if let Some(context) = self.context {
                    check_length(row.id(), length, context, 1).map_err(|e| self.about(e))?;
                }
                writing.add(row)?;
            }
            Ok(())
        };
        let mut items = in_chunks(&mut put, |give| sources::each(self.suite, self.settings, self.template, give))?;
        if let Some(long) = long {
            items.push(long.item().map_err(|e| self.about(e))?);
        }
        let (eval, labels) = writing.finish()?;
        write_jsonl(&folder.join(EVAL), &eval)?;
        labels.both("rows of the training split").map_err(|e| self.about(e))?;
        Ok(items)
    }

    /// An error about rows, with their file where there is one.
    fn about(&self, error: Error) -> Error {
        match self.settings.sources.is_empty() {
            true => error.in_file(self.suite.locate_data(&self.settings.path)),
            false => error,
        }
    }
}
